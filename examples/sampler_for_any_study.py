"""The Monte Carlo tree search sampler in a study that has nothing to do with distillation.

It takes any define-by-run space and treats it as a tree, so a choice that decides which parameters follow is
where it is at home. No torch is involved.
"""

from __future__ import annotations

from collections import Counter

import optuna
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from optuna_kd.samplers import UCT, MCTSSampler

IMAGES, LABELS = load_digits(n_class=10, return_X_y=True)


def suggest_classifier(trial: optuna.Trial) -> ClassifierMixin:
    kind = trial.suggest_categorical("kind", ["svm", "forest", "neighbours"])
    if kind == "svm":
        c = trial.suggest_float("c", 1e-1, 1e2, log=True)
        return SVC(C=c, gamma=trial.suggest_float("gamma", 1e-4, 1e-1, log=True))
    if kind == "forest":
        return RandomForestClassifier(20, max_depth=trial.suggest_int("depth", 2, 16), random_state=0)
    weights = trial.suggest_categorical("weights", ["uniform", "distance"])
    return KNeighborsClassifier(trial.suggest_int("k", 1, 30), weights=weights)


def objective(trial: optuna.Trial) -> float:
    return cross_val_score(suggest_classifier(trial), IMAGES[:600], LABELS[:600], cv=3).mean()


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = MCTSSampler(seed=0, selection=UCT(exploration=1.0))  # C of the upper confidence bound; 0.5 by default
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=40)
    print(f"best accuracy {study.best_value:.3f} with {study.best_params}")
    for kind, visits in Counter(trial.params["kind"] for trial in study.trials).most_common():
        print(f"{visits:>3} of {len(study.trials)} trials tried {kind}")
