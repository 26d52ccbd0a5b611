"""The only place for penalties that wait: they act on a feature's weights when it is met again.

The mean over steps must not miss an l2 that waits. Since a feature was met last, at H_f, its
weights have counted, as they were then, once for each step i. They should have counted for

    sum_i exp(-l2 (H_i - H_f))  =  exp(l2 (H_f - m)) E,      E = sum_i exp(-l2 (H_i - m)),

H_i being H after each step. As a polynomial in l2, E follows for all features from sums of powers
of H_i - m. These begin anew with another m whenever H is so far from it that TERMS are too few.
MISSED is that by which sigma - exp(l2 (H_f - m)) E exceeds the steps that counted wrongly so far.
"""

from __future__ import annotations

import math

import numpy as np

from fastsoftmax.kernels.by_feature import (
    HALF,
    L1,
    L2,
    LAST,
    MIDDLE,
    MISSED,
    SIGMA,
    SINCE,
    SUMS,
    TERMS,
    H,
    P,
)
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.list_products import add_number
from fastsoftmax.kernels.lists import BEHIND, DUE, LOST, SUMMED
from fastsoftmax.kernels.vectors import fma, lanes, load, noinline, splat, store

# Below it ten terms of the series of an exponential are exact to 3e-14.
SHORT = 0.25
# As far as l2 (H - MIDDLE) may come, TERMS terms of the same series are exact to 3e-8.
REACH = 1.0
FORGOTTEN = -40.0  # exponentials of less are nothing beside the steps that count


@kernel(EXACT)
def _lost(x):
    """Return 1 - exp(-x) for a vector of x from 0 to SHORT."""
    one = splat(x, 1.0)
    rest = one - x * splat(x, 1.0 / 10.0)
    rest = one - x * splat(x, 1.0 / 9.0) * rest
    rest = one - x * splat(x, 1.0 / 8.0) * rest
    rest = one - x * splat(x, 1.0 / 7.0) * rest
    rest = one - x * splat(x, 1.0 / 6.0) * rest
    rest = one - x * splat(x, 1.0 / 5.0) * rest
    rest = one - x * splat(x, 1.0 / 4.0) * rest
    rest = one - x * splat(x, 1.0 / 3.0) * rest
    rest = one - x * splat(x, 1.0 / 2.0) * rest
    return x * rest


@kernel(EXACT)
def _polynomial(state, first, x):
    """Return the polynomial of a vector x whose TERMS coefficients stand from state[first] on."""
    value = splat(x, state[first + TERMS - 1])
    for k in range(2, TERMS + 1):
        value = fma(value, x, splat(x, state[first + TERMS - k]))
    return value


@kernel(EXACT)
def _note_due(U, waiting, lists, slot, state):
    """Set lists.due, what is due of a listed row: by vectors, for one by one it takes long."""
    noinline()
    due, count = lists.due, lists.count[slot]
    for j in range(count):
        f = lists.index[slot, j]
        l2 = waiting[f, L2]
        behind = (state[H] if l2 > 0.0 else state[P]) - waiting[f, SINCE]
        due[BEHIND, j], due[DUE, j], due[SUMMED, j] = behind, l2 * behind, l2 * state[HALF]
    for j in range(0, count, lanes(due)):
        store(due, LOST, j, _lost(load(due, DUE, j)))
    if U is not None:
        for j in range(0, count, lanes(due)):
            x = load(due, SUMMED, j)
            now = _polynomial(state, LAST, splat(x, 0.0) - x)
            store(due, SUMMED, j, now * _polynomial(state, SUMS, x))


@kernel(EXACT)
def _begin_anew(waiting, state):
    """Move MIDDLE ahead of H, with nothing summed, and note what was missed until now."""
    noinline()
    for f in range(waiting.shape[0]):
        l2 = waiting[f, L2]
        exponent = l2 * (waiting[f, SINCE] - state[MIDDLE])
        if l2 > 0.0 and exponent > FORGOTTEN:
            x, summed = l2 * state[HALF], state[SUMS + TERMS - 1]
            for k in range(2, TERMS + 1):
                summed = summed * x + state[SUMS + TERMS - k]
            waiting[f, MISSED] += math.exp(exponent) * summed
    state[MIDDLE] = state[H] + state[HALF]
    for k in range(TERMS):
        state[SUMS + k] = 0.0


@kernel(EXACT)
def count_waiting(waiting, state):
    """Let the step that brought H to where it is count in the sums."""
    if state[HALF] <= 0.0:
        return
    if state[H] > state[MIDDLE] + state[HALF]:
        _begin_anew(waiting, state)
    less, term = (state[MIDDLE] - state[H]) / state[HALF], 1.0
    for k in range(TERMS):
        state[LAST + k] = term
        state[SUMS + k] += term
        term *= less * (1.0 / (k + 1.0))  # a division that nothing waits for


@kernel(EXACT)
def _note_missed(waiting, state, f, lost, summed):
    """Return how many steps too many a feature's weights counted for; begin anew with them."""
    if state[HALF] <= 0.0:
        return 0.0
    missed = state[SIGMA] - (1.0 - lost) * summed - waiting[f, MISSED]
    waiting[f, MISSED] = state[SIGMA] - summed
    return missed


@kernel(EXACT)
def _decay(V, U, f, lost, sigma, missed):
    """Multiply the weights of a feature by 1 - lost.

    U, where it is not None: plus sigma times what that changed, and `missed` times what was there.
    """
    if V.shape[1] == 1:
        if U is not None:
            U[f, 0] += missed * V[f, 0]
        add_number(V, U, f, -V.dtype.type(lost) * V[f, 0], sigma)
        return
    share, times, late = splat(V, V.dtype.type(1.0 - lost)), splat(V, sigma), splat(V, missed)
    for k in range(0, V.shape[1], lanes(V)):
        old = load(V, f, k)
        new = share * old
        store(V, f, k, new)
        if U is not None:
            store(U, f, k, fma(late, old, fma(times, new - old, load(U, f, k))))


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
def catch_up(V, U, waiting, lists, slot, state):
    """Let what is due of penalties act on the weights of a listed row's features.

    Where that would be rounding it waits on: a frequent feature would lose by each of them.
    """
    noinline()
    _note_due(U, waiting, lists, slot, state)
    sigma, little = V.dtype.type(state[SIGMA]), 4.0 * np.finfo(V.dtype).eps
    due = lists.due
    for j in range(lists.count[slot]):
        f = lists.index[slot, j]
        l2, l1, lost = waiting[f, L2], waiting[f, L1], due[LOST, j]
        if due[DUE, j] > SHORT:
            lost = -math.expm1(-due[DUE, j])
        if l1 > 0.0:
            behind = lost / l2 if l2 > 0 else due[BEHIND, j]
            _soften(V, U, f, V.dtype.type(1.0 - lost), V.dtype.type(l1 * behind), sigma)
        elif lost < little:
            continue
        else:
            missed = 0.0
            if U is not None:
                missed = _note_missed(waiting, state, f, lost, due[SUMMED, j])
            _decay(V, U, f, lost, sigma, V.dtype.type(missed))
        waiting[f, SINCE] = state[H] if l2 > 0 else state[P]
