"""The only place for step sizes as a function of the rows seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Schedule:
    """The step size after t rows, of T planned.

    constant eta0; inverse eta0 / (1 + t / halflife); linear eta0 (1 - t / T);
    cosine eta0 / 2 (1 + cos(pi t / T)).
    """

    kind: str
    eta0: float
    planned: float  # T, rows
    halflife: float  # rows

    def __call__(self, start: int, count: int) -> np.ndarray:
        """Return the steps (count,) float64 of the rows numbered start, start + 1, ..."""
        if self.kind == "constant":
            return np.full(count, self.eta0)
        t = np.arange(start, start + count, dtype=np.float64)
        if self.kind == "inverse":
            return self.eta0 / (1.0 + t / self.halflife)
        # max_seconds and resumed runs never pass T; the clamp only guards against rounding at T.
        left = np.maximum(1.0 - t / self.planned, 0.0)
        if self.kind == "linear":
            return self.eta0 * left
        return self.eta0 / 2 * (1.0 + np.cos(np.pi * (1.0 - left)))
