"""The only place that keeps a row from stepping too far: by a cap, or by a step of its own making.

A step changes the row's own logits by -step (bias + ||x||^2) g, where step is eta times the row's
weight. A cap keeps that factor at most 1. An implicit step takes g where it ends, not where it
begins: a = q m + b, m the margin without b, and z' = a - s g(z'), s = step (bias + ||x||^2), which
minimises |z' - a|^2 / 2 + s loss(z'). (Kulis and Bartlett, Implicit online learning, ICML 2010;
Toulis and Airoldi, Asymptotic and finite-sample properties of estimators based on stochastic
gradients, Annals of Statistics 45(4), 2017.)
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.softmax import exp
from fastsoftmax.kernels.vectors import (
    first_lane,
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

# How the steps of a call are bounded; 0 tells nothing to do.
OFF, CAP, IMPLICIT = 0, 1, 2
# The largest s. An implicit step of 10^6 ends at a loss of about 10^-5: a longer one ends nearby,
# and float32 would not tell where.
CAPPED, FARTHEST = 1.0, 1e6
# Newton's steps to z', and halvings of one: up to s = 10^6 and logits of 1,000, 38 were taken in
# all but 9 halvings each; with s below 10, 3 to 7 without one.
ROUNDS, HALVINGS = 40, 40
# Of the slope along a step of Newton's: one that ends on a steeper slope upwards is too long. The
# slope keeps its digits near the end, where differences of the minimised lose them.
UPWARDS = 0.25
# The rows of scratch: z' - a, the residuals there, the step of Newton's, and a.
SHIFT, AT, ALONG, START = 0, 1, 2, 3
TRIAL_ROWS = 4


@kernel(EXACT)
def squared_norm(X, t, width):
    """Return ||X[t, :width]||^2, added up in a fixed order."""
    step, zero = lanes(X), splat(X, X.dtype.type(0))
    # Four sums: one would wait for itself at each vector.
    first, second, third, fourth = zero, zero, zero, zero
    whole = width - width % (4 * step)
    for j in range(0, whole, 4 * step):
        x = load(X, t, j)
        first = fma(x, x, first)
        x = load(X, t, j + step)
        second = fma(x, x, second)
        x = load(X, t, j + 2 * step)
        third = fma(x, x, third)
        x = load(X, t, j + 3 * step)
        fourth = fma(x, x, fourth)
    for j in range(whole, width, step):
        x = load(X, t, j)
        first = fma(x, x, first)
    return total((first + second) + (third + fourth))


@kernel(EXACT)
def set_diagonal(G, X, first, count, width):
    """Set G[t, t] = ||X[t, :width]||^2 for `count` rows from `first` on."""
    noinline()
    for t in range(first, first + count):
        G[t, t] = squared_norm(X, t, width)


@kernel(EXACT)
def bounded(step, norm, bound):
    """Return a row's step, or the longest it may take; norm: bias + ||x||^2."""
    most = CAPPED if bound == CAP else FARTHEST
    return most / norm if step * norm > most else step


@kernel(EXACT)
def bound_steps(rows, G, first, count, bias):
    """Make no step of a block longer than it may be; the diagonal of G holds ||x||^2."""
    noinline()
    for t in range(count):
        norm = bias + np.float64(G[t, t])
        rows.step[first + t] = bounded(rows.step[first + t], norm, rows.bound)


@kernel(EXACT)
def _residuals(trial, y, share):
    """Set trial[AT] = softmax - onehot(y) at a + shift + share along; return the y-th probability.

    The y-th is summed from the others: 1 - p loses all digits where a step ends near p = 1.
    """
    width, step = trial.shape[1], lanes(trial)
    part = splat(trial, share)
    top = splat(trial, trial[START, y])
    for k in range(0, width, step):
        shift = fma(part, load(trial, ALONG, k), load(trial, SHIFT, k))
        z = load(trial, START, k) + shift
        store(trial, AT, k, z)
        top = maximum(z, top)
    highest, zero = splat(trial, largest(top)), splat(trial, trial.dtype.type(0))
    for k in range(0, width, step):
        store(trial, AT, k, exp(load(trial, AT, k) - highest))
    true, trial[AT, y] = trial[AT, y], trial.dtype.type(0)
    sums = zero
    for k in range(0, width, step):
        sums = sums + load(trial, AT, k)
    others = total(sums)
    mass = true + others
    inverse = splat(trial, trial.dtype.type(1) / mass)
    for k in range(0, width, step):
        store(trial, AT, k, load(trial, AT, k) * inverse)
    trial[AT, y] = -others / mass
    return true / mass


