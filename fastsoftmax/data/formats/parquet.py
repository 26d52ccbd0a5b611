"""The only place that reads Parquet: row group by row group, page checksums always verified."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastsoftmax.data.formats.files import (
    PAGES_SHARE,
    DataFile,
    OpenFile,
    first_line,
    opened,
    sample,
    tail,
)
from fastsoftmax.data.formats.wide_columns import NoRoom, joined, side_by_side
from fastsoftmax.errors import DataError

logger = logging.getLogger("fastsoftmax")

MAGIC, ENCRYPTED = b"PAR1", b"PARE"
# Bytes read at a time, over all columns: a row group is read page by page, not column by column.
READ_AHEAD, LEAST_READ = 2**20, 2**12
# Held of each column while it is read: a page, as most writers cut them, and what decodes it.
PAGE_BYTES, DECODER_BYTES = 2**20, 2**15
# Of the memory: a row group that is decoded as a whole, a few columns at a time. Together these are
# what pages and a batch take where it is decoded row by row.
DECODED_SHARE, FEW_PAGES_SHARE = 0.22, 0.05
DIGESTED_COLUMNS = 8  # of a row group, to tell it from others
INDEX_BYTES = 2**10  # held for each column of each row group, as long as the file is open


class ParquetPath(DataFile):
    """A Parquet file by its path."""

    piece_name = "row group"

    def __init__(self, path: str) -> None:
        """Note the size and age of the file at `path`."""
        super().__init__(path)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._last: Callable[[], pq.FileMetaData | None] = lambda: None

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to open the file, which must be as it was here."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_last")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def open(self) -> OpenFile:
        """Open the file, or raise DataError where it is damaged."""
        try:
            return _OpenParquet(self.path, self._metadata(), self.memory, self.threads)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.path}: it is not a whole Parquet file ({first_line(error)}). "
                "Write it again, or leave it out."
            ) from error

    def _metadata(self) -> pq.FileMetaData:
        """Return the file's metadata, those that another reader holds if one does."""
        with self._lock:
            metadata = self._last()
            if metadata is None:
                with opened(self.path) as file:
                    metadata = pq.read_metadata(file)
                self._last = (lambda: metadata) if self.stays else weakref.ref(metadata)
            return metadata

    def footer(self) -> bytes:
        """Return the file's metadata."""
        length = int.from_bytes(tail(self.path, 8, 4), "little")
        return tail(self.path, length + 8, 8)


