"""The only place that counts labels: one pass that finds the classes, or checks those given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastsoftmax.data.encode import Encoder, GivenLabels, kind_of, plain_labels, weights_of
from fastsoftmax.data.mixing import BINS, SEGMENT, Segments, bins_of
from fastsoftmax.data.source import LabelStats
from fastsoftmax.data.values import Where
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes, sort_classes

HeldOut = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Labelled:
    """The labels and weights of consecutive rows, `number` the first one's number in the source."""

    piece: int
    number: int
    labels: pa.Array
    weights: pa.Array | None
    where: Where


class Discovery:
    """Classes as they turn up: indices in order of discovery, sorted at the end."""

    def __init__(self) -> None:
        self._known: pa.Array | None = None
        self._kind = ""

    def __call__(self, labels: pa.Array, subject: str, where: Where) -> np.ndarray:
        """Return indices (n,) int32 in order of discovery."""
        plain = plain_labels(labels, subject, where)
        if self._known is None:
            self._kind = kind_of(labels.type, subject)
            self._known = plain[:0]
        at = pc.index_in(plain, value_set=self._known)
        if at.null_count:
            new = pc.unique(plain.filter(pc.is_null(at)))
            self._known = pa.concat_arrays([self._known, new])
            at = pc.index_in(plain, value_set=self._known)
        return at.to_numpy()

    def __len__(self) -> int:
        return 0 if self._known is None else len(self._known)

    def values(self) -> tuple[str, list[Any]]:
        """Return the kind of the values found, and these in order of discovery."""
        return self._kind, [] if self._known is None else self._known.to_pylist()

    def classes(self) -> tuple[Classes, np.ndarray]:
        """Return the classes in their order, and for each its number in order of discovery."""
        kind, values = self.values()
        classes = sort_classes(kind, values)
        found = {value: k for k, value in enumerate(values)}
        return classes, np.array([found[value] for value in classes.values])


class _Tally:
    """Rows and weights of each class so far, in a segment and in all."""

    def __init__(self) -> None:
        self._segments: dict[tuple[int, int], np.ndarray] = {}
        self._counts = np.zeros(0, np.int64)
        self._mass = np.zeros(0)
        self._positives = np.zeros(0, np.int64)

    def add(
        self,
        piece: int,
        number: int,
        at: np.ndarray,
        weights: np.ndarray | None,
        held: np.ndarray | None,
    ) -> None:
        """Count rows of class indices `at`, of `piece`, from `number` on, but those `held` out."""
        for first in range(-(number % SEGMENT), at.size, SEGMENT):
            rows = slice(max(first, 0), first + SEGMENT)
            here = at[rows] if held is None else at[rows][~held[rows]]
            self._count((piece, (number + first) // SEGMENT), here)
        if held is not None:
            at, weights = at[~held], None if weights is None else weights[~held]
        counts = np.bincount(at)
        self._counts = _sum(self._counts, counts)
        if weights is None:
            self._mass = _sum(self._mass, counts.astype(np.float64))
            self._positives = _sum(self._positives, counts)
            return
        self._mass = _sum(self._mass, np.zeros(counts.size))
        # One after the other, so that the sums do not depend on how a reader cuts its batches.
        np.add.at(self._mass, at, weights)
        self._positives = _sum(self._positives, np.bincount(at[weights > 0]))

    def _count(self, segment: tuple[int, int], at: np.ndarray) -> None:
        found = np.bincount(bins_of(at)).astype(np.int32)
        self._segments[segment] = _sum(self._segments.get(segment, found[:0]), found)

    def scan(self, classes: Classes, order: np.ndarray) -> LabelStats:
        """Return what was found, classes in their own order."""
        if not self._positives.sum():
            raise DataError("no row has a positive weight that is not held out: nothing to learn.")
        counts = np.zeros((len(self._segments), min(len(classes), BINS)), np.int32)
        for s, found in enumerate(self._segments.values()):
            counts[s, : found.size] = found
        pieces = np.array([piece for piece, _ in self._segments], np.int64)
        segments = Segments(pieces, counts)
        mass = _sum(np.zeros(len(classes)), self._mass)[order]
        total = _sum(np.zeros(len(classes), np.int64), self._counts)[order]
        positives = _sum(np.zeros(len(classes), np.int64), self._positives)[order]
        return LabelStats(classes, total, segments, mass, positives)


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the sum of two arrays, the shorter one continued with zeros."""
    longer, shorter = (a, b) if a.size >= b.size else (b, a)
    total = longer.copy()
    total[: shorter.size] += shorter
    return total


def scan_rows(
    rows: Iterable[Labelled],
    given: GivenLabels,
    classes: Classes | None,
    held_out: HeldOut | None,
) -> LabelStats:
    """Read all `rows`, piece after piece, and return what was found."""
    discovery = Discovery()
    encode = discovery if classes is None else Encoder(classes)
    tally = _Tally()
    for part in rows:
        assert given.target is not None
        at = encode(part.labels, given.target.subject, part.where)
        weights = None
        if part.weights is not None:
            subject = "the weight" if given.weight is None else given.weight.subject
            weights = weights_of(part.weights, subject, part.where)
        held = None if held_out is None else held_out(part.number, at.size)
        tally.add(part.piece, part.number, at, weights, held)
    if classes is not None:
        return tally.scan(classes, np.arange(len(classes)))
    found, order = discovery.classes()
    return tally.scan(found, order)
