"""Running studies: workers, controls, trials, confirmation, full trainings, progress."""

from optuna_kd.runner.main_job import Plan, parse_duration, search
from optuna_kd.runner.result import Row, SearchResult
from optuna_kd.runner.teacher import TeacherError, check_teacher

__all__ = ["Plan", "Row", "SearchResult", "TeacherError", "check_teacher", "parse_duration", "search"]
