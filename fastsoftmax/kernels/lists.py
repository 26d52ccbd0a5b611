"""The only place that lists rows: which of their numbers are not 0, whatever they are kept in.

What `gather` is to blocks of numbers, `list_row` is to rows of few: it casts, scales and checks in
one pass over the row, so that every kernel of sparse rows sees one type. Sparse parts and codes of
categories are scaled and never centred; dense parts that stand beside them are gathered, and their
zeros left out.
"""

from __future__ import annotations

import ctypes
from collections import namedtuple
from collections.abc import Sequence

import numpy as np
from llvmlite import ir

from fastsoftmax.kernels.bounds import OFF
from fastsoftmax.kernels.compile import EXACT, kernel, word
from fastsoftmax.kernels.gather import Affine, code_at, gather, part_table
from fastsoftmax.kernels.later import types
from fastsoftmax.kernels.parts import Nonzeros, PartLike
from fastsoftmax.kernels.vectors import (
    I64,
    address_of,
    fma,
    lanes,
    load,
    noinline,
    prefetch_line,
    splat,
    total,
)
from fastsoftmax.kernels.workspace import aligned, padded

# What the numbers of a part are: ones, float32, float64, or codes of categories.
ONES, SINGLE, DOUBLE, CODES = range(4)
# INDPTR: where a row's first number is told, or a row's code, ROW_STRIDE bytes apart. COLUMN: the
# first feature. SCALE: where that of the first feature lies, STEP bytes from one to the next.
KIND, INDPTR, ROW_STRIDE, INDEX, VALUE, COLUMN, SCALE, STEP, LONGEST = range(9)
FIELDS = LONGEST + 1
_NO_SCALE = np.ones(1)
LINE = 64  # bytes
AHEAD = 3  # rows whose numbers are asked for before they are listed
ASKED_BYTES = 1024  # of a feature's weights: of longer ones memory fetches the next lines by itself

# Scratch: two lists of one row each, index (2, room) int64 and value (2, room); count (2,) int64;
# X (1, width), a row of the dense parts; due (4, room) float64, which is for `waiting`.
Lists = namedtuple("Lists", "index value count X due")
BEHIND, DUE, LOST, SUMMED = range(4)
# Rows to visit: tables of the sparse parts and of the dense ones, and the feature that each dense
# column is; the rest as in `operands.Rows`.
ListRows = namedtuple("ListRows", "sparse dense columns order y weight step bound", defaults=(OFF,))


class ListTables:
    """How the parts of rows lie in memory; they must outlive its use, as `affine` must."""

    def __init__(self, parts: Sequence[PartLike], affine: Affine | None = None) -> None:
        table, dense, columns, column = [], list[PartLike](), list[np.ndarray](), 0
        centres, scales = list[np.ndarray](), list[np.ndarray]()
        for part in parts:
            stored = part.stored
            here = slice(column, column + stored.width)
            if isinstance(stored, Nonzeros):
                table.append((*_of_nonzeros(stored), column, *_scale(affine, column)))
            elif stored.categories is not None:
                table.append((*_of_codes(stored.values), column, *_scale(affine, column)))
            else:
                dense.append(part)
                columns.append(np.arange(here.start, here.stop))
                if affine is not None:
                    centres.append(affine.centre[here])
                    scales.append(affine.scale[here])
            column += stored.width
        self._affine = None
        if centres and affine is not None:
            centre, scale = np.concatenate(centres), np.concatenate(scales)
            self._affine = Affine(centre, scale, affine.near[0].dtype)
        lengths = [_longest(part) for part in parts]
        self.dense = part_table(dense, affine=self._affine)
        self.columns = np.concatenate([np.zeros(0, np.int64), *columns])
        self.sparse = np.array(table, np.int64).reshape(-1, FIELDS - 1)
        self.longest = sum(lengths)

    def rows(
        self,
        order: np.ndarray,
        y: np.ndarray,
        weight: np.ndarray,
        step: np.ndarray,
        bound: int = OFF,
    ) -> ListRows:
        """Return rows to visit, in the order of their numbers."""
        return ListRows(self.sparse, self.dense, self.columns, order, y, weight, step, bound)


