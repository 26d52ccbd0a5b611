"""Exact per-sample SGD in blocks, the steps of one taken while W is brought up to the one before.

The steps of a block are one thread's work, and the others would wait for it. Here they do not:
meanwhile they pass over W, bring in the steps of the block before and compute the margins of the
block after. These lack the steps of the block at hand, which are brought into the margins once they
are known, by the products of its rows with the rows after. Threads meet once a block. (Lookahead is
the word of parallel matrix factorisations, which hide their panels in this way.)
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.barrier import QUEUE, STOP, atomic_add, atomic_load, clear, wait
from fastsoftmax.kernels.blocks import bring_in, sweep_tiles
from fastsoftmax.kernels.bounds import OFF, TRIAL_ROWS, set_diagonal
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.operands import Average, block_coefficients, weights_length
from fastsoftmax.kernels.prefetch import new_lines, plan_prefetch
from fastsoftmax.kernels.products import class_tiles, couple, cross_gram, gram
from fastsoftmax.kernels.recurrence import kept, recur
from fastsoftmax.kernels.sizes import GRAM_TILE, ROW_TILE
from fastsoftmax.kernels.vectors import address_of, by_address, noinline
from fastsoftmax.kernels.workspace import aligned, padded

# Scratch of every other block: as a Block, with the products C (B, B) of the rows before with its
# own. Both kinds share X (4, B, d): the rows before, at hand, after, and those gathered meanwhile.
Turn = namedtuple("Turn", "X Z R G C mass lines trial")
BLOCKS = 4  # of rows at hand
# The steps of a row take as long as its margins, or its updates, over this many features. 60 to 240
# were alike for two threads.
STEP_FEATURES = 120


def new_turns(K: int, d: int, dtype: np.dtype, rows: int, workers: int) -> tuple[Turn, Turn]:
    """Return scratch for every other block of `rows` rows, a multiple of eight."""
    width = padded(K, dtype)
    X = aligned((BLOCKS, rows, weights_length(K, d, dtype)), dtype)
    lines, trial = new_lines(rows, d, workers), aligned((TRIAL_ROWS, width), dtype)
    even, odd = (
        Turn(
            X,
            aligned((rows, width), dtype),
            aligned((rows, width), dtype),
            aligned((rows, rows), dtype),
            aligned((rows, rows), dtype),
            aligned((rows,), np.dtype(np.float64)),
            lines,
            trial,
        )
        for _ in range(2)
    )
    return even, odd


def other_turn(average: Average | None) -> Average | None:
    """Return the same sums with coefficients for every other block."""
    if average is None:
        return None
    rows, width = average.H.shape
    return average._replace(H=block_coefficients(rows, width, average.H.dtype))


@kernel()
def first_tile(tiles, d, worker, team):
    """Return the first class tile of a worker; the one that takes the steps has fewer."""
    if worker == 0 or team == 1:
        return tiles * worker
    own = tiles * max(0, 2 * d + STEP_FEATURES - STEP_FEATURES * team) // (2 * d * team)
    return own + (tiles - own) * (worker - 1) // (team - 1)


@kernel(EXACT)
def catch_up(now, R, keep, count):
    """Bring the steps of the block before, in its residuals R, into the margins of `count` rows."""
    at_hand = address_of(now.lines, 0, 0)
    for t in range(0, count, ROW_TILE):
        couple(now.Z, t, keep, now.C, R, R.shape[0], at_hand)


@kernel(EXACT)
def sweep_ahead(weights, average, other, rows, first, mine, beyond, l2, worker, team):
    """Pass over this worker's classes while the block at row `first` takes its steps.

    Bring in the block before it and compute the margins of the block after it; both have `other`.
    """
    noinline()
    B, n = other.Z.shape[0], rows.order.shape[0]
    block = first // B
    start, stop = first + 2 * B, min(first + 3 * B, n)
    # The worker that takes the steps has other things to wait for.
    own, every = (worker, 1) if team == 1 else (worker - 1, team - 1)
    lines = plan_prefetch(other.lines, worker, rows, start + own if own >= 0 else stop, stop, every)
    sweep_tiles(
        weights, average, other, other.X[(block - 1) % BLOCKS], first - B,
        other.X[(block + 1) % BLOCKS], min(B, n - first - B) if first + B >= 0 else 0,
        rows, mine, beyond, l2, lines,
    )  # fmt: skip


@kernel(EXACT)
def share_rest(other, rows, first, worker, team, barrier, queue):
    """Take off a queue, with the others, what else can be done while steps are taken.

    The products of the block after the one at row `first`, which has `other`: those of its rows
    with each other and with the rows at hand; and the gathering of the rows after that block.
    Return whether what this worker gathered is finite.
    """
    noinline()
    B, n = other.Z.shape[0], rows.order.shape[0]
    block, start = first // B, first + 2 * B
    now, after = other.X[block % BLOCKS], other.X[(block + 1) % BLOCKS]
    coming = other.X[(block + 2) % BLOCKS]
    count = min(B, n - first - B) if first + B >= 0 else 0
    here = address_of(other.lines, worker, 0)
    strips = (max(count, 0) + GRAM_TILE - 1) // GRAM_TILE
    finite = True
    while True:
        item = atomic_add(barrier, queue, 1)
        # Products first: the worker that takes the steps joins late, and gathers what is left.
        if item < strips:
            gram(other.G, after, item * GRAM_TILE, count, here, here)
            if rows.bound != OFF:
                set_diagonal(other.G, after, item * GRAM_TILE, GRAM_TILE, after.shape[1])
            if first >= 0:
                cross_gram(other.C, now, after, item * GRAM_TILE, here)
        else:
            t = (item - strips) * ROW_TILE
            end = min(t + ROW_TILE, min(B, n - start))
            if t >= end:
                return finite
            finite &= gather(coming, t, end, rows.order, start, rows.table)


@kernel(EXACT, entry=True)
def descend_lookahead(weights, even_sum, odd_sum, even, odd, rows, l2, bias, barrier, worker, team):
    """Take one step per row, as `descend_blocks` does, on two kinds of scratch in turn."""
    weights, rows, barrier = by_address(weights), by_address(rows), by_address(barrier)
    even, odd = by_address(even), by_address(odd)
    even_sum, odd_sum = by_address(even_sum), by_address(odd_sum)
    W, X = weights.W, even.X
    n, B, d = rows.order.shape[0], X.shape[1], W.shape[1]
    tiles = class_tiles(W.shape[0])
    mine, beyond = first_tile(tiles, d, worker, team), first_tile(tiles, d, worker + 1, team)
    loss, hits = 0.0, 0.0
    # Literal numbers as arguments would have every kernel below compiled once more.
    # Two rounds fill the line: rows are gathered two blocks before their steps, margins one.
    first, turn = np.int64(-2) * B, np.int64(0)
    # Whoever is ahead sets the other turn's counter: all workers see the same here.
    while first < n and atomic_load(barrier, STOP + 1 - turn) == 0:
        now, other = (even, odd) if turn == 0 else (odd, even)
        other_sum = odd_sum if turn == 0 else even_sum
        if worker == 0:
            atomic_add(barrier, QUEUE + 1 - turn, -atomic_load(barrier, QUEUE + 1 - turn))
            if first >= 0:
                now_sum = even_sum if turn == 0 else odd_sum
                count = min(B, n - first)
                # The margins were taken of a W without the block before; l2 has shrunk it since.
                if first > 0:
                    keep = kept(rows.step, l2, first - B, B) if l2 > 0 else 1.0
                    catch_up(now, other.R, W.dtype.type(keep), count)
                block_loss, block_hits = recur(
                    now, weights.b, now_sum, rows, first, count, l2, bias
                )
                loss += block_loss
                hits += block_hits
                if not np.isfinite(loss):
                    atomic_add(barrier, STOP + turn, 1)
        sweep_ahead(weights, other_sum, other, rows, first, mine, beyond, l2, worker, team)
        if not share_rest(other, rows, first, worker, team, barrier, QUEUE + turn):
            atomic_add(barrier, STOP + turn, 1)
        wait(barrier, team)
        turn = 1 - turn
        first += B
    finite = atomic_load(barrier, STOP) == 0 and atomic_load(barrier, STOP + 1) == 0
    if finite and n > 0:
        now, now_sum = (odd, odd_sum) if turn == 0 else (even, even_sum)
        at_hand = address_of(now.lines, worker, 0)
        # W lags a block behind: the last one has had no sweep after it.
        first -= B
        bring_in(
            weights, now_sum, now.R, X[first // B % BLOCKS], mine, beyond, rows, first, n - first,
            l2, at_hand, at_hand,
        )  # fmt: skip
    clear(barrier, worker, team)
    return loss, hits, finite
