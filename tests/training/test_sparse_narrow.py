"""Narrow students: smaller in every layer, the same outside, for our families and for a network of one's own."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_kd.cli import main
from optuna_kd.models import checksum, count_flops, count_parameters, create_model
from optuna_kd.training import narrow
from optuna_kd.training.narrow import narrow_student

IMAGES = torch.zeros(2, 3, 16, 16)
SHUFFLENETS = ("shufflenetv1", "shufflenetv2")
PRUNED = ("resnet20", "resnet8x4", "wrn_16_2", "vgg8", "mobilenetv2")


class Skips(nn.Module):
    """A plain network with skip connections, one added and one concatenated, and no normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.middle = nn.Conv2d(32, 32, 3, padding=1)
        self.side = nn.Conv2d(32, 16, 1)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=2)
        self.hidden = nn.Linear(48, 40)
        self.head = nn.Linear(40, 7)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.stem(images))
        maps = F.relu(self.middle(maps)) + maps
        maps = F.relu(torch.cat([self.grouped(maps), self.side(maps)], dim=1))
        return self.head(F.relu(self.hidden(maps.mean((2, 3)))))


class Reshapes(nn.Module):
    """A network that nobody can narrow: its forward pass knows the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.head = nn.Linear(32, 7)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stem(images).view(len(images), 32, -1).mean(2))


def build(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Skips() if name == "own" else create_model(name, num_classes=7)


@pytest.fixture
def pruning() -> Any:
    return pytest.importorskip("torch_pruning")


def check_family(name: str) -> None:
    student = build(name)
    student(IMAGES).sum().backward()  # gradients stay behind
    before, state = checksum(student), torch.random.get_rng_state()
    small = narrow_student(student, example=IMAGES, seed=3)
    assert checksum(student) == before
    assert torch.equal(state, torch.random.get_rng_state())
    assert type(small) is type(student)
    assert [name for name, _ in small.named_parameters()] == [name for name, _ in student.named_parameters()]
    assert 0.4 < count_flops(small, IMAGES) / count_flops(student, IMAGES) < 0.6
    assert 0.4 < count_parameters(small) / count_parameters(student) < 0.6
    assert all(parameter.requires_grad and parameter.grad is None for parameter in small.parameters())
    assert small.training
    assert checksum(narrow_student(student, example=IMAGES, seed=3)) == checksum(small)
    assert checksum(narrow_student(student, example=IMAGES, seed=4)) != checksum(small)

    images = torch.randn(14, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(14) % 7
    optimizer = torch.optim.SGD(small.parameters(), lr=0.003, momentum=0.9)
    losses = []
    for _ in range(6):
        logits = small(images)
        assert logits.shape == (14, 7)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert torch.isfinite(logits).all()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", SHUFFLENETS)
def test_shufflenets_need_no_other_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    check_family(name)


@pytest.mark.parametrize("name", [*PRUNED, "own"])
def test_families(name: str, pruning: Any, one_thread: None) -> None:
    check_family(name)


@pytest.mark.parametrize("name", SHUFFLENETS)
@pytest.mark.parametrize("keep", [0.05, 0.3, 0.9])
def test_shufflenets_of_any_width_run(name: str, keep: float) -> None:
    small = narrow_student(build(name), keep, example=IMAGES, seed=0)
    assert small(IMAGES).shape == (2, 7)


@pytest.mark.parametrize(
    ("channels", "keep", "width"),
    [(4, 0.5, 2), (4, 0.01, 1), (15, 0.5, 8), (16, 0.7071, 8), (32, 0.7071, 24), (64, 0.7071, 48), (16, 0.01, 8),
     (20, 0.99, 16), (100, 0.999, 96), (64, 0.999, 64)],
)  # fmt: skip
def test_widths(channels: int, keep: float, width: int) -> None:
    assert narrow._width(channels, keep) == width


def test_widths_of_resnet20(pruning: Any) -> None:
    small = narrow_student(build("resnet20"), example=IMAGES, seed=0)
    assert [layer.out_channels for layer in small.modules() if isinstance(layer, nn.Conv2d)] == [
        *[8] * 7, *[24] * 7, *[48] * 7,
    ]  # fmt: skip


def test_no_channel_is_lost_to_rounding(pruning: Any) -> None:
    # 24 * (1 - (1 - 8 / 24)) is just below 8.
    layers = [nn.Conv2d(3, 24, 1), nn.Conv2d(24, 48, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 7)]
    small = narrow_student(nn.Sequential(*layers), 1 / 3, example=IMAGES, seed=0)
    assert [small[0].out_channels, small[1].out_channels] == [8, 16]


def test_weights_are_those_of_channels_that_stay(pruning: Any) -> None:
    student = build("own")
    small = narrow_student(student, 0.5, example=IMAGES, seed=0)
    # The inputs of the first layer stay, so its weights are not scaled.
    kept = [
        next(i for i, old in enumerate(student.get_parameter("stem.weight")) if torch.equal(row, old))
        for row in small.get_parameter("stem.weight")
    ]
    assert len(set(kept)) == 16
    expected = student.get_parameter("side.weight")[:, kept] * 2**0.5
    for row in small.get_parameter("side.weight"):
        assert any(torch.allclose(row, old) for old in expected)


def test_without_normalisation_signals_keep_their_size(pruning: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [layer for _ in range(8) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
        deep = nn.Sequential(nn.Conv2d(3, 64, 1), *layers, nn.Flatten(), nn.Linear(64 * 16, 5))
        images = torch.randn(32, 3, 4, 4)
        for layer in deep:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
    small = narrow_student(deep, 0.25, example=images, seed=0)
    assert count_parameters(small) < 0.1 * count_parameters(deep)
    ratio = float((small[:-2](images).square().mean() / deep[:-2](images).square().mean()).detach())
    assert 0.2 < ratio < 5  # without the scaling: 0.25^8


def test_modes_and_frozen_layers_come_back(pruning: Any) -> None:
    student = build("resnet20").eval()
    student.get_submodule("layer1").train()
    student.get_parameter("layer2.0.conv1.weight").requires_grad_(False)
    small = narrow_student(student, example=IMAGES, seed=0)
    assert [module.training for module in small.modules()] == [module.training for module in student.modules()]
    frozen = [name for name, parameter in small.named_parameters() if not parameter.requires_grad]
    assert frozen == ["layer2.0.conv1.weight"]


def test_no_student_is_kept_alive(pruning: Any) -> None:
    small = narrow_student(build("own"), example=IMAGES, seed=0)
    references = [weakref.ref(module) for module in small.modules()]
    del small
    gc.collect()
    assert not any(reference() for reference in references)


def test_keeping_all_is_a_copy() -> None:
    student = build("resnet20")
    copied = narrow_student(student, 1, example=IMAGES, seed=0)
    assert copied is not student
    assert checksum(copied) == checksum(student)


@pytest.mark.parametrize("keep", [0, 1.01, -1, float("nan"), True, "half"])
def test_a_share_out_of_range(keep: Any) -> None:
    with pytest.raises(ValueError, match=r"share of channels that stay, in \(0, 1\]; got"):
        narrow_student(build("resnet20"), keep, example=IMAGES, seed=0)


def test_a_network_that_knows_its_channels_is_refused(pruning: Any) -> None:
    with pytest.raises(ValueError, match=r"Reshapes cannot be narrowed: .*\(SparseWeights\)"):
        narrow_student(Reshapes(), 0.5, example=IMAGES, seed=0)


def test_groups_across_a_concatenation_are_refused(pruning: Any) -> None:
    student = build("own")
    student.hidden = nn.Sequential(nn.Unflatten(1, (48, 1)), nn.Conv1d(48, 40, 1, groups=2), nn.Flatten())
    with pytest.raises(ValueError, match="Skips cannot be narrowed"):
        narrow_student(student, 0.5, example=IMAGES, seed=0)


def test_a_network_without_layers_is_refused(pruning: Any) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        narrow_student(model, 0.5, example=IMAGES, seed=0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=f"pip install torch-pruning=={narrow.TORCH_PRUNING}"):
        narrow_student(build("resnet20"), example=IMAGES, seed=0)


def test_a_missing_package_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(**_: Any) -> None:
        narrow_student(create_model("resnet20", num_classes=10), 0.5, example=IMAGES, seed=0)

    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    monkeypatch.setattr("optuna_kd.cli.app", command)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "pip install torch-pruning" in capsys.readouterr().err
