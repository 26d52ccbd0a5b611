"""The only place for register tiles: the innermost loops of the matrix products.

A tile keeps its sums in registers while one loop runs: over the features for dot products, over the
rows of a block for updates. The loops are built instruction by instruction because LLVM, left to
vectorise plain loops, does not keep a tile of W in registers across the rows of a block.
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
    element_address,
    fill,
    llvm_type,
    load_at,
    multiply_add,
    of_array,
    spread,
    store_at,
    word,
)

# 4 x 5 sums, 4 rows and a broadcast fill the 32 registers of AVX-512; with 16, a tile of 4 x 3.
ROW_TILE = 4
CLASS_TILE = 5 if REGISTERS == 32 else 3
WIDE = 4 if REGISTERS == 32 else 2  # vectors of W side by side in an update tile


def _number(value):
    return ir.Constant(I64, value)


class _Loop:
    """A counted loop whose variables stay in registers: `for at in range(0, stop, step)`.

    `variables` enter with their first values; `carry` hands on their next ones and ends the loop.
    """

    def __init__(self, builder, stop, step, first_values):
        entry = builder.block
        self.builder, self.stop, self.step = builder, stop, step
        self.body = builder.append_basic_block("tile")
        self.end = builder.append_basic_block("tile.end")
        builder.branch(self.body)
        builder.position_at_end(self.body)
        self.at = self._variable(_number(0), entry)
        self.variables = [self._variable(value, entry) for value in first_values]

    def _variable(self, first, entry):
        phi = self.builder.phi(first.type)
        phi.add_incoming(first, entry)
        return phi

    def carry(self, values):
        builder = self.builder
        after = builder.add(self.at, _number(self.step))
        for phi, value in zip([self.at, *self.variables], [after, *values], strict=True):
            phi.add_incoming(value, self.body)
        builder.cbranch(builder.icmp_signed("<", after, self.stop), self.body, self.end)
        builder.position_at_end(self.end)


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


def _addresses(context, builder, array_type, array, row, column, count):
    """Return the addresses of array[row + i, column] for i in range(count)."""
    return [
        element_address(context, builder, array_type, array, builder.add(row, _number(i)), column)
        for i in range(count)
    ]


def dot_tile(rows, classes):
    """Make `tile(Z, t, k, A, ta, B, kb, start, stop)`, for `rows` x `classes` dot products:

    Z[t + r, k + c] = sum_j A[ta + r, j] B[kb + c, j], over start <= j < stop (a whole number of
    vectors); added to what is in Z unless start is 0.
    """

    def twin(Z, t, k, A, ta, B, kb, start, stop):
        panel = slice(start, stop)
        sums = A[ta : ta + rows, panel] @ B[kb : kb + classes, panel].T
        out = Z[t : t + rows, k : k + classes]
        out[:] = sums if start == 0 else out + sums

    @word(twin)
    def tile(typing_context, Z, t, k, A, ta, B, kb, start, stop):
        def build(context, builder, signature, arguments):
            z, row, column, a, a_row, b, b_row, first, last = arguments
            vector = of_array(A)
            ty, size = llvm_type(vector), vector.dtype.bitwidth // 8
            a_at = _addresses(context, builder, A, a, a_row, first, rows)
            b_at = _addresses(context, builder, B, b, b_row, first, classes)
            length = builder.mul(builder.sub(last, first), _number(size))
            loop = _Loop(builder, length, VECTOR_BYTES, [fill(ty, 0.0)] * (rows * classes))
            x = [load_at(builder, builder.add(at, loop.at), ty) for at in a_at]
            sums = list(loop.variables)
            for c, at in enumerate(b_at):
                w = load_at(builder, builder.add(at, loop.at), ty)
                for r in range(rows):
                    i = r * classes + c
                    sums[i] = multiply_add(builder, x[r], w, sums[i])
            loop.carry(sums)
            fresh = builder.icmp_signed("==", first, _number(0))
            for begin in range(0, rows * classes, ty.count):
                merged = _lane_sums(builder, sums[begin : begin + ty.count])
                for i in range(begin, min(begin + ty.count, rows * classes)):
                    at = element_address(
                        context, builder, Z, z,
                        builder.add(row, _number(i // classes)),
                        builder.add(column, _number(i % classes)),
                    )  # fmt: skip
                    value = builder.extract_element(merged, ir.Constant(I32, i - begin))
                    before = builder.load(builder.inttoptr(at, ty.element.as_pointer()))
                    before = builder.select(fresh, ir.Constant(ty.element, 0.0), before)
                    store_at(builder, builder.fadd(before, value), at)
            return context.get_dummy_value()

        i64 = types.int64
        return types.void(Z, i64, i64, A, i64, B, i64, i64, i64), build

    return tile


def update_tile(classes, wide):
    """Make `tile(W, k, j, keep, E, e, X, count)`, for `classes` rows of W, `wide` vectors each:

    W[k + c, j:] = keep W[k + c, j:] + sum_s E[s, e + c] X[s, j:], over s < count, count >= 1.
    """

    def twin(W, k, j, keep, E, e, X, count):
        panel = slice(j, j + wide * VECTOR_BYTES // W.itemsize)
        out = W[k : k + classes, panel]
        out *= keep
        for s in range(count):
            out += np.outer(E[s, e : e + classes], X[s, panel])

    @word(twin)
    def tile(typing_context, W, k, j, keep, E, e, X, count):
        def build(context, builder, signature, arguments):
            w, row, column, kept, coefficients, first, x, rows = arguments
            vector = of_array(W)
            ty, size = llvm_type(vector), vector.dtype.bitwidth // 8
            offsets = [_number(VECTOR_BYTES * v) for v in range(wide)]
            w_at = _addresses(context, builder, W, w, row, column, classes)
            w_at = [builder.add(at, offset) for at in w_at for offset in offsets]
            scale = spread(builder, context.cast(builder, kept, keep, vector.dtype), ty)
            start = [builder.fmul(scale, load_at(builder, at, ty)) for at in w_at]
            zero = _number(0)
            strides = [
                cgutils.unpack_tuple(
                    builder, context.make_array(kind)(context, builder, value).strides
                )[0]
                for kind, value in ((X, x), (E, coefficients))
            ]
            x_first = element_address(context, builder, X, x, zero, column)
            e_first = element_address(context, builder, E, coefficients, zero, first)
            loop = _Loop(builder, rows, 1, [*start, x_first, e_first])
            *sums, x_at, e_at = loop.variables
            values = [load_at(builder, builder.add(x_at, offset), ty) for offset in offsets]
            for c in range(classes):
                at = builder.add(e_at, _number(size * c))
                scalar = builder.load(builder.inttoptr(at, ty.element.as_pointer()))
                factor = spread(builder, scalar, ty)
                for v in range(wide):
                    i = c * wide + v
                    sums[i] = multiply_add(builder, factor, values[v], sums[i])
            loop.carry([*sums, builder.add(x_at, strides[0]), builder.add(e_at, strides[1])])
            for at, value in zip(w_at, sums, strict=True):
                store_at(builder, value, at)
            return context.get_dummy_value()

        i64 = types.int64
        return types.void(W, i64, i64, keep, E, i64, X, i64), build

    return tile
