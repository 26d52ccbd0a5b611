"""The only place that says which share of the rows each of several models learns from.

Each row has a number in [0, 1), drawn from the seed and its number in the source; a share is a
range of these. So shares are the same whatever the order of reading, and models that are trained
together over one read see each its own rows.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.data.loading.shuffle import uniforms
from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.data.source import LabelStats, Source
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes
from fastsoftmax.training.row_weights import RowWeights

BLOCK = 2**16  # rows whose numbers are drawn at once


@dataclass(frozen=True)
class Share:
    """The rows that are drawn in [low, high), or, `outside`, all others."""

    seed: int
    low: float
    high: float
    outside: bool = False

    def has(self, drawn: np.ndarray) -> np.ndarray:
        """Return which rows (n,) are in the share, of what was drawn for each."""
        return ((drawn >= self.low) & (drawn < self.high)) != self.outside

    def scan(self, source: Source, classes: Classes) -> LabelStats:
        """Count the labels of the share."""
        return source.scan_labels(
            classes, lambda start, count: ~self.has(uniforms(self.seed, start, count))
        )


def fold_of(drawn: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold (n,) of each row; fold f is the share [f / folds, (f + 1) / folds)."""
    edges = np.arange(1, folds) / folds
    return np.searchsorted(edges, drawn, side="right")


class Drawn:
    """What was drawn for the rows of windows: of the last one it is kept."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._last: tuple[object, np.ndarray] = (None, np.zeros(0))

    def of(self, window: Window) -> np.ndarray:
        """Return what was drawn (rows,) for each row of a window."""
        known, drawn = self._last
        if known is not window.number or len(drawn) != window.rows:
            drawn = self._draw(np.asarray(window.number(np.arange(window.rows))))
            self._last = window.number, drawn
        return drawn

    def _draw(self, numbers: np.ndarray) -> np.ndarray:
        found = np.empty(len(numbers))
        blocks = numbers // BLOCK
        order = np.argsort(blocks, kind="stable")
        starts = np.flatnonzero(np.diff(blocks[order], prepend=-1))
        for some in np.split(order, starts[1:]):
            first = int(blocks[some[0]]) * BLOCK
            found[some] = uniforms(self._seed, first, BLOCK)[numbers[some] - first]
        return found


class ShareWeights(RowWeights):
    """Weights of the rows of a share; 0 of all others."""

    def __init__(self, weights: RowWeights, drawn: Drawn, share: Share) -> None:
        """weights: of all rows, in the unit of those of the share."""
        super().__init__(None, 1.0)
        self._weights, self._drawn, self._share = weights, drawn, share

    def of(self, window: Window, order: np.ndarray) -> np.ndarray:
        """Return the weights (n,) of some rows of a window."""
        weight = self._weights.of(window, order)
        return np.where(self._share.has(self._drawn.of(window)[order]), weight, 0.0)
