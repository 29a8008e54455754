"""The extended space: which parameters exist depends on earlier choices, and which of them matter.

Nothing is trained: a formula stands in for the reward, so that what the analysis should find is known. A
warm-up, normalised logits and attention are rewarded; the rest is noise.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

import optuna_kd
from optuna_kd.search_space import create_space


def train(recipe: optuna_kd.Recipe, *, seed: int, report: Callable[..., None]) -> float:
    features, *_, logits = recipe.distiller.terms
    reward = 0.3 * any(op.name == "attention" for op in features.transforms)
    reward += 0.3 * any(op.name == "zscore" for op in logits.transforms)
    reward += 2.0 * recipe.distiller.warmup
    return reward + random.Random(seed).gauss(0, 0.05)


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(f"{create_space('auto-kd').size():,} recipes in auto-kd")
    print(f"{create_space('auto-kd-extended').size():,} in auto-kd-extended\n")

    # At random: a sampler that soon tries only good choices leaves nothing to compare them with.
    study = optuna_kd.create_study(storage=None, seed=0, space="auto-kd-extended", sampler="random")
    study.optimize(optuna_kd.FunctionObjective(train), n_trials=300)
    print("best recipe:", optuna_kd.best_recipe(study).to_json(indent=None), "\n")

    asked = Counter(name for trial in study.trials for name in trial.params)
    importances = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    print(f"{'parameter':<28} {'asked':>5} {'importance':>10}")
    for name, importance in importances.items():
        print(f"{name:<28} {asked[name]:>5} {importance:>10.2f}")
