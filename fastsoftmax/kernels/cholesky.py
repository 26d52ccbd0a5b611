"""The only place that factors matrices: Cholesky, and the solution of linear systems with it.

Plain loops, so that the bits are the same for any number of threads, which a linked library does
not promise.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.compile import FAST, kernel

PANEL = 32  # columns that are finished together
SMALLEST = 1e-13  # of the largest pivot: below it a direction is taken to have no curvature


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
        for i in range(start, n):
            last = min(stop, i + 1)
            whole = start + (last - start) // 4 * 4
            for j in range(start, whole, 4):
                first, second, third, fourth = _dots(A, i, j, start)
                A[i, j] -= first
                A[i, j + 1] -= second
                A[i, j + 2] -= third
                A[i, j + 3] -= fourth
            for j in range(whole, last):
                A[i, j] -= _dot(A, i, j, np.int64(0), start)
        for i in range(start, n):
            for j in range(start, min(stop, i)):
                A[i, j] = (A[i, j] - _dot(A, i, j, start, j)) / A[j, j]
            if i < stop:
                pivot = A[i, i] - _dot(A, i, i, start, i)
                A[i, i] = np.sqrt(pivot) if pivot > SMALLEST * highest else 1e9 * np.sqrt(highest)
    for i in range(n):
        for j in range(i + 1):
            H[i, j] = A[i, j]


@kernel(FAST, entry=True)
def solve(L, v):
    """Replace v (n,) float64 by the solution of L L' x = v, L lower triangular (n, at least n)."""
    n = v.shape[0]
    for i in range(n):
        known = 0.0
        for j in range(i):
            known += np.float64(L[i, j]) * v[j]
        v[i] = (v[i] - known) / np.float64(L[i, i])
    for i in range(n - 1, -1, -1):
        x = v[i] / np.float64(L[i, i])
        v[i] = x
        for j in range(i):
            v[j] -= np.float64(L[i, j]) * x
