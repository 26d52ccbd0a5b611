"""The only place that multiplies listed rows with the weights of their features: logits, and steps.

The K weights of a feature lie together in V (d, width): a number of a row meets one run of memory.
Of two classes that mirror each other V (d, 1) has the first one's weights, for the other's are what
they are with another sign.
"""

from __future__ import annotations

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.vectors import fma, lanes, load, noinline, one_hot, splat, store


@kernel(EXACT)
def _margins_1(R, t, V, b, lists, slot, scale, k):
    """Set a vector of logits: four sums, for one would wait for itself."""
    zero = splat(V, V.dtype.type(0))
    a0, a1, a2, a3 = zero, zero, zero, zero
    index, value, count = lists.index, lists.value, lists.count[slot]
    whole = count - count % 4
    for j in range(0, whole, 4):
        a0 = fma(splat(V, value[slot, j]), load(V, index[slot, j], k), a0)
        a1 = fma(splat(V, value[slot, j + 1]), load(V, index[slot, j + 1], k), a1)
        a2 = fma(splat(V, value[slot, j + 2]), load(V, index[slot, j + 2], k), a2)
        a3 = fma(splat(V, value[slot, j + 3]), load(V, index[slot, j + 3], k), a3)
    for j in range(whole, count):
        a0 = fma(splat(V, value[slot, j]), load(V, index[slot, j], k), a0)
    store(R, t, k, fma(splat(V, scale), (a0 + a1) + (a2 + a3), load(b, 0, k)))


@kernel(EXACT)
def _margins_4(R, t, V, b, lists, slot, scale, k):
    """Set four vectors of logits."""
    L, zero, s = lanes(V), splat(V, V.dtype.type(0)), splat(V, scale)
    a0, a1, a2, a3 = zero, zero, zero, zero
    index, value = lists.index, lists.value
    for j in range(lists.count[slot]):
        f, x = index[slot, j], splat(V, value[slot, j])
        a0 = fma(x, load(V, f, k), a0)
        a1 = fma(x, load(V, f, k + L), a1)
        a2 = fma(x, load(V, f, k + 2 * L), a2)
        a3 = fma(x, load(V, f, k + 3 * L), a3)
    store(R, t, k, fma(s, a0, load(b, 0, k)))
    store(R, t, k + L, fma(s, a1, load(b, 0, k + L)))
    store(R, t, k + 2 * L, fma(s, a2, load(b, 0, k + 2 * L)))
    store(R, t, k + 3 * L, fma(s, a3, load(b, 0, k + 3 * L)))


@kernel(EXACT)
def _margins_8(R, t, V, b, lists, slot, scale, k):
    """Set eight vectors of logits."""
    L, zero, s = lanes(V), splat(V, V.dtype.type(0)), splat(V, scale)
    a0, a1, a2, a3, a4, a5, a6, a7 = zero, zero, zero, zero, zero, zero, zero, zero
    index, value = lists.index, lists.value
    for j in range(lists.count[slot]):
        f, x = index[slot, j], splat(V, value[slot, j])
        a0 = fma(x, load(V, f, k), a0)
        a1 = fma(x, load(V, f, k + L), a1)
        a2 = fma(x, load(V, f, k + 2 * L), a2)
        a3 = fma(x, load(V, f, k + 3 * L), a3)
        a4 = fma(x, load(V, f, k + 4 * L), a4)
        a5 = fma(x, load(V, f, k + 5 * L), a5)
        a6 = fma(x, load(V, f, k + 6 * L), a6)
        a7 = fma(x, load(V, f, k + 7 * L), a7)
    store(R, t, k, fma(s, a0, load(b, 0, k)))
    store(R, t, k + L, fma(s, a1, load(b, 0, k + L)))
    store(R, t, k + 2 * L, fma(s, a2, load(b, 0, k + 2 * L)))
    store(R, t, k + 3 * L, fma(s, a3, load(b, 0, k + 3 * L)))
    store(R, t, k + 4 * L, fma(s, a4, load(b, 0, k + 4 * L)))
    store(R, t, k + 5 * L, fma(s, a5, load(b, 0, k + 5 * L)))
    store(R, t, k + 6 * L, fma(s, a6, load(b, 0, k + 6 * L)))
    store(R, t, k + 7 * L, fma(s, a7, load(b, 0, k + 7 * L)))


