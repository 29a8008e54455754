"""What suits data and budget, where the command line leaves it open."""

from __future__ import annotations

import pytest

from optuna_kd.task_options import suitable_batch


@pytest.mark.parametrize(
    ("epochs", "images", "batch", "expected"),
    [
        (8, 958, 64, None),  # the digits: 14 steps in each of 8 epochs
        (12, 1_000, 128, 64),  # 84 steps, or 180
        (4, 958, 64, 32),  # 56 or 116
        (2, 400, 32, 8),  # 24, 50, 100
        (1, 958, 64, 8),  # 14, 29, 59, 119
        (12, 10_000, 128, None),
        (1, 32, 64, 8),  # never enough, and smaller would be no batch
        (1, 32, 12, None),
        (1, 32, 8, None),
        (1, 32, 4, None),
        (1, 3, 64, 8),
    ],
)
def test_batches_are_halved_until_a_proxy_has_a_hundred_steps(
    epochs: int, images: int, batch: int, expected: int | None
) -> None:
    assert suitable_batch(epochs, images, batch) == expected
