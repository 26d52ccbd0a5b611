"""Per-sample SGD row after row: the blocked kernel's reference, and faster where K d is tiny."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.bounds import IMPLICIT, OFF, bounded, squared_norm
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.prefetch import prefetch_rows
from fastsoftmax.kernels.recurrence import add_row, implicit_residual, residual
from fastsoftmax.kernels.stretches import in_stretches
from fastsoftmax.kernels.vectors import fma, lanes, load, noinline, splat, store, total


@kernel(EXACT)
def row_logits(R, W, b, X, t):
    """Set R[0, :K] = W X[t] + b; padding logits are those of b, -inf."""
    K, d, step = W.shape[0], W.shape[1], lanes(W)
    for k in range(0, b.shape[1], step):
        store(R, 0, k, load(b, 0, k))
    # A class at a time, no tiles: W of K d < 400 numbers stays in the first-level cache.
    for k in range(K):
        z = splat(W, W.dtype.type(0))
        for j in range(0, d, step):
            z = fma(load(W, k, j), load(X, t, j), z)
        R[0, k] += total(z)


@kernel(EXACT)
def row_step(W, S, R, X, t, keep):
    """Set W = keep W + R[0] X[t]^T; add it to S, where that is not None."""
    K, d, step = W.shape[0], W.shape[1], lanes(W)
    shrink = splat(W, keep)
    for k in range(K):
        r = splat(W, R[0, k])
        for j in range(0, d, step):
            w = fma(r, load(X, t, j), shrink * load(W, k, j))
            store(W, k, j, w)
            if S is not None:
                store(S, k, j, load(S, k, j) + w)


@kernel(EXACT)
def row_steps(weights, average, block, rows, l2, bias):
    """Take one step per row: W <- q W - eta w (p - onehot(y)) x', b <- b - eta w (p - onehot(y)).

    The same steps as those of blocks, one row of W's traffic after the other, on one thread.
    """
    noinline()
    W, b, R, X = weights.W, weights.b, block.R, block.X[0]
    n, B = rows.order.shape[0], X.shape[0]
    loss, hits, finite, norm = 0.0, 0.0, True, 0.0
    for first in range(0, n, B):
        count = min(B, n - first)
        # A block ahead of its gather: shuffled rows come from memory at a latency of their own.
        prefetch_rows(rows.table, rows.order, first + B, min(first + 2 * B, n))
        finite = gather(X, np.int64(0), count, rows.order, first, rows.table) and np.isfinite(loss)
        if not finite:
            break
        for t in range(count):
            row = first + t
            if rows.bound != OFF:
                norm = bias + np.float64(squared_norm(X, t, X.shape[1]))
                rows.step[row] = bounded(rows.step[row], norm, rows.bound)
            step = rows.step[row]
            row_logits(R, W, b, X, t)
            keep = W.dtype.type(max(0.0, 1.0 - step * l2))
            if rows.bound == IMPLICIT:
                row_loss, hit = implicit_residual(
                    R, b, block.trial, np.int64(0), rows.y[row], step, keep, norm, bias
                )
            else:
                row_loss, hit = residual(R, b, 0, rows.y[row], W.dtype.type(step), bias)
            # Two calls, since a branch on None is left out only where it is an argument.
            if average is not None and rows.weight[row] > 0:
                row_step(W, average.W, R, X, t, keep)
                add_row(average.b, b)
            else:
                row_step(W, None, R, X, t, keep)
            loss += rows.weight[row] * row_loss
            hits += rows.weight[row] * hit
    return loss, hits, finite and np.isfinite(loss)


descend_rowwise = in_stretches(row_steps)
