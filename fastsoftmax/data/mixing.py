"""The only place that measures mixing: how near the labels of rows read together are to the whole.

The distance of two label mixes is their total variation: half the sum of |p - q| over the classes.
"""

from __future__ import annotations

import math

import numpy as np

from fastsoftmax.facts import dataclass

SEGMENT = 16384  # consecutive rows that are counted together
BINS = 64  # numbers kept of a segment: where classes are more, some share one
POOR = 0.8  # a mixing below is worth a warning


@dataclass(frozen=True)
class Segments:
    """Consecutive rows of one piece each, and their labels.

    pieces: (S,) int64, the piece that each is of, ascending. counts: (S, bins) int32, rows of each
    class, or of the classes that share a bin.
    """

    pieces: np.ndarray
    counts: np.ndarray


def bins_of(at: np.ndarray) -> np.ndarray:
    """Return the bins of classes (n,): neighbours apart, since files are often sorted."""
    if at.max(initial=0) < BINS:
        return at
    with np.errstate(over="ignore"):
        spread = at.astype(np.uint32) * np.uint32(0x9E3779B1) >> np.uint32(26)
    return np.where(at < BINS, at, spread.astype(np.int64))


def distance(counts: np.ndarray, whole: np.ndarray) -> float:
    """Return how far these rows' label mix is from the whole's: 0 as drawn by chance, 1 disjoint.

    counts, whole: (K,) rows of each class. What chance alone makes of so few rows is taken off: a
    mean of sqrt(p (1 - p) / (2 pi n)) a class.
    """
    rows, p = counts.sum(), whole / whole.sum()
    if not rows:
        return 0.0
    found = 0.5 * float(np.abs(counts / rows - p).sum())
    chance = min(float(np.sqrt(p * (1 - p)).sum()) / math.sqrt(2 * math.pi * float(rows)), 1.0)
    return max(found - chance, 0.0) / (1.0 - chance) if chance < 1.0 else 0.0


class Mixing:
    """The mixing of the windows of an epoch: 1 where all are as if drawn by chance."""

    def __init__(self, whole: np.ndarray) -> None:
        """Compare with the class counts (K,) of all rows."""
        self._whole, self._rows, self._sum = whole, 0, 0.0

    def add(self, counts: np.ndarray) -> None:
        """Take in a window's rows of each class (K,)."""
        rows = int(counts.sum())
        self._rows += rows
        self._sum += rows * distance(counts, self._whole)

    def __add__(self, other: Mixing) -> Mixing:
        """Return the mixing of the windows of both, which are of the same whole."""
        if not np.array_equal(self._whole, other._whole):
            raise ValueError("the windows are compared with other rows")
        merged = Mixing(self._whole)
        merged._rows, merged._sum = self._rows + other._rows, self._sum + other._sum
        return merged

    def state(self) -> tuple[int, float]:
        """Return what was taken in so far."""
        return self._rows, self._sum

    def restore(self, state: tuple[int, float]) -> None:
        """Go on from a state."""
        self._rows, self._sum = state

    @property
    def value(self) -> float:
        """One less the mean distance of the rows' windows from the whole."""
        return 1.0 - self._sum / self._rows if self._rows else 1.0


def expected_mixing(segments: Segments, order: np.ndarray, window: int) -> float:
    """Return the mixing of windows of so many rows, the pieces being read in this order."""
    mixing = Mixing(segments.counts.sum(axis=0))
    bounds = np.searchsorted(segments.pieces, [order, order + 1])
    filling, rows = np.zeros(segments.counts.shape[1]), 0
    for first, stop in bounds.T:
        for counts in segments.counts[first:stop]:
            filling += counts
            rows += int(counts.sum())
            if rows >= window:
                mixing.add(filling)
                filling, rows = np.zeros(segments.counts.shape[1]), 0
    if rows:
        mixing.add(filling)
    return mixing.value
