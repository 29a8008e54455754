from __future__ import annotations

import hashlib

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
        assert np.array_equal(reference(image, augmentation.pad, *row[:3]), view)


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
    assert len({str(item) for item in described}) == 6
    # Studies are stored with these; cutout adds a word only where there is one.
    assert described[0] == {"name": "none", "pad": 0, "flip": False}
    assert described[2] == {"name": "crop-flip", "pad": 4, "flip": True}
    assert described[4] == {"name": "crop-flip-cutout", "pad": 4, "flip": True, "cut": 16}


def test_unknown_names_and_tables_of_another_size_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'crop-flp'. Did you mean 'crop-flip'\? Known: auto, "):
        create_augmentation("crop-flp", (3, 32, 32))
    with pytest.raises(ValueError, match=r"each of 2 images; got a table of shape \(3, 3\)"):
        Augmentation("shift", pad=1, flip=False).apply(torch.zeros(2, 1, 8, 8), torch.zeros(3, 3).long())


@pytest.mark.parametrize(
    ("name", "shape", "digest"),
    [
        ("crop-flip", (3, 32, 32), "f6584c373706fa29"),
        ("shift", (1, 28, 28), "2e7f073bf1073482"),
    ],
)
def test_views_of_stored_studies_stay_as_they_are(name: str, shape: tuple[int, int, int], digest: str) -> None:
    augmentation = create_augmentation(name, shape)
    table = augmentation.draw(64, seed=7)
    pixels = np.random.default_rng(0).integers(0, 256, (64, *shape), dtype=np.uint8)
    views = augmentation.apply(torch.from_numpy(pixels), table)
    content = table.numpy().tobytes() + views.numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == digest


def test_views_do_not_depend_on_the_memory_layout_of_the_images() -> None:
    images = torch.rand(6, 3, 16, 16)
    augmentation = create_augmentation("crop-flip", (3, 16, 16))
    table = augmentation.draw(6, seed=0)
    expected = augmentation.apply(images, table)
    channels_last = images.to(memory_format=torch.channels_last)
    assert torch.equal(augmentation.apply(channels_last, table), expected)
    part = torch.rand(7, 3, 16, 16)
    part[1:] = images
    assert torch.equal(augmentation.apply(part[1:], table), expected)


def test_cutout_adds_columns_and_leaves_the_others() -> None:
    plain, cut = (create_augmentation(name, (3, 32, 32)) for name in ("crop-flip", "crop-flip-cutout"))
    table = cut.draw(100, seed=3)
    assert table.shape == (100, 5)
    assert torch.equal(table[:, :3], plain.draw(100, seed=3))
    images = torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(cut.apply(images, table), plain.apply(images, table[:, :3]))


@pytest.mark.parametrize(
    ("y", "x", "rows", "columns"),
    [
        # A square of 4 around pixel (5, 3) of 8 x 8, whose sides are numbered in 65,536ths.
        (5 * 8192, 3 * 8192, range(3, 7), range(1, 5)),
        (5 * 8192 + 8191, 3 * 8192 + 8191, range(3, 7), range(1, 5)),
        # At the corners only a part of it is inside.
        (0, 0, range(0, 2), range(0, 2)),
        (65535, 65535, range(5, 8), range(5, 8)),
    ],
)
def test_cutout_hides_a_square_with_zeros(y: int, x: int, rows: range, columns: range) -> None:
    augmentation = create_augmentation("shift-cutout", (2, 8, 8))
    hidden = augmentation.hide(torch.ones(1, 2, 8, 8), torch.tensor([[0, 0, 0, y, x]]))[0]
    expected = torch.ones(2, 8, 8)
    expected[:, rows.start : rows.stop, columns.start : columns.stop] = 0
    assert torch.equal(hidden, expected)


def test_every_pixel_may_be_the_centre_of_what_is_hidden() -> None:
    augmentation = create_augmentation("crop-flip-cutout", (3, 32, 32))
    table = augmentation.draw(20000, seed=0)
    share = (augmentation.hide(torch.ones(20000, 1, 32, 32), table) == 0).float().mean(dim=0)[0]
    # Centres are uniform, so a pixel is hidden by those of 16 rows and columns around it that are in the image: all 16
    # in the middle, 8 or 9 at the borders. 20,000 draws: five deviations are 0.016.
    assert share[16, 16] == pytest.approx(0.25, abs=0.016)
    assert share[0, 0] == pytest.approx((9 / 32) ** 2, abs=0.016)
    assert share[31, 16] == pytest.approx(0.5 * 8 / 32, abs=0.016)


def test_without_cutout_nothing_is_hidden() -> None:
    images = torch.rand(3, 1, 8, 8)
    augmentation = create_augmentation("shift", (1, 8, 8))
    assert augmentation.hide(images, augmentation.draw(3, seed=0)) is images


def test_a_table_without_cutout_is_refused_by_one_with_it() -> None:
    with pytest.raises(ValueError, match=r"one row \(dy, dx, flip, y, x\) for each of 2 images.*\(2, 3\)"):
        create_augmentation("crop-flip-cutout", (3, 32, 32)).hide(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3).long())
