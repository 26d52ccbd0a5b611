"""Sums over rows can be taken in parts: merged in one order they are the same bits."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsoftmax.evaluation.evaluate import Totals
from fastsoftmax.evaluation.metrics import Calibration, Confusion

K = 4
N = 120  # rows, cut into parts wherever hypothesis likes
CUTS = st.lists(st.integers(0, N), max_size=6).map(sorted)
SUMS = ("weight", "loss", "hits", "top_hits", "prior_loss")


def judged(seed: int, *, weighted: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits, classes and weights of some rows."""
    random = np.random.default_rng(seed)
    w = random.gamma(1.0, size=N) if weighted else np.ones(N)
    return random.normal(0, 3, (N, K)), random.integers(0, K, N), w


def empty() -> Totals:
    """Return the totals of no rows."""
    return Totals(K, np.log(np.arange(2.0, K + 2)), 2)


def parts(seed: int, cuts: list[int], *, weighted: bool) -> list[Totals]:
    """Return the totals of each part of the rows."""
    z, y, w = judged(seed, weighted=weighted)
    found = []
    for start, stop in zip([0, *cuts], [*cuts, N], strict=True):
        found.append(empty())
        found[-1].add(z[start:stop], y[start:stop], w[start:stop])
    return found


def arrays(totals: Totals) -> list[Any]:
    """Return all that is summed up."""
    confusion, calibration = totals.confusion, totals.calibration
    return [
        *(getattr(totals, name) for name in SUMS),
        *(confusion.true, confusion.guessed, confusion.hits, confusion.table),
        *(calibration.weight, calibration.confidence, calibration.hits),
    ]


def bits(totals: Totals) -> bytes:
    """Return all sums as bytes."""
    counts = [totals.rows, totals.calibration.rows]
    return b"".join(np.asarray(each).tobytes() for each in [*counts, *arrays(totals)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), CUTS)
def test_parts_merged_in_one_order_give_the_same_bits(seed, cuts):
    first, second = (reduce(add, parts(seed, cuts, weighted=True)) for _ in range(2))
    assert bits(first) == bits(second)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), CUTS, CUTS)
def test_any_grouping_gives_equal_counts_and_close_sums(seed, cuts, others):
    got, want = (reduce(add, parts(seed, each, weighted=True)) for each in (cuts, others))
    assert got.rows == want.rows == N
    np.testing.assert_array_equal(got.calibration.rows, want.calibration.rows)
    for a, b in zip(arrays(got), arrays(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), CUTS)
def test_sums_of_rows_without_weights_are_counts(seed, cuts):
    merged = reduce(add, parts(seed, cuts, weighted=False))
    whole = parts(seed, [], weighted=False)[0]
    np.testing.assert_array_equal(merged.confusion.table, whole.confusion.table)
    np.testing.assert_array_equal(merged.calibration.hits, whole.calibration.hits)
    assert (merged.weight, merged.hits, merged.top_hits) == (N, whole.hits, whole.top_hits)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(0, N))
def test_the_order_of_two_parts_changes_no_bit(seed, cut):
    one, other = parts(seed, [cut], weighted=True)
    assert bits(one + other) == bits(other + one)


def test_a_part_without_rows_changes_no_bit():
    (whole,) = parts(7, [], weighted=True)
    assert bits(empty() + whole) == bits(whole + empty()) == bits(whole)


def test_adding_leaves_both_parts_as_they_were():
    one, other = parts(3, [50], weighted=True)
    before = bits(one), bits(other)
    (one + other).add(*judged(4, weighted=True))
    assert (bits(one), bits(other)) == before


def test_a_report_of_merged_parts_is_that_of_all_rows():
    got = reduce(add, parts(5, [1, 60], weighted=True)).report(tuple("abcd"), {})
    want = parts(5, [], weighted=True)[0].report(tuple("abcd"), {})
    assert got.rows == want.rows
    for name in ("log_loss", "accuracy", "log_loss_prior", "macro_f1", "calibration_error"):
        assert getattr(got, name) == pytest.approx(getattr(want, name), rel=1e-12)


def test_many_classes_have_no_table_to_be_merged():
    one, other = Confusion(1001), Confusion(1001)
    one.add(np.array([1000]), np.array([0]), np.array([2.0]))
    other.add(np.array([1000]), np.array([1000]), np.array([1.0]))
    both = one + other
    assert both.table is None
    assert both.true[1000] == 3.0


def test_bins_of_confidence_are_added_one_by_one():
    one, other = Calibration(), Calibration()
    one.add(np.array([0.99]), np.array([True]), np.array([2.0]))
    other.add(np.array([0.99, 0.2]), np.array([False, True]), np.array([1.0, 1.0]))
    assert [(b.rows, b.weight) for b in (one + other).bins()] == [(1, 1.0), (2, 3.0)]
