"""Students from their options: the published sizes, parameters and FLOPs counted by hand, clear errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from optuna_kd.models import count_flops, count_parameters, create_model, create_student, student_name
from optuna_kd.recipe import Options, StudentConfig
from optuna_kd.registry import UnknownNameError
from optuna_kd.search_space import StudentSpace


def config(depths: Sequence[int] = (1, 1, 1), width: float = 1.0, name: str = "resnet", **more: Any) -> StudentConfig:
    blocks = {f"depth_{stage}": depth for stage, depth in enumerate(depths, start=1)}
    return StudentConfig(name, Options({**blocks, "width": width, **more}))


def parameters_of(student: StudentConfig, classes: int = 100) -> int:
    return count_parameters(create_student(student, num_classes=classes))


def resnet_by_hand(depths: Sequence[int], width: float, classes: int, channels: int = 3) -> int:
    """3x3 convolutions without biases, two values for each normalised channel, 1x1 shortcuts between stages."""
    before = widths = round(16 * width)
    total = 9 * channels * before + 2 * before
    for depth, base in zip(depths, (16, 32, 64), strict=True):
        widths = round(base * width)
        total += 9 * before * widths + 9 * widths * widths * (2 * depth - 1) + 2 * widths * 2 * depth
        if before != widths:
            total += before * widths + 2 * widths
        before = widths
    return total + widths * classes + classes


def wrn_by_hand(depths: Sequence[int], widen: float, classes: int, channels: int = 3) -> int:
    """As above, but normalised before each convolution, and at the end; the stem keeps at most 16 channels."""
    before = min(16, round(16 * widen))
    total = 9 * channels * before
    stages = zip(depths, (1, 2, 2), (round(base * widen) for base in (16, 32, 64)), strict=True)
    for depth, stride, widths in stages:
        for block in range(depth):
            total += 2 * before + 9 * before * widths + 2 * widths + 9 * widths * widths
            if before != widths or (stride != 1 and block == 0):
                total += before * widths
            before = widths
    return total + 2 * before + before * classes + classes


@pytest.mark.parametrize(("depth", "parameters"), [(8, 83_892), (20, 278_324), (32, 472_756), (44, 667_188)])
def test_published_sizes(depth: int, parameters: int) -> None:
    blocks = (depth - 2) // 6
    student = create_student(config((blocks,) * 3), num_classes=100)
    published = create_model(f"resnet{depth}", num_classes=100)
    assert count_parameters(student) == count_parameters(published) == parameters
    assert {key: value.shape for key, value in student.state_dict().items()} == {
        key: value.shape for key, value in published.state_dict().items()
    }
    assert resnet_by_hand((blocks,) * 3, 1, 100) == parameters


def test_the_256_students_have_256_names() -> None:
    assert len(set(map(student_name, StudentSpace().all()))) == 256


@pytest.mark.parametrize("student", StudentSpace().all()[7::16], ids=str)
def test_parameters_of_a_student_by_hand(student: StudentConfig) -> None:
    depths, width = [int(str(student.options[f"depth_{stage}"])) for stage in (1, 2, 3)], student.options["width"]
    assert parameters_of(student) == resnet_by_hand(depths, float(str(width)), 100)


@pytest.mark.parametrize(
    ("depths", "widen", "published"),
    [((2, 2, 2), 2, 703_284), ((6, 6, 6), 2, 2_255_156), ((3, 3, 5), 2, None), ((1, 7, 3), 0.5, None)],
)
def test_wide_students(depths: tuple[int, int, int], widen: float, published: int | None) -> None:
    found = parameters_of(config(depths, widen, "wrn"))
    assert found == wrn_by_hand(depths, widen, 100)
    assert published is None or found == published


@pytest.mark.parametrize("name", ["resnet", "wrn"])
def test_the_base_width_is_another_factor(name: str) -> None:
    plain = create_student(config((1, 3, 1), 0.375, name), num_classes=10, in_channels=1, input_size=8)
    student = create_student(config((1, 3, 1), 1.5, name, base_width=0.25), num_classes=10, in_channels=1, input_size=8)
    assert count_parameters(student) == count_parameters(plain)
    assert student(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_names_build_the_same_network() -> None:
    assert student_name(config((7, 1, 3), 0.5)) == "resnet7-1-3x0.5"
    for student in (
        config((7, 1, 3), 0.5),
        config((1, 3, 1), 1.5),
        config((1, 1, 3), 2, "wrn"),
        config((3, 1, 1), 0.5, "wrn"),
    ):
        twin = create_model(student_name(student), num_classes=10)
        assert list(twin.state_dict()) == list(create_student(student, num_classes=10).state_dict())
        assert count_parameters(twin) == parameters_of(student, 10)


def test_whole_numbers_are_the_same_width() -> None:
    one, other = config(width=1), config(width=1.0)
    assert one == other
    assert student_name(one) == student_name(other)
    assert student_name(StudentConfig.from_dict(json.loads(json.dumps(one.to_dict())))) == student_name(one)


def test_a_model_by_name_has_no_options() -> None:
    student = create_student(StudentConfig("vgg8"), num_classes=7, in_channels=1, input_size=(32, 40))
    assert student(torch.zeros(2, 1, 32, 40)).shape == (2, 7)
    assert student_name(StudentConfig("vgg8")) == "vgg8"


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (StudentConfig("vgg8", Options(width=2)), "Unknown student family 'vgg8'.*resnet, wrn"),
        (StudentConfig("resnet9"), "depth of a ResNet for small images is 6n"),
        (StudentConfig("wrn", Options(width=2, depth_1=1)), "depth_2, depth_3 missing"),
        (config(head="linear"), "unknown: head"),
        (config((1, 0, 1)), r"whole numbers > 0; got \[1, 0, 1\]"),
        (config((1, 1, True)), "whole numbers > 0"),
        (config((1, 1.0, 1)), "whole numbers > 0"),  # type: ignore[arg-type]
        (config(width=0), "width and base_width of a student are numbers > 0; got 0"),
        (config(width=float("nan")), "numbers > 0; got nan"),
        (config(width="wide"), "numbers > 0; got 'wide'"),  # type: ignore[arg-type]
        (config(base_width=-1), "numbers > 0; got -1"),
        (config(width=0.02), "no channels, or no end of them; the smallest width is 0.0625"),
    ],
    ids=str,
)
def test_options_that_give_no_network(student: StudentConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_student(student, num_classes=10)


@pytest.mark.parametrize("width", [1e-5, float("inf")])
def test_widths_beyond_all_measure_are_called_that(width: float) -> None:
    # Not an unknown model: the user wrote a number.
    with pytest.raises(ValueError, match=r"width|channels") as caught:
        create_student(config(width=width), num_classes=10)
    assert not isinstance(caught.value, UnknownNameError)


def test_flops_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(100, 3))
    by_hand = 2 * (25 * 4 * 2 * 9 + 100 * 3)
    assert count_flops(network, torch.zeros(2, 5, 5)) == by_hand
    assert count_flops(network, torch.zeros(7, 2, 5, 5)) == by_hand  # of one image


def test_flops_of_a_resnet_by_hand() -> None:
    stem = 3 * 16 * 9 * 32**2
    first = 2 * 16 * 16 * 9 * 32**2
    second = (16 * 32 * 9 + 32 * 32 * 9 + 16 * 32) * 16**2
    third = (32 * 64 * 9 + 64 * 64 * 9 + 32 * 64) * 8**2
    student = create_student(config(), num_classes=100)
    assert count_flops(student, torch.zeros(1, 3, 32, 32)) == 2 * (stem + first + second + third + 64 * 100)


def test_counting_changes_nothing() -> None:
    student = create_student(config(), num_classes=10).train()
    student.get_submodule("layer1").eval()
    modes = [module.training for module in student.modules()]
    before = {key: value.clone() for key, value in student.state_dict().items()}
    count_flops(student, torch.ones(4, 3, 32, 32))
    assert [module.training for module in student.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())
