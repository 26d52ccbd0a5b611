"""The only place where rows of a block depend on each other: logits, residuals, biases, in turn.

R (B, width) holds the scaled residuals -eta w (p - onehot(y)): what a row adds to b, and, times
x, to W. Widths are K rounded up to whole vectors; the bias of a padding class is -inf.
"""

from __future__ import annotations

import math

import numpy as np

from fastsoftmax.kernels.bounds import (
    AT,
    IMPLICIT,
    OFF,
    START,
    bound_steps,
    solve_implicit,
)
from fastsoftmax.kernels.compile import EXACT, FAST, kernel
from fastsoftmax.kernels.products import couple
from fastsoftmax.kernels.sizes import ROW_TILE
from fastsoftmax.kernels.softmax import exp
from fastsoftmax.kernels.vectors import (
    address_of,
    first_equal,
    fma,
    lanes,
    largest,
    load,
    maximum,
    noinline,
    one_hot,
    splat,
    store,
    total,
)


# Decays are running products, never ratios of two: q may be 0.
@kernel(FAST)
def decay_gram(G, step, l2, first, count):
    """Multiply G[s, t] by q_{s+1} ... q_{t-1}, for s < t < count."""
    for s in range(count):
        decay = 1.0
        for t in range(s + 1, count):
            G[s, t] *= G.dtype.type(decay)
            decay *= max(0.0, 1.0 - step[first + t] * l2)


@kernel(EXACT)
def is_hit(R, t, y, z_y, highest):
    """Return whether y is the first class with the highest logit of row t."""
    if z_y != highest:
        return False
    # Of equal logits the first class is the one predicted, as by argmax.
    step = lanes(R)
    for k in range(0, R.shape[1], step):
        lane = first_equal(load(R, t, k), highest)
        if lane < step:
            return k + lane == y
    return False


@kernel(EXACT)
def residual(R, b, t, y, step, bias_step):
    """Turn logits R[t] into residuals -step (softmax - onehot(y)), and add bias_step of them to b.

    Return log-sum-exp minus z_y (nats) and whether y was the class predicted, both before the step.
    """
    noinline()
    width, lane_count = R.shape[1], lanes(R)
    # By vectors: a plain maximum in a loop does not vectorise, with any flags.
    top = load(R, t, 0)
    for k in range(lane_count, width, lane_count):
        top = maximum(top, load(R, t, k))
    highest = largest(top)
    # What the row loses is told by its logits, which the residuals are about to replace.
    z_y = R[t, y]
    hit = is_hit(R, t, y, z_y, highest)
    # Less the highest, no exponential overflows, whatever the logits.
    shift = splat(R, highest)
    sums = splat(R, 0.0)
    for k in range(0, width, lane_count):
        e = exp(load(R, t, k) - shift)
        store(R, t, k, e)
        sums = sums + e
    mass = total(sums)
    # One division a row; the classes are multiplied.
    one = R.dtype.type(1)
    inverse = splat(R, one / mass)
    scale = splat(R, -step)
    share = splat(R, bias_step)
    for k in range(0, width, lane_count):
        p = load(R, t, k) * inverse
        r = scale * (p - one_hot(R, k, y))
        store(R, t, k, r)
        store(b, 0, k, fma(share, r, load(b, 0, k)))
    # In float64, as all sums over rows are.
    return math.log(np.float64(mass)) + (np.float64(highest) - np.float64(z_y)), hit


LOWEST = -3e38  # a finite number of either precision


