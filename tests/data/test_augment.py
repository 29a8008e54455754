from __future__ import annotations

import numpy as np
import pytest
import torch

from optuna_kd.data import AUGMENTATIONS, Augmentation, create_augmentation
from optuna_kd.registry import UnknownNameError


def reference(image: np.ndarray, pad: int, dy: int, dx: int, flip: int) -> np.ndarray:
    """One image at a time, as the definition says it."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    cropped = padded[:, dy : dy + height, dx : dx + width]
    return cropped[:, :, ::-1] if flip else cropped


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_views_match_the_definition(name: str, dtype: torch.dtype) -> None:
    images = torch.randint(1, 200, (40, 3, 16, 24), generator=torch.Generator().manual_seed(0)).to(dtype)
    augmentation = create_augmentation(name, (3, 16, 24))
    params = augmentation.draw(40, seed=5)
    views = augmentation.apply(images, params)
    assert views.dtype == dtype
    for image, row, view in zip(images.numpy(), params.tolist(), views.numpy(), strict=True):
        assert np.array_equal(reference(image, augmentation.pad, *row), view)


def test_one_image_of_one_view_is_the_same_in_any_batch() -> None:
    images = torch.rand(20, 3, 32, 32)
    augmentation = create_augmentation("crop-flip", (3, 32, 32))
    table = augmentation.draw(20, seed=1)
    whole = augmentation.apply(images, table)
    picked = torch.tensor([13, 2, 13])
    assert torch.equal(augmentation.apply(images[picked], table[picked]), whole[picked])


def test_the_seed_decides_the_view_and_the_global_generator_does_not() -> None:
    augmentation = create_augmentation("crop-flip", (3, 32, 32))
    torch.manual_seed(0)
    first = augmentation.draw(50, seed=1)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(first, augmentation.draw(50, seed=1))
    assert not torch.equal(first, augmentation.draw(50, seed=2))


def test_all_shifts_and_both_sides_occur() -> None:
    table = create_augmentation("crop-flip", (3, 32, 32)).draw(5000, seed=0)
    assert table.shape == (5000, 3)
    assert set(table[:, 0].tolist()) == set(table[:, 1].tolist()) == set(range(9))
    assert 0.45 < table[:, 2].double().mean() < 0.55
    shift = create_augmentation("shift", (1, 8, 8)).draw(500, seed=0)
    assert shift[:, 2].sum() == 0
    assert set(shift[:, 0].tolist()) == {0, 1, 2}


def test_none_returns_the_images_themselves() -> None:
    images = torch.rand(3, 1, 8, 8)
    augmentation = create_augmentation("none", (1, 8, 8))
    assert augmentation.is_identity
    assert augmentation.apply(images, augmentation.draw(3, seed=0)) is images


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 32, 32), ("crop-flip", 4)),
        ((3, 8, 8), ("shift", 1)),
        ((1, 28, 28), ("shift", 3)),
        ((3, 4, 64), ("shift", 1)),
        ((3, 64, 64), ("crop-flip", 8)),
    ],
)
def test_auto_fits_the_images(shape: tuple[int, int, int], expected: tuple[str, int]) -> None:
    augmentation = create_augmentation("auto", shape)
    assert (augmentation.name, augmentation.pad) == expected


def test_descriptions_differ_when_views_differ() -> None:
    described = [create_augmentation(name, (3, 32, 32)).describe() for name in AUGMENTATIONS]
    described.append(create_augmentation("shift", (3, 64, 64)).describe())
    assert len({str(item) for item in described}) == 4
    assert described[0] == {"name": "none", "pad": 0, "flip": False}


def test_unknown_names_and_tables_of_another_size_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'crop-flp'. Did you mean 'crop-flip'\? Known: auto, "):
        create_augmentation("crop-flp", (3, 32, 32))
    with pytest.raises(ValueError, match=r"each of 2 images; got a table of shape \(3, 3\)"):
        Augmentation("shift", pad=1, flip=False).apply(torch.zeros(2, 1, 8, 8), torch.zeros(3, 3).long())