@kernel(EXACT)
def _aim(trial, y, p_y, s):
    """Set trial[ALONG] to Newton's step; return the slope along it and its largest number.

    The Hessian I + s (diag(p) - p p^T) is inverted by the formula of Sherman and Morrison, in
    which 1 - sum s p^2 / (1 + s p) = sum p / (1 + s p) loses no digits.
    """
    width, step = trial.shape[1], lanes(trial)
    zero, one = splat(trial, trial.dtype.type(0)), splat(trial, trial.dtype.type(1))
    times, true = splat(trial, s), splat(trial, p_y)
    above, below = zero, zero
    for k in range(0, width, step):
        g, hot = load(trial, AT, k), one_hot(trial, k, y)
        p = (one - hot) * g + hot * true
        share = p / fma(times, p, one)
        above = fma(share, fma(times, g, load(trial, SHIFT, k)), above)
        below = below + share
    ratio = splat(trial, s * total(above) / total(below))
    slope, far = zero, zero
    for k in range(0, width, step):
        g, hot = load(trial, AT, k), one_hot(trial, k, y)
        p = (one - hot) * g + hot * true
        downhill = fma(times, g, load(trial, SHIFT, k))
        along = zero - fma(ratio, p, downhill) / fma(times, p, one)
        store(trial, ALONG, k, along)
        slope = fma(downhill, along, slope)
        far = maximum(along, maximum(zero - along, far))
    return total(slope), largest(far)


@kernel(EXACT)
def _slope(trial, s, share):
    """Return the slope along Newton's step after a share of it."""
    times, part = splat(trial, s), splat(trial, share)
    sums = splat(trial, trial.dtype.type(0))
    for k in range(0, trial.shape[1], lanes(trial)):
        along = load(trial, ALONG, k)
        shift = fma(part, along, load(trial, SHIFT, k))
        sums = fma(fma(times, load(trial, AT, k), shift), along, sums)
    return total(sums)


@kernel(EXACT)
def _clear(trial, row):
    for k in range(0, trial.shape[1], lanes(trial)):
        store(trial, row, k, splat(trial, trial.dtype.type(0)))


@kernel(EXACT)
def solve_implicit(trial, y, s):
    """Set trial[AT] = g(z') where z' = a - s g(z'), a in trial[START], by damped steps of Newton's.

    A loss of softmax is convex and its Hessian is diagonal but for one vector, so that a step costs
    what another look at the logits does.
    """
    noinline()
    kind = trial.dtype.type
    one, half = kind(1), kind(0.5)
    tiny = kind(4.0 * np.finfo(trial.dtype).eps)
    s = kind(s)
    _clear(trial, SHIFT)
    _clear(trial, ALONG)
    p_y = _residuals(trial, y, one)
    for _ in range(ROUNDS):
        slope, far = _aim(trial, y, p_y, s)
        share = one
        p_y = _residuals(trial, y, share)
        for _ in range(HALVINGS):
            if _slope(trial, s, share) <= -kind(UPWARDS) * slope:
                break
            share = share * half
            p_y = _residuals(trial, y, share)
        part = splat(trial, share)
        for k in range(0, trial.shape[1], lanes(trial)):
            store(trial, SHIFT, k, fma(part, load(trial, ALONG, k), load(trial, SHIFT, k)))
        size = one + abs(trial[START, y]) + abs(trial[SHIFT, y])
        if share * far <= tiny * size:
            break


@kernel(EXACT)
def implicit_miss(X, towards, s):
    """Return 1 / (1 + exp(z')) where z' = towards + 2 s / (1 + exp(z')): two classes, of X's dtype.

    Newton's steps between two ends that close in: z' lies above `towards`, and below it by as much
    as a plain step would go.
    """
    zero, one, half = X.dtype.type(0), X.dtype.type(1), X.dtype.type(0.5)
    double = X.dtype.type(2) * X.dtype.type(s)
    tiny = X.dtype.type(2.0 * np.finfo(X.dtype).eps)
    z, low, high = towards, towards, towards
    miss = one
    for turn in range(2 * ROUNDS):
        e = first_lane(exp(splat(X, -abs(z))))
        miss = (e if z >= zero else one) / (one + e)
        above = (z - towards) - double * miss
        if turn == 0:
            high = towards + double * miss
        elif above > zero:
            high = z
        else:
            low = z
        ahead = z - above / (one + double * miss * (one - miss))
        if not (low < ahead and ahead < high):
            ahead = low + half * (high - low)
        if abs(ahead - z) <= tiny * (one + abs(z)):
            break
        z = ahead
    return miss
