"""The only place that finds the value that training cannot use, and names where it stands."""

from __future__ import annotations

import math

import numpy as np

from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.errors import DataError
from fastsoftmax.optim.sgd import SGD

LARGEST_RATIO = 1e8  # of what the dtype holds, to the largest square of a norm


def check_features(window: Window, order: np.ndarray, dtype: np.dtype) -> None:
    """Raise DataError naming the first feature among rows that is not finite once cast."""
    for row in order:
        column = 0
        for part in window.parts:
            there, features = part.numbers(row)
            with np.errstate(over="ignore"):
                cast = features.astype(dtype)
            odd = np.flatnonzero(~np.isfinite(cast))
            if len(odd):
                names, j = window.source.feature_names, column + int(there[odd[0]])
                name = f'column "{names[j]}"' if names else f"feature {j}"
                raise DataError(
                    f"{window.place(int(row))}: {name} is {features[odd[0]]}"
                    + _remedy(float(features[odd[0]]), dtype)
                )
            column += part.width


def refuse_too_large(window: Window, order: np.ndarray, norms: np.ndarray, dtype: np.dtype) -> None:
    """Raise DataError at the first row whose products with others cannot be computed."""
    odd = np.flatnonzero(norms > np.finfo(dtype).max / LARGEST_RATIO)
    if odd.size:
        raise DataError(
            f"{window.place(int(order[odd[0]]))}: the features are so large (norm"
            f" {math.sqrt(norms[odd[0]]):.3g}) that their products do not fit"
            f" {dtype}: check them, scale them, or train with dtype=float64."
        )


def checked_norm(
    sgd: SGD, window: Window, order: np.ndarray, weight: np.ndarray, *, checks: bool = True
) -> float:
    """Return the mean of w ||x||^2 over some rows; 1 if that is 0.

    Raises DataError at the first feature that is not finite and, where `checks`, at rows too large.
    """
    norms = sgd.squared_norms(window.parts, order)
    check_features(window, order[~np.isfinite(norms)], sgd.dtype)
    if checks:
        refuse_too_large(window, order, norms, sgd.dtype)
    mean = float(weight @ norms) / max(float(np.count_nonzero(weight)), 1.0)
    return mean if 0 < mean < math.inf else 1.0


def _remedy(value: float, dtype: np.dtype) -> str:
    if math.isfinite(value):
        return f", too large for {dtype}: scale it, or train with dtype=float64."
    return ". Drop the row, or fill the value before training."
