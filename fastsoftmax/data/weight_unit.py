"""The only place that chooses the unit of weights whose sums would leave the floats.

The unit of weights does not matter, and a power of two changes no digit. So weights of some 1e300
or 1e-300 are counted in 2^exponent, and all others as they are.
"""

from __future__ import annotations

import math

import numpy as np

LARGEST = 2.0**400  # products of two such numbers, and sums of 10^18 of them, are finite
TINIEST = 5e-324  # above 0, so that a row that counts still does


def exponent_of(largest: float) -> int:
    """Return the exponent of the unit for weights of which this is the largest; 0 for most."""
    if largest == 0 or 1 / LARGEST <= largest <= LARGEST:
        return 0
    return math.frexp(largest)[1]


def in_unit(weights: np.ndarray, exponent: int) -> np.ndarray:
    """Return weights (n,) >= 0 counted in 2^exponent; what is positive stays so."""
    if exponent == 0:
        return weights
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(weights, -exponent)
    return np.where(weights > 0, np.maximum(scaled, TINIEST), 0.0)
