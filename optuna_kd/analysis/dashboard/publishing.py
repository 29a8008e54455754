"""Publishing a study: its figures, its notes and the name of what it maximises, for whoever opens the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.study import Study

from optuna_kd.analysis.dashboard.cards import CARDS, FITTED, card_of, draw_card
from optuna_kd.analysis.dashboard.sheet import Sheet
from optuna_kd.analysis.dashboard.study_note import study_note
from optuna_kd.analysis.dashboard.trial_notes import trial_notes
from optuna_kd.analysis.figures import Fit
from optuna_kd.analysis.table import TrialTable, read_table
from optuna_kd.storages import StorageError, quietly, show_storage
from optuna_kd.storages.reading import UNREADABLE
from optuna_kd.storages.transient import reason_of
from optuna_kd.study.findings import count_finished
from optuna_kd.study.settings import SETTINGS

PUBLISHED = "optuna_kd:published"  # system attribute of a study: finished trials when it was published, by kind


def publish(study: Study, *, whole: bool = True) -> None:
    """Write figures and notes into a study, where stock optuna-dashboard shows them.

    Cards: the figures of `optuna_kd.analysis.figures` that have something to show. Notes: one of the study, and one of
    each trial that is worth a look (the best, the front, the confirmed, the first that were rejected and failed). What
    was published before is replaced; notes that a person has written or changed stay. A study of ours with one
    objective gets the metric name "reward".

    Args:
        study: Any study, also one that is running.
        whole: Draw also the figures of importance and of options, which need a fit.

    Raises:
        StorageError: If the storage cannot be written.

    Example:
        >>> study.optimize(objective, n_trials=100)
        >>> publish(study)
    """
    try:
        _publish(study, whole=whole)
    except UNREADABLE as error:
        where = show_storage(study._storage)
        raise StorageError(f"{where} cannot be written: {reason_of(error)}.") from None


def published(study: Study, *, whole: bool) -> int:
    """Give how many trials were finished when a study was published last, with everything or without what is fitted."""
    stored: Mapping[str, Any] = study._storage.get_study_system_attrs(study._study_id).get(PUBLISHED, {})
    return int(stored.get("whole" if whole else "finished", 0))


def _publish(study: Study, *, whole: bool) -> None:
    if study.metric_names is None and SETTINGS in study.user_attrs and len(study.directions) == 1:
        with quietly():
            study.set_metric_names(["reward"])
    finished = count_finished(study)  # before the trials are read: there may be more by then, but not less
    table, sheet = read_table(study), Sheet(study)
    _draw(sheet, table, whole=whole)
    sheet.write_note(study_note(table, study, sheet.artifacts()))
    notes = trial_notes(table, study)
    trials = {trial.number: trial for trial in (*table.trials, *table.others)}
    for trial in sheet.noted(list(trials.values())):
        if trial.number not in notes:
            sheet.write_note("", trial)  # no longer the best, no longer on the front
    for number, text in notes.items():
        sheet.write_note(text, trials[number])
    before = sheet.get(PUBLISHED, {})
    sheet.set(PUBLISHED, {**before, "finished": finished, **({"whole": finished} if whole else {})})
    sheet.write()


def _draw(sheet: Sheet, table: TrialTable, *, whole: bool) -> None:
    fit = Fit(table)
    for name, card in CARDS.items():
        if name in FITTED and not whole:
            continue
        chart = draw_card(name, fit)
        if not chart.is_empty or sheet.has_card(card):
            sheet.draw(card, card_of(chart))
