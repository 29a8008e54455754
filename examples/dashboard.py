"""Your own study in the dashboard, with figures that know branches, rungs and constraints. Nothing is trained here.

`optuna_kd.publish` writes them into the study; stock `optuna-dashboard` shows them. `optuna-kd dashboard --storage URL`
opens it, with the artifacts of finished searches.
"""

from __future__ import annotations

import math
import tempfile
import threading
import urllib.request
from pathlib import Path

import optuna

import optuna_kd
from optuna_kd.analysis.dashboard import Publisher
from optuna_kd.analysis.dashboard.serving import Dashboard
from optuna_kd.storages import create_storage


def objective(trial: optuna.Trial) -> float:
    width = trial.suggest_int("width", 4, 128, log=True)
    error = 0.4 / math.log2(width)
    if trial.suggest_categorical("distance", ["kl", "l2"]) == "kl":
        error += 0.02 * abs(math.log2(trial.suggest_float("temperature", 1, 16, log=True) / 4))
    else:
        error += 0.05
    for epoch in (2, 4, 8, 16):
        trial.report(error + 0.5 / epoch, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return error


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        storage = create_storage(f"sqlite:///{Path(directory, 'mine.db').as_posix()}")
        study = optuna.create_study(storage=storage, study_name="mine", sampler=optuna.samplers.TPESampler(seed=0))
        study.optimize(objective, n_trials=60, callbacks=[Publisher()])  # while it runs: at most 2 % of the time
        optuna_kd.publish(study)  # and now

        # What the command does; here it is opened for one look, and closed.
        dashboard = Dashboard(storage, artifacts=Path(directory, "artifacts"), port=0, say=print)
        thread = threading.Thread(target=dashboard.run)
        thread.start()
        with urllib.request.urlopen(f"{dashboard.address}/api/studies/1") as answer:
            print(f"{dashboard.address} showed the study with its figures: {len(answer.read()) / 1000:.0f} kB")
        dashboard.stop()
        thread.join()
