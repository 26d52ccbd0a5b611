"""The only place where penalties of features' own act on weights: after each stretch of rows.

Where features have penalties of their own, a row's step does not shrink all weights alike, and the
Gram matrix of a block would be another for each feature. So weights shrink after some rows at once,
by what their steps add up to.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.operands import Rows
from fastsoftmax.kernels.vectors import by_address

STRETCH_ROWS = 1024
# Losses and hits of so many rows are added up by themselves: a call may end there, and no bit
# changes.
SUMMED_ROWS = 4 * STRETCH_ROWS


@kernel(EXACT)
def stretch(rows, own, first):
    """Return the rows from number `first` on after which weights shrink, all where none do.

    own: the penalty (d,) float64 of each feature's weights; (0,) where there are none.
    """
    stop = rows.order.shape[0]
    if own.shape[0] > 0:
        stop = min(stop, first + STRETCH_ROWS)
    return Rows(
        rows.table,
        rows.order[first:stop],
        rows.y[first:stop],
        rows.weight[first:stop],
        rows.step[first:stop],
        rows.bound,
    )


@kernel(EXACT)
def shrink(W, own, step, first, stop):
    """Let penalties act on the weights of the features first : stop, for the steps (n,)."""
    stop = min(stop, own.shape[0])
    taken = 0.0
    for t in range(step.shape[0]):
        taken += step[t]
    for k in range(W.shape[0]):
        for j in range(first, stop):
            W[k, j] *= W.dtype.type(max(0.0, 1.0 - own[j] * taken))


@kernel(EXACT)
def with_stretch(sums, first, loss, hits):
    """Return `sums` with the loss and hits of the stretch from row number `first` on.

    sums: loss and hits of whole SUMMED_ROWS, and of the rows after them; zeros to begin with.
    """
    whole_loss, whole_hits, some_loss, some_hits = sums
    if first % SUMMED_ROWS == 0:
        whole_loss, whole_hits = whole_loss + some_loss, whole_hits + some_hits
        some_loss, some_hits = 0.0, 0.0
    return whole_loss, whole_hits, some_loss + loss, some_hits + hits


def in_stretches(steps):
    """Make the kernel that takes one step per row, on one thread: `steps` takes those of a stretch.

    It is to be called descend_ and the name of the module of `steps`.
    """

    def descend(weights, average, scratch, rows, l2, own, bias):
        weights, average = by_address(weights), by_address(average)
        scratch, rows = by_address(scratch), by_address(rows)
        sums, finite, first = (0.0, 0.0, 0.0, 0.0), True, np.int64(0)
        while finite and first < rows.order.shape[0]:
            some = by_address(stretch(rows, own, first))
            loss, hits, finite = steps(weights, average, scratch, some, l2, bias)
            shrink(weights.W, own, some.step, np.int64(0), weights.W.shape[1])
            sums = with_stretch(sums, first, loss, hits)
            first += some.order.shape[0]
        return sums[0] + sums[2], sums[1] + sums[3], finite

    descend.__module__ = steps.__module__
    descend.__name__ = descend.__qualname__ = f"descend_{steps.__module__.rpartition('.')[2]}"
    return kernel(EXACT, entry=True)(descend)
