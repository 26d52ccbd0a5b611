"""The only place that says how features are brought to one scale while a model trains.

x' = (x - centre) scale changes the path of training, never the model that is sought: the weights of
x' are mapped back into raw units exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Below this share of the largest magnitude a spread is rounding, and the column a constant.
CONSTANT = 1e-13


@dataclass(frozen=True)
class Conditioning:
    """centre, scale (d,) float64: the features are (x - centre) scale.

    Both are numbers of the model's dtype, so that they mean the same in any precision.
    """

    centre: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, centre: np.ndarray, scale: np.ndarray, dtype: Any) -> Conditioning:
        """Return the conditioning that numbers of `dtype` hold."""
        kept = (np.asarray(values).astype(dtype).astype(np.float64) for values in (centre, scale))
        return cls(*kept)

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return (X - centre) scale in float64."""
        return (X.astype(np.float64) - self.centre) * self.scale

    def raw(self, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and biases for raw features, float64, from those for x'."""
        coef = W.astype(np.float64) * self.scale
        return coef, b.astype(np.float64) - coef @ self.centre

    def conditioned(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and biases for x', float64, from those for raw features."""
        return coef / self.scale, intercept + coef @ self.centre


@dataclass(frozen=True)
class Moments:
    """What is known of columns (d,) float64: mean, deviation, largest distance from the mean."""

    mean: np.ndarray
    deviation: np.ndarray
    reach: np.ndarray

    def conditioning(self, dtype: Any, *, centred: bool, scaled: bool) -> Conditioning:
        """Return what brings the columns to one scale.

        The scale is 1 / sqrt(deviation reach). To divide by the deviation alone lets training
        diverge where a feature is rare (its few values become huge), and to divide
        by the reach leaves columns with a long tail behind. Unscaled columns share one factor.
        """
        spread = np.sqrt(self.deviation) * np.sqrt(self.reach)
        typical = np.sqrt(np.mean(np.square(spread[spread > 0] / spread.max(initial=1.0))))
        common = typical * spread.max(initial=1.0) if (spread > 0).any() else 1.0
        if not scaled:
            spread = np.full_like(spread, common)
        # A column that never changes has no scale of its own: any will do.
        spread = np.where(spread > 0, spread, np.maximum(np.abs(self.mean), common))
        centre = self.mean if centred else np.zeros_like(self.mean)
        limits = np.finfo(np.dtype(dtype))
        scale = np.clip(1.0 / spread, float(limits.tiny) * 1e4, float(limits.max) / 1e4)
        centre = np.clip(centre, -float(limits.max), float(limits.max))
        return Conditioning.of(centre, scale, dtype)


def moments(columns: np.ndarray, weight: np.ndarray) -> Moments:
    """Return the moments of columns (n, d), any numbers, with weights (n,) >= 0.

    Columns are divided by their largest magnitude first, so that no finite number overflows.
    """
    X = columns.astype(np.float64)
    largest = np.abs(X).max(axis=0, initial=0.0)
    unit = np.where(largest > 0, largest, 1.0)
    X /= unit
    total = weight.sum() or 1.0
    mean = weight @ X / total
    X -= mean
    reach = np.abs(X[weight > 0]).max(axis=0, initial=0.0)
    deviation = np.sqrt(weight @ np.square(X, out=X) / total)
    constant = reach <= CONSTANT
    deviation[constant] = reach[constant] = 0.0
    return Moments(mean * unit, deviation * unit, reach * unit)
