"""The only place that lays columns out as rows: a matrix that lies column by column, transposed.

Rows are what every kernel reads; of a matrix that lies column by column, a row is as many cache
lines as it has features. Numbers are moved as the integers of their size, whatever their dtype.
"""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import ir

from fastsoftmax.kernels.compile import EXACT, kernel, word
from fastsoftmax.kernels.later import types
from fastsoftmax.kernels.level import LEVEL
from fastsoftmax.kernels.parts import is_row_major
from fastsoftmax.kernels.vectors import I32, I64, element_address

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


def _tile_twin(out, t, j, columns, start):
    for i in range(SIDE):
        out[t : t + SIDE, j + i] = _items(out, columns[j + i] + start, SIDE)


@word(_tile_twin)
def transpose_tile(typing_context, out, t, j, columns, start):
    """Set out[t : t + SIDE, j : j + SIDE] to what is `start` bytes behind SIDE addresses.

    columns: (width,) int64, contiguous, the address of each column.
    """

    def build(context, builder, signature, arguments):
        array, row, column, addresses, skipped = arguments
        ty = ir.VectorType(ir.IntType(out.dtype.bitwidth), SIDE)
        listed = context.make_array(columns)(context, builder, addresses).data
        loads = []
        for i in range(SIDE):
            place = builder.add(column, ir.Constant(I64, i))
            address = builder.add(builder.load(builder.gep(listed, [place])), skipped)
            loads.append(builder.load(builder.inttoptr(address, ty.as_pointer())))
            loads[-1].align = 1
        target = element_address(context, builder, out, array, row, column)
        strides = context.make_array(out)(context, builder, array).strides
        down = builder.extract_value(strides, 0)
        for value in _transposed(builder, loads):
            builder.store(value, builder.inttoptr(target, ty.as_pointer())).align = 1
            target = builder.add(target, down)
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(out, i64, i64, columns, i64), build


@kernel(EXACT)
def _copy_items(out, first, stop, start, columns, stride, order):
    """Copy rows first : stop, of the columns from number `start` on, number by number."""
    for t in range(first, stop):
        row = order[t] * stride
        for j in range(start, len(columns)):
            out[t, j] = item_at(out, columns[j] + row)


@kernel(EXACT)
def _copy_tiles(out, first, stop, width, columns, stride, order):
    """Copy rows first : stop, whole tiles of them, and columns 0 : width, whole tiles too."""
    for j in range(0, width, SIDE):
        for t in range(first, stop, SIDE):
            transpose_tile(out, t, j, columns, order[t] * stride)


@kernel(EXACT, entry=True)
def copy_columns(out, columns, stride, order):
    """Set out[t, j] to the number order[t] of column j, whose numbers are `stride` bytes apart.

    out: (rows, width) of unsigned integers as wide as the columns' numbers, contiguous.
    columns: (width,) int64, the address of each. order: (rows,) int64; where rows follow one
    another and columns are contiguous, tiles are moved.
    """
    count, width = out.shape
    follow = stride == out.itemsize
    for t in range(1, count):
        follow &= order[t] == order[t - 1] + 1
    for first in range(0, count, TALL):
        stop = min(first + TALL, count)
        rows = (stop - first) // SIDE * SIDE if follow else 0
        whole = width // SIDE * SIDE
        _copy_tiles(out, first, first + rows, whole, columns, stride, order)
        _copy_items(out, first, first + rows, whole, columns, stride, order)
        _copy_items(out, first + rows, stop, 0, columns, stride, order)


def copy_matrix(
    out: np.ndarray, matrix: np.ndarray | tuple[np.ndarray, ...], order: np.ndarray | None = None
) -> None:
    """Copy a matrix (rows, width), or its rows in `order`, into `out`, contiguous, of its dtype.

    A matrix may be given as its columns (rows,), each contiguous wherever it lies.
    """
    if isinstance(matrix, tuple):
        columns, stride = np.array([_address(column) for column in matrix]), out.itemsize
    elif not is_row_major(matrix):  # which codes always are
        down, across = matrix.strides
        columns, stride = _address(matrix) + across * np.arange(matrix.shape[1]), down
    elif order is None:
        np.copyto(out, matrix)
        return
    else:
        np.take(matrix, order, axis=0, out=out, mode="clip")  # "raise" would copy out first
        return
    order = np.arange(len(out)) if order is None else order
    copy_columns(out.view(f"u{out.itemsize}"), columns, stride, order)


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
