"""The only place for columns too many to be read side by side: they are joined once decoded.

Where all rows of a piece fit the memory as they are decoded they are joined there, else in a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence

import pyarrow as pa

from fastsoftmax.data.formats.private import sink_of
from fastsoftmax.files import cache_folder

RecordBatches = Iterator[pa.RecordBatch]
UNEVEN = "its columns have different numbers of rows"
Span = tuple[int, int]  # where something starts in a file, and its bytes


class NoRoom(Exception):
    """Nothing can be written where temporary files go."""


def joined(groups: Sequence[RecordBatches], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield rows whose columns come in groups, each from the first row to the last.

    One group after the other is written to a file of no name; then all are read together. Raises
    NoRoom before it yields anything where they cannot be written.
    """
    with _nameless_file() as file:
        spans = _written(groups, file.fileno(), batch_rows)
        with pa.OSFile(f"/dev/fd/{file.fileno()}", "rb") as source:  # the file has no name
            yield from _side_by_side([pa.ipc.open_stream(source.get_stream(*s)) for s in spans])


def side_by_side(groups: Sequence[RecordBatches]) -> Iterator[pa.RecordBatch]:
    """Yield all rows at once whose columns come in groups, each as one batch of all rows."""
    there: list[pa.RecordBatch] = []
    for group in groups:
        there += group
    if len(there) != len(groups) or len({batch.num_rows for batch in there}) != 1:
        raise pa.ArrowInvalid(UNEVEN)
    columns = [column for batch in there for column in batch.columns]
    schema = pa.schema([field for batch in there for field in batch.schema])
    yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _nameless_file() -> tempfile._TemporaryFileWrapper[bytes]:
    try:
        return tempfile.TemporaryFile(prefix="fastsoftmax-", dir=cache_folder())  # type: ignore
    except OSError as error:
        raise NoRoom(str(error)) from error


def _written(groups: Sequence[RecordBatches], descriptor: int, batch_rows: int) -> list[Span]:
    """Write each group as a stream of its own; return where they stand in the file."""
    spans = []
    with sink_of(descriptor) as sink:
        for group in groups:
            start = sink.tell()
            _write(group, sink, batch_rows)
            spans.append((start, sink.tell() - start))
            _give_back()
    return spans


def _write(group: RecordBatches, sink: pa.NativeFile, batch_rows: int) -> None:
    writer = None
    for batch in group:
        try:
            writer = writer or pa.ipc.new_stream(sink, batch.schema)
            for first in range(0, batch.num_rows, batch_rows):
                writer.write_batch(batch.slice(first, batch_rows))
        except OSError as error:
            raise NoRoom(str(error)) from error
    if writer is not None:
        writer.close()


def _side_by_side(streams: Sequence[pa.RecordBatchReader]) -> Iterator[pa.RecordBatch]:
    """Yield the columns of all streams side by side, wherever each cuts its batches."""
    schema = pa.schema([field for stream in streams for field in stream.schema])
    batches = [next(stream, None) for stream in streams]
    while True:
        there = [batch for batch in batches if batch is not None]
        if len(there) < len(streams):
            if there:
                raise pa.ArrowInvalid(UNEVEN)
            return
        rows = min(batch.num_rows for batch in there)
        heads = [batch.slice(0, rows) for batch in there]
        columns = [column for head in heads for column in head.columns]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
        del heads, columns
        _give_back()
        batches = [
            batch.slice(rows) if batch.num_rows > rows else next(stream, None)
            for batch, stream in zip(there, streams, strict=True)
        ]


def _give_back() -> None:
    """Have Arrow's allocator keep nothing of what was freed: it would keep 40 MB of small parts."""
    pa.default_memory_pool().release_unused()
