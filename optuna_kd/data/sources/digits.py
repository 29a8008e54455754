"""Scikit-learn's handwritten digits: 1,797 real images of 8x8 pixels, bundled with it, so always there."""

from __future__ import annotations

import numpy as np
import torch

from optuna_kd.data.image_set import ImageSet
from optuna_kd.data.sources.base import DataSource, DataSplits, LoadRequest
from optuna_kd.data.splits import stratified_split

TEST_IMAGES = 600
TEST_SEED = 0
"""Fixed: the test images are the same in every study."""
_BRIGHTEST = 16


def load_digits(request: LoadRequest) -> DataSplits:
    """Load the digits: 1,197 images for training, 600 for the test, stratified."""
    # Inside: scikit-learn takes a second to import.
    from sklearn.datasets import load_digits as load_bundled

    bundled = load_bundled()
    pixels = np.round(bundled.images * 255 / _BRIGHTEST).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    everything = ImageSet(torch.from_numpy(pixels)[:, None], torch.from_numpy(bundled.target.astype(np.int64)), names)
    train, test = stratified_split(everything.labels, TEST_IMAGES / len(everything), TEST_SEED)
    train = train[request.choose_train(everything.labels[train])]
    # A shift by one pixel of eight cuts strokes off, and a mirrored digit is none.
    return DataSplits("digits", everything.subset(train), None, everything.subset(test), names, augment="none")


SOURCES = (DataSource("digits", "1,797 handwritten digits, 8x8 grey, bundled", load_digits, needs_folder=False),)
