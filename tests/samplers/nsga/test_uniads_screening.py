"""Expected hypervolume improvement: by hand, against simulation, and in the choice of children."""

from __future__ import annotations

import numpy as np
import pytest

from optuna_kd.samplers.nsga.screening import expected_hypervolume_improvement, reference_of

FRONT = np.array([[1.0, 3.0], [2.0, 1.0]])
REFERENCE = np.array([4.0, 4.0])


def improvement(points: list[tuple[float, float]], deviation: float, front: np.ndarray = FRONT) -> np.ndarray:
    means = np.array(points)
    return expected_hypervolume_improvement(means, np.full_like(means, deviation), front, REFERENCE)


def test_certain_points_add_what_they_dominate_alone() -> None:
    # (0, 0): all of 16 but 1·3 + 2·2 = 7; (1.5, 2): 0.5 · 1; (3, 0): 1 · 1; (1, 3) and (3, 3): nothing
    found = improvement([(0, 0), (1.5, 2), (3, 0), (1, 3), (3, 3)], 1e-9)
    assert found == pytest.approx([9, 0.5, 1, 0, 0], abs=1e-6)


def dominated(points: np.ndarray) -> np.ndarray:
    """Area that the front and one more point dominate, by counting cells; [points]."""
    grid = (np.arange(200) + 0.5) * 0.04 - 4.0
    covered = ((grid[:, None] >= FRONT[:, 0])[:, None, :] & (grid[:, None] >= FRONT[:, 1])[None, :, :]).any(axis=2)
    return np.array([((grid[:, None] >= x) & (grid[None, :] >= y) & ~covered).sum() * 0.04**2 for x, y in points])


@pytest.mark.parametrize("point", [(1.2, 1.8), (3.0, 3.0), (0.0, 3.5)])
def test_uncertain_points_add_what_simulation_says(point: tuple[float, float]) -> None:
    drawn = np.random.default_rng(0).normal(point, 0.6, size=(3000, 2))
    simulated = dominated(drawn)
    error = simulated.std() / 3000**0.5
    assert improvement([point], 0.6)[0] == pytest.approx(simulated.mean(), abs=4 * error + 0.01)


def test_an_empty_front_leaves_the_whole_area() -> None:
    assert improvement([(3.0, 2.0)], 1e-9, np.empty((0, 2)))[0] == pytest.approx(2.0)


def test_points_of_the_front_beyond_the_reference_do_not_count() -> None:
    wide = np.array([[-9.0, 9.0], [1.0, 3.0], [2.0, 1.0], [9.0, -9.0]])
    assert improvement([(1.5, 2)], 0.3, wide) == pytest.approx(improvement([(1.5, 2)], 0.3))


def test_the_reference_point_lies_behind_the_front() -> None:
    assert (reference_of(FRONT) > FRONT.max(axis=0)).all()
    assert (reference_of(FRONT[:1]) > FRONT[0]).all()
