"""Sums over parts of the rows merge into those over all, however rows are cut and sums grouped."""

from __future__ import annotations

from functools import reduce
from operator import add
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.data import label_stats
from fastsoftmax.data.column_choice import ColumnRequest, choose_columns
from fastsoftmax.data.encode import Given, GivenLabels
from fastsoftmax.data.label_stats import Discovery, Labelled, LabelSums
from fastsoftmax.data.mixing import Mixing
from fastsoftmax.data.preprocessing import NullPolicy, Survey, SurveyedBatch
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes, sort_classes
from tests.merging import cuts, groupings

ROWS, PIECE, SEGMENT = 60, 25, 7
RNG = np.random.default_rng(4)
BATCH = pa.record_batch({
    "c": pa.array([None if u < 1 else f"c{u}" for u in RNG.integers(0, 9, ROWS)]),
    "x": pa.array(RNG.normal(1e3, 1.0, ROWS), mask=RNG.random(ROWS) < 0.2),
    "v": pa.FixedSizeListArray.from_arrays(
        pa.array(RNG.normal(size=2 * ROWS), mask=RNG.random(2 * ROWS) < 0.1), 2
    ),
})  # fmt: skip
TRAINED = RNG.random(ROWS) < 0.8
WEIGHTS = st.lists(st.sampled_from([0.0, 0.1, 1 / 3, 7.0]), min_size=ROWS, max_size=ROWS)


def where(row):
    return f"row {row}"


def label_sums(labels, weights, span, classes, held_out):
    """Return the sums over some rows, handed over piece by piece."""
    sums = LabelSums(classes)
    told = GivenLabels(Given("y"), None if weights is None else Given("w"))
    for start in range(0, ROWS, PIECE):
        first, stop = max(span[0], start), min(span[1], start + PIECE)
        if first < stop:
            here = slice(first, stop)
            w = None if weights is None else pa.array(weights[here])
            rows = Labelled(start // PIECE, first, pa.array(labels[here]), w, where)
            sums.add(rows, told, held_out)
    return sums


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), min_size=ROWS, max_size=ROWS),
    weights=st.none() | WEIGHTS,
    spans=cuts(ROWS),
    merge=groupings(),
    known=st.booleans(),
    holds_out=st.booleans(),
)  # fmt: skip
def test_label_sums_merge(labels, weights, spans, merge, known, holds_out):
    labels = np.array([0, 1, *labels[2:]])
    weights = None if weights is None else np.array([1.0, *weights[1:]])
    classes = sort_classes("int64", range(7)) if known else None

    def held_out(start, count):
        return np.arange(start, start + count) % 5 == 4

    told = (labels, weights)
    rest = (classes, held_out if holds_out else None)
    with patch.object(label_stats, "SEGMENT", SEGMENT):
        want = label_sums(*told, (0, ROWS), *rest).stats()
        parts = [label_sums(*told, span, *rest) for span in spans]
        got = merge(parts).stats()
        again = reduce(add, parts).stats()
        same = reduce(add, [label_sums(*told, span, *rest) for span in spans]).stats()
    assert got.classes == want.classes
    assert_array_equal(got.counts, want.counts)
    assert_array_equal(got.positives, want.positives)
    assert_allclose(got.mass, want.mass, rtol=1e-12)
    assert_array_equal(got.segments.pieces, want.segments.pieces)
    assert_array_equal(got.segments.counts, want.segments.counts)
    assert_array_equal(again.mass, same.mass)  # one order and shape, the same bits


def test_merging_leaves_the_parts_as_they_were_and_goes_on():
    labels = np.arange(ROWS) % 3
    first, second = (label_sums(labels, None, s, None, None) for s in ((0, 30), (30, ROWS)))
    merged = first + second
    assert merged.stats().counts.tolist() == [20, 20, 20]
    assert first.stats().counts.tolist() == second.stats().counts.tolist() == [10, 10, 10]
    more = Labelled(9, 1000, pa.array([5, 0]), None, where)
    merged.add(more, GivenLabels(Given("y"), None))
    assert merged.stats().counts.tolist() == [21, 20, 20, 1]


