"""The only place that notices when rows come in another order at a later pass.

A stream is asked for anew at each pass. Rows are held out, shuffled and matched with arrays beside
them by their number, so the order must stay. A checksum of the labels tells, as they are read.
"""

from __future__ import annotations

import threading
import warnings
import zlib
from collections.abc import Iterator

import numpy as np

from fastsoftmax.errors import DataError

SEGMENT = 2**16  # rows, after each of which the checksums are compared


class Trail:
    """The checksums of one pass, however the rows are cut into batches."""

    def __init__(self) -> None:
        self.marks: list[int] = []  # after each whole segment
        self.rows = self.last = 0
        self._numbers = np.zeros(0, np.int32)

    def add_labels(self, at: np.ndarray) -> None:
        """Take in class indices (n,), in whatever order the classes are numbered."""
        for part in self._segments(at):
            self._number(part)
            self._add(self._numbers[part])

    def add_bytes(self, values: np.ndarray) -> None:
        """Take in values (n,), one a row."""
        for part in self._segments(values):
            self._add(part)

    def _segments(self, values: np.ndarray) -> Iterator[np.ndarray]:
        while values.size:
            room = SEGMENT - self.rows % SEGMENT
            yield values[:room]
            values = values[room:]

    def _number(self, at: np.ndarray) -> None:
        """Number the classes as they turn up: another pass may know them by other indices."""
        missing = int(at.max()) + 1 - self._numbers.size
        if missing > 0:
            self._numbers = np.append(self._numbers, np.full(missing, -1, np.int32))
        new = at[self._numbers[at] < 0]
        if new.size:
            found, first = np.unique(new, return_index=True)
            known = np.count_nonzero(self._numbers >= 0)
            self._numbers[found[np.argsort(first)]] = known + np.arange(found.size)

    def _add(self, values: np.ndarray) -> None:
        self.last = zlib.crc32(values.tobytes(), self.last)
        self.rows += values.size
        if self.rows % SEGMENT == 0:
            self.marks.append(self.last)


class RowOrder:
    """The order of the first pass, to which later ones are held."""

    def __init__(self, origin: str, *, matters: bool) -> None:
        """matters: rows are told apart by their number, so that another order is an error."""
        self.origin, self.matters = origin, matters
        self._first: Trail | None = None
        self._lock = threading.Lock()
        self._has_warned = False

    def follow(self, trail: Trail, *, is_whole: bool = False) -> None:
        """Compare a pass with the first one, as far as it has come; is_whole: it has ended."""
        with self._lock:
            if self._first is None:
                self._first = trail if is_whole else None
                return
        first, count = self._first, len(trail.marks)
        pairs = zip(trail.marks, first.marks, strict=False)
        odd = next((s for s, (a, b) in enumerate(pairs) if a != b), None)
        if odd is None and is_whole and trail.rows == first.rows and trail.last != first.last:
            odd = count
        if odd is not None:
            self._tell(odd * SEGMENT)

    def _tell(self, row: int) -> None:
        said = (
            f"{self.origin}: the rows come in another order than at the first pass, from row"
            f" {row:,} on or soon after."
        )
        if self.matters:
            raise DataError(
                f"{said} Rows are held out, or matched with arrays beside them, by their number."
                " Give data whose order stays (ORDER BY; no shuffling), or write them to a Parquet"
                " file."
            )
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{said} Such a run cannot be repeated to the bit.", UserWarning, stacklevel=2
            )


class RowOrders:
    """The order of rows that are asked for again: by their labels, or by a feature.

    Arrays that stand beside the data say nothing of the order of these, so a feature must.
    """

    def __init__(self, origin: str, *, has_labels: bool, has_arrays: bool) -> None:
        """has_labels: a column tells the labels. has_arrays: labels or weights stand beside."""
        self._by_labels = RowOrder(origin, matters=has_arrays) if has_labels else None
        self._by_feature = RowOrder(origin, matters=True) if has_arrays else None

    def hold_out(self) -> None:
        """Note that rows are held out by their number."""
        if self._by_labels is not None:
            self._by_labels.matters = True

    def begin(self) -> Pass:
        """Return what follows a pass from its first row."""
        return Pass(self._by_labels, self._by_feature)


class Pass:
    """The rows of one pass as they come."""

    def __init__(self, by_labels: RowOrder | None, by_feature: RowOrder | None) -> None:
        self._labels, self._feature = Trail(), Trail()
        self._by_labels, self._by_feature = by_labels, by_feature

    def add(self, labels: np.ndarray | None, feature: np.ndarray | None = None) -> None:
        """Take in rows: class indices (n,) and values (n,) of a feature, as far as read."""
        if self._by_labels is not None and labels is not None:
            self._labels.add_labels(labels)
            self._by_labels.follow(self._labels)
        if self._by_feature is not None and feature is not None:
            self._feature.add_bytes(feature)
            self._by_feature.follow(self._feature)

    def end(self) -> None:
        """Note that all rows were there."""
        if self._by_labels is not None and self._labels.rows:
            self._by_labels.follow(self._labels, is_whole=True)
        if self._by_feature is not None and self._feature.rows:
            self._by_feature.follow(self._feature, is_whole=True)
