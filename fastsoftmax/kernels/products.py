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
    SQUARE,
    WIDE,
    WIDE_AVERAGED,
    WIDE_COUPLED,
    copying_tile,
    dot_tile,
    triangle_tile,
    update_tile,
)
from fastsoftmax.kernels.vectors import address_of, apart, lanes

# A panel of 4 + 5 rows of this many floats stays in the first-level cache.
PANEL = 1024

_dots_1, _dots_2, _dots_3, _dots_4, _dots_5 = (dot_tile(ROW_TILE, c) for c in range(1, 6))
_triangle, _copying = triangle_tile(), copying_tile()
_wide_1, _wide_2, _wide_3, _wide_4, _wide_5 = (update_tile(c, WIDE) for c in range(1, 6))
_slim_1, _slim_2, _slim_3, _slim_4, _slim_5 = (update_tile(c, 1) for c in range(1, 6))
_pair_1, _pair_2, _pair_3 = (update_tile(c, WIDE_AVERAGED) for c in range(1, 4))
_square = dot_tile(ROW_TILE, SQUARE)
_coupled = update_tile(ROW_TILE, WIDE_COUPLED)
_coupled_slim = update_tile(ROW_TILE, 1)


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
    if CLASS_TILE >= 5 and size == 5:
        cursor = _dots_5(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    elif CLASS_TILE >= 4 and size == 4:
        cursor = _dots_4(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    elif size == 3:
        cursor = _dots_3(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    elif size == 2:
        cursor = _dots_2(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    else:
        cursor = _dots_1(Z, t, k, A, ta, B, kb, start, stop, cursor, last)
    return cursor


@kernel()
def _wide(size, W, S, k, j, keep, E, e, X, count, cursor, last):
    if CLASS_TILE >= 5 and size == 5:
        cursor = _wide_5(W, S, k, j, keep, E, e, X, count, cursor, last)
    elif CLASS_TILE >= 4 and size == 4:
        cursor = _wide_4(W, S, k, j, keep, E, e, X, count, cursor, last)
    elif size == 3:
        cursor = _wide_3(W, S, k, j, keep, E, e, X, count, cursor, last)
    elif size == 2:
        cursor = _wide_2(W, S, k, j, keep, E, e, X, count, cursor, last)
    else:
        cursor = _wide_1(W, S, k, j, keep, E, e, X, count, cursor, last)
    return cursor


@kernel()
def _slim(size, W, S, k, j, keep, E, e, X, count, cursor, last):
    if CLASS_TILE >= 5 and size == 5:
        cursor = _slim_5(W, S, k, j, keep, E, e, X, count, cursor, last)
    elif CLASS_TILE >= 4 and size == 4:
        cursor = _slim_4(W, S, k, j, keep, E, e, X, count, cursor, last)
    elif size == 3:
        cursor = _slim_3(W, S, k, j, keep, E, e, X, count, cursor, last)
    elif size == 2:
        cursor = _slim_2(W, S, k, j, keep, E, e, X, count, cursor, last)
    else:
        cursor = _slim_1(W, S, k, j, keep, E, e, X, count, cursor, last)
    return cursor


@kernel()
def _pair(size, W, S, k, j, keep, E, e, X, count, cursor, last):
    if size == 3:
        cursor = _pair_3(W, S, k, j, keep, E, e, X, count, cursor, last)
    elif size == 2:
        cursor = _pair_2(W, S, k, j, keep, E, e, X, count, cursor, last)
    else:
        cursor = _pair_1(W, S, k, j, keep, E, e, X, count, cursor, last)
    return cursor


@kernel()
def _squares(G, r, t, X, start, stop, cursor, last):
    """Set G[r : r + ROW_TILE, t : t + ROW_TILE] to products of rows of X."""
    for c in range(t, t + ROW_TILE, SQUARE):
        cursor = _square(G, r, c, X, r, X, c, start, stop, cursor, last)
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
def all_margins(Z, X, W, count, at_hand):
    """Set Z = X W^T for all classes, asking for no rows ahead."""
    for tile in range(class_tiles(W.shape[0])):
        k = tile_start(W.shape[0], tile)
        margins(Z, X, W, k, tile_start(W.shape[0], tile + 1) - k, count, at_hand, at_hand)


@kernel()
def copy_gram(G, X, at, start, stop):
    """Copy rows that begin in memory at `at` (B, 1) to X, and set the upper triangle of X X^T.

    Both over the features start : stop.
    """
    apart()
    B = X.shape[0]
    here = address_of(at, 0, 0)
    for s in range(0, B, GRAM_TILE):
        _copying(G, X, at, s, start, stop)
    if B > GRAM_TILE:
        for s in range(B):
            for t in range(s + GRAM_TILE - s % GRAM_TILE, B):
                G[s, t] = 0
        for s in range(0, B, GRAM_TILE):
            for t in range(s + GRAM_TILE, B, ROW_TILE):
                for r in range(s, s + GRAM_TILE, ROW_TILE):
                    _squares(G, r, t, X, start, stop, here, here)


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
                cursor = _squares(G, r, t, X, start, stop, cursor, last)
    return cursor


@kernel()
def couple(Z, t, G, R, last):
    """Add sum over s < t of G[s, t + r] R[s] to Z[t + r], r < ROW_TILE: the earlier rows' steps."""
    apart()
    step = lanes(Z)
    width = R.shape[1]
    one = Z.dtype.type(1)
    wide = width - width % (WIDE_COUPLED * step)
    for k in range(0, wide, WIDE_COUPLED * step):
        _coupled(Z, None, t, k, one, G, t, R, t, last, last)
    for k in range(wide, width, step):
        _coupled_slim(Z, None, t, k, one, G, t, R, t, last, last)


@kernel()
def update(W, S, k, size, start, stop, keep, E, X, count, cursor, last):
    """Set W[k : k + size] = keep W + E[:count, k : k + size]^T X[:count], features start : stop.

    Add to S, where it is not None, what W is after each of the rows.
    """
    apart()
    step = lanes(W)
    j = start
    if S is None:
        while j + WIDE * step <= stop:
            cursor = _wide(size, W, S, k, j, keep, E, k, X, count, cursor, last)
            j += WIDE * step
    # With S, of 32 registers, a single vector across is fastest: 1.27 times the time without, two
    # side by side 1.33, three 1.8, and a product with coefficients of its own 1.5. Of 16 it is two.
    if WIDE_AVERAGED > 1:
        while j + WIDE_AVERAGED * step <= stop:
            cursor = _pair(size, W, S, k, j, keep, E, k, X, count, cursor, last)
            j += WIDE_AVERAGED * step
    while j < stop:
        cursor = _slim(size, W, S, k, j, keep, E, k, X, count, cursor, last)
        j += step
    return cursor
