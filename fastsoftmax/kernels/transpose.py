"""The only place that lays columns out as rows: a matrix that lies column by column, transposed.

Rows are what every kernel reads; of a matrix that lies column by column, a row is as many cache
lines as it has features. Numbers are moved as the integers of their size, whatever their dtype.
"""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import ir

from fastsoftmax.kernels.compile import EXACT, kernel, word
from fastsoftmax.kernels.gather import ADDRESS, COLUMN_STRIDE, ROW_STRIDE, part_table
from fastsoftmax.kernels.later import types
from fastsoftmax.kernels.level import LEVEL
from fastsoftmax.kernels.parts import Matrix, is_row_major
from fastsoftmax.kernels.vectors import I32, element_address

# Numbers on a side of a tile held in registers: of 16 registers, 16 a side take twice as long as 8.
SIDE = 16 if LEVEL.registers == 32 else 8
TALL = 256  # rows whose columns are followed so far that the processor fetches ahead


def _items(out, address, count):
    memory = (ctypes.c_char * (count * out.dtype.itemsize)).from_address(int(address))
    return np.frombuffer(memory, out.dtype)


@word(lambda out, address: _items(out, address, 1)[0])
def item_at(typing_context, out, address):
    """Return the number of out's dtype at `address`."""

    def build(context, builder, signature, arguments):
        pointer = ir.IntType(out.dtype.bitwidth).as_pointer()
        loaded = builder.load(builder.inttoptr(arguments[1], pointer))
        loaded.align = 1
        return loaded

    return out.dtype(out, types.int64), build


def _transposed(builder, rows):
    """Return the square of numbers in these vectors, transposed by halves, quarters, eighths..."""
    side = len(rows)
    half = side // 2
    while half:
        for i in (i for i in range(side) if not i & half):
            upper = [p if not p & half else side + p - half for p in range(side)]
            lower = [p + half if not p & half else side + p for p in range(side)]
            above, below = rows[i], rows[i + half]
            rows[i], rows[i + half] = (
                builder.shuffle_vector(above, below, ir.Constant(ir.VectorType(I32, side), mask))
                for mask in (upper, lower)
            )
        half //= 2
    return rows


def _tile_twin(out, t, j, address, stride):
    for i in range(SIDE):
        out[t : t + SIDE, j + i] = _items(out, address + i * stride, SIDE)


@word(_tile_twin)
def transpose_tile(typing_context, out, t, j, address, stride):
    """Set out[t : t + SIDE, j : j + SIDE] to SIDE columns that begin `stride` bytes apart."""

    def build(context, builder, signature, arguments):
        array, row, column, start, step = arguments
        ty = ir.VectorType(ir.IntType(out.dtype.bitwidth), SIDE)
        columns = []
        for _ in range(SIDE):
            loaded = builder.load(builder.inttoptr(start, ty.as_pointer()))
            loaded.align = 1
            columns.append(loaded)
            start = builder.add(start, step)
        target = element_address(context, builder, out, array, row, column)
        strides = context.make_array(out)(context, builder, array).strides
        down = builder.extract_value(strides, 0)
        for value in _transposed(builder, columns):
            builder.store(value, builder.inttoptr(target, ty.as_pointer())).align = 1
            target = builder.add(target, down)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(out, i64, i64, i64, i64), build


@kernel(EXACT)
def _copy_items(out, first, stop, start, width, at, order):
    """Copy rows first : stop, columns start : width, number by number."""
    for t in range(first, stop):
        row = at[ADDRESS] + order[t] * at[ROW_STRIDE]
        for j in range(start, width):
            out[t, j] = item_at(out, row + j * at[COLUMN_STRIDE])


@kernel(EXACT)
def _copy_tiles(out, first, stop, width, at, order):
    """Copy rows first : stop, whole tiles of them, and columns 0 : width, whole tiles too."""
    for j in range(0, width, SIDE):
        column = at[ADDRESS] + j * at[COLUMN_STRIDE]
        for t in range(first, stop, SIDE):
            row = column + order[t] * at[ROW_STRIDE]
            transpose_tile(out, t, j, row, at[COLUMN_STRIDE])


@kernel(EXACT, entry=True)
def copy_columns(out, at, order):
    """Set out[t] = row order[t] of a part, `at` its row of a part table.

    out: (rows, width) of unsigned integers as wide as the part's numbers, contiguous.
    order: (rows,) int64; where rows follow one another and columns are contiguous, tiles are moved.
    """
    count, width = out.shape
    follow = at[ROW_STRIDE] == out.itemsize
    for t in range(1, count):
        follow &= order[t] == order[t - 1] + 1
    for first in range(0, count, TALL):
        stop = min(first + TALL, count)
        rows = (stop - first) // SIDE * SIDE if follow else 0
        columns = width // SIDE * SIDE
        _copy_tiles(out, first, first + rows, columns, at, order)
        _copy_items(out, first, first + rows, columns, width, at, order)
        _copy_items(out, first + rows, stop, 0, width, at, order)


def copy_matrix(out: np.ndarray, matrix: np.ndarray, order: np.ndarray | None = None) -> None:
    """Copy a matrix (rows, width), or its rows in `order`, into `out`, contiguous, of its dtype."""
    if not is_row_major(matrix):  # which codes always are
        order = np.arange(len(matrix)) if order is None else order
        copy_columns(out.view(f"u{out.itemsize}"), part_table((Matrix(matrix),))[0], order)
    elif order is None:
        np.copyto(out, matrix)
    else:
        np.take(matrix, order, axis=0, out=out, mode="clip")  # "raise" would copy out first