def _of_nonzeros(stored: Nonzeros) -> tuple[int, ...]:
    value = stored.value
    kind = ONES if value is None else SINGLE if value.dtype == np.float32 else DOUBLE
    first = 0 if value is None else _address(value)
    return kind, _address(stored.indptr), 8, _address(stored.index), first


def _of_codes(codes: np.ndarray) -> tuple[int, ...]:
    return CODES, _address(codes), codes.strides[0], 0, 0


def _longest(part: PartLike) -> int:
    """Return how many numbers a row of the part has at most."""
    stored = part.stored
    if isinstance(stored, Nonzeros):
        return int(np.diff(stored.indptr).max(initial=0))
    return stored.width if stored.categories is None else 1


def _scale(affine: Affine | None, column: int) -> tuple[int, int]:
    """Return SCALE and STEP."""
    if affine is None:
        return _address(_NO_SCALE), 0
    return _address(affine.scale) + 8 * column, 8


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def new_lists(tables: ListTables, dtype: np.dtype, rows: int = 2) -> Lists:
    """Return scratch in which any row of these tables is listed."""
    room = max(tables.longest, 1)
    return Lists(
        np.zeros((rows, room), np.int64),
        aligned((rows, padded(room, dtype)), dtype),
        np.zeros(rows, np.int64),
        aligned((1, padded(len(tables.columns), dtype)), dtype),
        aligned((SUMMED + 1, padded(room, np.dtype(np.float64))), np.dtype(np.float64)),
    )


@word(lambda address: ctypes.c_int64.from_address(int(address)).value)
def int64_at(typing_context, address):
    """Return the int64 at `address`."""

    def build(context, builder, signature, arguments):
        loaded = builder.load(builder.inttoptr(arguments[0], I64.as_pointer()))
        loaded.align = 1
        return loaded

    return types.int64(address), build


@word(lambda address: np.float64(ctypes.c_float.from_address(int(address)).value))
def single_at(typing_context, address):
    """Return the float32 at `address` as a float64."""

    def build(context, builder, signature, arguments):
        loaded = builder.load(builder.inttoptr(arguments[0], ir.FloatType().as_pointer()))
        loaded.align = 1
        return builder.fpext(loaded, ir.DoubleType())

    return types.float64(address), build


@word(lambda address: ctypes.c_double.from_address(int(address)).value)
def double_at(typing_context, address):
    """Return the float64 at `address`."""

    def build(context, builder, signature, arguments):
        loaded = builder.load(builder.inttoptr(arguments[0], ir.DoubleType().as_pointer()))
        loaded.align = 1
        return loaded

    return types.float64(address), build


@kernel(EXACT)
def _list_nonzeros(lists, slot, count, at, row):
    """List a row of a sparse part after `count` numbers; return how many there are then."""
    index, value, kind = lists.index, lists.value, at[KIND]
    column, scale, step = at[COLUMN], at[SCALE], at[STEP]
    place = at[INDPTR] + row * 8
    first, stop = int64_at(place), int64_at(place + 8)
    indices, values = at[INDEX], at[VALUE]
    for j in range(first, stop):
        f = code_at(indices + 4 * j)
        x = double_at(scale + step * f)
        if kind == SINGLE:
            x *= single_at(values + 4 * j)
        elif kind == DOUBLE:
            x *= double_at(values + 8 * j)
        index[slot, count] = column + f
        value[slot, count] = value.dtype.type(x)
        count += 1
    return count


@kernel(EXACT)
def _list_dense(lists, slot, count, rows, t):
    """List a row of the dense parts after `count` numbers; return as well whether it is finite."""
    index, value, X, columns = lists.index, lists.value, lists.X, rows.columns
    finite = gather(X, np.int64(0), np.int64(1), rows.order, t, rows.dense)
    zero = X.dtype.type(0)
    for j in range(columns.shape[0]):
        if X[0, j] != zero:
            index[slot, count] = columns[j]
            value[slot, count] = X[0, j]
            count += 1
    return count, finite


