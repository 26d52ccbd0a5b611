"""The only place that keeps decoded rows: in memory, or in an Arrow IPC file that we own.

The file is what later epochs read in place of the source. A private one has no name, so that it is
gone when the run is, however that ends. A named one is there for further runs; its name tells what
it holds, and it gets that name once it is whole. Each batch carries a checksum of its buffers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data.formats.private import sink_of
from fastsoftmax.data.parts import Part, RowBytes, packed_count, part_of
from fastsoftmax.data.source import Chunk
from fastsoftmax.data.values import as_arrow, as_numpy
from fastsoftmax.errors import DataError
from fastsoftmax.kernels.checksum import checksum
from fastsoftmax.kernels.transpose import copy_matrix

logger = logging.getLogger("fastsoftmax")

VERSION = 1
LABELS, WEIGHTS, HELD = "labels", "weights", "held"


class Cache(ABC):
    """Chunks by their piece: added once, then read again and again."""

    @abstractmethod
    def add(self, chunk: Chunk) -> Chunk:
        """Keep a copy of a chunk and return it, or its own like, each row together in memory.

        Raises OSError where there is no room.
        """

    @abstractmethod
    def seal(self) -> None:
        """End the adding: all chunks are there."""

    @abstractmethod
    def read(self, piece: int) -> Iterator[Chunk]:
        """Yield the chunks of a piece, each good until the next one is asked for."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the cache holds."""


class MemoryCache(Cache):
    """Rows kept in memory."""

    def __init__(self) -> None:
        self._chunks: dict[int, list[Chunk]] = {}

    def add(self, chunk: Chunk) -> Chunk:
        """Keep a copy of a chunk and return that."""
        parts = tuple(part.take(copy_matrix) for part in chunk.parts)
        labels, weights = (None if a is None else a.copy() for a in (chunk.labels, chunk.weights))
        kept = Chunk(parts, labels, weights, chunk.piece, chunk.start, held=chunk.held)
        self._chunks.setdefault(chunk.piece, []).append(kept)
        return kept

    def seal(self) -> None:
        """Do nothing."""

    def read(self, piece: int) -> Iterator[Chunk]:
        """Yield the chunks of a piece."""
        yield from self._chunks.get(piece, ())

    def close(self) -> None:
        """Forget the rows."""
        self._chunks.clear()


def digest_of(facts: object) -> str:
    """Return a digest of what a named file holds, the same for the same data and order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class DiskCache(Cache):
    """Rows kept in a file."""

    def __init__(self, folder: Path, name: str | None = None) -> None:
        """Keep rows in a file in `folder`: one called `name` once it is sealed, or one of no name.

        A whole file of this name is used as it is. Raises OSError where none can be made.
        """
        self._path = None if name is None else folder / name
        self._batches: dict[int, list[int]] = {}
        self._writer: pa.RecordBatchFileWriter | None = None
        self._mapped: _Mapped | None = None
        self._written = 0
        self._temporary: str | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if self._path is not None and self._path.exists() and self._has_found_whole(self._path):
            return
        self._descriptor, temporary = tempfile.mkstemp(prefix="fastsoftmax-", dir=folder)
        if self._path is None:
            os.unlink(temporary)
        else:
            self._temporary = temporary

    @property
    def is_sealed(self) -> bool:
        """Whether all rows are there."""
        return self._mapped is not None

    def add(self, chunk: Chunk) -> Chunk:
        """Write a chunk to the file; return it as it was written."""
        chunk = chunk.by_row(copy_matrix)
        rows = [each for part in chunk.parts for each in part.packed()]
        names = [f"part{i}" for i in range(len(rows))]
        columns = [_as_arrow(each) for each in rows]
        for name, values in _beside(chunk):
            names.append(name)
            columns.append(as_arrow(values))
        batch = pa.RecordBatch.from_arrays(columns, names)
        if self._writer is None:
            dtypes = json.dumps([part.described for part in chunk.parts])
            schema = batch.schema.with_metadata({"dtypes": dtypes, "version": str(VERSION)})
            self._sink = sink_of(self._descriptor)
            self._writer = pa.ipc.new_file(self._sink, schema)
        sums = [checksum(values) for values in (*_arrays(rows), *(v for _, v in _beside(chunk)))]
        facts = {"piece": chunk.piece, "start": chunk.start, "checksums": sums}
        self._writer.write_batch(batch, custom_metadata={"facts": json.dumps(facts)})
        self._batches.setdefault(chunk.piece, []).append(self._written)
        self._written += 1
        return chunk

    def seal(self) -> None:
        """Write the file's end, give it its name, and map it."""
        assert self._writer is not None  # an epoch has rows
        self._writer.close()
        self._sink.close()
        if self._temporary is not None and self._path is not None:
            os.fsync(self._descriptor)
            os.replace(self._temporary, self._path)
            self._temporary = None
        self._map()

    def read(self, piece: int) -> Iterator[Chunk]:
        """Yield the chunks of a piece, pointing into the mapped file."""
        assert self._mapped is not None  # sealed before it is read
        for batch in self._batches.get(piece, ()):
            yield self._mapped.chunk(batch)
            self._mapped.let_go()

    def close(self) -> None:
        """Give back the file; one that was not sealed is removed."""
        if self._descriptor < 0:
            return
        self._mapped = self._writer = None
        if self._temporary is not None:
            os.unlink(self._temporary)
        os.close(self._descriptor)
        self._descriptor = -1

    def _has_found_whole(self, path: Path) -> bool:
        """Open and map a file of an earlier run; say so where it is damaged."""
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            self._map()
            assert self._mapped is not None
            self._batches = self._mapped.batches()
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            logger.warning("%s is no whole cache file (%s): it is made anew", path, error)
            os.close(self._descriptor)
            self._mapped = None
            return False
        return True

    def _map(self) -> None:
        self._mapped = _Mapped(self._descriptor, str(self._path or "the private cache file"))


