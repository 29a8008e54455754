"""The report of `importance.py`: errors, coverage and the claims held against them, and the figure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
from gauge_report import estimate, print_claims, surroundings
from plotly.subplots import make_subplots
from scipy.stats import spearmanr

METHODS = ("ours", "ped-anova", "fanova")
COVERAGE, FALSE_ALARMS = 0.85, 0.05
SECONDS = {300: 5.0, 5000: 20.0}
# Okabe and Ito's colours.
STYLES = {"truth": "#000000", "ours": "#D55E00", "ped-anova": "#0072B2", "fanova": "#009E73"}

Run = dict[str, Any]


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Average over seeds, and hold the claims against the result."""
    plain = [run for run in runs if run["job"][0] == "plain"]
    pruned = [run for run in runs if run["job"][0] == "pruned"]
    large = [run for run in runs if run["job"][0] == "large"]
    content = {
        "unit": "mean absolute error of importances that sum to 1; standard errors are over studies",
        "errors": {key: errors_of(found) for key, found in grouped(plain, 1, 2, 3).items()},
        "ranks": {key: ranks_of(found) for key, found in grouped(plain, 2, 3).items()},
        "coverage": {key: coverage_of(found) for key, found in grouped(plain, 2, 3).items()},
        "options": {key: options_of(found) for key, found in grouped(plain, 2, 3).items()},
        "pruned": {key: pruned_of(found) for key, found in grouped(pruned, 2).items()},
        "pruned_by_function": {key: pruned_of(found) for key, found in grouped(pruned, 1, 2).items()},
        "seconds": {
            str(trials): {method: estimate(run["seconds"][method] for run in found) for method in found[0]["seconds"]}
            for trials, found in sorted(by_trials([*plain, *large]).items())
        },
        "shares": {key: shares_of(found) for key, found in grouped(plain, 1, 2, 3).items()},
        **surroundings(),
    }
    return {"claims": list(claims_of(content)), **content}


def grouped(runs: Iterable[Run], *places: int) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[", ".join(str(run["job"][place]) for place in places)].append(run)
    return dict(groups)


def by_trials(runs: Iterable[Run]) -> dict[int, list[Run]]:
    groups: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run["job"][3]].append(run)
    return groups


def error(run: Run, method: str) -> float:
    """Give the mean absolute error over all parameters; what a method does not assess counts as 0."""
    shares, truth = run["shares"][method], run["truth"]
    total = sum(shares.values()) or 1.0
    return fmean(abs(shares.get(name, 0.0) / total - share) for name, share in truth.items())


def errors_of(runs: Sequence[Run]) -> dict[str, Any]:
    found: dict[str, Any] = {method: estimate(error(run, method) for run in runs) for method in METHODS}
    for method in METHODS[1:]:
        found[f"{method} - ours"] = estimate(error(run, method) - error(run, "ours") for run in runs)
    return found


def ranks_of(runs: Sequence[Run]) -> dict[str, Any]:
    def rank(run: Run, method: str) -> float:
        names = list(run["truth"])
        shares = [run["shares"][method].get(name, 0.0) for name in names]
        found = spearmanr(shares, [run["truth"][name] for name in names]).statistic
        return 0.0 if math.isnan(found) else float(found)  # all shares the same

    found: dict[str, Any] = {method: estimate(rank(run, method) for run in runs) for method in METHODS}
    for method in METHODS[1:]:
        found[f"ours - {method}"] = estimate(rank(run, "ours") - rank(run, method) for run in runs)
    return found


def share_of(cases: Iterable[bool]) -> dict[str, Any]:
    """Give how often something holds, with the binomial standard error."""
    found = list(cases)
    if not found:
        return {"n": 0, "mean": None, "se": None}
    mean = fmean(found)
    return {"n": len(found), "mean": round(mean, 4), "se": round(math.sqrt(mean * (1 - mean) / len(found)), 4)}


def held(run: Run) -> list[bool]:
    return [low <= run["truth"][name] <= high for name, (low, high) in run["intervals"].items()]


def coverage_of(runs: Sequence[Run]) -> dict[str, Any]:
    widths = [high - low for run in runs for low, high in run["intervals"].values()]
    return {**share_of(case for run in runs for case in held(run)), "width": round(fmean(widths), 4)}


def options_of(runs: Sequence[Run]) -> dict[str, Any]:
    found = [each for run in runs for each in run["options"]]
    return {
        "held": share_of(case for each in found for case in each["held"]),
        "false_alarms": share_of(each["beyond_noise"] > 0 for each in found if each["null"]),
        "found": share_of(each["beyond_noise"] > 0 for each in found if not each["null"]),
    }


def pruned_of(runs: Sequence[Run]) -> dict[str, Any]:
    errors = {way: estimate(error(run, way) for run in runs) for way in runs[0]["shares"]}
    for way in list(errors)[1:]:
        errors[f"{way} - lines"] = estimate(error(run, way) - error(run, "lines") for run in runs)
    return {
        "pruned": round(fmean(run["pruned"] for run in runs), 3),
        "errors": errors,
        "coverage": coverage_of(runs),
    }