@kernel(EXACT)
def implicit_residual(R, b, trial, t, y, step, keep, norm, bias):
    """Do as `residual`, with the residuals where the step ends: of logits R[t] that are shrunk.

    keep: by how much the row's own step shrinks W. norm: bias + ||x||^2.
    """
    noinline()
    less = splat(R, R.dtype.type(keep - 1.0))
    # Padding less its bias would be no number.
    lowest = splat(R, R.dtype.type(LOWEST))
    for k in range(0, R.shape[1], lanes(R)):
        z = load(R, t, k)
        margin = maximum(z, lowest) - maximum(load(b, 0, k), lowest)
        store(trial, START, k, fma(less, margin, z))
    # Loss and prediction are those before the step: this one goes nowhere.
    row_loss, hit = residual(R, b, t, y, R.dtype.type(0), 0.0)
    solve_implicit(trial, y, step * norm)
    scale, share = splat(R, -R.dtype.type(step)), splat(R, bias)
    for k in range(0, R.shape[1], lanes(R)):
        r = scale * load(trial, AT, k)
        store(R, t, k, r)
        store(b, 0, k, fma(share, r, load(b, 0, k)))
    return row_loss, hit


@kernel(EXACT)
def plain_logits(R, Z, b, t):
    """Set R[t] = Z[t] + b."""
    for k in range(0, R.shape[1], lanes(R)):
        store(R, t, k, load(Z, t, k) + load(b, 0, k))


@kernel(EXACT)
def logits(R, Z, b, G, t):
    """Set R[t] = Z[t] + b + sum over the rows s < t of t's tile of G[s, t] R[s]."""
    noinline()
    for k in range(0, R.shape[1], lanes(R)):
        z = load(Z, t, k) + load(b, 0, k)
        # Steps of earlier tiles are in Z by now: see `couple` in `recur_wide`.
        for s in range(t - t % ROW_TILE, t):
            z = fma(splat(R, G[s, t]), load(R, s, k), z)
        store(R, t, k, z)


@kernel(EXACT)
def scale_row(R, t, factor):
    """Multiply row t of R by `factor`."""
    scale = splat(R, factor)
    for k in range(0, R.shape[1], lanes(R)):
        store(R, t, k, scale * load(R, t, k))


@kernel(EXACT)
def sum_biases(total_b, b, R, rows, first, count, bias):
    """Add to total_b what b was after each row of a block that counts, from b after all of them.

    At once for the block: thousands of additions, row by row, would lose digits.
    """
    noinline()
    counted = 0
    for t in range(first, first + count):
        counted += rows.weight[t] > 0
    if counted == 0:
        return
    times = splat(R, R.dtype.type(counted))
    for k in range(0, R.shape[1], lanes(R)):
        total = times * load(b, 0, k)
        before = 0.0
        for s in range(count):
            # Those before did without this row's step.
            total = fma(splat(R, R.dtype.type(-bias * before)), load(R, s, k), total)
            before += rows.weight[first + s] > 0
        store(total_b, 0, k, load(total_b, 0, k) + total)


@kernel(EXACT)
def add_row(total_b, b):
    """Add b to the running sum of biases."""
    for k in range(0, b.shape[1], lanes(b)):
        store(total_b, 0, k, load(total_b, 0, k) + load(b, 0, k))


@kernel(EXACT)
def kept(step, l2, first, count):
    """Return c_count = q_0 ... q_{count-1}, the share of W0 left after a block's rows."""
    share = 1.0
    for t in range(first, first + count):
        share *= max(0.0, 1.0 - step[t] * l2)
    return share


@kernel(EXACT)
def sums_simply(rows, l2, first, B):
    """Return whether the sum of W over a block is that of W after each of its B additions.

    It is where no step shrinks W, no row has weight 0 and none is missing; else it takes
    `average_coefficients`.
    """
    if l2 > 0 or first + B > rows.order.shape[0]:
        return False
    light = 0
    for t in range(first, first + B):
        light += rows.weight[t] <= 0
    return light == 0


@kernel(EXACT)
def kept_sum(rows, l2, first, count):
    """Return the sum of c_{t+1} over the rows t of the block that count."""
    share, shares = 1.0, 0.0
    for t in range(first, first + count):
        share *= max(0.0, 1.0 - rows.step[t] * l2)
        if rows.weight[t] > 0:
            shares += share
    return shares


