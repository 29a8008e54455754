"""The report of the Pareto gauge: means, paired differences, the claims held against them, a table and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from gauge_report import Job, estimate, print_claims
from plotly.subplots import make_subplots

CHECKPOINTS = (100, 200, 400)  # finished trials
TITLES = {
    "P": "P: student and distiller",
    "Q": "Q: prefix tree against options",
    "R": "R: floats and integers",
    "S": "S: opposed pairs of options",
}
# In the order of the tables. The colours are Okabe and Ito's, which colour-blind readers can tell apart.
STYLES = {
    "random": ("#999999", "circle"),
    "nsga2": ("#CC79A7", "square"),
    "nsga2-20": ("#F0E442", "square-open"),
    "tpe": ("#0072B2", "diamond"),
    "tpe-group": ("#56B4E9", "triangle-down"),
    "ours-plain": ("#E69F00", "triangle-up"),
    "ours": ("#D55E00", "star"),
}
ORDER = tuple(STYLES)
STOCK, PARZEN = ("nsga2", "nsga2-20"), ("tpe", "tpe-group")

Shares = dict[str, dict[int, list[float]]]  # by sampler and landscape, at the checkpoints


@dataclass(frozen=True)
class ParetoRecord:
    """One search: a sampler on a landscape.

    Args:
        family: Letter of the landscape's family.
        landscape: Its number, and the seed of the sampler.
        sampler: Name of the sampler.
        version: What was measured.
        shares: Noise-free hypervolume of all finished trials at each checkpoint, as a share of the attainable.
        seconds: Processor time of the search, for orientation.
    """

    family: str
    landscape: int
    sampler: str
    version: str
    shares: list[float]
    seconds: float

    @property
    def job(self) -> Job:
        """The search that this is the record of."""
        return self.family, self.landscape, self.sampler


def report(records: Sequence[ParetoRecord]) -> dict[str, Any]:
    """Compare the samplers of each family over the landscapes that they share, and hold the claims against it."""
    families = {
        family: summarise([record for record in records if record.family == family])
        for family in sorted({record.family for record in records})
    }
    return {
        "unit": "noise-free hypervolume of all finished trials, of that of the reference front; "
        "standard errors are over landscapes",
        "checkpoints": list(CHECKPOINTS),
        "families": families,
        "claims": check_claims(families),
    }


def summarise(records: Sequence[ParetoRecord]) -> dict[str, Any]:
    """Give the means of one family's samplers, and the paired differences of ours to each other."""
    shares: Shares = {}
    for record in records:
        shares.setdefault(record.sampler, {})[record.landscape] = record.shares
    places = range(len(CHECKPOINTS))
    names = sorted(shares, key=ORDER.index)
    return {
        "samplers": {name: [estimate(found[at] for found in shares[name].values()) for at in places] for name in names},
        "ours_minus": {
            name: [estimate(differences(shares, name, at)) for at in places] for name in names if name != "ours"
        },
        "seconds": {
            name: round(sum(r.seconds for r in records if r.sampler == name) / len(shares[name]), 2) for name in names
        },
    }


def differences(shares: Shares, other: str, place: int) -> list[float]:
    """Subtract another sampler's share from ours on every landscape that both have."""
    ours, others = shares.get("ours", {}), shares[other]
    return [ours[number][place] - others[number][place] for number in sorted(ours.keys() & others.keys())]


