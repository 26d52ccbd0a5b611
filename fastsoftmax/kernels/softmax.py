"""The only place for exp: of a vector of non-positive numbers, as softmax needs it."""

from __future__ import annotations

import math

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.later import chosen_by_type, types
from fastsoftmax.kernels.vectors import (
    fma,
    scale,
    splat,
    zero_below,
)

# ln 2 in two parts: n times the first is exact for every n that occurs (Cody and Waite, Software
# Manual for the Elementary Functions, 1980, chapter 6).
LN2_HIGH_32, LN2_LOW_32 = 0.693359375, -2.12194440054690583e-4
LN2_HIGH_64, LN2_LOW_64 = 0.693145751953125, 1.42860682030941723212e-6
LOG2_E = 1 / math.log(2)
# Adding 1.5 2^23 (2^52) rounds to an integer and leaves it in the low bits.
ROUND_32, ROUND_64 = 1.5 * 2**23, 1.5 * 2**52
# Below these exp is subnormal: 0 here.
LOWEST_32, LOWEST_64 = -87.0, -708.0


@kernel(EXACT)
def exp_32(x):
    """Return exp(x) for a float32 vector with x <= 0, within one ulp; 0 below LOWEST_32.

    Polynomial: Chebyshev fit of exp on [-ln 2 / 2, ln 2 / 2], error 2e-9.
    """
    shift = splat(x, ROUND_32)
    t = fma(x, splat(x, LOG2_E), shift)
    n = t - shift
    r = fma(n, splat(x, -LN2_HIGH_32), x)
    r = fma(n, splat(x, -LN2_LOW_32), r)
    # A call of the C library for each class takes 2 to 3 ns, this 0.12 where K = 1,000.
    p = splat(x, 0.0013941118895837)
    p = fma(p, r, splat(x, 0.00837513477462432517))
    p = fma(p, r, splat(x, 0.0416663527711122113))
    p = fma(p, r, splat(x, 0.166664154140411784))
    p = fma(p, r, splat(x, 0.500000004714605742))
    p = fma(p, r, splat(x, 1.00000003773887126))
    p = fma(p, r, splat(x, 1.0))
    return zero_below(x, splat(x, LOWEST_32), scale(p, t))


@kernel(EXACT)
def exp_64(x):
    """Return exp(x) for a float64 vector with x <= 0, within one ulp; 0 below LOWEST_64.

    Polynomial: Chebyshev fit of exp on [-ln 2 / 2, ln 2 / 2], error 4e-20.
    """
    shift = splat(x, ROUND_64)
    t = fma(x, splat(x, LOG2_E), shift)
    n = t - shift
    r = fma(n, splat(x, -LN2_HIGH_64), x)
    r = fma(n, splat(x, -LN2_LOW_64), r)
    p = splat(x, 2.0921588938971492377e-9)
    p = fma(p, r, splat(x, 2.5114882095880340225e-8))
    p = fma(p, r, splat(x, 2.7557251877225082805e-7))
    p = fma(p, r, splat(x, 2.7557224920652138562e-6))
    p = fma(p, r, splat(x, 2.4801587350139931374e-5))
    p = fma(p, r, splat(x, 1.9841269909257902924e-4))
    p = fma(p, r, splat(x, 1.3888888888871874609e-3))
    p = fma(p, r, splat(x, 8.3333333333095080192e-3))
    p = fma(p, r, splat(x, 4.1666666666666692218e-2))
    p = fma(p, r, splat(x, 0.16666666666666702447))
    p = fma(p, r, splat(x, 0.49999999999999999989))
    p = fma(p, r, splat(x, 1.0))
    p = fma(p, r, splat(x, 1.0))
    return zero_below(x, splat(x, LOWEST_64), scale(p, t))


def exp(x):
    """Return exp(x) for a vector with x <= 0, in its own precision."""
    return exp_32(x) if x.dtype == np.float32 else exp_64(x)


@chosen_by_type(exp)
def _typed_exp(x):
    if x.dtype == types.float32:
        return lambda x: exp_32(x)
    return lambda x: exp_64(x)