@kernel(EXACT)
def shrink_block(Z, G, rows, first, count, l2):
    """Let the shrinking of W into the block's margins (c_t Z_t) and coupling."""
    share = 1.0
    for t in range(count):
        scale_row(Z, t, Z.dtype.type(share))
        # The row itself does not shrink what it is measured by: q_t acts on the rows after it.
        share *= max(0.0, 1.0 - rows.step[first + t] * l2)
    decay_gram(G, rows.step, l2, first, count)


@kernel(EXACT)
def average_coefficients(H, R, rows, l2, first, count):
    """Set H[s] = h_s R[s], h_s = 1 + q_{s+1} h_{s+1}: each row's share in the sum of W over the
    block's rows, of which those of weight 0 do not count (no 1 for them)."""
    h, q = 0.0, 0.0
    for s in range(count - 1, -1, -1):
        h *= q
        if rows.weight[first + s] > 0:
            h += 1.0
        q = max(0.0, 1.0 - rows.step[first + s] * l2)
        scale = splat(R, R.dtype.type(h))
        for k in range(0, R.shape[1], lanes(R)):
            store(H, s, k, scale * load(R, s, k))


@kernel(EXACT)
def shrink_residuals(R, step, l2, first, count):
    """Multiply R[s] by q_{s+1} ... q_{count-1}: what is left of its step after the block."""
    share = 1.0
    for s in range(count - 1, -1, -1):
        scale_row(R, s, R.dtype.type(share))
        share *= max(0.0, 1.0 - step[first + s] * l2)


@kernel(EXACT)
def weighted_logs(mass, weight, first, count):
    """Return sum_t weight[first + t] log mass[t]: one log for each run of rows of equal weight.

    A product of 32 sums of up to 10^9 probabilities stays finite in float64, and so does one of 128
    sums of up to 16.
    """
    logs, product = 0.0, 1.0
    for t in range(count):
        product *= mass[t]
        if t == count - 1 or weight[first + t] != weight[first + t + 1]:
            logs += weight[first + t] * math.log(product)
            product = 1.0
    return logs


@kernel(EXACT)
def residuals(R, Z, b, sum_b, mass, rows, first, count):
    """Set R to the residuals of rows that see the same weights and biases, and add them to sum_b.

    For classes that fit one vector. No row waits for another, so their exponentials overlap: of 5
    classes and 8 features a row of a full gradient takes 32 to 44 ns, 57 by `residual` each. Return
    the rows' weighted loss (nats) and hits.
    """
    noinline()
    loss, hits = 0.0, 0.0
    biases, sums = load(b, 0, 0), load(sum_b, 0, 0)
    for t in range(count):
        weight, y = rows.weight[first + t], rows.y[first + t]
        z = load(Z, t, 0) + biases
        store(R, t, 0, z)
        z_y, highest = R[t, y], largest(z)
        e = exp(z - splat(R, highest))
        sum_e = total(e)
        own = R.dtype.type(weight)
        r = fma(e, splat(R, -own / sum_e), splat(R, own) * one_hot(R, 0, y))
        store(R, t, 0, r)
        sums = sums + r
        mass[t] = sum_e
        loss += weight * (np.float64(highest) - np.float64(z_y))
        hits += weight * (first_equal(z, highest) == y)
    store(sum_b, 0, 0, sums)
    return loss + weighted_logs(mass, rows.weight, first, count), hits


