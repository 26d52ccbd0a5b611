"""The only place for penalties that wait: they act on a feature's weights when it is met again."""

from __future__ import annotations

import math

import numpy as np

from fastsoftmax.kernels.by_feature import L1, L2, SIGMA, SINCE, H, P
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.list_products import add_number
from fastsoftmax.kernels.vectors import fma, lanes, load, noinline, splat, store

# Below it ten terms of the series of an exponential are exact to 3e-14.
SHORT = 0.25


@kernel(EXACT)
def _lost(due):
    """Return 1 - exp(-due), due >= 0."""
    if due > SHORT:
        return -math.expm1(-due)  # 18 ns, which most features' penalties need not wait for
    rest = 1.0 - due * (1.0 / 10.0)
    rest = 1.0 - due * (1.0 / 9.0) * rest
    rest = 1.0 - due * (1.0 / 8.0) * rest
    rest = 1.0 - due * (1.0 / 7.0) * rest
    rest = 1.0 - due * (1.0 / 6.0) * rest
    rest = 1.0 - due * (1.0 / 5.0) * rest
    rest = 1.0 - due * (1.0 / 4.0) * rest
    rest = 1.0 - due * (1.0 / 3.0) * rest
    rest = 1.0 - due * (1.0 / 2.0) * rest
    return due * rest


@kernel(EXACT)
def _decay(V, U, f, lost, sigma):
    """Multiply the weights of a feature by 1 - lost; U: see `add_vector`."""
    if V.shape[1] == 1:
        add_number(V, U, f, -V.dtype.type(lost) * V[f, 0], sigma)
        return
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
def catch_up(V, U, waiting, lists, slot, state):
    """Let what is due of penalties act on the weights of a listed row's features.

    Where that would be rounding it waits on: a frequent feature would lose by each of them.
    """
    noinline()
    sigma, little = V.dtype.type(state[SIGMA]), 4.0 * np.finfo(V.dtype).eps
    for j in range(lists.count[slot]):
        f = lists.index[slot, j]
        l2, l1 = waiting[f, L2], waiting[f, L1]
        now = state[H] if l2 > 0 else state[P]
        behind = now - waiting[f, SINCE]
        lost = _lost(l2 * behind)
        if l1 > 0.0:
            if l2 > 0:
                behind = lost / l2
            _soften(V, U, f, V.dtype.type(1.0 - lost), V.dtype.type(l1 * behind), sigma)
        elif lost < little:
            continue
        else:
            _decay(V, U, f, lost, sigma)
        waiting[f, SINCE] = now
