"""Per-sample SGD for two classes and few features: softmax of two logits is one sigmoid.

While it runs, W[1] holds the first class's weights less the second's, and W[0] their sum, which no
step changes but by shrinking. Row after row, each step waits for the one before: dot
product, sigmoid, update. Here a row's dot product is taken with the weights of one row earlier, and
corrected by that row's step once it is known: what is left to wait for is the sigmoid. That made 21
million rows a second of 8 million.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.bounds import (
    IMPLICIT,
    OFF,
    bounded,
    implicit_miss,
    squared_norm,
)
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.prefetch import prefetch_rows
from fastsoftmax.kernels.recurrence import weighted_logs
from fastsoftmax.kernels.softmax import exp
from fastsoftmax.kernels.stretches import in_stretches
from fastsoftmax.kernels.vectors import (
    first_lane,
    fma,
    lanes,
    load,
    noinline,
    splat,
    store,
    total,
)


@kernel(EXACT)
def turn(W, width, share):
    """Set W[0], W[1] = share (W[0] + W[1]), share (W[0] - W[1]), over `width` columns.

    With a share of 1, and then of 1/2, all is as before.
    """
    for j in range(width):
        first, second = W[0, j], W[1, j]
        W[0, j] = share * (first + second)
        W[1, j] = share * (first - second)


@kernel(EXACT)
def row_product(A, s, X, t):
    """Return A[s] X[t]."""
    sums = splat(X, X.dtype.type(0))
    for j in range(0, A.shape[1], lanes(X)):
        sums = fma(load(A, s, j), load(X, t, j), sums)
    return total(sums)


@kernel(EXACT)
def add_row_to(W, s, X, t, r, keep):
    """Set W[s] = keep W[s] + r X[t]."""
    factor, share = splat(W, r), splat(W, keep)
    for j in range(0, W.shape[1], lanes(W)):
        store(W, s, j, fma(factor, load(X, t, j), share * load(W, s, j)))


@kernel(EXACT)
def pair_rows(W, bias_gap, average, block, rows, first, count, l2, bias):
    """Take the steps of `count` rows in the block; return their weighted loss (nats) and hits.

    bias_gap holds the difference of the biases, and the sum of it over rows.
    """
    X, mass = block.X[0], block.mass
    zero, one = W.dtype.type(0), W.dtype.type(1)
    bias_step = W.dtype.type(2 * bias)
    loss, hits, norm = 0.0, 0.0, 0.0
    b = bias_gap[0]
    z = row_product(W, 1, X, 0)
    for t in range(count):
        row = first + t
        # Neither waits for this row's sigmoid: the next margin is z = keep ahead + double shared.
        ahead = shared = zero
        if t + 1 < count:
            ahead, shared = row_product(W, 1, X, t + 1), row_product(X, t, X, t + 1)
        # z + b, of the true class over the other: its probability is 1 / (1 + exp(-towards)).
        sign = one if rows.y[row] == 0 else -one
        towards = sign * (z + b)
        e = first_lane(exp(splat(W, -abs(towards))))
        sum_e = one + e
        miss = (e if towards >= zero else one) / sum_e
        if rows.bound != OFF:
            norm = bias + np.float64(squared_norm(X, t, X.shape[1]))
            rows.step[row] = bounded(rows.step[row], norm, rows.bound)
        step = rows.step[row]
        keep = W.dtype.type(max(0.0, 1.0 - step * l2))
        if rows.bound == IMPLICIT:
            miss = implicit_miss(W, sign * (keep * z + b), step * norm)
        r = sign * W.dtype.type(step) * miss
        # Both classes step, by r and -r: their difference by twice that.
        double = r + r
        add_row_to(W, 1, X, t, double, keep)
        mass[t] = sum_e
        # log(1 + exp(-towards)) without the logarithm, which `weighted_logs` takes once a block.
        loss += rows.weight[row] * max(0.0, -np.float64(towards))
        hits += rows.weight[row] * (towards > zero or (towards == zero and rows.y[row] == 0))
        b += bias_step * r
        # The sum of both classes' weights changes by shrinking alone.
        if l2 > 0:
            add_row_to(W, 0, X, t, zero, keep)
        if average is not None and rows.weight[row] > 0:
            add_row_to(average.W, 1, W, 1, one, one)
            add_row_to(average.W, 0, W, 0, one, one)
            bias_gap[1] += b
        z = keep * ahead + double * shared
    bias_gap[0] = b
    return loss + weighted_logs(mass, rows.weight, first, count), hits


@kernel(EXACT)
def count_rows(weight):
    """Return how many rows count: NumPy's count_nonzero may allocate memory."""
    counted = 0
    for t in range(weight.shape[0]):
        counted += weight[t] != 0
    return counted


@kernel(EXACT)
def binary_steps(weights, average, block, rows, l2, bias):
    """Take the steps of `row_steps` for two classes, on the difference of their weights."""
    noinline()
    W, b = weights.W, weights.b
    n, B, d = rows.order.shape[0], block.X.shape[1], W.shape[1]
    one, half = W.dtype.type(1), W.dtype.type(0.5)
    both, bias_gap = b[0, 0] + b[0, 1], block.Z[0]  # no margins are kept here
    bias_gap[0], bias_gap[1] = b[0, 0] - b[0, 1], W.dtype.type(0)
    loss, hits, finite = 0.0, 0.0, True
    turn(W, d, one)
    if average is not None:
        turn(average.W, d, one)
    for first in range(0, n, B):
        count = min(B, n - first)
        prefetch_rows(rows.table, rows.order, first + B, min(first + 2 * B, n))
        finite = gather(
            block.X[0], np.int64(0), count, rows.order, first, rows.table
        ) and np.isfinite(loss)
        if not finite:
            break
        block_loss, block_hits = pair_rows(
            W, bias_gap, average, block, rows, first, count, l2, bias
        )
        loss += block_loss
        hits += block_hits
    turn(W, d, half)
    b[0, 0], b[0, 1] = half * (both + bias_gap[0]), half * (both - bias_gap[0])
    if average is not None:
        turn(average.W, d, half)
        counted = W.dtype.type(count_rows(rows.weight))
        average.b[0, 0] += half * (counted * both + bias_gap[1])
        average.b[0, 1] += half * (counted * both - bias_gap[1])
    return loss, hits, finite and np.isfinite(loss)


descend_binary = in_stretches(binary_steps)
