"""The only place that reads Arrow IPC files (Feather version 2): record batch by record batch."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Iterator, Sequence

import pyarrow as pa

from fastsoftmax.data.column_names import places_of
from fastsoftmax.data.formats.files import DataFile, OpenFile, first_line, opened, sample, tail
from fastsoftmax.data.formats.remote import Remote
from fastsoftmax.data.layouts import is_vector
from fastsoftmax.errors import DataError

MAGIC = b"ARROW1"
RECORD_BATCHES = 4 + 2 * 3  # where a footer says at which offset it lists them
BLOCK_BYTES = 24
# Bytes of a record batch, in the mean of a file, above which it is mapped and read in slices.
LARGE_BATCH = 2**25


class IpcPath(DataFile):
    """An Arrow IPC file by its path."""

    piece_name = "record batch"
    _rows: tuple[int, ...] | None = None

    def open(self) -> OpenFile:
        """Open the file, or raise DataError where it is damaged."""
        try:
            if self._rows is None:
                self._rows = _count_rows(self.path)
            return _OpenIpc(self.path, self._rows)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.path}: it is not a whole Arrow IPC file ({first_line(error)}). "
                "Write it again, or leave it out."
            ) from error

    def footer(self) -> bytes:
        """Return the file's footer, which lists its record batches."""
        return _footer(self.path)


def _footer(path: str) -> bytes:
    end = len(MAGIC) + 4
    length = int.from_bytes(tail(path, end, len(MAGIC)), "little")
    return tail(path, length + end, end)


def _mean_bytes(path: str, rows: tuple[int, ...]) -> int:
    return os.stat(path).st_size // max(len(rows), 1)


def _open(file: pa.NativeFile, fields: Sequence[int]) -> pa.RecordBatchFileReader:
    options = pa.ipc.IpcReadOptions(included_fields=list(fields), use_threads=False)
    return pa.ipc.open_file(file, options=options)


def _count_rows(path: str) -> tuple[int, ...]:
    """Return the rows of each record batch, from one narrow column: no call tells them alone."""
    with opened(path) as file:
        schema = pa.ipc.open_file(file).schema
        narrow = [i for i, field in enumerate(schema) if not is_vector(field.type)]
        reader = _open(file, narrow[:1])
        return tuple(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))


def _blocks(footer: bytes) -> list[tuple[int, int, int]]:
    """Return where each record batch begins, and the bytes of its header and its body.

    Arrow keeps that to itself. The footer is a FlatBuffer whose fourth field is a vector of blocks:
    arrow.apache.org/docs/format/Columnar.html, File.fbs.
    """

    def number(kind: str, at: int) -> int:
        return int(struct.unpack_from(f"<{kind}", footer, at)[0])

    table = number("I", 0)
    fields = table - number("i", table)
    if number("H", fields) <= RECORD_BATCHES:
        return []
    offset = number("H", fields + RECORD_BATCHES)
    if not offset:
        return []
    vector = table + offset + number("I", table + offset)
    blocks = struct.iter_unpack("<qi4xq", footer[vector + 4 :][: BLOCK_BYTES * number("I", vector)])
    return [(first, header, body) for first, header, body in blocks]


class _OpenIpc(OpenFile):
    def __init__(self, path: str, rows: tuple[int, ...]) -> None:
        self.pieces = rows
        # Not mapped, if that can be: a mapped file that shrinks kills the process.
        self._file = opened(path)
        self.schema = pa.ipc.open_file(self._file).schema
        self._maps = not isinstance(path, Remote) and _mean_bytes(path, rows) > LARGE_BATCH
        self._path = path

    def read(self, piece: int, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the record batch: whole, or in slices where it is large."""
        fields = places_of(self.schema, names)
        if not self._maps:
            yield _open(self._file, fields).get_batch(piece)
            return
        with open(self._path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole = _open(pa.BufferReader(pa.py_buffer(mapped)), fields).get_batch(piece)
        for first in range(0, whole.num_rows, batch_rows):
            yield whole.slice(first, batch_rows)
            if hasattr(mmap, "MADV_DONTNEED"):  # what was used need not stay in memory
                mapped.madvise(mmap.MADV_DONTNEED)

    def digests(self) -> list[str]:
        """Return digests of the sizes of each record batch and of some of its bytes."""
        found = []
        for first, header, body in _blocks(_footer(self._path)):
            digest = hashlib.sha256(repr((header, body)).encode())
            digest.update(sample(self._file, first, header + body))
            found.append(digest.hexdigest()[:16])
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()
