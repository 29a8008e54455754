"""The search is not over yet: its total is one more than it has."""

import optuna

from optuna_kd.samplers.nsga.guide import TOTAL_TRIALS
from optuna_kd.storages import create_storage

study = optuna.load_study(study_name="auto-kd-digits-...", storage=create_storage("sqlite:///optuna_kd.db"))
study.set_user_attr(TOTAL_TRIALS, len(study.trials) + 1)
