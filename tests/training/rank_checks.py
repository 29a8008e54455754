"""What two ranks do together in the tests; each function runs on both and gives plain JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from rank_tasks import KD, PROXY, Net, Slice, close, gradients, next_lesson, numbers, small_task
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from optuna_kd.distillers import DISTANCES, TRANSFORMS, InvalidChainError, build_term
from optuna_kd.models import checksum
from optuna_kd.models.knowledge import Observer
from optuna_kd.recipe import DistillerConfig, OpConfig, ProxyConfig, Recipe, TermConfig
from optuna_kd.training import LossRejected, RankFailedError, StudentTraining, distill, join_ranks, store_knowledge
from optuna_kd.training.distributed import ManyRanks
from optuna_kd.training.lesson import Rung
from optuna_kd.training.ranks import ALONE, Ranks
from optuna_kd.training.together import learn_together, next_rung

# Two processes and one ---------------------------------------------------------------------------------------------


def train_as_alone(ranks: Ranks, recipe: str, changes: dict[str, Any], config: dict[str, Any]) -> None:
    """Rungs, weights and statistics are those of one process, up to the order of sums."""
    changes = dict(changes)
    stored, sparsity = changes.pop("stored", False), changes.pop("sparsity", 0.0)
    task = small_task(**changes)
    parsed = Recipe.from_string(recipe)
    parsed = dataclasses.replace(parsed, distiller=dataclasses.replace(parsed.distiller, **config))
    more: dict[str, Any] = {"seed": 3, "knowledge": store_knowledge(task) if stored else None}
    proxy = dataclasses.replace(PROXY, sparsity=sparsity)
    alone, together = (StudentTraining(task, parsed, proxy, ranks=one, **more) for one in (ALONE, ranks))
    for wanted, found in zip(alone.run(), together.run(), strict=True):
        close(numbers(found), numbers(wanted))
    close(together.student.state_dict().values(), alone.student.state_dict().values())
    close(together.distiller.buffers(), alone.distiller.buffers())
    assert ranks.agree(lambda: checksum(together.student)) == checksum(together.student)


def same_start(ranks: Ranks) -> str:
    """Begin with the student of rank 0, whatever the others have made; give its checksum."""

    def careless() -> nn.Module:
        made = Net(normalised=True)
        for tensor in made.state_dict().values():
            tensor += ranks.rank
        return made

    return checksum(StudentTraining(small_task(student=careless), KD, PROXY, seed=0, ranks=ranks).student)


def exchange(ranks: Ranks) -> list[Any]:
    """Add up gradients that are there on both, on rank 1 alone, and on none; give them, and the terms."""
    both, one, none, half = (nn.Parameter(torch.ones(2, dtype=kind)) for kind in 3 * [torch.float32] + [torch.float16])
    add_up = ranks.exchange([both, one, none, half], ["first", "second"])

    def backward(scale: float) -> dict[str, Tensor]:
        both.grad, one.grad = torch.full((2,), scale * (1.0 + ranks.rank)), None
        if ranks.rank == 1:
            one.grad = torch.tensor([5.0, scale])
        half.grad = torch.full((2,), 0.5, dtype=torch.float16)
        return {"second": torch.tensor(10.0 * scale), "first": torch.tensor(0.25 + ranks.rank)}

    first = add_up(lambda: backward(1.0))
    terms = add_up(lambda: backward(2.0))
    assert {name: float(value) for name, value in first.items()} == {"first": 1.5, "second": 20.0}  # is not overwritten
    assert none.grad is None
    found = [one_of.grad.tolist() for one_of in (both, one, half) if one_of.grad is not None]
    return [found, {name: float(value) for name, value in terms.items()}]


def gradients_of_every_term(ranks: Ranks) -> list[str]:
    """Each term alone gives the gradient that its slices give in one process, and it is one; adapters included."""
    task, plain = small_task(channels=12), None
    names = []
    for term in every_term():
        recipe = Recipe(DistillerConfig((term,) if term else ()))
        try:
            found = gradients(StudentTraining(task, recipe, PROXY, seed=1, ranks=ranks))
        except InvalidChainError:
            continue
        slices = [gradients(StudentTraining(task, recipe, PROXY, seed=1, ranks=Slice(rank))) for rank in range(2)]
        close(found, [sum(both) for both in zip(*slices, strict=True)])
        if plain is None:
            plain = found  # of the labels
            continue
        effect = sum(float((mine - other).abs().sum()) for mine, other in zip(found, plain, strict=False))
        assert effect > 1e-6, recipe
        names.append(str(recipe))
    return names


def every_term() -> Iterator[TermConfig | None]:
    """No term, each distance on all that it takes, and each transform before one of them."""
    yield None
    for name, info in DISTANCES.items():
        for knowledge in info.knowledge:
            yield TermConfig(knowledge, OpConfig(name), weight=3.0)
    for name, info in TRANSFORMS.items():
        knowledge = "features" if "map" in info.takes else "logits"
        with contextlib.suppress(InvalidChainError):
            term = TermConfig(knowledge, OpConfig("gl2"), weight=3.0, transforms=(OpConfig(name),))
            build_term(term)
            yield term


def gradients_of_torchs_wrapper(ranks: Ranks) -> None:
    """`DistributedDataParallel` around a student that is observed averages to the same, every term included."""
    task = small_task(student=functools.partial(Net, normalised=True))
    found = StudentTraining(task, KD, PROXY, seed=1, ranks=ranks)
    wanted = StudentTraining(task, KD, PROXY, seed=1, ranks=Slice(ranks.rank))
    wrapped = DistributedDataParallel(wanted.student)
    wanted.observer = Observer(wrapped, ["maps"])
    lesson = next_lesson(wanted)
    lesson.share = 1.0  # it divides by the number of ranks itself
    with mock.patch.object(wanted, "update"):
        lesson.learn()
    close(gradients(found), [one.grad for one in wanted.parameters])


def statistics(ranks: Ranks) -> None:
    """After an epoch, running statistics are the means of what the ranks have seen, weighted by their shares."""
    task = small_task(student=functools.partial(Net, normalised=True), batch_size=15)
    found = StudentTraining(task, KD, PROXY, seed=1, ranks=ranks)
    events = found.lessons()
    for event in events:
        if isinstance(event, Rung):
            break
        mine = [buffer.clone() for buffer in found.student.buffers()]
        event.learn()
        mine = [buffer.clone() for buffer in found.student.buffers()]
    mean, variance, steps = (buffer.clone() for buffer in found.student.buffers())
    share = 8 / 15 if ranks.leads else 7 / 15
    close([mean.double(), variance.double()], [ranks.sum(share * one) for one in mine[:2]])
    assert int(steps) == found.steps_per_epoch


def draws(ranks: Ranks) -> list[Any]:
    """Take a step with dropout and masks; give the seed of the one, and the state of the generator of the other.

    Terms that are scaled at first need a pass of their own for that, which leaves no trace.
    """
    task = small_task(student=functools.partial(Net, dropout=0.5, normalised=True))
    states = []
    for normalise in ("none", "initial"):
        config = dataclasses.replace(Recipe.from_string("mask|l2*1").distiller, normalise=normalise)
        training = StudentTraining(task, Recipe(config), PROXY, seed=1, ranks=ranks)
        lesson = next_lesson(training)
        lesson.learn()
        states.append(training.distiller.generator.get_state().tolist())
        assert dict(training.student.named_buffers())["maps.1.num_batches_tracked"] == 1
    assert states[0] == states[1]
    return [lesson.seed(), states[0]]


# Decisions ---------------------------------------------------------------------------------------------------------


def agreements(ranks: ManyRanks) -> list[str]:
    """Decide on rank 0, well and badly; give how it fails here."""
    assert ranks.agree(lambda: {"rank": ranks.rank, "nothing": None, "infinite": float("inf")}) == {
        "rank": 0, "nothing": None, "infinite": float("inf"),
    }  # fmt: skip
    assert ranks.agree(lambda: torch.tensor(True)) is True  # pruners give NumPy's
    assert [ranks.any(ranks.rank == one) for one in (0, 1, 2)] == [True, True, False]
    said = []
    for decide in (_reject, _fail, object):
        try:
            ranks.agree(decide)
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    for which in (0, 1):
        try:
            with ranks.together():
                if ranks.rank == which:
                    _fail()
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    assert ranks.agree(lambda: 1) == 1  # and the ranks are in step
    return said


def _reject() -> None:
    raise LossRejected("too large")


def _fail() -> None:
    raise KeyError("made up")


def other_facts(ranks: Ranks) -> str:
    try:
        ranks.require_same(lambda: {"epochs": 3, "data": f"abc{ranks.rank}"})
    except (ValueError, RankFailedError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def devices(ranks: ManyRanks) -> list[str]:
    found = [ranks.device("cpu")]
    with mock.patch.object(torch.cuda, "is_available", return_value=False):
        found.append(ranks.device("auto"))
    for count, name in ((2, "auto"), (2, "cuda"), (1, "cuda"), (2, "cuda:1"), (2, "mps")):
        with (
            mock.patch.object(torch.cuda, "is_available", return_value=True),
            mock.patch.object(torch.cuda, "set_device"),
            mock.patch.object(torch.cuda, "device_count", return_value=count),
        ):
            try:
                found.append(ranks.device(name))
            except ValueError as error:
                found.append(str(error))
    return found


def same_group_again(ranks: Ranks) -> None:
    """A process group that is there is used, and outlives it."""
    with join_ranks() as others:
        assert (others.rank, others.size) == (ranks.rank, 2)
        assert others.agree(lambda: "first") == "first"
    assert ranks.agree(lambda: "second") == "second"


def side_by_side(ranks: Ranks) -> None:
    """Several trainings at once are as each alone; none of them is stacked."""
    task = small_task()

    def outcomes(which: Ranks) -> list[Any]:
        attempts = (
            next_rung(StudentTraining(task, KD, ProxyConfig(epochs=1), seed=seed, ranks=which).lessons())
            for seed in range(2)
        )
        return [outcome for _, outcome in sorted(learn_together(attempts, most=2), key=lambda pair: pair[0])]

    for found, wanted in zip(outcomes(ranks), outcomes(ALONE), strict=True):
        assert isinstance(found, Rung), found
        close(numbers(found), numbers(wanted))


def whole_distillation(ranks: Ranks, folder: str) -> Any:
    """Distil in full with the teacher of rank 0; give what came of it."""
    task = small_task(student=functools.partial(Net, normalised=True))
    if not ranks.leads:
        with torch.no_grad():
            for parameter in task.teacher.parameters():
                parameter.zero_()
    told: list[int] = []
    result = distill(task, KD, epochs=2, seeds=2, ranks=ranks, on_run=lambda run: told.append(run.seed))
    if ranks.leads:
        result.save(folder)
    runs = [dataclasses.replace(run, seconds=0.0) for run in result.runs]
    return [checksum(result.student), [dataclasses.asdict(run) for run in runs], told, checksum(task.teacher)]


def trials(ranks: Ranks, count: int) -> list[Any]:
    """An Optuna study whose trials are trained by all ranks: rank 0 owns it, the others follow."""
    task = small_task()
    knowledge = store_knowledge(task)
    ended: list[Any] = []

    def train(text: str, seed: int, ends: Callable[[Rung], bool]) -> Rung:
        recipe = Recipe.from_string(text)
        training = StudentTraining(task, recipe, PROXY, seed=seed, knowledge=knowledge, ranks=ranks)
        *_, last = training.run(ends)
        ended.append([text, last.epoch, round(last.metrics.cross_entropy, 4)])
        return last

    if not ranks.leads:
        while (order := ranks.agree(lambda: None)) is not None:
            train(*order, ends=lambda _: False)
        return ended

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        text = ranks.agree(lambda: [f"kl@4*{trial.suggest_float('weight', 0.1, 10):.3g}", trial.number])

        def prune(rung: Rung) -> bool:
            trial.report(rung.metrics.cross_entropy, rung.epoch)
            return trial.should_prune()

        last = train(*text, ends=prune)
        if last.epoch < PROXY.epochs:
            raise optuna.TrialPruned
        return last.metrics.cross_entropy

    pruner = optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=count)
    ranks.agree(lambda: None)
    states = {trial.state.name for trial in study.trials}
    assert states == {"COMPLETE", "PRUNED"}
    return ended
