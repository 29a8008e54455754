"""Student and recipe scored together: whole trials on real digits, and the rules around them with a stub."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from torch import nn

from optuna_kd import create_study, front, joint_objective
from optuna_kd import optimize as total_optimize
from optuna_kd.joint_objective import JointDistillationObjective
from optuna_kd.models import count_flops, create_student
from optuna_kd.objective import DistillationObjective
from optuna_kd.pruners import REJECT_REASON
from optuna_kd.pruners.reporting import RUNG_VALUES
from optuna_kd.recipe import DistillerConfig, OpConfig, ProxyConfig, Recipe, StudentConfig, TermConfig
from optuna_kd.rewards import Metrics
from optuna_kd.search_space import StudentSpace, UniADSSpace
from optuna_kd.study import RECIPE, TASK, StudyMismatchError, recipe_of, space_of
from optuna_kd.training import ImageClassification, LossRejected
from optuna_kd.training.trainer import Rung, StudentTraining

pytestmark = pytest.mark.usefixtures("quiet_optuna")

Make = Callable[..., ImageClassification]
Factory = Callable[[StudentConfig], nn.Module]
PROXY = ProxyConfig(epochs=2, rungs=(1, 2))
FAMILY = StudentSpace(
    "resnet", {"depth_1": (1, 3), "depth_3": (1, 3), "width": (0.5, 1.0)}, {"depth_2": 1, "base_width": 0.25}
)
ALL = ("cross_entropy", "error", "parameters", "flops", "latency_ms", "budget_gap")
LN_10 = math.log(10)

build: Factory = functools.partial(create_student, num_classes=10, in_channels=1, input_size=8)


@pytest.fixture(scope="module")
def open_task(make_task: Make) -> ImageClassification:
    """A task that learns something in two epochs."""
    return make_task(student=build, batch_size=16, optimizer="adamw", lr=0.01)


@pytest.fixture(scope="module")
def make_open(make_task: Make) -> Make:
    return functools.partial(make_task, batch_size=16, optimizer="adamw", lr=0.01)


def space(**options: Any) -> UniADSSpace:
    return UniADSSpace(**{"student": FAMILY, **options})


PLAIN = space(distiller=False)


def new_study(**arguments: Any) -> optuna.Study:
    return create_study("uniads", **{"storage": None, "seed": 0, "space": PLAIN, **arguments})


class Stub:
    """Takes the place of a training: gives the next cross-entropies of a list, one for each rung."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trained: list[str] = []
        self.scores: Iterator[Sequence[float] | Exception] = itertools.repeat((1.0, 1.0))
        stub = self

        class Training:
            def __init__(self, task: Any, recipe: Recipe, proxy: ProxyConfig, *, seed: int, knowledge: Any) -> None:
                self.proxy = proxy
                stub.trained.append(str(recipe.student))

            def run(self) -> Iterator[Rung]:
                scores = next(stub.scores)
                if isinstance(scores, Exception):
                    raise scores
                for epoch, score in zip(self.proxy.rungs, scores, strict=True):
                    yield Rung(epoch, Metrics(math.exp(-score), score, 0.5, 0.5, 10))

        monkeypatch.setattr(joint_objective, "StudentTraining", Training)
        monkeypatch.setattr(joint_objective, "probe_points", lambda *_: {})  # takes seconds; 4x4 maps have no dead ones


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    return Stub(monkeypatch)


def enqueue(study: optuna.Study, *students: StudentConfig) -> None:
    distiller = Recipe.from_string("kl@4*1").distiller
    for student in students:
        study.enqueue_trial(space_of(study).params(Recipe(distiller, student)))


def optimize(study: optuna.Study, objective: Any, total: int) -> None:
    total_optimize(study, objective, total_trials=total)


def figures(study: optuna.Study) -> list[Any]:
    return [(t.params, t.state, t.values, t.intermediate_values.get(1)) for t in study.trials]


