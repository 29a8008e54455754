"""How trainings of two ranks end in the tests; each function runs on both and gives plain JSON."""

from __future__ import annotations

import functools
import logging
import os
import random
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rank_tasks import KD, PROXY, Net, close, small_task
from torch import Tensor

from optuna_kd import stopping
from optuna_kd.distillers import DeadTermError
from optuna_kd.models import checksum
from optuna_kd.recipe import Recipe
from optuna_kd.stopping import TrainingInterrupted
from optuna_kd.training import LossRejected, StudentTraining, store_knowledge
from optuna_kd.training.checkpoint import Checkpoint
from optuna_kd.training.lesson import Rung
from optuna_kd.training.ranks import Ranks

logging.getLogger("optuna_kd").setLevel(logging.ERROR)


def many_ends(ranks: Ranks, rounds: int) -> list[Any]:
    """Train again and again; rank 0 prunes, rank 1 is asked to stop or gets a loss that is no number, all at random."""
    task, chance = small_task(), random.Random(f"rank {ranks.rank}")
    knowledge = store_knowledge(task)
    ends: list[Any] = []
    for number in range(rounds):
        training = StudentTraining(task, KD, PROXY, seed=number, knowledge=knowledge, ranks=ranks)
        compare = training.compare

        def spoiled(*arguments: Any, compare: Any = compare) -> dict[str, Tensor]:
            terms = compare(*arguments)
            if ranks.rank == 1 and chance.random() < 0.02:
                terms["logits"] = terms["logits"] * torch.nan
            return dict(terms)

        reached, how = 0, "over"
        asked = mock.patch.object(stopping, "is_asked", functools.partial(_by_chance, ranks, chance))
        with mock.patch.object(training, "compare", spoiled), asked:
            try:
                for rung in training.run(ends=lambda _: chance.random() < 0.2):
                    reached = rung.epoch
                if reached < PROXY.epochs:
                    how = "pruned"
            except TrainingInterrupted:
                how = "stopped"
            except LossRejected as rejected:
                how = str(rejected)
        ends.append([how, reached, training._steps, checksum(training.student)])
    return ends


def _by_chance(ranks: Ranks, chance: random.Random) -> bool:
    return ranks.rank == 1 and chance.random() < 0.15


def failing(ranks: Ranks, kind: str, rank: int) -> str:
    """Fail on one rank in the third step; give what came of it, and train on together."""
    errors: dict[str, Exception] = {
        "rejected": LossRejected("made up"),
        "dead": DeadTermError({"logits": "(none|kl) is made up"}),
        "bug": KeyError("made up"),
    }
    training = StudentTraining(small_task(), KD, PROXY, seed=0, ranks=ranks)
    compare, calls = training.compare, iter(range(10**6))

    def spoiled(*arguments: Any) -> dict[str, Tensor]:
        if ranks.rank == rank and next(calls) == 2:
            if kind == "nan":
                return {name: value * torch.nan for name, value in compare(*arguments).items()}
            raise errors[kind]
        return compare(*arguments)

    with mock.patch.object(training, "compare", spoiled):
        try:
            list(training.run())
        except Exception as error:
            assert training._steps == 2
            assert len(list(StudentTraining(small_task(), KD, PROXY, seed=0, ranks=ranks).run())) == 3
            return f"{type(error).__name__}: {error}"
    return "nothing"


def short_memory(ranks: Ranks, limits: list[int]) -> Any:
    """Run out of memory; give into how many pieces batches are cut in the end, or the reason why it ended."""
    limit = limits[ranks.rank]
    rich, poor = (small_task(student=functools.partial(Net, limit=most), batch_size=32) for most in (32, limit))
    wanted = StudentTraining(rich, KD, PROXY, seed=0)
    found = StudentTraining(poor, KD, PROXY, seed=0, ranks=ranks)
    try:
        list(found.run())
    except LossRejected as rejected:
        return f"{type(rejected).__name__}: {rejected}"
    list(wanted.run())
    close(found.student.parameters(), wanted.student.parameters())
    return found.pieces


def too_few_images(ranks: Ranks) -> str:
    try:
        StudentTraining(small_task(batch_size=1), KD, PROXY, seed=0, ranks=ranks)
    except ValueError as error:
        return str(error)
    return "nothing"


def short_memory_while_building(ranks: Ranks) -> str:
    task = small_task()
    if ranks.rank == 1:
        task.make_student = mock.Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    try:
        StudentTraining(task, KD, PROXY, seed=0, ranks=ranks)
    except LossRejected as rejected:
        return f"{type(rejected).__name__}: {rejected}"
    return "nothing"


def interrupted(ranks: Ranks, folder: str) -> None:
    """Stop because rank 1 is asked to, and go on from the file of rank 0, bit for bit."""
    task, file = small_task(student=functools.partial(Net, normalised=True, dropout=0.2)), Path(folder) / "a.ckpt"
    recipe = Recipe.from_string("mask|l2*1 + kl@4*1")

    def training() -> StudentTraining:
        mine = file if ranks.leads else file.with_name("nobody-reads-this.ckpt")
        return StudentTraining(task, recipe, PROXY, seed=2, checkpoint=Checkpoint(mine), ranks=ranks)

    undisturbed = training()
    wanted = list(undisturbed.run())
    if ranks.leads:
        file.unlink()
    ranks.any(False)
    first, asked = training(), [False, False, ranks.rank == 1]
    with mock.patch.object(stopping, "is_asked", side_effect=asked):
        try:
            list(first.run())
        except TrainingInterrupted:
            pass
        else:
            raise AssertionError("It was not interrupted.")
    again = training()
    rungs = list(again.run())
    assert [rung.epoch for rung in rungs] == [4]
    assert rungs[-1] == wanted[-1]
    for name, value in undisturbed.state_dict()["student"].items():
        assert torch.equal(value, again.student.state_dict()[name]), name


def die(ranks: Ranks, folder: str) -> str:
    """Rank 1 is killed in a step; give what the other one says."""
    file = Path(folder) / "a.ckpt"
    training = StudentTraining(small_task(), KD, PROXY, seed=0, ranks=ranks, checkpoint=Checkpoint(file))
    try:
        with training.checkpoint.until_the_end():
            for event in training.lessons():
                if isinstance(event, Rung):
                    continue
                if ranks.rank == 1 and event.epoch == 3:
                    os._exit(9)
                event.learn()
    except TrainingInterrupted as lost:
        assert file.exists()
        return f"{type(lost).__name__}: {lost}"
    return "nothing"
