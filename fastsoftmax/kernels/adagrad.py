"""AdaGrad row after row: each weight has a step of its own, so no rows can be taken together.

Duchi, Hazan and Singer, Adaptive Subgradient Methods for Online Learning and Stochastic
Optimization, JMLR 12 (2011): the step of a weight is eta / sqrt(sum of its squared gradients), and
an L1 penalty is applied by the proximal step that belongs to it, which leaves exact zeros.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.blocks import add_scaled
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.prefetch import prefetch_rows
from fastsoftmax.kernels.recurrence import add_row, residual
from fastsoftmax.kernels.rowwise import row_logits
from fastsoftmax.kernels.vectors import by_address

LEAST = 1e-30  # what the sum of squares begins at: 0 / 0 is no step


@kernel(EXACT)
def adapted_step(W, squares, R, X, t, eta, weight, l2, l1):
    """Step all weights against the gradient -R[0] X[t]^T + weight l2 W, then towards 0 by l1."""
    zero = W.dtype.type(0)
    for k in range(W.shape[0]):
        r = R[0, k]
        for j in range(W.shape[1]):
            w = W[k, j]
            g = r * X[t, j] - weight * l2[0, j] * w
            # The row's own gradient counts in its step, so the first steps are of size eta.
            total = squares[k, j] + g * g
            squares[k, j] = total
            own = eta / np.sqrt(total)
            w += own * g
            # The proximal step in the same metric: weights that a penalty holds are exactly 0.
            kept = max(abs(w) - own * weight * l1[0, j], zero)
            W[k, j] = kept if w > zero else -kept


@kernel(EXACT)
def adapted_bias(b, squares, R, K, eta):
    """Step the biases against the gradient -R[0]."""
    for k in range(K):
        squares[0, k] += R[0, k] * R[0, k]
        b[0, k] += eta * R[0, k] / np.sqrt(squares[0, k])


@kernel(EXACT, entry=True)
def descend_adagrad(weights, squares, average, block, rows, l2, l1, bias):
    """Take one step per row; rows.step holds eta, and l2, l1 (1, width) the penalties by feature.

    squares: sums of squared gradients, laid out like the weights.
    """
    weights, block, rows = by_address(weights), by_address(block), by_address(rows)
    W, b, R, X = weights.W, weights.b, block.R, block.X[0]
    n, B = rows.order.shape[0], X.shape[0]
    one = W.dtype.type(1)
    loss, hits, finite = 0.0, 0.0, True
    for first in range(0, n, B):
        count = min(B, n - first)
        prefetch_rows(rows.table, rows.order, first + B, min(first + 2 * B, n))
        finite = gather(X, np.int64(0), count, rows.order, first, rows.table) and np.isfinite(loss)
        if not finite:
            break
        for t in range(count):
            row = first + t
            weight = W.dtype.type(rows.weight[row])
            row_logits(R, W, b, X, t)
            # Biases have steps of their own too: `residual` must not add to them.
            row_loss, hit = residual(R, b, 0, rows.y[row], weight, 0.0)
            if rows.weight[row] > 0:
                eta = W.dtype.type(rows.step[row])
                adapted_step(W, squares.W, R, X, t, eta, weight, l2, l1)
                adapted_bias(b, squares.b, R, W.shape[0], W.dtype.type(eta * bias))
                if average is not None:
                    add_scaled(average.W, W, 0, W.shape[0], 0, W.shape[1], one)
                    add_row(average.b, b)
            loss += rows.weight[row] * row_loss
            hits += rows.weight[row] * hit
    return loss, hits, finite and np.isfinite(loss)
