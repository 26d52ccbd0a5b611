"""The only place that makes a Source of record batches, whatever they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastsoftmax.data.columns import Layout
from fastsoftmax.data.decode import Notes, features_of, rows_with_nulls, runs_of
from fastsoftmax.data.encode import Encoder, Given, weights_of
from fastsoftmax.data.formats.batches import Batch, Batches
from fastsoftmax.data.label_stats import HeldOut, Labelled, scan_rows
from fastsoftmax.data.manifest import Entries
from fastsoftmax.data.parts import Dense, Part
from fastsoftmax.data.preprocessing import NOTHING, NullPolicy, Rows, survey
from fastsoftmax.data.source import Chunk, LabelStats, Source
from fastsoftmax.data.values import Where
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes

DECODED_SHARE = 8  # of the memory: a chunk while it is decoded
WAITING_SHARE = 48  # of the memory: a decoded chunk; some six of a reader's wait or are in use
MOST_ROWS, LEAST_ROWS = 65536, 64  # of a chunk
SCANNED_ROWS = 131072  # of labels at a time


class TableSource(Source):
    """Rows of named columns, read batch by batch and decoded chunk by chunk."""

    def __init__(
        self,
        batches: Batches,
        layout: Layout,
        target: Given | None,
        weight: Given | None,
        memory: int,
        null_policy: NullPolicy = NOTHING,
    ) -> None:
        """Decode `batches` as `layout` says, a small part of `memory` bytes at a time."""
        self._batches, self._null_policy = batches, null_policy
        self._target, self._weight = target, weight
        self._take(layout)
        self.allot(memory)
        self.reading_bytes = batches.column_bytes * len(layout.names(labelled=True))
        self.index_bytes = batches.index_bytes
        self.labelling = layout.labelling
        self.in_memory = batches.in_memory
        self.one_pass = batches.one_pass
        self._notes: dict[tuple[int, int], Notes] = {}  # of a chunk, however often it is decoded
        if batches.pieces is not None:
            self._check_rows(sum(batches.pieces))

    def _take(self, layout: Layout) -> None:
        """Decode as `layout` says from now on."""
        self._layout, self._runs = layout, runs_of(layout.features)
        self.columns = tuple(feature.column for feature in layout.features)
        self.drops = layout.drops
        self.n_features = layout.n_features
        self.row_bytes = layout.row_bytes
        self.resident = self._batches.in_memory and layout.copies_nothing and not layout.drops

    def allot(self, memory: int) -> None:
        """Cut chunks that take a part of so many bytes; see Source."""
        self._memory = memory
        self._batches.allot(memory)
        decoding = memory // DECODED_SHARE // self._layout.decoding_bytes
        waiting = memory // WAITING_SHARE // self._layout.row_bytes
        self._chunk_rows = min(max(min(decoding, waiting), LEAST_ROWS), MOST_ROWS)

    def leave_out(self, entries: Entries) -> int:
        """Read no pieces that a ledger has from now on; see Source."""
        return self._batches.leave_out(entries)

    def learn(self, held_out: HeldOut | None = None) -> None:
        """Read the feature columns once, where they must be known; see Source."""
        if not self._null_policy.must_learn(self._layout.features):
            return
        if self.one_pass:
            raise DataError(
                f"{self._batches.origin} can be read once: categories, means and indicators of"
                " nulls cannot be learnt beforehand. Give data that can be read again."
            )
        features = survey(self._surveyed(held_out), self._layout.features, self._null_policy)
        self._take(replace(self._layout, features=features))
        self.allot(self._memory)

    def _surveyed(self, held_out: HeldOut | None) -> Iterator[Rows]:
        for batch in self._read(self._layout.names(labelled=False), None, self._chunk_rows):
            for part in self._cut(batch):
                rows, where = part.rows, self._where(part)
                trained = np.ones(rows.num_rows, np.bool_)
                if held_out is not None:
                    trained = ~held_out(self._number(part), rows.num_rows)
                if self._layout.drops:
                    trained &= ~rows_with_nulls(rows, self._layout.features, where)
                yield Rows(rows, trained, where)

    def treated(self) -> dict[str, int]:
        """Return what was done to values that were not there; see Source."""
        total: Notes = Counter()
        for notes in self._notes.values():
            total.update(notes)
        return {what: count for what, count in sorted(total.items()) if count}

    @property
    def pieces(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Rows of each piece; a stream is one piece, of a length known once it was read through."""
        return self._batches.pieces

    def scan_labels(
        self, classes: Classes | None = None, held_out: HeldOut | None = None
    ) -> LabelStats:
        """Read the label and weight columns once; see Source."""
        if self._target is None:
            raise DataError(f"{self._batches.origin}: no target was given, so there are no labels.")
        if self.one_pass:
            raise DataError(
                f"{self._batches.origin} can be read once, so its classes cannot be looked for: "
                "give classes=, or data that can be read again."
            )
        return scan_rows(self._labelled(), self._target, self._weight, classes, held_out)

    def chunks(
        self, classes: Classes | None, order: Iterable[int] | None = None
    ) -> Generator[Chunk, None, None]:
        """Yield the pieces in `order` as Chunks; see Source."""
        encoder = None if classes is None or self._target is None else Encoder(classes)
        names = self._layout.names(labelled=encoder is not None)
        for batch in self._read(names, order, self._chunk_rows):
            for part in self._cut(batch):
                yield self._chunk(part, encoder)

    def place(self, piece: int, row: int) -> str:
        """Say where a row stands."""
        return self._batches.place(piece, row)

    def fingerprint(self) -> list[dict[str, Any]]:
        """Describe the files; see Source."""
        return self._batches.fingerprint()

    def modified(self) -> list[int]:
        """Return when each file was last changed; see Source."""
        return self._batches.modified()

    def _read(
        self, names: Sequence[str], order: Iterable[int] | None, batch_rows: int
    ) -> Iterator[Batch]:
        """Yield the batches that hold rows; after a whole pass, check how many there were."""
        rows = 0
        for batch in self._batches.read(names, order, batch_rows):
            rows += batch.rows.num_rows
            if batch.rows.num_rows:
                yield batch
        if order is None:
            self._check_rows(rows)

    def _check_rows(self, rows: int) -> None:
        if rows == 0:
            raise DataError(f"{self._batches.origin}: there are no rows.")
        for given in (self._target, self._weight):
            if given is not None:
                given.check_rows(rows)

    def _number(self, batch: Batch) -> int:
        """Return the number in the source of the batch's first row."""
        return self.number(batch.piece, batch.start)

    def _where(self, batch: Batch) -> Where:
        return lambda row: self.place(batch.piece, batch.start + row)

    def _labelled(self) -> Iterator[Labelled]:
        assert self._target is not None
        names, rows = self._layout.labelling, SCANNED_ROWS
        if self._layout.drops:
            names, rows = self._layout.names(labelled=True), self._chunk_rows
        for batch in self._read(names, None, rows):
            number = self._number(batch)
            labels = self._target.of(batch.rows, number)
            weights = None if self._weight is None else self._weight.of(batch.rows, number)
            if self._layout.drops:
                dropped = rows_with_nulls(batch.rows, self._layout.features, self._where(batch))
                weights = _without(weights, dropped)
            yield Labelled(batch.piece, number, labels, weights, self._where(batch))

    def _cut(self, batch: Batch) -> Iterator[Batch]:
        """Yield the batch in parts small enough to decode: whole, where decoding copies nothing."""
        step = batch.rows.num_rows if self._layout.copies_nothing else self._chunk_rows
        for first in range(0, batch.rows.num_rows, step):
            yield Batch(batch.rows.slice(first, step), batch.piece, batch.start + first)

    def _chunk(self, batch: Batch, encoder: Encoder | None) -> Chunk:
        rows, where = batch.rows, self._where(batch)
        labels = weights = None
        if encoder is not None and self._target is not None:
            number = self._number(batch)
            labels = encoder(self._target.of(rows, number), self._target.subject, where)
            if self._weight is not None:
                given = self._weight.of(rows, number)
                weights = weights_of(given, self._weight.subject, where)
        notes: Notes = Counter()
        packing = self._layout.packing
        if packing is not None:
            parts: tuple[Part, ...] = (Dense(packing.rows(rows, self._layout.chosen, where)),)
        else:
            parts = features_of(rows, self._runs, where, notes)
        dropped = None
        if self._layout.drops:
            dropped = rows_with_nulls(rows, self._layout.features, where)
            weights = np.ones(rows.num_rows) if weights is None else weights.copy()
            weights[dropped] = 0.0
            notes = Counter({"rows dropped for nulls": int(dropped.sum())})
        if notes:
            self._notes[batch.piece, batch.start] = notes
        kept = _kept(rows, self._layout.keep)
        return Chunk(parts, labels, weights, batch.piece, batch.start, kept, dropped=dropped)


def _without(weights: pa.Array | None, dropped: np.ndarray) -> pa.Array:
    """Return weights, of which those of rows that are dropped are 0."""
    if weights is None:
        return pa.array(np.where(dropped, 0.0, 1.0))
    return pc.if_else(pa.array(dropped), pa.scalar(0).cast(weights.type), weights)


def _kept(rows: pa.RecordBatch, names: tuple[str, ...]) -> pa.RecordBatch | None:
    return rows.select(list(names)) if names else None
