"""Exact per-sample SGD in blocks, for few classes: workers share the features, not the classes.

The features are cut into panels, from (K, d) alone. A worker brings the last block's steps into its
panels of W and computes their part of the next block's margins and Gram matrix; the parts are added
in the order of the panels. The steps of the block every worker then takes for itself, on K numbers
a row: that is cheaper than to wait for another to do it. So workers meet once a block.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.barrier import STOP, arrive, atomic_add, atomic_load, clear, leave
from fastsoftmax.kernels.blocks import add_block
from fastsoftmax.kernels.bounds import OFF, TRIAL_ROWS, set_diagonal
from fastsoftmax.kernels.compile import EXACT, in_python, kernel
from fastsoftmax.kernels.gather import (
    ADDRESS,
    COLUMN,
    COLUMN_STRIDE,
    ITEM,
    KIND,
    ROW_STRIDE,
    STEP,
    WIDTH,
    gather,
    own_kind,
)
from fastsoftmax.kernels.operands import Block
from fastsoftmax.kernels.prefetch import new_lines, plan_prefetch, prefetch_ends, prefetch_rows
from fastsoftmax.kernels.products import class_tiles, copy_gram, cross
from fastsoftmax.kernels.recurrence import kept, kept_sum, recur, sums_simply
from fastsoftmax.kernels.sizes import (
    COEFFICIENTS_ROW,
    MANY,
    PANEL_ROW,
    SWEEP_CLASSES,
    SWEEP_ROWS,
    panel_count,
)
from fastsoftmax.kernels.stretches import shrink, stretch, with_stretch
from fastsoftmax.kernels.tiles import sweep_tile
from fastsoftmax.kernels.vectors import address_of, by_address, lanes, load, noinline, splat, store
from fastsoftmax.kernels.workspace import aligned, padded, row_length

# For three blocks in turn the panels' parts of margins and Gram matrix, Z (3, panels, B, width) and
# G (3, panels, B, B padded). One of each for every worker: two blocks of rows, cut into panels, X
# (workers, 2, panels, B, PANEL_ROW); a block as it is gathered (workers, B, d), or where in memory
# its rows begin, at (workers, B, 1); weights W (workers, K, d), biases b (workers, 1, width), a
# block's margins, residuals, Gram matrix and masses, lists of lines (workers, n) to look ahead, and
# logits on the way to an implicit step.
# Rows of W may be longer than d. A worker uses its panels alone; with one array for all, the
# processor's own prefetching would fetch lines that the next worker is writing.
Panels = namedtuple("Panels", "Z G X gathered at W b own_Z own_R own_G own_mass lines own_trial")
# Of one panel: its part of the margins Z, W, the sums of W (or None), the rows of the blocks before
# and after, its first feature and how many there are.
Panel = namedtuple("Panel", "Z W S before after start width")
# The steps of a block: W becomes keep W + R^T x, and what is added to the sums of W is what W is
# after each step or, where H is not None, share W + H^T x.
Steps = namedtuple("Steps", "keep R H share")
TURNS = 3  # blocks that workers may be at: before, now, next
LINE = 16 if MANY else 32  # numbers: panels begin on a cache line, and are whole update tiles

_sweep_most = sweep_tile(SWEEP_CLASSES)
_sweep_less = sweep_tile(max(1, SWEEP_CLASSES - 1))


def new_panels(K: int, d: int, dtype: np.dtype, workers: int = 1) -> Panels:
    """Return scratch for blocks of SWEEP_ROWS rows, their features cut into panels."""
    rows, width, parts = SWEEP_ROWS, padded(K, dtype), panel_count(d)
    across, length = padded(rows, dtype), row_length(d, dtype)
    return Panels(
        aligned((TURNS, parts, rows, width), dtype),
        aligned((TURNS, parts, rows, across), dtype),
        aligned((workers, 2, parts, rows, PANEL_ROW), dtype),
        aligned((workers, rows, length), dtype),
        aligned((workers, rows, 1), np.dtype(np.int64)),
        aligned((workers, K, length), dtype),
        aligned((workers, 1, width), dtype),
        aligned((workers, rows, width), dtype),
        aligned((workers, rows, COEFFICIENTS_ROW), dtype)[:, :, :width],
        aligned((workers, rows, across), dtype),
        aligned((workers, rows), np.dtype(np.float64)),
        new_lines(rows, d, workers),
        aligned((workers, TRIAL_ROWS, width), dtype),
    )


def panel_columns(d: int, worker: int, workers: int) -> tuple[int, int]:
    """Return the first feature of a worker's panels and the first after them."""
    count, start = panel_count(d), in_python(panel_start)
    first, stop = (count * w // workers for w in (worker, worker + 1))
    return start(d, first, count), start(d, stop, count)


@kernel()
def panel_start(d, panel, panels):
    """Return the first feature of a panel of d features, padded."""
    return min(d, (d + LINE - 1) // LINE * panel // panels * LINE)


@kernel(EXACT)
def add_parts(out, parts):
    """Set out = parts[0] + parts[1] + ..., in this order."""
    for i in range(out.shape[0]):
        for j in range(0, out.shape[1], lanes(out)):
            sums = load(parts[0], i, j)
            # Always in the order of the panels: the bits do not depend on who computed which.
            for p in range(1, parts.shape[0]):
                sums = sums + load(parts[p], i, j)
            store(out, i, j, sums)


@kernel(EXACT)
def clear_rows(A, start):
    """Set rows start: of A to 0."""
    for i in range(start, A.shape[0]):
        for j in range(0, A.shape[1], lanes(A)):
            store(A, i, j, splat(A, A.dtype.type(0)))


@kernel(EXACT)
def clear_coefficients(R, average, start):
    """Set the coefficients of rows start: of a block to 0: it has fewer rows."""
    clear_rows(R, start)
    if average is not None:
        clear_rows(average.H, start)


@kernel(EXACT)
def copy_biases(b, c):
    """Copy the biases c to b: an assignment of slices would bring in a check that can raise."""
    for k in range(0, b.shape[1], lanes(b)):
        store(b, 0, k, load(c, 0, k))


@kernel(EXACT)
def copy_panels(A, B, panels, worker, team):
    """Copy this worker's panels of B to A."""
    d = min(A.shape[1], B.shape[1])
    start = panel_start(d, panels * worker // team, panels)
    stop = panel_start(d, panels * (worker + 1) // team, panels)
    for i in range(A.shape[0]):
        for j in range(start, stop, lanes(A)):
            store(A, i, j, load(B, i, j))


@kernel()
def sweep_tiles(K):
    """Return how many tiles of a sweep K classes are cut into, of as many classes or one less."""
    return (K + SWEEP_CLASSES - 1) // SWEEP_CLASSES


@kernel(EXACT)
def in_lines(rows):
    """Return whether a row's features lie together in one part, so that tiles can ask for them."""
    return rows.table.shape[0] == 1 and rows.table[0, COLUMN_STRIDE] == rows.table[0, ITEM]


@kernel(EXACT)
def lies_ready(X, rows, start, stop):
    """Return whether rows need no gather: floats of X's dtype, features start : stop together.

    Their finite check is the loss: a feature that is not finite makes no logit finite, since no
    weight times it is.
    """
    at = rows.table[0]
    width = at[WIDTH] if at[COLUMN] == start else 0
    plain = at[KIND] == own_kind(X) and at[STEP] == 0
    return in_lines(rows) and plain and width == stop - start


@kernel(EXACT)
def point(at, rows, first, count):
    """Set at[t] to where row first + t begins in memory, t < count; the last ones repeat."""
    part = rows.table[0]
    start = part[ADDRESS] - part[COLUMN] * part[ITEM]
    for t in range(at.shape[0]):
        at[t, 0] = start + rows.order[first + min(t, count - 1)] * part[ROW_STRIDE]


@kernel(EXACT)
def sweep_in_one(panel, steps, rows, first, count):
    """Do `sweep_panel` in one pass over W, asking for two rows to come with each class tile."""
    noinline()
    Z, W, S, start, width = panel.Z, panel.W, panel.S, panel.start, panel.width
    before, after = panel.before, panel.after
    K = W.shape[0]
    tiles = sweep_tiles(K)
    part = rows.table[0]
    base = part[ADDRESS] + (start - part[COLUMN]) * part[ITEM]
    one = two = address_of(steps.R, 0, 0)
    item = part[ITEM] if in_lines(rows) and count > 0 else 0
    for tile in range(tiles):
        if item > 0:
            one = base + rows.order[first + min(2 * tile, count - 1)] * part[ROW_STRIDE]
            two = base + rows.order[first + min(2 * tile + 1, count - 1)] * part[ROW_STRIDE]
        k = tile * (K // tiles) + min(tile, K % tiles)
        if K // tiles + (tile < K % tiles) == SWEEP_CLASSES:
            _sweep_most(Z, W, S, k, steps, before, after, width, (one, two, item))
        else:
            _sweep_less(Z, W, S, k, steps, before, after, width, (one, two, item))


@kernel(EXACT)
def cross_panel(panel, steps, H, cursor, last):
    """Do `sweep_panel` in a pass for the update and one for the margins; return the next cursor.

    H: that of the steps, by itself because numba leaves a branch out only for an argument of None.
    """
    Z, W, S, before, after = panel.Z, panel.W, panel.S, panel.before, panel.after
    keep, R, width = steps.keep, steps.R, panel.width
    if H is not None:
        tiles, count, zero = class_tiles(W.shape[0]), before.shape[0], np.int64(0)
        share = steps.share
        add_block(S, H, share, W, before, zero, tiles, zero, width, count, cursor, cursor)
        return cross(Z, W, None, keep, R, before, after, width, cursor, last)
    return cross(Z, W, S, keep, R, before, after, width, cursor, last)


@kernel(EXACT)
def sweep_panel(panel, steps, rows, first, count, cursor, last):
    """Bring steps into a panel of W; set its part of the margins of the rows after.

    Meanwhile ask for this panel of rows first : first + count, or for the lines of a list; return
    the cursor in the list.
    """
    if MANY:
        sweep_in_one(panel, steps, rows, first, count)
        return cursor
    return cross_panel(panel, steps, steps.H, cursor, last)


@kernel(EXACT)
def slot(panels, first):
    """Return which of a worker's two blocks of rows is that which begins at row `first`."""
    return first // panels.X.shape[3] % 2


@kernel(EXACT)
def sweep_panels(panels, d, average, R, turn, keep, rows, first, l2, worker, team):
    """Do `sweep_panel` for this worker's panels, to the block of this turn that begins at `first`.

    Ask for the rows of the block after it.
    """
    noinline()
    blocks, here = panels.X[worker], slot(panels, first)
    n, B, K, parts = rows.order.shape[0], blocks.shape[2], panels.W.shape[1], panels.Z.shape[1]
    coming, last = first + B, min(first + 2 * B, n)
    ahead = last - coming
    cursor = end = address_of(panels.at[worker], 0, 0)
    # With each class tile the sweep asks for two rows, but their last lines; here for the rest.
    if MANY:
        asked = min(last, coming + 2 * sweep_tiles(K)) if in_lines(rows) else coming
        prefetch_ends(rows, coming, asked)
        prefetch_rows(rows.table, rows.order, asked, last)
    else:
        cursor, end = plan_prefetch(panels.lines, worker, rows, coming, last, 1)
    simply = average is not None and first > 0 and sums_simply(rows, l2, first - B, B)
    share = R.dtype.type(0)
    if average is not None and first > 0 and not simply:
        share = R.dtype.type(kept_sum(rows, l2, first - B, min(B, n - first + B)))
    for p in range(parts * worker // team, parts * (worker + 1) // team):
        start, stop = panel_start(d, p, parts), panel_start(d, p + 1, parts)
        W, Z, width = panels.W[worker, :, start:stop], panels.Z[turn, p], stop - start
        before, after = blocks[1 - here, p], blocks[here, p]
        if average is None:
            panel = Panel(Z, W, None, before, after, start, width)
            cursor = sweep_panel(
                panel, Steps(keep, R, None, share), rows, coming, ahead, cursor, end
            )
            continue
        panel = Panel(Z, W, average.W[:, start:stop], before, after, start, width)
        if simply:
            steps = Steps(keep, R, None, share)
            cursor = sweep_panel(panel, steps, rows, coming, ahead, cursor, end)
        else:
            steps = Steps(keep, R, average.H, share)
            cursor = sweep_panel(panel, steps, rows, coming, ahead, cursor, end)


@kernel(EXACT)
def fetch_block(panels, d, rows, first, turn, worker, team):
    """Bring in the block that begins at row `first`, with this worker's parts of its Gram matrix.

    Return whether all of it is finite, as far as that is known before the loss is.
    """
    noinline()
    X, at, count = panels.gathered[worker], panels.at[worker], panels.Z.shape[1]
    blocks = panels.X[worker, slot(panels, first)]
    low, high = count * worker // team, count * (worker + 1) // team
    here = min(X.shape[0], rows.order.shape[0] - first)
    finite = True
    if here <= 0:
        return finite
    if lies_ready(X, rows, panel_start(d, low, count), panel_start(d, high, count)):
        # Rows that lie ready are read where they are: `copy_gram` copies them anyway.
        point(at, rows, first, here)
    else:
        finite = gather(X, np.int64(0), here, rows.order, first, rows.table)
        for t in range(X.shape[0]):
            at[t, 0] = address_of(X, t, 0)
    for p in range(low, high):
        start, stop = panel_start(d, p, count), panel_start(d, p + 1, count)
        copy_gram(panels.G[turn, p], blocks[p], at, start, stop)
        if rows.bound != OFF:
            set_diagonal(panels.G[turn, p], blocks[p], np.int64(0), X.shape[0], stop - start)
    return finite


@kernel(EXACT)
def panel_steps(weights, average, panels, rows, l2, bias, barrier, worker, team):
    """Take the steps of all rows."""
    noinline()
    W, b = panels.W[worker], panels.b[worker]
    n, d = rows.order.shape[0], weights.W.shape[1]
    B, count = panels.X.shape[3], panels.Z.shape[1]
    block = by_address(
        Block(
            panels.X[worker, 0], panels.own_Z[worker], panels.own_R[worker],
            panels.own_G[worker], panels.own_mass[worker], panels.at[worker],
            panels.own_trial[worker],
        )
    )  # fmt: skip
    loss, hits = 0.0, 0.0
    # Literal numbers as arguments would have every kernel below compiled once more.
    first, turn = np.int64(0), np.int64(0)
    keep = W.dtype.type(1)
    # Each worker steps its own biases: K numbers are cheaper than to wait for another's.
    copy_biases(b, weights.b)
    copy_panels(W, weights.W, count, worker, team)
    clear_coefficients(block.R, average, first)
    if not fetch_block(panels, d, rows, first, turn, worker, team):
        atomic_add(barrier, STOP + turn, 1)
    while first < n:
        sweep_panels(panels, d, average, block.R, turn, keep, rows, first, l2, worker, team)
        # While the others finish: the next block, which does not depend on them.
        met = arrive(barrier, team)
        following = (turn + 1) % TURNS
        if not fetch_block(panels, d, rows, first + B, following, worker, team):
            atomic_add(barrier, STOP + following, 1)
        leave(barrier, met, team)
        # Whoever is ahead sets another turn's counter: all workers see the same here.
        if atomic_load(barrier, STOP + turn) > 0:
            loss = np.nan
            break
        here = min(B, n - first)
        # From here on every worker does the same, and has the same bits.
        add_parts(block.Z, panels.Z[turn])
        add_parts(block.G, panels.G[turn])
        block_loss, block_hits = recur(block, b, average, rows, first, here, l2, bias)
        loss += block_loss
        hits += block_hits
        if not np.isfinite(loss):
            break
        keep = W.dtype.type(kept(rows.step, l2, first, here) if l2 > 0 else 1.0)
        # A sweep always brings in B rows: those that are missing have coefficients of 0.
        clear_coefficients(block.R, average, here)
        turn = following
        first += B
    finite = np.isfinite(loss)
    if finite and n > 0:
        sweep_panels(panels, d, average, block.R, turn, keep, rows, first, l2, worker, team)
    copy_panels(weights.W, W, count, worker, team)
    if worker == 0:
        copy_biases(weights.b, b)
    clear(barrier, worker, team)
    return loss, hits, finite


@kernel(EXACT, entry=True)
def descend_panels(weights, average, panels, rows, l2, own, bias, barrier, worker, team):
    """Take one step per row, as `descend_blocks` does; rows.table lists this worker's panels alone,
    and average.W is its own. own (d,): penalties of features' own, or (0,); see `stretches`.
    """
    weights, average, panels = by_address(weights), by_address(average), by_address(panels)
    rows, barrier = by_address(rows), by_address(barrier)
    d, count = weights.W.shape[1], panels.Z.shape[1]
    start = panel_start(d, count * worker // team, count)
    stop = panel_start(d, count * (worker + 1) // team, count)
    sums, finite, first = (0.0, 0.0, 0.0, 0.0), True, np.int64(0)
    while finite and first < rows.order.shape[0]:
        some = by_address(stretch(rows, own, first))
        loss, hits, finite = panel_steps(
            weights, average, panels, some, l2, bias, barrier, worker, team
        )
        shrink(weights.W, own, some.step, start, stop)
        sums = with_stretch(sums, first, loss, hits)
        first += some.order.shape[0]
    return sums[0] + sums[2], sums[1] + sums[3], finite
