"""The only place that looks at rows without taking a step: their loss, their norms."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.compile import EXACT, FAST, kernel
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.prefetch import prefetch_rows
from fastsoftmax.kernels.products import all_margins
from fastsoftmax.kernels.recurrence import plain_logits, residual
from fastsoftmax.kernels.vectors import address_of


@kernel(EXACT, entry=True)
def measure(weights, block, rows):
    """Return the weighted loss (nats) and hits of rows at the weights as they are."""
    W, b, X, R, Z = weights.W, weights.b, block.X[0], block.R, block.Z
    n, B = rows.order.shape[0], Z.shape[0]
    loss, hits, finite = 0.0, 0.0, True
    at_hand = address_of(block.lines, 0, 0)
    for first in range(0, n, B):
        count = min(B, n - first)
        finite &= gather(X, np.int64(0), count, rows.order, first, rows.table)
        all_margins(Z, X, W, count, at_hand)
        for t in range(count):
            plain_logits(R, Z, b, t)
            # A step of 0 changes nothing: what is wanted is the loss.
            row_loss, hit = residual(R, b, t, rows.y[first + t], R.dtype.type(0), 0.0)
            loss += rows.weight[first + t] * row_loss
            hits += rows.weight[first + t] * hit
    return loss, hits, finite


@kernel(FAST)
def _squares(X, t):
    """Return the squared norm of row t, summed in float64."""
    norm = 0.0
    for j in range(X.shape[1]):
        x = np.float64(X[t, j])
        norm += x * x
    return norm


@kernel(EXACT, entry=True)
def squared_norms(norms, X, order, table):
    """Set norms[i] = ||x||^2 for each row of `order`; X (rows, d) is scratch."""
    n, B, finite = order.shape[0], X.shape[0], True
    for first in range(0, n, B):
        count = min(B, n - first)
        finite &= gather(X, np.int64(0), count, order, first, table)
        prefetch_rows(table, order, first + B, min(first + 2 * B, n))
        for t in range(count):
            norms[first + t] = _squares(X, t)
    return finite


@kernel(FAST)
def _add_row(sums, squares, low, high, X, t, weight):
    """Add row t to the moments; the extremes are of rows that count."""
    for j in range(sums.shape[0]):
        x = np.float64(X[t, j])
        sums[j] += weight * x
        squares[j] += weight * x * x
        low[j] = min(low[j], x)
        high[j] = max(high[j], x)


@kernel(EXACT, entry=True)
def add_moments(sums, squares, low, high, X, order, weight, table):
    """Add w x and w x^2 of rows to sums and squares, and let low and high (d,) hold all x.

    All float64; X (rows, d), float64, is scratch. Return whether all features are finite.
    """
    B, finite = X.shape[0], True
    for first in range(0, order.shape[0], B):
        count = min(B, order.shape[0] - first)
        finite &= gather(X, np.int64(0), count, order, first, table)
        for t in range(count):
            if weight[first + t] > 0:
                _add_row(sums, squares, low, high, X, t, weight[first + t])
    return finite