@kernel(EXACT)
def _is_finite(value, slot, count):
    """Return whether the numbers of a row are finite; those after them are of rows that were."""
    zero = splat(value, value.dtype.type(0))
    odd = zero
    for j in range(0, count, lanes(value)):
        odd = fma(load(value, slot, j), zero, odd)
    return total(odd) == value.dtype.type(0)


@kernel(EXACT)
def list_row(lists, slot, rows, t):
    """List row rows.order[t] in lists[slot], cast and scaled; return whether all is finite.

    Once one was not, no later row is told to be.
    """
    noinline()
    count, finite = np.int64(0), True
    row = rows.order[t]
    for p in range(rows.sparse.shape[0]):
        at = rows.sparse[p]
        if at[KIND] == CODES:
            f = code_at(at[INDPTR] + row * at[ROW_STRIDE])
            if f >= 0:
                lists.index[slot, count] = at[COLUMN] + f
                lists.value[slot, count] = lists.value.dtype.type(
                    double_at(at[SCALE] + at[STEP] * f)
                )
                count += 1
        else:
            count = _list_nonzeros(lists, slot, count, at, row)
    if rows.columns.shape[0] > 0:
        count, finite = _list_dense(lists, slot, count, rows, t)
    lists.count[slot] = count
    return finite and _is_finite(lists.value, slot, count)


@kernel(EXACT)
def ask_for_row(rows, t):
    """Ask for the numbers of the row t, and for where those of a later one are told."""
    if t + AHEAD < rows.order.shape[0]:
        for p in range(rows.sparse.shape[0]):
            at = rows.sparse[p]
            prefetch_line(at[INDPTR] + rows.order[t + AHEAD] * at[ROW_STRIDE])
    if t < rows.order.shape[0]:
        for p in range(rows.sparse.shape[0]):
            at = rows.sparse[p]
            if at[KIND] != CODES:
                place = at[INDPTR] + rows.order[t] * 8
                first, stop = int64_at(place), int64_at(place + 8)
                for j in range(first, stop, 16):
                    prefetch_line(at[INDEX] + 4 * j)
                size = 4 * at[KIND]
                for line in range(first * size, stop * size, LINE):
                    prefetch_line(at[VALUE] + line)


@kernel(EXACT)
def ask_for_weights(W, lists, slot):
    """Ask for the weights (features, width) of the features of a listed row."""
    size = W.shape[1] * W.itemsize
    if size <= ASKED_BYTES:
        first = address_of(W, 0, 0)
        for j in range(lists.count[slot]):
            start = first + lists.index[slot, j] * size
            for line in range(0, size, LINE):
                prefetch_line(start + line)


@kernel(EXACT)
def list_first(lists, rows, t, stop):
    """List the row t, the first of those to `stop`, for `list_next`; return whether it is finite.

    A row t stands in the slot t & 1.
    """
    return list_row(lists, t & 1, rows, t) if t < stop else True


@kernel(EXACT)
def list_next(lists, rows, V, waiting, t, stop):
    """List the row after t, and ask for the weights of its features while those of t are in use;
    return whether it is finite.

    waiting: the penalties that wait for features, or None.
    """
    ask_for_row(rows, t + AHEAD)
    finite = True
    if t + 1 < stop:
        slot = (t + 1) & 1
        finite = list_row(lists, slot, rows, t + 1)
        ask_for_weights(V, lists, slot)
        if waiting is not None:
            ask_for_weights(waiting, lists, slot)
    return finite


@kernel(EXACT)
def list_norm(lists, slot):
    """Return ||x||^2 of a listed row, float64."""
    norm = 0.0
    for j in range(lists.count[slot]):
        x = np.float64(lists.value[slot, j])
        norm += x * x
    return norm
