"""The only place that says which of the numbers of sparse rows are features, and in which order."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fastsoftmax.facts import dataclass

TABLE_WIDTH = 2**24  # up to which a table tells where each number stands; else it is searched for
MOST_FEATURES = 2**31 - 1
COUNTED_WIDTH = 2**20  # up to which each number has a count of its own


@dataclass(frozen=True, eq=False)
class InUse:
    """Those of `width` numbers a row that are not 0 in all rows: `index` (features,) int64.

    Each is a feature, in that order; those that are not among them are left out of all rows.
    mean: how many a row has, as far as that is known. base: what svmlight files call the first
    number, 0 or 1, where the rows are of such. is_hashed: the numbers are those that values of the
    column are hashed to. collisions: of these, while a model is trained; see Vocabulary.
    """

    width: int
    index: np.ndarray
    mean: float = 16.0
    base: int | None = None
    is_hashed: bool = False
    collisions: float | None = None

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def _table(self) -> np.ndarray:
        table = np.full(self.width, -1, np.int32)
        table[self.index] = np.arange(len(self.index), dtype=np.int32)
        return table

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.index, kind="stable")
        return self.index[order], order.astype(np.int32)

    def find(self, index: np.ndarray) -> np.ndarray:
        """Return which feature (n,) int32 each number is, all in the width; -1 for none."""
        if self.width <= TABLE_WIDTH:
            return np.asarray(self._table[index])
        known, order = self._sorted
        at = np.minimum(np.searchsorted(known, index), len(known) - 1)
        return np.where(known[at] == index, order[at], np.int32(-1))

    def select(
        self, indptr: np.ndarray, index: np.ndarray, value: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return rows, indptr from 0 on, of which the numbers that are features are left."""
        found = self.find(index)
        kept = found >= 0
        if kept.all():
            return indptr, found, value
        ends = np.concatenate([[0], np.cumsum(kept)])
        return ends[indptr], found[kept], None if value is None else value[kept]


def all_in_use(width: int) -> InUse:
    """Return that every number is a feature, where nobody could look which are."""
    return InUse(width, np.arange(width))


class UseCount:
    """In how many rows each of `width` numbers is not 0; over parts of the rows they merge by `+`.

    Numbers are known by their place in the row, below `width`.
    """

    def __init__(self, width: int) -> None:
        self.width, self.rows = width, 0
        self._index = np.zeros(0, np.int64)
        self._counts = np.zeros(0, np.int64)
        self._dense = np.zeros(width if width <= COUNTED_WIDTH else 0, np.int64)

    def add(self, index: np.ndarray, rows: int) -> None:
        """Count the numbers of so many rows."""
        self.rows += rows
        if len(self._dense):
            self._dense += np.bincount(index, minlength=self.width)
            return
        found, counts = np.unique(index, return_counts=True)
        self._merge(found.astype(np.int64), counts)

    def __add__(self, other: UseCount) -> UseCount:
        """Return the counts over the rows of both."""
        merged = UseCount(max(self.width, other.width))
        merged.rows = self.rows + other.rows
        for each in (self, other):
            merged._dense[: len(each._dense)] += each._dense
            merged._merge(each._index, each._counts)
        return merged

    def _merge(self, index: np.ndarray, counts: np.ndarray) -> None:
        both = np.concatenate([self._index, index])
        self._index, where = np.unique(both, return_inverse=True)
        weights = np.concatenate([self._counts, counts])
        self._counts = np.bincount(where, weights, len(self._index)).astype(np.int64)

    def in_use(self) -> InUse:
        """Return the numbers that some row has, by falling frequency, of equal ones the first.

        Weights that are often met lie together in memory then.
        """
        index, counts = self._index, self._counts
        if len(self._dense):
            index = np.flatnonzero(self._dense)
            counts = self._dense[index]
        order = np.argsort(-counts, kind="stable")
        return InUse(self.width, index[order], max(float(counts.sum()) / max(self.rows, 1), 1.0))
