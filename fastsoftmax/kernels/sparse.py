"""Exact per-sample SGD row after row, for rows of few numbers that are not 0.

W = s V: the K weights of a feature lie together in V (d, width), so that each number of a row
touches one run of memory, and what shrinks all of W is a factor s (float64). What else acts on all
weights at each step waits until a feature is met again: averages, penalties of features' own, l1.

    z = s V' x + b      g = softmax(z) - onehot(y)      s <- q s      V_f <- V_f - (eta w / s) x_f g

    average:  sigma = the sum of s after each row;   sum of W = A + sigma V - U,
              U <- U + sigma (what a step added to V), sigma being that of the rows before
    own l2:   V_f <- V_f exp(-l2_f (H - H_f)),  H_f <- H,  H = the sum of eta w, before V_f is used
    l1:       |v| <- max(0, |v| - l1_f (P - P_f)),  P_f <- P,  P = the sum of eta w / s, likewise
    both:     h = H - H_f:  |v| <- max(0, |v| exp(-l2_f h) - l1_f (1 - exp(-l2_f h)) / l2_f),
              to which it comes whether taken in one step of h or in several
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.bounds import IMPLICIT, OFF, TRIAL_ROWS, bounded
from fastsoftmax.kernels.compile import EXACT, FAST, kernel
from fastsoftmax.kernels.list_products import list_logits, list_step
from fastsoftmax.kernels.lists import (
    AHEAD,
    ask_for_row,
    ask_for_weights,
    list_norm,
    list_row,
)
from fastsoftmax.kernels.recurrence import implicit_residual, residual
from fastsoftmax.kernels.vectors import by_address, fma, lanes, load, noinline, splat, store
from fastsoftmax.kernels.workspace import aligned, padded

# Where the numbers of `state` stand: s, sigma, H, P and how many steps are averaged.
S, SIGMA, H, P, STEPS = range(5)
# Below it s is brought back by a power of two, which rounds nothing: float32 sums of averages would
# lose 1e-2 of their digits with s down to 2^-20, and lose 3e-7 with this.
LOW, BACK = 2.0**-4, 16.0
FEW_TERMS = 1e-4  # below it three terms of an exponential's series are exact to 5e-14


# Classes, since their values then have room for what `frames` remembers of them.
class FeatureWeights(namedtuple("FeatureWeights", "V b R trial state")):
    """V (d, width) and b (1, width); scratch R (1, width) and trial; state (5,) float64."""


class FeatureAverage(namedtuple("FeatureAverage", "U A b")):
    """U (d, width); A (d, width) and b (K,), the sums that are settled, float64."""


class Lazy(namedtuple("Lazy", "l2 H l1 P")):
    """The penalties of each feature's weights, and H and P when it was last met, (d,) float64."""


def new_feature_weights(K: int, d: int, dtype: np.dtype) -> FeatureWeights:
    """Return zero weights and biases for K classes and d features; padding biases are -inf."""
    width = padded(K, dtype)
    b = aligned((1, width), dtype)
    b[0, K:] = -np.inf
    state = np.zeros(5)
    state[S] = 1.0
    return FeatureWeights(
        aligned((d, width), dtype), b, aligned((1, width), dtype),
        aligned((TRIAL_ROWS, width), dtype), state,
    )  # fmt: skip


def new_feature_average(K: int, d: int, dtype: np.dtype) -> FeatureAverage:
    """Return the sums over no step."""
    width = padded(K, dtype)
    return FeatureAverage(
        aligned((d, width), dtype), aligned((d, width), np.dtype(np.float64)), np.zeros(K)
    )


@kernel(FAST)
def _settle(V, U, A, sigma):
    """Let A <- A + sigma V - U, and U = 0."""
    noinline()
    for f in range(V.shape[0]):
        for k in range(V.shape[1]):
            A[f, k] += sigma * np.float64(V[f, k]) - np.float64(U[f, k])
            U[f, k] = 0


@kernel(FAST)
def _multiply(V, factor):
    noinline()
    for f in range(V.shape[0]):
        for k in range(V.shape[1]):
            V[f, k] *= factor


@kernel(EXACT)
def _lost(due):
    """Return 1 - exp(-due), due >= 0: by three terms of its series where a fourth is rounding."""
    if due < FEW_TERMS:
        return due * (1.0 - due * (0.5 - due / 6.0))
    return -math.expm1(-due)


@kernel(EXACT)
def _decay(V, U, f, lost, sigma):
    """Multiply the weights of a feature by 1 - lost; U: see `add_vector`."""
    share, times = splat(V, V.dtype.type(1.0 - lost)), splat(V, sigma)
    for k in range(0, V.shape[1], lanes(V)):
        old = load(V, f, k)
        new = share * old
        store(V, f, k, new)
        if U is not None:
            store(U, f, k, fma(times, new - old, load(U, f, k)))


