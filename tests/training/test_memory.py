"""Out of memory: smaller pieces of the same batch, then a trial that ends, and never a dead study."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import optuna
import pytest
import torch
from torch import Tensor, nn

from optuna_kd import DistillationObjective, create_study
from optuna_kd.recipe import ProxyConfig, Recipe
from optuna_kd.training import ImageClassification, OutOfMemory, StudentTraining, accuracy, store_knowledge
from optuna_kd.training.evaluation import evaluate
from optuna_kd.training.memory import is_out_of_memory, memory_guard

PROXY = ProxyConfig(epochs=1)
RECIPE = Recipe.from_string("none|l2*1 + kl@4*1")
CPU = "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes."


class Greedy(nn.Module):
    """Takes no more than so many images at a time; without normalisation, so that pieces of a batch add up."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.seen = limit, [0]
        self.maps = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 10)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and len(images) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.seen.append(len(images))
        logits: Tensor = self.head(self.maps(images).mean((2, 3)))
        return logits


def training(make_task: Callable[..., ImageClassification], limit: int, **arguments: Any) -> StudentTraining:
    task = make_task(student=lambda: Greedy(limit), batch_size=32, optimizer="sgd", lr=0.01)
    return StudentTraining(task, RECIPE, PROXY, seed=0, **arguments)


def test_what_counts_as_short_memory() -> None:
    for error in (
        torch.OutOfMemoryError("x"),
        MemoryError(),
        RuntimeError(CPU),
        RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
    ):
        assert is_out_of_memory(error)
    for other in (
        RuntimeError("shapes differ"),
        RuntimeError("could not create a primitive descriptor for the convolution forward propagation primitive"),
        ValueError("out of memory"),
        KeyError(),
    ):
        assert not is_out_of_memory(other)
    with pytest.raises(OutOfMemory, match="out of memory while testing: MemoryError"), memory_guard("testing"):
        raise MemoryError
    with pytest.raises(RuntimeError, match="shapes differ"), memory_guard("testing"):
        raise RuntimeError("shapes differ")


def test_pieces_of_a_batch_train_as_the_whole(
    make_task: Callable[..., ImageClassification], caplog: pytest.LogCaptureFixture
) -> None:
    whole, pieces = training(make_task, 32), training(make_task, 8)
    caplog.set_level(logging.WARNING)
    whole_losses, piece_losses = (one.train_epoch(0, cycle=(0, 1)) for one in (whole, pieces))
    assert [record.message for record in caplog.records] == [
        "Out of memory: going on with 16 of the 32 images of a batch at a time.",
        "Out of memory: going on with 8 of the 32 images of a batch at a time.",
    ]
    assert isinstance(pieces.student, Greedy)
    assert max(pieces.student.seen) == 8
    for mine, theirs in zip(pieces.student.parameters(), whole.student.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-4)
    assert piece_losses == pytest.approx(whole_losses, rel=1e-3)


def test_pieces_of_less_than_eight_images_are_too_small(make_task: Callable[..., ImageClassification]) -> None:
    with pytest.raises(OutOfMemory, match="out of memory with 8 of 32 images at a time"):
        list(training(make_task, 7).run())


class GreedyAlways(Greedy):
    """Takes no more in evaluation mode either."""

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.limit:
            raise RuntimeError("could not create a primitive")
        return super().forward(images)


@pytest.mark.parametrize("stored", [True, False])
def test_scores_of_pieces_are_those_of_the_whole(
    make_task: Callable[..., ImageClassification], stored: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whole chunks of validation and test images may be more than a batch of the training."""
    task = make_task(student=lambda: Greedy(10**6), batch_size=8)
    knowledge = store_knowledge(task) if stored else None
    whole, short = Greedy(10**6), GreedyAlways(20)
    short.load_state_dict(whole.state_dict())
    assert asdict(evaluate(task, short, knowledge)) == pytest.approx(asdict(evaluate(task, whole, knowledge)), abs=1e-5)
    for part in ("val", "test"):
        assert accuracy(task, short, part) == accuracy(task, whole, part)
    assert max(short.seen) <= 20
    # Said once for every look, not for every chunk.
    assert 1 <= len(caplog.records) <= 3 * 5
    with pytest.raises(OutOfMemory):
        accuracy(task, GreedyAlways(4), "test")


def test_another_error_is_not_hidden(
    make_task: Callable[..., ImageClassification], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = training(make_task, 32)
    monkeypatch.setattr(Greedy, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(broken.run())


def test_a_study_survives(make_task: Callable[..., ImageClassification]) -> None:
    limits = iter([32, *[4] * 3, *[32] * 10])  # the first student is only looked at
    task = make_task(student=lambda: Greedy(next(limits)), batch_size=32)
    study = create_study(storage=None, seed=0, space="feature-only", pruner=optuna.pruners.NopPruner())
    study.optimize(DistillationObjective(task, proxy=PROXY), n_trials=5)
    states = [trial.state.name for trial in study.trials]
    assert "PRUNED" in states
    assert states[-1] == "COMPLETE"
    short = next(trial for trial in study.trials if trial.state.name == "PRUNED")
    assert short.user_attrs["reject_reason"] == "out of memory with 8 of 32 images at a time"
