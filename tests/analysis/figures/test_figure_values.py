"""What the figures show of small studies, worked out by hand."""

from __future__ import annotations

import math

import made_up
import numpy as np
import pytest
from made_up import study_of, trial
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from optuna_kd.analysis import read_table
from optuna_kd.analysis.figures import (
    CHARTS,
    draw_all,
    draw_curves,
    draw_front,
    draw_history,
    draw_importance,
    draw_ledger,
    draw_options,
    draw_parallel,
    draw_survival,
    draw_tree,
)
from optuna_kd.analysis.figures.objective import HUGE
from optuna_kd.analysis.figures.rung_values import LOSS_OF
from optuna_kd.pruners.cka import CONTROL_GAPS, GAPS
from optuna_kd.pruners.rejection import REJECT_REASON
from optuna_kd.scales import LOG_OBJECTIVES
from optuna_kd.study import TASK

PRUNED, FAILED = TrialState.PRUNED, TrialState.FAIL
OURS = {TASK: {"reward": "bounded", "classes": 10, "proxy": {"epochs": 4}}}


def halving() -> list:
    """Ten trials: one not trained, one rejected before the first rung, four stopped, one failed, three finished."""
    reports = {1: 0.1, 2: 0.2, 4: 0.4}
    first = {1: 0.1}
    return [
        trial({"x": 0.1}, 0.40, reports=reports, seconds=8.0, epochs=4),
        trial({"x": 0.2}, state=PRUNED, reports=first, seconds=2.0, epochs=1),
        trial({"x": 0.3}, state=PRUNED, reports=first, seconds=2.0, epochs=1),
        trial({"x": 0.4}, state=PRUNED, reports=first, seconds=3.0, epochs=1),
        trial({"x": 0.5}, state=PRUNED, reports={1: 0.1, 2: 0.2}, seconds=4.0, epochs=2),
        trial({"x": 0.6}, 0.50, reports=reports, seconds=8.0, epochs=4),
        # The worst value at the rung that it did not reach, as our objective reports it.
        trial({"x": 0.7}, state=PRUNED, reports={1: 0.0}, seconds=1.0, **{REJECT_REASON: "exploding loss"}),
        trial({"x": 0.8}, state=PRUNED, **{REJECT_REASON: "infeasible: 9 parameters, allowed 3"}),
        trial({"x": 0.9}, state=FAILED, reports=first, seconds=1.0),
        trial({"x": 1.0}, 0.45, reports=reports, seconds=8.0, epochs=4),
    ]


def test_survival_counts_every_trial_once() -> None:
    chart = draw_survival(read_table(study_of(halving(), **OURS)))
    columns = chart.columns
    rows = [dict(zip(columns, row, strict=True)) for row in chart.rows]
    assert [row["rung"] for row in rows] == ["start", "epoch 1", "epoch 2", "epoch 4"]
    assert [row["reached"] for row in rows] == [10, 8, 4, 3]
    assert [row["went on"] for row in rows] == [8, 4, 3, 0]
    assert [row["stopped at a rung"] for row in rows] == [0, 3, 1, 0]
    assert [row["ran to the end"] for row in rows] == [0, 0, 0, 3]
    assert (rows[0]["loss rejected"], rows[0]["not trained"], rows[1]["failed"]) == (1, 1, 1)
    for row in rows:
        ended = sum(row[name] for name in columns[3:])
        assert row["reached"] == row["went on"] + ended
    assert chart.title == "3 of 10 trials ran to the end; 3 were stopped at epoch 1"


def test_survival_of_a_study_without_losses_begins_at_the_first_rung() -> None:
    chart = draw_survival(read_table(study_of([trial({}, 1.0, reports={0: 0.5, 5: 0.9})])))
    assert [row[:2] for row in chart.rows] == [("step 0", 1), ("step 5", 1)]
    assert chart.title == "The only trial ran to the end"


def test_survival_of_many_steps_has_ten_bars() -> None:
    trials = [trial({}, state=PRUNED, reports=dict.fromkeys(range(n), 0.5)) for n in range(1, 101)]
    chart = draw_survival(read_table(study_of(trials)))
    # Of steps 0 to 99 every tenth: 9, 19, ...; trial n reports up to step n - 1.
    assert [row[:2] for row in chart.rows] == [
        ("start", 100),
        *((f"step {10 * n + 9}", 91 - 10 * n) for n in range(10)),
    ]
    assert chart.notes == ("10 of 100 rungs are drawn, evenly spaced.",)


