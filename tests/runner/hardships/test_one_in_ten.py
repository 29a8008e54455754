"""One trial of ten goes wrong: it says why, the study has its total, and the others are what they would have been."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hard_studies import TOTAL, Outcomes, outcomes, run
from optuna.trial import Trial, TrialState
from small_searches import Place

from optuna_kd.objective import DistillationObjective
from optuna_kd.pruners import REJECT_REASON
from optuna_kd.study import FAIL_REASON, count_finished
from optuna_kd.training import StudentTraining

pytestmark = pytest.mark.usefixtures("quiet_optuna")

UNLUCKY = 3  # the number of the trial
CPU = "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes."


def strike(monkeypatch: pytest.MonkeyPatch, misfortune: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let a misfortune befall the loss terms of the second step, and of all that follow, of one trial."""
    attempt, compare, running = DistillationObjective.attempt, StudentTraining.compare, [-1]

    def notes(self: DistillationObjective, trial: Trial) -> Iterator[Any]:
        running[0] = trial.number
        return (yield from attempt(self, trial))

    def compared(self: StudentTraining, *arguments: Any) -> dict[str, Any]:
        terms = compare(self, *arguments)
        return misfortune(terms) if running[0] == UNLUCKY and self._steps > 0 else terms

    monkeypatch.setattr(DistillationObjective, "attempt", notes)
    monkeypatch.setattr(StudentTraining, "compare", compared)


def raises(error: Exception) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def misfortune(terms: dict[str, Any]) -> dict[str, Any]:
        raise error

    return misfortune


@pytest.mark.parametrize(
    ("misfortune", "reason"),
    [
        (lambda terms: {**terms, "logits": terms["logits"] * float("nan")}, "non-finite loss: logits is nan"),
        (lambda terms: {**terms, "logits": terms["logits"] * float("inf")}, "non-finite loss: logits is inf"),
        (raises(torch.OutOfMemoryError("CUDA out of memory.")), "out of memory with 8 of 32 images at a time"),
        (raises(RuntimeError(CPU)), "out of memory with 8 of 32 images at a time"),
        (raises(MemoryError()), "out of memory with 8 of 32 images at a time"),
    ],
    ids=["not a number", "infinite", "memory of a GPU", "memory of the CPU", "memory of Python"],
)
def test_a_training_that_cannot_go_on(
    task: Any, undisturbed: Outcomes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misfortune: Any, reason: str
) -> None:
    strike(monkeypatch, misfortune)
    study = run(task, f"sqlite:///{tmp_path / 'kd.db'}", checkpoints=tmp_path / "checkpoints")
    assert len(study.trials) == count_finished(study) == TOTAL
    unlucky = study.trials[UNLUCKY]
    assert (unlucky.state, unlucky.user_attrs[REJECT_REASON]) == (TrialState.PRUNED, reason)
    assert [trial.number for trial in study.trials if REJECT_REASON in trial.user_attrs] == [UNLUCKY]
    found = outcomes(study)
    found.pop(UNLUCKY, None)
    assert found == {number: undisturbed[number] for number in range(TOTAL) if number != UNLUCKY}
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_an_exception(task: Any, undisturbed: Outcomes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strike(monkeypatch, raises(ZeroDivisionError("out of luck " + 2000 * "!")))
    study = run(task, f"sqlite:///{tmp_path / 'kd.db'}", checkpoints=tmp_path / "checkpoints", catch=ZeroDivisionError)
    assert count_finished(study) == TOTAL
    assert len(study.trials) == TOTAL + 1  # a failed one holds no place
    unlucky = study.trials[UNLUCKY]
    assert unlucky.state == TrialState.FAIL
    assert unlucky.user_attrs[FAIL_REASON].startswith("ZeroDivisionError('out of luck !!!")
    assert len(unlucky.user_attrs[FAIL_REASON]) == 1000
    assert [trial.number for trial in study.trials if FAIL_REASON in trial.user_attrs] == [UNLUCKY]
    assert outcomes(study) == {number: undisturbed[number] for number in range(TOTAL + 1) if number != UNLUCKY}
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_an_exception_in_a_whole_search(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = outcomes(place.search(trials=5, storage=None).study)
    strike(monkeypatch, raises(ZeroDivisionError("out of luck")))
    study = place.search(trials=4).study
    assert count_finished(study) == 4
    assert study.trials[UNLUCKY].user_attrs[FAIL_REASON] == "ZeroDivisionError('out of luck')"
    assert outcomes(study) == {number: undisturbed[number] for number in (0, 1, 2, 4)}
