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
def _outer_rows(E, X, P, x, rows, first, count, D):
    """Set X[t, k D + j] = p_k x_j for D features j, and E[t] = -w X[t]."""
    noinline()
    K = P.shape[1]
    for t in range(count):
        weight = -X.dtype.type(rows.weight[first + t])
        for k in range(K):
            p, at = P[first + t, k], k * D
            for j in range(D):
                value = p * x[t, j]
                X[t, at + j] = value
                E[t, at + j] = weight * value


@kernel(EXACT)
def _scale_rows_of_class(E, X, P, k, rows, first, count):
    """Set E[t] = w p_k (1 - p_k) X[t]."""
    noinline()
    one = X.dtype.type(1)
    for t in range(count):
        p = P[first + t, k]
        scale = splat(X, X.dtype.type(rows.weight[first + t]) * (p * (one - p)))
        for j in range(0, X.shape[1], lanes(X)):
            store(E, t, j, scale * load(X, t, j))


@kernel(EXACT)
def _add_tiles(H, E, X, count, first_tile, stop_tile, at_hand):
    """Add E' X over the rows of a block to tiles of rows of the lower triangle of H (D, width)."""
    noinline()
    D, one, start = H.shape[0], H.dtype.type(1), np.int64(0)
    for tile in range(first_tile, stop_tile):
        i = tile_start(D, tile)
        size = tile_start(D, tile + 1) - i
        across = WIDE * lanes(H)
        stop = min(X.shape[1], (i + size + across - 1) // across * across)
        update_classes(H, None, i, size, start, stop, one, E, X, count, at_hand, at_hand)


@kernel(EXACT)
def _shares(H, worker, workers):
    """Return the tiles of rows first : stop whose lower triangle is a worker's share of H."""
    tiles = class_tiles(H.shape[0])
    first = np.int64(np.sqrt(worker / workers) * tiles)
    return first, np.int64(np.sqrt((worker + 1) / workers) * tiles)


@kernel(EXACT, entry=True)
def add_products(H, C, k, scratch, rows, d, worker, workers):
    """Add to the lower triangle of H (d + 1, width) the sum over all rows of C[t, k] x x'.

    Each worker adds rows of H of its own.
    """
    X, E = scratch.X, scratch.E
    n, B = rows.order.shape[0], X.shape[0]
    at_hand = address_of(scratch.lines, 0, 0)
    first_tile, stop_tile = _shares(H, worker, workers)
    for first in range(0, n, B):
        count = min(B, n - first)
        gather_ones(X, count, rows, first, d)
        _scale_rows(E, X, C, k, first, count)
        _add_tiles(H, E, X, count, first_tile, stop_tile, at_hand)


@kernel(EXACT, entry=True)
def add_all_products(H, blocks, P, scratch, pairs, rows, d, worker, workers):
    """Add sums over all rows to lower triangles: -w p_k p_l x x' to H (K (d + 1), width), and
    w p_k (1 - p_k) x x' to blocks[k] (d + 1, width).

    The whole Hessian is H, but for the blocks of a class with itself: where a class is nearly sure,
    the difference of two sums would be rounding. Each worker adds rows of H and blocks of its own.
    pairs: scratch as of rows of K (d + 1) - 1 features. P (n, K): the probabilities.
    """
    x, e = scratch.X, scratch.E
    n, B, K = rows.order.shape[0], x.shape[0], P.shape[1]
    at_hand = address_of(scratch.lines, 0, 0)
    first_tile, stop_tile = _shares(H, worker, workers)
    for first in range(0, n, B):
        count = min(B, n - first)
        gather_ones(x, count, rows, first, d)
        for k in range(worker, K, workers):
            _scale_rows_of_class(e, x, P, k, rows, first, count)
            _add_tiles(blocks[k], e, x, count, 0, class_tiles(d + 1), at_hand)
        _outer_rows(pairs.E, pairs.X, P, x, rows, first, count, d + 1)
        _add_tiles(H, pairs.E, pairs.X, count, first_tile, stop_tile, at_hand)


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