def check_claims(families: dict[str, Any]) -> list[dict[str, Any]]:
    """Hold the claims against what was found; those with less than two landscapes to compare are left out."""
    claims, ahead = [], []
    for family, found in families.items():
        leads = {name: lead for name, lead in found["ours_minus"].items() if lead[-1]["n"] > 1}
        for place, trials in enumerate(CHECKPOINTS):
            stock = [name for name in STOCK if name in leads]
            if stock and trials >= 200:
                rival = min(stock, key=lambda name: leads[name][place]["mean"])
                claims.append(_claim(f"{family}: ours - {rival} at {trials} > 2 se", leads[rival][place], errors=2))
        parzen = [name for name in PARZEN if name in leads]
        if parzen:
            rival = min(parzen, key=lambda name: leads[name][-1]["mean"])
            lead = leads[rival][-1]
            claims.append(_claim(f"{family}: ours - {rival} at {CHECKPOINTS[-1]} >= -1 se", lead, errors=-1))
            ahead.append(lead["mean"] > 0)
    if ahead:
        count = {"n": len(ahead), "mean": sum(ahead) / len(ahead), "se": None}
        text = f"ahead of the better TPE at {CHECKPOINTS[-1]} on most families"
        claims.append({"claim": text, **count, "met": sum(ahead) > len(ahead) / 2})
    return claims


def _claim(text: str, found: dict[str, Any], errors: float) -> dict[str, Any]:
    bound = errors * found["se"]
    return {"claim": text, **found, "met": found["mean"] > bound if errors > 0 else found["mean"] >= bound}


def print_report(content: dict[str, Any]) -> None:
    headings = ["n", *(f"at {trials}" for trials in CHECKPOINTS), *(f"ours - it, {trials}" for trials in CHECKPOINTS)]
    row = "{:<11}{:>4}" + 3 * "{:>16}" + 3 * "{:>18}" + "{:>8}"
    for family, found in content["families"].items():
        print(f"\n{TITLES[family]}")
        print(row.format("", *headings, "s"))
        for name, means in found["samplers"].items():
            leads = found["ours_minus"].get(name)
            shown_leads = map(_shown, leads) if leads else ("", "", "")
            print(row.format(name, means[0]["n"], *map(_shown, means), *shown_leads, found["seconds"][name]))
    print()
    print_claims(content["claims"])


def _shown(found: dict[str, Any]) -> str:
    if found["mean"] is None:
        return "-"
    return f"{found['mean']:.3f}" + ("" if found["se"] is None else f" ± {found['se']:.3f}")


def draw(content: dict[str, Any]) -> go.Figure:
    """Draw the mean share of each sampler, a panel for each family."""
    families = content["families"]
    columns = min(len(families), 2)
    figure = make_subplots(
        (len(families) + columns - 1) // columns,
        columns,
        subplot_titles=[TITLES[family] for family in families],
        horizontal_spacing=0.08,
        vertical_spacing=0.15,
    )
    for panel, found in enumerate(families.values()):
        place = {"row": panel // columns + 1, "col": panel % columns + 1}
        for order, (name, (colour, symbol)) in enumerate(STYLES.items()):
            if name not in found["samplers"]:
                continue
            values = found["samplers"][name]
            line = go.Scatter(
                x=[trials * 1.015 ** (order - 3) for trials in CHECKPOINTS],  # error bars side by side
                y=[value["mean"] for value in values],
                error_y={"array": [value["se"] for value in values]},
                name="ours (UniADSSampler)" if name == "ours" else name,
                legendgroup=name,
                showlegend=panel == 0,
                line={"color": colour, "width": 4 if name == "ours" else 2},
                marker={"symbol": symbol, "size": 14 if name == "ours" else 9},
            )
            figure.add_trace(line, **place)
        figure.update_xaxes(type="log", tickvals=CHECKPOINTS, title_text="finished trials", **place)
    figure.update_yaxes(title_text="share of the hypervolume", col=1)
    size = {"width": 1280, "height": 900, "margin": {"l": 80, "r": 20, "t": 50, "b": 70}}
    figure.update_layout(template="plotly_white", font_size=17, legend={"traceorder": "reversed"}, **size)
    return figure


def landscapes_of(jobs: Iterable[Job]) -> dict[str, int]:
    numbers = sorted({number for _, number, _ in jobs})
    return {"first": numbers[0], "count": len(numbers)}
