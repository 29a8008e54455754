"""Two objectives over a space where one choice decides which parameter comes next; runs in a few seconds."""

from __future__ import annotations

from pathlib import Path

import optuna
import optunahub


def objective(trial: optuna.Trial) -> tuple[float, float]:
    depth = trial.suggest_int("depth", 1, 7, step=2)
    loss = 2.0 / depth
    distance = trial.suggest_categorical("distance", ["kl", "l2"])
    if distance == "kl":
        temperature = trial.suggest_float("temperature", 1, 16, log=True)
        loss += abs(temperature - 4.0) / 16
    else:
        loss += 0.5 - 0.01 * trial.suggest_int("weight", 1, 10)
    return loss, float(depth)


if __name__ == "__main__":
    repository = Path(__file__).resolve().parents[2]
    uniads = optunahub.load_local_module("samplers/uniads_nsgaii", registry_root=str(repository))
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=uniads.UniADSSampler(seed=0))
    study.optimize(objective, n_trials=60)
    for trial in sorted(study.best_trials, key=lambda trial: trial.values):
        print(f"loss {trial.values[0]:.3f}, depth {trial.values[1]:.0f}: {trial.params}")
    tallies = uniads.UniADSSampler.shrinkage(study)
    print("weights of 'distance':", {row["option"]: round(row["weight"], 2) for row in tallies["distance"]})
