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

import numpy as np

from fastsoftmax.kernels.bounds import IMPLICIT, OFF, bounded
from fastsoftmax.kernels.by_feature import SIGMA, SINCE, STEPS, H, P, S
from fastsoftmax.kernels.compile import EXACT, FAST, kernel
from fastsoftmax.kernels.list_products import list_logits, list_step
from fastsoftmax.kernels.lists import list_first, list_next, list_norm
from fastsoftmax.kernels.recurrence import implicit_residual, residual
from fastsoftmax.kernels.vectors import by_address, noinline
from fastsoftmax.kernels.waiting import catch_up, count_waiting

# Below it s is brought back by a power of two, which rounds nothing: float32 sums of averages would
# lose 1e-2 of their digits with s down to 2^-20, and lose 3e-7 with this.
LOW, BACK = 2.0**-4, 16.0


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
def _bring_back(weights, U, A, waiting, is_zero):
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
    if waiting is not None:
        state[P] /= BACK
        # All of P: where features have an l2 of their own there is none that shrinks all of W.
        for f in range(waiting.shape[0]):
            waiting[f, SINCE] /= BACK


@kernel(EXACT)
def _sum_biases(total, b):
    for k in range(total.shape[0]):
        total[k] += np.float64(b[0, k])


@kernel(EXACT)
def shrink_all(weights, U, A, waiting, keep):
    """Multiply all weights by keep >= 0."""
    state = weights.state
    if keep <= 0.0:
        _bring_back(weights, U, A, waiting, True)
        return
    state[S] *= keep
    while state[S] < LOW:
        _bring_back(weights, U, A, waiting, False)


@kernel(EXACT)
def count_step(weights, U, total_b, waiting, step):
    """Note a step of size eta w, for penalties that wait and, where U is not None, for averages."""
    state = weights.state
    state[H] += step
    state[P] += step / state[S]
    if U is not None:
        state[SIGMA] += state[S]
        state[STEPS] += 1.0
        _sum_biases(total_b, weights.b)
        if waiting is not None:
            count_waiting(waiting, state)


@kernel(EXACT)
def _take_step(weights, U, A, total_b, waiting, lists, slot, rows, t, l2, bias):
    """Take the step of a listed row that counts; return its loss and whether it was a hit."""
    V, b, R, state = weights.V, weights.b, weights.R, weights.state
    one = V.dtype.type(1)
    if waiting is not None:
        catch_up(V, U, waiting, lists, slot, state)
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
    shrink_all(weights, U, A, waiting, keep)
    list_step(V, U, R, lists, slot, one / V.dtype.type(state[S]), V.dtype.type(state[SIGMA]))
    count_step(weights, U, total_b, waiting, step)
    return loss, hit


@kernel(EXACT, entry=True)
def descend_lists(weights, average, waiting, lists, rows, l2, bias):
    """Take one step per row: W <- q W - eta w (p - onehot(y)) x', b <- b - eta w (p - onehot(y)).

    average, waiting: where steps are averaged, and where there are penalties that wait.
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
                weights, average.U, average.A, average.b, waiting, lists, slot, rows, t, l2, bias
            )
        else:
            row_loss, hit = _take_step(
                weights, None, None, None, waiting, lists, slot, rows, t, l2, bias
            )
        loss += rows.weight[t] * row_loss
        hits += rows.weight[t] * hit
    return loss, hits, finite and np.isfinite(loss)
