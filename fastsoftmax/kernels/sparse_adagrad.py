"""AdaGrad over rows of few numbers that are not 0: each feature has a step of its own.

    G_f <- G_f + ||w g||^2 x_f^2      V_f <- V_f - eta / sqrt(G_f) w x_f g      0 where G_f = 0

One number a feature, where dense rows have one a weight: Duchi, Hazan and Singer (see `adagrad`)
with the norm over classes. Biases are those of a feature that all rows have as 1. A penalty acts at
each row's step, as large as that of the feature: it waits until the feature is met again.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.by_feature import L1, L2, SIGMA, SINCE, H
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.list_products import list_logits, list_step
from fastsoftmax.kernels.lists import list_first, list_next
from fastsoftmax.kernels.recurrence import residual
from fastsoftmax.kernels.sparse import count_step
from fastsoftmax.kernels.vectors import by_address, fma, lanes, load, splat, store
from fastsoftmax.kernels.waiting import catch_up

# The sums of squares, of features (d,) and of the biases (1,); the penalties of features (d,).
FeatureSquares = namedtuple("FeatureSquares", "G b l2 l1")


@kernel(EXACT)
def _rate(total, eta):
    """Return the step size of a feature whose squares add up to so much."""
    return eta / np.sqrt(total) if total > 0 else 0.0


@kernel(EXACT)
def _penalise(waiting, squares, f, state):
    """Let the penalties of a feature be those of its step; what waits of them waits on.

    H is P here, since s stays 1.
    """
    share, before = _rate(squares.G[f], 1.0), waiting[f, L2]
    l2 = squares.l2[f] * share
    waiting[f, L2], waiting[f, L1] = l2, squares.l1[f] * share
    behind = state[H] - waiting[f, SINCE]
    waiting[f, SINCE] = state[H] - (behind * before / l2 if l2 > 0 else 0.0)


@kernel(EXACT)
def _adapt(squares, waiting, lists, slot, norm, eta, state):
    """Let the squares of a listed row count, and multiply its numbers by their step sizes."""
    for j in range(lists.count[slot]):
        f, x = lists.index[slot, j], np.float64(lists.value[slot, j])
        squares.G[f] += norm * x * x
        if waiting is not None:
            _penalise(waiting, squares, f, state)
        lists.value[slot, j] = lists.value.dtype.type(x * _rate(squares.G[f], eta))


@kernel(EXACT)
def _take_step(weights, U, total_b, waiting, squares, lists, slot, rows, t, bias):
    """Take the step of a listed row that counts; return its loss and whether it was a hit."""
    V, b, R, state = weights.V, weights.b, weights.R, weights.state
    one, weight = V.dtype.type(1), rows.weight[t]
    if waiting is not None:
        catch_up(V, U, waiting, lists, slot, state)
    list_logits(R, 0, V, b, lists, slot, one)
    # Biases have steps of their own too: `residual` must not add to them.
    loss, hit = residual(R, b, 0, rows.y[t], V.dtype.type(weight), 0.0)
    norm = 0.0
    for k in range(R.shape[1]):
        norm += np.float64(R[0, k]) * np.float64(R[0, k])
    _adapt(squares, waiting, lists, slot, norm, rows.step[t], state)
    squares.b[0] += norm
    own = splat(b, b.dtype.type(bias * _rate(squares.b[0], rows.step[t])))
    for k in range(0, b.shape[1], lanes(b)):
        store(b, 0, k, fma(own, load(R, 0, k), load(b, 0, k)))
    list_step(V, U, R, lists, slot, one, V.dtype.type(state[SIGMA]))
    count_step(weights, U, total_b, None, rows.step[t] * weight)
    return loss, hit


@kernel(EXACT, entry=True)
def descend_list_adagrad(weights, average, waiting, squares, lists, rows, bias):
    """Take one step per row; rows.step holds eta, and weights.state a factor s of 1.

    waiting: where there are penalties, their step sizes among them.
    """
    weights, lists, rows = by_address(weights), by_address(lists), by_address(rows)
    n = rows.order.shape[0]
    loss, hits, finite = 0.0, 0.0, list_first(lists, rows, 0, n)
    for t in range(n):
        slot = t & 1
        if not finite:
            break
        finite = list_next(lists, rows, weights.V, waiting, t, n)
        if rows.weight[t] <= 0:
            continue
        if average is not None:
            row_loss, hit = _take_step(
                weights, average.U, average.b, waiting, squares, lists, slot, rows, t, bias
            )
        else:
            row_loss, hit = _take_step(
                weights, None, None, waiting, squares, lists, slot, rows, t, bias
            )
        loss += rows.weight[t] * row_loss
        hits += rows.weight[t] * hit
    return loss, hits, finite and np.isfinite(loss)
