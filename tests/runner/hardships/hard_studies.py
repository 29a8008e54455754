"""Studies of a few short trials that hardships come over, and what they have to end with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import NopPruner

from optuna_kd import DistillationObjective, create_study, optimize
from optuna_kd.recipe import ProxyConfig
from optuna_kd.storages import original_number
from optuna_kd.training.task import ImageClassification

TOTAL = 10
PROXY = ProxyConfig(epochs=3, rungs=(1, 2, 3))
# A whole search, of which a trial depends on the seed and its number alone.
SMALL: dict[str, Any] = {
    "trials": 4,
    "epochs": 1,
    "seeds": 1,
    "confirm": 0,
    "proxy": ProxyConfig(epochs=2, rungs=(1, 2), subset=0.5),
    "sampler": "random",
    "pruner": NopPruner(),
    "study_name": "small",
    "progress": False,
}

Outcomes = dict[int, tuple[dict[str, Any], list[float], dict[int, float]]]


def join(url: str | None) -> optuna.Study:
    """Create or find a study like that."""
    return create_study(
        storage=url, study_name="hard", seed=5, sampler="random", pruner=NopPruner(), load_if_exists=True
    )


def run(
    task: ImageClassification, url: str | None, total: int = TOTAL, checkpoints: Path | None = None, **options: Any
) -> optuna.Study:
    """Run its trials until it has so many."""
    study = join(url)
    objective = DistillationObjective(task, proxy=PROXY, checkpoints=checkpoints)
    optimize(study, objective, total_trials=total, **options)
    return study


def outcomes(study: optuna.Study) -> Outcomes:
    """Give what came of the trials that ran to their end, by the number that they go by."""
    complete = [trial for trial in study.trials if trial.values is not None]
    found = {original_number(trial): (trial.params, trial.values, trial.intermediate_values) for trial in complete}
    assert len(found) == len(complete), "a trial was run twice"
    return found
