"""The only place that reads files of the Arrow IPC streaming format: from the begin, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from fastsoftmax.data.formats.files import DataFile, OpenFile, first_line, opened, sample
from fastsoftmax.data.layouts import is_vector
from fastsoftmax.errors import DataError

MAGIC = b"\xff\xff\xff\xff"  # how a message begins, the first of which is the schema
HEAD_BYTES = 2**12  # of the file, which tell its schema


class IpcStreamPath(DataFile):
    """A file of an Arrow IPC stream by its path: one piece, as only its begin can be found."""

    piece_name = "stream"
    _rows: int | None = None

    def open(self) -> OpenFile:
        """Open the file, or raise DataError where it is damaged."""
        try:
            if self._rows is None:
                self._rows = _count_rows(self.path)
            return _OpenStream(self.path, self._rows, self.size)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.path}: it is not a whole Arrow IPC stream ({first_line(error)}). "
                "Write it again, or leave it out."
            ) from error

    def footer(self) -> bytes:
        """Return the first bytes: a stream has no footer, and tells its schema first."""
        with opened(self.path) as file:
            return bytes(file.read(HEAD_BYTES))


def _reader(file: pa.NativeFile, names: Sequence[str] | None = None) -> pa.RecordBatchReader:
    if names is None:
        return pa.ipc.open_stream(file)
    start = file.tell()
    listed = pa.ipc.open_stream(file).schema.names
    file.seek(start)
    fields = [listed.index(name) for name in names]
    options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
    return pa.ipc.open_stream(file, options=options)


def _count_rows(path: str) -> int:
    """Return the rows of all batches, from one narrow column: nothing tells them alone."""
    with opened(path) as file:
        schema = pa.ipc.open_stream(file).schema
        narrow = [field.name for field in schema if not is_vector(field.type)]
        file.seek(0)
        names = [name for name in narrow if schema.names.count(name) == 1][:1]
        return sum(batch.num_rows for batch in _reader(file, names or None))


class _OpenStream(OpenFile):
    def __init__(self, path: str, rows: int, size: int) -> None:
        self.pieces = (rows,) if rows else ()
        self._path, self._size = path, size
        self._file = opened(path)
        self.schema = pa.ipc.open_stream(self._file).schema

    def read(self, piece: int, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows from the begin of the stream."""
        with opened(self._path) as file:
            for batch in _reader(file, names):
                for first in range(0, batch.num_rows, batch_rows):
                    yield batch.slice(first, batch_rows)

    def digests(self) -> list[str]:
        """Return a digest of the size and of some of the bytes."""
        digest = hashlib.sha256(repr(self._size).encode())
        digest.update(sample(self._file, 0, self._size))
        return [digest.hexdigest()[:16]] * len(self.pieces)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
