"""More workers for a search that is running: from another terminal, or from another machine."""

from __future__ import annotations

from optuna.study import Study

from optuna_kd.runner.crew import Setup, crew
from optuna_kd.runner.progress import format_seconds
from optuna_kd.runner.trials import TrialPhase
from optuna_kd.study import count_finished
from optuna_kd.trial_checkpoints import sweep_checkpoints


def join(setup: Setup) -> int:
    """Run trials of a study until it has its total, beside whoever else does; give how many it has then.

    Controls, confirmation and full trainings are the work of `search`.
    """
    with crew(setup) as run:
        TrialPhase(run, setup.plan, best_so_far=lambda: _best(setup.study))(0.0)
    sweep_checkpoints(setup.study, setup.checkpoints)
    finished = count_finished(setup.study)
    setup.say.note(f"Done in {format_seconds(run.clock.elapsed())}: the study has {finished} trials.")
    return finished


def _best(study: Study) -> str:
    if len(study.directions) > 1:
        return f"front of {len(study.best_trials)}"
    try:
        return f"best {study.best_value:.4f}"
    except ValueError:
        return "no complete trial yet"
