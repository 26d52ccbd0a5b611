"""The only place that computes second derivatives of the loss: matrices of features.

The Hessian's block of classes k and l is the sum over rows of w p_k ([k = l] - p_l) x x', with a
last feature of 1 for the bias. It preconditions the full-gradient solver, so a sample of rows is
enough.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.compile import EXACT, FAST, kernel
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.prefetch import lines_at_hand
from fastsoftmax.kernels.products import all_margins, class_tiles, tile_start, update_classes
from fastsoftmax.kernels.recurrence import plain_logits, residual
from fastsoftmax.kernels.sizes import WIDE
from fastsoftmax.kernels.vectors import address_of, lanes, load, noinline, splat, store
from fastsoftmax.kernels.workspace import aligned, row_length

# Scratch of one worker: rows X, scaled rows E (B, width), and lines of no use but their address.
ProductScratch = namedtuple("ProductScratch", "X E lines")
PRODUCT_ROWS = 96  # rows whose products are added at once: two blocks of them stay in the cache


def new_products(d: int, dtype: np.dtype) -> ProductScratch:
    """Return scratch for products of rows of d features and a 1 with themselves."""
    shape = (PRODUCT_ROWS, row_length(d + 1, dtype))
    return ProductScratch(aligned(shape, dtype), aligned(shape, dtype), lines_at_hand(1, 1))


@kernel(EXACT)
def gather_ones(X, count, rows, first, d):
    """Gather rows and a last feature of 1."""
    finite = gather(X, np.int64(0), count, rows.order, first, rows.table)
    for t in range(count):
        X[t, d] = X.dtype.type(1)
    return finite


@kernel(EXACT, entry=True)
def class_probabilities(P, weights, block, rows, first, stop, d):
    """Set P[t, k] = p_k for the rows first : stop; column d of W is the bias."""
    W, b, X, R, Z = weights.W, weights.b, block.X[0], block.R, block.Z
    B, K = Z.shape[0], W.shape[0]
    at_hand = address_of(block.lines, 0, 0)
    one = R.dtype.type(1)
    while first < stop:
        count = min(B, stop - first)
        gather_ones(X, count, rows, first, d)
        all_margins(Z, X, W, count, at_hand)
        for t in range(count):
            plain_logits(R, Z, b, t)
            y = rows.y[first + t]
            # A step of 1 leaves onehot(y) - p in R: the probabilities follow from it.
            residual(R, b, t, y, one, 0.0)
            for k in range(K):
                P[first + t, k] = -R[t, k] if k != y else one - R[t, k]
        first += count


@kernel(EXACT)
def _scale_rows(E, X, C, k, first, count):
    """Set E[t] = C[first + t, k] X[t]."""
    noinline()
    for t in range(count):
        share = splat(X, C[first + t, k])
        for j in range(0, X.shape[1], lanes(X)):
            store(E, t, j, share * load(X, t, j))


@kernel(EXACT)
def _scale_rows_of_pair(E, X, P, k, l, rows, first, count):  # noqa: E741 - the index of a class
    """Set E[t] = w p_k ([k = l] - p_l) X[t]."""
    noinline()
    one, zero = X.dtype.type(1), X.dtype.type(0)
    for t in range(count):
        p, q = P[first + t, k], P[first + t, l]
        share = X.dtype.type(rows.weight[first + t]) * (p * ((one if k == l else zero) - q))
        scale = splat(X, share)
        for j in range(0, X.shape[1], lanes(X)):
            store(E, t, j, scale * load(X, t, j))


@kernel(EXACT)
def _add_block(H, E, X, count, D, at_hand):
    """Add E' X over the rows of a block to the lower triangle of H (D, width), in whole tiles."""
    noinline()
    one, start = H.dtype.type(1), np.int64(0)
    for tile in range(class_tiles(D)):
        i = tile_start(D, tile)
        size = tile_start(D, tile + 1) - i
        across = WIDE * lanes(H)
        stop = min(X.shape[1], (i + size + across - 1) // across * across)
        update_classes(H, None, i, size, start, stop, one, E, X, count, at_hand, at_hand)


@kernel(EXACT, entry=True)
def add_products(H, C, k, scratch, rows, d):
    """Add to the lower triangle of H (d + 1, width) the sum over all rows of C[t, k] x x'."""
    X, E = scratch.X, scratch.E
    n, B = rows.order.shape[0], X.shape[0]
    at_hand = address_of(scratch.lines, 0, 0)
    for first in range(0, n, B):
        count = min(B, n - first)
        gather_ones(X, count, rows, first, d)
        _scale_rows(E, X, C, k, first, count)
        _add_block(H, E, X, count, d + 1, at_hand)


@kernel(EXACT, entry=True)
def add_pair_products(H, P, scratch, rows, d, first_pair, stop_pair):
    """Add to H[i] the lower triangle of the sum over all rows of w p_k ([k = l] - p_l) x x'.

    Pair first_pair + i is number k (k + 1) / 2 + l, l <= k, up to stop_pair. H (pairs, d + 1,
    width), P (n, K): the probabilities.
    """
    X, E = scratch.X, scratch.E
    n, B, K = rows.order.shape[0], X.shape[0], P.shape[1]
    at_hand = address_of(scratch.lines, 0, 0)
    for first in range(0, n, B):
        count = min(B, n - first)
        gather_ones(X, count, rows, first, d)
        pair = 0
        for k in range(K):
            for l in range(k + 1):  # noqa: E741
                if first_pair <= pair < stop_pair:
                    _scale_rows_of_pair(E, X, P, k, l, rows, first, count)
                    _add_block(H[pair - first_pair], E, X, count, d + 1, at_hand)
                pair += 1


@kernel(FAST, entry=True)
def add_squares(D, C, scratch, rows, d):
    """Add to D (K, d + 1) float64 the sum over all rows of C[t, k] x_j^2."""
    X, n = scratch.X, rows.order.shape[0]
    B = X.shape[0]
    for first in range(0, n, B):
        count = min(B, n - first)
        gather_ones(X, count, rows, first, d)
        for t in range(count):
            for k in range(D.shape[0]):
                c = C[first + t, k]
                for j in range(d + 1):
                    D[k, j] += c * X[t, j] * X[t, j]
