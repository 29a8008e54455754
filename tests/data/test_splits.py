from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optuna_kd.data import class_subset, stratified_split, stratified_subset

label_lists = st.lists(st.integers(0, 5), min_size=2, max_size=60)


@given(label_lists, st.floats(0.01, 0.99), st.integers(0, 1000))
def test_a_split_partitions_and_every_class_is_in_both_parts(labels: list[int], fraction: float, seed: int) -> None:
    counts = np.bincount(labels)
    if counts.max() < 2:
        with pytest.raises(ValueError, match="no class has two"):
            stratified_split(labels, fraction, seed)
        return
    train, val = stratified_split(labels, fraction, seed)
    assert sorted([*train, *val]) == list(range(len(labels)))
    for name, count in enumerate(counts):
        in_val = np.count_nonzero(np.asarray(labels)[val] == name)
        # Within one image of the share, or at the bound of one image in both parts.
        low, high = min(1, max(count - 1, 0)), max(count - 1, 0)
        assert low <= in_val <= high
        assert np.clip(np.floor(count * fraction) - 1, low, high) <= in_val
        assert in_val <= np.clip(np.ceil(count * fraction) + 1, low, high)


@given(label_lists, st.floats(0.01, 1.0), st.integers(0, 1000))
def test_a_subset_keeps_every_class(labels: list[int], share: float, seed: int) -> None:
    chosen = stratified_subset(labels, share, seed)
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(np.asarray(labels)[chosen]) == set(labels)
    assert len(chosen) == max(round(share * len(labels)), len(set(labels)))


@pytest.mark.parametrize("function", [stratified_split, stratified_subset, class_subset])
def test_the_seed_decides(function: object) -> None:
    labels = torch.arange(400) % 20

    def first(seed: int) -> list[int]:
        result = function(labels, 0.3, seed)  # type: ignore[operator]
        return (result[1] if isinstance(result, tuple) else result).tolist()

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert first(1) == sorted(first(1))


def test_sizes_are_exact_for_uneven_classes() -> None:
    labels = np.repeat([0, 1, 2], [33, 33, 34])
    train, val = stratified_split(labels, 0.25, seed=0)
    assert len(val) == 25
    assert len(train) == 75
    assert np.bincount(labels[val]).tolist() in ([8, 8, 9], [9, 8, 8], [8, 9, 8])


def test_images_of_a_class_are_all_equally_likely() -> None:
    labels = [0] * 4 + [1] * 4
    hits = np.zeros(8)
    for seed in range(400):
        hits[stratified_subset(labels, 0.5, seed)] += 1
    # Binomial(400, 0.5): 200 +- 10; five deviations.
    assert np.abs(hits - 200).max() < 50


def test_a_subset_of_classes_has_whole_classes() -> None:
    labels = np.arange(100) % 10
    chosen = class_subset(labels, 0.3, seed=4)
    kept = np.unique(labels[chosen])
    assert len(kept) == 3
    assert len(chosen) == 30
    assert len(np.unique(labels[class_subset(labels, 0.01, seed=4)])) == 2


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_split_needs_a_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        stratified_split([0, 0, 1, 1], fraction, 0)


@pytest.mark.parametrize("function", [stratified_subset, class_subset])
@pytest.mark.parametrize("share", [0.0, 1.1, float("nan")])
def test_a_subset_needs_a_share(function: object, share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        function([0, 0, 1, 1], share, 0)  # type: ignore[operator]


def test_labels_are_checked() -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        stratified_subset(np.array([0.5, 1.0]), 0.5, 0)
    with pytest.raises(ValueError, match="at least two classes"):
        class_subset([3, 3, 3], 0.5, 0)
