"""The only place that measures sparse columns: about 0, where most of their numbers are."""

from __future__ import annotations

import numpy as np

from fastsoftmax.data.parts import Dense, Part
from fastsoftmax.kernels.lists import ListTables, new_lists
from fastsoftmax.kernels.sparse_sums import add_list_moments
from fastsoftmax.optim.moments import Moments, MomentSums

RARE = 8.0  # rows: a feature that fewer have is measured as if so many had it


class SparseMomentSums:
    """Sums over rows of d features, some parts of which are sparse; see MomentSums.

    Features of sparse parts, and those that codes stand for, have a mean of 0 and for a deviation
    the root of the mean of their squares: they are scaled, and never centred.
    """

    def __init__(self, d: int) -> None:
        self.d, self.total, self.finite = d, 0.0, True
        self._sums, self._squares = np.zeros(d), np.zeros(d)
        self._low, self._high = np.zeros(d), np.zeros(d)
        self._counts = np.zeros(d, np.int64)
        self._rows = 0
        self._dense: MomentSums | None = None
        self._columns = np.zeros(0, np.int64)

    def add(self, parts: tuple[Part, ...], order: np.ndarray, weight: np.ndarray) -> None:
        """Add rows; those of weight 0 do not count."""
        dense = tuple(part for part in parts if isinstance(part, Dense))
        if dense:
            if self._dense is None:
                self._columns = _columns_of(parts)
                self._dense = MomentSums(len(self._columns))
            self._dense.add(dense, order, weight)
            self.finite &= self._dense.finite
        tables = ListTables(parts)
        nothing = np.zeros(0)
        rows = tables.rows(order, np.zeros(0, np.int32), weight, nothing)
        state = (self._sums, self._squares, self._low, self._high, self._counts)
        self.finite &= bool(add_list_moments(*state, new_lists(tables, np.dtype(np.float64)), rows))
        self.total += float(weight.sum())
        self._rows += int(np.count_nonzero(weight))

    def __add__(self, other: SparseMomentSums) -> SparseMomentSums:
        """Return the sums over the rows of both."""
        merged = SparseMomentSums(self.d)
        merged.total, merged._rows = self.total + other.total, self._rows + other._rows
        merged.finite = self.finite and other.finite
        merged._sums, merged._squares = self._sums + other._sums, self._squares + other._squares
        merged._low = np.minimum(self._low, other._low)
        merged._high = np.maximum(self._high, other._high)
        merged._counts = self._counts + other._counts
        known = [each for each in (self._dense, other._dense) if each is not None]
        merged._dense = known[0] + known[1] if len(known) == 2 else next(iter(known), None)
        merged._columns = max(self._columns, other._columns, key=len)
        return merged

    def moments(self, middle: tuple[np.ndarray, np.ndarray] | None = None) -> Moments:
        """Return the moments of the rows added so far; middle: see MomentSums."""
        reach = np.maximum(self._high, -self._low)
        least = reach * np.sqrt(min(RARE / max(self._rows, 1), 1.0))
        deviation = np.maximum(np.sqrt(self._squares / (self.total or 1.0)), least)
        mean = np.zeros(self.d)
        if self._dense is not None:
            own = self._dense.moments()
            mean[self._columns], deviation[self._columns] = own.mean, own.deviation
            reach[self._columns] = own.reach
        median, width = middle or (np.zeros(self.d), np.zeros(self.d))
        return Moments(mean, deviation, reach, median, width)


def new_moment_sums(d: int, *, sparse: bool) -> MomentSums | SparseMomentSums:
    """Return sums over no rows of d features, some of which are sparse."""
    return SparseMomentSums(d) if sparse else MomentSums(d)


def _columns_of(parts: tuple[Part, ...]) -> np.ndarray:
    """Return which features stand in dense parts."""
    found, column = [], 0
    for part in parts:
        if isinstance(part, Dense):
            found.append(np.arange(column, column + part.width))
        column += part.width
    return np.concatenate(found)
