"""The sampler gauge: its landscapes are what they say, and its report is what its records add up to."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
gauge = importlib.import_module("sampler_gauge")
gauge_report = importlib.import_module("gauge_report")
overhead = importlib.import_module("sampler_overhead")
landscapes = importlib.import_module("landscapes")


@pytest.fixture(autouse=True)
def _quiet(quiet_optuna: None) -> None:
    pass


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished gauge: random search and NSGA-II on two landscapes of family A."""
    path = tmp_path_factory.mktemp("gauge") / "gauge.jsonl"
    run(path)
    return path


def run(path: Path, samplers: tuple[str, ...] = ("random", "nsga2")) -> dict[str, Any]:
    return gauge.run_gauge(gauge.jobs_of("A", range(2), samplers), path, 0)


def make_record(sampler: str, landscape: int, recommended: list[float]) -> Any:
    return gauge_report.Record("A", landscape, sampler, "any", recommended, [0.0, 0.0, 0.0], 4.0 + landscape)


def test_every_search_leaves_a_record(store: Path) -> None:
    records = [json.loads(line) for line in store.read_text().splitlines()]
    jobs = [(0, "nsga2"), (0, "random"), (1, "nsga2"), (1, "random")]
    assert [(r["landscape"], r["sampler"]) for r in records] == jobs
    for record in records:
        assert len(record["recommended"]) == len(record["observed"]) == 3
        assert max(record["recommended"]) < record["optimum"]


def test_scores_are_those_of_the_same_search_done_by_hand(store: Path) -> None:
    land = landscapes.FAMILIES["A"](1)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(1))
    study.optimize(lambda trial: land.observe(trial, trial.number), n_trials=100)
    expected = []
    for finished in (25, 50, 100):
        best = max(study.trials[:finished], key=lambda trial: trial.value)
        noise = 0.3 * np.random.default_rng([1, 2, best.number, ord("A")]).normal()
        expected.append(best.value - noise)
    (record,) = [r for r in gauge.read_records(store) if (r.landscape, r.sampler) == (1, "random")]
    assert record.observed == pytest.approx(expected)
    assert record.recommended == record.observed  # random search recommends nothing of its own


