"""Mini-batch SGD: the gradient of a batch is accumulated block by block, then W takes one step."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.barrier import QUEUE, STOP, atomic_add, atomic_load, clear, wait
from fastsoftmax.kernels.blocks import add_scaled, gather_share
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.operands import weights_length
from fastsoftmax.kernels.prefetch import plan_prefetch
from fastsoftmax.kernels.products import class_tiles, group_tiles, margins, tile_start, update
from fastsoftmax.kernels.recurrence import add_row, plain_logits, residual
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
from fastsoftmax.kernels.workspace import aligned, padded

# The batch so far: sums of -w (p - onehot(y)) x' and -w (p - onehot(y)), and facts about it.
Gradient = namedtuple("Gradient", "W b facts")
# facts: rows in the batch, their weight, its step size, what the block before did (a closing block
# sets CLOSED with SHARE = eta / rows and KEEP = q), steps taken in all.
FILLED, WEIGHT, ETA, CLOSED, SHARE, KEEP, STEPS, FACTS = range(8)


def new_gradient(K: int, d: int, dtype: np.dtype) -> Gradient:
    """Return an empty batch for K classes and d features."""
    return Gradient(
        aligned((K, weights_length(K, d, dtype)), dtype),
        aligned((1, padded(K, dtype)), dtype),
        np.zeros(FACTS, dtype=np.float64),
    )


@kernel(EXACT)
def block_stop(rows, first, B, room):
    """Return the row after the block that begins at `first`: B rows, or `room` that count."""
    stop, counted = first, 0
    while stop < min(rows.order.shape[0], first + B) and counted < room:
        # A row of weight 0 is none: it must not fill a batch.
        counted += rows.weight[stop] > 0
        stop += 1
    return stop


@kernel(EXACT)
def take_step(W, G, S, k, size, facts):
    """Set W = keep W + share G and G = 0 in rows k : k + size; add W to its running sum S."""
    keep = splat(W, W.dtype.type(facts[KEEP]))
    share = splat(W, W.dtype.type(facts[SHARE]))
    zero = splat(W, W.dtype.type(0))
    for i in range(k, k + size):
        for j in range(0, W.shape[1], lanes(W)):
            store(W, i, j, fma(share, load(G, i, j), keep * load(W, i, j)))
            # Cleared where it is at hand, instead of in a pass of its own.
            store(G, i, j, zero)
    if S is not None:
        add_scaled(S, W, k, size, np.int64(0), W.shape[1], W.dtype.type(1))


@kernel(EXACT)
def apply_batch(weights, gradient, average, block, X, tile, beyond, count, cursor, last):
    """Bring a block's residuals into some class tiles of the gradient, and W if it closed."""
    noinline()
    R = block.R
    if count > 0:
        one = R.dtype.type(1)
        start, stop = np.int64(0), X.shape[1]
        cursor = update(gradient.W, None, tile, beyond, start, stop, one, R, X, count, cursor, last)
    if gradient.facts[CLOSED] > 0:
        k = tile_start(weights.W.shape[0], tile)
        size = tile_start(weights.W.shape[0], beyond) - k
        if average is not None:
            take_step(weights.W, gradient.W, average.W, k, size, gradient.facts)
        else:
            take_step(weights.W, gradient.W, None, k, size, gradient.facts)
    return cursor


@kernel(EXACT)
def close_batch(b, gradient, average, l2, bias):
    """Let the biases take the batch's step, and leave in the facts what W has to do."""
    facts = gradient.facts
    rows = max(facts[FILLED], 1.0)
    facts[CLOSED] = 1.0
    # The mean over rows, not over weights: a batch of light rows takes a lighter step.
    facts[SHARE] = facts[ETA] / rows
    facts[KEEP] = max(0.0, 1.0 - facts[ETA] * facts[WEIGHT] / rows * l2)
    share = splat(b, b.dtype.type(facts[SHARE] * bias))
    for k in range(0, b.shape[1], lanes(b)):
        store(b, 0, k, fma(share, load(gradient.b, 0, k), load(b, 0, k)))
        store(gradient.b, 0, k, splat(b, b.dtype.type(0)))
    if average is not None:
        add_row(average.b, b)
    facts[FILLED] = 0.0
    facts[WEIGHT] = 0.0
    facts[STEPS] += 1.0


