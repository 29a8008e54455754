"""Prune trials of a study with several objectives, where Optuna's own `trial.report` refuses.

A network of one hidden layer learns a curve, in numpy. Wanted are a small error and few parameters, so there is
not one best trial but a front of them. A trial is judged after 20, 60 and 180 of 540 epochs, against all others that
got as far; one whose error is not finite is rejected at once. No torch is involved; the study stays plain Optuna.
"""

from __future__ import annotations

import time

import numpy as np
import optuna

from optuna_kd.pruners import ParetoHalvingPruner, reason_to_reject, reject, report, should_prune

RUNGS, EPOCHS = [20, 60, 180], 540
X = np.linspace(-1, 1, 128)[:, None]
Y = np.sin(4 * X) + 0.3 * np.cos(15 * X)


def objective(trial: optuna.Trial) -> tuple[float, int]:
    hidden = trial.suggest_int("hidden", 2, 64, log=True)
    rate = trial.suggest_float("rate", 1e-3, 1.0, log=True)
    spread = trial.suggest_float("spread", 0.3, 30.0, log=True)
    draw = np.random.default_rng(trial.number)
    inner, shift = draw.normal(0, spread, (1, hidden)), draw.normal(0, spread, hidden)
    outer = np.zeros((hidden, 1))
    parameters = inner.size + shift.size + outer.size
    for epoch in range(1, EPOCHS + 1):
        active = np.tanh(X @ inner + shift)
        wrong = active @ outer - Y
        error = float(np.mean(wrong**2))
        if reason := reason_to_reject(error):  # a rate that is too high ends in NaN
            raise reject(trial, reason)
        back = wrong @ outer.T * (1 - active**2)
        outer -= rate * active.T @ wrong / len(X)
        inner -= rate * X.T @ back / len(X)
        shift -= rate * back.mean(axis=0)
        if epoch in RUNGS:
            report(trial, [error, parameters], epoch)
            if should_prune(trial):
                raise optuna.TrialPruned
    return error, parameters


def run(pruner: optuna.pruners.BasePruner) -> optuna.Study:
    sampler = optuna.samplers.RandomSampler(seed=0)  # the same trials for both; any sampler will do
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler, pruner=pruner)
    start = time.perf_counter()
    study.optimize(objective, n_trials=60)
    took = time.perf_counter() - start
    pruned = study.get_trials(states=(optuna.trial.TrialState.PRUNED,))
    print(f"{type(pruner).__name__}: {len(pruned)} of {len(study.trials)} trials pruned, {took:.1f} s")
    for trial in sorted(study.best_trials, key=lambda trial: trial.values[1]):
        print(f"   {trial.values[1]:>3.0f} parameters, error {trial.values[0]:.4f}")
    return study


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    np.seterr(over="ignore", invalid="ignore")
    run(optuna.pruners.NopPruner())
    pruned = run(ParetoHalvingPruner(reduction_factor=2)).get_trials(states=(optuna.trial.TrialState.PRUNED,))
    print("a pruned trial leaves behind", pruned[0].user_attrs)
