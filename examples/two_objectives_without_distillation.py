"""Two objectives, pruning and a conditional space in any Optuna study: a scikit-learn model, no distillation.

Wanted are a small error and few parameters. The sampler breeds conditional recipes and screens them with
surrogates; the pruner stops the worse half at each rung, by Pareto rank. The study stays a plain Optuna study.
"""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import optuna
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from optuna_kd.pruners import ParetoHalvingPruner, report, should_prune
from optuna_kd.samplers import UniADSSampler

X, y = load_digits(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(X / 16, y, test_size=0.4, random_state=0)
RUNGS, EPOCHS = [2, 4, 8], 16


def objective(trial: optuna.Trial) -> tuple[float, float]:
    if trial.suggest_categorical("model", ["linear", "mlp"]) == "linear":
        loss = trial.suggest_categorical("loss", ["hinge", "log_loss"])
        alpha = trial.suggest_float("alpha", 1e-6, 1e-1, log=True)
        model = SGDClassifier(loss=loss, alpha=alpha, random_state=trial.number)
        parameters = 64 * 10 + 10
    else:
        layers = trial.suggest_int("layers", 1, 2)
        width = trial.suggest_int("width", 2, 64, log=True)
        rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        activation = trial.suggest_categorical("activation", ["relu", "tanh"])
        hidden = (width,) * layers
        model = MLPClassifier(hidden, activation=activation, learning_rate_init=rate, random_state=trial.number)
        sizes = [64, *hidden, 10]
        parameters = sum((before + 1) * after for before, after in pairwise(sizes))
    error = 1.0
    for epoch in range(1, EPOCHS + 1):
        model.partial_fit(X_train, y_train, classes=np.arange(10))
        if epoch in RUNGS or epoch == EPOCHS:
            error = 1 - model.score(X_val, y_val)
        if epoch in RUNGS:
            report(trial, {"error": error, "parameters": parameters}, epoch)
            if should_prune(trial):
                raise optuna.TrialPruned
    return error, parameters


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore")
    sampler = UniADSSampler(seed=0)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler, pruner=ParetoHalvingPruner())
    study.set_metric_names(["error", "parameters"])
    study.optimize(objective, n_trials=60)
    pruned = len(study.get_trials(states=(optuna.trial.TrialState.PRUNED,)))
    print(f"{pruned} of {len(study.trials)} trials pruned; the front:")
    for trial in sorted(study.best_trials, key=lambda trial: trial.values[1]):
        print(f"  {trial.values[1]:>6.0f} parameters, error {trial.values[0]:.3f}  {trial.params}")
    print("drawn less, because they failed more often:")
    for name, options in sampler.shrinkage(study).items():
        print(f"  {name}: " + ", ".join(f"{option['option']} {option['weight']:.2f}" for option in options[:6]))
