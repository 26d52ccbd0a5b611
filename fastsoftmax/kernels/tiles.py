"""The only place for register tiles: the innermost loops of the matrix products.

A tile keeps its sums in registers while one loop runs: over the features for dot products, over the
rows of a block for updates. The loops are built instruction by instruction because LLVM, left to
vectorise plain loops, does not keep a tile of W in registers across the rows of a block.

Each round of a loop also asks for one cache line of the rows to come (see `prefetch`): `cursor` is
the address of an entry in a list of line addresses, `last` that of its last entry, which is asked
for again and again once the list is done. A tile returns its cursor.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastsoftmax.kernels.vectors import (
    I32,
    I64,
    REGISTERS,
    VECTOR_BYTES,
    Loop,
    element_address,
    fill,
    llvm_type,
    load_at,
    multiply_add,
    number,
    of_array,
    prefetch_at,
    spread,
    store_at,
    word,
)

# 4 x 5 sums, 4 rows and a broadcast fill the 32 registers of AVX-512; with 16, a tile of 4 x 3.
ROW_TILE = 4
CLASS_TILE = 5 if REGISTERS == 32 else 3
WIDE = 4 if REGISTERS == 32 else 2  # vectors of W side by side in an update tile
# Rows whose products with each other, each pair once, fill the registers.
GRAM_TILE = 8 if REGISTERS == 32 else 4


def _lane_sums(builder, vectors):
    """Return one vector whose lane i is the sum of the lanes of vectors[i], by a tree of merges.

    Merging costs three instructions a vector; summing each on its own costs a dozen.
    """
    count = vectors[0].type.count
    vectors = [*vectors, *[fill(vectors[0].type, 0.0)] * (count - len(vectors))]
    mask_type = ir.VectorType(I32, count)
    width = 1  # lane l of a vector holds a part of sum number l % width
    while width < count:
        groups = [(lane // (2 * width)) * 2 * width + lane % width for lane in range(count)]
        side = [count if lane % (2 * width) >= width else 0 for lane in range(count)]
        low = ir.Constant(mask_type, [g + s for g, s in zip(groups, side, strict=True)])
        high = ir.Constant(mask_type, [g + s + width for g, s in zip(groups, side, strict=True)])
        vectors = [
            builder.fadd(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))
            for a, b in zip(vectors[0::2], vectors[1::2], strict=True)
        ]
        width *= 2
    return vectors[0]


def _ask(builder, cursor, last):
    """Ask for the line that `cursor` points at; return the next cursor."""
    prefetch_at(builder, builder.load(builder.inttoptr(cursor, I64.as_pointer())))
    onward = builder.add(cursor, number(8))
    return builder.select(builder.icmp_unsigned("<", onward, last), onward, last)


def _addresses(context, builder, array_type, array, row, column, count):
    """Return the addresses of array[row + i, column] for i in range(count)."""
    return [
        element_address(context, builder, array_type, array, builder.add(row, number(i)), column)
        for i in range(count)
    ]


def _store_sums(context, builder, array_type, array, vectors, places, start):
    """Add the sum of the lanes of each vector to array[place]; set it where `start` is 0."""
    ty = vectors[0].type
    fresh = builder.icmp_signed("==", start, number(0))
    for begin in range(0, len(vectors), ty.count):
        merged = _lane_sums(builder, vectors[begin : begin + ty.count])
        for lane, (i, j) in enumerate(places[begin : begin + ty.count]):
            at = element_address(context, builder, array_type, array, i, j)
            value = builder.extract_element(merged, ir.Constant(I32, lane))
            before = builder.load(builder.inttoptr(at, ty.element.as_pointer()))
            before = builder.select(fresh, ir.Constant(ty.element, 0.0), before)
            store_at(builder, builder.fadd(before, value), at)


def dot_tile(rows, classes):
    """Make `tile(Z, t, k, A, ta, B, kb, start, stop, cursor, last)`, `rows` x `classes` products:

    Z[t + r, k + c] = sum_j A[ta + r, j] B[kb + c, j], over start <= j < stop (a whole number of
    vectors); added to what is in Z unless start is 0.
    """

    def twin(Z, t, k, A, ta, B, kb, start, stop, cursor, last):
        panel = slice(start, stop)
        sums = A[ta : ta + rows, panel] @ B[kb : kb + classes, panel].T
        out = Z[t : t + rows, k : k + classes]
        out[:] = sums if start == 0 else out + sums
        return cursor

    @word(twin)
    def tile(typing_context, Z, t, k, A, ta, B, kb, start, stop, cursor, last):
        def build(context, builder, signature, arguments):
            z, row, column, a, a_row, b, b_row, first, beyond, line, last_line = arguments
            vector = of_array(A)
            ty, size = llvm_type(vector), vector.dtype.bitwidth // 8
            a_at = _addresses(context, builder, A, a, a_row, first, rows)
            b_at = _addresses(context, builder, B, b, b_row, first, classes)
            length = builder.mul(builder.sub(beyond, first), number(size))
            loop = Loop(builder, length, VECTOR_BYTES, [line, *[fill(ty, 0.0)] * (rows * classes)])
            line, *sums = loop.variables
            line = _ask(builder, line, last_line)
            x = [load_at(builder, builder.add(at, loop.at), ty) for at in a_at]
            for c, at in enumerate(b_at):
                w = load_at(builder, builder.add(at, loop.at), ty)
                for r in range(rows):
                    i = r * classes + c
                    sums[i] = multiply_add(builder, x[r], w, sums[i])
            loop.carry([line, *sums])
            places = [
                (builder.add(row, number(r)), builder.add(column, number(c)))
                for r in range(rows)
                for c in range(classes)
            ]
            _store_sums(context, builder, Z, z, sums, places, first)
            return line

        i64 = types.int64
        return i64(Z, i64, i64, A, i64, B, i64, i64, i64, i64, i64), build

    return tile


def triangle_tile():
    """Make `tile(G, t, X, start, stop, cursor, last)`, for the pairs of GRAM_TILE rows:

    G[t + r, t + c] = sum_j X[t + r, j] X[t + c, j], r < c, over start <= j < stop; added to what is
    in G unless start is 0.
    """
    pairs = [(r, c) for c in range(GRAM_TILE) for r in range(c)]

    def twin(G, t, X, start, stop, cursor, last):
        block = X[t : t + GRAM_TILE, start:stop]
        products = block @ block.T
        for r, c in pairs:
            G[t + r, t + c] = products[r, c] if start == 0 else G[t + r, t + c] + products[r, c]
        return cursor

    @word(twin)
    def tile(typing_context, G, t, X, start, stop, cursor, last):
        def build(context, builder, signature, arguments):
            g, row, x, first, beyond, line, last_line = arguments
            vector = of_array(X)
            ty, size = llvm_type(vector), vector.dtype.bitwidth // 8
            x_at = _addresses(context, builder, X, x, row, first, GRAM_TILE)
            length = builder.mul(builder.sub(beyond, first), number(size))
            loop = Loop(builder, length, VECTOR_BYTES, [line, *[fill(ty, 0.0)] * len(pairs)])
            line, *sums = loop.variables
            line = _ask(builder, line, last_line)
            values = [load_at(builder, builder.add(at, loop.at), ty) for at in x_at]
            sums = [
                multiply_add(builder, values[r], values[c], total)
                for (r, c), total in zip(pairs, sums, strict=True)
            ]
            loop.carry([line, *sums])
            places = [(builder.add(row, number(r)), builder.add(row, number(c))) for r, c in pairs]
            _store_sums(context, builder, G, g, sums, places, first)
            return line

        i64 = types.int64
        return i64(G, i64, X, i64, i64, i64, i64), build

    return tile


def update_tile(classes, wide):
    """Make `tile(W, k, j, keep, E, e, X, count, cursor, last)`, `classes` rows by `wide` vectors:

    W[k + c, j:] = keep W[k + c, j:] + sum_s E[s, e + c] X[s, j:], over s < count, count >= 1.
    """

    def twin(W, k, j, keep, E, e, X, count, cursor, last):
        panel = slice(j, j + wide * VECTOR_BYTES // W.itemsize)
        out = W[k : k + classes, panel]
        out *= keep
        for s in range(count):
            out += np.outer(E[s, e : e + classes], X[s, panel])
        return cursor

    @word(twin)
    def tile(typing_context, W, k, j, keep, E, e, X, count, cursor, last):
        def build(context, builder, signature, arguments):
            w, row, column, kept, coefficients, first, x, rows, line, last_line = arguments
            vector = of_array(W)
            ty, size = llvm_type(vector), vector.dtype.bitwidth // 8
            offsets = [number(VECTOR_BYTES * v) for v in range(wide)]
            w_at = _addresses(context, builder, W, w, row, column, classes)
            w_at = [builder.add(at, offset) for at in w_at for offset in offsets]
            scale = spread(builder, context.cast(builder, kept, keep, vector.dtype), ty)
            start = [builder.fmul(scale, load_at(builder, at, ty)) for at in w_at]
            zero = number(0)
            strides = [
                cgutils.unpack_tuple(
                    builder, context.make_array(kind)(context, builder, value).strides
                )[0]
                for kind, value in ((X, x), (E, coefficients))
            ]
            x_first = element_address(context, builder, X, x, zero, column)
            e_first = element_address(context, builder, E, coefficients, zero, first)
            loop = Loop(builder, rows, 1, [*start, x_first, e_first, line])
            *sums, x_at, e_at, line = loop.variables
            line = _ask(builder, line, last_line)
            values = [load_at(builder, builder.add(x_at, offset), ty) for offset in offsets]
            for c in range(classes):
                at = builder.add(e_at, number(size * c))
                scalar = builder.load(builder.inttoptr(at, ty.element.as_pointer()))
                factor = spread(builder, scalar, ty)
                for v in range(wide):
                    i = c * wide + v
                    sums[i] = multiply_add(builder, factor, values[v], sums[i])
            x_at, e_at = builder.add(x_at, strides[0]), builder.add(e_at, strides[1])
            loop.carry([*sums, x_at, e_at, line])
            for at, value in zip(w_at, sums, strict=True):
                store_at(builder, value, at)
            return line

        i64 = types.int64
        return i64(W, i64, i64, keep, E, i64, X, i64, i64, i64), build

    return tile
