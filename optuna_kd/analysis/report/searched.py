"""What was searched: the task, the space, the method, and what became of the trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_kd.analysis.figures.objective import name_of
from optuna_kd.analysis.figures.wording import count, duration, listed, number, plain, share
from optuna_kd.analysis.table import TrialTable
from optuna_kd.cards import NetworkFacts, RecipeCard, TaskFacts
from optuna_kd.samplers.nsga.guide import TOTAL_TRIALS
from optuna_kd.study import KNOWLEDGE, SAMPLER, SETTINGS, TASK, space_of
from optuna_kd.study.inspecting import facts_of

_METHODS = {
    "auto-kd": "the recipe for one student",
    "uniads": "student and recipe together",
}
_KNOWLEDGE = {
    "replay": "its outputs are stored for some augmented views of each image (replay)",
    "aligned": "its outputs for the clean images are stored and moved as the images are (aligned)",
    "online": "at every step (online)",
}
_STATES = {
    TrialState.COMPLETE: "ran to the end",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "still running",
    TrialState.WAITING: "waiting to run",
}
_TEXT = 120  # characters of a value that a study says


@dataclass(frozen=True)
class Fact:
    """One thing to know of a search, as plain text."""

    name: str
    text: str


def facts_about(study: Study, table: TrialTable, card: RecipeCard | None) -> tuple[Fact, ...]:
    """Say what was searched, as far as the study knows."""
    attributes = table.attributes
    task = card.task if card is not None else facts_of(study)
    described = attributes.get(TASK)
    described = described if isinstance(described, Mapping) else {}
    told = [
        *_of_method(study, attributes),
        *(_of_task(task, card) if task is not None else ()),
        *_of_goals(table),
        *_of_training(described, attributes, card),
        *_of_trials(table),
    ]
    return tuple(Fact(name, plain(text, 400)) for name, text in told)


def count_states(table: TrialTable) -> tuple[tuple[str, int], ...]:
    """Count the trials by how they ended, in the order of Optuna's states; without those that none has."""
    trials = [*table.trials, *table.others]
    counts = {said: sum(trial.state is state for trial in trials) for state, said in _STATES.items()}
    return tuple((said, many) for said, many in counts.items() if many)


def _of_method(study: Study, attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    settings = attributes.get(SETTINGS)
    if not isinstance(settings, Mapping):
        return
    method = str(settings.get("method"))
    yield "Method", f"{method}: {_METHODS[method]}" if method in _METHODS else plain(method)
    try:
        space = space_of(study)
        without = f", without {count(len(space.dead), 'combination')} that cannot teach here" if space.dead else ""
        yield "Space", f"{space.name}, {space.size():,} recipes: {space.description}{without}"
    except (ValueError, KeyError, TypeError) as error:  # of a later version
        yield "Space", f"this version cannot read it: {plain(error, _TEXT)}"
    if SAMPLER in attributes:
        yield "Sampler", plain(attributes[SAMPLER])
    yield "Seed", f"{plain(settings.get('seed'))}; all randomness of the search derives from it"


def _of_task(task: TaskFacts, card: RecipeCard | None) -> Iterator[tuple[str, str]]:
    data = task.data
    yield "Data", f"{plain(data.name)}: {data.classes:,} classes, images {_shape(data.image_shape)}"
    test = f"{data.test:,} to test, read once, after everything was chosen" if data.test else "none to test"
    yield "Split", f"{data.train:,} images to train, {data.validation:,} to validate (these choose), {test}"
    accuracy = "" if card is None else f", {100 * card.teacher_accuracy:.2f} % on the validation data"
    yield "Teacher", _network(task.teacher) + accuracy
    yield "Student", _network(task.student)


def _of_goals(table: TrialTable) -> Iterator[tuple[str, str]]:
    goals = [
        f"{name_of(table, column)} ({'maximised' if objective.maximize else 'minimised'})"
        for column, objective in enumerate(table.objectives)
    ]
    limits = [] if table.feasible.all() else [f"{int((~table.feasible).sum()):,} trials break a constraint"]
    yield "Objective" if len(goals) == 1 else "Objectives", "; ".join([listed(goals[:8]), *limits])


def _of_training(
    described: Mapping[str, Any], attributes: Mapping[str, Any], card: RecipeCard | None
) -> Iterator[tuple[str, str]]:
    proxy = described.get("proxy")
    if isinstance(proxy, Mapping) and _is_number(proxy.get("epochs")):
        rungs = proxy.get("rungs")
        at = f", judged after {listed(map(str, rungs))}" if isinstance(rungs, list) and rungs else ""
        subset = proxy.get("subset", 1.0)
        part = f", on {share(subset, 1)} of the training data" if _is_number(subset) and subset < 1 else ""
        batch = proxy.get("batch_size")
        batches = f", in batches of {batch}" if isinstance(batch, int) else ""
        yield "Proxy", f"{number(proxy['epochs'])} epochs{at}{part}{batches}"
    knowledge = attributes.get(KNOWLEDGE)
    if isinstance(knowledge, str):
        yield "Teacher is asked", _KNOWLEDGE.get(knowledge, plain(knowledge))
    if card is not None:
        epochs, seeds = card.protocol.get("epochs"), count(len(card.result.accuracies), "seed")
        length = f"{epochs} epochs, " if _is_number(epochs) else ""
        yield "Full trainings", f"{length}{seeds} a method; equal seeds share initial weights and batches"


def _of_trials(table: TrialTable) -> Iterator[tuple[str, str]]:
    trials = [*table.trials, *table.others]
    planned = table.attributes.get(TOTAL_TRIALS)
    of = f" of {planned:,} planned" if isinstance(planned, int) and planned > len(trials) else ""
    states = ", ".join(f"{many:,} {said}" for said, many in count_states(table))
    yield "Trials", f"{len(trials):,}{of}" + (f": {states}" if states else "")
    if (when := _time(trials)) is not None:
        yield "Time", when


def _time(trials: Sequence[FrozenTrial]) -> str | None:
    begun = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
    ended = [trial.datetime_complete for trial in trials if trial.datetime_complete is not None]
    if not begun:
        return None
    first, last = min(begun), max(ended, default=None)
    if last is None or last <= first:
        return f"begun {_moment(first)}"
    return f"{_moment(first)} to {_moment(last)}: {duration((last - first).total_seconds())} from first to last"


def _moment(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="minutes")


def _network(network: NetworkFacts) -> str:
    parameters = "" if network.parameters is None else f", {network.parameters:,} parameters"
    layer = "" if network.layer is None else f", compared maps {_shape(network.layer)}"
    return f"{plain(network.name, 60)}{parameters}{layer}"


def _shape(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
