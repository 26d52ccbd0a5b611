"""The only place that makes a Source of record batches, whatever they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data import compute as pc
from fastsoftmax.data.columns import Layout
from fastsoftmax.data.decode import TreatedCounts, features_of, rows_with_nulls, runs_of
from fastsoftmax.data.encode import Encoder, GivenLabels, plain_weights
from fastsoftmax.data.formats.batches import Batches, PlacedBatch
from fastsoftmax.data.label_stats import HeldOut, Labelled, LabelSums, label_sums, scan_rows
from fastsoftmax.data.manifest import Entries
from fastsoftmax.data.parts import Dense, Part
from fastsoftmax.data.preprocessing import NOTHING, NullPolicy, Survey, SurveyedBatch
from fastsoftmax.data.row_order import RowOrders
from fastsoftmax.data.source import Chunk, LabelStats, Source
from fastsoftmax.data.values import Where, as_arrow, plain_columns
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes

DECODED_SHARE = 8  # of the memory: a chunk while it is decoded
WAITING_SHARE = 48  # of the memory: a decoded chunk; some six of a reader's wait or are in use
MOST_ROWS, LEAST_ROWS = 65536, 64  # of a chunk
# Of a chunk, at most: larger ones come from memory when they are copied, and Arrow asks the system
# for their memory each time. 480,000 lists of 784 float32: 3.8 s in chunks of 6 MB, 5.9 of 63 MB.
CHUNK_BYTES = 2**23
# That are read at once where each column is an array of its own, which costs 15 us however short.
APART_ROWS = 2**13
SCANNED_ROWS = 131072  # of labels at a time


class _Decoder:
    """How record batches become features, as a layout says and a part of the memory at a time."""

    def __init__(self, layout: Layout, memory: int) -> None:
        self.layout, self._runs = layout, runs_of(layout.features)
        self.allot(memory)
        # Of each chunk, by its place: it may be decoded more than once.
        self.by_place: dict[tuple[int, int], dict[str, int]] = {}

    def allot(self, memory: int) -> None:
        """Decode so many rows at a time that they take a part of so many bytes.

        batch_rows: that are read at once; chunk_rows: that are decoded of these at once.
        """
        self.memory = memory
        decoding = memory // DECODED_SHARE // self.layout.decoding_bytes
        waiting = min(memory // WAITING_SHARE, CHUNK_BYTES) // self.layout.row_bytes
        self.chunk_rows = min(max(min(decoding, waiting), LEAST_ROWS), MOST_ROWS)
        apart = 0 if self.layout.copies_nothing else min(decoding, APART_ROWS, MOST_ROWS)
        self.batch_rows = max(self.chunk_rows, apart)

    def cut(self, batch: PlacedBatch) -> Iterator[PlacedBatch]:
        """Yield the batch in parts small enough to decode: whole, where decoding copies nothing."""
        step = batch.rows.num_rows if self.layout.copies_nothing else self.chunk_rows
        for first in range(0, batch.rows.num_rows, step):
            rows = plain_columns(batch.rows.slice(first, step), self.layout.encoded)
            yield PlacedBatch(rows, batch.piece, batch.start + first)

    def features(
        self, batch: PlacedBatch, where: Where
    ) -> tuple[tuple[Part, ...], np.ndarray | None]:
        """Return the features of a batch, and which rows are dropped, (rows,) bool or None."""
        rows, layout, dropped = batch.rows, self.layout, None
        treated: TreatedCounts = Counter()
        if layout.packing is not None:
            parts: tuple[Part, ...] = (Dense(layout.packing.rows(rows, layout.chosen, where)),)
        else:
            parts = features_of(rows, self._runs, where, treated)
        if layout.drops:
            dropped = rows_with_nulls(rows, layout.features, where)
            treated = Counter({"rows dropped for nulls": int(dropped.sum())})
        if treated:
            self.by_place[batch.piece, batch.start] = treated
        return parts, dropped

    def treated(self) -> dict[str, int]:
        """Return what was done to values that were not there; see Source."""
        total: TreatedCounts = Counter()
        for treated in self.by_place.values():
            total.update(treated)
        return {what: count for what, count in sorted(total.items()) if count}


class TableSource(Source):
    """Rows of named columns, read batch by batch and decoded chunk by chunk."""

    def __init__(
        self,
        batches: Batches,
        layout: Layout,
        labels: GivenLabels,
        memory: int,
        null_policy: NullPolicy = NOTHING,
    ) -> None:
        """Decode `batches` as `layout` says, a small part of `memory` bytes at a time."""
        self._batches, self._labels, self._null_policy = batches, labels, null_policy
        batches.allot(memory)
        self._decode_as(layout, memory)
        self.reading_bytes = batches.column_bytes * len(layout.names(labelled=True))
        self.index_bytes = batches.index_bytes
        self.labelling = layout.labelling
        self.in_memory = batches.in_memory
        self._order = _order_of(batches, labels)
        self.one_pass = batches.one_pass
        if batches.pieces is not None:
            self._check_rows(sum(batches.pieces))

    def _decode_as(self, layout: Layout, memory: int) -> None:
        """Decode as `layout` says from now on."""
        self._decoder = _Decoder(layout, memory)
        self.columns = tuple(feature.column for feature in layout.features)
        self.drops = layout.drops
        self.n_features = layout.n_features
        self.row_bytes = layout.row_bytes
        self.resident = self._batches.in_memory and layout.copies_nothing and not layout.drops

    def allot(self, memory: int, threads: int = 1) -> None:
        """Cut chunks that take a part of so many bytes; see Source."""
        self._batches.allot(memory, threads)
        self._decoder.allot(memory)

    def leave_out(self, entries: Entries) -> int:
        """Read no pieces that a ledger has from now on; see Source."""
        return self._batches.leave_out(entries)

    @property
    def has_to_learn(self) -> bool:
        """Whether columns must be known before they can be decoded; see Source."""
        return self._null_policy.must_learn(self._decoder.layout.features)

    def learn(self, held_out: HeldOut | None = None) -> None:
        """Read the feature columns once, where they must be known; see Source."""
        if not self.has_to_learn:
            return
        if self.one_pass:
            raise DataError(
                f"{self._batches.origin} can be read once: categories, n-grams, means and"
                " indicators of nulls cannot be learnt beforehand. Give data that can be read"
                " again."
            )
        self.take_survey(self.surveyed(None, held_out))

    def surveyed(self, pieces: Iterable[int] | None, held_out: HeldOut | None = None) -> Survey:
        """Return what pieces (default: all) show of the columns; see Source."""
        found = Survey(self._decoder.layout.features, self._null_policy)
        for some in self._surveyed(pieces, held_out):
            found.add(some)
        return found

    def take_survey(self, survey: Survey) -> None:
        """Have learnt what a survey of all pieces shows; see Source."""
        layout = replace(self._decoder.layout, features=survey.learnt())
        self._decode_as(layout, self._decoder.memory)

    def cut(self, most: int) -> None:
        """Have pieces of at most so many rows, where they are in memory; see Source."""
        self._batches.cut(most)
        self.number_anew()

    def _surveyed(
        self, pieces: Iterable[int] | None, held_out: HeldOut | None
    ) -> Iterator[SurveyedBatch]:
        layout = self._decoder.layout
        for batch in self._read(layout.names(labelled=False), pieces, self._decoder.batch_rows):
            for part in self._decoder.cut(batch):
                rows, where = part.rows, self._where(part)
                trained = np.ones(rows.num_rows, np.bool_)
                if held_out is not None:
                    trained = ~held_out(self._number(part), rows.num_rows)
                if layout.drops:
                    trained &= ~rows_with_nulls(rows, layout.features, where)
                yield SurveyedBatch(rows, trained, where)

    def treated(self) -> dict[str, int]:
        """Return what was done to values that were not there; see Source."""
        return self._decoder.treated()

    def treated_by_place(self) -> dict[tuple[int, int], dict[str, int]]:
        """Return what was done to each chunk; see Source."""
        return dict(self._decoder.by_place)

    def take_treated(self, places: dict[tuple[int, int], dict[str, int]]) -> None:
        """Count what was done to chunks that were read elsewhere."""
        self._decoder.by_place.update(places)

    @property
    def nonzeros(self) -> float | None:  # type: ignore[override]
        """How many numbers of a row are not 0, where columns are sparse; see Source."""
        return self._decoder.layout.nonzeros

    @property
    def pieces(self) -> tuple[int, ...] | None:  # type: ignore[override]
        """Rows of each piece; a stream is one piece, of a length known once it was read through."""
        return self._batches.pieces

    @property
    def label_kind(self) -> str | None:  # type: ignore[override]
        """The kind of classes that the labels are."""
        return self._labels.kind(self._batches.schema)

    def scan_labels(
        self, classes: Classes | None = None, held_out: HeldOut | None = None
    ) -> LabelStats:
        """Read the label and weight columns once; see Source."""
        self._labels.require_target(self._batches.origin)
        if self.one_pass:
            raise DataError(
                f"{self._batches.origin} can be read once, so its classes cannot be looked for: "
                "give classes=, or data that can be read again."
            )
        if self._order is not None and held_out is not None:
            self._order.hold_out()
        return scan_rows(self._labelled(), self._labels, classes, held_out, self._order)

    def count_labels(
        self,
        pieces: Iterable[int],
        classes: Classes | None = None,
        held_out: HeldOut | None = None,
    ) -> LabelSums:
        """Return the sums over the labels and weights of some pieces; see Source."""
        self._labels.require_target(self._batches.origin)
        return label_sums(self._labelled(pieces), self._labels, classes, held_out)

    def chunks(
        self, classes: Classes | None, order: Iterable[int] | None = None
    ) -> Generator[Chunk, None, None]:
        """Yield the pieces in `order` as Chunks; see Source."""
        encoder = None if classes is None or self._labels.target is None else Encoder(classes)
        names = self._decoder.layout.names(labelled=encoder is not None)
        seen = None if self._order is None or encoder is None else self._order.begin()
        for batch in self._read(names, order, self._decoder.batch_rows):
            for part in self._decoder.cut(batch):
                chunk = self._chunk(part, encoder)
                if seen is not None:
                    seen.add(chunk.labels, chunk.parts[0].marks)
                yield chunk
        if seen is not None:
            seen.end()

    def place(self, piece: int, row: int) -> str:
        """Say where a row stands."""
        return self._batches.place(piece, row)

    def whereabouts(self, piece: int) -> tuple[str | None, int | None]:
        """Return the file that a piece stands in, and its number there; see Source."""
        return self._batches.whereabouts(piece)

    def fingerprint(self) -> list[dict[str, Any]]:
        """Describe the files; see Source."""
        return self._batches.fingerprint()

    def modified(self) -> list[int]:
        """Return when each file was last changed; see Source."""
        return self._batches.modified()

    def _read(
        self, names: Sequence[str], order: Iterable[int] | None, batch_rows: int
    ) -> Iterator[PlacedBatch]:
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
        self._labels.check_rows(rows)

    def _number(self, batch: PlacedBatch) -> int:
        """Return the number in the source of the batch's first row."""
        return self.number(batch.piece, batch.start)

    def _where(self, batch: PlacedBatch) -> Where:
        return lambda row: self.place(batch.piece, batch.start + row)

    def _labelled(self, pieces: Iterable[int] | None = None) -> Iterator[Labelled]:
        layout = self._decoder.layout
        names, rows = layout.labelling, SCANNED_ROWS
        if layout.drops:
            names, rows = layout.names(labelled=True), self._decoder.chunk_rows
        for batch in self._read(names, pieces, rows):
            number = self._number(batch)
            labels, weights = self._labels.of(batch.rows, number)
            if layout.drops:
                rows = plain_columns(batch.rows, layout.encoded)
                dropped = rows_with_nulls(rows, layout.features, self._where(batch))
                weights = self._without(weights, dropped)
            yield Labelled(batch.piece, number, labels, weights, self._where(batch))

    def _without(self, weights: pa.Array | None, dropped: np.ndarray) -> pa.Array:
        """Return weights, of which those of rows that are dropped are 0."""
        if weights is None:
            return as_arrow(np.where(dropped, 0.0, 1.0))
        assert self._labels.weight is not None
        plain = plain_weights(weights, self._labels.weight.subject).cast(pa.float64(), safe=False)
        return pc.if_else(as_arrow(dropped), pa.scalar(0.0), plain)

    def _chunk(self, batch: PlacedBatch, encoder: Encoder | None) -> Chunk:
        rows, where = batch.rows, self._where(batch)
        labels = weights = None
        if encoder is not None:
            values = self._labels.of(rows, self._number(batch))
            labels, weights = self._labels.encoded(encoder, values, where)
            weights = self.counted(weights)
        parts, dropped = self._decoder.features(batch, where)
        if dropped is not None:
            weights = np.ones(rows.num_rows) if weights is None else weights.copy()
            weights[dropped] = 0.0
        kept = _kept(rows, self._decoder.layout.keep)
        return Chunk(parts, labels, weights, batch.piece, batch.start, kept, dropped=dropped)


def _order_of(batches: Batches, labels: GivenLabels) -> RowOrders | None:
    """Return what notes the order of rows that are asked for again."""
    given = [each for each in (labels.target, labels.weight) if each is not None]
    if not batches.is_asked_again or not given:
        return None
    has_labels = labels.target is not None and labels.target.array is None
    has_arrays = any(each.array is not None for each in given)
    return RowOrders(batches.origin, has_labels=has_labels, has_arrays=has_arrays)


def _kept(rows: pa.RecordBatch, names: tuple[str, ...]) -> pa.RecordBatch | None:
    return rows.select(list(names)) if names else None
