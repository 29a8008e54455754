from __future__ import annotations

import numpy as np
import pytest
import torch

from optuna_kd.data import Normalizer


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_fitted_images_have_mean_zero_and_deviation_one(dtype: torch.dtype) -> None:
    # More images than one chunk of the measurement.
    images = torch.randint(0, 256, (1500, 2, 4, 4), generator=torch.Generator().manual_seed(0)).to(dtype)
    images[:, 1] //= 3
    output = Normalizer.fit(images)(images)
    assert output.dtype == torch.float32
    assert torch.allclose(output.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(output.std(dim=(0, 2, 3), correction=0), torch.ones(2), atol=1e-5)


def test_the_figures_of_bytes_are_on_the_unit_scale() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    fitted = Normalizer.fit(torch.from_numpy(raw))
    np.testing.assert_allclose(fitted.mean, (raw / 255).mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(fitted.std, (raw / 255).std(axis=(0, 2, 3)), rtol=1e-12)


def test_a_large_offset_does_not_spoil_the_deviation() -> None:
    images = 1000 + torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert Normalizer.fit(images).std[0] == pytest.approx(float(images.double().std(correction=0)), rel=1e-5)


def test_a_constant_channel_is_only_centred() -> None:
    fitted = Normalizer.fit(torch.full((4, 1, 8, 8), 51, dtype=torch.uint8))
    assert fitted.std == (1.0,)
    assert fitted(torch.full((2, 1, 8, 8), 102, dtype=torch.uint8)).allclose(torch.tensor(0.2))


def test_identity_leaves_floats_and_scales_bytes() -> None:
    images = torch.randn(2, 3, 4, 4)
    assert torch.equal(Normalizer.identity()(images), images)
    assert Normalizer.identity()(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)).eq(1).all()
    assert Normalizer.identity()(images.double()).dtype == torch.float64
    assert Normalizer.identity()(images.half()).dtype == torch.float32


def test_the_description_rebuilds_it() -> None:
    fitted = Normalizer.fit(torch.rand(8, 3, 4, 4))
    assert Normalizer(**fitted.describe()) == fitted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mean", "std"), [((), ()), ((0.0, 0.0), (1.0,)), ((0.0,), (-1.0,)), ((float("nan"),), (1.0,))]
)
def test_impossible_figures_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="one finite mean"):
        Normalizer(mean, std)


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 channels; got 1"):
        Normalizer((0.0,) * 3, (1.0,) * 3)(torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"uint8 or floating; got torch\.int64"):
        Normalizer.identity()(torch.zeros(2, 1, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"uint8 or floating; got torch\.int32"):
        Normalizer.fit(torch.zeros(2, 1, 4, 4, dtype=torch.int32))
    with pytest.raises(ValueError, match="at least one"):
        Normalizer.fit(torch.zeros(0, 1, 4, 4))
