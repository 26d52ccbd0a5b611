"""Mini-batch SGD over rows of few numbers that are not 0: a step changes the features of its rows.

The gradient of the batch at hand is summed in G (d, width), of which the features that its rows
have are other than 0. They are listed, so that a step costs what its rows do, and nothing of d.
W = s V, averages and the penalties that wait are those of `sparse`.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.by_feature import SIGMA, S, columns_of
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.list_products import add_number, add_vector, list_logits, list_step
from fastsoftmax.kernels.lists import list_first, list_next
from fastsoftmax.kernels.recurrence import residual
from fastsoftmax.kernels.sparse import count_step, shrink_all
from fastsoftmax.kernels.vectors import by_address, fma, lanes, load, noinline, splat, store
from fastsoftmax.kernels.waiting import catch_up
from fastsoftmax.kernels.workspace import aligned, padded

# The batch so far: sums of -w (p - onehot(y)) x' and -w (p - onehot(y)), the features that its rows
# have, in the order they were met, whether a feature is one of them, and facts.
FeatureGradient = namedtuple("FeatureGradient", "G b touched is_touched facts")
# facts: rows in the batch, their weight, its step size, how many features are touched.
FILLED, WEIGHT, ETA, TOUCHED, FACTS = range(5)


def new_feature_gradient(
    K: int, d: int, dtype: np.dtype, *, mirrored: bool = False
) -> FeatureGradient:
    """Return an empty batch for K classes and d features; mirrored: see `new_feature_weights`."""
    columns = columns_of(K, dtype, mirrored=mirrored)
    return FeatureGradient(
        aligned((d, columns), dtype), aligned((1, padded(K, dtype)), dtype),
        np.zeros(d, np.int64), np.zeros(d, np.uint8), np.zeros(FACTS),
    )  # fmt: skip


@kernel(EXACT)
def _touch(gradient, lists, slot):
    """Note the features of a listed row."""
    touched, is_touched = gradient.touched, gradient.is_touched
    count = np.int64(gradient.facts[TOUCHED])
    for j in range(lists.count[slot]):
        f = lists.index[slot, j]
        if is_touched[f] == 0:
            is_touched[f] = 1
            touched[count] = f
            count += 1
    gradient.facts[TOUCHED] = count


@kernel(EXACT)
def _add_batch(V, U, gradient, factor, sigma):
    """Add factor G_f to V_f for the features touched, and leave none."""
    noinline()
    G, times, zero = gradient.G, splat(V, factor), splat(V, V.dtype.type(0))
    for i in range(np.int64(gradient.facts[TOUCHED])):
        f = gradient.touched[i]
        gradient.is_touched[f] = 0
        if V.shape[1] == 1:
            add_number(V, U, f, factor * G[f, 0], sigma)
            G[f, 0] = 0
            continue
        for k in range(0, V.shape[1], lanes(V)):
            add_vector(V, U, f, k, times, load(G, f, k), splat(V, sigma))
            store(G, f, k, zero)
    gradient.facts[TOUCHED] = 0.0


@kernel(EXACT)
def _close_batch(weights, U, A, total_b, waiting, gradient, l2, bias):
    """Take the step of a batch, divided by its rows."""
    V, b, state, facts = weights.V, weights.b, weights.state, gradient.facts
    # The mean over rows, not over weights: a batch of light rows takes a lighter step.
    share = facts[ETA] / facts[FILLED]
    step = share * facts[WEIGHT]
    for k in range(0, b.shape[1], lanes(b)):
        added = fma(splat(b, b.dtype.type(share * bias)), load(gradient.b, 0, k), load(b, 0, k))
        store(b, 0, k, added)
        store(gradient.b, 0, k, splat(b, b.dtype.type(0)))
    shrink_all(weights, U, A, waiting, max(0.0, 1.0 - step * l2))
    _add_batch(V, U, gradient, V.dtype.type(share / state[S]), V.dtype.type(state[SIGMA]))
    count_step(weights, U, total_b, waiting, step)
    facts[FILLED] = facts[WEIGHT] = 0.0


@kernel(EXACT)
def _see_row(weights, U, waiting, gradient, lists, slot, rows, t):
    """Add a listed row that counts to the batch; return its loss and whether it was a hit."""
    V, R, state, facts = weights.V, weights.R, weights.state, gradient.facts
    one, weight = V.dtype.type(1), rows.weight[t]
    if waiting is not None:
        catch_up(V, U, waiting, lists, slot, state)
    list_logits(R, 0, V, weights.b, lists, slot, V.dtype.type(state[S]))
    loss, hit = residual(R, gradient.b, 0, rows.y[t], V.dtype.type(weight), 1.0)
    _touch(gradient, lists, slot)
    list_step(gradient.G, None, R, lists, slot, one, one)
    if facts[FILLED] == 0:  # a batch takes the step size of its first row
        facts[ETA] = rows.step[t]
    facts[FILLED] += 1.0
    facts[WEIGHT] += weight
    return loss, hit


@kernel(EXACT, entry=True)
def descend_list_batches(
    weights, average, waiting, gradient, lists, rows, batch_size, ends, l2, bias
):  # fmt: skip
    """Take one step per `batch_size` rows with the mean of w (p - onehot(y)) x' over them.

    rows.step holds eta (not times the weight). A batch goes on in the next call unless `ends`: then
    the last one closes with the rows it has.
    """
    weights, gradient = by_address(weights), by_address(gradient)
    lists, rows = by_address(lists), by_address(rows)
    n, facts = rows.order.shape[0], gradient.facts
    loss, hits, finite = 0.0, 0.0, list_first(lists, rows, 0, n)
    # Once more than there are rows: what is left at the end of an epoch is a batch too.
    for t in range(n + 1):
        closes = facts[FILLED] >= batch_size or (t == n and ends and facts[FILLED] > 0)
        if closes and finite and average is not None:
            _close_batch(
                weights, average.U, average.A, average.b, waiting, gradient, l2, bias
            )  # fmt: skip
        elif closes and finite:
            _close_batch(weights, None, None, None, waiting, gradient, l2, bias)
        if t == n or not finite:
            break
        slot = t & 1
        finite = list_next(lists, rows, weights.V, waiting, t, n)
        if rows.weight[t] <= 0:
            continue
        if average is not None:
            row_loss, hit = _see_row(weights, average.U, waiting, gradient, lists, slot, rows, t)
        else:
            row_loss, hit = _see_row(weights, None, waiting, gradient, lists, slot, rows, t)
        loss += rows.weight[t] * row_loss
        hits += rows.weight[t] * hit
    return loss, hits, finite and np.isfinite(loss)