class _OpenParquet(OpenFile):
    def __init__(self, path: str, metadata: pq.FileMetaData, memory: int, threads: int) -> None:
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        self.pieces = tuple(group.num_rows for group in groups)
        columns = max(metadata.num_columns, 1)
        largest = max((group.total_byte_size for group in groups), default=0)
        self.column_bytes = min(largest // columns, PAGE_BYTES) + DECODER_BYTES
        self.index_bytes = INDEX_BYTES * metadata.num_columns * len(groups)
        self._path, self._memory, self._beside = path, memory, threads > 1
        self._is_compressed = True  # until a row group whose pages may be too many tells otherwise
        self._metadata = metadata  # Arrow's reader keeps what they hold, but not the object
        self._bytes = opened(path)
        self._file = pq.ParquetFile(
            self._bytes,
            metadata=metadata,
            memory_map=False,  # a mapped file that is truncated meanwhile kills the process
            buffer_size=max(READ_AHEAD // columns, LEAST_READ),
            pre_buffer=False,  # nor at once
            page_checksum_verification=True,
        )
        self.schema = self._file.schema_arrow

    def read(self, piece: int, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group; columns whose pages are too many are read in groups."""
        if names and self._fits_decoded(piece, names):
            groups = self._even_groups(piece, names)
            rows = self.pieces[piece]
            yield from side_by_side([self._batches(piece, group, rows) for group in groups])
            return
        groups = self._groups(piece, names)
        if len(groups) > 1:
            try:
                # Fewer columns, more rows: what is read at a time costs by its number of parts.
                rows = batch_rows * len(groups)
                yield from joined([self._batches(piece, g, rows) for g in groups], batch_rows)
                return
            except NoRoom as error:
                logger.warning(
                    "%s: a row group takes more memory than it should, as there is no room for a"
                    " temporary file (%s)", self._path, error,
                )  # fmt: skip
        yield from self._batches(piece, names, batch_rows)

    def _batches(
        self, piece: int, names: Sequence[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        return self._file.iter_batches(
            batch_rows, row_groups=[piece], columns=list(names), use_threads=self._beside
        )

    def _fits_decoded(self, piece: int, names: Sequence[str]) -> bool:
        """Return whether pages are too many, but all rows fit the memory once they are decoded."""
        pages = sum(self._most_held(piece, name) or 0 for name in names)
        if pages <= PAGES_SHARE * self._memory:
            return False
        widths = [_byte_width(self.schema.field(name).type) for name in names]
        return all(widths) and self.pieces[piece] * sum(widths) <= DECODED_SHARE * self._memory

    def _even_groups(self, piece: int, names: Sequence[str]) -> list[list[str]]:
        """Return the columns, all of one width each, in groups whose pages are few together."""
        pages = sum(self._most_held(piece, name) for name in names)
        count = min(math.ceil(pages / (FEW_PAGES_SHARE * self._memory)), len(names))
        cuts = [len(names) * i // count for i in range(count + 1)]
        return [list(names[first:stop]) for first, stop in pairwise(cuts)]

    def _most_held(self, piece: int, name: str) -> int:
        """Return what is held of a column of one width while it is read, at most; 0 of others."""
        width = _byte_width(self.schema.field(name).type)
        return 2 * min(self.pieces[piece] * width, PAGE_BYTES) + DECODER_BYTES if width else 0

    def _groups(self, piece: int, names: Sequence[str]) -> list[list[str]]:
        """Return the columns in groups whose pages fit their share of the memory together."""
        group = self._metadata.row_group(piece)
        decompressed = group.total_byte_size + DECODER_BYTES * len(names)
        page_bytes = int(PAGES_SHARE * self._memory)
        most = decompressed + (group.total_byte_size if self._is_compressed else 0)
        if most <= page_bytes:
            return [list(names)]
        self._touch(piece, names, rows=0)
        self._is_compressed = any(map(_is_compressed, self._chunks(group, names)))
        groups: list[list[str]] = [[]]
        free = page_bytes
        for name in names:
            held = sum(map(_held, self._chunks(group, [name])))
            if groups[-1] and held > free:
                groups.append([])
                free = page_bytes
            groups[-1].append(name)
            free -= held
        return groups

    def _chunks(
        self, group: pq.RowGroupMetaData, names: Sequence[str]
    ) -> Iterator[pq.ColumnChunkMetaData]:
        return (group.column(leaf) for name in names for leaf in self._leaves[name])

    @cached_property
    def _leaves(self) -> dict[str, range]:
        """Which columns of Parquet each column of Arrow is stored as."""
        leaves, first = {}, 0
        for field in self.schema:
            last = first + _count_leaves(field.type)
            leaves[field.name] = range(first, last)
            first = last
        return leaves

    def digests(self) -> list[str]:
        """Return digests of the rows, sizes and extremes of each row group, of some columns."""
        return [self._digest(i) for i in range(len(self.pieces))]

    def _touch(self, piece: int, names: Sequence[str], rows: int) -> None:
        """Have Arrow open these columns of a row group, and read so many rows, if any.

        What is wrong with their metadata is an error there; asked for without it, some of it ends
        the process (pyarrow 26: an exception that its RowGroupMetaData lets through). No row is
        enough for sizes, one for extremes; it takes a page of each column, which may be all of it.
        """
        leaves = [leaf for name in names for leaf in self._leaves[name]]
        # `ParquetFile.iter_batches`, which would ask this one, refuses to read no rows.
        reader = self._file.reader
        for _ in reader.iter_batches(
            rows, row_groups=[piece], column_indices=leaves, use_threads=False
        ):
            return

    def _digest(self, piece: int) -> str:
        columns, group = self._metadata.num_columns, self._metadata.row_group(piece)
        chosen = np.linspace(0, columns - 1, min(columns, DIGESTED_COLUMNS)).astype(int)
        names = [name for name, leaves in self._leaves.items() if {*leaves} & {*chosen}]
        try:
            self._touch(piece, names, rows=1)
            chunks = [group.column(int(i)) for i in chosen]
        except (pa.ArrowException, OSError):  # told where it is read, if it is
            chunks = []
        facts = [group.num_rows, group.total_byte_size, *map(_described, chunks)]
        digest = hashlib.sha256(repr(facts).encode())
        bare = [c for c in chunks if not (_is_compressed(c) or _has_extremes(c))]
        if bare:  # then neither sizes nor extremes tell what it holds
            largest = max(bare, key=lambda c: c.total_compressed_size)
            digest.update(sample(self._bytes, _first_byte(largest), largest.total_compressed_size))
        return digest.hexdigest()[:16]

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)


def _count_leaves(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if not pa.types.is_nested(kind):
        return 1
    return sum(_count_leaves(kind.field(i).type) for i in range(kind.num_fields))


def _byte_width(kind: pa.DataType) -> int:
    """Return the bytes of a number or date; 0 of values that are something else."""
    return (int(kind.bit_width) + 7) // 8 if pa.types.is_primitive(kind) else 0


def _has_extremes(chunk: pq.ColumnChunkMetaData) -> bool:
    return bool(chunk.is_stats_set and chunk.statistics.has_min_max)


def _described(chunk: pq.ColumnChunkMetaData) -> list[Any]:
    """Return what the footer says of a column's values, in their physical type."""
    facts: list[Any] = [chunk.path_in_schema, chunk.physical_type, chunk.num_values]
    facts += [chunk.total_compressed_size, chunk.total_uncompressed_size]
    if _has_extremes(chunk):
        facts += [chunk.statistics.min_raw, chunk.statistics.max_raw]
    return facts


def _first_byte(chunk: pq.ColumnChunkMetaData) -> int:
    if chunk.has_dictionary_page:
        return min(chunk.dictionary_page_offset, chunk.data_page_offset)
    return int(chunk.data_page_offset)


def _is_compressed(chunk: pq.ColumnChunkMetaData) -> bool:
    return bool(chunk.compression != "UNCOMPRESSED")


def _held(chunk: pq.ColumnChunkMetaData) -> int:
    """Return the bytes that are held of a column while it is read: compressed or not."""
    page = min(chunk.total_uncompressed_size, PAGE_BYTES)
    packed = chunk.total_compressed_size if _is_compressed(chunk) else 0
    return page + min(packed, PAGE_BYTES) + DECODER_BYTES
