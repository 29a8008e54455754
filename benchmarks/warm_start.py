"""What a warm start brings: searches that begin with five recipes of a related search, beside ones that do not.

Claims, as paired differences (with minus without) of the noise-free value of the recommended recipe, in standard
deviations of uniform draws:

- related tasks, whose values correlate by 0.9: on the families A, B and E of `landscapes.py` ahead by more than two
  standard errors after 10 and after 25 trials, and 10 trials with a warm start are not behind 50 without; on C, whose
  bowls anybody finds, not behind by more than one standard error after 10, 25 and 50;
- unrelated tasks (correlation 0), all families together: it costs the five trials that were spent on recipes good for
  nothing, and no more. 10, 25 and 50 trials with are not behind 5, 20 and 45 without by more than one standard error;
- real tasks: on the table of 1,296 trained recipes (digits, student resnet8x0.125), beginning with what searches for a
  larger student, or on half of the classes, have found: ahead by more than two standard errors after 10 trials, and not
  behind by more than one after 50.

    python benchmarks/warm_start.py --part landscapes --landscapes 24
    python benchmarks/warm_start.py --part digits

A related task is made of two landscapes of its family, each in its own standard deviation: r times that of the
earlier search plus the square root of 1 - r² times another one. Two landscapes of a family correlate by chance, so r is
what holds on average. The earlier search is 50 trials of MCTSSampler; what it hands on are the five different recipes
with the highest expected reward, as `create_study(warm_start=...)` takes them. Seed and noise of the later search are
those of its landscape, with and without. On the real table its landscapes differ in which of three trainings a trial
observes; the earlier searches are real ones of 25 trials (`tables/make_warm_sources.py`). The unit there is the
standard deviation of all recipes.

The result is `results/warm_start.json`; each part replaces its own half.
"""

# ruff: noqa: D102 - a task is described by its class

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import optuna
from gauge_report import differences, estimate, print_claims, shown, surroundings
from landscapes import FAMILIES, Landscape, RecipeTable
from optuna.trial import TrialState
from sampler_gauge import be_quiet, source_hash

from optuna_kd.samplers import MCTSSampler

CHECKPOINTS = (5, 10, 20, 25, 45, 50)
SHOWN = (10, 25, 50)
SPENT = 5  # trials on what was handed on
CORRELATIONS = (1.0, 0.9, 0.7, 0.0)
SYNTHETIC = ("A", "B", "C", "E")  # of D there is one
HANDED_ON = 5
OTHER, LATER = 20_000, 500_000  # numbers of landscapes that nothing else uses
RESULT = Path(__file__).parent / "results" / "warm_start.json"
SOURCES = Path(__file__).parent / "tables" / "warm-sources.json"

Params = dict[str, Any]
Scores = dict[str, dict[int, list[float]]]


class Task(Protocol):
    """What is searched: trials are scored without and observed with noise."""

    number: int

    def score(self, trial: Any) -> float: ...
    def observe(self, trial: Any, number: int) -> float: ...


class Related:
    """A task that correlates by so much with a landscape; its noise is its own."""

    def __init__(self, family: str, number: int, correlation: float) -> None:
        self.number, self.correlation = number + LATER, correlation
        self.same, self.other = landscape_of(family, number), landscape_of(family, number + OTHER)

    def score(self, trial: Any) -> float:
        """Give the value without noise."""
        own = math.sqrt(1 - self.correlation**2)
        return self.correlation * self.same.score(trial) + (own * self.other.score(trial) if own else 0.0)

    def observe(self, trial: Any, number: int) -> float:
        """Give the noisy value of trial `number`."""
        return self.score(trial) + self.same.noise * FAMILIES["A"](self.number)._unit_noise(number)


@lru_cache(maxsize=8)
def landscape_of(family: str, number: int) -> Landscape:
    return FAMILIES[family](number)


