"""The only place that factors matrices: Cholesky, and the solution of linear systems with it.

Plain loops, so that the bits are the same for any number of threads, which a linked library does
not promise.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.compile import FAST, kernel

PANEL = 16  # columns that are finished together
SMALLEST = 1e-13  # of the largest pivot: below it a direction is taken to have no curvature


@kernel(FAST)
def _pair_dots(A, i, j, stop):
    """Return the dot products of rows i and i + 1, up to `stop`, with rows j to j + 3."""
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0.0
    for c in range(stop):
        a, b = A[i, c], A[i + 1, c]
        a0 += a * A[j, c]
        a1 += a * A[j + 1, c]
        a2 += a * A[j + 2, c]
        a3 += a * A[j + 3, c]
        b0 += b * A[j, c]
        b1 += b * A[j + 1, c]
        b2 += b * A[j + 2, c]
        b3 += b * A[j + 3, c]
    return a0, a1, a2, a3, b0, b1, b2, b3


@kernel(FAST)
def _dots(A, i, j, stop):
    """Return the dot products of A[i, :stop] with rows j to j + 3."""
    first = second = third = fourth = 0.0
    for c in range(stop):
        a = A[i, c]
        first += a * A[j, c]
        second += a * A[j + 1, c]
        third += a * A[j + 2, c]
        fourth += a * A[j + 3, c]
    return first, second, third, fourth


@kernel(FAST)
def _dot(A, i, j, start, stop):
    product = 0.0
    for c in range(start, stop):
        product += A[i, c] * A[j, c]
    return product


@kernel(FAST)
def _take_off_one(A, i, start, last):
    """Take off A[i, start:last] the products of row i with those rows, up to `start`."""
    whole = start + (last - start) // 4 * 4
    for j in range(start, whole, 4):
        first, second, third, fourth = _dots(A, i, j, start)
        A[i, j] -= first
        A[i, j + 1] -= second
        A[i, j + 2] -= third
        A[i, j + 3] -= fourth
    for j in range(whole, last):
        A[i, j] -= _dot(A, i, j, np.int64(0), start)


@kernel(FAST)
def _take_off_two(A, i, start, stop):
    """Do as `_take_off_one` for rows i and i + 1; columns are whole fours."""
    for j in range(start, stop, 4):
        a0, a1, a2, a3, b0, b1, b2, b3 = _pair_dots(A, i, j, start)
        A[i, j] -= a0
        A[i, j + 1] -= a1
        A[i, j + 2] -= a2
        A[i, j + 3] -= a3
        A[i + 1, j] -= b0
        A[i + 1, j + 1] -= b1
        A[i + 1, j + 2] -= b2
        A[i + 1, j + 3] -= b3


@kernel(FAST, entry=True)
def factor(H, A, added):
    """Replace the lower triangle of H (n, at least n) by its Cholesky factor, `added` (n,) float64
    on its diagonal.

    A (n, n) float64 is scratch. A direction of next to no curvature is left alone: its pivot is
    made huge.
    """
    n = A.shape[0]
    highest = 0.0
    for i in range(n):
        for j in range(i + 1):
            A[i, j] = np.float64(H[i, j])
        A[i, i] += added[i]
        highest = max(highest, A[i, i])
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        # Below the panel's own rows by twos: with one row most of the time goes to loads.
        for i in range(start, stop):
            _take_off_one(A, i, start, i + 1)
        for i in range(stop, n - 1, 2):
            _take_off_two(A, i, start, stop)
        if (n - stop) % 2:
            _take_off_one(A, n - 1, start, stop)
        for i in range(start, n):
            for j in range(start, min(stop, i)):
                A[i, j] = (A[i, j] - _dot(A, i, j, start, j)) / A[j, j]
            if i < stop:
                pivot = A[i, i] - _dot(A, i, i, start, i)
                A[i, i] = np.sqrt(pivot) if pivot > SMALLEST * highest else 1e9 * np.sqrt(highest)
    for i in range(n):
        for j in range(i + 1):
            H[i, j] = A[i, j]


@kernel(FAST)
def _solve_few(L, v, start, stop):
    """Solve rows start : stop of L x = v, what earlier rows add being taken off."""
    for i in range(start, stop):
        known = 0.0
        for j in range(start, i):
            known += np.float64(L[i, j]) * v[j]
        v[i] = (v[i] - known) / np.float64(L[i, i])


@kernel(FAST)
def _solve_few_back(L, v, start, stop):
    """Solve rows start : stop of L' x = v, what later rows add being taken off."""
    for i in range(stop - 1, start - 1, -1):
        x = v[i] / np.float64(L[i, i])
        v[i] = x
        for j in range(start, i):
            v[j] -= np.float64(L[i, j]) * x


@kernel(FAST)
def _take_off_known(L, v, w, i):
    """Take off what rows before i add to those of both, i to i + 3, of L x = v."""
    v0 = v1 = v2 = v3 = w0 = w1 = w2 = w3 = 0.0
    for j in range(i):
        x, y = v[j], w[j]
        a, b = np.float64(L[i, j]), np.float64(L[i + 1, j])
        c, d = np.float64(L[i + 2, j]), np.float64(L[i + 3, j])
        v0 += a * x
        v1 += b * x
        v2 += c * x
        v3 += d * x
        w0 += a * y
        w1 += b * y
        w2 += c * y
        w3 += d * y
    v[i] -= v0
    v[i + 1] -= v1
    v[i + 2] -= v2
    v[i + 3] -= v3
    w[i] -= w0
    w[i + 1] -= w1
    w[i + 2] -= w2
    w[i + 3] -= w3


@kernel(FAST)
def _take_off_known_back(L, v, w, i):
    """Take off what rows i to i + 3 add to those before, of L' x = v."""
    v0, v1, v2, v3 = v[i], v[i + 1], v[i + 2], v[i + 3]
    w0, w1, w2, w3 = w[i], w[i + 1], w[i + 2], w[i + 3]
    for j in range(i):
        a, b = np.float64(L[i, j]), np.float64(L[i + 1, j])
        c, d = np.float64(L[i + 2, j]), np.float64(L[i + 3, j])
        v[j] -= a * v0 + b * v1 + (c * v2 + d * v3)
        w[j] -= a * w0 + b * w1 + (c * w2 + d * w3)


@kernel(FAST, entry=True)
def solve(L, v, w):
    """Replace v and w (n,) float64 by the solutions of L L' x = v and w.

    L (n, at least n) is lower triangular. Of 785 rows two vectors at once take 1.3 times as long as
    one, and rows by fours 0.7 of the time of one by one: numbers of L are widened, which costs as
    much as the products, and sums of a row wait for each other.
    """
    n = v.shape[0]
    odd = n % 4
    for x in (v, w):
        _solve_few(L, x, np.int64(0), odd)
    for i in range(odd, n, 4):
        _take_off_known(L, v, w, i)
        for x in (v, w):
            _solve_few(L, x, i, i + 4)
    for i in range(n - 4, odd - 1, -4):
        for x in (v, w):
            _solve_few_back(L, x, i, i + 4)
        _take_off_known_back(L, v, w, i)
    for x in (v, w):
        _solve_few_back(L, x, np.int64(0), odd)
