"""The only place for record batches in memory: tables, streams asked again, one-pass readers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import accumulate
from types import GeneratorType
from typing import Any

import pyarrow as pa

from fastsoftmax.data.formats.batch_lists import is_lazy_frame, reader_of_items, reader_of_lazy
from fastsoftmax.data.formats.batches import Batches, PlacedBatch
from fastsoftmax.errors import DataError


class TableBatches(Batches):
    """A table in memory: its record batches are its pieces."""

    in_memory = True

    def __init__(self, table: pa.Table) -> None:
        """Read `table` where it lies."""
        self.origin = "the table"
        self.schema = table.schema
        self._take([part for part in table.to_batches() if part.num_rows])

    def _take(self, parts: list[pa.RecordBatch]) -> None:
        self._parts = parts
        self.pieces = tuple(part.num_rows for part in parts)
        self._starts = list(accumulate(self.pieces, initial=0))

    def cut(self, most: int) -> None:
        """Have pieces of at most so many rows; see Batches."""
        spans = [(part, first) for part in self._parts for first in range(0, part.num_rows, most)]
        self._take([part.slice(first, most) for part, first in spans])

    def read(
        self, names: Sequence[str], order: Iterable[int] | None, batch_rows: int
    ) -> Iterator[PlacedBatch]:
        """Yield the batches in `order`, as they are."""
        for piece in range(len(self._parts)) if order is None else order:
            yield PlacedBatch(self._parts[piece], int(piece), 0)

    def peek(self, name: str) -> Generator[pa.RecordBatch, None, None]:
        """Yield the batches."""
        yield from self._parts

    def place(self, piece: int, row: int) -> str:
        """Say which row of the table it is."""
        return f"row {self._starts[piece] + row}"


class StreamBatches(Batches):
    """A stream that is asked for again at each pass: one piece, its rows known after the first.

    How it cuts its batches may change from pass to pass; how many rows it has may not.
    """

    in_memory = False
    is_asked_again = True

    def __init__(self, ask: Callable[[], Any], origin: str = "the data") -> None:
        """Read what `ask` returns: a RecordBatchReader, or what exports an Arrow stream."""
        self.origin = origin
        self._ask = ask
        self._last: Callable[[], object] = lambda: None
        self.pieces = None
        self.schema = self._open().schema

    def read(
        self, names: Sequence[str], order: Iterable[int] | None, batch_rows: int
    ) -> Iterator[PlacedBatch]:
        """Yield the whole stream, from its beginning."""
        reader = self._open()
        if not reader.schema.equals(self.schema):
            raise DataError(f"{self.origin}: the columns are others than at the first pass.")
        start = 0
        for rows in _batches_of(reader, self.origin):
            yield PlacedBatch(rows, 0, start)
            start += rows.num_rows
        self._check_rows(start)
        self.pieces = (start,)

    def place(self, piece: int, row: int) -> str:
        """Say which row of the stream it is."""
        return f"row {row}"

    def peek(self, name: str) -> Generator[pa.RecordBatch, None, None]:
        """Yield the batches of one more pass."""
        yield from _batches_of(self._open(), self.origin)

    def _open(self) -> pa.RecordBatchReader:
        given = self._ask()
        if isinstance(given, pa.RecordBatchReader | GeneratorType):
            if given is self._last():
                raise DataError(
                    f"{self.origin}: the function returned the same reader twice; it must make a "
                    "fresh one at each call."
                )
            self._last = weakref.ref(given)
        return reader_of(given, self.origin)

    def _check_rows(self, rows: int) -> None:
        if self.pieces is not None and self.pieces != (rows,):
            raise DataError(
                f"{self.origin}: there were {self.pieces[0]} rows at the first pass and {rows} at "
                "a later one. Give data that can be read again, or write them to a Parquet file."
            )


class ReaderBatches(Batches):
    """A reader that can be read once; nobody knows how many rows it has."""

    in_memory = False
    one_pass = True

    def __init__(self, reader: pa.RecordBatchReader, origin: str = "the reader") -> None:
        """Read `reader` once."""
        self.origin = origin
        self.pieces = None
        self.schema = reader.schema
        self._reader: pa.RecordBatchReader | None = reader
        self._peeked: list[pa.RecordBatch] = []

    def read(
        self, names: Sequence[str], order: Iterable[int] | None, batch_rows: int
    ) -> Iterator[PlacedBatch]:
        """Yield the reader's batches; a second time raises DataError."""
        reader, self._reader = self._reader, None
        if reader is None:
            raise DataError(
                "a RecordBatchReader can be read once: train one epoch and give classes=, or give "
                "a function that returns a fresh reader, a Table, or a Parquet file."
            )
        start = 0
        for rows in self._all(reader):
            yield PlacedBatch(rows, 0, start)
            start += rows.num_rows

    def peek(self, name: str) -> Generator[pa.RecordBatch, None, None]:
        """Yield the reader's batches, which are kept: `read` will still yield them."""
        assert self._reader is not None
        yield from self._peeked
        for rows in _batches_of(self._reader, self.origin):
            self._peeked.append(rows)
            yield rows

    def place(self, piece: int, row: int) -> str:
        """Say which row of the reader it is."""
        return f"row {row}"

    def _all(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while self._peeked:
            yield self._peeked.pop(0)
        yield from _batches_of(reader, self.origin)


def reader_of(given: Any, origin: str) -> pa.RecordBatchReader:
    """Return a reader of what exports an Arrow stream, or raise DataError."""
    if isinstance(given, pa.RecordBatchReader):
        return given
    if is_lazy_frame(given):
        return reader_of_lazy(given)
    if isinstance(given, Iterator | list | tuple):
        return reader_of_items(given, origin)
    if not hasattr(given, "__arrow_c_stream__"):
        raise DataError(
            f"{origin}: the function returned {type(given).__name__}; it must return a fresh "
            "pyarrow RecordBatchReader, what has __arrow_c_stream__, or an iterator of batches."
        )
    try:
        return pa.RecordBatchReader.from_stream(given)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{origin}: no Arrow stream can be had from them: {error}") from error


def _batches_of(reader: pa.RecordBatchReader, origin: str) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            rows = reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{origin}: the stream failed: {error}") from error
        yield rows
