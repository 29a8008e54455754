"""Precision: what is chosen where, what autocast leaves to the losses, and settings that come back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optuna_kd.distillers import Distiller
from optuna_kd.models import FrozenTeacher, Knowledge, Observer, create_model
from optuna_kd.recipe import Recipe
from optuna_kd.registry import UnknownNameError
from optuna_kd.training.precision import Precision, choose_precision

LINES = (
    "kl@4*1",
    "channel|kl*5 + kl@4*1",
    "none|l2*1",
    "attention>multiscale>channel|kl*5",
)


def net(name: str = "resnet8") -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=4, in_channels=1, input_size=8)


TILES, VECTORS = {"amx_tile": True, "amx_bf16": True}, {"avx512_bf16": True}


@pytest.fixture(params=[TILES, VECTORS], ids=["tiles", "vectors"])
def gaining_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: request.param, raising=False)


def set_ampere(monkeypatch: pytest.MonkeyPatch, capability: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))


@pytest.mark.usefixtures("gaining_cpu")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet8", "bfloat16"),
        ("resnet8x0.5", "bfloat16"),  # 8 channels in the first half
        ("resnet8x0.25", "float32"),  # 16 in the last alone
        ("wrn_16_1", "bfloat16"),
        ("vgg8", "bfloat16"),
        ("mobilenetv2", "float32"),  # filters each channel by itself
        ("shufflenetv1", "float32"),
    ],
)
def test_a_cpu_that_multiplies_bfloat16_gains_on_wide_plain_convolutions(name: str, expected: str) -> None:
    assert choose_precision("auto", "cpu", net(name)).name == expected


@pytest.mark.usefixtures("gaining_cpu")
def test_a_network_without_convolutions_stays_in_float32() -> None:
    assert choose_precision("auto", "cpu", nn.Linear(64, 64)).name == "float32"


@pytest.mark.parametrize("capabilities", [{}, {"amx_tile": True}, {"avx512_f": True}])
def test_another_cpu_does_not_gain(capabilities: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", "cpu", net()).name == "float32"
    assert choose_precision("bfloat16", "cpu", net()).name == "bfloat16"  # on request all the same


def test_a_torch_that_does_not_know_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision("auto", "cpu", net()).name == "float32"


@pytest.mark.parametrize(("capability", "expected"), [(7, "float32"), (8, "bfloat16"), (9, "bfloat16")])
def test_cuda_by_capability(capability: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_ampere(monkeypatch, capability)
    assert choose_precision("auto", "cuda", net("mobilenetv2")) == Precision(expected, "cuda")
    if expected == "bfloat16":
        assert choose_precision("tf32", "cuda", net()).name == "tf32"
    else:
        with pytest.raises(ValueError, match=r"'tf32' is not to be had on cuda; use 'float32', or 'auto'"):
            choose_precision("tf32", "cuda", net())


@pytest.mark.usefixtures("gaining_cpu")
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="bfloat16"):
        choose_precision("bfloat", "cpu", net())
    with pytest.raises(ValueError, match="'tf32' is not to be had on cpu"):
        choose_precision("tf32", "cpu", net())
    with pytest.raises(ValueError, match="goes with float32, not with precision='bfloat16'"):
        choose_precision("bfloat16", "cpu", net(), deterministic=True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"CUBLAS_WORKSPACE_CONFIG.*:4096:8"):
        choose_precision("auto", "cuda", net(), deterministic=True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert choose_precision("auto", "cuda", net(), deterministic=True) == Precision("float32", "cuda", True)
    assert choose_precision("auto", "cpu", net(), deterministic=True) == Precision("float32", "cpu", True)


def flags() -> tuple[Any, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        cudnn.benchmark,
        cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
    )


def fail_unless_flags(expected: tuple[Any, ...]) -> None:
    raise AssertionError("from inside" if flags() == expected else f"not {flags()}")


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        (Precision("float32", "cuda"), (False, True, False, "highest")),
        (Precision("tf32", "cuda"), (False, True, True, "high")),
        (Precision("bfloat16", "cuda"), (False, True, True, "highest")),
        (Precision("float32", "cuda", deterministic=True), (True, False, False, "highest")),
    ],
)
def test_settings_hold_inside_and_come_back(precision: Precision, expected: tuple[Any, ...]) -> None:
    before = flags()
    with pytest.raises(AssertionError, match="from inside"), precision.settings():
        fail_unless_flags(expected)
    assert flags() == before


def test_settings_of_a_cpu_leave_cuda_alone() -> None:
    before = flags()
    with Precision("bfloat16", "cpu").settings():
        assert flags() == before
    with Precision("float32", "cpu", deterministic=True).settings():
        assert flags() == (True, *before[1:])
    assert flags() == before


def answers(line: str, precision: Precision) -> tuple[dict[str, Tensor], Tensor, Knowledge]:
    """Give the losses of one step, the gradient of the student, and what it put out."""
    student, teacher = net("resnet8"), FrozenTeacher(net("wrn_16_1"), ["block3"])
    distiller = Distiller(Recipe.from_string(line).distiller, [(64, 4, 4)], [(64, 4, 4)], seed=0)
    draw = torch.Generator().manual_seed(0)
    images, labels = torch.randn(16, 1, 8, 8, generator=draw), torch.randint(4, (16,), generator=draw)
    with Observer(student, ["layer3"]) as observe:
        with precision.autocast():
            known, taught = observe(images), teacher(images)
        losses = distiller(known, taught, labels)
        sum(losses.values(), torch.zeros(())).backward()
    return losses, torch.cat([weight.grad.flatten() for weight in student.parameters()]), known


@pytest.mark.parametrize("line", LINES)
def test_losses_in_half_precision_are_close_and_float32(line: str) -> None:
    losses, gradient, known = answers(line, Precision("bfloat16", "cpu"))
    exact, right, _ = answers(line, Precision("float32", "cpu"))
    assert known.logits.dtype is known.features[0].dtype is torch.bfloat16
    for name, value in losses.items():
        assert value.dtype is torch.float32
        torch.testing.assert_close(value, exact[name], rtol=0.05, atol=0.01)
    assert gradient.dtype is torch.float32
    assert gradient.isfinite().all()
    assert torch.cosine_similarity(gradient, right, dim=0) > 0.98


def test_float32_is_no_autocast() -> None:
    with Precision("float32", "cpu").autocast():
        assert not torch.is_autocast_enabled("cpu")
