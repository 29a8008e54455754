"""From a study to its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from optuna.study import Study
from optuna.trial import TrialState

from optuna_kd.analysis.advice import guidance
from optuna_kd.analysis.closing import read_closing
from optuna_kd.analysis.figures import Fit, draw_all
from optuna_kd.analysis.figures.seeds import draw_seeds
from optuna_kd.analysis.figures.wording import count, plain
from optuna_kd.analysis.report.found import Snippet, what_was_found
from optuna_kd.analysis.report.report import Report
from optuna_kd.analysis.report.searched import count_states, facts_about
from optuna_kd.analysis.report.snippets import search_command, show_commands
from optuna_kd.analysis.rules import check_rules
from optuna_kd.analysis.table import TrialTable, read_table
from optuna_kd.cards import CardError, RecipeCard, installed_versions, now
from optuna_kd.storages import show_storage
from optuna_kd.study import COMMAND, SETTINGS
from optuna_kd.study.findings import CONFIRMED
from optuna_kd.study.inspecting import card_of, search_beside

_REASON = 300  # characters


def build_report(study: Study, *, storage: str | None = None) -> Report:
    """Put together what a study says: what was searched, what was found, whether it is real, and pictures of it.

    Nothing is written, and any study will do: of a foreign, an empty or a running one the report says what is missing.

    Args:
        study: Any study; its storage may be read-only.
        storage: Where it is, as the report should say; None is what its storage says of itself, without passwords.
    """
    table = read_table(study)
    card, problem = _card(study)
    closing = read_closing(card) if card is not None else None
    fit = Fit(table)
    seen = table if fit.obstacle else fit.response
    return Report(
        name=study.study_name,
        written=now(),
        missing=tuple(_missing(table, card, problem, search_beside(study))),
        facts=facts_about(study, table, card),
        states=count_states(table),
        found=what_was_found(study, table, card),
        closing=closing,
        seeds=draw_seeds(closing) if closing is not None else None,
        findings=guidance(seen),
        rules=check_rules(seen) if SETTINGS in table.attributes else (),  # of our spaces
        charts=tuple(draw_all(fit).values()),
        repeat=_repeat(table, show_storage(study._storage) if storage is None else storage),
        trained_with=dict(card.versions) if card is not None else {},
        written_with=installed_versions(),
    )


def _card(study: Study) -> tuple[RecipeCard | None, str]:
    try:
        return card_of(study), ""
    except CardError as error:
        return None, f"Its recipe card cannot be read: {plain(error, _REASON)}"


def _missing(table: TrialTable, card: RecipeCard | None, problem: str, search: str | None) -> list[str]:
    """Say what keeps a report from being complete, and what to do about it."""
    if search is not None:
        return [
            f"This study keeps trainings of the search {plain(search)!r}, one a trial. The report of the search says "
            "what they showed."
        ]
    states = Counter(trial.state for trial in (*table.trials, *table.others))
    said = [problem] if problem else []
    if not states:
        said.append("The study has no trials yet.")
    elif not states[TrialState.COMPLETE]:
        said.append("No trial has run to its end, so there is no best one.")
    if running := states[TrialState.RUNNING]:
        trials = "1 trial is" if running == 1 else f"{running:,} trials are"
        said.append(f"{trials} still running: this is how the study is at the moment; a later report will say more.")
    if card is not None:
        return said + _since(table, states[TrialState.COMPLETE])
    if SETTINGS not in table.attributes:
        said.append(
            "This study was not made by optuna_kd. It has no controls and no full trainings over several seeds, so "
            "nothing here can say whether its best trial is more than luck."
        )
    elif not problem:
        said.append(
            "There is no verdict, because the search has not come to its end: then it trains the best recipe and three "
            "controls in full, with the same seeds, and leaves a recipe card. The same search, run again, goes on from "
            "here."
        )
    return said


def _since(table: TrialTable, complete: int) -> list[str]:
    """Say whether the comparison is older than the trials."""
    confirmed = table.attributes.get(CONFIRMED)
    compared = confirmed.get("complete_trials") if isinstance(confirmed, Mapping) else None
    if not isinstance(compared, int) or compared >= complete:
        return []
    return [
        f"The comparison is older than the search: {count(complete - compared, 'trial')} ran to the end since. The "
        "same search, run again, renews it."
    ]


def _repeat(table: TrialTable, storage: str) -> tuple[Snippet, ...]:
    options = table.attributes.get(COMMAND)
    name = table.study_name
    found = []
    if isinstance(options, Mapping):
        found.append(
            Snippet(
                "The command of this search; with another --storage it begins anew",
                "sh",
                search_command(options, name, storage),
            )
        )
    if "://" in storage:
        found.append(Snippet("Look at the study", "sh", show_commands(name, storage)))
    return tuple(found)
