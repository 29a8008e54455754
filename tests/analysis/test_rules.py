"""The papers' rules of thumb: supported where they hold, contradicted where the opposite does, open in noise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from optuna_kd.analysis import RuleCheck, Status, check_rules, read_table
from optuna_kd.analysis.contrasts import Some
from optuna_kd.analysis.response import Response
from optuna_kd.analysis.rule_book import AUTO_KD, RULES, UNIADS
from optuna_kd.search_space import SPACES, create_space
from optuna_kd.search_space.uniads import UniADSSpace

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "figures"))
import made_up
from searched import OURS, searched

WIDTH = FloatDistribution(0.5, 2.0, step=0.5)
DEPTHS = {f"depth_{stage}": IntDistribution(1, 7, step=2) for stage in (1, 2, 3)}
WEIGHT = FloatDistribution(0.01, 100.0, log=True)

Worth = Callable[[dict[str, Any]], float]


def check_of(checks: tuple[RuleCheck, ...], quote: str) -> RuleCheck:
    [check] = [check for check in checks if quote in check.rule]
    return check


def middle(weight: float) -> float:
    return 1.0 * (0.5 <= weight <= 16)


# The beginning of a rule, a space, and what is better where the rule holds; where it does not, the opposite.
TRUTHS: list[tuple[str, dict[str, Any], Worth]] = [
    ("Channel-wise", {"features_transform": ("channel", "none"), "width": WIDTH},
     lambda params: (params["width"] - 1.25) * (params["features_transform"] == "channel")),
    ("Multi-scale", {"intra_transform": ("multiscale", "local", "none")},
     lambda params: 1.0 * (params["intra_transform"] == "multiscale")),
    ("Multi-scale", {"transform_1": ("mask", "multiscale", "none"), "transform_2": ("multiscale", "none")},
     lambda params: list(params.values()).count("multiscale") - list(params.values()).count("none")),
    ("Mask", {"features_transform": ("mask", "none"), "width": WIDTH},
     lambda params: (1.25 - params["width"]) * (params["features_transform"] == "mask")),
    ("Sample-wise", {"inter_transform": ("sample", "channel", "none")},
     lambda params: 1.0 * (params["inter_transform"] == "sample") - 1.0 * (params["inter_transform"] == "none")),
    ("L_KL", {"logit_distance": ("kl", "pearson")}, lambda params: 1.0 * (params["logit_distance"] == "kl")),
    ("Adjusting the temperature", {"temperature": (1, 2, 4, 8)}, lambda params: -1.0 * (params["temperature"] == 1)),
    ("feature weights", {"features_weight": WEIGHT}, lambda params: 1.0 * (1 <= params["features_weight"] <= 25)),
    ("batchnorm", {"logits_transform": ("tanh", "norm_N", "drop", "none")},
     lambda params: {"tanh": 1.0, "norm_N": 1.0, "drop": 0.0, "none": 0.0}[params["logits_transform"]]),
    ("frequently occurring", {"distance": ("l1", "mse", "kl", "hard")},
     lambda params: {"l1": -1.0, "mse": 0.0, "kl": 1.0, "hard": -1.0}[params["distance"]]),
    ("16, 5, 1, and 0.5", {"features_weight": WEIGHT, "logits_weight": WEIGHT},
     lambda params: middle(params["features_weight"]) + middle(params["logits_weight"])),
    ("Relatively large", {"temperature": (1, 4, 8, 16)}, lambda params: 1.0 * (params["temperature"] >= 8)),
    ("Wider", {"width": WIDTH}, lambda params: params["width"]),
    ("deeper networks", DEPTHS, lambda params: sum(params.values()) / 6),
]  # fmt: skip


@pytest.mark.parametrize(
    ("quote", "ranges", "worth"), TRUTHS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_rule_is_supported_where_it_holds_and_contradicted_where_the_opposite_does(
    quote: str, ranges: dict[str, Any], worth: Worth
) -> None:
    for sign, status in ((1, Status.SUPPORTED), (-1, Status.CONTRADICTED)):
        study = searched(ranges, lambda params, sign=sign: sign * worth(params), trials=80, noise=0.1, **OURS)
        found = check_of(check_rules(study), quote)
        assert found.status is status, found
        assert found.numbers.gap is not None
        assert (found.numbers.gap > 0) == (sign > 0)
        assert found.numbers.adjusted is not None
        assert found.numbers.adjusted < 0.05
        assert all(trials > 0 for _, trials in found.numbers.visits)
        assert found.evidence in str(found)


def test_a_loss_is_better_when_it_is_lower() -> None:
    study = searched({"width": WIDTH}, lambda params: -params["width"], direction="minimize", **OURS)
    assert check_of(check_rules(study), "Wider").status is Status.SUPPORTED


def test_a_gap_that_is_known_is_measured() -> None:
    study = searched(
        {"intra_transform": ("multiscale", "local", "none"), "temperature": (1, 2)},
        lambda params: 0.08 * (params["intra_transform"] == "multiscale"),
        noise=0.01,
        trials=90,
        **OURS,
    )
    found = check_of(check_rules(study), "Multi-scale")
    assert found.numbers.gap == pytest.approx(0.08, abs=0.01)
    assert found.evidence.startswith("multiscale as intra_transform is better by ")
    assert " points (90 % interval " in found.evidence
    tried = [trial.params["intra_transform"] for trial in study.trials]
    assert found.numbers.visits == (
        ("multiscale", tried.count("multiscale")),
        ("none", tried.count("none")),
    )
    assert found.source == "Auto-KD, section 2.5, rule 2"


def test_a_factor_is_looked_at_under_all_its_names() -> None:
    # Where channel leaves out a dead cell, the distance is a parameter of its own.
    def value(params: dict[str, Any]) -> float:
        del params["feature_distance" if params["inter_transform"] == "channel" else "feature_distance__none_channel"]
        return 1.0 * ("kl" in params.values())

    ranges = {
        "inter_transform": ("channel", "none"),
        "feature_distance": ("gl2", "kl", "l2"),
        "feature_distance__none_channel": ("gl2", "kl"),
    }
    found = check_of(check_rules(searched(ranges, value, trials=90, **OURS)), "frequently occurring")
    assert found.status is Status.SUPPORTED
    assert dict(found.numbers.visits)["others"] > 20
    assert sum(trials for _, trials in found.numbers.visits) == 90


@pytest.mark.usefixtures("rough")
def test_what_matters_more() -> None:
    ranges = {"width": WIDTH, **DEPTHS, "batch_size": (32, 64, 128, 256), "lr": FloatDistribution(0.01, 0.3, log=True)}
    quotes = ("deeper layers", "depth and width", "additional optimization")

    def statuses(weights: dict[str, float]) -> list[Status]:
        def worth(params: dict[str, Any]) -> float:
            places = {"width": params["width"] - 1.25, "lr": 4 * params["lr"]}
            places |= {name: (params[name] - 4) / 4 for name in DEPTHS}
            return sum(weight * places[name] for name, weight in weights.items())

        found = check_rules(searched(ranges, worth, trials=100, **OURS))
        return [check_of(found, quote).status for quote in quotes]

    assert statuses({"width": 2, "depth_3": 1.2}) == [Status.SUPPORTED] * 3
    assert statuses({"lr": 6, "depth_1": 2}) == [Status.CONTRADICTED] * 3


def test_it_depends_on_the_batch_size_either_way_or_not_provably() -> None:
    ranges = {"features_transform": ("sample", "none"), "batch_size": (32, 64, 128, 256)}

    def status(slope: float) -> Status:
        def worth(params: dict[str, Any]) -> float:
            return slope * (params["batch_size"] >= 128) * (params["features_transform"] == "sample")

        return check_of(check_rules(searched(ranges, worth, trials=80, **OURS)), "batch size").status

    assert status(1.0) is Status.SUPPORTED
    assert status(-1.0) is Status.SUPPORTED
    assert status(0.0) is Status.OPEN


def test_rules_about_what_one_study_does_not_vary_say_what_would_test_them() -> None:
    ranges = {
        "global_transform": ("attention", "mask", "none"),
        "intra_transform": ("multiscale", "local", "none"),
        "inter_transform": ("sample", "channel", "none"),
    }
    worth = {"attention": 1.0, "mask": 0.5, "none": 0.0}
    found = check_rules(searched(ranges, lambda params: worth[params["global_transform"]], **OURS))
    attention = check_of(found, "Attention")
    assert attention.status is Status.NOT_TESTED
    assert attention.evidence.startswith(
        "No single study can test it. It would take one study for a pair of the same family, and one for a pair of "
        "different families. Of this study alone: attention/satt/catt/natt as global_transform is better by "
    )
    assert attention.numbers.gap == pytest.approx(1.0, abs=0.1)
    assert attention.numbers.adjusted is None
    mask = check_of(found, "Mask")
    assert mask.status is Status.NOT_TESTED
    assert mask.evidence.startswith("Not searched here: width 1 or less. It would take a study of the space uniads")
    wider = check_of(found, "Wider")
    assert wider.evidence == (
        "Not searched here: width. It would take a study of the space uniads, which searches the student too."
    )
    assert wider.numbers.gap is None


def test_options_that_nobody_tried_test_nothing() -> None:
    def value(params: dict[str, Any]) -> float:
        params["temperature"] = max(params["temperature"], 2)
        return 0.1 * params["temperature"]

    found = check_of(check_rules(searched({"temperature": (1, 2, 4)}, value, **OURS)), "Adjusting")
    assert found.status is Status.NOT_TESTED
    assert found.evidence.startswith("Never tried here: others as temperature.")


def test_rules_are_about_quality_and_about_our_spaces() -> None:
    joint = made_up.uniads()
    foreign = check_rules(joint)
    assert {check.status for check in foreign} == {Status.NOT_TESTED}
    assert foreign[0].evidence.startswith("This study does not search a space of optuna_kd")
    joint.set_user_attr("optuna_kd", {"space": {"name": "uniads"}})
    cost = check_rules(joint, "parameters")
    assert {check.status for check in cost} == {Status.NOT_TESTED}
    assert cost[0].evidence.startswith("The rules are about how good students are; parameters is what they cost.")
    with pytest.raises(ValueError, match="Unknown objective 'size'"):
        check_rules(joint, "size")


@pytest.mark.usefixtures("rough")
@pytest.mark.parametrize("kind", made_up.KINDS)
def test_every_kind_of_study_gets_every_rule(kind: str) -> None:
    study = made_up.KINDS[kind]()
    study.set_user_attr("optuna_kd", {"space": {"name": "auto-kd"}})
    found = check_rules(study)
    assert len(found) == len(RULES)
    for check in found:
        assert check.evidence
        assert check.evidence.endswith(".")
    if kind not in ("auto_kd", "uniads"):
        assert {check.status for check in found} == {Status.NOT_TESTED}
    if kind == "empty":
        assert found[0].evidence.startswith("No trial tells a value yet. It would take ")
    if kind == "one_trial":
        assert found[0].evidence.startswith("1 trial with a finite value: at least 4 are needed to compare.")


def test_the_same_again_and_from_a_table_or_a_response() -> None:
    study = searched({"logit_distance": ("kl", "pearson")}, lambda params: 0.0, trials=12, **OURS)
    table = read_table(study)
    assert check_rules(study) == check_rules(table) == check_rules(Response(table))


def test_the_rules_speak_of_what_our_spaces_have() -> None:
    joint = UniADSSpace(chain=3, training=True).factors()
    known = set(joint).union(*(create_space(name).factors() for name in SPACES))
    named: set[str] = set()
    for rule in RULES:
        for claim in (*rule.claims, *([rule.aside] if rule.aside else [])):
            for factors in ("factors", "more", "less"):
                found = getattr(claim, factors, ())
                named |= set(found) if isinstance(found, tuple) else set()
            named |= {claim.where} if hasattr(claim, "where") else set()
    assert named <= known
    options = {option for factor in [*joint.values(), *create_space("naive").factors().values()] for option in factor}
    options |= {option for factor in create_space("auto-kd").factors().values() for option in factor}
    sides = [getattr(claim, side, None) for rule in RULES for claim in rule.claims for side in ("inside", "than")]
    assert {option for side in sides if isinstance(side, Some) for option in side.options} <= options


def test_all_rules_are_there_with_their_place() -> None:
    assert {rule.source for rule in AUTO_KD} == {f"Auto-KD, section 2.5, rule {number}" for number in range(1, 9)}
    assert all(rule.source.startswith("UniADS, ") for rule in UNIADS)
    assert len({rule.quote for rule in RULES}) == len(RULES)
    assert all(rule.reading and rule.needs for rule in RULES)


@pytest.mark.usefixtures("rough")
def test_noise_hardly_ever_supports_or_contradicts_a_rule() -> None:
    ranges = {"temperature": (1, 4, 8), "logit_distance": ("kl", "pearson")}
    studies = 200
    decided = 0
    for seed in range(studies):
        found = check_rules(searched(ranges, lambda params: 0.0, trials=20, noise=1.0, seed=seed, **OURS))
        assert sum(check.status is not Status.NOT_TESTED for check in found) == 3
        decided += any(check.status in (Status.SUPPORTED, Status.CONTRADICTED) for check in found)
    assert decided <= 0.05 * studies + 2 * (0.05 * 0.95 * studies) ** 0.5
