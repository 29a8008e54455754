"""The adapter: sizes meet at the smaller map, channels at the teacher's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from optuna_kd.distillers import Adapter


def test_height_and_width_are_pooled_apart_on_either_side() -> None:
    adapter = Adapter((3, 8, 2), (3, 4, 6))
    student, teacher = adapter(torch.rand(2, 3, 8, 2), torch.rand(2, 3, 4, 6))
    assert student.shape == teacher.shape == (2, 3, 4, 2)
    assert adapter.aligned_shape == (3, 4, 2)


def test_equal_shapes_pass_through_without_parameters() -> None:
    adapter = Adapter((3, 4, 4), (3, 4, 4))
    maps = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    for before, after in zip(maps, adapter(*maps), strict=True):
        assert torch.equal(before, after)
    assert not list(adapter.parameters())


def test_different_channels_are_matched_by_a_normalised_convolution() -> None:
    adapter = Adapter((3, 4, 4), (5, 4, 4))
    student, teacher = adapter(torch.rand(8, 3, 4, 4), torch.rand(8, 5, 4, 4))
    assert student.shape == teacher.shape
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 3 * 5 + 2 * 5
    torch.testing.assert_close(student.mean((0, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)


def test_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(0)
    first = Adapter((3, 4, 4), (5, 4, 4), generator=torch.Generator().manual_seed(7))
    untouched = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(untouched, torch.rand(1))
    second = Adapter((3, 4, 4), (5, 4, 4), generator=torch.Generator().manual_seed(7))
    assert torch.equal(first.conv.weight, second.conv.weight)


def test_weights_are_spread_as_those_of_a_pytorch_convolution() -> None:
    adapter = Adapter((64, 1, 1), (256, 1, 1))
    assert adapter.conv.weight.std().item() == pytest.approx(torch.nn.Conv2d(64, 256, 1).weight.std().item(), rel=0.05)


def test_batch_of_one_with_a_single_position_uses_the_running_statistics() -> None:
    student, _ = Adapter((3, 1, 1), (5, 1, 1))(torch.rand(1, 3, 1, 1), torch.rand(1, 5, 1, 1))
    assert student.isfinite().all()
    assert student.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_result_is_in_full_precision(dtype: torch.dtype) -> None:
    adapter = Adapter((3, 4, 4), (5, 2, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = adapter(torch.rand(2, 3, 4, 4).to(dtype), torch.rand(2, 5, 2, 2).to(dtype))
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert [x.dtype for x in maps] == [expected, expected]


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        Adapter((3, 4), (3, 4, 4))
    with pytest.raises(ValueError, match="all positive"):
        Adapter((3, 4, 4), (3, 0, 4))
    with pytest.raises(ValueError, match="made for a student with 3 channels"):
        Adapter((3, 4, 4), (3, 4, 4))(torch.rand(2, 4, 4, 4), torch.rand(2, 3, 4, 4))


def test_a_fresh_process_imports_no_symbolic_mathematics_for_it() -> None:
    code = "import sys; from optuna_kd.distillers import Adapter; Adapter((3, 4, 4), (5, 4, 4)); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sympy" not in done.stdout.split()
