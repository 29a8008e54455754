"""What the surrogate's tests share: studies drawn at random, and views of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial

from optuna_kd.samplers.surrogate.slots import Paths, Slots
from optuna_kd.samplers.tree import path_of
from optuna_kd.samplers.view import StudyView


@pytest.fixture(autouse=True)
def _quiet(quiet_optuna: None) -> None:
    pass


def gated(trial: optuna.Trial) -> float:
    """Every kind of parameter; some come in some branches only, one in two of them and in another order."""
    gate = trial.suggest_categorical("gate", ["a", "b", "c"])
    value = {"a": 0.0, "b": 0.5, "c": 1.0}[gate]
    if gate == "a":
        value += trial.suggest_float("rate", 1e-4, 1.0, log=True)
        value += trial.suggest_categorical("flag", [True, False])
    elif gate == "b":
        value += trial.suggest_categorical("flag", [True, False])
        value += trial.suggest_float("rate", 1e-4, 1.0, log=True) + trial.suggest_int("depth", 1, 5) / 5
    value += abs(trial.suggest_float("shift", -2.0, 2.0) - 0.5)
    return value + (trial.suggest_categorical("last", [0, 1, 2, 3]) == 2)


@pytest.fixture(scope="session")
def random_study() -> Callable[..., optuna.Study]:
    """Give a study of trials drawn uniformly."""

    def run(objective: Callable[[optuna.Trial], float] = gated, trials: int = 40, seed: int = 0) -> optuna.Study:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=seed))
        study.optimize(objective, n_trials=trials)
        return study

    return run


@pytest.fixture(scope="session")
def view_of() -> Callable[..., StudyView]:
    """Read a study, or only some of its trials in the order given."""

    def read(study: optuna.Study, trials: Iterable[FrozenTrial] | None = None) -> StudyView:
        view = StudyView()
        view.refresh(study)
        if trials is not None:
            view._clear(study.directions)
            for trial in trials:
                view.evidence.add(trial)
                path = path_of(trial)
                columns = view.log.add(trial.number, path)
                view.structure.add(len(view.log) - 1, path, columns, ended=trial.state.name == "COMPLETE")
        return view

    return read


@pytest.fixture(scope="session")
def named() -> Callable[[Slots, Paths], list[dict[str, Any]]]:
    """Write paths as positions by name, which do not depend on who came first."""

    def write(slots: Slots, paths: Paths) -> list[dict[str, Any]]:
        return [
            {slot.name: position for slot, position in zip(slots, row, strict=False) if not np.isnan(position)}
            for row in paths.positions.tolist()
        ]

    return write
