"""The report of the sampler gauge: means, paired differences, the claims held against them, tables and figure."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy import stats

CHECKPOINTS = (25, 50, 100)  # finished trials
LEADS = {"A": (0.8, 0.65, 0.45), "B": (0.45, 0.45, 0.4), "C": (0.35, 0.25, 0.1)}  # over TPE, at the checkpoints
ASYNCHRONOUS_LOSS = -0.1
TITLES = {
    "A": "A: pairs of options",
    "B": "B: prefix tree",
    "C": "C: floats and integers",
    "D": "D: trained recipes",
    "E": "E: student and recipe",
}
# In the order of the tables. The colours are Okabe and Ito's, which colour-blind readers can tell apart.
STYLES = {
    "random": ("#999999", "circle"),
    "tpe": ("#0072B2", "diamond"),
    "tpe-group": ("#56B4E9", "triangle-down"),
    "nsga2": ("#CC79A7", "square"),
    "gp": ("#009E73", "cross"),
    "uct": ("#E69F00", "triangle-up"),
    "ours": ("#D55E00", "star"),
}
ORDER = (*STYLES, "ours-8")

Job = tuple[str, int, str]  # family, landscape, sampler
Scores = dict[str, dict[int, list[float]]]  # what was recommended, by sampler and landscape, at the checkpoints


@dataclass(frozen=True)
class Record:
    """One search: a sampler on a landscape.

    Args:
        family: Letter of the landscape's family.
        landscape: Its number, and the seed of the sampler.
        sampler: Name of the sampler.
        version: What was measured.
        recommended: Noise-free value of the recommended trial at each checkpoint, in sd.
        observed: The same of the trial with the best observation.
        optimum: The highest value there is, in sd.
    """

    family: str
    landscape: int
    sampler: str
    version: str
    recommended: list[float]
    observed: list[float]
    optimum: float

    @property
    def job(self) -> Job:
        """The search that this is the record of."""
        return self.family, self.landscape, self.sampler


def report(records: Sequence[Record]) -> dict[str, Any]:
    """Compare the samplers of each family over the landscapes that they share, and hold the claims against it."""
    families, eight_workers = {}, []
    for family in sorted({record.family for record in records}):
        found = [record for record in records if record.family == family]
        families[family] = summarise(found)
        eight_workers += differences(scores_of(found), ("ours-8", -1), ("ours", -1))
    together = with_bound(eight_workers)
    return {
        "unit": "standard deviations of uniform draws, noise-free; standard errors are over landscapes",
        "checkpoints": list(CHECKPOINTS),
        "families": families,
        "ours_8_minus_ours_at_100": together,
        "claims": check_claims(families, together),
    }


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Give the means of one family's samplers, and the paired differences of ours to each other."""
    scores = scores_of(records)
    places = range(len(CHECKPOINTS))
    samplers = {}
    for name in sorted(scores, key=ORDER.index):
        runs = [record for record in records if record.sampler == name]
        samplers[name] = {
            "recommended": [estimate(run.recommended[at] for run in runs) for at in places],
            "observed": [estimate(run.observed[at] for run in runs) for at in places],
        }
    return {
        "optimum": estimate({record.landscape: record.optimum for record in records}.values()),
        "samplers": samplers,
        "ours_minus": {
            name: [estimate(differences(scores, ("ours", at), (name, at))) for at in places]
            for name in samplers
            if name != "ours"
        },
        "ours_at_50_minus_tpe_at_100": estimate(differences(scores, ("ours", 1), ("tpe", 2))),
    }


def scores_of(records: Iterable[Record]) -> Scores:
    scores: Scores = {}
    for record in records:
        scores.setdefault(record.sampler, {})[record.landscape] = record.recommended
    return scores


def differences(scores: Scores, one: tuple[str, int], other: tuple[str, int]) -> list[float]:
    """Subtract, on every landscape that both have, `other` from `one`; each a sampler and a checkpoint's place."""
    ones, others = scores.get(one[0], {}), scores.get(other[0], {})
    return [ones[number][one[1]] - others[number][other[1]] for number in sorted(ones.keys() & others.keys())]


def estimate(sample: Iterable[float]) -> dict[str, Any]:
    """Give number, mean and standard error."""
    found = list(sample)
    return {
        "n": len(found),
        "mean": round(fmean(found), 4) if found else None,
        "se": round(stdev(found) / math.sqrt(len(found)), 4) if len(found) > 1 else None,
    }


def with_bound(sample: list[float]) -> dict[str, Any]:
    """Add the lower end of the two-sided 90 % t interval."""
    n, bound = len(sample), None
    if n > 1:
        bound = round(float(fmean(sample) - stats.t.ppf(0.95, n - 1) * stdev(sample) / math.sqrt(n)), 4)
    return {**estimate(sample), "lower_90_bound": bound}