def test_a_part_of_one_class_is_no_error_until_the_sums_are_looked_at():
    ones = label_sums(np.ones(ROWS, int), None, (0, ROWS), None, None)
    with pytest.raises(DataError, match="the one class 1"):
        ones.stats()
    twos = label_sums(np.full(ROWS, 2), None, (0, ROWS), None, None)
    assert (ones + twos).stats().classes == Classes("int64", (1, 2))


def test_more_classes_than_bins_merge_where_they_are_given():
    labels = RNG.permutation(400)[:ROWS]
    classes = sort_classes("int64", range(400))
    want = label_sums(labels, None, (0, ROWS), classes, None).stats()
    parts = [label_sums(labels, None, span, classes, None) for span in ((0, 31), (31, ROWS))]
    got = (parts[0] + parts[1]).stats()
    assert_array_equal(got.segments.counts, want.segments.counts)
    assert_array_equal(got.counts, want.counts)
    with pytest.raises(ValueError, match="other classes"):
        parts[0] + LabelSums(None)


def test_more_classes_than_bins_that_were_found_in_another_order_do_not_merge():
    found = [LabelSums(), LabelSums()]
    for sums, order in zip(found, (1, -1), strict=True):
        rows = Labelled(0, 0, pa.array(np.arange(80)[::order]), None, where)
        sums.add(rows, GivenLabels(Given("y"), None))
    assert (found[0] + found[0]).stats().counts.tolist() == [2] * 80
    with pytest.raises(ValueError, match="give them beforehand"):
        found[0] + found[1]


def test_discoveries_merge_in_order():
    first, second = Discovery(), Discovery()
    first(pa.array(["b", "a"]), "y", where)
    second(pa.array(["c", "b", "d"]), "y", where)
    merged = first + second
    assert merged.values() == ("string", ["b", "a", "c", "d"])
    assert merged.places_of(second).tolist() == [2, 0, 3]
    assert (Discovery() + second).values() == second.values()
    assert merged.places_of(Discovery()).size == 0


def features():
    request = ColumnRequest(categorical=("c",), nulls="mean")
    return choose_columns(BATCH.schema, request, lambda name: None, "the table").features


@settings(max_examples=40, deadline=None)
@given(spans=cuts(ROWS), merge=groupings())
def test_surveys_merge(spans, merge):
    policy = NullPolicy("mean", indicators=True)

    def survey(first, stop):
        found = Survey(features(), policy)
        found.add(SurveyedBatch(BATCH.slice(first, stop - first), TRAINED[first:stop], where))
        return found

    want = survey(0, ROWS).learnt()
    parts = [survey(*span) for span in spans]
    got = merge(parts).learnt()
    for mine, theirs in zip(got, want, strict=True):
        assert mine.column.categories == theirs.column.categories
        assert mine.column.indicator == theirs.column.indicator
        assert_allclose(mine.column.fill, theirs.column.fill, rtol=1e-12)
    assert reduce(add, parts).learnt() == reduce(add, parts).learnt()


def test_many_categories_are_sparse_where_surveys_meet():
    def survey(first, stop):
        found = Survey(features()[:1], NullPolicy("mean", most=7))
        rows = pa.record_batch({"c": pa.array([f"c{u}" for u in range(first, stop)])})
        found.add(SurveyedBatch(rows, np.ones(stop - first, np.bool_), where))
        return found

    assert len((survey(0, 4) + survey(2, 7)).learnt()[0].column.categories) == 7
    assert (survey(0, 4) + survey(2, 7)).learnt()[0].column.sparse is None
    assert (survey(0, 4) + survey(4, 8)).learnt()[0].column.sparse is not None


@settings(max_examples=40, deadline=None)
@given(
    windows=st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=1, max_size=12),
    merge=groupings(),
    data=st.data(),
)
def test_mixings_merge(windows, merge, data):
    whole = np.array([30, 20, 50])

    def measured(some):
        found = Mixing(whole)
        for counts in some:
            found.add(np.array(counts))
        return found

    spans = data.draw(cuts(len(windows)))
    got = merge([measured(windows[first:stop]) for first, stop in spans])
    want = measured(windows)
    assert got.state()[0] == want.state()[0]
    assert_allclose(got.value, want.value, rtol=1e-12)
    with pytest.raises(ValueError, match="other rows"):
        got + Mixing(whole + 1)