def test_the_ledger_adds_up() -> None:
    chart = draw_ledger(read_table(study_of(halving(), **OURS)))
    amounts = {(text, kind): seconds for text, kind, seconds, _ in chart.rows}
    assert amounts == {
        ("3 trials ran to the end", "spent"): 24.0,
        ("4 trials stopped at a rung", "spent"): 11.0,
        ("1 trial loss rejected", "spent"): 1.0,
        ("1 trial not trained", "spent"): 1.0,
        ("1 trial failed", "spent"): 1.0,
        # 3 epochs at 2 s twice, 3 at 3 s, and 2 at 2 s.
        ("stopping 4 trials early", "saved"): 6.0 + 6.0 + 9.0 + 4.0,
        # 4 epochs each, at the median of 2 s an epoch.
        ("rejecting the loss of 1 trial", "saved"): 8.0,
        ("not training 1 trial", "saved"): 8.0,
    }
    assert chart.title == "38 s instead of 1 min 19 s: 52 % of the time was saved"
    ends = [bar.base[0] + bar.x[0] for bar in chart.figure.data]
    assert ends[-1] == pytest.approx(79.0)  # seconds: each bar begins where the one before it ended


def test_the_ledger_knows_cheaper_epochs() -> None:
    proxy = {"epochs": 4, "subset": 0.5, "narrow": 0.5}
    study = study_of([trial({}, 1.0, seconds=10.0, epochs=4)], **{TASK: {"proxy": proxy}})
    saved = {text: seconds for text, kind, seconds, _ in draw_ledger(read_table(study)).rows if kind == "saved"}
    # Twice as long on all the data; four times that with all channels.
    assert saved == {"using 50 % of the data": 10.0, "training 50 % of the channels": 60.0}


def test_the_ledger_says_how_many_trials_ran_at_a_time() -> None:
    # All begin together, and take 1, 2, 3 and 4 seconds.
    study = study_of([trial({}, 1.0, took=float(n)) for n in (1, 2, 3, 4)])
    assert "By the clock 4 s: 2.5 trials ran at a time." in draw_ledger(read_table(study)).notes


