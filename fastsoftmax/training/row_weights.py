"""The only place that says what each row weighs in training."""

from __future__ import annotations

import numpy as np

from fastsoftmax.data.loading.shuffle_buffer import Window


class RowWeights:
    """Weights of rows in units of the mean weight; 0 where held out."""

    def __init__(self, factors: np.ndarray | None, unit: float) -> None:
        """factors (K,): of the classes, or None. unit: the mean weight."""
        self._factors, self._unit = factors, unit
        self._ones = np.ones(0)

    def fresh(self) -> RowWeights:
        """Return the same for another thread."""
        return RowWeights(self._factors, self._unit)

    def of(self, window: Window, order: np.ndarray) -> np.ndarray:
        """Return the weights (n,) of some rows of a window."""
        held = window.held
        if window.weights is None and self._factors is None:
            if len(self._ones) != len(order):
                self._ones = np.ones(len(order))
            if held is None:
                return self._ones
            weight = np.ones(len(order))
        else:
            weight = np.ones(len(order)) if window.weights is None else window.weights[order]
            if self._factors is not None:
                weight = weight * self._factors[window.labels[order]]
            weight /= self._unit
        if held is not None:
            weight[held[order]] = 0.0
        return weight

    def times(self, seen: int, weight: np.ndarray) -> np.ndarray:
        """Return how many rows will have been seen before each row of these weights (n,)."""
        if weight is self._ones:
            return np.arange(seen, seen + len(weight))
        counted = weight > 0
        return seen + np.cumsum(counted) - counted
