"""Rows of any dtype and layout become a block of floats."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.kernels.gather import KINDS, WIDE, Affine, gather, part_table
from fastsoftmax.kernels.parts import Matrix
from fastsoftmax.kernels.workspace import aligned, padded

RNG = np.random.default_rng(0)


def numbers(kind, shape):
    if kind.kind == "f":
        return RNG.normal(size=shape).astype(kind)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return RNG.integers(max(low, -100), min(high, 100), shape).astype(kind)


def gathered(parts, order, dtype, affine=None):
    width = sum(part.shape[1] for part in parts)
    X = aligned((len(order), padded(width, dtype)), dtype)
    table = part_table(map(Matrix, parts), affine=affine)
    finite = gather(X, 0, len(order), order, 0, table)
    assert_array_equal(X[:, width:], 0)
    return X[:, :width], finite


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("width", [1, 16, 37])
def test_every_kind_is_cast_exactly_in_rows_and_columns(kind, width, dtype):
    order = RNG.permutation(20)
    values = numbers(kind, (20, width))
    wide = np.zeros((40, width + 3), kind)
    wide[::2, 1 : width + 1] = values
    read_only = values.copy()
    read_only.flags.writeable = False
    for part in (values, np.asfortranarray(values), wide[::2, 1 : width + 1], read_only):
        got, finite = gathered((part,), order, dtype)
        assert_array_equal(got, values[order].astype(dtype))
        assert finite


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("width", [1, 16, 37])
def test_every_kind_is_conditioned_in_its_precision(kind, width, dtype):
    order, values = RNG.permutation(20), numbers(kind, (20, width))
    beside = RNG.normal(size=(20, 3)).astype(np.float32)  # the zeros after a row end there
    affine = Affine(*RNG.uniform(0.5, 2, (2, width + 3)), dtype)
    precision = np.float64 if KINDS.index(kind) in WIDE else dtype
    centre, scale = (each[:width].astype(precision) for each in (affine.centre, affine.scale))
    expected = ((values.astype(precision) - centre) * scale).astype(dtype)[order]
    for part in (values, np.asfortranarray(values)):
        for parts in ((part,), (part, beside)):
            got, finite = gathered(parts, order, dtype, affine)
            assert_array_equal(got[:, :width], expected)
            assert finite


def test_parts_of_several_kinds_stand_side_by_side():
    parts = tuple(numbers(kind, (9, 1 + i)) for i, kind in enumerate(KINDS))
    order = np.arange(9)[::-1].copy()
    got, _ = gathered(parts, order, np.float64)
    assert_array_equal(got, np.hstack([p.astype(np.float64) for p in parts])[order])


def test_bool_counts_as_zero_and_one():
    part = np.array([[True, False], [False, True]])
    got, _ = gathered((part,), np.arange(2), np.float32)
    assert_array_equal(got, part)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 15, 16, 20])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_non_finite_number_is_seen(odd, column, order):
    part = np.zeros((5, 21), np.float32, order=order)
    part[3, column] = odd
    assert not gathered((part,), np.arange(5), np.float32)[1]
    assert gathered((part,), np.array([0, 1, 2, 4]), np.float32)[1]


def test_a_number_too_large_for_the_cast_is_seen():
    part = np.array([[1e300]])
    assert not gathered((part,), np.arange(1), np.float32)[1]
    assert gathered((part,), np.arange(1), np.float64)[1]


def test_the_last_row_of_an_array_is_read_to_its_end_and_no_further():
    block = np.arange(7, dtype=np.float32)
    got, _ = gathered((block[None, :],), np.zeros(1, np.int64), np.float32)
    assert_array_equal(got[0], block)
