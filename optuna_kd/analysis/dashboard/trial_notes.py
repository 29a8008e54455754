"""Notes of the trials that are worth a look, in Markdown: why they are, and how to use them."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.analysis.dashboard.wording import snippet
from optuna_kd.analysis.figures.front import front_rows
from optuna_kd.analysis.figures.objective import best_row, name_of
from optuna_kd.analysis.figures.trials import recipe_text
from optuna_kd.analysis.figures.wording import count, number
from optuna_kd.analysis.table import TrialTable
from optuna_kd.cards.showing import code, prose
from optuna_kd.pruners.rejection import REJECT_REASON
from optuna_kd.recipe import canonical
from optuna_kd.study.optimizing import FAIL_REASON
from optuna_kd.study.settings import SETTINGS, space_of

FEW = 3  # rejected trials that are noted, and failed ones
FRONT = 30  # trials of a front that are noted, the nearest to the knee


def trial_notes(table: TrialTable, study: Study) -> dict[int, str]:
    """Write the notes of the trials that are worth a look, by number.

    Args:
        table: The trials.
        study: The study.
    """
    remarks: dict[int, list[str]] = defaultdict(list)
    _note_best(table, remarks)
    _note_confirmed(table, study, remarks)
    trials = {trial.number: trial for trial in (*table.trials, *table.others)}
    notes = {}
    for number_, lines in remarks.items():
        trial = trials[number_]
        text = ["\n\n".join(lines), code(recipe_text(trial))]
        if SETTINGS in table.attributes:
            lines = [f"recipe = recipe_of(study, study.trials[{number_}])", "print(recipe)"]
            text.append(snippet(study, *lines, imports="from optuna_kd.study import recipe_of"))
        notes[number_] = "\n\n".join(text)
    return (
        notes
        | _noted_reasons(list(trials.values()), REJECT_REASON, TrialState.PRUNED, "Rejected")
        | _noted_reasons(list(trials.values()), FAIL_REASON, TrialState.FAIL, "Failed")
    )


def _note_best(table: TrialTable, remarks: dict[int, list[str]]) -> None:
    if len(table.objectives) == 1:
        row = best_row(table, 0)
        if row is not None:
            value = number(float(table.values[row, 0]))
            others = int((~table.pruned).sum()) - 1
            kept = " and keep all constraints" if (~table.feasible).any() else ""
            told = f"none of the {count(others, 'other trial')} that ran to the end{kept} was better"
            remarks[int(table.numbers[row])].append(
                f"### The best so far\n\n{prose(name_of(table, 0))} **{value}**"
                + (f": {told}." if others else ", the only trial that ran to the end.")
            )
        return
    for place, row in enumerate(front_rows(table)[:FRONT].tolist()):
        values = ", ".join(
            f"{prose(name_of(table, column))} **{number(float(value))}**"
            for column, value in enumerate(table.values[row])
        )
        what = (
            "### The knee of the front\n\nOf all trials that nothing beats in every objective, the one nearest to the "
            "best of each"
            if not place
            else "### On the front\n\nNo other trial that ran to the end beats it in every objective"
        )
        remarks[int(table.numbers[row])].append(f"{what}: {values}.")


def _note_confirmed(table: TrialTable, study: Study, remarks: dict[int, list[str]]) -> None:
    """Note what trials were worth whose recipes were scored again with new seeds."""
    if SETTINGS not in table.attributes:
        return
    rewards = _confirmations(study)
    if not rewards:
        return
    space, best = space_of(study), max(rewards, key=lambda digest: fmean(rewards[digest]))
    for row in range(len(table)):
        if table.pruned[row]:
            continue
        digest = canonical(space.recipe(table.trials[row].params)).digest
        if digest in rewards:
            told = ", ".join(number(reward) for reward in rewards[digest])
            place = (
                "the best of those that were scored again"
                if digest == best
                else f"the best had {number(fmean(rewards[best]))}"
            )
            remarks[int(table.numbers[row])].append(
                f"### Scored again\n\nWith {count(len(rewards[digest]), 'new seed')} its recipe had a mean reward of "
                f"**{number(fmean(rewards[digest]))}** ({told}): {place}."
            )


def _confirmations(study: Study) -> dict[str, list[float]]:
    """Read the rewards over new seeds of the recipes that were confirmed, by the digest of the recipe."""
    try:
        companion = optuna.load_study(study_name=f"{study.study_name}/confirmation", storage=study._storage)
    except KeyError:
        return {}
    rewards: dict[str, list[float]] = defaultdict(list)
    for trial in companion.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        rewards[str(trial.user_attrs.get("key", "")).partition("/")[0]].append(trial.values[0])
    return dict(rewards)


def _noted_reasons(trials: list[FrozenTrial], attribute: str, state: TrialState, word: str) -> dict[int, str]:
    """Note why the first trials were rejected, or failed."""
    found = sorted(
        (trial for trial in trials if trial.state is state and attribute in trial.user_attrs),
        key=lambda trial: trial.number,
    )
    return {
        trial.number: f"### {word}\n\n{prose(str(trial.user_attrs[attribute]))}\n\n{code(recipe_text(trial))}"
        for trial in found[:FEW]
    }
