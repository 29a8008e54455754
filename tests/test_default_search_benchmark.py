"""The benchmark of the default search: its report is what a calculator gives, and it goes on where it was."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
bench = importlib.import_module("default_search")


def run(version: str, seed: int, seconds: float, accuracy: float) -> dict[str, Any]:
    accuracies = {"plain KD": 90.0, "searched recipe": accuracy}
    return {"version": version, "seed": seed, "seconds": seconds, "recipe": "labels", "accuracies": accuracies}


def test_searches_are_compared_seed_by_seed() -> None:
    runs = [run("this", seed, 100 + 10 * seed, 95.0 + seed) for seed in range(3)]
    runs += [run("beside", seed, 2 * (100 + 10 * seed), 94.0 + seed) for seed in range(2)]  # seed 2 is not there yet
    found = bench.report(runs)
    assert found["this_minus_beside"] == {"n": 2, "mean": 1.0, "se": 0.0, "lower_90_bound": 1.0}
    assert found["times_faster"]["mean"] == 2.0
    minutes, accuracy = found["claims"]
    assert (minutes["mean"], minutes["met"]) == (pytest.approx(110 / 60, abs=1e-4), True)
    assert "longest 2.00" in minutes["claim"]
    assert accuracy["met"]


@pytest.mark.parametrize(("losses", "met"), [((0.9, 0.9, 0.9), True), ((0.0, 0.0, 3.0), False)])
def test_an_uncertain_loss_does_not_meet_the_claim(losses: tuple[float, ...], met: bool) -> None:
    runs = [run("this", seed, 130.0, 95.0 - loss) for seed, loss in enumerate(losses)]
    runs += [run("beside", seed, 130.0, 95.0) for seed in range(3)]
    minutes, accuracy = bench.report(runs)["claims"]
    assert (minutes["met"], accuracy["met"]) == (False, met)


def test_a_finished_search_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "before" / "optuna_kd").mkdir(parents=True)
    searched: list[tuple[str, int]] = []

    def search(checkout: Path, seed: int, more: list[str]) -> dict[str, Any]:
        searched.append((checkout.name, seed))
        assert more == ["--trials", "3"]
        return {key: value for key, value in run("", seed, 60.0, 95.0).items() if key not in ("version", "seed")}

    monkeypatch.setattr(bench, "search", search)
    out = tmp_path / "out.json"
    for seeds in ("1", "2"):
        command = [
            "-",
            "--beside",
            str(tmp_path / "before"),
            "--seeds",
            seeds,
            "--out",
            str(out),
            "--",
            "--trials",
            "3",
        ]
        monkeypatch.setattr(sys, "argv", command)
        bench.main()
    this = bench.ROOT.name
    assert searched == [("before", 0), (this, 0), (this, 1), ("before", 1)]  # who is first takes turns
    assert len(json.loads(out.read_text())["runs"]) == 4

    monkeypatch.setattr(sys, "argv", ["-", "--out", str(out)])
    with pytest.raises(SystemExit):
        bench.main()  # other options


def test_a_search_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with 2"):
        bench.search(bench.ROOT, 0, ["--trials", "none"])
