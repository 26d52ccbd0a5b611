"""Exact per-sample SGD in blocks: the same steps as row after row, at matrix-product speed.

The steps of B rows are taken on their margins alone (`recurrence`); W is touched once a block, in
one sweep that brings in the last block's steps and computes the next block's margins while a tile
of W is in the cache. Source: the recurrence W <- q W - eta w g x' unrolled over a block, see
docs/design.md, "Exact per-sample SGD".
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.barrier import QUEUE, STOP, atomic_add, atomic_load, clear, wait
from fastsoftmax.kernels.bounds import OFF, set_diagonal
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.prefetch import plan_prefetch
from fastsoftmax.kernels.products import class_tiles, gram, group_tiles, margins, tile_start, update
from fastsoftmax.kernels.recurrence import kept, kept_sum, recur, sums_simply
from fastsoftmax.kernels.sizes import GRAM_TILE, ROW_TILE
from fastsoftmax.kernels.vectors import (
    address_of,
    by_address,
    fma,
    lanes,
    load,
    noinline,
    splat,
    store,
)


@kernel(EXACT)
def gather_share(X, rows, first, stop, worker, team, barrier, queue):
    """Gather rows first : stop into X, the workers taking row tiles off a queue.

    Return whether what this worker saw is finite.
    """
    noinline()
    count = stop - first
    # Nobody to share with: one call for all rows, and no atomic instructions.
    if team == 1:
        return gather(X, np.int64(0), count, rows.order, first, rows.table)
    finite = True
    while True:
        # A queue, not equal shares: the worker that took the steps comes late.
        start = atomic_add(barrier, queue, 1) * ROW_TILE
        if start >= count:
            return finite
        end = min(start + ROW_TILE, count)
        finite &= gather(X, start, end, rows.order, first, rows.table)


@kernel(EXACT)
def add_scaled(S, W, k, size, start, stop, factor):
    """Add factor W[k : k + size] to S, over the features start : stop."""
    scale = splat(W, factor)
    for i in range(k, k + size):
        for j in range(start, stop, lanes(W)):
            store(S, i, j, fma(scale, load(W, i, j), load(S, i, j)))


@kernel(EXACT)
def add_block(S, H, share, W, X, tile, beyond, start, stop, count, cursor, last):
    """Add to S the sum of W over the steps of a block, from W before them, for some class tiles.

    share: how much of W that sum holds (`kept_sum`).
    """
    k = tile_start(W.shape[0], tile)
    add_scaled(S, W, k, tile_start(W.shape[0], beyond) - k, start, stop, share)
    one = W.dtype.type(1)
    return update(S, None, tile, beyond, start, stop, one, H, X, count, cursor, last)


@kernel(EXACT)
def bring_in(weights, average, R, X, tile, beyond, rows, first, count, l2, cursor, last):
    """Bring the steps of a block into some class tiles of W, and into the sum of W."""
    noinline()
    W = weights.W
    keep = R.dtype.type(kept(rows.step, l2, first, count) if l2 > 0 else 1.0)
    # Literal numbers as arguments would have `update` compiled once more.
    start, stop = np.int64(0), W.shape[1]
    if average is not None:
        # An addition a product beside the update, where sums by coefficients are another update.
        if sums_simply(rows, l2, first, R.shape[0]):
            return update(W, average.W, tile, beyond, start, stop, keep, R, X, count, cursor, last)
        share = R.dtype.type(kept_sum(rows, l2, first, count))
        cursor = add_block(
            average.W, average.H, share, W, X, tile, beyond, start, stop, count, cursor, last
        )
    return update(W, None, tile, beyond, start, stop, keep, R, X, count, cursor, last)


@kernel(EXACT)
def sweep_tiles(
    weights, average, block, before, done, after, count, rows, tile, stop, l2, lines
):  # fmt: skip
    """Pass over the class tiles tile : stop of W, some at a time while they are in the cache.

    Bring in the steps of the rows `before`, in block.R, whose first is number `done` (negative:
    none), and set block.Z to the margins of the first `count` of the rows `after`. lines: the ends
    of a list of cache lines to ask for.
    """
    (cursor, last), R = lines, block.R
    B, group = R.shape[0], group_tiles(weights.W.shape[1])
    # Both products of a group before the next group: its W is in the first-level cache then.
    for here in range(tile, stop, group):
        beyond = min(here + group, stop)
        if done >= 0:
            cursor = bring_in(
                weights, average, R, before, here, beyond, rows, done, B, l2, cursor, last
            )
        if count > 0:
            cursor = margins(block.Z, after, weights.W, here, beyond, count, cursor, last)


@kernel(EXACT)
def sweep_share(weights, average, block, rows, first, before, after, l2, worker, team):
    """Pass over this worker's classes: bring in the block before, compute the next margins."""
    noinline()
    B = block.Z.shape[0]
    tiles = class_tiles(weights.W.shape[0])
    n = rows.order.shape[0]
    count = min(B, n - first)
    lines = plan_prefetch(
        block.lines, worker, rows, first + B + worker, min(first + 2 * B, n), team
    )
    sweep_tiles(
        weights, average, block, before, first - B, after, count, rows,
        tiles * worker // team, tiles * (worker + 1) // team, l2, lines,
    )  # fmt: skip
    last = lines[1]
    for i in range((count + GRAM_TILE - 1) // GRAM_TILE):
        # Products of rows with rows are no worker's classes: they are dealt out.
        if (team - 1 - i % team) == worker:
            gram(block.G, after, i * GRAM_TILE, count, last, last)
            if rows.bound != OFF:
                set_diagonal(block.G, after, i * GRAM_TILE, GRAM_TILE, after.shape[1])


@kernel(EXACT, entry=True)
def descend_blocks(weights, average, block, rows, l2, bias, barrier, worker, team):
    """Take one step per row: W <- q W - eta w (p - onehot(y)) x', b <- b - eta w (p - onehot(y)).

    Called by every worker of a team at once. bias scales the steps of b: 1, or 0 to keep it. Stops
    early when a feature or the loss is not finite. Return the weighted loss (nats), the weighted
    hits, and whether all was finite; a plain tuple, since a named one returned to Python while a
    signal is pending crashes (numba 0.68).
    """
    weights, average = by_address(weights), by_address(average)
    block, rows, barrier = by_address(block), by_address(rows), by_address(barrier)
    n, B, K = rows.order.shape[0], block.Z.shape[0], weights.W.shape[0]
    loss, hits = 0.0, 0.0
    # Literal numbers as arguments would have every kernel below compiled once more.
    first, turn, queue = np.int64(0), np.int64(0), np.int64(QUEUE)
    finite = gather_share(block.X[0], rows, first, min(B, n), worker, team, barrier, queue)
    if not finite:
        atomic_add(barrier, STOP, 1)
    wait(barrier, team)
    while first < n and atomic_load(barrier, STOP) == 0:
        after, before = block.X[turn], block.X[1 - turn]
        # Two queues in turn: one is cleared while nobody takes from it.
        if worker == 0:
            atomic_add(barrier, QUEUE + turn, -atomic_load(barrier, QUEUE + turn))
        sweep_share(weights, average, block, rows, first, before, after, l2, worker, team)
        wait(barrier, team)
        count = min(B, n - first)
        if worker == 0:
            block_loss, block_hits = recur(block, weights.b, average, rows, first, count, l2, bias)
            loss += block_loss
            hits += block_hits
            if not np.isfinite(loss):
                atomic_add(barrier, STOP, 1)
        if first + B < n and not gather_share(
            before, rows, first + B, min(first + 2 * B, n), worker, team, barrier, QUEUE + 1 - turn
        ):
            atomic_add(barrier, STOP, 1)
        wait(barrier, team)
        turn = 1 - turn
        first += B
    finite = atomic_load(barrier, STOP) == 0
    if finite and n > 0:
        # W lags a block behind: the last one has had no sweep after it.
        last = (n - 1) // B * B
        at_hand = address_of(block.lines, worker, 0)
        tiles = class_tiles(K)
        bring_in(
            weights, average, block.R, block.X[1 - turn],
            tiles * worker // team, tiles * (worker + 1) // team, rows, last, n - last, l2,
            at_hand, at_hand,
        )  # fmt: skip
    clear(barrier, worker, team)
    return loss, hits, finite
