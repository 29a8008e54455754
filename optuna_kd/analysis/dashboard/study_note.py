"""The note of a study, in Markdown: what this is, what is best so far, how far it is, and how to use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from optuna.study import Study

from optuna_kd.analysis.dashboard.wording import link, snippet, told
from optuna_kd.analysis.figures.front import front_rows
from optuna_kd.analysis.figures.objective import best_row, name_of
from optuna_kd.analysis.figures.passages import Fate, passages
from optuna_kd.analysis.figures.trials import recipe_text
from optuna_kd.analysis.figures.wording import count, duration, listed, number
from optuna_kd.analysis.table import FAILED, RUNNING, WAITING, TrialTable
from optuna_kd.cards import CardError, RecipeCard, TaskFacts
from optuna_kd.cards.showing import code, prose
from optuna_kd.recipe import Recipe, RecipeError
from optuna_kd.samplers.nsga.guide import TOTAL_TRIALS
from optuna_kd.study.findings import CONFIRMED
from optuna_kd.study.settings import CARD, FACTS, SETTINGS, TASK

FRONT = 12  # trials of a front that are listed, the nearest to the knee


def study_note(table: TrialTable, study: Study, artifacts: Sequence[str] = ()) -> str:
    """Write the note of a study.

    Args:
        table: Its trials.
        study: Any study.
        artifacts: Names of the files that hang on it.
    """
    card = _card(table)
    parts = [
        _what(table),
        _verdict(card) if card is not None else "",
        _best(table, study),
        _progress(table),
        _use(table, study, card, artifacts),
        _reading(table),
    ]
    return "\n\n".join(part for part in parts if part)


def _what(table: TrialTable) -> str:
    settings = table.attributes.get(SETTINGS)
    if settings is None:
        goals = listed(
            f"{code(name_of(table, place))} is {'maximised' if each.maximize else 'minimised'}"
            for place, each in enumerate(table.objectives)
        )
        return f"### {prose(table.study_name)}\n\nAn Optuna study in which {goals}."
    sought = (
        "for student and distillation recipe together" if len(table.objectives) > 1 else "for a distillation recipe"
    )
    title = (
        f"### {prose(table.study_name)}\n\nA search {sought}, by `optuna_kd` (method {code(str(settings['method']))})"
    )
    facts = _facts(table)
    if facts is None:
        return f"{title}."
    data, teacher, student = facts.data, facts.teacher, facts.student
    sizes = [f"{each.parameters:,} parameters" if each.parameters else "" for each in (teacher, student)]
    return (
        f"{title}: how {code(teacher.name)}{_aside(sizes[0])} teaches {code(student.name)}{_aside(sizes[1])} on "
        f"{code(data.name)}, {count(data.classes, 'class', 'classes')} and {count(data.train, 'image')} to train."
    )


def _verdict(card: RecipeCard) -> str:
    lines = [
        f"> {prose(card.verdict)}" if card.verdict else "",
        "",
        f"| method | {card.part} accuracy, % | 95 % interval | seeds |",
        "|---|---:|---:|---:|",
    ]
    for result in (card.result, *card.controls):
        bounds = "" if result.bounds is None else f"{100 * result.bounds[0]:.2f} to {100 * result.bounds[1]:.2f}"
        lines.append(f"| {prose(result.method)} | {100 * result.mean:.2f} | {bounds} | {len(result.accuracies)} |")
    return "\n".join(lines).strip()


def _best(table: TrialTable, study: Study) -> str:
    if len(table.objectives) > 1:
        return _front(table, study)
    row = best_row(table, 0)
    if row is None:
        broken = " that keeps all constraints" if (~table.feasible).any() else ""
        return f"**Best so far:** there is no complete trial{broken} yet."
    trial = table.trials[row]
    lines = [
        f"**Best so far:** {prose(name_of(table, 0))} **{number(float(table.values[row, 0]))}**, "
        f"{link(study, trial.number)}: {code(recipe_text(trial))}"
    ]
    chosen = _confirmed(table)
    if chosen is not None:
        lines.append(
            f"**To use:** {code(str(chosen))}, the best over new seeds, because the best of many is partly luck."
        )
    return "\n\n".join(lines)


def _front(table: TrialTable, study: Study) -> str:
    rows = front_rows(table).tolist()
    if not rows:
        broken = " that keeps all constraints" if (~table.feasible).any() else ""
        return f"**The front:** there is no complete trial{broken} yet."
    names = [prose(name_of(table, place)) for place in range(len(table.objectives))]
    lines = [
        f"**The front**, of {count(len(rows), 'trial')}; first its knee, the nearest to the best of every objective:",
        "",
        f"| trial | {' | '.join(names)} | what was tried |",
        f"|---|{'---:|' * len(names)}---|",
    ]
    for row in rows[:FRONT]:
        values = " | ".join(number(float(value)) for value in table.values[row])
        trial = table.trials[row]
        lines.append(f"| {link(study, trial.number)} | {values} | {prose(recipe_text(trial))} |")
    return "\n".join(lines)


def _progress(table: TrialTable) -> str:
    found = passages(table)
    fates = Counter(passage.fate for passage in found)
    ended = len(found) - fates[Fate.RUNNING]
    total = table.attributes.get(TOTAL_TRIALS)
    counted = sum(fates[fate] for fate in Fate if fate not in (Fate.FAILED, Fate.RUNNING))
    of = f" of {total:,}" if isinstance(total, int) and total > counted else ""
    text = f"**Progress:** {counted:,}{of} trials"
    parts = [f"{many:,} {fate.value}" for fate, many in fates.items() if many and fate in (Fate.FINISHED, *_ENDINGS)]
    text += f": {', '.join(parts)}" if parts else ""
    others = [
        f"{table.left_out[reason]:,} {reason}" for reason in (FAILED, RUNNING, WAITING) if table.left_out.get(reason)
    ]
    text += f"; {', '.join(others)}" if others else ""
    seconds = sum(
        trial.duration.total_seconds()
        for trial in (*table.trials, *table.others)
        if trial.duration is not None and trial.state.is_finished()
    )
    return f"{text}. They took {duration(seconds)} of training." if ended else f"{text}."


_ENDINGS = (Fate.STOPPED, Fate.REJECTED, Fate.REFUSED)


def _use(table: TrialTable, study: Study, card: RecipeCard | None, artifacts: Sequence[str]) -> str:
    if SETTINGS not in table.attributes:
        return ""
    lines = ["**Use it**", ""]
    if artifacts:
        names = [prose(name) for name in sorted(artifacts)]
        lines += [f"On the page *History*, under *Study Artifacts*: {listed(names)}.", ""]
    if card is not None:
        lines += ["```sh", "optuna-kd distill --recipe card.json --data ...   # train the student again", "```", ""]
    return "\n".join([*lines, snippet(study, "recipe = optuna_kd.best_recipe(study)", "print(recipe)")])


def _reading(table: TrialTable) -> str:
    remarks = list(_remarks(table))
    return "**Read it**\n\n" + "\n".join(f"- {remark}" for remark in remarks) if remarks else ""


def _remarks(table: TrialTable) -> Iterator[str]:
    if TASK in table.attributes:
        yield (
            "A trial is a proxy: a short training, scored on validation images. Its value ranks recipes; it is not the "
            "accuracy of a student that was trained in full."
        )
    if broken := int((~table.feasible & ~table.pruned).sum()):
        yield (
            f"{count(broken, 'complete trial')} of {len(table):,} break{'s' * (broken == 1)} a constraint and "
            f"{told(broken)} never the best here. The dashboard's own list of best trials and its own front know no "
            "constraints, and may show such trials; the figures with a bold title know them."
        )
    if table.pruned.any():
        yield "For importance and options, stopped trials count, with what they were worth then; never for the best."


def _card(table: TrialTable) -> RecipeCard | None:
    stored = table.attributes.get(CARD)
    try:
        return None if stored is None else RecipeCard.from_dict(stored)
    except CardError:
        return None


def _facts(table: TrialTable) -> TaskFacts | None:
    stored = table.attributes.get(FACTS)
    try:
        return None if stored is None else TaskFacts.from_dict(stored)
    except CardError:
        return None


def _confirmed(table: TrialTable) -> Recipe | None:
    """Give the recipe that won the confirmation, if no further trial ran to its end since."""
    stored = table.attributes.get(CONFIRMED)
    if stored is None or stored["complete_trials"] != int((~table.pruned).sum()):
        return None
    try:
        return Recipe.from_dict(stored["recipe"])
    except RecipeError:
        return None


def _aside(text: str) -> str:
    return f" ({text})" if text else ""
