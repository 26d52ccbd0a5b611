"""margins, gram, update: the matrix products of a block, cut into register tiles.

Tiles are cut from (K, d) alone and every number is computed by the same instructions whoever
computes it, so work may be split between threads at tile borders without a change of bits.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.compile import kernel
from fastsoftmax.kernels.sizes import (
    CLASS_TILE,
    GRAM_TILE,
    ROW_TILE,
    SQUARE,
    WIDE,
    WIDE_AVERAGED,
    WIDE_COUPLED,
)
from fastsoftmax.kernels.tiles import copying_tile, dot_tile, triangle_tile, update_tile
from fastsoftmax.kernels.vectors import address_of, lanes, noinline

# A panel of 4 + 5 rows of this many floats stays in the first-level cache.
PANEL = 1024
# Numbers of W that are updated, and then multiplied, before the next ones: more would leave the
# first-level cache in between; with fewer, calls take a good part of the time (128 features, 100
# classes: 0.38 of the peak with a tile at a time, 0.48 with these).
GROUP = 4096


def by_size(make):
    """Return a kernel that calls the tile of as many classes as its first argument says.

    Sizes are constants of the tiles' code, since a tile's sums stay in registers.
    """
    one, two, three, four, five = (make(classes) for classes in range(1, 6))

    @kernel()
    def tile_of(size, *arguments):
        if CLASS_TILE >= 5 and size == 5:
            cursor = five(*arguments)
        elif CLASS_TILE >= 4 and size == 4:
            cursor = four(*arguments)
        elif size == 3:
            cursor = three(*arguments)
        elif size == 2:
            cursor = two(*arguments)
        else:
            cursor = one(*arguments)
        return cursor

    return tile_of


_dots = by_size(lambda classes: dot_tile(ROW_TILE, classes))
_wide = by_size(lambda classes: update_tile(classes, WIDE))
_slim = by_size(lambda classes: update_tile(classes, 1))
_pair = by_size(lambda classes: update_tile(classes, WIDE_AVERAGED))
_triangle, _copying = triangle_tile(), copying_tile()
_square = dot_tile(ROW_TILE, SQUARE)
_coupled = update_tile(ROW_TILE, WIDE_COUPLED)
_coupled_slim = update_tile(ROW_TILE, 1)


@kernel()
def class_tiles(K):
    """Return how many tiles K classes are cut into."""
    return (K + CLASS_TILE - 1) // CLASS_TILE


@kernel()
def group_tiles(d):
    """Return how many class tiles of d features are updated and multiplied in turn."""
    return max(1, GROUP // (CLASS_TILE * d))


@kernel()
def tile_start(K, tile):
    """Return the first class of a tile; tiles differ by one class at most."""
    tiles = class_tiles(K)
    return tile * (K // tiles) + min(tile, K % tiles)


@kernel()
def _squares(G, r, t, X, start, stop, fresh, cursor, last):
    """Set G[r : r + GRAM_TILE, t : t + ROW_TILE] to products of rows of X, or add them."""
    for c in range(t, t + ROW_TILE, SQUARE):
        cursor = _square(G, r, c, X, GRAM_TILE, X, start, stop, fresh, cursor, last)
    return cursor


@kernel()
def margins(Z, X, W, tile, beyond, count, cursor, last):
    """Set Z = X W^T for the tiles tile : beyond of classes and the row tiles of `count` rows."""
    noinline()
    K, d = W.shape
    zero = np.int64(0)
    for i in range(tile, beyond):
        k = tile_start(K, i)
        size = tile_start(K, i + 1) - k
        for start in range(0, d, PANEL):
            stop = min(start + PANEL, d)
            # The first panel sets Z, those after it add: no pass to clear it.
            fresh = np.int64(start == 0)
            cursor = _dots(size, Z, zero, k, X, count, W, start, stop, fresh, cursor, last)
    return cursor


@kernel()
def all_margins(Z, X, W, count, at_hand):
    """Set Z = X W^T for all classes, asking for no rows ahead."""
    margins(Z, X, W, np.int64(0), class_tiles(W.shape[0]), count, at_hand, at_hand)


@kernel()
def copy_gram(G, X, at, start, stop):
    """Copy rows that begin in memory at `at` (B, 1) to a panel X, and set the upper triangle of
    X X^T. Both over the features start : stop.
    """
    noinline()
    B = X.shape[0]
    here, width = address_of(at, 0, 0), stop - start
    for s in range(0, B, GRAM_TILE):
        _copying(G, X, at, s, start, stop)
    # Eight rows are one tile with 32 registers; with 16 squares fill what lies between two.
    if B > GRAM_TILE:
        for s in range(0, B, GRAM_TILE):
            for t in range(s + GRAM_TILE, B, ROW_TILE):
                _squares(G, s, t, X, np.int64(0), width, np.int64(1), here, here)


@kernel()
def gram(G, X, s, count, cursor, last):
    """Set rows s : s + GRAM_TILE of the upper triangle of G = X X^T, up to column `count`."""
    noinline()
    d = X.shape[1]
    for start in range(0, d, PANEL):
        stop = min(start + PANEL, d)
        cursor = _triangle(G, s, X, start, stop, cursor, last)
        for t in range(s + GRAM_TILE, count, ROW_TILE):
            cursor = _squares(G, s, t, X, start, stop, np.int64(start == 0), cursor, last)
    return cursor


@kernel()
def couple(Z, t, keep, G, R, count, last):
    """Set Z[t + r] = keep Z[t + r] + sum over s < count of G[s, t + r] R[s], r < ROW_TILE: the
    steps of earlier rows.
    """
    noinline()
    step = lanes(Z)
    width = R.shape[1]
    wide = width - width % (WIDE_COUPLED * step)
    if wide > 0:
        _coupled(Z, None, t, 0, wide, keep, G, R, count, last, last)
    if wide < width:
        _coupled_slim(Z, None, t, wide, width, keep, G, R, count, last, last)


@kernel()
def cross_gram(C, X, Y, t, last):
    """Set the columns t : t + GRAM_TILE of C = X Y^T, all of whose rows count."""
    noinline()
    d, B = X.shape[1], X.shape[0]
    for start in range(0, d, PANEL):
        stop, fresh = min(start + PANEL, d), np.int64(start == 0)
        for c in range(t, t + GRAM_TILE, SQUARE):
            _square(C, 0, c, X, B, Y, start, stop, fresh, last, last)


@kernel()
def update(W, S, tile, beyond, start, stop, keep, E, X, count, cursor, last):
    """Set W = keep W + E[:count]^T X[:count] for the tiles tile : beyond of classes.

    Over the features start : stop. Add to S, where it is not None, what W is after each row.
    """
    noinline()
    K = W.shape[0]
    for i in range(tile, beyond):
        k = tile_start(K, i)
        size = tile_start(K, i + 1) - k
        cursor = update_classes(W, S, k, size, start, stop, keep, E, X, count, cursor, last)
    return cursor


@kernel()
def update_classes(W, S, k, size, start, stop, keep, E, X, count, cursor, last):
    """Do as `update` for the classes k : k + size, a tile of them."""
    noinline()
    step = lanes(W)
    if S is None:
        broad = stop - (stop - start) % (WIDE * step)
        if start < broad:
            cursor = _wide(size, W, None, k, start, broad, keep, E, X, count, cursor, last)
    else:
        # Sums of W by a product with coefficients of their own took 1.5 times as long as no sums;
        # these take 1.15 where W lies in the second cache, 1.3 to 1.45 where both come from the
        # third.
        broad = stop - (stop - start) % (WIDE_AVERAGED * step)
        if start < broad:
            cursor = _pair(size, W, S, k, start, broad, keep, E, X, count, cursor, last)
    if broad < stop:
        cursor = _slim(size, W, S, k, broad, stop, keep, E, X, count, cursor, last)
    return cursor


@kernel()
def cross(Z, W, S, keep, E, before, after, width, cursor, last):
    """Do `update` with the rows `before`, and set Z to the margins of the rows `after`.

    For all classes, a tile at a time, and over the first `width` features alone.
    """
    noinline()
    K, count, zero, one = W.shape[0], after.shape[0], np.int64(0), np.int64(1)
    for tile in range(class_tiles(K)):
        k = tile_start(K, tile)
        size = tile_start(K, tile + 1) - k
        cursor = update_classes(W, S, k, size, zero, width, keep, E, before, count, cursor, last)
        cursor = _dots(size, Z, zero, k, after, count, W, zero, width, one, cursor, last)
    return cursor