@kernel(EXACT)
def _soften(V, U, f, decay, due, sigma):
    """Let |v| be max(0, decay |v| - due) for the weights of a feature; U: see `add_vector`."""
    noinline()
    zero = V.dtype.type(0)
    for k in range(V.shape[1]):
        old = V[f, k]
        left = max(abs(old) * decay - due, zero)
        new = left if old > zero else -left
        V[f, k] = new
        if U is not None:
            U[f, k] += sigma * (new - old)


@kernel(EXACT)
def catch_up(V, U, lazy, lists, slot, state):
    """Let what is due of penalties act on the weights of a listed row's features.

    Where that would be rounding it waits on: a frequent feature would lose by each of them.
    """
    noinline()
    sigma, little = V.dtype.type(state[SIGMA]), 4.0 * np.finfo(V.dtype).eps
    for j in range(lists.count[slot]):
        f = lists.index[slot, j]
        l2, l1 = lazy.l2[f], lazy.l1[f]
        lost = _lost(l2 * (state[H] - lazy.H[f]))
        if l1 > 0.0:
            behind = lost / l2 if l2 > 0 else state[P] - lazy.P[f]
            _soften(V, U, f, V.dtype.type(1.0 - lost), V.dtype.type(l1 * behind), sigma)
        elif lost < little:
            continue
        else:
            _decay(V, U, f, lost, sigma)
        lazy.H[f], lazy.P[f] = state[H], state[P]


@kernel(EXACT)
def _bring_back(weights, U, A, lazy, is_zero):
    """Bring s to 1 where W became zero, or back by a power of two, with all that is in its units.

    Two calls of what follows stand where U may be None: a branch on None is left out only where it
    is an argument.
    """
    V, state = weights.V, weights.state
    if U is not None:
        _settle(V, U, A, state[SIGMA])
        state[SIGMA] = 0.0
    if is_zero:
        _multiply(V, V.dtype.type(0))
        state[S] = 1.0
        return
    _multiply(V, V.dtype.type(1.0 / BACK))
    state[S] *= BACK
    if lazy is not None:
        state[P] /= BACK
        for f in range(lazy.P.shape[0]):
            lazy.P[f] /= BACK


@kernel(EXACT)
def _sum_biases(total, b):
    for k in range(total.shape[0]):
        total[k] += np.float64(b[0, k])


@kernel(EXACT)
def shrink_all(weights, U, A, lazy, keep):
    """Multiply all weights by keep >= 0."""
    state = weights.state
    if keep <= 0.0:
        _bring_back(weights, U, A, lazy, True)
        return
    state[S] *= keep
    while state[S] < LOW:
        _bring_back(weights, U, A, lazy, False)


@kernel(EXACT)
def count_step(weights, U, total_b, step):
    """Note a step of size eta w, for penalties that wait and, where U is not None, for averages."""
    state = weights.state
    state[H] += step
    state[P] += step / state[S]
    if U is not None:
        state[SIGMA] += state[S]
        state[STEPS] += 1.0
        _sum_biases(total_b, weights.b)


@kernel(EXACT)
def _take_step(weights, U, A, total_b, lazy, lists, slot, rows, t, l2, bias):
    """Take the step of a listed row that counts; return its loss and whether it was a hit."""
    V, b, R, state = weights.V, weights.b, weights.R, weights.state
    one = V.dtype.type(1)
    if lazy is not None:
        catch_up(V, U, lazy, lists, slot, state)
    list_logits(R, 0, V, b, lists, slot, V.dtype.type(state[S]))
    norm = 0.0
    if rows.bound != OFF:
        norm = bias + list_norm(lists, slot)
        rows.step[t] = bounded(rows.step[t], norm, rows.bound)
    step = rows.step[t]
    keep = max(0.0, 1.0 - step * l2)
    if rows.bound == IMPLICIT:
        loss, hit = implicit_residual(
            R, b, weights.trial, np.int64(0), rows.y[t], step, V.dtype.type(keep), norm, bias
        )
    else:
        loss, hit = residual(R, b, 0, rows.y[t], V.dtype.type(step), bias)
    shrink_all(weights, U, A, lazy, keep)
    list_step(V, U, R, lists, slot, one / V.dtype.type(state[S]), V.dtype.type(state[SIGMA]))
    count_step(weights, U, total_b, step)
    return loss, hit


@kernel(EXACT, entry=True)
def descend_lists(weights, average, lazy, lists, rows, l2, bias):
    """Take one step per row: W <- q W - eta w (p - onehot(y)) x', b <- b - eta w (p - onehot(y)).

    average, lazy: where steps are averaged, and where features have penalties of their own.
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
        if t + 1 < n:  # while the weights of the row after this one are on their way
            finite = list_row(lists, 1 - slot, rows, t + 1)
            ask_for_weights(weights.V, lists, 1 - slot)
        if rows.weight[t] <= 0:
            continue
        if average is not None:
            row_loss, hit = _take_step(
                weights, average.U, average.A, average.b, lazy, lists, slot, rows, t, l2, bias
            )
        else:
            row_loss, hit = _take_step(
                weights, None, None, None, lazy, lists, slot, rows, t, l2, bias
            )
        loss += rows.weight[t] * row_loss
        hits += rows.weight[t] * hit
    return loss, hits, finite and np.isfinite(loss)
