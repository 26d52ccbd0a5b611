"""margins, gram, update: the matrix products of a block, cut into register tiles.

Tiles are cut from (K, d) alone and every number is computed by the same instructions whoever
computes it, so work may be split between threads at tile borders without a change of bits.
"""

from __future__ import annotations

from fastsoftmax.kernels.compile import kernel
from fastsoftmax.kernels.tiles import (
    CLASS_TILE,
    GRAM_TILE,
    ROW_TILE,
    WIDE,
    dot_tile,
    triangle_tile,
    update_tile,
)
from fastsoftmax.kernels.vectors import apart, lanes

# A panel of 4 + 5 rows of this many floats stays in the first-level cache.
PANEL = 1024

_dots_1, _dots_2, _dots_3, _dots_4, _dots_5 = (dot_tile(ROW_TILE, c) for c in range(1, 6))
_triangle = triangle_tile()
_wide_1, _wide_2, _wide_3, _wide_4, _wide_5 = (update_tile(c, WIDE) for c in range(1, 6))
_slim_1, _slim_2, _slim_3, _slim_4, _slim_5 = (update_tile(c, 1) for c in range(1, 6))


@kernel()
def class_tiles(K):
    """Return how many tiles K classes are cut into."""
    return (K + CLASS_TILE - 1) // CLASS_TILE


@kernel()
def tile_start(K, tile):
    """Return the first class of a tile; tiles differ by one class at most."""
    tiles = class_tiles(K)
    return tile * (K // tiles) + min(tile, K % tiles)


@kernel()
def _dots(size, Z, t, k, A, ta, B, kb, start, stop, cursor, last):
    if size == 5:
        cursor = _dots_5(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    elif size == 4:
        cursor = _dots_4(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    elif size == 3:
        cursor = _dots_3(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    elif size == 2:
        cursor = _dots_2(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    else:
        cursor = _dots_1(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    return cursor


@kernel()
def _wide(size, W, k, j, keep, E, e, X, count, cursor, last):
    if size == 5:
        cursor = _wide_5(W, k, j, keep, E, e, X, count, cursor, last)
    elif size == 4:
        cursor = _wide_4(W, k, j, keep, E, e, X, count, cursor, last)
    elif size == 3:
        cursor = _wide_3(W, k, j, keep, E, e, X, count, cursor, last)
    elif size == 2:
        cursor = _wide_2(W, k, j, keep, E, e, X, count, cursor, last)
    else:
        cursor = _wide_1(W, k, j, keep, E, e, X, count, cursor, last)
    return cursor


@kernel()
def _slim(size, W, k, j, keep, E, e, X, count, cursor, last):
    if size == 5:
        cursor = _slim_5(W, k, j, keep, E, e, X, count, cursor, last)
    elif size == 4:
        cursor = _slim_4(W, k, j, keep, E, e, X, count, cursor, last)
    elif size == 3:
        cursor = _slim_3(W, k, j, keep, E, e, X, count, cursor, last)
    elif size == 2:
        cursor = _slim_2(W, k, j, keep, E, e, X, count, cursor, last)
    else:
        cursor = _slim_1(W, k, j, keep, E, e, X, count, cursor, last)
    return cursor


@kernel()
def margins(Z, X, W, k, size, count, cursor, last):
    """Set Z[:, k : k + size] = X W[k : k + size]^T, over the row tiles of `count` rows."""
    apart()
    d = X.shape[1]
    for start in range(0, d, PANEL):
        stop = min(start + PANEL, d)
        for t in range(0, count, ROW_TILE):
            cursor = _dots(size, Z, t, k, X, t, W, k, start, stop, cursor, last)
    return cursor


@kernel()
def gram(G, X, s, count, cursor, last):
    """Set rows s : s + GRAM_TILE of the upper triangle of G = X X^T, up to column `count`."""
    apart()
    d = X.shape[1]
    for start in range(0, d, PANEL):
        stop = min(start + PANEL, d)
        cursor = _triangle(G, s, X, start, stop, cursor, last)
        for t in range(s + GRAM_TILE, count, ROW_TILE):
            for r in range(s, s + GRAM_TILE, ROW_TILE):
                cursor = _dots_4(G, r, t, X, r, X, t, start, stop, cursor, last)
    return cursor


@kernel()
def couple(Z, t, G, R, last):
    """Add sum over s < t of G[s, t + r] R[s] to Z[t + r], r < ROW_TILE: the earlier rows' steps."""
    apart()
    step = lanes(Z)
    width = R.shape[1]
    one = Z.dtype.type(1)
    wide = width - width % (WIDE * step)
    for k in range(0, wide, WIDE * step):
        _wide_4(Z, t, k, one, G, t, R, t, last, last)
    for k in range(wide, width, step):
        _slim_4(Z, t, k, one, G, t, R, t, last, last)


@kernel()
def update(W, k, size, keep, E, e, X, count, cursor, last):
    """Set W[k : k + size] = keep W + E[:count, e : e + size]^T X[:count]."""
    apart()
    step = lanes(W)
    d = W.shape[1]
    wide = d - d % (WIDE * step)
    for j in range(0, wide, WIDE * step):
        cursor = _wide(size, W, k, j, keep, E, e, X, count, cursor, last)
    for j in range(wide, d, step):
        cursor = _slim(size, W, k, j, keep, E, e, X, count, cursor, last)
    return cursor
