"""Values and gradients of published implementations, which the same operations must reproduce."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from optuna_kd.distillers import DISTANCES, TRANSFORMS, build_term, renyi_entropy
from optuna_kd.recipe import OpConfig, TermConfig

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = {case["id"]: case for case in json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))["cases"]}
INPUTS = np.load(GOLDEN / "inputs.npz")
GRADIENTS = np.load(GOLDEN / "student_gradients.npz")

Loss = Callable[..., Tensor]


def term(*names: str | OpConfig, temperature: float = 1.0, knowledge: Any = "features", scale: float = 1.0) -> Loss:
    """Give the loss of the chain `names[:-1]` and the distance `names[-1]`, times a peer's `scale`."""
    *chain, distance = (name if isinstance(name, OpConfig) else OpConfig(name) for name in names)
    built = build_term(TermConfig(knowledge, distance, transforms=tuple(chain), temperature=temperature))
    return lambda student, teacher: scale * built(student, teacher)


def masked_l2(student: Tensor, teacher: Tensor, keep: Tensor) -> Tensor:
    return DISTANCES["l2"].function(student * keep, teacher * keep)


def position_l2(student: Tensor, teacher: Tensor) -> Tensor:
    return DISTANCES["l2"].function(student.flatten(2).mT, teacher.flatten(2).mT)


N = len(INPUTS["feat_s"])
BATCH_CHANNEL = OpConfig("channel", {"mode": "batch"})

COUNTERPARTS: dict[str, Loss] = {
    "kd_tau1": term("kl", knowledge="logits"),
    "kd_tau4": term("kl", temperature=4, knowledge="logits"),
    "kd_tau4_mmrazor": term("kl", temperature=4, knowledge="logits"),
    "kd_pixelwise_tau2": term("kl", temperature=2),
    "kd_logit_standardised_tau2": term("zscore", "kl", temperature=2, knowledge="logits"),
    "dist_inter_tau1": term(OpConfig("pearson", {"intra": False}), knowledge="logits"),
    "dist_tau4": term("pearson", temperature=4, knowledge="logits"),
    "dist_tau4_mmrazor": term("pearson", temperature=4, knowledge="logits"),
    "fitnet_mse": term("l2"),
    "at_p2": term("attention_map", "l2"),
    "at_p2_mmrazor": term("attention_map", "l2"),
    "sp": term("sample", "gl2", scale=1 / N),  # the peer divides by N², here the mean is over N rows
    "ickd": term("channel", "gl2"),
    "ickd_torchdistill_div_n2": term("channel", "gl2", scale=1 / N),  # the peer divides by N once more
    "cwd_tau1": term("channel", "kl"),
    "cwd_tau4": term("channel", "kl", temperature=4),
    "autokd_sample_gl2": term("sample", "gl2"),
    "autokd_sample_kl_tau1": term("sample", "kl"),
    "autokd_channel_instance_gl2": term("channel", "gl2"),
    "autokd_channel_instance_kl_tau1": term("channel", "kl"),
    "autokd_channel_batch_gl2": term(BATCH_CHANNEL, "gl2"),
    "autokd_channel_batch_l2": term(BATCH_CHANNEL, "l2"),
    "autokd_position_gl2": term("gl2"),
    "autokd_position_l2": position_l2,
    "autokd_local2_sample_gl2": term("local", "sample", "gl2"),
    "autokd_spatial_attention_l2": term("attention", "l2"),
    "autokd_mask_spatial_l2": masked_l2,
    "renyi_entropy_alpha2_teacher": renyi_entropy,
}

#: The same values by operations of UniADS. A peer's sum over a Gram matrix of C channels is C times the mean.
C = INPUTS["feat_t"].shape[1]
OTHER_WAYS: list[tuple[str, Loss]] = [
    ("kd_tau1", term("softmax_C", "kl", knowledge="logits")),
    ("kd_tau4", term("softmax_C", "kl", temperature=4, knowledge="logits")),
    ("kd_pixelwise_tau2", term("softmax_C", "kl", temperature=2)),
    ("dist_inter_tau1", term("softmax_C", "row_pearson", knowledge="logits")),
    ("fitnet_mse", term("mse")),
    ("at_p2", term("attention_map", "mse")),
    ("sp", term("sample", "bmm", "mse")),
    ("ickd", term("bmm", "mse", scale=C)),
    ("ickd", term("channel", "bmm", "mse", scale=C)),
    ("cwd_tau1", term("softmax_HW", "kl")),
    ("cwd_tau4", term("softmax_HW", "kl", temperature=4)),
    ("autokd_sample_gl2", term("sample", "bmm", "mse", scale=N)),
    ("autokd_channel_batch_l2", term(BATCH_CHANNEL, "cosine", scale=2)),
]


def inputs(case: dict[str, Any], dtype: torch.dtype) -> list[Tensor]:
    return [torch.from_numpy(INPUTS[name]).to(dtype) for name in case["inputs"]]


def expected(case: dict[str, Any], rtol: str) -> Any:
    return pytest.approx(case["expected_float64"]["value"], rel=case[rtol], abs=1e-6)


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_value_in_float64(name: str) -> None:
    loss = COUNTERPARTS[name](*inputs(CASES[name], torch.float64))
    assert loss.dtype == torch.float64
    assert loss.item() == expected(CASES[name], "rtol_float64")


@pytest.mark.parametrize("name", COUNTERPARTS)
def test_value_in_float32(name: str) -> None:
    loss = COUNTERPARTS[name](*inputs(CASES[name], torch.float32))
    assert loss.dtype == torch.float32
    assert loss.item() == expected(CASES[name], "rtol_float32")


@pytest.mark.parametrize(("name", "loss"), OTHER_WAYS, ids=[name for name, _ in OTHER_WAYS])
def test_value_and_gradient_in_another_way(name: str, loss: Loss) -> None:
    student, *rest = inputs(CASES[name], torch.float64)
    found = loss(student.requires_grad_(), *rest)
    found.backward()
    # Probabilities are compared after 1e-8 has been added to each.
    assert found.item() == pytest.approx(CASES[name]["expected_float64"]["value"], rel=1e-5)
    for key in CASES[name].get("student_gradients", ()):
        np.testing.assert_allclose(student.grad.numpy(), GRADIENTS[key], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in COUNTERPARTS if CASES[name].get("student_gradients")])
def test_gradient_to_the_student(name: str) -> None:
    student, *rest = inputs(CASES[name], torch.float64)
    COUNTERPARTS[name](student.requires_grad_(), *rest).backward()
    (key,) = CASES[name]["student_gradients"]
    np.testing.assert_allclose(student.grad.numpy(), GRADIENTS[key], rtol=1e-6, atol=1e-10)


def test_mask_keeps_where_the_draw_reaches_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, keep = inputs(CASES["autokd_mask_spatial_l2"], torch.float64)
    drawn = torch.where(keep > 0, 0.5, 0.49)
    monkeypatch.setattr(torch, "rand", lambda shape, **_: drawn.reshape(shape))
    pairs = TRANSFORMS["mask"].function(student, teacher, generator=torch.Generator())
    assert DISTANCES["l2"].function(*pairs[0]).item() == expected(CASES["autokd_mask_spatial_l2"], "rtol_float64")