def test_a_trial_carries_all_its_figures(open_task: ImageClassification) -> None:
    study = new_study(objectives=ALL, space=space(), pruner=NopPruner())
    objective = JointDistillationObjective(open_task, proxy=PROXY, budget=5000, max_params=1e6)
    study.optimize(objective, n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    recipe, found = recipe_of(study, trial), trial.user_attrs
    assert recipe.student is not None
    network = build(recipe.student)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert found["parameters"] == parameters
    assert found["flops"] == count_flops(network, torch.zeros(1, 1, 8, 8))
    assert found["latency_ms"] > 0
    assert trial.values == [
        found["cross_entropy"], 1 - found["accuracy"], parameters, found["flops"], found["latency_ms"],
        abs(parameters - 5000) / 5000,
    ]  # fmt: skip
    assert found[RECIPE] == str(Recipe(recipe.distiller))
    assert found["student"]
    assert (found["epochs"], set(found) >= {"cka", "seconds"}) == (2, True)
    assert found[RUNG_VALUES]["2"] == trial.values
    assert [step for step in trial.intermediate_values if step <= 2] == [1, 2]
    assert trial.constraints == {"parameters": parameters / 1e6 - 1}


def test_every_student_of_the_space_can_be_a_trial(open_task: ImageClassification, stub: Stub) -> None:
    study = new_study()
    enqueue(study, *FAMILY.all())
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=8)
    assert len(set(stub.trained)) == 8
    sizes = {trial.user_attrs["parameters"] for trial in study.trials}
    assert sizes == {float(sum(p.numel() for p in build(student).parameters())) for student in FAMILY.all()}


def test_two_runs_of_one_seed_are_equal_and_resume_exactly(open_task: ImageClassification, tmp_path: Path) -> None:
    def run(url: str | None, *totals: int) -> list[Any]:
        for total in totals:  # a new objective and study each time, as after a restart
            study = create_study("uniads", storage=url, study_name="s", seed=4, space=space(), load_if_exists=bool(url))
            optimize(study, JointDistillationObjective(open_task, proxy=PROXY), total)
        return figures(study)

    whole = run(None, 6)
    assert run(f"sqlite:///{tmp_path / 'kd.db'}", 3, 6) == whole
    assert len({str(trial[0]) for trial in whole}) == 6


# Limits: what breaks them is not trained.


def test_a_student_above_a_limit_is_measured_and_not_trained(open_task: ImageClassification, stub: Stub) -> None:
    study = new_study()
    small, large = FAMILY.all()[0], FAMILY.all()[-1]
    enqueue(study, large, small)
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY, max_params=5000, max_flops=1e5), n_trials=2)
    refused, taken = study.trials
    assert stub.trained == [str(small)]
    assert (refused.state, taken.state) == (TrialState.PRUNED, TrialState.COMPLETE)
    sizes = refused.user_attrs
    reason = sizes[REJECT_REASON]
    assert reason.startswith("infeasible: ")
    assert f"{sizes['parameters']:,.0f} parameters, allowed 5,000" in reason
    assert f"{sizes['flops']:,.0f} flops, allowed 100,000" in reason
    assert refused.constraints == {"parameters": sizes["parameters"] / 5000 - 1, "flops": sizes["flops"] / 1e5 - 1}
    assert refused.intermediate_values == {}
    assert {"cross_entropy", "epochs"} & set(sizes) == set()
    assert max(taken.constraints.values()) <= 0
    assert front(study) == [taken]


def test_a_student_exactly_at_the_limit_is_allowed(open_task: ImageClassification, stub: Stub) -> None:
    small = FAMILY.all()[0]
    parameters = sum(parameter.numel() for parameter in build(small).parameters())
    for limit, state in ((parameters, TrialState.COMPLETE), (parameters - 1, TrialState.PRUNED)):
        study = new_study()
        enqueue(study, small)
        study.optimize(JointDistillationObjective(open_task, proxy=PROXY, max_params=limit), n_trials=1)
        assert study.trials[0].state == state


