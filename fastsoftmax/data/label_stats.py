"""The only place that counts labels: one pass that finds the classes, or checks those given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data.encode import Encoder, GivenLabels, kind_of, plain_labels, weights_of
from fastsoftmax.data.lookup import joined, positions_in
from fastsoftmax.data.mixing import BINS, SEGMENT, Segments, bins_of
from fastsoftmax.data.row_order import RowOrders
from fastsoftmax.data.source import LabelStats
from fastsoftmax.data.values import Where
from fastsoftmax.data.weight_unit import exponent_of, in_unit
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass
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
        self._known = joined(self._known, plain)
        return positions_in(self._known, plain)

    def __add__(self, other: Discovery) -> Discovery:
        """Return what both found: the own values in their order, then the other's further ones."""
        merged = Discovery()
        first, second = (self, other) if self._known is not None else (other, self)
        merged._known, merged._kind = first._known, first._kind
        if first._known is not None and second._known is not None:
            merged._known = joined(first._known, second._known)
        return merged

    def places_of(self, other: Discovery) -> np.ndarray:
        """Return the numbers here of what another found, all of which was found here too."""
        if other._known is None:
            return np.zeros(0, np.int64)
        return positions_in(self._known, other._known).astype(np.int64)

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


class LabelSums:
    """Rows and weights of each class so far, in each segment and in all.

    Classes are numbered as they turn up, or as they are given. Sums over parts of the rows merge
    by `+`: counts are then those of all rows, and so are the sums of weights but for rounding.
    """

    def __init__(self, classes: Classes | None = None) -> None:
        """Count the labels that turn up, or those of `classes` alone."""
        self.classes, self._discovery = classes, Discovery()
        self._encode = self._discovery if classes is None else Encoder(classes)
        self._segments: dict[tuple[int, int], np.ndarray] = {}
        self._counts = np.zeros(0, np.int64)
        self._mass = np.zeros(0)
        self._exponent, self._largest = 0, 0.0  # of the unit of mass; of all weights
        self._positives = np.zeros(0, np.int64)

    def add(
        self, rows: Labelled, given: GivenLabels, held_out: HeldOut | None = None
    ) -> np.ndarray:
        """Count rows, but for those that are held out, which are only checked.

        Returns the numbers of their classes (n,).
        """
        assert given.target is not None
        at = self._encode(rows.labels, given.target.subject, rows.where)
        weights = None
        if rows.weights is not None:
            subject = "the weight" if given.weight is None else given.weight.subject
            weights = weights_of(rows.weights, subject, rows.where)
        held = None if held_out is None else held_out(rows.number, at.size)
        self._add_segments(rows, at, held)
        counted = at
        if held is not None:
            counted, weights = at[~held], None if weights is None else weights[~held]
        self._add_classes(counted, weights)
        return at

    def __add__(self, other: LabelSums) -> LabelSums:
        """Return the sums over the rows of both.

        Where classes are more than BINS, some share one, by their numbers: these must then be the
        same in both. So many classes are found first (Discovery has `+`), and given when counted.
        """
        if self.classes != other.classes:
            raise ValueError("the sums are over other classes")
        merged = LabelSums(self.classes)
        merged._discovery = self._discovery + other._discovery
        if self.classes is None:
            merged._encode = merged._discovery
        mine, theirs = (self._placed(merged), other._placed(merged))
        merged._counts = _sum(_moved(self._counts, mine), _moved(other._counts, theirs))
        merged._measure(max(self._largest, other._largest))
        masses = (in_unit(part._mass, merged._exponent - part._exponent) for part in (self, other))
        merged._mass = _sum(_moved(next(masses), mine), _moved(next(masses), theirs))
        merged._positives = _sum(_moved(self._positives, mine), _moved(other._positives, theirs))
        for sums, places in ((self, mine), (other, theirs)):
            for segment, found in sums._segments.items():
                counts = _moved_bins(found, places)
                merged._segments[segment] = _sum(merged._segments.get(segment, counts[:0]), counts)
        return merged

    def __getstate__(self) -> dict[str, Any]:
        """Return what others can add to theirs; rows are added no more."""
        return {k: v for k, v in self.__dict__.items() if k != "_encode"}

    @property
    def discovery(self) -> Discovery:
        """The classes that turned up."""
        return self._discovery

    def stats(self) -> LabelStats:
        """Return what was found, classes in their own order, or raise DataError."""
        if self.classes is not None:
            classes, order = self.classes, np.arange(len(self.classes))
        else:
            classes, order = self._discovery.classes()
        if not self._positives.sum():
            raise DataError("no row has a positive weight that is not held out: nothing to learn.")
        counts = np.zeros((len(self._segments), min(len(classes), BINS)), np.int32)
        numbered = sorted(self._segments.items(), key=lambda item: item[0])
        for s, (_, found) in enumerate(numbered):
            counts[s, : found.size] = found
        segments = Segments(np.array([piece for (piece, _), _ in numbered], np.int64), counts)
        mass = _sum(np.zeros(len(classes)), self._mass)[order]
        total = _sum(np.zeros(len(classes), np.int64), self._counts)[order]
        positives = _sum(np.zeros(len(classes), np.int64), self._positives)[order]
        return LabelStats(classes, total, segments, mass, positives, self._exponent)

    def _placed(self, merged: LabelSums) -> np.ndarray:
        """Return the number in the merged sums of each class."""
        if self.classes is not None:
            return np.arange(len(self.classes))
        return merged._discovery.places_of(self._discovery)

    def _add_segments(self, rows: Labelled, at: np.ndarray, held: np.ndarray | None) -> None:
        for first in range(-(rows.number % SEGMENT), at.size, SEGMENT):
            span = slice(max(first, 0), first + SEGMENT)
            here = at[span] if held is None else at[span][~held[span]]
            self._count((rows.piece, (rows.number + first) // SEGMENT), here)

    def _add_classes(self, at: np.ndarray, weights: np.ndarray | None) -> None:
        counts = np.bincount(at)
        self._counts = _sum(self._counts, counts)
        if weights is None:
            self._mass = _sum(self._mass, counts.astype(np.float64))
            self._positives = _sum(self._positives, counts)
            return
        self._mass = _sum(self._mass, np.zeros(counts.size))
        self._measure(float(weights.max(initial=0.0)))
        # One after the other, so that the sums do not depend on how a reader cuts its batches.
        np.add.at(self._mass, at, in_unit(weights, self._exponent))
        self._positives = _sum(self._positives, np.bincount(at[weights > 0]))

    def _measure(self, largest: float) -> None:
        """Count mass in a unit for weights up to this one."""
        if largest > self._largest:
            before, self._exponent = self._exponent, exponent_of(largest)
            self._mass = in_unit(self._mass, self._exponent - before)
            self._largest = largest

    def _count(self, segment: tuple[int, int], at: np.ndarray) -> None:
        found = np.bincount(bins_of(at)).astype(np.int32)
        self._segments[segment] = _sum(self._segments.get(segment, found[:0]), found)


def _sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the sum of two arrays, the shorter one continued with zeros."""
    longer, shorter = (a, b) if a.size >= b.size else (b, a)
    total = longer.copy()
    total[: shorter.size] += shorter
    return total


def _moved(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return values (n,) at the places that the first n of `places` are, zeros elsewhere."""
    places = places[: values.size]
    moved = np.zeros(places.max(initial=-1) + 1, values.dtype)
    moved[places] = values
    return moved


def _moved_bins(found: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the counts of a segment's bins where the classes have these numbers."""
    if (places == np.arange(places.size)).all():
        return found
    if places.max(initial=-1) >= BINS:
        raise ValueError(f"more than {BINS} classes are numbered otherwise: give them beforehand")
    return _moved(found, places)


def label_sums(
    rows: Iterable[Labelled], given: GivenLabels, classes: Classes | None, held_out: HeldOut | None
) -> LabelSums:
    """Return the sums over rows, which others can be added to."""
    sums = LabelSums(classes)
    for part in rows:
        sums.add(part, given, held_out)
    return sums


def scan_rows(
    rows: Iterable[Labelled],
    given: GivenLabels,
    classes: Classes | None,
    held_out: HeldOut | None,
    order: RowOrders | None = None,
) -> LabelStats:
    """Read all `rows`, piece after piece, and return what was found; order: notes that of rows."""
    sums, seen = LabelSums(classes), None if order is None else order.begin()
    for part in rows:
        at = sums.add(part, given, held_out)
        if seen is not None:
            seen.add(at)
    if seen is not None:
        seen.end()
    return sums.stats()
