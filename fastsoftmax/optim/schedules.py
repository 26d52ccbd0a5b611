"""The only place for step sizes as a function of the rows seen."""

from __future__ import annotations

import numpy as np

from fastsoftmax.facts import dataclass


@dataclass(frozen=True)
class Schedule:
    """The step size after t rows, of T planned: `eta = schedule(t)`.

    constant eta0; inverse eta0 / (1 + (before + t) / halflife); linear eta0 (1 - t / T);
    cosine eta0 / 2 (1 + cos(pi t / T)).
    """

    kind: str
    eta0: float
    planned: float  # T, rows
    halflife: float  # rows
    before: float = 0.0  # rows, that were seen in earlier runs

    def __post_init__(self) -> None:
        """Raise ValueError where rows are none."""
        if not (self.planned > 0 and self.halflife > 0):
            raise ValueError("a schedule needs rows")

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Return the steps (n,) float64 of rows before which `t` (n,) rows were seen."""
        if self.kind == "constant":
            return np.full(len(t), self.eta0)
        if self.kind == "inverse":
            return self.eta0 / (1.0 + (self.before + t) / self.halflife)
        if self.kind == "linear":
            return self.eta0 * (1.0 - t / self.planned)
        return self.eta0 / 2 * (1.0 + np.cos(np.pi * t / self.planned))
