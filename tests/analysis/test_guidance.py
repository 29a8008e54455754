"""Guidance: right where the truth is known, silent about noise, and one clear line where nothing can be said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from optuna_kd.analysis import Finding, guidance, importances, marginals, options, read_table
from optuna_kd.analysis.branches import Branch
from optuna_kd.analysis.figures import draw_importance
from optuna_kd.analysis.response import Response
from optuna_kd.pruners.rejection import REJECT_REASON
from optuna_kd.scales import LOG_OBJECTIVES
from optuna_kd.study.settings import TASK

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "figures"))
import made_up
from searched import OURS, searched

LOWEST = " It is the lowest that was searched: lower ones may be better still."
HIGHEST = " It is the highest that was searched: higher ones may be better still."
WORTH = {"kl": 0.2, "l2": 0.1, "gl2": 0.0}


def sentences(found: tuple[Finding, ...]) -> list[str]:
    return [finding.sentence for finding in found]


def the_one(found: tuple[Finding, ...], beginning: str) -> Finding:
    [finding] = [finding for finding in found if finding.sentence.startswith(beginning)]
    return finding


@pytest.fixture(scope="module")
def ours() -> optuna.Study:
    ranges = {"feature_distance": tuple(WORTH), "warmup": (0, 1), "rate": FloatDistribution(0, 1)}
    return searched(ranges, lambda params: WORTH[params["feature_distance"]], noise=0.02, **OURS)


def test_what_is_best_is_said_first_with_what_it_is_worth_and_with_its_evidence(ours: optuna.Study) -> None:
    found = guidance(ours)
    first = found[0]
    assert first.parameter == "feature_distance"
    assert first.sentence.startswith("Use kl as feature_distance: it raises reward by ")
    assert first.sentence.endswith(" points against l2, the next best, all else being equal.")
    assert first.numbers.gap == pytest.approx(0.1, abs=0.02)
    assert first.numbers.low is not None
    assert first.numbers.high is not None
    assert 0 < first.numbers.low < first.numbers.gap < first.numbers.high
    assert first.numbers.adjusted is not None
    assert first.numbers.adjusted < 0.01
    tried = [trial.params["feature_distance"] for trial in ours.trials]
    assert first.numbers.visits == (("kl", tried.count("kl")), ("l2", tried.count("l2")))
    low, high = 100 * first.numbers.low, 100 * first.numbers.high
    assert f"better by {100 * first.numbers.gap:.2g} points (90 % interval {low:.2g} to {high:.2g})" in str(first)
    assert the_one(found, "What matters most is feature_distance: tune it first.").evidence.startswith(
        "shares of the differences in reward that they explain: feature_distance 9"
    )
    least = the_one(found, "It hardly matters what ").sentence
    assert "warmup" in least
    assert "rate" in least
    assert not [each for each in sentences(found) if each.startswith("Nothing can be said")]


def test_the_same_again_and_from_a_table_or_a_response(ours: optuna.Study) -> None:
    assert guidance(ours) == guidance(ours) == guidance(read_table(ours)) == guidance(Response(read_table(ours)))
    assert guidance(ours) != guidance(ours, seed=1)


def test_what_is_bad_is_advised_against_while_the_best_is_open() -> None:
    worth = {"a": 1.0, "b": 1.0, "c": 0.0}
    study = searched({"kind": tuple(worth)}, lambda params: worth[params["kind"]], direction="minimize")
    first = guidance(study)[0]
    assert first.sentence.startswith("Use c as kind: it lowers value by ")
    worth = {"a": 0.0, "b": 0.0, "c": 1.0}
    study = searched({"kind": tuple(worth)}, lambda params: worth[params["kind"]], direction="minimize")
    first = guidance(study)[0]
    assert first.sentence.startswith("Do not use c as kind: ")
    assert " lowers value by " in first.sentence
    assert first.sentence.endswith(" against c, all else being equal. Which of a and b is best is open.") or (
        first.sentence.endswith(" against c, all else being equal. Which of b and a is best is open.")
    )


def test_two_options_have_no_next_best_and_a_branch_is_named() -> None:
    def value(params: dict[str, Any]) -> float:
        if params["way"] == "other":
            del params["how"]
            return 0.0
        return {"this": 1.0, "that": -1.0}[params["how"]]

    found = guidance(searched({"way": ("one", "other"), "how": ("this", "that")}, value))
    advice = the_one(found, "Use this as how")
    assert advice.sentence.startswith("Use this as how where way = one: it raises value by ")
    assert advice.sentence.endswith(" against that, all else being equal.")
    assert the_one(found, "Nothing can be said").sentence == (
        "Nothing can be said about the options of way yet: no difference between them is beyond noise."
    )


@pytest.mark.parametrize(
    ("ranges", "slope", "end"),
    [
        ({"weight": (1, 5, 25, 50)}, -1, LOWEST),
        ({"layers": IntDistribution(1, 4)}, 1, HIGHEST),
        ({"rate": FloatDistribution(0, 4)}, 1, HIGHEST),
        ({"flag": (True, False, 2)}, 1, ""),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)  # fmt: skip
def test_the_best_at_the_end_of_its_range_is_said(ranges: dict[str, Any], slope: int, end: str) -> None:
    study = searched(ranges, lambda params: slope * float(next(iter(params.values()))), noise=0.05)
    first = guidance(study)[0].sentence
    assert first.startswith("Use ")
    assert first.endswith(f"all else being equal.{end}")


def test_units(ours: optuna.Study) -> None:
    assert "points" in guidance(ours)[0].sentence
    of_logs = searched(
        {"size": ("small", "large")},
        lambda params: {"small": 1000.0, "large": 4000.0}[params["size"]],
        noise=0.0,
        direction="minimize",
        **{LOG_OBJECTIVES: [0]},
    )
    assert "it lowers value by a factor of 4 against large" in guidance(of_logs)[0].sentence
    nats = searched({"x": ("a", "b")}, lambda params: 0.5 * (params["x"] == "a"), direction="minimize", **{TASK: {}})
    nats.set_metric_names(["cross_entropy"])
    assert guidance(nats)[0].sentence.startswith("Use b as x: it lowers cross_entropy by 0.")
    assert " nats against a" in guidance(nats)[0].sentence
    unbounded = searched({"x": ("a", "b")}, lambda params: params["x"] == "a", **{TASK: {"reward": "paper"}})
    assert "points" not in guidance(unbounded)[0].sentence


def test_several_objectives() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    single = searched({"x": ("a", "b"), "y": ("c", "d")}, lambda params: params["x"] == "a", noise=0.05)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=trial.params,
                distributions=trial.distributions,
                values=[trial.value, trial.params["y"] == "d"],
            )
            for trial in single.trials
        ]
    )
    assert guidance(study)[0].sentence.startswith("Use b as x: it lowers value 0 by ")
    assert guidance(study, 1)[0].sentence.startswith("Use d as y: it raises value 1 by ")
    assert guidance(study, "value 1") == guidance(study, 1)
    with pytest.raises(ValueError, match="Unknown objective 2"):
        guidance(study, 2)


def test_options_with_which_trials_diverge_are_named_and_not_called_untried() -> None:
    worth = {"good": 1.0, "bad": 3.0, "diverges": float("inf")}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    study.optimize(
        lambda trial: worth[trial.suggest_categorical("kind", list(worth))] + 0.1 * trial.suggest_float("x", 0.0, 1.0),
        n_trials=60,
    )
    tried = [trial.params["kind"] for trial in study.trials].count("diverges")
    found = guidance(study)
    ending = the_one(found, "No trial with kind = diverges")
    assert ending.sentence == (
        f"No trial with kind = diverges ends with a finite value: of {tried}, {tried} with an infinite value."
    )
    assert ending.evidence.startswith(f"with other options 0 % of {60 - tried} trials did not, adjusted p ")
    assert the_one(found, "Do not use bad as kind").sentence.endswith("against bad, all else being equal.")
    assert not any("Hardly tried" in sentence for sentence in sentences(found))


def test_options_that_hardly_end_well_are_named_with_their_counts() -> None:
    study = searched({"distance": ("kl", "l2")}, lambda params: 1.0 * (params["distance"] == "kl"), trials=20)
    choices = {"distance": optuna.distributions.CategoricalDistribution(("kl", "l2", "gl2", "l1", "never"))}
    fresh = optuna.create_study(direction="maximize")
    fresh.add_trials(
        optuna.trial.create_trial(params=trial.params, distributions=choices, value=trial.value)
        for trial in study.trials
    )
    ends = [(TrialState.PRUNED, f"collapsed: a loss of {n}") for n in range(6)]
    ends += [(TrialState.FAIL, None), (TrialState.PRUNED, None)]
    for state, reason in ends:
        attributes = {REJECT_REASON: reason} if reason else {}
        fresh.add_trial(
            optuna.trial.create_trial(
                state=state, params={"distance": "gl2"}, distributions=choices, user_attrs=attributes
            )
        )
    fresh.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, params={"distance": "l1"}, distributions=choices))
    found = guidance(fresh)
    ending = the_one(found, "No trial with distance = gl2 runs to the end")
    assert ending.sentence == (
        "No trial with distance = gl2 runs to the end: of 8, 6 rejected, 1 failed and 1 stopped at a rung, most of "
        "those rejected as 'collapsed'."
    )
    assert ending.numbers.visits == (("gl2", 8), ("others", 21))
    assert ending.evidence.startswith("with other options 5 % of 21 trials did not, adjusted p ")
    assert the_one(found, "Hardly tried").sentence == (
        "Hardly tried, so little is known of them: distance = never (never) and l1 (once)."
    )


def test_where_most_are_pruned_anyway_no_option_is_blamed() -> None:
    choices = {"x": optuna.distributions.CategoricalDistribution(("a", "b"))}
    study = optuna.create_study()
    for n in range(60):
        params = {"x": "ab"[n % 2]}
        if n < 8:
            study.add_trial(optuna.trial.create_trial(params=params, distributions=choices, value=n / 10))
        else:
            study.add_trial(
                optuna.trial.create_trial(
                    state=TrialState.PRUNED, params=params, distributions=choices, intermediate_values={1: n % 7}
                )
            )
    assert not [each for each in sentences(guidance(study)) if "runs to the end" in each]


@pytest.mark.usefixtures("rough")
@pytest.mark.parametrize("kind", made_up.KINDS)
def test_every_kind_of_study_has_something_to_say(kind: str) -> None:
    study = made_up.KINDS[kind]()
    found = guidance(study)
    assert 1 <= len(found) <= 11
    for finding in found:
        for text in (finding.sentence, finding.evidence, *(side for side, _ in finding.numbers.visits)):
            assert len(text) < 600
            assert text.isprintable()
            assert "&lt;" not in text
            assert "not a number" not in text.replace("value is not a number", "")
        assert finding.sentence.endswith(".")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("empty", "This study has no trials yet: there is nothing to learn from."),
        ("only_waiting", "None of 1 trial tells a value (1 waiting to run): nothing can be said yet."),
        (
            "one_trial",
            "1 trial with parameters and a finite value: at least 4 are needed to compare, so nothing can be said yet.",
        ),
        ("all_failed", "None of 5 trials tells a value (5 failed): nothing can be said yet."),
        (
            "pruned_without_reports",
            "None of 5 trials tells a value (5 pruned without a report): nothing can be said yet.",
        ),
        (
            "equal_values",
            "All 12 trials are worth the same, a value of 0: what they differ in has made no difference.",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(kind: str, sentence: str) -> None:
    assert sentences(guidance(made_up.KINDS[kind]())) == [sentence]


def test_all_pruned_and_one_option_only() -> None:
    assert sentences(guidance(made_up.all_pruned()))[0] == (
        "No trial ran to the end: what follows is about what they reported, up to step 2."
    )
    same = searched({"x": ("a",), "y": ("b", "c")}, lambda params: 0.0)
    assert not [each for each in sentences(guidance(same)) if " x" in each]
    alone = searched({"x": ("a",)}, lambda params: 0.0, trials=8)
    assert sentences(guidance(alone)) == ["All 8 trials chose the same: what their values differ by is noise."]


@pytest.mark.usefixtures("rough")
@pytest.mark.parametrize("parameters", [1, 2, 4])
def test_of_noise_no_parameter_is_said_to_matter(parameters: int) -> None:
    ranges = {f"x{n}": FloatDistribution(0, 1) for n in range(parameters)}
    for seed in range(4):
        study = searched(ranges, lambda params: 0.0, noise=1.0, seed=seed)
        said = sentences(guidance(study))
        assert not [each for each in said if each.startswith(("What matters", "It hardly matters"))]
        assert ("No parameter can be told from noise yet." in said) is (parameters > 1)
        title = draw_importance(read_table(study)).title
        only = "x0 is the only parameter: there is none to compare it with"
        assert title == (only if parameters == 1 else "No parameter can be told from noise yet")


@pytest.mark.usefixtures("rough")
def test_of_one_parameter_alone_it_is_not_said_that_it_matters_most() -> None:
    said = sentences(guidance(searched({"x": ("a", "b"), "fixed": (1,)}, lambda params: params["x"] == "a")))
    assert said[0].startswith("Use a as x")
    assert not [each for each in said if "matter" in each or "told from noise" in each]


@pytest.mark.usefixtures("rough")
def test_parameters_that_only_matter_together_are_named_and_their_options_left_open() -> None:
    ranges = {"x": ("a", "b"), "y": ("a", "b"), "z": ("a", "b")}
    found = guidance(searched(ranges, lambda params: params["x"] == params["y"], noise=0.3))
    most = the_one(found, "What matters most are ").sentence
    assert "x" in most.partition(":")[0]
    assert "y" in most.partition(":")[0]
    assert most.endswith(" is best is open, or depends on the other parameters.")
    unknown = [each for each in sentences(found) if each.startswith("Nothing can be said")]
    assert unknown in (
        [],
        ["Nothing can be said about the options of z yet: no difference between them is beyond noise."],
    )


@pytest.mark.usefixtures("rough")
def test_of_many_parameters_the_first_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def means_of(response: Response, branch: Branch, parameter: str, *rest: Any, **given: Any) -> Any:
        asked.append(parameter)
        return marginals.means_of(response, branch, parameter, *rest, **given)

    monkeypatch.setattr(options, "means_of", means_of)
    ranges = {f"x{n:02}": ("a", "b") for n in range(20)}
    response = Response(read_table(searched(ranges, lambda params: params["x07"] == "a", trials=40, noise=0.5)))
    found = guidance(response)
    assert asked
    assert set(asked) == {row.parameter for row in importances(response)[: len(asked)]}
    assert len(asked) == len(set(asked)) <= 12  # each once, for guidance and for what matters
    assert found[0].sentence.startswith("Use a as x07")
    left = [each for each in found if each.sentence.startswith("The options of 12 parameters were compared")]
    assert left == [found[-1]]
    little = the_one(found, "It hardly matters what ").numbers.visits  # nor are the options of these compared
    assert f"not those of {8 - len(little)} others, which explain less." in found[-1].sentence


@pytest.mark.usefixtures("rough")
def test_noise_is_hardly_ever_advice() -> None:
    ranges = {"kind": ("a", "b", "c"), "flag": (0, 1)}
    studies = 200
    advised = sum(
        guidance(searched(ranges, lambda params: 0.0, trials=20, noise=1.0, seed=seed))[0].numbers.adjusted is not None
        for seed in range(studies)
    )
    assert advised <= 0.05 * studies + 2 * (0.05 * 0.95 * studies) ** 0.5
