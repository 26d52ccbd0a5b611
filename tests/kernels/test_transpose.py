"""Matrices that lie column by column are laid out row by row, number for number."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.kernels.transpose import SIDE, TALL, copy_columns, copy_matrix

DTYPES = ["float16", "float32", "float64", "uint8", "int8", "int16", "uint32", "int64"]
RNG = np.random.default_rng(0)


def numbers(rows, width, dtype):
    return RNG.integers(0, 100, (rows, width)).astype(dtype)


@pytest.mark.parametrize("width", [2, SIDE - 1, SIDE, 2 * SIDE + 5])
@pytest.mark.parametrize("rows", [1, SIDE, SIDE + 3, TALL, 2 * TALL + 17])
@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_become_rows(dtype, rows, width):
    matrix = numbers(rows, width, dtype)
    out = np.full_like(matrix, 77)
    copy_matrix(out, np.asfortranarray(matrix))
    assert_array_equal(out, matrix)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_can_be_asked_for_in_any_order(dtype, order):
    matrix = np.asarray(numbers(300, 40, dtype), order=order)
    rows = RNG.permutation(300)[:123]
    out = np.empty((123, 40), dtype)
    copy_matrix(out, matrix, rows)
    assert_array_equal(out, matrix[rows])


@pytest.mark.parametrize("width", [2, SIDE, 2 * SIDE + 5])
@pytest.mark.parametrize("rows", [1, SIDE + 3, TALL + 17])
def test_columns_may_lie_anywhere(rows, width):
    matrix = numbers(rows + 3, width, "float32")
    columns = tuple(matrix[3:, j].copy() for j in range(width))
    out = np.full((rows, width), 77, np.float32)
    copy_matrix(out, columns)
    assert_array_equal(out, matrix[3:])
    order = RNG.permutation(rows)[: rows // 2 + 1]
    copy_matrix(out[: len(order)], columns, order)
    assert_array_equal(out[: len(order)], matrix[3:][order])


def test_a_matrix_with_gaps_both_ways_is_copied_number_by_number():
    wide = numbers(90, 90, "float32")
    part = wide[::2, 1::3]
    out = np.empty(part.shape, np.float32)
    copy_matrix(out, part)
    assert_array_equal(out, part)


def test_nothing_beyond_the_rows_asked_for_is_written():
    matrix = np.asfortranarray(numbers(64, 48, "float32"))
    out = np.zeros((80, 48), np.uint32)
    columns = matrix.ctypes.data + matrix.strides[1] * np.arange(48)
    copy_columns(out[8:72], columns, 4, np.arange(64))
    assert_array_equal(out[8:72], matrix.view(np.uint32))
    assert not out[:8].any()
    assert not out[72:].any()
