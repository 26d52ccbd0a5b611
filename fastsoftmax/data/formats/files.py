"""The only place for many files as one data set, whatever their format."""

from __future__ import annotations

import hashlib
import os
import struct
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import Any

import pyarrow as pa

from fastsoftmax.data.columns import Layout
from fastsoftmax.data.formats.batches import Batches, PlacedBatch
from fastsoftmax.data.formats.partitions import Partitions
from fastsoftmax.data.formats.remote import Remote
from fastsoftmax.data.manifest import Entries, names_of, new_pieces
from fastsoftmax.data.schemas import check_same
from fastsoftmax.errors import DataError

MOST_OPEN = 64  # files at a time
PAGES_SHARE = 0.15  # of the memory: what is held of columns that are read side by side
SAMPLED_BYTES = 2**12  # at each of three places of a piece, to tell it from others
NOTHING_KNOWN: Mapping[str, str] = {}  # of what columns in folders' names were in training
PEEKED_ROWS = 64  # at a time, of lists whose length nobody knows


class OpenFile(ABC):
    """One open file: its schema, its pieces, and a way to read them."""

    schema: pa.Schema
    pieces: tuple[int, ...]
    column_bytes = 0  # held of each column while a piece is read
    index_bytes = 0  # held by what lists the pieces

    @abstractmethod
    def read(self, piece: int, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a piece, at least the columns `names`."""

    @abstractmethod
    def digests(self) -> list[str]:
        """Return what tells each piece from others: of what it holds, not where it stands."""

    @abstractmethod
    def close(self) -> None:
        """Give the file back."""


class DataFile(ABC):
    """A file of rows by its path, as it was when the run began."""

    piece_name: str  # what messages call a piece
    memory = 10**9  # bytes, of which each thread that reads holds a part
    threads = 1  # that decode columns side by side, for each of these
    nameless = False  # whether its columns have no names of their own
    is_text = False  # whether types are told by what it holds
    stays = False  # whether what lists the pieces is kept from one opening to the next

    def __init__(self, path: str) -> None:
        """Note the size and age of the file at `path`."""
        self.path = path
        self._stamp = self._stat()

    @abstractmethod
    def open(self) -> OpenFile:
        """Open the file, or raise DataError where it is damaged."""

    @abstractmethod
    def footer(self) -> bytes:
        """Return the bytes that describe the file's pieces."""

    def place(self, piece: int, row: int) -> str:
        """Say where row `row` of piece `piece` stands."""
        return f"{self.path}, {self.piece_name} {piece}, row {row}"

    def refuse_changed(self) -> None:
        """Raise DataError when the file is no longer the one that was opened first."""
        if self._stat() != self._stamp:
            raise DataError(f"{self.path}: the file changed during the run. Start the run again.")

    @property
    def size(self) -> int:
        """The bytes of the file."""
        return self._stamp[0]

    @property
    def modified(self) -> int:
        """When the file was last changed, in ns since 1970; 0 where its store does not say."""
        return self._stamp[1]

    def fingerprint(self, name: str) -> dict[str, Any]:
        """Return name, size, rows, the digest of the footer and those of the pieces."""
        try:
            with closing(self.open()) as opened:
                rows, pieces = sum(opened.pieces), opened.digests()
            digest = hashlib.sha256(self.footer()).hexdigest()
        except (pa.ArrowException, OSError, ValueError, struct.error) as error:
            raise DataError(
                f"{self.path}: its footer cannot be read ({first_line(error)}). Write it again, or"
                " leave it out."
            ) from error
        return {"name": name, "size": self.size, "rows": rows, "sha256": digest, "pieces": pieces}

    def _stat(self) -> tuple[int, int]:
        try:
            if isinstance(self.path, Remote):
                return self.path.stat()
            facts = os.stat(self.path)
        except OSError as error:
            reason = error.strerror or first_line(error)
            raise DataError(f"{self.path}: the file cannot be opened: {reason}.") from error
        return facts.st_size, facts.st_mtime_ns


def opened(path: str) -> pa.NativeFile:
    """Return an open file, whatever it is called: Arrow takes names of UTF-8 alone as text."""
    return path.open() if isinstance(path, Remote) else pa.OSFile(os.fsencode(path))


def tail(path: str, start: int, stop: int) -> bytes:
    """Return the bytes from `start` to `stop` before the end of the file."""
    with opened(path) as file:
        return bytes(file.read_at(start - stop, file.size() - start))


def sample(file: pa.NativeFile, first: int, size: int) -> bytes:
    """Return bytes from the begin, middle and end of `size` bytes of a file from `first` on."""
    count = min(size, SAMPLED_BYTES)
    starts = (first, first + (size - count) // 2, first + size - count)
    return b"".join(bytes(file.read_at(count, start)) for start in starts)


def first_line(error: Exception) -> str:
    """Return what Arrow says of an error, cut to one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


class _OpenFiles:
    """The files of one pass that are open, the latest used last."""

    def __init__(self, files: Sequence[DataFile]) -> None:
        self._files = files
        self._open: OrderedDict[int, OpenFile] = OrderedDict()

    def get(self, number: int) -> OpenFile:
        """Return the file open, closing the one unused for longest where there are too many."""
        if number not in self._open:
            if len(self._open) == MOST_OPEN:
                self._open.popitem(last=False)[1].close()
            self._files[number].refuse_changed()
            self._open[number] = self._files[number].open()
        self._open.move_to_end(number)
        return self._open[number]

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()


class FileBatches(Batches):
    """Files one after the other; their row groups and record batches are the pieces."""

    in_memory = False

    def __init__(self, files: Sequence[DataFile], known: Mapping[str, str] = NOTHING_KNOWN) -> None:
        """Open each file once, to learn its schema and its pieces; known: see Partitions."""
        self._files = files
        self.origin = files[0].path
        self.nameless = all(file.nameless for file in files)
        self.column_bytes = 0
        self._schemas: list[tuple[str, pa.Schema]] = []  # those that differ, each with a file
        rows: list[int] = []
        indexes: list[int] = []
        self._firsts = [0]  # the number of each file's first piece
        self._partitions = Partitions([file.path for file in files], known)
        for number, file in enumerate(files):
            file.stays = len(files) <= MOST_OPEN
            with closing(file.open()) as opened:
                rows.extend(opened.pieces)
                self.column_bytes = max(self.column_bytes, opened.column_bytes)
                indexes.append(opened.index_bytes)
                self._firsts.append(len(rows))
                schema = self._partitions.extended(opened.schema, number)
                if all(not schema.equals(known) for _, known in self._schemas):
                    self._schemas.append((file.path, schema))
        self.index_bytes = sum(sorted(indexes)[-MOST_OPEN:])
        self.size = sum(file.size for file in files)
        self._rows = rows
        self._read_only_of(range(len(rows)))
        self.schema = self._schemas[0][1]

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to read the same pieces: no digests of all of them."""
        return {k: v for k, v in self.__dict__.items() if k != "_fingerprints"}

    def leave_out(self, entries: Entries) -> int:
        """Read no pieces that a ledger has from now on; return how many rows these hold."""
        new = new_pieces(entries, [file.path for file in self._files], self._fingerprints)
        spans = zip(self._firsts, new, strict=False)
        self._read_only_of([first + i for first, pieces in spans for i in pieces])
        return sum(self._rows) - sum(self.pieces)

    def keep_only(self, pieces: Sequence[int]) -> None:
        """Have no other pieces from now on than some of those that there are."""
        self._read_only_of([self._numbers[piece] for piece in pieces])

    def _read_only_of(self, numbers: Sequence[int]) -> None:
        """Have no other pieces from now on than these, of all."""
        self._numbers = numbers
        self.pieces: tuple[int, ...] = tuple(self._rows[number] for number in numbers)

    def allot(self, memory: int, threads: int = 1) -> None:
        """Read within a part of so many bytes from now on, columns side by side by threads."""
        for file in self._files:
            file.memory, file.threads = memory, threads

    def check_schemas(self, layout: Layout) -> None:
        """Raise DataError when a file lacks a column in use, or has it in another type."""
        check_same(self.schema, self._schemas[1:], layout)

    def read(
        self, names: Sequence[str], order: Iterable[int] | None, batch_rows: int
    ) -> Generator[PlacedBatch, None, None]:
        """Yield the pieces in `order`, at most `batch_rows` rows at a time."""
        for file in self._files:
            file.refuse_changed()
        with closing(_OpenFiles(self._files)) as held:
            for piece in range(len(self.pieces)) if order is None else order:
                number, _ = self._file_of(piece)
                start = 0
                for rows in self._decoded(held.get(number), int(piece), names, batch_rows):
                    yield PlacedBatch(rows, int(piece), start)
                    start += rows.num_rows
                # Arrow's allocator keeps what it once had; a row group's pages are much.
                pa.default_memory_pool().release_unused()
                if start != self.pieces[piece]:
                    raise DataError(
                        f"{self._piece(piece)}: it has {start} rows, and {self.pieces[piece]} by "
                        "the file's own account. Write the file again."
                    )

    def peek(self, name: str) -> Generator[pa.RecordBatch, None, None]:
        """Yield column `name`, some rows at a time."""
        with closing(self.read([name], None, PEEKED_ROWS)) as batches:
            yield from (batch.rows for batch in batches)

    def place(self, piece: int, row: int) -> str:
        """Say which row of which piece of which file it is."""
        number, within = self._file_of(piece)
        return self._files[number].place(within, row)

    def whereabouts(self, piece: int) -> tuple[str | None, int | None]:
        """Return the file that a piece stands in, and its number there."""
        number, within = self._file_of(piece)
        return str(self._files[number].path), within

    def fingerprint(self) -> list[dict[str, Any]]:
        """Describe each file by its name, size, rows, the digests of its footer and pieces."""
        return self._fingerprints

    def modified(self) -> list[int]:
        """Return when each file was last changed, in ns since 1970."""
        return [file.modified for file in self._files]

    @cached_property
    def _fingerprints(self) -> list[dict[str, Any]]:
        names = names_of([file.path for file in self._files])
        return [file.fingerprint(name) for file, name in zip(self._files, names, strict=True)]

    def _file_of(self, piece: int) -> tuple[int, int]:
        """Return the number of a piece's file, and its own number there."""
        number = self._numbers[piece]
        file = bisect_right(self._firsts, number) - 1
        return file, number - self._firsts[file]

    def _piece(self, piece: int) -> str:
        number, within = self._file_of(piece)
        file = self._files[number]
        return f"{file.path}, {file.piece_name} {within}"

    def _decoded(
        self, opened: OpenFile, piece: int, names: Sequence[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield a piece's rows; what Arrow cannot decode becomes a DataError with the place."""
        number, within = self._file_of(piece)
        there = set(opened.schema.names)
        own = [name for name in names if name in there]
        from_folders = [name for name in names if name not in there]
        # Without a column of its own, a piece is so many rows.
        batches = (
            opened.read(within, own, batch_rows)
            if own
            else _bare(opened.pieces[within], batch_rows)
        )
        while True:
            try:
                rows = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise DataError(
                    f"{self._piece(piece)}: it cannot be decoded ({first_line(error)}). "
                    "Write the file again."
                ) from error
            if rows is None:
                return
            for name in from_folders:
                column = self._partitions.column(name, number, rows.num_rows)
                rows = _with_column(rows, name, column)
            yield rows


def _bare(rows: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield record batches of a column that nobody asked for."""
    for first in range(0, rows, batch_rows):
        count = min(batch_rows, rows - first)
        yield pa.RecordBatch.from_arrays([pa.nulls(count)], [""])


def _with_column(rows: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    names = [*rows.schema.names, name]
    return pa.RecordBatch.from_arrays([*rows.columns, column], names)