def shares_of(runs: Sequence[Run]) -> dict[str, Any]:
    """Average the normalised shares of each method, beside the truth, for the figure."""
    truth = runs[0]["truth"]
    found = {"truth": {name: round(share, 4) for name, share in truth.items()}}
    for method in METHODS:
        shares = [run["shares"][method] for run in runs]
        found[method] = {
            name: round(fmean(each.get(name, 0.0) / (sum(each.values()) or 1.0) for each in shares), 4)
            for name in truth
        }
    for place, end in enumerate(("low", "high")):
        found[end] = {
            name: round(fmean(run["intervals"].get(name, (0.0, 0.0))[place] for run in runs), 4) for name in truth
        }
    return found


def claims_of(content: dict[str, Any]) -> Iterable[dict[str, Any]]:
    def above(text: str, found: dict[str, Any], least: float = 0.0, errors: float = 0.0) -> dict[str, Any]:
        met = found["mean"] > least + errors * (found["se"] or 0.0)
        return {"claim": text, **found, "met": bool(met)}

    for key, found in content["errors"].items():
        for method in METHODS[1:]:
            if found["ours"]["n"] > 1:
                yield above(f"error, {key}: {method} - ours > 2 se", found[f"{method} - ours"], errors=2)
    for key, found in content["ranks"].items():
        if int(key.rpartition(", ")[2]) >= 100:
            for method in METHODS[1:]:
                yield above(f"rank correlation, {key}: ours - {method} > 0", found[f"ours - {method}"])
    for key, found in content["coverage"].items():
        yield above(f"90 % intervals of importances hold the truth, {key}: > {COVERAGE:.0%}", found, COVERAGE)
    for key, found in content["options"].items():
        yield above(f"90 % intervals of differences hold the truth, {key}: > {COVERAGE:.0%}", found["held"], COVERAGE)
        alarms = found["false_alarms"]
        if alarms["n"]:
            most = FALSE_ALARMS + 2 * math.sqrt(FALSE_ALARMS * (1 - FALSE_ALARMS) / alarms["n"])
            text = f"false alarms among options that are all the same, {key}: at most {most:.1%}"
            yield {"claim": text, **alarms, "met": alarms["mean"] <= most}
    for key, found in content["pruned"].items():
        for way in ("complete alone", "ranks"):
            if found["errors"]["lines"]["n"] > 1:
                difference = found["errors"][f"{way} - lines"]
                yield above(
                    f"error where {found['pruned']:.0%} are pruned, {key}: {way} - lines > 2 se", difference, errors=2
                )
    for trials, most in SECONDS.items():
        if found := content["seconds"].get(str(trials)):
            yield {
                "claim": f"seconds at {trials} trials: at most {most:g}",
                **found["ours"],
                "met": found["ours"]["mean"] <= most,
            }


def print_summary(content: dict[str, Any]) -> None:
    row = "{:<28}" + 3 * "{:>18}"
    print(row.format("mean absolute error", *METHODS))
    for key, found in content["errors"].items():
        print(row.format(key, *(shown(found[method]) for method in METHODS)))
    print()
    print_claims(content["claims"])


def shown(found: dict[str, Any]) -> str:
    return f"{found['mean']:.3f}" + ("" if found["se"] is None else f" ± {found['se']:.3f}")


def draw(content: dict[str, Any], trials: int = 100) -> go.Figure:
    """Draw what each method finds, a panel for each function, random search above and TPE below."""
    keys = [key for key in content["shares"] if key.endswith(f", {trials}")]
    keys.sort(key=lambda key: key.split(", ")[1])  # random, then TPE
    columns = len(keys) // 2
    figure = make_subplots(2, columns, subplot_titles=[key.rpartition(", ")[0] for key in keys], vertical_spacing=0.22)
    for panel, key in enumerate(keys):
        found = content["shares"][key]
        names = sorted(found["truth"], key=lambda name: -found["truth"][name])
        for method in ("truth", *METHODS):
            middle = [found[method][name] for name in names]
            bars = None
            if method == "ours":
                bars = {
                    "array": [found["high"][name] - found["ours"][name] for name in names],
                    "arrayminus": [found["ours"][name] - found["low"][name] for name in names],
                    "thickness": 1.5,
                    "width": 2,
                }
            bar = go.Bar(
                x=names, y=middle, name=method, marker_color=STYLES[method], error_y=bars,
                legendgroup=method, showlegend=panel == 0,
            )  # fmt: skip
            figure.add_trace(bar, row=panel // columns + 1, col=panel % columns + 1)
    figure.update_yaxes(title_text="importance", col=1)
    figure.update_layout(
        template="plotly_white", font_size=14, width=1600, height=820, legend={"orientation": "h", "y": 1.1}
    )
    return figure