def _beside(chunk: Chunk) -> list[tuple[str, np.ndarray]]:
    """Return what stands beside a chunk's features, by name."""
    held = None if chunk.held is None else chunk.held.view(np.uint8)
    named = ((LABELS, chunk.labels), (WEIGHTS, chunk.weights), (HELD, held))
    return [(name, values) for name, values in named if values is not None]


def _arrays(rows: list[RowBytes]) -> list[np.ndarray]:
    """Return all arrays of rows of bytes."""
    return [array for each in rows for array in each if array is not None]


def _as_arrow(rows: RowBytes) -> pa.Array:
    """Return rows of bytes as values of one Arrow array, uncopied."""
    held, offsets = pa.py_buffer(rows.bytes), rows.offsets
    if offsets is None:
        kind = pa.binary(rows.bytes.shape[1])
        return pa.Array.from_buffers(kind, len(rows.bytes), [None, held])
    buffers = [None, pa.py_buffer(offsets), held]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


class _Mapped:
    """A sealed file, mapped into memory, of which no page stays longer than it is used."""

    def __init__(self, descriptor: int, origin: str) -> None:
        self._origin = origin
        self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        self._reader = pa.ipc.open_file(pa.py_buffer(self._map))
        metadata = self._reader.schema.metadata or {}
        if metadata.get(b"version") != str(VERSION).encode():
            raise ValueError("it is of another version")
        self._described = [(name, n) for name, n in json.loads(metadata[b"dtypes"])]

    def batches(self) -> dict[int, list[int]]:
        """Return the numbers of the batches of each piece."""
        found: dict[int, list[int]] = {}
        for number in range(self._reader.num_record_batches):
            facts = self._get(number)[1]
            found.setdefault(facts["piece"], []).append(number)
        return found

    def chunk(self, number: int) -> Chunk:
        """Return batch `number`, checked against its checksums."""
        batch, facts = self._get(number)
        counts = [packed_count(described) for described in self._described]
        count = sum(counts)
        rows = [_rows_of(column) for column in batch.columns[:count]]
        named = zip(batch.schema.names[count:], batch.columns[count:], strict=True)
        beside = {name: as_numpy(values) for name, values in named}
        if [checksum(values) for values in (*_arrays(rows), *beside.values())] != facts[
            "checksums"
        ]:
            raise DataError(
                f"{self._origin}: batch {number} is not what was written. Check the disk, or train"
                " with cache=off."
            )
        held = beside[HELD].view(np.bool_) if HELD in beside else None
        labels, weights = beside.get(LABELS), beside.get(WEIGHTS)
        parts: list[Part] = []
        for described, own in zip(self._described, counts, strict=True):
            parts.append(part_of(described, tuple(rows[:own])))
            del rows[:own]
        return Chunk(tuple(parts), labels, weights, facts["piece"], facts["start"], held=held)

    def let_go(self) -> None:
        """Drop the pages that are in memory: the system's own cache of the file keeps them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _get(self, number: int) -> tuple[pa.RecordBatch, dict[str, Any]]:
        batch, metadata = self._reader.get_batch_with_custom_metadata(number)
        return batch, json.loads(metadata[b"facts"])


def _rows_of(column: pa.Array) -> RowBytes:
    """Return an Arrow array of bytes as rows of them, uncopied."""
    buffers, first = column.buffers(), column.offset
    if column.type == pa.large_binary():
        offsets = np.frombuffer(buffers[1], np.int64)[first : first + len(column) + 1]
        held = np.frombuffer(buffers[2] or b"", np.uint8)
        return RowBytes(held[offsets[0] : offsets[-1]], offsets - offsets[0])
    flat, width = np.frombuffer(buffers[1], np.uint8), column.type.byte_width
    first *= width
    return RowBytes(flat[first : first + len(column) * width].reshape(len(column), width))
