"""The only place that reads the rows of a shard, and keeps them decoded where it is worked on.

What is kept is only kept: who has it not, or no more room for it, reads the rows again.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np

from fastsoftmax.data.loading.cache import DiskCache
from fastsoftmax.data.loading.deal import Run
from fastsoftmax.data.loading.read_plan import KEPT_SHARE, has_room
from fastsoftmax.data.loading.shuffle import ROW_OVERHEAD, held_out
from fastsoftmax.data.loading.shuffle_buffer import RowNumbers, Window, as_window, fill
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass
from fastsoftmax.files import cache_folder
from fastsoftmax.labels import Classes

logger = logging.getLogger("fastsoftmax")

WINDOW_BYTES = 2**23  # of the rows that are gathered at a time: sums depend on where they are cut
STEP = 1024  # rows, of which a window is a whole multiple


@dataclass(frozen=True)
class Shard:
    """One shard of a run: which rows it has, and what may be kept of them.

    pieces: those that this shard looks at, where each is looked at once. held: the seed and the
    fraction of rows that are held out, or None. run: what tells runs apart. memory: bytes that a
    process keeps of all shards. folder: where it keeps what is more, or None for nowhere. mixed_by:
    the seed and the number of shards, by which windows hold rows from all over it, or None for rows
    as they come.
    """

    number: int
    runs: tuple[Run, ...]
    pieces: tuple[int, ...]
    held: tuple[int, float] | None
    run: str
    memory: int
    folder: str | None
    mixed_by: tuple[int, int] | None = None

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(run.rows for run in self.runs)

    def held_out(self, start: int, count: int) -> np.ndarray:
        """Return which of the rows start, start + 1, ... are held out: a mask (count,)."""
        return (
            np.zeros(count, np.bool_) if self.held is None else held_out(*self.held, start, count)
        )


def chunks_of(
    source: Source, shard: Shard, classes: Classes | None
) -> Generator[Chunk, None, None]:
    """Yield the rows of a shard as they are decoded, those that are held out marked."""
    for is_whole, runs in groupby(shard.runs, lambda run: run.rows == _size(source, run.piece)):
        for some in [list(runs)] if is_whole else [[run] for run in runs]:
            with closing(source.chunks(classes, [run.piece for run in some])) as chunks:
                yield from _marked(chunks if is_whole else _within(chunks, some[0]), source, shard)


def windows_as_they_come(source: Source, shard: Shard, classes: Classes) -> Iterator[Window]:
    """Yield the rows of a shard, the same at each call: from what is kept, or to be kept."""
    return kept_rows_of(_InOrder, source, shard, classes).windows()


def forget(run: str) -> None:
    """Keep nothing of a run any more: nor of its tasks that are still under way."""
    with _lock:
        _forgotten.append(run)
        for key in [key for key in _kept if key[0] == run]:
            _kept.pop(key).drop_if_idle()


class ShardRows(ABC):
    """The rows of a shard, and what is kept of them."""

    def __init__(self, source: Source, shard: Shard, classes: Classes) -> None:
        self._source, self._shard, self._classes = source, shard, classes
        self._lock = threading.Lock()
        self.size = 0  # bytes of memory that are taken

    @abstractmethod
    def windows(self) -> Iterator[Window]:
        """Yield all of them."""

    @abstractmethod
    def drop(self) -> None:
        """Keep nothing."""

    def drop_if_idle(self) -> None:
        """Keep nothing, unless somebody is reading it."""
        if self._lock.acquire(blocking=False):
            self.drop()
            self._lock.release()

    @property
    def bytes(self) -> int:
        """What the rows take, decoded."""
        return self._shard.rows * (self._source.row_bytes + ROW_OVERHEAD)

    def reserve(self, size: int) -> DiskCache | None:
        """Take so much memory, as `size`, or where that is too much a file to keep rows in.

        None without a size: there is room for them nowhere.
        """
        shard = self._shard
        if _take(shard, size):
            self.size = size
        elif shard.folder is not None and has_room(Path(shard.folder or cache_folder()), size):
            try:
                return DiskCache(Path(shard.folder or cache_folder()))
            except OSError as error:
                logger.warning("rows cannot be kept (%s): each round decodes them anew", error)
        return None

    def reserve_some(self, size: int, most: int, shards: int) -> tuple[int, int]:
        """Take memory for things of a size, up to `most`, and this shard's part of all memory.

        Return the bytes that were taken, and how many things fit: one, where none has room.
        """
        count = min(int(KEPT_SHARE * self._shard.memory) // max(size * shards, 1), most)
        while count and not _take(self._shard, count * size):
            count //= 2
        return count * size, max(count, 1)


class _InOrder(ShardRows):
    """Rows as they come, kept nowhere, as windows in memory, or in a file."""

    def __init__(self, source: Source, shard: Shard, classes: Classes) -> None:
        super().__init__(source, shard, classes)
        self._windows: list[Window] = []
        self._file: DiskCache | None = None
        self._is_whole = False

    def windows(self) -> Iterator[Window]:
        """Yield all of them; see ShardRows."""
        with self._lock:
            if self._is_whole:
                yield from self._windows if self._file is None else self._from_file(self._file)
                return
            self.drop()
            self._file = self.reserve(0 if self._source.resident else self.bytes)
            for window in self._decoded():
                self._keep(window)
                yield window
            if self._file is not None:
                self._file.seal()
            self._is_whole = self._file is not None or bool(self._windows)

    def drop(self) -> None:
        """Keep nothing."""
        self._windows, self._is_whole, self.size = [], False, 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _decoded(self) -> Iterator[Window]:
        source, rows = self._source, self._shard.rows
        with closing(chunks_of(source, self._shard, self._classes)) as chunks:
            if source.resident:
                for index, chunk in enumerate(chunks):
                    numbers = RowNumbers()
                    numbers.add(source.number(chunk.piece, chunk.start), chunk.rows)
                    yield as_window(chunk, source, numbers, index, last=False)
                return
            step = WINDOW_BYTES // source.row_bytes // STEP * STEP or STEP
            yield from fill(chunks, source, lambda index: min(step, rows - index * step))

    def _keep(self, window: Window) -> None:
        if self._file is None:
            if self.size or self._source.resident:
                self._windows.append(window)
            return
        chunk = Chunk(
            window.parts, window.labels, window.weights, window.index, 0, held=window.held
        )
        try:
            self._file.add(chunk)
        except OSError as error:
            logger.warning("rows cannot be kept (%s): each round decodes them anew", error)
            self.drop()
            return
        self._windows.append(replace(window, parts=(), weights=None, held=None))

    def _from_file(self, file: DiskCache) -> Iterator[Window]:
        for bare in self._windows:
            for chunk in file.read(bare.index):
                yield as_window(chunk, bare.source, bare.number, bare.index, last=False)


_lock = threading.Lock()
_kept: OrderedDict[tuple[str, int], ShardRows] = OrderedDict()  # the latest used last
_forgotten: deque[str] = deque(maxlen=64)  # runs

Kind = TypeVar("Kind", bound=ShardRows)


def kept_rows_of(kind: type[Kind], source: Source, shard: Shard, classes: Classes) -> Kind:
    """Return what is kept of a shard here; of a run it is of one kind."""
    with _lock:
        key = shard.run, shard.number
        if shard.run in _forgotten:
            return kind(source, shard, classes)
        rows = _kept.get(key)
        if not isinstance(rows, kind):
            rows = _kept[key] = kind(source, shard, classes)
        _kept.move_to_end(key)
        return rows


def _take(shard: Shard, size: int) -> bool:
    """Return whether so many bytes may be kept; what other runs have left makes room for them."""
    most = int(KEPT_SHARE * shard.memory)
    with _lock:
        for key in list(_kept):
            if sum(rows.size for rows in _kept.values()) + size <= most:
                break
            if key[0] != shard.run:  # what is in use meanwhile lives until it is not
                _kept.pop(key).drop_if_idle()
        return sum(rows.size for rows in _kept.values()) + size <= most


def _size(source: Source, piece: int) -> int:
    if source.pieces is None:
        raise DataError("the data are a stream, of which nobody knows the rows before its end.")
    return source.pieces[piece]


def _part(chunk: Chunk, first: int, stop: int) -> Chunk:
    """Return some rows of a chunk, where they lie."""
    rows = slice(first, stop)
    labels, weights, dropped = (
        None if a is None else a[rows] for a in (chunk.labels, chunk.weights, chunk.dropped)
    )
    kept = None if chunk.kept is None else chunk.kept.slice(first, stop - first)
    parts = tuple(part[rows] for part in chunk.parts)
    return Chunk(parts, labels, weights, chunk.piece, chunk.start + first, kept, dropped=dropped)


def _within(chunks: Iterable[Chunk], run: Run) -> Iterator[Chunk]:
    """Yield the rows of a run out of the chunks of its piece."""
    for chunk in chunks:
        first, stop = max(run.first - chunk.start, 0), min(run.stop - chunk.start, chunk.rows)
        if first < stop:
            yield _part(chunk, first, stop)
        if chunk.start + chunk.rows >= run.stop:
            return


def _marked(chunks: Iterable[Chunk], source: Source, shard: Shard) -> Iterator[Chunk]:
    """Yield chunks with their rows that are held out marked."""
    for chunk in chunks:
        if shard.held is None:
            yield chunk
        else:
            first = source.number(chunk.piece, chunk.start)
            yield replace(chunk, held=shard.held_out(first, chunk.rows))
