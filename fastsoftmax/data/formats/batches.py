"""The interface of whatever yields record batches: files, tables, streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from fastsoftmax.data.columns import Layout
from fastsoftmax.data.manifest import Entries
from fastsoftmax.facts import dataclass


@dataclass(frozen=True)
class PlacedBatch:
    """A record batch, and where its first row stands: row `start` of piece `piece`."""

    rows: pa.RecordBatch
    piece: int
    start: int


class Batches(ABC):
    """Record batches in numbered pieces, that can be read again and again (but for a reader)."""

    origin: str  # what messages call the data
    schema: pa.Schema
    pieces: tuple[int, ...] | None  # rows of each piece; None before a stream was read to its end
    in_memory: bool
    column_bytes = 0  # held of each column by a thread that reads
    index_bytes = 0  # held by what lists the pieces of the files that are open
    one_pass: bool = False  # it can be read once
    nameless: bool = False  # its features have no names of their own: labels may be an array beside
    is_asked_again: bool = False  # whoever hands out the rows is asked for them at each pass

    @abstractmethod
    def read(
        self, names: Sequence[str], order: Iterable[int] | None, batch_rows: int
    ) -> Iterator[PlacedBatch]:
        """Yield the columns `names` of the pieces in `order` (default: all).

        Batches may hold more columns, and, where they cost no memory, more than `batch_rows` rows.
        """

    @abstractmethod
    def peek(self, name: str) -> Generator[pa.RecordBatch, None, None]:
        """Yield the batches of column `name` from the first row on, small where that can be."""

    @abstractmethod
    def place(self, piece: int, row: int) -> str:
        """Say where a row stands, for a message."""

    def whereabouts(self, piece: int) -> tuple[str | None, int | None]:
        """Return the file that a piece stands in, and its number there; None for no file."""
        return None, None

    def allot(self, memory: int, threads: int = 1) -> None:
        """Let each thread that reads hold a part of so many bytes; what is in memory takes none.

        threads: that decode its columns side by side, where there is no other that reads.
        """

    def cut(self, most: int) -> None:
        """Have pieces of at most so many rows from now on, where that costs nothing."""

    def check_schemas(self, layout: Layout) -> None:
        """Raise DataError when a further file will not do; there is one schema otherwise."""

    def leave_out(self, entries: Entries) -> int:
        """Read no pieces that a ledger has; return their rows. Data in memory are always new."""
        return 0

    def fingerprint(self) -> list[dict[str, Any]]:
        """Describe files for the model's record; data in memory have no description."""
        return []

    def modified(self) -> list[int]:
        """Return when each file was last changed, in ns since 1970; nothing for data in memory."""
        return []
