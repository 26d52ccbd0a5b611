"""The only place that says how features are brought to one scale while a model trains.

x' = (x - centre) scale changes the path of training, never the model that is sought: the weights of
x' are mapped back into raw units exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

OF_COLUMNS = {"shape": ("d",), "dtype": "float64"}  # what a stored one must be like


@dataclass(frozen=True)
class Scaling:
    """centre, scale (d,) float64: the features are (x - centre) scale.

    Columns of few digits have a centre and a scale of the model's dtype, in which they are
    scaled; those of more digits are scaled in float64.
    """

    centre: np.ndarray = field(metadata=OF_COLUMNS)
    scale: np.ndarray = field(metadata=OF_COLUMNS)

    def apply(self, X: np.ndarray) -> np.ndarray:
        """Return (X - centre) scale in float64."""
        return (X.astype(np.float64) - self.centre) * self.scale

    def raw(self, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and biases for raw features, float64, from those for x'."""
        coef = W.astype(np.float64) * self.scale
        return coef, b.astype(np.float64) - coef @ self.centre

    def scaled(self, coef: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and biases for x', float64, from those for raw features."""
        return coef / self.scale, intercept + coef @ self.centre


@dataclass(frozen=True)
class Moments:
    """What is known of columns (d,) float64: mean, deviation, largest distance from the mean."""

    mean: np.ndarray = field(metadata=OF_COLUMNS)
    deviation: np.ndarray = field(metadata=OF_COLUMNS)
    reach: np.ndarray = field(metadata=OF_COLUMNS)

    def scaling(
        self, dtype: np.dtype[Any], wide: np.ndarray, *, centred: bool, scaled: bool
    ) -> Scaling:
        """Return what brings the columns to one scale; wide (d,): those of more than 24 bits.

        The scale is 1 / sqrt(deviation reach). To divide by the deviation alone lets training
        diverge where a feature is rare (its few values become huge), and to divide by the reach
        leaves columns with a long tail behind. Unscaled columns share one factor.
        """
        spread = np.sqrt(self.deviation) * np.sqrt(self.reach)
        if not scaled:
            largest = spread.max(initial=0.0) or 1.0
            common = largest * np.sqrt(np.mean(np.square(spread / largest)))
            spread = np.full_like(spread, common)
        # A column that never changes has no scale of its own: any will do.
        spread = np.where(spread > 0, spread, np.where(self.mean != 0, np.abs(self.mean), 1.0))
        centre = self.mean if centred else np.zeros_like(self.mean)
        scale = 1.0 / np.maximum(spread, 1e-300)
        limits = np.finfo(dtype)
        near = np.clip(scale, float(limits.tiny), float(limits.max)).astype(dtype)
        with np.errstate(over="ignore"):  # of wide columns, whose centre stays as it is
            centre = np.where(wide, centre, centre.astype(dtype).astype(np.float64))
        return Scaling(centre, np.where(wide, scale, near.astype(np.float64)))

    def squares(self, scaling: Scaling) -> np.ndarray:
        """Return the mean squares (d,) of the columns as scaled."""
        away = (self.mean - scaling.centre) * scaling.scale
        return np.square(self.deviation * scaling.scale) + np.square(away)