def test_the_latency_of_a_student_is_measured_once_in_a_study(
    open_task: ImageClassification, stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = itertools.count(1.0)
    monkeypatch.setattr(joint_objective, "latency_ms", lambda network, image: next(clock))
    arguments = {"storage": f"sqlite:///{tmp_path / 'kd.db'}", "study_name": "s", "objectives": ("error", "latency_ms")}
    first, second = FAMILY.all()[:2]
    for _ in range(2):  # as after a restart
        study = new_study(**arguments, load_if_exists=True)
        enqueue(study, first, first, second)
        study.optimize(JointDistillationObjective(open_task, proxy=PROXY, max_latency_ms=1.5), n_trials=3)
    assert [trial.user_attrs["latency_ms"] for trial in study.trials] == [1, 1, 2, 1, 1, 2]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED"] * 2
    assert "2 latency_ms, allowed 1.5" in study.trials[2].user_attrs[REJECT_REASON]


def test_one_objective_for_two_studies_measures_in_each(
    open_task: ImageClassification, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What one study has stored must hold in that study, whichever else the objective has seen.
    objective, other = (JointDistillationObjective(open_task, proxy=PROXY) for _ in range(2))
    studies = [new_study(objectives=("error", "latency_ms")) for _ in range(2)]
    for clock, (study, used) in enumerate(((studies[0], objective), (studies[1], other), (studies[1], objective))):
        monkeypatch.setattr(joint_objective, "latency_ms", lambda network, image, clock=clock: float(clock))
        enqueue(study, FAMILY.all()[0])
        study.optimize(used, n_trials=1)
    assert [trial.user_attrs["latency_ms"] for trial in studies[1].trials] == [1, 1]


@pytest.mark.parametrize("name", ["max_params", "max_flops", "max_latency_ms", "budget"])
@pytest.mark.parametrize("limit", [0, -1.5, math.nan])
def test_limits_are_positive(open_task: ImageClassification, name: str, limit: float) -> None:
    arguments: dict[str, Any] = {name: limit}
    with pytest.raises(ValueError, match=r"limit of \w+ must be > 0; got"):
        JointDistillationObjective(open_task, **arguments)


# Students that cannot be built.


class NoMaps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, images: Any) -> Any:
        return self.head(images.flatten(1))


def broken(config: StudentConfig) -> Any:
    kind = config.options["kind"]
    if kind == "raises":
        raise ZeroDivisionError("no such student")
    return {
        "no module": lambda: "a student",
        "classes": lambda: create_student(StudentConfig("resnet8"), num_classes=7, in_channels=1, input_size=8),
        "channels": lambda: create_student(StudentConfig("resnet8"), num_classes=10, in_channels=3, input_size=8),
        "no maps": NoMaps,
        "good": lambda: create_student(StudentConfig("resnet8x0.25"), num_classes=10, in_channels=1, input_size=8),
    }[str(kind)]()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raises", "ZeroDivisionError: no such student"),
        ("no module", "returned str"),
        ("classes", "7 outputs"),
        ("channels", "images of 3 channels"),
        ("no maps", "cannot be built"),
    ],
)
def test_a_student_that_cannot_be_built_is_infeasible(make_open: Make, stub: Stub, kind: str, reason: str) -> None:
    students = StudentSpace("mine", {"kind": ("good", kind)})
    study = new_study(space=UniADSSpace(student=students, distiller=False))
    objective = JointDistillationObjective(make_open(student=broken), proxy=PROXY)
    enqueue(study, students.all()[1], students.all()[0])
    study.optimize(objective, n_trials=2)
    bad, good = study.trials
    assert (bad.state, good.state) == (TrialState.PRUNED, TrialState.COMPLETE)
    assert bad.user_attrs[REJECT_REASON].startswith("infeasible: the student mine(kind=")
    assert reason in bad.user_attrs[REJECT_REASON]
    assert sum(bad.constraints.values()) > 0
    assert bad.values is None
    assert stub.trained == ["mine(kind=good)"]
    assert [trial.number for trial in front(study)] == [1]


def test_a_space_may_begin_with_students_that_cannot_be_built(make_open: Make) -> None:
    # The first student that can be built says what cannot teach on its maps.
    students = StudentSpace("mine", {"kind": ("raises", "good")})
    study = new_study(space=UniADSSpace(student=students))
    JointDistillationObjective(make_open(student=broken), proxy=PROXY).bind(study)
    assert space_of(study) == UniADSSpace(student=students)  # on 4x4 maps and for 10 classes nothing is dead


