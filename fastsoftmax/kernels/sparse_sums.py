"""Sums over rows of few numbers that are not 0, at weights that stay as they are.

Full gradients and curvature are taken in two stages, so that the bits depend on no number of
threads: the rows' residuals R (n, width), each row by itself; then G_f (d, width) float64 += x_f R,
in which a worker owns some of the classes and meets the rows in their order.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.by_feature import S
from fastsoftmax.kernels.compile import EXACT, FAST, kernel
from fastsoftmax.kernels.list_products import list_logits
from fastsoftmax.kernels.lists import AHEAD, ask_for_row, list_first, list_next, list_norm, list_row
from fastsoftmax.kernels.recurrence import residual
from fastsoftmax.kernels.vectors import by_address


@kernel(EXACT, entry=True)
def residuals_of_lists(R, facts, weights, lists, rows, first, stop):
    """Set R[t] = w (onehot(y) - p) for the rows first : stop, and add to facts (3,) float64 their
    weighted loss (nats) and hits, and 1 where anything is not finite.
    """
    weights, lists, rows = by_address(weights), by_address(lists), by_address(rows)
    finite = list_first(lists, rows, first, stop)
    scale = weights.V.dtype.type(weights.state[S])
    for t in range(first, stop):
        finite &= list_next(lists, rows, weights.V, None, t, stop)
        list_logits(R, t, weights.V, weights.b, lists, t & 1, scale)
        weight = rows.weight[t]
        # A share of 0 of the residuals is added to b: all rows see the same weights.
        loss, hit = residual(R, weights.b, t, rows.y[t], R.dtype.type(weight), 0.0)
        facts[0] += weight * loss
        facts[1] += weight * hit
    if not finite:
        facts[2] = 1.0


@kernel(EXACT, entry=True)
def curvatures_of_lists(R, weights, lists, rows, first, stop, least):
    """Set R[t] = w max(p (1 - p), least) for the rows first : stop, 0 in padding classes."""
    weights, lists, rows = by_address(weights), by_address(lists), by_address(rows)
    list_first(lists, rows, first, stop)
    kind = weights.V.dtype.type
    scale, one = kind(weights.state[S]), kind(1)
    for t in range(first, stop):
        list_next(lists, rows, weights.V, None, t, stop)
        list_logits(R, t, weights.V, weights.b, lists, t & 1, scale)
        residual(R, weights.b, t, rows.y[t], one, 0.0)
        weight, y = kind(rows.weight[t]), rows.y[t]
        for k in range(R.shape[1]):
            p = one - R[t, k] if k == y else -R[t, k]
            R[t, k] = weight * max(p * (one - p), kind(least))


@kernel(FAST)
def _add_products(G, f, x, R, t, first, stop):
    for k in range(first, stop):
        G[f, k] += x * np.float64(R[t, k])


@kernel(FAST)
def _add_ones(g, R, t, first, stop):
    for k in range(first, stop):
        g[k] += np.float64(R[t, k])


@kernel(EXACT, entry=True)
def add_lists(G, g, R, lists, rows, first, stop, squares):
    """Add x_f R[t] to G_f, and R[t] to g, for all rows and the classes first : stop.

    squares: x_f^2 in place of x_f.
    """
    lists, rows = by_address(lists), by_address(rows)
    for t in range(rows.order.shape[0]):
        ask_for_row(rows, t + AHEAD)
        list_row(lists, 0, rows, t)
        for j in range(lists.count[0]):
            x = np.float64(lists.value[0, j])
            _add_products(G, lists.index[0, j], x * x if squares else x, R, t, first, stop)
        _add_ones(g, R, t, first, stop)


@kernel(EXACT, entry=True)
def measure_lists(weights, lists, rows):
    """Return the weighted loss (nats) and hits of rows at the weights as they are."""
    weights, lists, rows = by_address(weights), by_address(lists), by_address(rows)
    n, R = rows.order.shape[0], weights.R
    loss, hits, finite = 0.0, 0.0, list_first(lists, rows, 0, n)
    scale = R.dtype.type(weights.state[S])
    for t in range(n):
        finite &= list_next(lists, rows, weights.V, None, t, n)
        list_logits(R, 0, weights.V, weights.b, lists, t & 1, scale)
        row_loss, hit = residual(R, weights.b, 0, rows.y[t], R.dtype.type(0), 0.0)
        loss += rows.weight[t] * row_loss
        hits += rows.weight[t] * hit
    return loss, hits, finite


@kernel(EXACT, entry=True)
def logits_of_lists(R, weights, lists, rows):
    """Set R (n, width) to the logits of rows; return whether all their numbers are finite."""
    weights, lists, rows = by_address(weights), by_address(lists), by_address(rows)
    n = rows.order.shape[0]
    finite = list_first(lists, rows, 0, n)
    scale = R.dtype.type(weights.state[S])
    for t in range(n):
        finite &= list_next(lists, rows, weights.V, None, t, n)
        list_logits(R, t, weights.V, weights.b, lists, t & 1, scale)
    return finite


@kernel(EXACT, entry=True)
def norms_of_lists(norms, lists, rows):
    """Set norms[i] = ||x||^2 of each row; return whether all is finite."""
    finite = True
    for t in range(rows.order.shape[0]):
        ask_for_row(rows, t + AHEAD)
        finite &= list_row(lists, 0, rows, t)
        norms[t] = list_norm(lists, 0)
        if not np.isfinite(norms[t]):
            norms[t] = np.nan
    return finite


@kernel(EXACT, entry=True)
def add_list_moments(sums, squares, low, high, counts, lists, rows):
    """Add w x and w x^2 of rows that count to sums and squares, let low and high hold all x that
    are not 0, and count these; all (d,). Return whether all is finite.
    """
    finite = True
    for t in range(rows.order.shape[0]):
        ask_for_row(rows, t + AHEAD)
        finite &= list_row(lists, 0, rows, t)
        weight = rows.weight[t]
        if weight <= 0:
            continue
        for j in range(lists.count[0]):
            f, x = lists.index[0, j], np.float64(lists.value[0, j])
            sums[f] += weight * x
            squares[f] += weight * x * x
            low[f] = min(low[f], x)
            high[f] = max(high[f], x)
            counts[f] += 1
    return finite
