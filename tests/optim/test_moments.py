"""Means, deviations and reaches of columns, summed over all rows or over parts of them."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.data.parts import Dense
from fastsoftmax.optim import moments
from fastsoftmax.optim.moments import MomentSums, wide_columns
from tests.merging import cuts, groupings

ROWS = 90
RNG = np.random.default_rng(6)
NUMBERS = np.stack(
    [
        RNG.normal(size=ROWS),
        RNG.normal(1e6, 1.0, ROWS),
        1e-30 * RNG.standard_t(2, ROWS),
        np.full(ROWS, 0.1),
        np.where(np.arange(ROWS) < 40, 0.0, RNG.random(ROWS)),
    ],
    axis=1,
)
PARTS = (Dense(NUMBERS), Dense(RNG.integers(0, 9, (ROWS, 2)).astype(np.uint8)))
X = np.concatenate([part.matrix().astype(np.float64) for part in PARTS], axis=1)


def sums(order, weight):
    found = MomentSums(X.shape[1])
    found.add(PARTS, order, weight[order])
    return found


def weighted(X, w):
    """Return mean, deviation and reach, rows of weight 0 left out."""
    mean = (w[:, None] * X).sum(axis=0) / w.sum()
    deviation = np.sqrt((w[:, None] * (X - mean) ** 2).sum(axis=0) / w.sum())
    return mean, deviation, np.abs(X[w > 0] - mean).max(axis=0)


def assert_near(got, want, rtol):
    """Compare columns, each by the largest number in it too."""
    assert (np.abs(got - want) <= rtol * np.abs(want) + 1e-12 * np.abs(X).max(axis=0)).all()


def assert_close(got, mean, deviation, reach):
    assert_near(got.mean, mean, 1e-12)
    constant = X.min(axis=0) == X.max(axis=0)
    assert_array_equal(got.deviation[constant], 0)
    assert_array_equal(got.reach[constant], 0)
    # A reach of 1 beside a mean of 1e6 has ten digits less than the mean.
    assert_near(got.deviation, deviation, 1e-8)
    assert_near(got.reach, reach, 1e-8)


@pytest.mark.parametrize("kind", ["ones", "weights"])
def test_moments_are_those_of_the_rows(kind):
    w = np.ones(ROWS) if kind == "ones" else RNG.choice([0.0, 0.5, 3.0], ROWS)
    assert_close(sums(np.arange(ROWS), w).moments(), *weighted(X, w))


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.sampled_from([0.0, 0.3, 1.0, 8.0]), min_size=ROWS, max_size=ROWS),
    spans=cuts(ROWS),
    merge=groupings(),
)
def test_sums_of_parts_merge_whatever_their_units(weights, spans, merge):
    w = np.array([1.0, *weights[1:-1], 1.0])
    whole = sums(np.arange(ROWS), w).moments()
    parts = [sums(np.arange(*span), w) for span in spans]
    merged = merge(parts)
    got = merged.moments()
    assert merged.finite
    assert_allclose(merged.total, w.sum(), rtol=1e-12)
    assert_near(got.mean, whole.mean, 1e-12)
    assert_near(got.deviation, whole.deviation, 1e-6)
    assert_near(got.reach, whole.reach, 1e-6)
    once, twice = reduce(add, parts).moments(), reduce(add, parts).moments()
    for mine, theirs in zip(vars(once).values(), vars(twice).values(), strict=True):
        assert_array_equal(mine, theirs)


def test_rows_without_weight_give_no_units():
    nothing = sums(np.arange(5), np.zeros(ROWS))
    something = sums(np.arange(ROWS), np.ones(ROWS))
    for merged in (nothing + something, something + nothing, MomentSums(X.shape[1]) + something):
        for mine, theirs in zip(
            vars(merged.moments()).values(), vars(something.moments()).values(), strict=True
        ):
            assert_array_equal(mine, theirs)
    assert (nothing + nothing).total == 0


def test_a_merged_sum_takes_more_rows_and_leaves_its_parts_alone():
    first, second = sums(np.arange(30), np.ones(ROWS)), sums(np.arange(30, 60), np.ones(ROWS))
    before = first.moments().mean
    merged = first + second
    merged.add(PARTS, np.arange(60, ROWS), np.ones(30))
    assert_close(merged.moments(), *weighted(X, np.ones(ROWS)))
    assert_array_equal(first.moments().mean, before)


def test_what_is_not_finite_in_a_part_is_not_finite_in_all():
    odd = NUMBERS.copy()
    odd[70, 0] = np.nan
    found = [MomentSums(NUMBERS.shape[1]) for _ in range(2)]
    for sums_, span in zip(found, ((0, 45), (45, ROWS)), strict=True):
        sums_.add((Dense(odd),), np.arange(*span), np.ones(45))
    assert found[0].finite
    assert not found[1].finite
    assert not (found[0] + found[1]).finite
    assert not (found[1] + found[0]).finite


def test_the_first_guess_is_made_on_rows_that_count(monkeypatch):
    monkeypatch.setattr(moments, "FIRST_ROWS", 3)
    w = np.zeros(ROWS)
    w[[4, 9, 30, 50]] = 1.0, 2.0, 1.0, 1.0
    assert_close(sums(np.arange(ROWS), w).moments(), *weighted(X, w))


def test_wide_columns_are_those_of_wide_parts():
    assert wide_columns(PARTS).tolist() == [True] * 5 + [False] * 2