def test_a_factory_of_ones_own_may_use_any_name(make_open: Make, stub: Stub) -> None:
    """The name and the options are the user's: also the name of a family of this package, with other options."""
    students = StudentSpace("resnet", {"channels": (4, 8)})

    def own(config: StudentConfig) -> nn.Module:
        width = float(str(config.options["channels"])) / 16
        return create_student(StudentConfig(f"resnet8x{width:g}"), num_classes=10, in_channels=1, input_size=8)

    study = new_study(space=UniADSSpace(student=students, distiller=False))
    enqueue(study, *students.all())
    study.optimize(JointDistillationObjective(make_open(student=own), proxy=PROXY), n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert [trial.user_attrs["parameters"] for trial in study.trials] == [
        sum(p.numel() for p in own(student).parameters()) for student in students.all()
    ]


# Losses that cannot be used.


def test_a_rejected_loss_ends_its_trial_and_not_the_study(make_open: Make) -> None:
    study = new_study()
    study.optimize(
        JointDistillationObjective(make_open(student=build, optimizer="sgd", lr=1e6), proxy=PROXY), n_trials=2
    )
    for trial in study.trials:
        assert trial.state == TrialState.PRUNED
        assert "loss" in trial.user_attrs[REJECT_REASON] or "finite" in trial.user_attrs[REJECT_REASON]
        assert "seconds" in trial.user_attrs


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_cross_entropy_that_is_not_finite_is_rejected(
    open_task: ImageClassification, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(StudentTraining, "evaluate", lambda training: Metrics(0.1, value, 0.5, 0.5, 10))
    study = new_study()
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert "non-finite" in trial.user_attrs[REJECT_REASON]
    with pytest.raises(ValueError, match="no complete, feasible trial yet"):
        front(study)


def test_a_loss_that_is_rejected_later_leaves_its_first_rung(
    open_task: ImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exploding:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self) -> Iterator[Rung]:
            yield Rung(1, Metrics(0.5, 1.25, 0.5, 0.5, 10))
            raise LossRejected("exploding loss: features is 1e+05")

    monkeypatch.setattr(joint_objective, "StudentTraining", Exploding)
    study = new_study()
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs[REJECT_REASON] == "exploding loss: features is 1e+05"
    assert trial.user_attrs[RUNG_VALUES] == {"1": [1.25, trial.user_attrs["parameters"]]}
    assert (trial.user_attrs["epochs"], trial.user_attrs["cross_entropy"]) == (1, 1.25)


def test_a_student_no_better_than_guessing_is_rejected_among_better_ones(
    open_task: ImageClassification, stub: Stub
) -> None:
    stub.scores = iter([(1.0, 0.9)] * 5 + [(LN_10 + 0.1, 0.1)])
    study = new_study(pruner=NopPruner())
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=6)
    last = study.trials[-1]
    assert last.state == TrialState.PRUNED
    assert last.user_attrs[REJECT_REASON].startswith("collapsed: a validation cross-entropy of 2.4, guessing has 2.3")
    assert last.user_attrs["epochs"] == 1
    assert [trial.state for trial in study.trials[:5]] == [TrialState.COMPLETE] * 5


def test_a_rung_at_which_everybody_guesses_says_nothing(open_task: ImageClassification, stub: Stub) -> None:
    stub.scores = itertools.repeat((LN_10 + 0.1, 1.0))
    study = new_study(pruner=NopPruner())
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=6)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    stub.scores = itertools.repeat((LN_10 + 0.1, LN_10 + 0.1))  # but at the second rung they did not
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)
    assert study.trials[-1].user_attrs[REJECT_REASON].startswith("collapsed")
    assert study.trials[-1].user_attrs["epochs"] == 2


def test_a_trial_is_pruned_at_its_rung(open_task: ImageClassification, stub: Stub) -> None:
    stub.scores = iter([(1.0, 0.9)] * 4 + [(2.0, 0.1)])
    study = new_study()
    small, large = FAMILY.all()[0], FAMILY.all()[-1]
    enqueue(study, small, small, small, small, large)  # worse, and larger
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=5)
    last = study.trials[-1]
    assert last.state == TrialState.PRUNED
    assert REJECT_REASON not in last.user_attrs
    assert (last.user_attrs["epochs"], last.user_attrs["cross_entropy"]) == (1, 2.0)
    assert list(last.user_attrs[RUNG_VALUES]) == ["1"]


def test_a_smaller_student_goes_on_though_it_is_worse(open_task: ImageClassification, stub: Stub) -> None:
    stub.scores = iter([(1.0, 0.9)] * 4 + [(2.0, 1.9)])
    study = new_study()
    small, large = FAMILY.all()[0], FAMILY.all()[-1]
    enqueue(study, large, large, large, large, small)
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=5)
    assert study.trials[-1].state == TrialState.COMPLETE