def test_history_keeps_the_best_so_far() -> None:
    values = [3.0, 2.0, 5.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    trials = [trial({"x": 0.5}, value) for value in values]
    chart = draw_history(read_table(study_of(trials)))
    assert [row[:2] for row in chart.rows] == [(0, 3.0), (2, 5.0), (5, 6.0)]
    assert chart.title == "The best value is 6, of trial\u00a05; the 5 trials since were no better"
    best = next(trace for trace in chart.figure.data if trace.mode == "lines")
    assert (list(best.x), list(best.y)) == ([0, 2, 5, 10], [3.0, 5.0, 6.0, 6.0])
    chart = draw_history(read_table(study_of(trials, "minimize")))
    assert [row[:2] for row in chart.rows] == [(0, 3.0), (1, 2.0), (6, 1.0)]
    assert "yaxis2" not in chart.figure.layout  # nothing was stopped: no second panel


def test_history_shows_where_every_trial_ended() -> None:
    chart = draw_history(read_table(study_of(halving(), **OURS)))
    strip = [trace for trace in chart.figure.data if trace.yaxis == "y2"]
    assert chart.figure.layout.yaxis2.ticktext == ("start", "epoch 1", "epoch 2", "epoch 4 (end)")
    ends = {number: level for trace in strip for number, level in zip(trace.x, trace.y, strict=True)}
    assert ends == {0: 3, 1: 1, 2: 1, 3: 1, 4: 2, 5: 3, 6: 0, 7: 0, 8: 1, 9: 3}
    assert "3 ran to the end, 4 stopped at a rung, 1 loss rejected, 1 not trained, 1 failed." in chart.summary


def test_history_counts_infeasible_trials_as_no_best() -> None:
    good, broken = trial({}, 1.0), trial({}, 9.0)
    good.set_constraint("limit", 0.0)
    broken.set_constraint("limit", 0.5)
    chart = draw_history(read_table(study_of([good, broken])))
    assert [row[:2] for row in chart.rows] == [(0, 1.0)]
    assert "breaks a constraint" in chart.figure.layout.title.subtitle.text


def test_history_is_about_the_complete_trials() -> None:
    """One value a thousand times too large does not press the others together, and is counted in a note."""
    values = [*(1 + n / 10 for n in range(10)), 1000.0]
    chart = draw_history(read_table(study_of([trial({}, value) for value in values], "minimize")))
    low, high = chart.figure.layout.yaxis.range
    assert low < 1.0
    assert 1.9 < high < 3.0
    assert chart.notes == ("Not drawn: 1 value beyond the picture, as far as 1,000.",)


def test_what_no_browser_can_place_is_not_drawn_and_counted() -> None:
    for study in (made_up.huge_values(), made_up.odd_values(), made_up.odd_values_of_two()):
        for chart in draw_all(read_table(study)).values():
            for trace in chart.figure.data:
                places = [place for axis in ("x", "y") for place in getattr(trace, axis, None) or ()]
                assert all(place is None or isinstance(place, str) or abs(place) <= HUGE for place in places)
            for label in chart.figure.layout.annotations:
                assert abs(label.y) <= HUGE
            for axis in chart.figure.select_yaxes():
                assert axis.range is None or all(map(math.isfinite, axis.range))
    chart = draw_history(read_table(made_up.huge_values()))
    assert chart.notes[0].startswith("Not drawn: 8 infinite, 19 beyond ±1e300")
    assert chart.rows[-1][1] == 1e308  # it is named, though


def tree_study() -> list:
    kinds = CategoricalDistribution(("kl", "l2"))
    weights = CategoricalDistribution((1, 5))
    paths = [("kl", 1), ("kl", 1), ("kl", 5), ("kl", None), ("l2", 1), ("l2", 5)]
    values = [0.9, 0.7, 0.8, 0.6, 0.2, 0.4]
    trials = []
    for (kind, weight), value in zip(paths, values, strict=True):
        params = {"kind": kind} | ({} if weight is None else {"weight": weight})
        trials.append(trial(params, value, distributions={"kind": kinds, **({"weight": weights} if weight else {})}))
    return trials


def test_boxes_of_the_tree_add_up() -> None:
    chart = draw_tree(read_table(study_of(tree_study())))
    (icicle,) = chart.figure.data
    boxes = dict(zip(icicle.ids, zip(icicle.labels, icicle.parents, icicle["values"], strict=True), strict=True))
    assert boxes["0"] == ("all trials", "", 6)
    assert [boxes[place][2] for place in boxes if boxes[place][1] == "0"] == [4, 2]
    for place, (_, _, visits) in boxes.items():
        assert sum(found for _, parent, found in boxes.values() if parent == place) <= visits
    means = dict(zip(icicle.labels, icicle.marker.colors, strict=True))
    assert means["kl"] == pytest.approx(0.75)
    assert means["all trials"] == pytest.approx(0.6)
    assert chart.rows[1] == ("kind = kl", 4, pytest.approx(0.75))
    assert chart.title == "33 % of the trials went through kl › weight = 1: mean value 0.8, overall 0.6"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_branches_of_which_nothing_is_known_are_as_pale_as_the_worst(direction: str) -> None:
    kinds = {"kind": CategoricalDistribution(("good", "bad", "diverges"))}
    worst = math.inf if direction == "minimize" else -math.inf
    values = {"good": 1.0, "bad": 3.0, "diverges": worst} if worst > 0 else {"good": 3.0, "bad": 1.0, "diverges": worst}
    study = study_of([trial({"kind": kind}, value, distributions=kinds) for kind, value in values.items()], direction)
    (icicle,) = draw_tree(read_table(study)).figure.data
    colours = dict(zip(icicle.labels, icicle.marker.colors, strict=True))
    assert colours["diverges"] == colours["bad"] != colours["good"]


def test_a_tree_of_infinite_values_names_no_mean() -> None:
    trials = [trial({"x": 0.1 * place}, math.inf) for place in range(9)]
    chart = draw_tree(read_table(study_of(trials, "minimize")))
    assert "not a number" not in chart.title + chart.summary
    assert "trials" in chart.title


def test_parameters_that_look_alike_and_one_named_like_the_objective_are_kept_apart() -> None:
    names = [f"model.encoder.layers.attention.dropout.{end}" for end in "ab"]
    trials = []
    for place in range(30):
        best = place < 3
        mixed = "abc"[place % 3]
        params = {"value": "a" if best else "b", names[0]: "a" if best else "bc"[place % 2], names[1]: mixed}
        trials.append(trial(params, float(-place)))
    chart = draw_parallel(read_table(study_of(trials)))
    assert "value = a: 100 % of the best, 0 % of the others" in chart.summary
    assert "dropout.a = a: 100 % of the best, 0 % of the others" in chart.summary
    assert len({row[0] for row in chart.rows}) == 3


def test_only_the_largest_branches_of_a_tree_are_drawn() -> None:
    from optuna_kd.analysis.figures.tree import grow

    table = read_table(made_up.numbers(200))
    branches, complete = grow(table, 0, nodes=50)
    assert len(branches) == 50
    assert not complete
    assert grow(table, 0, nodes=10_000)[1]
    for branch in branches:
        assert sum(child.visits for child in branch.children) <= branch.visits


def test_the_front_has_the_feasible_trials_that_none_beats() -> None:
    chart = draw_front(read_table(made_up.constrained()))
    # The error falls with the number, the size is 100 (1 + n mod 7): number 28 has the smallest of both that counts;
    # 29 would be better, but breaks the constraint, as every third trial does.
    assert [row[0] for row in chart.rows] == [28]
    assert chart.columns[1:3] == ("error", "bytes")


def test_the_knee_is_the_one_that_a_search_recommends() -> None:
    values = [(1.0, 1e6), (2.0, 1e3), (9.0, 1e2), (9.5, 1e5)]
    study = study_of(
        [trial({}, each) for each in values], "minimize", "minimize", names=("error", "parameters"),
        **{LOG_OBJECTIVES: [1]},
    )  # fmt: skip
    chart = draw_front(read_table(study))
    # Distances to the ideal point, on log parameters: 1, 0.28 = |(1/8, 1/4)|, 1; the last is dominated.
    assert chart.rows[0][0] == 1
    assert {row[0] for row in chart.rows} == {0, 1, 2}
    assert chart.title == "Knee of the front: error = 2 with parameters = 1,000 (trial\u00a01)"
    assert "the next with lower parameters (100) changes error by +7" in chart.summary
    assert "the next with higher parameters (1,000,000) changes error by −1" in chart.summary
    assert chart.figure.layout.xaxis.type == "log"
    stairs = next(trace for trace in chart.figure.data if trace.mode == "lines")
    assert (stairs.line.shape, list(stairs.x)) == ("hv", [1e2, 1e3, 1e6])


def test_other_objectives_can_be_drawn() -> None:
    study = made_up.many_objectives()
    chart = draw_front(read_table(study), axes=(3, "value 2"))
    assert chart.figure.layout.xaxis.title.text == "value 3 ↓ better"
    assert chart.figure.layout.yaxis.title.text == "value 2 ↑ better"
    assert "over all 4 objectives" in chart.notes[0]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ((0, 0), "two different objectives; got 'value 0' twice"),
        ((0,), "two objectives, across and up"),
        ("ab", "two objectives, across and up"),
        ((0, 7), "Unknown objective 7. Known: value 0"),
        ((0, "loss"), "Unknown objective 'loss'"),
    ],
)
def test_wrong_axes_are_refused(axes: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_front(read_table(made_up.many_objectives()), axes)  # type: ignore[arg-type]


def test_the_best_agree_where_the_others_do_not() -> None:
    kinds = CategoricalDistribution(("kl", "l2"))
    ranges = {"kind": kinds, "x": FloatDistribution(0, 1)}
    trials = [
        trial({"kind": "kl" if n < 2 else ("kl", "l2")[n % 2], "x": n / 20}, 1.0 - n / 20, distributions=ranges)
        for n in range(20)
    ]
    chart = draw_parallel(read_table(study_of(trials)))
    # The best two, 0 and 1, are kl, and in the lowest quarter of x; of the 18 others 9 and 3 are.
    assert chart.rows == (("kind", "kl", 1.0, 0.5), ("x", "lowest quarter", 1.0, pytest.approx(3 / 18)))
    assert chart.title == "The best 2 trials agree on x in its lowest quarter and kind = kl"
    best = [trace for trace in chart.figure.data if trace.mode == "lines+markers"]
    assert len(best) == 2


def test_a_line_passes_at_the_right_where_its_trial_was_not_asked() -> None:
    trials = [trial({"kind": "a", "rate": 0.5}, 1.0), trial({"kind": "b"}, 2.0), trial({"kind": "a", "rate": 0.7}, 0.0)]
    chart = draw_parallel(read_table(study_of(trials)))
    best = next(trace for trace in chart.figure.data if trace.mode == "lines+markers")
    assert best.x[1] > 1.1  # of rate
    assert any(text.text == "not asked" for text in chart.figure.layout.annotations)
    assert chart.rows[1][:2] == ("rate", "not asked")


def test_curves_are_medians_of_what_was_reported() -> None:
    gaps = [{"1": 0.5, "2": 0.4}, {"1": 0.3, "2": 0.2}, {"1": 0.7}, {"1": 0.9, "2": 0.8}, {"1": 0.9}, {"1": 0.9}]
    kinds = ["a", "a", "a", "b", "b", "b"]
    rewards = [0.9, 0.8, 0.7, 0.2, 0.1, 0.15]
    trials = [
        trial({"kind": kind}, reward, reports={int(rung): reward for rung in gap}, **{GAPS: gap})
        for kind, reward, gap in zip(kinds, rewards, gaps, strict=True)
    ]
    study = study_of(trials, **OURS, **{CONTROL_GAPS: {"1": 0.6, "2": 0.5}})
    chart = draw_curves(read_table(study))
    found = {row[:3]: row[3:] for row in chart.rows}
    assert found["a", "CKA", 1] == (pytest.approx(0.5), 3)
    assert found["a", "CKA", 2] == (pytest.approx(0.7), 2)
    assert found["b", "CKA", 2] == (pytest.approx(0.2), 1)
    # Bounded: 1 - (CE + gap) / (ln 10 + 1), so at the second rung of the first trial CE = 0.1 (ln 10 + 1) - 0.4.
    losses = [0.1 * (math.log(10) + 1) - 0.4, 0.2 * (math.log(10) + 1) - 0.2]
    assert found["a", "cross-entropy", 2] == (pytest.approx(max(0, losses[0]) / 2 + losses[1] / 2), 2)
    assert chart.title == "kind = a has the best CKA at epoch 2: 0.7, b has 0.2"
    control = next(trace for trace in chart.figure.data if "plain KD" in str(trace.hovertemplate))
    assert (list(control.x), list(control.y)) == ([1, 2], [0.4, 0.5])


def test_the_loss_is_the_one_that_the_reward_was_made_of() -> None:
    from optuna_kd.rewards import REWARDS, Metrics

    metrics = Metrics(accuracy=0.8, cross_entropy=0.7, cka=0.6, l1=0.3, num_classes=10)
    for name, loss in LOSS_OF.items():
        assert loss(REWARDS[name](metrics), metrics.gap, 10) == pytest.approx(0.7)


def test_the_parameter_of_the_curves_can_be_chosen() -> None:
    table = read_table(made_up.auto_kd())
    assert {row[0] for row in draw_curves(table, by="logit_distance").rows} <= {"kl", "pearson", "others"}
    with pytest.raises(ValueError, match=r"Unknown parameter .logit_distnace.\. Did you mean .logit_distance."):
        draw_curves(table, by="logit_distnace")


def gated() -> list:
    """The kind decides nearly all; the rate matters where the kind is a, and exists there only; the noise does not."""
    rng = np.random.default_rng(0)
    kinds, noises = CategoricalDistribution(("a", "b")), CategoricalDistribution(("p", "q"))
    trials = []
    for n in range(60):
        kind, rate, noise = "ab"[n % 2], float(rng.random()), "pq"[int(rng.integers(2))]
        params = {"kind": kind, **({"rate": rate} if kind == "a" else {}), "noise": noise}
        ranges = {"kind": kinds, "rate": FloatDistribution(0, 1), "noise": noises}
        value = 1.0 + 0.2 * rate if kind == "a" else 0.0
        trials.append(trial(params, value, distributions={name: ranges[name] for name in params}))
    return trials


def test_importance_is_that_of_the_analysis_with_its_intervals() -> None:
    from optuna_kd.analysis.importance import importances

    table = read_table(study_of(gated()))
    chart = draw_importance(table)
    expected = importances(table)
    assert [row[0] for row in chart.rows] == [row.parameter for row in expected]
    assert [row[1:4] for row in chart.rows] == [(row.share, row.low, row.high) for row in expected]
    assert chart.rows[0][0] == "kind"
    assert chart.title.startswith("kind matters most: it explains")
    *_, dots = chart.figure.data
    assert list(dots.x) == [round(100 * row.share, 2) for row in expected]
    ends = np.array(dots.x) + np.array(dots.error_x.array)
    assert ends.tolist() == pytest.approx([100 * row.high for row in expected], abs=0.02)
    inside, _ = chart.figure.data
    assert len(inside.x) == 1  # of the rate alone, which does not always exist
    assert any("<b>rate</b>" in text.text and "where kind = a" in text.text for text in chart.figure.layout.annotations)


def test_options_are_compared_all_else_being_equal() -> None:
    chart = draw_options(read_table(study_of(gated())))
    found = {row[:2]: row[2:] for row in chart.rows}
    # Over a uniform rate 1 + 0.2 x is 1.1 on average.
    assert found["kind", "a"][0] == pytest.approx(1.1, abs=0.03)
    assert found["kind", "b"][0] == pytest.approx(0.0, abs=0.03)
    assert found["kind", "a"][3] == found["kind", "b"][3] == 30
    assert found["kind", "a"][1] <= found["kind", "a"][0] <= found["kind", "a"][2]
    assert chart.title.startswith("kind: a is better than b by 1.1")
    (cells,) = chart.figure.data
    assert [value for value in cells.z[1] if value is not None] == pytest.approx([1.1, 0.0], abs=0.03)
    assert len(cells.y) == len(cells.z) + 1  # edges of lines of two heights


def test_means_of_a_logarithmic_objective_are_geometric() -> None:
    trials = [trial({"kind": "ab"[n % 2]}, [0.0, 1000.0 if n % 2 else 10.0]) for n in range(20)]
    study = study_of(trials, "minimize", "minimize", names=("error", "bytes"), **{LOG_OBJECTIVES: [1]})
    chart = draw_options(read_table(study), "bytes")
    assert chart.title == "kind: a is better than b by a factor of 100"
    assert {row[1]: row[2] for row in chart.rows if row[5]} == {
        "a": pytest.approx(10, rel=0.1),
        "b": pytest.approx(1000, rel=0.1),
    }


def test_a_branch_can_be_looked_at_alone() -> None:
    table = read_table(study_of(gated()))
    chart = draw_importance(table, within={"kind": "a"})
    assert chart.rows[0][0] == "rate"
    assert "where kind = a" in chart.title
    assert {row[0] for row in draw_options(table, within={"kind": "a"}).rows} == {"rate", "noise"}
    with pytest.raises(ValueError, match="No usable trial has the parameter 'knid'"):
        draw_importance(table, within={"knid": "a"})


def test_what_figures_share_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_kd.analysis.figures import fit

    calls = []
    response = fit.Response
    monkeypatch.setattr(fit, "Response", lambda *given, **named: calls.append(1) or response(*given, **named))
    charts = draw_all(read_table(study_of(gated())))
    assert calls == [1]
    assert list(charts) == list(CHARTS)
    assert all(chart.name == name for name, chart in charts.items())


def test_the_branches_are_those_that_tell_the_values_apart() -> None:
    from optuna_kd.analysis.figures.groups import telling_parameter

    rng = np.random.default_rng(0)
    trials = []
    for n in range(60):
        kind, noise = "abc"[n % 3], "abc"[rng.integers(3)]
        trials.append(trial({"noise": noise, "kind": kind}, float(n % 3) + 0.1 * rng.random()))
    assert telling_parameter(read_table(study_of(trials)), 0) == "kind"


@pytest.mark.parametrize("draw", [draw_history, draw_tree, draw_parallel, draw_importance, draw_options])
def test_an_unknown_objective_is_refused(draw: object) -> None:
    with pytest.raises(ValueError, match=r"Unknown objective 'loss'\. Known: value"):
        draw(read_table(made_up.one_trial()), "loss")  # type: ignore[operator]
