"""How far the labels of rows read together are from the whole."""

from __future__ import annotations

import numpy as np
import pytest

from fastsoftmax.data.mixing import (
    BINS,
    Mixing,
    Segments,
    bins_of,
    distance,
    expected_mixing,
)


def test_the_distance_is_nought_for_the_whole_and_one_for_what_is_disjoint():
    assert distance(np.array([30, 70]), np.array([300, 700])) == 0
    assert distance(np.array([0, 10**6]), np.array([10**6, 1])) == pytest.approx(1, abs=0.01)
    assert distance(np.array([0, 0]), np.array([1, 1])) == 0


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("rows", [100, 5000])
def test_rows_drawn_by_chance_are_mixed(classes, rows):
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.ones(classes))
    found = [distance(rng.multinomial(rows, share), share) for _ in range(100)]
    assert np.mean(found) < 0.06


def test_the_mean_is_one_of_rows():
    mixing = Mixing(np.array([1000, 1000]))
    assert mixing.value == 1
    mixing.add(np.array([50_000, 50_000]))
    mixing.add(np.array([300_000, 0]))
    assert mixing.value == pytest.approx(1 - 0.75 * 0.5, abs=0.01)


def test_windows_of_sorted_pieces_are_foreseen():
    counts = np.kron(np.eye(4, dtype=np.int32), np.full((6, 1), 1000, np.int32))
    segments = Segments(np.arange(24) // 2, counts)
    order = np.arange(12)
    assert expected_mixing(segments, order, 1000) == pytest.approx(0.25, abs=0.03)
    assert expected_mixing(segments, order, 24_000) == pytest.approx(1)
    shuffled = np.random.default_rng(0).permutation(12)
    assert 0.4 < expected_mixing(segments, shuffled, 6000) < 0.9


def test_many_classes_share_bins_and_neighbours_do_not():
    bins = bins_of(np.arange(10_000))
    assert bins.min() == 0
    assert bins.max() == BINS - 1
    assert (bins[:BINS] == np.arange(BINS)).all()
    run = np.bincount(bins[5000:5064], minlength=BINS)
    assert np.count_nonzero(run) < BINS  # not as even as the whole
    assert np.bincount(bins[BINS:], minlength=BINS).max() < 3 * 10_000 / BINS