def test_a_chain_that_does_not_fit_the_maps_is_rejected(
    open_task: ImageClassification, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joint_objective, "probe_points", lambda *_: {})
    study = new_study(space=space(chain=2))
    # The coarsest scale of 4x4 maps is 1x1, which has no patches.
    terms = tuple(
        TermConfig(kind, OpConfig("mse"), 1.0, ("multiscale", "local") if kind == "features" else ())  # type: ignore[arg-type]
        for kind in ("features", "embeddings", "logits")
    )
    study.enqueue_trial(space_of(study).params(Recipe(DistillerConfig(terms), FAMILY.all()[0])))
    study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)
    (trial,) = study.trials
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs[REJECT_REASON].startswith("cannot teach: ")
    assert "multiscale" in trial.user_attrs[REJECT_REASON]


# What belongs together.


def test_objectives_and_tasks_that_do_not_fit_say_so(open_task: ImageClassification, task: ImageClassification) -> None:
    with pytest.raises(ValueError, match=r"one student.*function that takes a StudentConfig.*DistillationObjective"):
        JointDistillationObjective(task)
    with pytest.raises(ValueError, match=r"still to be chosen: use JointDistillationObjective, or task\.with_student"):
        DistillationObjective(open_task)
    with pytest.raises(ValueError, match="has one student"):
        task.with_student(FAMILY.all()[0])
    with pytest.raises(ValueError, match=r"use task\.with_student"):
        open_task.make_student(0)


def test_a_task_with_one_of_the_students(open_task: ImageClassification) -> None:
    student = FAMILY.all()[3]
    closed = open_task.with_student(student)
    assert (closed.is_open, open_task.is_open) == (False, True)
    assert closed.student_config == student
    assert closed.for_recipe(Recipe()) is closed
    assert open_task.for_recipe(Recipe(student=student)).student_config == student
    assert closed.student_parameters == sum(p.numel() for p in build(student).parameters())
    assert closed.train_set is open_task.train_set
    assert DistillationObjective(closed, proxy=PROXY).task is closed
    with pytest.raises(ValueError, match="names none"):
        open_task.for_recipe(Recipe())


@pytest.mark.parametrize("arguments", [{"method": "auto-kd"}, {"method": "auto-kd", "space": PLAIN}])
def test_a_study_of_one_reward_is_refused(open_task: ImageClassification, arguments: dict[str, Any]) -> None:
    study = create_study(**arguments, storage=None, seed=0)
    with pytest.raises(StudyMismatchError, match=r"create_study\(method='uniads'"):
        JointDistillationObjective(open_task, proxy=PROXY).bind(study)


@pytest.mark.parametrize("where", ["bind", "optimize"])
def test_a_study_of_several_objectives_is_refused_for_one_student(task: ImageClassification, where: str) -> None:
    study, objective = new_study(), DistillationObjective(task, proxy=PROXY)
    with pytest.raises(StudyMismatchError):
        objective.bind(study) if where == "bind" else study.optimize(objective, n_trials=1)


def test_a_space_that_chooses_students_is_refused_for_one_student(task: ImageClassification) -> None:
    # It would train the one student, and say that it had trained the one of the recipe.
    study = create_study("auto-kd", space=space(), storage=None, seed=0)
    with pytest.raises(StudyMismatchError, match="student"):
        DistillationObjective(task, proxy=PROXY).bind(study)


def test_a_space_without_students_is_refused(open_task: ImageClassification) -> None:
    for wrong in (UniADSSpace(student=None), "auto-kd"):
        study = new_study(space=wrong)
        with pytest.raises(StudyMismatchError, match="has no students"):
            study.optimize(JointDistillationObjective(open_task, proxy=PROXY), n_trials=1)


def test_studies_without_the_names_of_objectives_are_refused(open_task: ImageClassification) -> None:
    objective = JointDistillationObjective(open_task, proxy=PROXY)
    foreign = optuna.create_study(directions=["minimize", "minimize"])
    with pytest.raises(
        StudyMismatchError, match=r"2 directions and the metric names \[\]; each direction needs one of"
    ):
        foreign.optimize(objective, n_trials=1)
    foreign.set_metric_names(["cross_entropy", "size"])
    with pytest.raises(
        StudyMismatchError, match=r"'size'.*cross_entropy, error, parameters, flops, latency_ms, budget_g"
    ):
        objective.bind(foreign)
    foreign.set_metric_names(["cross_entropy", "parameters"])
    with pytest.raises(StudyMismatchError, match=r"not made by optuna_kd\.create_study"):
        objective.bind(foreign)


