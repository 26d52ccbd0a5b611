"""The only place that scores rows by the kernels: at weights that stay, nothing learnt.

Z (B, width) holds margins, R (B, width) logits, then exponentials; widths are K rounded up to whole
vectors. Sums over rows are float64 and grow row by row, so that no cut between calls shows in them.
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.compile import EXACT, FAST, kernel
from fastsoftmax.kernels.gather import gather
from fastsoftmax.kernels.products import all_margins
from fastsoftmax.kernels.recurrence import plain_logits
from fastsoftmax.kernels.softmax import exp
from fastsoftmax.kernels.vectors import (
    address_of,
    first_equal,
    lanes,
    largest,
    load,
    maximum,
    noinline,
    splat,
    store,
    total,
)

# Sums over rows of weight w > 0. facts (5,): w, w loss (nats), w [hit], w [rank < top], w prior
# loss. rows (1,): how many. classes (3, K): w by true class, by predicted class, by class where it
# is hit. table (K, K): w by both; (0, 0) where not asked for. bins (3, n): w, w confidence and
# w [hit] by confidence; bin_rows (n,): how many.
JudgedSums = namedtuple("JudgedSums", "facts rows classes table bins bin_rows")


def new_judged_sums(K: int, bins: int, *, tabulate: bool) -> JudgedSums:
    """Return sums over no rows."""
    side = K if tabulate else 0
    return JudgedSums(
        np.zeros(5),
        np.zeros(1, np.int64),
        np.zeros((3, K)),
        np.zeros((side, side)),
        np.zeros((3, bins)),
        np.zeros(bins, np.int64),
    )


@kernel(FAST)
def _is_finite(R, t, K):
    """Return whether all logits of row t are finite; those of padding classes are not."""
    # Not a sum of 0 x, which LLVM 14 takes for 0 where it may be summed in any order.
    fitting, most = 0, R.dtype.type(np.inf)
    for k in range(K):
        fitting += abs(R[t, k]) < most
    return fitting == K


@kernel(EXACT)
def _highest(R, t):
    """Return the largest of row t."""
    top = load(R, t, 0)
    for k in range(lanes(R), R.shape[1], lanes(R)):
        top = maximum(top, load(R, t, k))
    return largest(top)


@kernel(EXACT)
def _first_of(R, t, value):
    """Return the first class at which row t is `value`, or 0."""
    step = lanes(R)
    for k in range(0, R.shape[1], step):
        lane = first_equal(load(R, t, k), value)
        if lane < step:
            return k + lane
    return 0


@kernel(EXACT)
def _exponentials(R, t, highest):
    """Turn logits R[t] into exp(z - highest); return their sum."""
    shift, sums = splat(R, highest), splat(R, 0.0)
    for k in range(0, R.shape[1], lanes(R)):
        e = exp(load(R, t, k) - shift)
        store(R, t, k, e)
        sums = sums + e
    return total(sums)


@kernel(EXACT)
def _logits(weights, block, rows, first, count):
    """Set R to the logits of `count` rows of the table; return whether all is finite."""
    noinline()
    X, Z, R, K = block.X[0], block.Z, block.R, weights.W.shape[0]
    finite = gather(X, np.int64(0), count, rows.order, first, rows.table)
    all_margins(Z, X, weights.W, count, address_of(block.lines, 0, 0))
    for t in range(count):
        plain_logits(R, Z, weights.b, t)
        finite &= _is_finite(R, t, K)
    return finite


@kernel(EXACT, entry=True)
def logits_of_rows(out, weights, block, rows):
    """Set out (n, K) to the logits of rows; return whether features and logits are all finite, and
    end where they are not.
    """
    n, B = out.shape[0], block.Z.shape[0]
    for first in range(0, n, B):
        count = min(B, n - first)
        if not _logits(weights, block, rows, first, count):
            return False
        for t in range(count):
            for k in range(out.shape[1]):
                out[first + t, k] = block.R[t, k]
    return True


@kernel(EXACT, entry=True)
def probabilities_of_rows(out, best, weights, block, rows):
    """Set out (n, K) to the probabilities of rows, best (n,) to the first class of the largest.

    Return whether features and logits are all finite, and end where they are not.
    """
    n, B, R = out.shape[0], block.Z.shape[0], block.R
    one = out.dtype.type(1)
    for first in range(0, n, B):
        count = min(B, n - first)
        if not _logits(weights, block, rows, first, count):
            return False
        for t in range(count):
            inverse = one / _exponentials(R, t, _highest(R, t))
            # The largest of the exponentials is exactly 1.
            best[first + t] = _first_of(R, t, one)
            for k in range(out.shape[1]):
                out[first + t, k] = R[t, k] * inverse
    return True


@kernel(FAST)
def _rank(R, t, K, y):
    """Return how many classes stand before y in row t: larger, or equal and before it."""
    own, rank = R[t, y], 0
    for k in range(y):
        rank += R[t, k] >= own
    for k in range(y + 1, K):
        rank += R[t, k] > own
    return rank


@kernel(EXACT, entry=True)
def judge_rows(sums, weights, block, rows, top, prior):
    """Add rows of positive weight to the sums, by their classes rows.y.

    top: of a hit among the `top` most probable; 0 where not asked for. prior (K,): the loss of a
    row of each class. Return whether features and logits are all finite, and end where they are
    not: NaN have no class.
    """
    n, B, R, K = rows.order.shape[0], block.Z.shape[0], block.R, weights.W.shape[0]
    facts, bins = sums.facts, sums.bins.shape[1]
    for first in range(0, n, B):
        count = min(B, n - first)
        if not _logits(weights, block, rows, first, count):
            return False
        for t in range(count):
            w, y = rows.weight[first + t], rows.y[first + t]
            if w <= 0:
                continue
            highest, z_y = _highest(R, t), R[t, y]
            guess = _first_of(R, t, highest)
            hit = w if guess == y else 0.0
            if top > 0 and _rank(R, t, K, y) < top:
                facts[3] += w
            mass = np.float64(_exponentials(R, t, highest))
            sums.rows[0] += 1
            facts[0] += w
            facts[1] += w * (math.log(mass) + (np.float64(highest) - np.float64(z_y)))
            facts[2] += hit
            facts[4] += w * prior[y]
            sums.classes[0, y] += w
            sums.classes[1, guess] += w
            sums.classes[2, y] += hit
            if sums.table.shape[0] > 0:
                sums.table[y, guess] += w
            confidence = 1 / mass
            at = min(np.int64(math.ceil(confidence * bins)) - 1, bins - 1)
            sums.bins[0, at] += w
            sums.bins[1, at] += w * confidence
            sums.bins[2, at] += hit
            sums.bin_rows[at] += 1
    return True
