"""Parts of a data set chosen by label: stratified splits, stratified subsets, subsets of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

Labels = Sequence[int] | np.ndarray | Tensor


def stratified_split(labels: Labels, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split positions into (train, val), each class in proportion.

    A class of at least two images has at least one in both parts; a class of one image stays in train.

    Args:
        labels: [N], class of every image.
        fraction: Share of the images that go to the second part, in (0, 1).
        seed: Same seed, same split.

    Returns:
        Two sorted int64 arrays that together hold 0..N-1 once.

    Raises:
        ValueError: If `fraction` is not in (0, 1), or no class has two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"The fraction of a split must be between 0 and 1, both excluded; got {fraction}.")
    groups = _positions_by_class(labels)
    counts = np.array([len(group) for group in groups])
    highest = counts - 1
    if not highest.any():
        raise ValueError(f"Cannot split {counts.sum()} images: no class has two of them.")
    sizes = _allocate(counts, fraction, lowest=np.minimum(1, highest), highest=highest)
    return _cut(groups, sizes, seed)


def stratified_subset(labels: Labels, share: float, seed: int) -> np.ndarray:
    """Choose a share of the positions, each class in proportion and with at least one image.

    Args:
        labels: [N], class of every image.
        share: Share of the images to keep, in (0, 1].
        seed: Same seed, same subset.

    Returns:
        Sorted int64 array of positions.

    Raises:
        ValueError: If `share` is not in (0, 1].
    """
    _check_share(share)
    groups = _positions_by_class(labels)
    counts = np.array([len(group) for group in groups])
    sizes = _allocate(counts, share, lowest=np.ones_like(counts), highest=counts)
    return _cut(groups, sizes, seed)[1]


def class_subset(labels: Labels, share: float, seed: int) -> np.ndarray:
    """Choose all positions of a random share of the classes, at least two; labels keep their numbers.

    Args:
        labels: [N], class of every image.
        share: Share of the classes to keep, in (0, 1].
        seed: Same seed, same classes.

    Returns:
        Sorted int64 array of positions.

    Raises:
        ValueError: If `share` is not in (0, 1], or there are fewer than two classes.
    """
    _check_share(share)
    groups = _positions_by_class(labels)
    if len(groups) < 2:
        raise ValueError("A subset of classes needs labels of at least two classes; got one.")
    kept = max(2, round(share * len(groups)))
    chosen = np.random.default_rng(seed).permutation(len(groups))[:kept]
    return np.sort(np.concatenate([groups[i] for i in chosen]))


def _positions_by_class(labels: Labels) -> list[np.ndarray]:
    array = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iu":
        raise ValueError(f"Labels must be a non-empty vector of whole numbers; got {array.shape}, {array.dtype}.")
    order = np.argsort(array, kind="stable")
    edges = np.flatnonzero(np.diff(array[order])) + 1
    return np.split(order, edges)


def _allocate(counts: np.ndarray, share: float, *, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Round `share * counts` within bounds so that the sum is as close as can be to the share of the sum."""
    ideal = share * counts
    sizes = np.clip(np.floor(ideal).astype(np.int64), lowest, highest)
    target = int(np.clip(round(share * counts.sum()), lowest.sum(), highest.sum()))
    while (missing := target - int(sizes.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = np.flatnonzero(sizes < highest if step > 0 else sizes > lowest)
        # Largest remainder first; the stable sort settles ties by class number.
        order = np.argsort(-step * (ideal - sizes)[movable], kind="stable")
        sizes[movable[order[: abs(missing)]]] += step
    return sizes


def _cut(groups: list[np.ndarray], sizes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rest, chosen = [], []
    for group, size in zip(groups, sizes.tolist(), strict=True):
        shuffled = rng.permutation(group)
        chosen.append(shuffled[:size])
        rest.append(shuffled[size:])
    return np.sort(np.concatenate(rest)), np.sort(np.concatenate(chosen))


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"The share of a subset must be above 0 and at most 1; got {share}.")
