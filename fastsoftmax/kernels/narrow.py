"""Exact per-sample SGD row after row, for few classes: all weights of a feature are one vector.

W lies feature by feature here, so that neither margins nor steps sum over lanes. Row after row each
step waits for the one before: logits, softmax, update. So a row's margins are taken with weights of
one row earlier, in the pass that brings in the step of the row before, and are corrected by the
product of the two rows. What is left to wait for is the softmax, and the processor takes the next
row's pass meanwhile. See `sizes` for what it gains.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from llvmlite import ir

from fastsoftmax.kernels.bounds import IMPLICIT, OFF, TRIAL_ROWS, bounded, squared_norm
from fastsoftmax.kernels.compile import EXACT, kernel, word
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.later import types, vector_types
from fastsoftmax.kernels.prefetch import prefetch_rows
from fastsoftmax.kernels.recurrence import implicit_residual, weighted_logs
from fastsoftmax.kernels.sizes import NARROW_CLASSES, NARROW_ROWS
from fastsoftmax.kernels.softmax import exp
from fastsoftmax.kernels.stretches import in_stretches
from fastsoftmax.kernels.vectors import (
    Loop,
    element_address,
    fill,
    first_equal,
    fma,
    lanes,
    largest,
    llvm_type,
    load,
    load_at,
    multiply_add,
    noinline,
    number,
    one_hot,
    splat,
    spread,
    store_at,
    total,
)
from fastsoftmax.kernels.workspace import aligned, row_length

# Scratch: the weights of each feature W (d, NARROW_CLASSES) and their sums S, rows in a ring X
# (2 NARROW_ROWS, d), biases b, logits R and what implicit steps take, trial, as wide as W, and the
# sum of exponentials of each row, mass (NARROW_ROWS,) float64.
Narrow = namedtuple("Narrow", "W S X b R trial mass")
SUMS = 4  # margins that are added up side by side: one would wait for itself at each feature


def new_narrow(d: int, dtype: np.dtype) -> Narrow:
    """Return scratch for rows of d features."""
    length = row_length(d, dtype)
    W, S, b, R, trial = (
        aligned((rows, NARROW_CLASSES), dtype) for rows in (length, length, 1, 1, TRIAL_ROWS)
    )
    b[:] = -np.inf
    X = aligned((2 * NARROW_ROWS, length), dtype)
    return Narrow(W, S, X, b, R, trial, aligned((NARROW_ROWS,), np.dtype(np.float64)))


def all_classes(array):
    """Return the type of a vector of NARROW_CLASSES numbers, in one register or several."""
    return vector_types.Vector(array.dtype, NARROW_CLASSES)


def _load_all(A, i):
    return A[i, :NARROW_CLASSES].copy()


@word(_load_all)
def load_all(typing_context, A, i):
    """Return A[i], a number for each class."""
    vector = all_classes(A)

    def build(context, builder, signature, arguments):
        array, row = arguments
        address = element_address(context, builder, A, array, row, number(0))
        return load_at(builder, address, llvm_type(vector))

    return vector(A, types.int64), build


def _store_all(A, i, x):
    A[i, :NARROW_CLASSES] = x


@word(_store_all)
def store_all(typing_context, A, i, x):
    """Set A[i] to a number for each class."""

    def build(context, builder, signature, arguments):
        array, row, value = arguments
        store_at(builder, value, element_address(context, builder, A, array, row, number(0)))
        return context.get_dummy_value()

    return types.void(A, types.int64, x), build


def _pass_twin(W, S, X, before, after, r, keep, counts):
    W *= W.dtype.type(keep)
    W += np.outer(X[before], r)
    if S is not None:
        S += W.dtype.type(counts) * W
    return X[after] @ W


def _pass(builder, ty, starts, length, step, factors):
    """Build the loop of a pass over the features; return the margins of the row to come.

    starts: addresses of W, of its sums or None, of the row before and of the row to come. factors:
    by how much W shrinks, or None, and by how much it is added to the sums.
    """
    (w_at, s_at, old, new), (share, counted) = starts, factors
    size = 4 if isinstance(ty.element, ir.FloatType) else 8
    loop = Loop(builder, length, SUMS * size, [fill(ty, 0.0)] * SUMS)
    sums = list(loop.variables)
    first = builder.mul(loop.at, number(NARROW_CLASSES))
    for i in range(SUMS):
        column = builder.add(loop.at, number(i * size))
        here = builder.add(first, number(i * size * NARROW_CLASSES))
        before, after = (
            spread(builder, builder.load(builder.inttoptr(at, ty.element.as_pointer())), ty)
            for at in (builder.add(old, column), builder.add(new, column))
        )
        at = builder.add(w_at, here)
        value = load_at(builder, at, ty)
        if share is not None:
            value = builder.fmul(share, value)
        value = multiply_add(builder, before, step, value)
        store_at(builder, value, at)
        if s_at is not None:
            place = builder.add(s_at, here)
            summed = multiply_add(builder, counted, value, load_at(builder, place, ty))
            store_at(builder, summed, place)
        sums[i] = multiply_add(builder, after, value, sums[i])
    loop.carry(sums)
    pairs = [builder.fadd(*sums[i : i + 2]) for i in range(0, SUMS, 2)]
    return builder.fadd(*pairs)


@word(_pass_twin)
def pass_over(typing_context, W, S, X, before, after, r, keep, counts):
    """Set W = keep W + x r^T, x = X[before]; add `counts` of it to S; return W^T X[after]."""
    averages = isinstance(S, types.Array)

    def build(context, builder, signature, arguments):
        w, s, x, row, coming, step, share, times = arguments
        vector = all_classes(W)
        ty, zero = llvm_type(vector), number(0)
        starts = (
            element_address(context, builder, W, w, zero, zero),
            element_address(context, builder, S, s, zero, zero) if averages else None,
            *(element_address(context, builder, X, x, i, zero) for i in (row, coming)),
        )
        share, times = (
            context.cast(builder, value, kind, vector.dtype)
            for value, kind in ((share, keep), (times, counts))
        )
        rows = builder.extract_value(context.make_array(W)(context, builder, w).shape, 0)
        length = builder.mul(rows, number(vector.dtype.bitwidth // 8))
        shares, counted = spread(builder, share, ty), spread(builder, times, ty)
        whole = builder.fcmp_ordered("==", share, ir.Constant(ty.element, 1.0))
        # A product with 1 changes no bit, and takes a quarter of the time of a pass.
        with builder.if_else(whole) as (then, otherwise):
            with then:
                plain = _pass(builder, ty, starts, length, step, (None, counted))
                plain_end = builder.block
            with otherwise:
                shrunk = _pass(builder, ty, starts, length, step, (shares, counted))
                shrunk_end = builder.block
        margins = builder.phi(ty)
        margins.add_incoming(plain, plain_end)
        margins.add_incoming(shrunk, shrunk_end)
        return margins

    return r(W, S, X, types.int64, types.int64, r, keep, counts), build


@kernel(EXACT)
def turned(A, B, rows, columns):
    """Set A[i, j] = B[j, i]."""
    noinline()
    for i in range(rows):
        for j in range(columns):
            A[i, j] = B[j, i]


@kernel(EXACT)
def next_rows(X, rows, row):
    """Gather the rows from number `row` on into the ring; return whether they are finite."""
    count = min(rows.order.shape[0] - row, NARROW_ROWS)
    start = row % X.shape[0]
    return count <= 0 or gather(X, start, start + count, rows.order, row - start, rows.table)


@kernel(EXACT)
def row_products(X, s, t):
    """Return X[s] X[t]."""
    step, zero = lanes(X), splat(X, X.dtype.type(0))
    first, second = zero, zero
    width = X.shape[1]
    for j in range(0, width - step, 2 * step):
        first = fma(load(X, s, j), load(X, t, j), first)
        second = fma(load(X, s, j + step), load(X, t, j + step), second)
    if width // step % 2 == 1:
        first = fma(load(X, s, width - step), load(X, t, width - step), first)
    return total(first + second)


@kernel(EXACT)
def narrow_rows(narrow, S, rows, l2, bias):
    """Take the steps of all rows; S: narrow.S, or None where nothing is averaged.

    Return their weighted loss (nats) and hits, whether all was finite, and the sum of biases.
    """
    noinline()
    W, X, b, R = narrow.W, narrow.X, narrow.b, narrow.R
    kind, n, ring = W.dtype.type, rows.order.shape[0], X.shape[0]
    loss, hits, norm, counts, here, q = 0.0, 0.0, 0.0, 0.0, np.int64(0), kind(1)
    biases, g = load_all(b, 0), kind(0)
    zero = splat(biases, kind(0))
    r, bias_sum, share = zero, zero, splat(zero, kind(bias))
    finite = gather(X, here, min(n, NARROW_ROWS), rows.order, here, rows.table)
    ahead = pass_over(W, S, X, here, here, zero, q, counts)
    for row in range(n):
        before, here, t = here, row % ring, row % NARROW_ROWS
        y, weight = rows.y[row], rows.weight[row]
        # The row before has stepped since these margins were taken: they lack its step, and b too.
        z = fma(splat(zero, g + kind(bias)), r, fma(splat(zero, q), ahead, biases))
        biases = fma(share, r, biases)
        if rows.bound != OFF:
            norm = bias + np.float64(squared_norm(X, here, X.shape[1]))
            rows.step[row] = bounded(rows.step[row], norm, rows.bound)
        step = rows.step[row]
        store_all(R, 0, z)
        z_y, highest = R[0, y], largest(z)
        e = exp(z - splat(z, highest))
        sum_e = total(e)
        narrow.mass[t] = sum_e
        loss += weight * (np.float64(highest) - np.float64(z_y))
        hits += weight * (first_equal(z, highest) == y)
        r_before, q_before, counts_before = r, q, counts
        q, counts = kind(max(0.0, 1.0 - step * l2)), 1.0 if weight > 0 else 0.0
        # -step (p - onehot(y)) with one division: p itself is not needed.
        r = fma(e, splat(z, -kind(step) / sum_e), splat(z, kind(step)) * one_hot(z, 0, y))
        if rows.bound == IMPLICIT:
            store_all(b, 0, biases)
            implicit_residual(R, b, narrow.trial, np.int64(0), y, step, q, norm, 0.0)
            r = load_all(R, 0)
        bias_sum = fma(splat(z, kind(counts)), fma(share, r, biases), bias_sum)
        if t == NARROW_ROWS - 1 or row + 1 == n:
            loss += weighted_logs(narrow.mass, rows.weight, row - t, t + 1)
            finite = finite and next_rows(X, rows, row + 1) and np.isfinite(loss)
            if not finite:
                break
        if row + NARROW_ROWS < n:
            prefetch_rows(rows.table, rows.order, row + NARROW_ROWS, row + NARROW_ROWS + 1)
        # None of this waits for r.
        after = (row + 1) % ring
        ahead = pass_over(W, S, X, before, after, r_before, q_before, counts_before)
        g = row_products(X, here, after)
    pass_over(W, S, X, here, here, r, q, counts)
    store_all(b, 0, fma(share, r, biases))
    return loss, hits, finite, bias_sum


@kernel(EXACT)
def narrow_steps(weights, average, narrow, rows, l2, bias):
    """Take the steps of `row_steps` for few classes; weights and sums lie feature by feature."""
    noinline()
    K, width = weights.W.shape[0], min(weights.W.shape[1], narrow.W.shape[0])
    turned(narrow.W, weights.W, width, K)
    for k in range(K):
        narrow.b[0, k] = weights.b[0, k]
    if average is None:
        loss, hits, finite, _ = narrow_rows(narrow, None, rows, l2, bias)
    else:
        turned(narrow.S, average.W, width, K)
        loss, hits, finite, bias_sum = narrow_rows(narrow, narrow.S, rows, l2, bias)
        turned(average.W, narrow.S, K, width)
        store_all(narrow.R, 0, bias_sum)
        for k in range(K):
            average.b[0, k] += narrow.R[0, k]
    turned(weights.W, narrow.W, K, width)
    for k in range(K):
        weights.b[0, k] = narrow.b[0, k]
    return loss, hits, finite


descend_narrow = in_stretches(narrow_steps)
