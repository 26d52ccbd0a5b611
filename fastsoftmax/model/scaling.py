"""The only place that says how features are brought to one scale while a model trains.

x' = (x - centre) scale changes the path of training, never the model that is sought: the weights of
x' are mapped back into raw units exactly.
"""

from __future__ import annotations

from dataclasses import field

import numpy as np

from fastsoftmax.facts import dataclass

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