def check_claims(families: dict[str, Any], eight_workers: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the claims against what was found; those with less than two landscapes to compare are left out."""
    claims = []

    def claim(text: str, found: dict[str, Any], least: float = 0.0, errors: float = 0.0) -> None:
        """Claim that the mean is at least `least` plus so many standard errors."""
        if found["n"] > 1:
            claims.append({"claim": text, **found, "met": found["mean"] >= least + errors * found["se"]})

    for family, found in families.items():
        for place, (trials, lead) in enumerate(zip(CHECKPOINTS, found["ours_minus"].get("tpe", ()), strict=False)):
            if family in LEADS:
                least = LEADS[family][place]
                claim(f"{family}: ours - tpe at {trials} >= {least}", lead, least)
            else:
                claim(f"{family}: ours - tpe at {trials} >= 2 se", lead, errors=2)
        if family in LEADS:
            claim(f"{family}: ours at 50 - tpe at 100 >= 0", found["ours_at_50_minus_tpe_at_100"])
        rivals = {name: leads[-1] for name, leads in found["ours_minus"].items() if name != "ours-8"}
        rivals = {name: lead for name, lead in rivals.items() if lead["n"] > 1}
        if rivals:
            worst = min(rivals, key=lambda name: rivals[name]["mean"] + rivals[name]["se"])
            claim(f"{family}: ours - any other at 100 >= -1 se; nearest: {worst}", rivals[worst], errors=-1)
    bound = eight_workers["lower_90_bound"]
    if bound is not None:
        text = f"ours-8 - ours at 100, all families: lower 90 % bound {bound:.2f} > {ASYNCHRONOUS_LOSS}"
        claims.append({"claim": text, **eight_workers, "met": bound > ASYNCHRONOUS_LOSS})
    return claims


def print_report(content: dict[str, Any]) -> None:
    headings = ["n", *(f"at {trials}" for trials in CHECKPOINTS), *(f"ours - it, {trials}" for trials in CHECKPOINTS)]
    row = "{:<9}{:>4}" + 3 * "{:>14}" + 3 * "{:>17}"
    for family, found in content["families"].items():
        print(f"\n{TITLES[family]}; optimum {shown(found['optimum'])}")
        print(row.format("", *headings))
        for name, values in found["samplers"].items():
            means, leads = values["recommended"], found["ours_minus"].get(name)
            print(row.format(name, means[0]["n"], *map(shown, means), *(map(shown, leads) if leads else ("", "", ""))))
    print()
    print_claims(content["claims"])


def print_claims(claims: Iterable[dict[str, Any]]) -> None:
    for claim in claims:
        print(f"{'met    ' if claim['met'] else 'NOT MET'}  {claim['claim']}: {shown(claim)}")


def shown(found: dict[str, Any]) -> str:
    if found["mean"] is None:
        return "-"
    return f"{found['mean']:.2f}" + ("" if found["se"] is None else f" ± {found['se']:.2f}")


def draw(content: dict[str, Any]) -> go.Figure:
    """Draw the mean value of what each sampler recommends, a panel for each family."""
    families = content["families"]
    titles = [TITLES[family] for family in families]
    figure = make_subplots(2, 3, subplot_titles=titles, horizontal_spacing=0.06, vertical_spacing=0.15)
    for panel, found in enumerate(families.values()):
        place = {"row": panel // 3 + 1, "col": panel % 3 + 1}
        for order, (name, (colour, symbol)) in enumerate(STYLES.items()):
            if name not in found["samplers"]:
                continue
            values = found["samplers"][name]["recommended"]
            line = go.Scatter(
                x=[trials * 1.015 ** (order - 3) for trials in CHECKPOINTS],  # error bars side by side
                y=[value["mean"] for value in values],
                error_y={"array": [value["se"] for value in values]},
                name="ours (MCTSSampler)" if name == "ours" else name,
                legendgroup=name,
                showlegend=panel == 0,
                line={"color": colour, "width": 4 if name == "ours" else 2},
                marker={"symbol": symbol, "size": 14 if name == "ours" else 9},
            )
            figure.add_trace(line, **place)
        figure.add_hline(found["optimum"]["mean"], line_dash="dot", annotation_text="optimum", **place)
        figure.update_xaxes(type="log", tickvals=CHECKPOINTS, title_text="finished trials", **place)
    figure.update_yaxes(title_text="recommended recipe, sd", col=1)
    legend = {"traceorder": "reversed", "x": 0.75, "y": 0.35, "font_size": 19}  # in the sixth panel's place
    size = {"width": 1440, "height": 860, "margin": {"l": 80, "r": 20, "t": 50, "b": 70}}
    figure.update_layout(template="plotly_white", font_size=17, legend=legend, **size)
    return figure


def save_figure(figure: go.Figure, path: Path) -> None:
    """Write a figure as an image, or say what that needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.write_image(path)
    except (RuntimeError, ValueError) as raised:
        print(f"{path.name} is not drawn: {' '.join(str(raised).split())}")
        print("An image needs Kaleido (`pip install 'kaleido>=1'`) and a Chromium (`plotly_get_chrome` gets one).")


def surroundings() -> dict[str, Any]:
    """Give the machine and the versions, for a result file."""
    packages = ("optuna-kd", "optuna", "numpy", "scipy", "torch")
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, processes of one thread",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
    }
