"""Seeds: the same in every process and version, and different for different owners."""

from __future__ import annotations

import itertools

import pytest

from optuna_kd.seeds import derive_seed


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((), 8203414616412130826),
        ((0,), 3696793467068528757),
        ((0, "trial", 0), 7811126427891201698),
        ((0, "trial", 1), 5913573432495832612),
        ((7, "full", 2), 1487675389013485991),
        (("validation split",), 1265471117082173099),
        (("view", 3), 2988681210410331511),
        ((2**63, "order", 11), 982309767311535770),
    ],
)
def test_seeds_are_those_of_earlier_versions(parts: tuple[int | str, ...], expected: int) -> None:
    # A change here changes the result of every stored study.
    assert derive_seed(*parts) == expected


def test_types_and_places_matter() -> None:
    assert derive_seed(1) != derive_seed("1")
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert derive_seed(12) != derive_seed(1, 2)
    assert derive_seed("a", "b") != derive_seed("ab")


def test_seeds_fit_every_generator_and_do_not_collide() -> None:
    seeds = {
        derive_seed(study, trial, role)
        for study, trial, role in itertools.product(range(20), range(50), ("student", "order", "distiller"))
    }
    assert len(seeds) == 20 * 50 * 3
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Both halves of the range are used: no bit is stuck.
    assert min(seeds) < 2**58 < 2**62 < max(seeds)