@kernel(EXACT)
def _margins_of_two(R, t, V, b, lists, slot, scale):
    """Set the logits of two classes that mirror each other."""
    zero = V.dtype.type(0)
    a0, a1, a2, a3 = zero, zero, zero, zero
    index, value, count = lists.index, lists.value, lists.count[slot]
    whole = count - count % 4
    for j in range(0, whole, 4):
        a0 += value[slot, j] * V[index[slot, j], 0]
        a1 += value[slot, j + 1] * V[index[slot, j + 1], 0]
        a2 += value[slot, j + 2] * V[index[slot, j + 2], 0]
        a3 += value[slot, j + 3] * V[index[slot, j + 3], 0]
    for j in range(whole, count):
        a0 += value[slot, j] * V[index[slot, j], 0]
    margin = scale * ((a0 + a1) + (a2 + a3))
    signs = one_hot(R, 0, 0) - one_hot(R, 0, 1)
    store(R, t, 0, fma(splat(R, margin), signs, load(b, 0, 0)))
    for k in range(lanes(R), R.shape[1], lanes(R)):
        store(R, t, k, load(b, 0, k))


@kernel(EXACT)
def list_logits(R, t, V, b, lists, slot, scale):
    """Set R[t] = scale V' x + b of a listed row; padding logits are those of b, -inf."""
    noinline()
    L, width, k = lanes(V), V.shape[1], 0
    if width == 1:
        _margins_of_two(R, t, V, b, lists, slot, scale)
        return
    while k + 8 * L <= width:
        _margins_8(R, t, V, b, lists, slot, scale, k)
        k += 8 * L
    while k + 4 * L <= width:
        _margins_4(R, t, V, b, lists, slot, scale, k)
        k += 4 * L
    while k < width:
        _margins_1(R, t, V, b, lists, slot, scale, k)
        k += L


@kernel(EXACT)
def add_vector(V, U, f, k, x, r, sigma):
    """Add x r to a vector of V, and sigma times what that changed to U, where that is not None."""
    old = load(V, f, k)
    new = fma(x, r, old)
    store(V, f, k, new)
    if U is not None:
        store(U, f, k, fma(sigma, new - old, load(U, f, k)))


@kernel(EXACT)
def add_number(V, U, f, change, sigma):
    """Do as `add_vector` for the one number of a feature."""
    old = V[f, 0]
    new = old + change
    V[f, 0] = new
    if U is not None:
        U[f, 0] += sigma * (new - old)


@kernel(EXACT)
def _step_of_two(V, U, R, lists, slot, factor, sigma):
    """Do as `list_step` for two classes that mirror each other, and so have opposite residuals."""
    # Of each residual half: the smaller one is the more exact, but which it is would be a branch.
    r = factor * (V.dtype.type(0.5) * (R[0, 0] - R[0, 1]))
    for j in range(lists.count[slot]):
        add_number(V, U, lists.index[slot, j], lists.value[slot, j] * r, sigma)


@kernel(EXACT)
def list_step(V, U, R, lists, slot, factor, sigma):
    """Add factor x_f R[0] to V_f for each number of a listed row; U: see `add_vector`."""
    noinline()
    L, width, k = lanes(V), V.shape[1], 0
    if width == 1:
        _step_of_two(V, U, R, lists, slot, factor, sigma)
        return
    index, value, times = lists.index, lists.value, splat(V, sigma)
    while k + 4 * L <= width:
        r0, r1 = load(R, 0, k), load(R, 0, k + L)
        r2, r3 = load(R, 0, k + 2 * L), load(R, 0, k + 3 * L)
        for j in range(lists.count[slot]):
            f, x = index[slot, j], splat(V, factor * value[slot, j])
            add_vector(V, U, f, k, x, r0, times)
            add_vector(V, U, f, k + L, x, r1, times)
            add_vector(V, U, f, k + 2 * L, x, r2, times)
            add_vector(V, U, f, k + 3 * L, x, r3, times)
        k += 4 * L
    while k < width:
        r0 = load(R, 0, k)
        for j in range(lists.count[slot]):
            f, x = index[slot, j], splat(V, factor * value[slot, j])
            add_vector(V, U, f, k, x, r0, times)
        k += L
