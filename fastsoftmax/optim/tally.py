"""The only place for what rows add up to while they are visited: losses, hits, weight."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastsoftmax.facts import dataclass


class Tally(NamedTuple):
    """Facts of some rows: weighted loss (nats), weighted hits, whether all numbers were finite."""

    loss: float
    hits: float
    finite: bool

    def with_more(self, other: Tally) -> Tally:
        """Return the facts of both."""
        finite = self.finite and other.finite
        return Tally(self.loss + other.loss, self.hits + other.hits, finite)


@dataclass
class RunningLoss:
    """Weighted loss, hits and weight of some rows; rows of weight 0 are not counted."""

    loss: float = 0.0
    hits: float = 0.0
    weight: float = 0.0
    rows: int = 0
    parts: int = 0  # that it was added up from
    squares: float = 0.0  # of the parts' mean losses, times their weights

    @classmethod
    def of(cls, tally: Tally, weight: np.ndarray) -> RunningLoss:
        """Return the facts of rows of these weights: one part."""
        total, rows = float(weight.sum()), int(np.count_nonzero(weight))
        if total <= 0:
            return cls(tally.loss, tally.hits, total, rows)
        return cls(tally.loss, tally.hits, total, rows, 1, tally.loss**2 / total)

    def __add__(self, other: RunningLoss) -> RunningLoss:
        """Return the facts of both."""
        return RunningLoss(
            self.loss + other.loss,
            self.hits + other.hits,
            self.weight + other.weight,
            self.rows + other.rows,
            self.parts + other.parts,
            self.squares + other.squares,
        )

    def error(self) -> float | None:
        """Return the standard error of the mean loss, from those of the parts; None of one part."""
        if self.parts < 2:
            return None
        mean = self.means()[0]
        spread = max(0.0, self.squares / self.weight - mean * mean)
        return math.sqrt(spread / (self.parts - 1))

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy."""
        weight = self.weight or 1.0
        return self.loss / weight, self.hits / weight
