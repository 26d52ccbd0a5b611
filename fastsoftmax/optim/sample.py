"""The only place that keeps some rows of a pass: those from which curvature is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.kernels.transpose import copy_matrix
from fastsoftmax.optim.preconditioner import Batch

OFFERED = 8192  # rows at a time, whose chances stay in the cache
Norms = Callable[[tuple[Part, ...], np.ndarray], np.ndarray]  # ||x||^2 (n,) of some rows


class RowSample:
    """Some rows from all over: half of them evenly, half by their squared norm.

    A row that is drawn with probability p weighs 1 / p times as much, so that sums over the sample
    are those over all rows, up to chance. Rows that are far away, and have much of the curvature,
    are hardly left out.
    """

    def __init__(self, rows: int, count: int, mean: float, norms: Norms) -> None:
        """Wait for about `count` of so many rows, whose squared norm is this in the mean, or 0."""
        self._rows, self._share = rows, min(1.0, count / max(rows, 1))
        self._mean, self._norms = mean, norms
        self._reached = 0.5  # the sum of probabilities so far: a row is drawn where it passes 1
        self._taken: list[Batch] = []

    def offer(self, batch: Batch) -> None:
        """Take some of the rows of a batch."""
        order, labels, weight = batch[1:]
        counts = weight > 0
        if not counts.all():
            order, labels, weight = (each[counts] for each in batch[1:])
        is_all = len(order) >= self._rows
        if self._share < 1:
            chances = self._chances(batch.parts, order)
            drawn = self._drawn(chances)
            order, labels, weight = order[drawn], labels[drawn], weight[drawn] / chances[drawn]
        parts = batch.parts
        if not is_all:
            parts = tuple(part.take(copy_matrix, order) for part in parts)
            order = np.arange(len(order))
        self._taken.append(Batch(parts, order, labels, weight))

    def _chances(self, parts: tuple[Part, ...], order: np.ndarray) -> np.ndarray:
        """Return by which chance each of some rows is to be drawn."""
        if not self._mean > 0:
            return np.full(len(order), self._share)
        chances = self._norms(parts, order)
        for start in range(0, len(order), OFFERED):
            some = chances[start : start + OFFERED]
            some[:] = np.minimum(1.0, self._share * (0.5 + 0.5 * (some / self._mean)))
        return chances

    def _drawn(self, chances: np.ndarray) -> np.ndarray:
        """Return the places of the rows that are drawn."""
        drawn = [np.zeros(0, np.int64)]
        for start in range(0, len(chances), OFFERED):
            ends = self._reached + np.cumsum(chances[start : start + OFFERED])
            passed = np.diff(np.floor(ends), prepend=np.floor(self._reached))
            drawn.append(start + np.flatnonzero(passed))
            self._reached = float(ends[-1] % 1.0)
        return np.concatenate(drawn)

    def batch(self) -> Batch:
        """Return all rows that were taken."""
        self._taken = [joined_batches(self._taken)]
        return self._taken[0]


def joined_batches(batches: Sequence[Batch]) -> Batch:
    """Return the rows of all batches as one."""
    if len(batches) == 1:
        return batches[0]
    labels, weight = (np.concatenate([each[i] for each in batches]) for i in (2, 3))
    parts = tuple(map(_joined, zip(*map(_own_parts, batches), strict=True)))
    return Batch(parts, np.arange(len(labels)), labels, weight)


def _own_parts(batch: Batch) -> tuple[Part, ...]:
    """Return parts that have the rows of a batch and no others."""
    if len(batch.order) == batch.parts[0].rows:
        return batch.parts
    return tuple(part.take(copy_matrix, batch.order) for part in batch.parts)


def _joined(pieces: Sequence[Part]) -> Part:
    """Return the rows of parts of one kind as one."""
    joined, first = pieces[0].room(sum(part.rows for part in pieces)), 0
    for part in pieces:
        joined.fill(copy_matrix, first, part)
        first += part.rows
    return joined
