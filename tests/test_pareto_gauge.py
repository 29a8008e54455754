"""The Pareto gauge: its landscapes are what they say, and its report is what its records add up to."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
gauge = importlib.import_module("pareto_gauge")
pareto_report = importlib.import_module("pareto_report")
lands = importlib.import_module("pareto_landscapes")
landscapes = importlib.import_module("landscapes")


@pytest.fixture(autouse=True)
def _quiet(quiet_optuna: None) -> None:
    pass


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished gauge: random search on two landscapes of family R."""
    path = tmp_path_factory.mktemp("gauge") / "pareto.jsonl"
    run(path)
    return path


def run(path: Path, samplers: tuple[str, ...] = ("random",)) -> dict[str, Any]:
    return gauge.run_gauge(gauge.jobs_of("R", range(2), samplers), path, 0)


def make_record(sampler: str, landscape: int, shares: list[float]) -> Any:
    return pareto_report.ParetoRecord("P", landscape, sampler, "any", shares, 1.0)


def test_hypervolume_by_hand() -> None:
    points = np.array([[0.0, 0.5], [0.5, 0.0], [0.6, 0.6], [-9.0, 1.0], [0.5, 0.5]])
    # (0, .5) gives 1 · .5, (.5, 0) another .5 · .5; the others are dominated or outside.
    assert lands.hypervolume(points) == pytest.approx(0.75)
    assert lands.hypervolume(points[3:4]) == 0.0
    assert lands.front_of(points).tolist() == [[-9.0, 1.0], [0.0, 0.5], [0.5, 0.0]]


def test_scores_are_those_of_the_same_search_done_by_hand(store: Path) -> None:
    land = lands.FAMILIES["R"](1)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=optuna.samplers.RandomSampler(1))
    study.optimize(lambda trial: land.score(trial).tolist(), n_trials=200)
    expected = [land.share(np.array([t.values for t in study.trials[:finished]])) for finished in (100, 200)]
    (record,) = [r for r in gauge.read_records(store) if r.landscape == 1]
    assert record.shares[:2] == pytest.approx(expected, abs=1e-6)
    assert 0 < record.shares[0] <= record.shares[1] <= record.shares[2] < 1


def test_a_finished_search_is_not_repeated(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.read_text()
    monkeypatch.setattr(gauge, "run_job", lambda *job: pytest.fail(f"{job} was run again"))
    run(store)
    assert store.read_text() == before


def test_stale_and_half_written_records_are_run_again(store: Path, tmp_path: Path) -> None:
    first, second = store.read_text().splitlines(keepends=True)
    path = tmp_path / "pareto.jsonl"
    path.write_text(first.replace("optuna ", "optuna 0.") + second + second[:40])
    assert [record.landscape for record in gauge.read_records(path)] == [1]


def test_noise_is_added_to_what_is_told_and_not_to_what_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    land = lands.FAMILIES["P"](0)
    study_of = optuna.create_study
    seen = []
    monkeypatch.setattr(optuna, "create_study", lambda **rest: seen.append(study_of(**rest)) or seen[-1])
    (share,) = gauge.search(land, optuna.samplers.RandomSampler(0), (20,))
    told = np.array([trial.values for trial in seen[0].trials])
    clean = told - np.array([land.noise_of(number) for number in range(20)])
    assert share == pytest.approx(land.share(clean))
    assert (told[:, 0] == clean[:, 0]).all()  # the cost is exact
    assert np.std(told[:, 1] - clean[:, 1]) == pytest.approx(0.3, abs=0.15)


@pytest.mark.parametrize("family", "PQRS")
def test_no_trial_is_ahead_of_the_front(family: str) -> None:
    land, trial = lands.FAMILIES[family](0), landscapes.UniformTrial(np.random.default_rng(0))
    drawn = np.array([land.values(trial) for _ in range(300)])
    for point in drawn:
        assert (land.front <= point + 1e-9).all(axis=1).any()
    front = land.front
    assert (np.diff(front[:, 0]) > 0).all()
    assert (np.diff(front[:, 1]) < 0).all()
    assert lands.hypervolume(land.z(front)) == land.attainable > land.share(land.z(drawn)) > 0


@pytest.mark.parametrize(("family", "least"), [("P", 12), ("Q", 12), ("R", 12), ("S", 12)])
def test_landscapes_are_gated_and_wide(family: str, least: int) -> None:
    land, names = lands.FAMILIES[family](0), []
    study = optuna.create_study(directions=["minimize"] * 2, sampler=optuna.samplers.RandomSampler(0))
    for _ in range(60):
        trial = study.ask()
        assert np.isfinite(land.values(trial)).all()
        names.append(set(trial.params))
    assert len(set.union(*names)) >= least
    assert len({len(each) for each in names}) > 1


def test_spaces_have_their_configurations() -> None:
    digits = lands.pipeline_digits()
    assert len(digits) == len(np.unique(digits, axis=0)) == 40_824 * 15 == 612_360
    assert 40_824 * 256 == 10_450_944
    land = lands.FAMILIES["S"](3)
    assert land.values_of(digits[::6000])[:, 0].std() > 1
    assert np.corrcoef(land.values_of(digits[::200]).T)[0, 1] < 0


def test_landscapes_are_the_same_in_every_process() -> None:
    trial = landscapes.UniformTrial(np.random.default_rng(0))
    assert lands.FAMILIES["Q"](0).values(trial).tolist() == pytest.approx([-2.9068307976185808, 4.335609724862259])


def test_report_is_what_a_calculator_gives() -> None:
    ours, rivals = [[0.5, 0.7, 0.9], [0.6, 0.8, 0.9]], {"nsga2": 0.3, "nsga2-20": 0.4, "tpe": 0.85, "tpe-group": 0.95}
    records = [make_record("ours", number, shares) for number, shares in enumerate(ours)]
    for name, last in rivals.items():
        records += [make_record(name, 0, [0.2, 0.3, last]), make_record(name, 1, [0.2, 0.6, last])]
    content = pareto_report.report(records)
    family = content["families"]["P"]
    assert family["samplers"]["ours"][0] == {"n": 2, "mean": 0.55, "se": 0.05}
    # At 200 the differences are .4 and .2.
    assert family["ours_minus"]["nsga2"][1] == {"n": 2, "mean": 0.3, "se": 0.1}
    assert {claim["claim"]: claim["met"] for claim in content["claims"]} == {
        "P: ours - nsga2 at 200 > 2 se": True,
        "P: ours - nsga2-20 at 400 > 2 se": True,
        "P: ours - tpe-group at 400 >= -1 se": False,
        "ahead of the better TPE at 400 on most families": False,
    }
    assert json.loads(json.dumps(content)) == content


def test_report_prints_and_draws_what_there_is(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(store.with_suffix(".json").read_text())
    pareto_report.print_report(content)
    assert "R: floats and integers" in capsys.readouterr().out
    figure = pareto_report.draw(content)
    assert [line.name for line in figure.data] == ["random"]
    assert figure.data[0].y[1] == content["families"]["R"]["samplers"]["random"][1]["mean"]


def test_tables_know_every_sampler() -> None:
    assert tuple(gauge.SAMPLERS) == pareto_report.ORDER
    assert set(lands.FAMILIES) == set(pareto_report.TITLES)