def test_budget_gap_needs_a_budget(open_task: ImageClassification) -> None:
    study = new_study(objectives=("cross_entropy", "budget_gap"))
    with pytest.raises(ValueError, match=r"budget_gap needs a budget: pass budget="):
        JointDistillationObjective(open_task, proxy=PROXY).bind(study)
    assert TASK not in study.user_attrs
    JointDistillationObjective(open_task, proxy=PROXY, budget=1000).bind(study)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"max_params": 2000}, r"parameters.*1000.*asked for.*2000"),
        ({"budget": 9}, "asked for.*budget"),
        ({"max_params": None}, "1000"),
        ({"proxy": ProxyConfig(epochs=3)}, r'"epochs": 2.*"epochs": 3'),
    ],
)
def test_a_study_goes_on_with_the_same_limits_only(
    open_task: ImageClassification, change: dict[str, Any], shown: str
) -> None:
    arguments: dict[str, Any] = {"proxy": PROXY, "max_params": 1000}
    study = new_study()
    JointDistillationObjective(open_task, **arguments).bind(study)
    JointDistillationObjective(open_task, **arguments).bind(study)
    with pytest.raises(StudyMismatchError, match=shown):
        JointDistillationObjective(open_task, **{**arguments, **change}).bind(study)


def test_options_create_the_same_objective_elsewhere(open_task: ImageClassification) -> None:
    objective = JointDistillationObjective(open_task, proxy=PROXY, max_params=9e4, max_latency_ms=3, budget=1e4)
    assert JointDistillationObjective(open_task, **objective.options()).describe() == objective.describe()
    plain = JointDistillationObjective(open_task)
    assert JointDistillationObjective(open_task, **plain.options()).describe() == plain.describe()
    assert (plain.proxy.epochs, plain.proxy.rungs) == (24, (3, 6, 12, 24))  # UniADS, section 4


# Samplers and programs that know nothing of this package.


@pytest.mark.parametrize("sampler", ["uniads", "tpe", "nsga2", "random"])
def test_samplers_meet_pruned_rejected_and_infeasible_trials(
    open_task: ImageClassification, stub: Stub, sampler: str
) -> None:
    good, worse, bad = (1.0, 0.5), (2.0, 1.9), LossRejected("non-finite loss: features is nan")
    stub.scores = itertools.cycle([good, worse, bad, (1.5, 1.4), (3.0, 3.0), good])
    study = new_study(sampler=sampler, space=space())
    objective = JointDistillationObjective(open_task, proxy=PROXY, max_params=12_000)
    optimize(study, objective, 40)
    states = [trial.state for trial in study.trials]
    assert len(states) == 40
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    reasons = {
        trial.user_attrs.get(REJECT_REASON, "pruned").partition(":")[0]
        for trial in study.trials
        if trial.values is None
    }
    assert {"infeasible", "non-finite loss"} <= reasons
    assert len({str(trial.params) for trial in study.trials}) > 20
    assert all(trial.user_attrs["parameters"] <= 12_000 for trial in front(study))


def test_stock_optuna_reads_the_study(open_task: ImageClassification, stub: Stub, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kd.db'}"
    study = new_study(storage=url, study_name="s")
    stub.scores = itertools.cycle([(2.0, 1.5), (1.0, 0.5), (1.5, 1.0)])
    optimize(study, JointDistillationObjective(open_task, proxy=PROXY, max_params=12_000), 6)
    stock = optuna.load_study(study_name="s", storage=url)
    assert stock.metric_names == ["cross_entropy", "parameters"]
    assert {trial.number for trial in stock.best_trials} >= {trial.number for trial in front(study)}
    assert [trial.params for trial in stock.trials] == [trial.params for trial in study.trials]
    assert all(space_of(study).recipe(trial.params) for trial in stock.trials)
    stock.sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=2)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        return 1.0, float(trial.suggest_int("depth_1", 1, 3, step=2))

    stock.optimize(objective, n_trials=3)
    assert len(stock.trials) == 9
