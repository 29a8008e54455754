"""Tree search over a space where one choice decides which parameter comes next; runs in a second."""

from __future__ import annotations

from pathlib import Path

import optuna
import optunahub


def objective(trial: optuna.Trial) -> float:
    distance = trial.suggest_categorical("distance", ["kl", "l2"])
    if distance == "kl":
        temperature = trial.suggest_float("temperature", 1, 16, log=True)
        return 1.0 - abs(temperature - 4.0) / 16
    return 0.5 + 0.01 * trial.suggest_int("weight", 1, 10)


if __name__ == "__main__":
    repository = Path(__file__).resolve().parents[2]
    mcts = optunahub.load_local_module("samplers/mcts", registry_root=str(repository))
    study = optuna.create_study(direction="maximize", sampler=mcts.MCTSSampler(seed=0))
    study.optimize(objective, n_trials=50)
    recommended = study.sampler.recommend(study)
    print(f"best value {study.best_value:.3f}; to trust: {recommended.params}")