def test_a_finished_search_is_not_repeated(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = store.read_text()
    monkeypatch.setattr(gauge, "run_job", lambda *job: pytest.fail(f"{job} was run again"))
    run(store)
    assert store.read_text() == before


def test_stale_and_half_written_records_are_run_again(store: Path, tmp_path: Path) -> None:
    first, second, *rest = store.read_text().splitlines(keepends=True)
    path = tmp_path / "gauge.jsonl"
    path.write_text(first.replace("optuna ", "optuna 0.") + "".join(rest) + second[:40])
    assert len(gauge.read_records(path)) == 2
    run(path)
    assert path.read_text() == store.read_text()


def test_what_is_done_stays_when_a_sampler_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(seed: int) -> Any:
        raise ValueError("no such branch")

    path = tmp_path / "gauge.jsonl"
    monkeypatch.setattr(gauge, "version_of", lambda sampler, family: "any")
    monkeypatch.setitem(gauge.SAMPLERS, "gp", broken)
    with pytest.raises(ValueError, match="no such branch"):
        run(path, ("random", "gp"))
    assert [record.job for record in gauge.read_records(path)] == [("A", 0, "random")]


def test_the_samplers_own_recommendation_counts() -> None:
    class Contrary(gauge.MCTSSampler):
        def recommend(self, study: optuna.Study) -> optuna.trial.FrozenTrial:
            return min(study.trials, key=lambda trial: trial.value)

    land = landscapes.FAMILIES["A"](0)
    ((recommended, observed),) = gauge.search(land, Contrary(0), 1, (6,))
    assert recommended < observed


def test_workers_are_as_many_as_asked_for_and_every_trial_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = []

    class Watching(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            at_once.append(len(study.get_trials(states=[optuna.trial.TrialState.RUNNING])))

    monkeypatch.setattr(gauge, "duration", lambda landscape, number: 10.0 if number == 0 else 1.0)
    seen = []
    monkeypatch.setattr(gauge, "recommend", lambda study: seen.append(study) or study.best_trial)
    land = landscapes.FAMILIES["A"](0)
    assert len(list(gauge.search(land, Watching(0), 3, (4, 8)))) == 2
    assert at_once == [1, 2, 3, 3, 3, 3, 3, 3]
    assert all(trial.state.is_finished() for trial in seen[-1].trials)
    assert max(seen[-1].trials, key=lambda trial: trial.datetime_complete).number == 0  # the long one is last


def test_durations_depend_on_landscape_and_trial() -> None:
    found = {(n, t): gauge.duration(n, t) for n in range(20) for t in range(50)}
    assert len(set(found.values())) == 1000
    assert min(found.values()) > 1
    assert fmean(found.values()) == pytest.approx(1.5, abs=0.06)  # four standard errors


def test_report_is_what_a_calculator_gives() -> None:
    ours, tpe = [[1.0, 2.0, 3.0], [2.0, 3.0, 4.5], [9.0, 9.0, 9.0]], [[0.5, 1.0, 2.0], [1.0, 1.0, 2.0]]
    records = [make_record("ours", number, scores) for number, scores in enumerate(ours)]
    records += [make_record("tpe", number, scores) for number, scores in enumerate(tpe)]
    records += [make_record("ours-8", 0, [1.0, 2.0, 2.9]), make_record("ours-8", 1, [1.0, 2.0, 4.2])]
    records += [make_record("gp", 0, [1.0, 2.0, 2.5])]
    content = gauge_report.report(records)
    family = content["families"]["A"]

    assert family["optimum"] == {"n": 3, "mean": 5.0, "se": round(1 / 3**0.5, 4)}
    assert family["samplers"]["tpe"]["recommended"][2] == {"n": 2, "mean": 2.0, "se": 0.0}
    assert family["samplers"]["ours"]["recommended"][0] == {"n": 3, "mean": 4.0, "se": round(19**0.5 / 3**0.5, 4)}
    # Landscape 2 has no run of TPE: the differences are .5 and 1, 1 and 2, 1 and 2.5.
    assert family["ours_minus"]["tpe"][0] == {"n": 2, "mean": 0.75, "se": 0.25}
    assert family["ours_minus"]["tpe"][2] == {"n": 2, "mean": 1.75, "se": 0.75}
    assert family["ours_minus"]["gp"][2] == {"n": 1, "mean": 0.5, "se": None}
    # At 50, 2 and 3, TPE at 100, 2 and 2.
    assert family["ours_at_50_minus_tpe_at_100"] == {"n": 2, "mean": 0.5, "se": 0.5}
    # The differences -0.1 and -0.3; t at 95 % with one degree of freedom is 6.3138.
    eight = {"n": 2, "mean": -0.2, "se": 0.1, "lower_90_bound": -0.8314}
    assert content["ours_8_minus_ours_at_100"] == eight

    assert {claim["claim"]: claim["met"] for claim in content["claims"]} == {
        "A: ours - tpe at 25 >= 0.8": False,
        "A: ours - tpe at 50 >= 0.65": True,
        "A: ours - tpe at 100 >= 0.45": True,
        "A: ours at 50 - tpe at 100 >= 0": True,
        "A: ours - any other at 100 >= -1 se; nearest: tpe": True,
        "ours-8 - ours at 100, all families: lower 90 % bound -0.83 > -0.1": False,
    }
    assert json.loads(json.dumps(content)) == content


def test_a_rival_ahead_by_more_than_its_standard_error_breaks_the_claim() -> None:
    scores = {"ours": (1.0, 1.0), "tpe": (0.0, 4.0), "gp": (1.4, 1.5)}  # tpe: -1 ± 2, gp: -0.45 ± 0.05
    records = [make_record(name, n, [value] * 3) for name, values in scores.items() for n, value in enumerate(values)]
    met = {claim["claim"]: claim["met"] for claim in gauge_report.report(records)["claims"]}
    assert met["A: ours - any other at 100 >= -1 se; nearest: gp"] is False


def test_report_of_a_run_agrees_with_its_records(store: Path) -> None:
    content = json.loads(store.with_suffix(".json").read_text())
    last = [r.recommended[2] for r in gauge.read_records(store) if r.sampler == "nsga2"]
    found = content["families"]["A"]["samplers"]["nsga2"]["recommended"][2]
    assert found == {"n": 2, "mean": round(fmean(last), 4), "se": round(stdev(last) / 2**0.5, 4)}
    assert content["landscapes"] == {"first": 0, "count": 2}


def test_report_prints_and_draws_what_there_is(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(store.with_suffix(".json").read_text())
    gauge_report.print_report(content)
    assert "A: pairs of options" in capsys.readouterr().out
    figure = gauge_report.draw(content)
    assert [line.name for line in figure.data] == ["random", "nsga2"]
    mean = content["families"]["A"]["samplers"]["random"]["recommended"][1]["mean"]
    assert figure.data[0].y[1] == mean

    def without_chromium(*_: Any) -> None:
        raise RuntimeError("no browser")

    monkeypatch.setattr(type(figure), "write_image", without_chromium)
    gauge_report.save_figure(figure, tmp_path / "gauge.png")
    said = capsys.readouterr().out
    assert "no browser" in said
    assert "pip install 'kaleido" in said


def test_tables_know_every_sampler() -> None:
    assert tuple(gauge.SAMPLERS) == gauge_report.ORDER


def test_overhead_times_both_and_holds_the_claims_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "WARM_UP", 2)
    monkeypatch.setattr(overhead, "BLOCKS", 1)
    monkeypatch.setattr(overhead, "BLOCK", 3)
    content = overhead.measure((10, 20))
    for sides in content["ask_ms_by_finished_trials"].values():
        assert set(sides) == {"tpe", "ours"}
        assert all(ms > 0 for found in sides.values() for ms in found.values())
    assert content["held_bytes_by_finished_trials"][20] > 1000

    cost = {100: {"ours": {"median": 14.0}}, 2000: {"ours": {"median": 41.0}}}
    cost[10_000] = {"ours": {"median": 90.0}, "tpe": {"median": 138.0}}
    held = {2000: 1000, 10_000: 5600}
    assert [claim["met"] for claim in overhead.check_claims(cost, held)] == [True, False, True, False]


def test_noise_depends_on_family_landscape_and_trial() -> None:
    lands = [landscapes.FAMILIES[family](number) for family in "ABC" for number in range(3)]
    assert len({land._unit_noise(trial) for land in lands for trial in range(20)}) == 180
    mixed = landscapes.FAMILIES["C"](0)
    assert type(mixed.value(landscapes.UniformTrial(np.random.default_rng(0)))) is float


def test_gated_space_has_its_leaves_and_their_best_is_the_best() -> None:
    recipes = landscapes.gated_leaves()
    # (2 + 4 mask ratios) · 3 · 3 · 3 · 4 · (none + 4 · 4 for kl + 4 for pearson) · 3
    assert len(recipes) == 6 * 108 * 21 * 3 == 40_824
    assert len({tuple(recipe.items()) for recipe in recipes}) == 40_824

    land = landscapes.FAMILIES["A"](0)
    active = np.zeros((len(recipes), len(land.main)))
    for row, recipe in enumerate(recipes):
        active[row, [land.start[name] + option for name, option in recipe.items()]] = 1
    values = active @ land.main + ((active @ np.triu(land.pairs)) * active).sum(1)
    assert land.best == pytest.approx(values.max())
    best = optuna.trial.FixedTrial(recipes[int(values.argmax())])
    assert land.value(best) == pytest.approx(land.best)


def test_uniform_draws_respect_their_bounds() -> None:
    trial = landscapes.UniformTrial(np.random.default_rng(0))
    floats = [trial.suggest_float("x", 1e-4, 1.0, log=True) for _ in range(2000)]
    assert all(1e-4 <= value <= 1.0 for value in floats)
    assert np.mean([value < 1e-2 for value in floats]) == pytest.approx(0.5, abs=0.05)
    assert all(-2.0 <= trial.suggest_float("x", -2.0, 3.0) <= 3.0 for _ in range(2000))
    steps = {round(trial.suggest_float("x", 0.0, 0.5, step=0.05) / 0.05, 9) for _ in range(2000)}
    assert steps == set(range(11))
    assert {trial.suggest_int("n", 1, 7, step=2) for _ in range(2000)} == {1, 3, 5, 7}
    assert {trial.suggest_int("n", 8, 16, log=True) for _ in range(2000)} == set(range(8, 17))
    assert {trial.suggest_categorical("c", "abc") for _ in range(2000)} == set("abc")