def search(task: Task, first: Sequence[Params] = (), checkpoints: Sequence[int] = CHECKPOINTS) -> list[float]:
    """Search a task, beginning with some recipes; give the value of what is recommended at each checkpoint."""
    study = new_study(task.number, first)
    scores: list[float] = []
    found = []
    for finished in range(1, checkpoints[-1] + 1):
        trial = study.ask()
        study.tell(trial, task.observe(trial, trial.number))
        scores.append(task.score(trial))
        if finished in checkpoints:
            found.append(scores[study.sampler.recommend(study).number])
    return found


def hand_on(task: Task, trials: int, count: int) -> list[Params]:
    """Search a task, and give the recipes that are expected to be best, no two of them alike."""
    study = new_study(task.number)
    study.optimize(lambda trial: task.observe(trial, trial.number), n_trials=trials)
    return best_params(study, count)


def best_params(study: optuna.Study, count: int) -> list[Params]:
    worth = study.sampler.expect(study)
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    found: list[Params] = []
    for trial in sorted(trials, key=lambda trial: -worth[trial.number]):
        if trial.params not in found:
            found.append(trial.params)
    return found[:count]


def new_study(seed: int, first: Sequence[Params] = ()) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=MCTSSampler(seed))
    for params in first:
        study.enqueue_trial(params)
    return study


def run_landscapes(
    families: Sequence[str], numbers: Iterable[int], count: int, correlations: Sequence[float]
) -> dict[str, Any]:
    """Search every task with and without a warm start; give the comparison of each family and correlation."""
    scores: dict[str, dict[float, Scores]] = {
        family: {correlation: {"cold": {}, "warm": {}} for correlation in correlations} for family in families
    }
    for number in numbers:
        for family in families:
            first = hand_on(landscape_of(family, number), CHECKPOINTS[-1], count)
            for correlation in correlations:
                task, found = Related(family, number, correlation), scores[family][correlation]
                found["cold"][number], found["warm"][number] = search(task), search(task, first)
                pairs = zip(found["cold"][number], found["warm"][number], strict=True)
                gains = " ".join(f"{warm - cold:+.2f}" for cold, warm in pairs)
                print(f"{family} {number} r={correlation}: {gains}", flush=True)
    compared = {
        family: {str(correlation): summarise(found) for correlation, found in by_correlation.items()}
        for family, by_correlation in scores.items()
    }
    together = {}
    for correlation in correlations:
        pooled: Scores = {"cold": {}, "warm": {}}
        for family in families:
            for arm, runs in scores[family][correlation].items():
                pooled[arm] |= {ord(family) * LATER + number: found for number, found in runs.items()}
        together[str(correlation)] = summarise(pooled)
    return {"handed_on": count, "families": compared, "all_families": together, "claims": claims(compared, together)}