@kernel(EXACT)
def batch_residuals(weights, gradient, block, rows, first, stop):
    """Turn margins into residuals -w (p - onehot(y)), all at the same weights; add up the facts."""
    noinline()
    R, Z, b, facts = block.R, block.Z, weights.b, gradient.facts
    loss, hits = 0.0, 0.0
    for t in range(stop - first):
        weight = rows.weight[first + t]
        plain_logits(R, Z, b, t)
        row_loss, hit = residual(R, gradient.b, t, rows.y[first + t], R.dtype.type(weight), 1.0)
        loss += weight * row_loss
        hits += weight * hit
        if weight > 0:
            # A batch takes the step size of its first row.
            if facts[FILLED] == 0:
                facts[ETA] = rows.step[first + t]
            facts[FILLED] += 1.0
            facts[WEIGHT] += weight
    return loss, hits


@kernel(EXACT)
def sweep_batch(weights, gradient, average, block, rows, done, first, stop, turn, worker, team):
    """Pass over this worker's classes: apply the block before, of `done` rows; set block.Z to the
    margins of rows first : stop. Meanwhile ask for the rows of the block after.
    """
    noinline()
    K, d = weights.W.shape
    tiles, group = class_tiles(K), group_tiles(d)
    X, before = block.X[turn], block.X[1 - turn]
    coming = min(stop + block.Z.shape[0], rows.order.shape[0])
    cursor, last = plan_prefetch(block.lines, worker, rows, stop + worker, coming, team)
    beyond = tiles * (worker + 1) // team
    for tile in range(tiles * worker // team, beyond, group):
        end = min(tile + group, beyond)
        cursor = apply_batch(
            weights, gradient, average, block, before, tile, end, done, cursor, last
        )
        cursor = margins(block.Z, X, weights.W, tile, end, stop - first, cursor, last)


@kernel(EXACT, entry=True)
def descend_minibatch(
    weights, gradient, average, block, rows, batch_size, ends, l2, bias, barrier, worker, team
):
    """Take one step per `batch_size` rows with the mean of w (p - onehot(y)) x' over them.

    Called by every worker of a team at once. rows.step holds eta (not times the weight). A batch
    goes on in the next call unless `ends`: then the last one closes with the rows it has.
    """
    # 0.63 of the time that nine numbers an array took at 10 classes, 64 features, 32 rows a batch.
    weights, gradient, average = by_address(weights), by_address(gradient), by_address(average)
    block, rows, barrier = by_address(block), by_address(rows), by_address(barrier)
    n, B, K = rows.order.shape[0], block.Z.shape[0], weights.W.shape[0]
    facts = gradient.facts
    tiles = class_tiles(K)
    mine, beyond = tiles * worker // team, tiles * (worker + 1) // team
    loss, hits = 0.0, 0.0
    # Literal numbers as arguments would have every kernel below compiled once more.
    first = before = turn = np.int64(0)
    wait(barrier, team)
    while first < n and atomic_load(barrier, STOP) == 0:
        # A block ends with its batch at the latest: the next margins need the weights after it.
        stop = block_stop(rows, first, B, batch_size - facts[FILLED])
        if worker == 0:
            atomic_add(barrier, QUEUE + 1 - turn, -atomic_load(barrier, QUEUE + 1 - turn))
        X = block.X[turn]
        if not gather_share(X, rows, first, stop, worker, team, barrier, QUEUE + turn):
            atomic_add(barrier, STOP, 1)
        wait(barrier, team)
        sweep_batch(
            weights, gradient, average, block, rows, first - before, first, stop, turn, worker, team
        )
        wait(barrier, team)
        if worker == 0:
            facts[CLOSED] = 0.0
            more_loss, more_hits = batch_residuals(weights, gradient, block, rows, first, stop)
            loss += more_loss
            hits += more_hits
            if facts[FILLED] >= batch_size:
                close_batch(weights.b, gradient, average, l2, bias)
            if not np.isfinite(loss):
                atomic_add(barrier, STOP, 1)
        wait(barrier, team)
        before, first, turn = first, stop, 1 - turn
    finite = atomic_load(barrier, STOP) == 0
    # What is left at the end of an epoch is a batch too, divided by the rows it has.
    if worker == 0 and finite and ends and facts[FILLED] > 0:
        close_batch(weights.b, gradient, average, l2, bias)
    wait(barrier, team)
    if finite:
        at_hand = address_of(block.lines, worker, 0)
        apply_batch(
            weights, gradient, average, block, block.X[1 - turn],
            mine, beyond, first - before, at_hand, at_hand,
        )  # fmt: skip
    clear(barrier, worker, team)
    if worker == 0:
        facts[CLOSED] = 0.0
    return loss, hits, finite