@kernel(EXACT)
def recur_narrow(block, b, rows, first, count, bias):
    """Do as `recur_wide` where all classes fit one vector: residuals and biases in registers."""
    noinline()
    R, Z, G, mass = block.R, block.Z, block.G, block.mass
    loss, hits = 0.0, 0.0
    biases = load(b, 0, 0)
    share = splat(R, R.dtype.type(bias))
    r = splat(R, R.dtype.type(0))
    for t in range(count):
        row = first + t
        # What does not wait for the row before comes first: only r does.
        z = load(Z, t, 0)
        for s in range(t - 1):
            z = fma(splat(R, G[s, t]), load(R, s, 0), z)
        if t > 0:
            z = fma(splat(R, G[t - 1, t]), r, z)
        z = z + biases
        store(R, t, 0, z)
        z_y = R[t, rows.y[row]]
        highest = largest(z)
        # Padding classes have a bias of -inf: their exponentials are 0.
        e = exp(z - splat(R, highest))
        sum_e = total(e)
        step = R.dtype.type(rows.step[row])
        # -step (p - onehot(y)) with one division: p itself is not needed.
        r = fma(e, splat(R, -step / sum_e), splat(R, step) * one_hot(R, 0, rows.y[row]))
        store(R, t, 0, r)
        biases = fma(share, r, biases)
        # The logarithm is left to `weighted_logs`: one for the block instead of one a row.
        mass[t] = sum_e
        loss += rows.weight[row] * (np.float64(highest) - np.float64(z_y))
        hits += rows.weight[row] * (first_equal(z, highest) == rows.y[row])
    store(b, 0, 0, biases)
    return loss + weighted_logs(mass, rows.weight, first, count), hits


@kernel(EXACT)
def recur_wide(block, b, rows, first, count, bias):
    """Take the steps of a block's rows in turn, on margins and biases alone."""
    noinline()
    R, Z, G = block.R, block.Z, block.G
    loss, hits = 0.0, 0.0
    for t in range(count):
        # What all earlier tiles add to this one is a matrix product; only within a tile is it
        # row by row.
        if t % ROW_TILE == 0 and t > 0:
            couple(Z, t, Z.dtype.type(1), G, R, t, address_of(block.lines, 0, 0))
        logits(R, Z, b, G, t)
        row = first + t
        row_loss, hit = residual(R, b, t, rows.y[row], R.dtype.type(rows.step[row]), bias)
        loss += rows.weight[row] * row_loss
        hits += rows.weight[row] * hit
    return loss, hits


@kernel(EXACT)
def recur_implicit(block, b, rows, first, count, l2, bias):
    """Do as `recur_wide`, for any number of classes, with the gradient where each step ends."""
    noinline()
    R, Z, G = block.R, block.Z, block.G
    loss, hits = 0.0, 0.0
    for t in range(count):
        if t % ROW_TILE == 0 and t > 0:
            couple(Z, t, Z.dtype.type(1), G, R, t, address_of(block.lines, 0, 0))
        logits(R, Z, b, G, t)
        row = first + t
        step = rows.step[row]
        row_loss, hit = implicit_residual(
            R, b, block.trial, t, rows.y[row], step,
            max(0.0, 1.0 - step * l2), bias + np.float64(G[t, t]), bias,
        )  # fmt: skip
        loss += rows.weight[row] * row_loss
        hits += rows.weight[row] * hit
    return loss, hits


@kernel(EXACT)
def recur(block, b, average, rows, first, count, l2, bias):
    """Take the steps of a block's rows; return their weighted loss (nats) and hits.

    Leave in R what `update` adds to W, and in average.H what it adds to the sum of W where that is
    not `sums_simply`.
    """
    noinline()
    R = block.R
    if rows.bound != OFF:
        bound_steps(rows, block.G, first, count, bias)
    if l2 > 0:
        shrink_block(block.Z, block.G, rows, first, count, l2)
    if rows.bound == IMPLICIT:
        loss, hits = recur_implicit(block, b, rows, first, count, l2, bias)
    elif R.shape[1] == lanes(R):
        loss, hits = recur_narrow(block, b, rows, first, count, bias)
    else:
        loss, hits = recur_wide(block, b, rows, first, count, bias)
    # Sums need each row's whole step. What is left of it after the block comes last.
    if average is not None:
        sum_biases(average.b, b, R, rows, first, count, bias)
    if average is not None and not sums_simply(rows, l2, first, R.shape[0]):
        average_coefficients(average.H, R, rows, l2, first, count)
    if l2 > 0:
        shrink_residuals(R, rows.step, l2, first, count)
    return loss, hits
