"""The only place for the values that kernels of sparse rows share: weights by feature, and sums."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.bounds import TRIAL_ROWS
from fastsoftmax.kernels.workspace import aligned, padded, row_length

# Where the numbers of `state` stand: s, sigma, H, P and how many steps are averaged. For `waiting`,
# with u = (H - MIDDLE) / HALF: (-u)^k / k!, k < TERMS, after the last step, from LAST on, and from
# SUMS on the sums of these over steps.
S, SIGMA, H, P, STEPS, MIDDLE, HALF, LAST = range(8)
TERMS = 11
SUMS = LAST + TERMS
# What penalties that wait are of a feature: l2, l1, since when they do (H where l2 > 0, else P) and
# what the mean may miss. They lie together, for else each would be a line of memory to fetch.
L2, L1, SINCE, MISSED = range(4)
WAITING = 4


# Classes, since their values then have room for what `frames` remembers of them.
class FeatureWeights(namedtuple("FeatureWeights", "V b R trial state")):
    """V (d, columns) and b (1, width); scratch R (1, width) and trial; state float64.

    columns: width, or 1 where there are two classes that mirror each other (see `list_products`).
    """


class FeatureAverage(namedtuple("FeatureAverage", "U A b")):
    """U (d, columns); A (d, columns) and b (K,), the sums that are settled, float64."""


def _new_columns(d: int, columns: int, kind: np.dtype) -> np.ndarray:
    """Return zeros (d, columns)."""
    # The features of a row are read side by side: 2,048 bytes apart, they got in each other's way.
    return aligned((d, row_length(columns, kind) if columns > 1 else 1), kind)[:, :columns]


def columns_of(K: int, dtype: np.dtype, *, mirrored: bool) -> int:
    """Return how many numbers V has of a feature."""
    return 1 if mirrored else padded(K, dtype)


def new_feature_weights(
    K: int, d: int, dtype: np.dtype, *, mirrored: bool = False
) -> FeatureWeights:
    """Return zero weights and biases for K classes and d features; padding biases are -inf.

    mirrored: of two classes the second has the first one's weights with another sign.
    """
    width = padded(K, dtype)
    b = aligned((1, width), dtype)
    b[0, K:] = -np.inf
    state = np.zeros(SUMS + TERMS)
    state[S] = 1.0
    return FeatureWeights(
        _new_columns(d, columns_of(K, dtype, mirrored=mirrored), dtype),
        b, aligned((1, width), dtype), aligned((TRIAL_ROWS, width), dtype), state,
    )  # fmt: skip


def new_feature_average(
    K: int, d: int, dtype: np.dtype, *, mirrored: bool = False
) -> FeatureAverage:
    """Return the sums over no step; mirrored: see `new_feature_weights`."""
    columns = columns_of(K, dtype, mirrored=mirrored)
    U, A = (_new_columns(d, columns, kind) for kind in (dtype, np.dtype(np.float64)))
    return FeatureAverage(U, A, np.zeros(K))


def new_penalties(l2: np.ndarray, l1: np.ndarray) -> np.ndarray:
    """Return penalties (d,) that wait, as kernels take them: (d, WAITING)."""
    waiting = aligned((len(l2), WAITING), np.dtype(np.float64))
    waiting[:, L2], waiting[:, L1] = l2, l1
    return waiting
