"""AdaGrad over rows of few numbers that are not 0: each feature has a step of its own.

    G_f <- G_f + ||w g||^2 x_f^2      V_f <- V_f - eta / sqrt(G_f) w x_f g      0 where G_f = 0

One number a feature, where dense rows have one a weight: Duchi, Hazan and Singer (see `adagrad`)
with the norm over classes. Biases are those of a feature that all rows have as 1. A penalty acts at
each row's step, as large as that of the feature: it waits until the feature is met again.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.list_products import list_logits, list_step
from fastsoftmax.kernels.lists import AHEAD, ask_for_row, ask_for_weights, list_row
from fastsoftmax.kernels.recurrence import residual
from fastsoftmax.kernels.sparse import SIGMA, H, P, catch_up, count_step
from fastsoftmax.kernels.vectors import by_address, fma, lanes, load, splat, store

# The sums of squares, of features (d,) and of the biases (1,); the penalties of features (d,).
FeatureSquares = namedtuple("FeatureSquares", "G b l2 l1")


@kernel(EXACT)
def _rate(total, eta):
    """Return the step size of a feature whose squares add up to so much."""
    return eta / np.sqrt(total) if total > 0 else 0.0


@kernel(EXACT)
def _penalise(lazy, squares, f, state):
    """Let the penalties of a feature be those of its step; what waits of them waits on."""
    share, before = _rate(squares.G[f], 1.0), lazy.l2[f]
    lazy.l2[f], lazy.l1[f] = squares.l2[f] * share, squares.l1[f] * share
    waiting = state[H] - lazy.H[f]
    lazy.H[f] = state[H] - (waiting * before / lazy.l2[f] if lazy.l2[f] > 0 else 0.0)
    lazy.P[f] = state[P]


@kernel(EXACT)
def _adapt(squares, lazy, lists, slot, norm, eta, state):
    """Let the squares of a listed row count, and multiply its numbers by their step sizes."""
    for j in range(lists.count[slot]):
        f, x = lists.index[slot, j], np.float64(lists.value[slot, j])
        squares.G[f] += norm * x * x
        if lazy is not None:
            _penalise(lazy, squares, f, state)
        lists.value[slot, j] = lists.value.dtype.type(x * _rate(squares.G[f], eta))


@kernel(EXACT)
def _take_step(weights, U, total_b, lazy, squares, lists, slot, rows, t, bias):
    """Take the step of a listed row that counts; return its loss and whether it was a hit."""
    V, b, R, state = weights.V, weights.b, weights.R, weights.state
    one, weight = V.dtype.type(1), rows.weight[t]
    if lazy is not None:
        catch_up(V, U, lazy, lists, slot, state)
    list_logits(R, 0, V, b, lists, slot, one)
    # Biases have steps of their own too: `residual` must not add to them.
    loss, hit = residual(R, b, 0, rows.y[t], V.dtype.type(weight), 0.0)
    norm = 0.0
    for k in range(R.shape[1]):
        norm += np.float64(R[0, k]) * np.float64(R[0, k])
    _adapt(squares, lazy, lists, slot, norm, rows.step[t], state)
    squares.b[0] += norm
    own = splat(b, b.dtype.type(bias * _rate(squares.b[0], rows.step[t])))
    for k in range(0, b.shape[1], lanes(b)):
        store(b, 0, k, fma(own, load(R, 0, k), load(b, 0, k)))
    list_step(V, U, R, lists, slot, one, V.dtype.type(state[SIGMA]))
    count_step(weights, U, total_b, rows.step[t] * weight)
    return loss, hit


@kernel(EXACT, entry=True)
def descend_list_adagrad(weights, average, lazy, squares, lists, rows, bias):
    """Take one step per row; rows.step holds eta, and weights.state a factor s of 1.

    lazy: where there are penalties, their step sizes among them.
    """
    weights, lists, rows = by_address(weights), by_address(lists), by_address(rows)
    n = rows.order.shape[0]
    loss, hits, finite = 0.0, 0.0, True
    if n > 0:
        finite = list_row(lists, 0, rows, 0)
    for t in range(n):
        slot = t & 1
        if not finite:
            break
        ask_for_row(rows, t + AHEAD)
        if t + 1 < n:
            finite = list_row(lists, 1 - slot, rows, t + 1)
            ask_for_weights(weights.V, lists, 1 - slot)
        if rows.weight[t] <= 0:
            continue
        if average is not None:
            row_loss, hit = _take_step(
                weights, average.U, average.b, lazy, squares, lists, slot, rows, t, bias
            )
        else:
            row_loss, hit = _take_step(
                weights, None, None, lazy, squares, lists, slot, rows, t, bias
            )
        loss += rows.weight[t] * row_loss
        hits += rows.weight[t] * hit
    return loss, hits, finite and np.isfinite(loss)
