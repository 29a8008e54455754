"""See a search: figures of a study, each with a sentence for those who do not see it. Nothing is trained here.

The study stands for any of yours: a choice that decides which parameters follow, two objectives, and trials that are
stopped early. `optuna_kd.visualization` gives plotly figures; `optuna_kd.analysis.figures` gives the same with their
words and numbers. For an image instead of a page: `figure.write_image("history.svg", width=900)`, with Kaleido.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path

import optuna

from optuna_kd.analysis import read_table
from optuna_kd.analysis.figures import CHARTS
from optuna_kd.pruners import ParetoHalvingPruner, report, should_prune
from optuna_kd.visualization import plot_pareto_front

EPOCHS = (2, 4, 8, 16)


def objective(trial: optuna.Trial) -> tuple[float, float]:
    width = trial.suggest_int("width", 4, 128, log=True)
    error = 0.4 / math.log2(width)
    if trial.suggest_categorical("distance", ["kl", "l2"]) == "kl":
        temperature = trial.suggest_float("temperature", 1, 16, log=True)
        error += 0.02 * abs(math.log2(temperature / 4))
    else:
        error += 0.05
    for epoch in EPOCHS:
        report(trial, {"error": error + 0.5 / epoch, "parameters": width**2}, epoch)
        if should_prune(trial):
            raise optuna.TrialPruned
    return error, width**2


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler, pruner=ParetoHalvingPruner())
    study.set_metric_names(["error", "parameters"])
    study.optimize(objective, n_trials=100)

    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory) / "front.html"
        plot_pareto_front(study).write_html(page, include_plotlyjs="cdn")
        print(f"{page.name} has {page.stat().st_size / 1000:.0f} kB\n")

    table = read_table(study)  # once, for all figures
    for name, draw in CHARTS.items():
        chart = draw(table)
        print(f"{name}: {chart.summary}\n")