def run_digits(sources: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Search the real table, beginning with what real searches of other tasks have found."""
    found: dict[str, Any] = {}
    for name, source in sources["sources"].items():
        scores: Scores = {"cold": {}, "warm": {}}
        for place, searched in enumerate(source["searches"]):
            for repeat in range(repeats):
                number = place * repeats + repeat
                table = RecipeTable(LATER + number)
                scores["cold"][number] = search(table)
                scores["warm"][number] = search(table, as_options(table, searched["best"][:HANDED_ON]))
        # Repeats share their earlier search, so the error is over the searches.
        grouped = {arm: by_search(values, repeats) for arm, values in scores.items()}
        found[name] = {"distance": source["distance"], **summarise(grouped)}
    made = []
    for name, result in found.items():
        made.append(claim(f"{name}: warm - cold at 10 > 2 se", result["warm_minus_cold"]["10"], errors=2))
        made.append(claim(f"{name}: warm - cold at 50 >= -1 se", result["warm_minus_cold"]["50"], errors=-1))
    return {"handed_on": HANDED_ON, "repeats": repeats, "sources": found, "claims": made}


def as_options(table: RecipeTable, recipes: Sequence[Params]) -> list[Params]:
    """Give recipes as the table has them: their options as texts."""
    return [{name: str(params[name]) for name in table.factors} for params in recipes]


def by_search(values: dict[int, list[float]], repeats: int) -> dict[int, list[float]]:
    """Average over the repeats of each earlier search."""
    return {
        place: [fmean(at) for at in zip(*(values[place * repeats + repeat] for repeat in range(repeats)), strict=True)]
        for place in range(len(values) // repeats)
    }


def summarise(scores: Scores) -> dict[str, Any]:
    """Give the means of both, and of their paired differences at the same and at earlier numbers of trials."""

    def ahead(warm: int, cold: int) -> dict[str, Any]:
        return estimate(differences(scores, ("warm", CHECKPOINTS.index(warm)), ("cold", CHECKPOINTS.index(cold))))

    means = {
        arm: {str(trials): estimate(run[CHECKPOINTS.index(trials)] for run in runs.values()) for trials in SHOWN}
        for arm, runs in scores.items()
    }
    return {
        **means,
        "warm_minus_cold": {str(trials): ahead(trials, trials) for trials in SHOWN},
        "warm_minus_cold_without_what_it_spent": {str(trials): ahead(trials, trials - SPENT) for trials in SHOWN},
        "warm_at_10_minus_cold_at_50": ahead(10, 50),
    }


def claims(compared: dict[str, Any], together: dict[str, Any]) -> list[dict[str, Any]]:
    made = []
    for family, by_correlation in compared.items():
        if (found := by_correlation.get("0.9")) is None:
            continue
        leads = found["warm_minus_cold"]
        if family == "C":
            made += [
                claim(f"C, correlation 0.9: warm - cold at {trials} >= -1 se", leads[str(trials)], errors=-1)
                for trials in SHOWN
            ]
            continue
        made += [
            claim(f"{family}, correlation 0.9: warm - cold at {trials} > 2 se", leads[str(trials)], errors=2)
            for trials in SHOWN[:2]
        ]
        text = f"{family}, correlation 0.9: warm at 10 - cold at 50 >= 0"
        made.append(claim(text, found["warm_at_10_minus_cold_at_50"], errors=0))
    for trials, lead in together.get("0.0", {}).get("warm_minus_cold_without_what_it_spent", {}).items():
        text = f"unrelated, all families: warm at {trials} - cold at {int(trials) - SPENT} >= -1 se"
        made.append(claim(text, lead, errors=-1))
    return made


def claim(text: str, found: dict[str, Any], *, errors: float) -> dict[str, Any]:
    met = found["se"] is not None and found["mean"] >= errors * found["se"]
    return {"claim": text, **found, "met": met}


def print_part(content: dict[str, Any]) -> None:
    rows = {
        f"{family}, r={r}": found for family, by_r in content.get("families", {}).items() for r, found in by_r.items()
    }
    rows |= {f"all, r={r}": found for r, found in content.get("all_families", {}).items()}
    for name, found in (rows | content.get("sources", {})).items():
        for arm in ("cold", "warm", "warm_minus_cold"):
            print(f"{name:<24}{arm:<16}" + "".join(f"{shown(value):>16}" for value in found[arm].values()))
    print_claims(content["claims"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("landscapes", "digits"), required=True)
    parser.add_argument("--families", nargs="+", default=list(SYNTHETIC), choices=SYNTHETIC)
    parser.add_argument("--landscapes", type=int, default=24, help="landscapes of each family (24)")
    parser.add_argument("--first", type=int, default=0, help="number of the first landscape (0)")
    parser.add_argument("--correlations", type=float, nargs="+", default=list(CORRELATIONS))
    parser.add_argument("--count", type=int, default=HANDED_ON, help="recipes that are handed on (5)")
    parser.add_argument("--repeats", type=int, default=4, help="searches of the table for each earlier search (4)")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    be_quiet()
    if arguments.part == "landscapes":
        numbers = range(arguments.first, arguments.first + arguments.landscapes)
        found = run_landscapes(arguments.families, numbers, arguments.count, arguments.correlations)
        found = {"landscapes": {"first": arguments.first, "count": arguments.landscapes}, **found}
    else:
        found = run_digits(json.loads(SOURCES.read_text(encoding="utf-8")), arguments.repeats)
    print_part(found)
    content = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    content |= {"claim": __doc__.splitlines()[0], "checkpoints": list(SHOWN)}
    content[arguments.part] = {**surroundings(), "sampler_source": source_hash(), **found}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
