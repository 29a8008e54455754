"""The report of the ladder: what its rows take, how much faster each is, and whether the claims are met."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from gauge_report import estimate, shown, with_bound
from ladder_rows import BASELINE, FIXED, LAST, ROWS

# ("timing", round, row), ("search", seed, row, number), ("confirm" or "student", seed, recipe, index)
Key = tuple[str | int, ...]
Records = Mapping[Key, Mapping[str, Any]]

SPEED_UP = {False: (60, 2.5), True: (150, 6.0)}  # on a GPU or not: all together, without subset and early stop
ACCURACY_LOSS = -1.0  # points
SHARED_BY = 100  # candidates, in a search of the paper
FINALISTS, NEW_SEEDS = 5, 3  # scored again after the proxies of the last row, as `optuna-kd search` does


def report(records: Records, *, on_gpu: bool) -> dict[str, Any]:
    """Compare the rows, and hold the claims against what was found."""
    by_row: dict[str, dict[int, Mapping[str, Any]]] = {row.name: {} for row in ROWS}
    for key, record in records.items():
        if key[0] == "timing":
            by_row[str(key[2])][int(key[1])] = record
    rows = {name: describe(found, by_row[BASELINE.name]) for name, found in by_row.items() if found}
    searches = compare_searches(records)
    return {
        "shared_by": SHARED_BY,
        "rows": rows,
        "searches": searches,
        "claims": check_claims(rows, searches, on_gpu=on_gpu),
    }


def describe(found: Mapping[int, Mapping[str, Any]], baseline: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Give what one row takes, as means over the rounds, and how much faster than the baseline it is in each."""
    rounds = list(found.values())
    candidates = [candidate for record in rounds for candidate in record["candidates"]]
    whole = [candidate for record in rounds if record["is_whole"] for candidate in record["candidates"]]
    shared = [record["candidates"][0] for record in rounds if record["is_whole"]]  # of all rows
    return {
        "seconds": estimate(record["seconds"] for record in rounds),
        "storing_seconds": estimate(record["storing"] for record in rounds),
        "minutes_of_100": round(fmean(cost(record) for record in rounds) * SHARED_BY / 60, 2),
        "times_faster": with_bound([cost(baseline[at]) / cost(found[at]) for at in sorted(found.keys() & baseline)]),
        "peak_mb": estimate(record["peak_mb"] for record in rounds),
        "bare_mb": estimate(record["bare_mb"] for record in rounds),
        "device_mb": estimate(record["device_mb"] for record in rounds),
        "accuracy_of_shared_recipes": estimate(candidate["accuracy"] for candidate in shared),
        "accuracy": estimate(candidate["accuracy"] for candidate in whole),
        "candidates": len(candidates),
        "rejected": sum(candidate["rejected"] is not None for candidate in candidates),
        "threads": sorted({record["threads"] for record in rounds}),
        "is_whole": len(shared) == len(rounds),
    }


def cost(record: Mapping[str, Any]) -> float:
    """Seconds of one candidate with its share of what storing takes, and of the last row, what confirming does."""
    proxies = 1 + FINALISTS * NEW_SEEDS / SHARED_BY if record["row"] == LAST.name else 1
    return float(record["seconds"] * proxies + record["storing"] / SHARED_BY)


def finalists(records: Records, seed: int) -> list[str]:
    """Give the recipes that a search of the last row scores again, the best first."""
    scored = [record for key, record in records.items() if key[:3] == ("search", seed, LAST.name)]
    return [record["recipe"] for record in sorted(scored, key=lambda record: -record["reward"])[:FINALISTS]]


def winner(records: Records, row: str, seed: int) -> str | None:
    """Give the recipe that a finished search takes; None where something is missing."""
    if row == LAST.name:
        rewards = {
            recipe: [record["reward"] for key, record in records.items() if key[:3] == ("confirm", seed, recipe)]
            for recipe in finalists(records, seed)
        }
        if not rewards or any(len(found) < NEW_SEEDS for found in rewards.values()):
            return None
        return max(rewards, key=lambda recipe: fmean(rewards[recipe]))
    scored = {int(key[3]): record for key, record in records.items() if key[:3] == ("search", seed, row)}
    if not scored:
        return None
    return str(scored[max(scored, key=lambda number: (scored[number]["reward"], -number))]["recipe"])


def compare_searches(records: Records) -> dict[str, Any]:
    """Give the accuracies of candidates and of final students, and the paired difference of the latter, in points."""
    students: dict[str, dict[int, float]] = {}
    compared: dict[str, Any] = {}
    for row in (BASELINE.name, LAST.name):
        scored = {key: record for key, record in records.items() if key[0] == "search" and key[2] == row}
        students[row], winners = {}, {}
        for seed in sorted({int(key[1]) for key in scored}):
            recipe = winner(records, row, seed)
            finals = [record for key, record in records.items() if key[:3] == ("student", seed, recipe)]
            if recipe is not None and finals:
                winners[seed] = recipe
                students[row][seed] = 100 * fmean(final["test_accuracy"] for final in finals)
        compared[row] = {
            "accuracy_in_search": estimate(record["accuracy"] for record in scored.values()),
            "rejected": sum(record["rejected"] is not None for record in scored.values()),
            "student_test_accuracy": estimate(students[row].values()),
            "winners": winners,
        }
    both = sorted(students[BASELINE.name].keys() & students[LAST.name])
    return {
        **compared,
        "last_minus_first": with_bound([students[LAST.name][seed] - students[BASELINE.name][seed] for seed in both]),
    }


def check_claims(rows: Mapping[str, Any], searches: Mapping[str, Any], *, on_gpu: bool) -> list[dict[str, Any]]:
    """Hold the claims against what was found; those of which something is missing are left out."""
    claims = []
    whole, fixed = SPEED_UP[on_gpu]
    for text, name, least in (("all together", LAST.name, whole), ("all images in all epochs", FIXED.name, fixed)):
        if name in rows and rows[name]["times_faster"]["n"]:
            found = rows[name]["times_faster"]
            claims.append({"claim": f"{text}: at least {least:g} times faster", **found, "met": found["mean"] >= least})
    found = searches["last_minus_first"]
    if found["lower_90_bound"] is not None:
        claims.append({
            "claim": f"final student, points: lower 90 % bound {found['lower_90_bound']:.2f} > {ACCURACY_LOSS}",
            **found,
            "met": found["lower_90_bound"] > ACCURACY_LOSS,
        })  # fmt: skip
    return claims


def print_table(content: Mapping[str, Any]) -> None:
    line = "{:<51}{:>4}{:>18}{:>16}{:>18}{:>10}{:>16}"
    print(line.format("", "n", "s a candidate", "min for 100", "times faster", "MB", "accuracy"))
    for name, row in content["rows"].items():
        values = (shown(row["seconds"]), row["minutes_of_100"], shown(row["times_faster"]), shown(row["peak_mb"]))
        print(line.format(name, row["seconds"]["n"], *values[:3], values[3].split(" ±")[0], shown(row["accuracy"])))
    for name in (BASELINE.name, LAST.name):
        found = content["searches"][name]
        accuracies = f"{shown(found['accuracy_in_search'])} in the search, {shown(found['student_test_accuracy'])} %"
        print(f"searches by {name!r}: accuracy {accuracies} of the final student on the test data")
