"""Every kind of part moves, keeps and counts its rows in the same words."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data.parts import Codes, Dense, Sparse, packed_count, part_of
from fastsoftmax.kernels.transpose import copy_matrix

RNG = np.random.default_rng(8)
NUMBERS = RNG.integers(0, 100, (11, 5)).astype(np.int16)
CODES = RNG.integers(-1, 4, (11, 1)).astype(np.int32)
ONE_HOT = (np.arange(4) == CODES).astype(np.uint8)
FEW = np.where(RNG.random((11, 60)) < 0.07, RNG.integers(1, 9, (11, 60)), 0).astype(np.float32)


def sparse(X, *, ones=False):
    """Return rows as a part that leaves zeros out; it begins behind other numbers."""
    rows, index = X.nonzero()
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(X)))]) + 3
    index = np.concatenate([[0, 1, 2], index]).astype(np.int32)
    value = np.concatenate([[5, 5, 5], X[X != 0]]).astype(X.dtype)
    return Sparse(indptr, index, None if ones else value, X.shape[1])


# Each part, and the features that it holds.
PARTS = {
    "rows": (Dense(NUMBERS), NUMBERS),
    "columns": (Dense(np.asfortranarray(NUMBERS)), NUMBERS),
    "columns anywhere": (Dense(tuple(NUMBERS[:, j].copy() for j in range(5))), NUMBERS),
    "every other": (Dense(np.repeat(NUMBERS, 2, axis=0)[::2]), NUMBERS),
    "one column of many": (Dense(NUMBERS[:, 2:3]), NUMBERS[:, 2:3]),
    "codes": (Codes(CODES, 4), ONE_HOT),
    "sparse": (sparse(FEW), FEW),
    "sparse float64": (sparse(FEW.astype(np.float64)), FEW.astype(np.float64)),
    "sparse ones": (sparse((FEW > 0).astype(np.uint8), ones=True), (FEW > 0).astype(np.uint8)),
}
FULL = {name: both for name, both in PARTS.items() if not isinstance(both[0], Sparse)}
every_kind = pytest.mark.parametrize(("part", "X"), PARTS.values(), ids=list(PARTS))
every_full_kind = pytest.mark.parametrize(("part", "X"), FULL.values(), ids=list(FULL))


@every_kind
def test_a_part_knows_its_size(part, X):
    assert (part.rows, part.width) == X.shape
    assert part.nbytes == sum(array.nbytes for array in part.arrays)
    assert part.dtype == X.dtype
    assert len(part.marks) == part.rows


@every_full_kind
def test_rows_of_numbers_are_of_one_size(part, X):
    assert part.nbytes == part.rows * part.arrays[0].shape[1] * part.arrays[0].itemsize
    assert part[2:7].nbytes * part.rows == part.nbytes * 5


@every_kind
def test_its_features_are_read_as_a_matrix_and_in_any_dtype(part, X):
    assert_array_equal(part.matrix(), X)
    assert_array_equal([part.row(t) for t in range(part.rows)], X)
    out = np.full((part.rows, part.width + 2), 7.0, np.float32)
    part.write_to(out[:, 1:-1])
    assert_array_equal(out, np.pad(X.astype(np.float32), ((0, 0), (1, 1)), constant_values=7.0))


def memory_of(part):
    """Return what a part points at: its first array, or its first column where that lies alone."""
    return (getattr(part, "columns", None) or part.arrays)[0]


@every_kind
def test_rows_are_taken_where_they_lie_or_as_a_copy(part, X):
    assert_array_equal(part[3:8].matrix(), X[3:8])
    assert np.shares_memory(memory_of(part[3:8]), memory_of(part))
    order = RNG.permutation(11)[:6]
    for taken, want in ((part.take(copy_matrix), X), (part.take(copy_matrix, order), X[order])):
        assert_array_equal(taken.matrix(), want)
        assert taken.is_row_major
        assert not np.shares_memory(taken.arrays[0], part.arrays[0])
        assert taken.described == part.described


@every_kind
def test_only_what_does_not_lie_by_row_is_copied_for_it(part, X):
    assert part.by_row(copy_matrix).is_row_major
    assert (part.by_row(copy_matrix) is part) == part.is_row_major
    assert_array_equal(part.by_row(copy_matrix).matrix(), X)


@every_kind
def test_room_is_filled_piece_by_piece(part, X):
    sizes = []

    def allocate(shape, dtype):
        sizes.append(np.prod(shape) * dtype.itemsize)
        return np.empty(shape, dtype)

    room = part.room(8, allocate)
    assert isinstance(part, Sparse) or sizes == [room.nbytes]
    room.fill(copy_matrix, 0, part[2:5])
    room.fill(copy_matrix, 3, part, np.array([9, 0, 9, 1, 7]))
    assert_array_equal(room.matrix(), X[[2, 3, 4, 9, 0, 9, 1, 7]])


@every_kind
def test_a_part_is_made_again_of_its_description_and_bytes(part, X):
    rows = part.by_row(copy_matrix).packed()
    assert len(rows) == packed_count(part.described)
    again = part_of(part.described, rows)
    assert type(again) is type(part)
    assert_array_equal(again.matrix(), X)
    assert again.described == part.described
    assert np.shares_memory(again.arrays[-1], rows[-1].bytes)


def test_sparse_rows_grow_beyond_the_room_that_was_guessed():
    part, X = PARTS["sparse"]
    longest = int(np.argmax(part.marks))
    room = part[:1].room(40)
    for first in range(0, 40, 4):
        room.fill(copy_matrix, first, part, np.full(4, longest))
    assert_array_equal(room.matrix(), np.tile(X[longest], (40, 1)))


def test_a_sparse_row_tells_its_numbers_alone():
    part, X = PARTS["sparse"]
    for row, features in enumerate(X):
        there, values = part[2:].numbers(row - 2) if row >= 2 else part.numbers(row)
        assert_array_equal(there, features.nonzero()[0])
        assert_array_equal(values, features[features != 0])


def test_sparse_rows_without_numbers_are_rows():
    empty = Sparse(np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0), 7)
    assert (empty.rows, empty.nonzeros) == (3, 0)
    assert_array_equal(empty.take(copy_matrix, np.array([2, 0])).matrix(), np.zeros((2, 7)))


def test_numbers_of_more_digits_than_a_float32_holds_are_wide():
    names = ("f2", "f4", "f8", "u1", "i2", "i4", "u8")
    found = {name: Dense(np.zeros((1, 1), name)).is_wide for name in names}
    assert [name for name, is_wide in found.items() if is_wide] == ["f8", "i4", "u8"]
    assert not Codes(CODES, 4).is_wide


def test_what_does_not_fit_becomes_infinite():
    out = np.empty((1, 2), np.float32)
    Dense(np.array([[1e300, -1e300]])).write_to(out)
    assert_array_equal(out, [[np.inf, -np.inf]])


def test_a_part_says_what_it_is():
    assert repr(PARTS["rows"][0]) == "Dense(11 x 5 int16)"
    assert repr(PARTS["codes"][0]) == "Codes(11 of 4)"
    assert repr(PARTS["sparse"][0]) == "Sparse(11 x 60 float32)"
