"""The full gradient: that of many rows at the weights as they are, summed in float64.

Rows are cut into ranges whose number depends on (K, d) alone. Each range has sums of its own, and
is one thread's work; in the end the ranges' sums are added in their order. So the bits do not
depend on how many threads there are.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.compile import EXACT, FAST, kernel
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.operands import weights_length
from fastsoftmax.kernels.prefetch import plan_prefetch
from fastsoftmax.kernels.products import class_tiles, margins, update
from fastsoftmax.kernels.recurrence import plain_logits, residual, residuals
from fastsoftmax.kernels.sizes import DRAINED_ROWS
from fastsoftmax.kernels.vectors import lanes, noinline
from fastsoftmax.kernels.workspace import aligned, padded

# W, b: sums over the rows of a range of w (onehot(y) - p) x' and of w (onehot(y) - p), float64.
# part_W, part_b: the same over the latest rows, in the model's dtype, one for each worker.
GradientSums = namedtuple("GradientSums", "W b part_W part_b")


def new_sums(K: int, d: int, dtype: np.dtype, workers: int, ranges: int) -> GradientSums:
    """Return empty sums for the full gradient of K classes and d features."""
    return GradientSums(
        np.zeros((ranges, K, d)),
        np.zeros((ranges, K)),
        aligned((workers, K, weights_length(K, d, dtype)), dtype),
        aligned((workers, 1, padded(K, dtype)), dtype),
    )


@kernel(FAST)
def _drain(W, b, part_W, part_b):
    """Add the latest rows' sums to those of their range, and start anew."""
    noinline()
    K, d = W.shape
    for i in range(K):
        b[i] += np.float64(part_b[0, i])
        for j in range(d):
            W[i, j] += np.float64(part_W[i, j])
            part_W[i, j] = 0
    for i in range(part_b.shape[1]):
        part_b[0, i] = 0


@kernel(EXACT)
def add_range(weights, block, W_sum, b_sum, part_W, part_b, rows, first, stop):
    """Add to the sums the gradient of rows first : stop of `rows`, its sign turned.

    W_sum (K, d) and b_sum (K,) are float64; DRAINED_ROWS and the rest of a block are summed in the
    model's dtype before they are added. Return the rows' weighted loss (nats) and hits, and
    whether all their features were finite.
    """
    noinline()
    W, b, X, R, Z = weights.W, weights.b, block.X[0], block.R, block.Z
    B, K = Z.shape[0], W.shape[0]
    loss, hits, finite = 0.0, 0.0, True
    one, start, width = R.dtype.type(1), np.int64(0), X.shape[1]
    worker, one_row = np.int64(0), np.int64(1)
    filled = 0
    while first < stop:
        count = min(B, stop - first)
        cursor, last = plan_prefetch(
            block.lines, worker, rows, first + count, min(first + count + B, stop), one_row
        )
        finite &= gather(X, np.int64(0), count, rows.order, first, rows.table)
        cursor = margins(Z, X, W, start, class_tiles(K), count, cursor, last)
        # The residuals are added to the sum for b, not to b: all rows see the same weights.
        if R.shape[1] == lanes(R):
            block_loss, block_hits = residuals(R, Z, b, part_b, block.mass, rows, first, count)
            loss += block_loss
            hits += block_hits
        else:
            for t in range(count):
                weight = rows.weight[first + t]
                plain_logits(R, Z, b, t)
                y = rows.y[first + t]
                row_loss, hit = residual(R, part_b, t, y, R.dtype.type(weight), 1.0)
                loss += weight * row_loss
                hits += weight * hit
        update(part_W, None, start, class_tiles(K), start, width, one, R, X, count, cursor, last)
        first += count
        filled += count
        if filled >= DRAINED_ROWS or first >= stop:
            _drain(W_sum, b_sum, part_W, part_b)
            filled = 0
    return loss, hits, finite


@kernel(EXACT, entry=True)
def add_gradient(weights, block, sums, worker, rows, bounds, turns, facts):
    """Add to the sums of some ranges the gradient of their rows, bounds[r] : bounds[r + 1].

    turns: the first range, the one after the last, and how many ranges lie between two of them;
    (3,) int64. Set facts[r] (3,) to what `add_range` returns.
    """
    for r in range(turns[0], turns[1], turns[2]):
        loss, hits, finite = add_range(
            weights, block, sums.W[r], sums.b[r], sums.part_W[worker], sums.part_b[worker],
            rows, bounds[r], bounds[r + 1],
        )  # fmt: skip
        facts[r, 0], facts[r, 1], facts[r, 2] = loss, hits, finite
