"""The only place that lays the rows of a shard into windows of rows from all over it, for steps.

Which rows a window has is a function of the seed and the shard, so that each worker has the same
windows, whether they are kept in memory, in a file, or nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, final

import numpy as np

from fastsoftmax.data.loading.buckets import BucketWriter
from fastsoftmax.data.loading.cache import DiskCache
from fastsoftmax.data.loading.shard_rows import (
    STEP,
    WINDOW_BYTES,
    Shard,
    ShardRows,
    chunks_of,
    kept_rows_of,
    windows_as_they_come,
)
from fastsoftmax.data.loading.shuffle import (
    ROW_OVERHEAD,
    ShufflePlan,
    buckets_of,
    mixed_order,
    step_order,
    visit_order,
)
from fastsoftmax.data.loading.shuffle_buffer import PagePool, Window, WindowBuffer, as_window
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.kernels.transpose import copy_matrix
from fastsoftmax.labels import Classes

logger = logging.getLogger("fastsoftmax")

WHOLE_ROWS = 2**14  # of a window, where rows are used where they lie
Visit = tuple[Window, np.ndarray]


def windows_of(source: Source, shard: Shard, classes: Classes) -> Iterator[Window]:
    """Yield the rows of a shard, the same at each call: from what is kept, or to be kept."""
    if shard.mixed_by is None or source.whole(classes) is not None:
        yield from windows_as_they_come(source, shard, classes)
    else:
        yield from kept_rows_of(MixedRows, source, shard, classes).windows()


def step_rows(source: Source, shard: Shard, classes: Classes) -> int:
    """Return how many rows of a shard an epoch of steps visits."""
    if source.whole(classes) is None:
        return shard.rows
    first, stop = _share(source.rows or 0, shard)
    return stop - first


def visits_of(
    source: Source, shard: Shard, classes: Classes, epoch: int, span: tuple[int, int]
) -> Iterator[Visit]:
    """Yield windows, and the order in which some of their rows take steps.

    span: the first row of the shard's order in this epoch, and the first after them. Of rows that
    lie in memory as a whole, a shard has some from all over, whichever it has in passes.
    """
    window = whole_window(source, shard, classes)
    if window is None:
        rows = kept_rows_of(MixedRows, source, shard, classes)
        visited = visit_order(len(rows.sizes), _seed_of(shard), epoch, shard.number)
        for index, order in _ordered(shard, rows.sizes, epoch, span):
            yield rows.window(index, list(visited)), order
        return
    first, stop = _share(window.rows, shard)
    numbers = mixed_order(window.rows, _seed_of(shard))[first:stop]
    sizes = [min(WHOLE_ROWS, len(numbers) - i) for i in range(0, len(numbers), WHOLE_ROWS)]
    for index, order in _ordered(shard, sizes, epoch, span):
        yield window, numbers[index * WHOLE_ROWS + order]


def whole_window(source: Source, shard: Shard, classes: Classes) -> Window | None:
    """Return all rows of the source where they lie in memory as a whole; else None."""
    whole = source.whole(classes)
    if whole is None:
        return None
    held = None if shard.held is None else shard.held_out(0, whole.rows)
    return as_window(replace(whole, held=held), source, lambda row: row, 0, last=True)


def _share(rows: int, shard: Shard) -> tuple[int, int]:
    """Return which of the rows in memory are a shard's, in their mixed order."""
    shards = 1 if shard.mixed_by is None else shard.mixed_by[1]
    return rows * shard.number // shards, rows * (shard.number + 1) // shards


def _seed_of(shard: Shard) -> int:
    return 0 if shard.mixed_by is None else shard.mixed_by[0]


def _ordered(
    shard: Shard, sizes: list[int], epoch: int, span: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the windows that rows of an epoch stand in, and their order there."""
    start, seed = 0, _seed_of(shard)
    for index in visit_order(len(sizes), seed, epoch, shard.number):
        first, stop = max(span[0] - start, 0), min(span[1] - start, sizes[index])
        if first < stop:
            yield index, step_order(sizes[index], seed, epoch, shard.number, index)[first:stop]
        start += sizes[index]


@final
class MixedRows(ShardRows):
    """The rows of a shard in windows, each of rows from all over it.

    sizes: the rows of each window.
    """

    def __init__(self, source: Source, shard: Shard, classes: Classes) -> None:
        super().__init__(source, shard, classes)
        most = max(WINDOW_BYTES // source.row_bytes // STEP * STEP, STEP)
        self._buckets = max(-(-shard.rows // most), 1)
        self.sizes = self._counted().tolist()
        self._windows: list[Window] = []
        self._file: DiskCache | None = None
        self._few: dict[int, Window] = {}  # that are held for a while, by their numbers
        self._at_once = 1  # windows that a look at all rows gathers, where they are kept nowhere
        self._is_filled = False

    def windows(self) -> Iterator[Window]:
        """Yield all of them; see ShardRows."""
        numbers = [index for index, size in enumerate(self.sizes) if size]
        for index in numbers:
            yield self.window(index, numbers)

    def window(self, index: int, visited: Sequence[int]) -> Window:
        """Return a window; visited: the order in which windows are asked for."""
        with self._lock:
            if not self._is_filled:
                self._fill()
            if self._windows:
                return self._windows[index]
            if self._file is not None:
                return self._read(self._file, index)
            if index not in self._few:
                first = visited.index(index)
                self._few.clear()
                ahead = [each for each in visited[first:] if self.sizes[each]]
                self._few = self._decoded(ahead[: self._at_once])
            window = self._few[index]
            if not self.size:  # there is no room for it
                self._few.clear()
            return window

    def drop(self) -> None:
        """Keep nothing."""
        self._windows, self._is_filled, self.size, self._at_once = [], False, 0, 1
        self._few.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _fill(self) -> None:
        """Keep the rows in memory where they fit, else in a file, or nowhere."""
        self._file = self.reserve(self.bytes)
        if self._file is not None:
            try:
                self._fill_file(self._file)
            except OSError as error:
                logger.warning("rows cannot be kept (%s): each round decodes them anew", error)
                self.drop()
        elif self.size:
            self._fill_memory()
        else:
            self._keep_few()
        self._is_filled = True

    def _keep_few(self) -> None:
        """Find room for some windows at a time, this shard's share of the memory."""
        shards = 1 if self._shard.mixed_by is None else self._shard.mixed_by[1]
        each = max(self.sizes) * (self._source.row_bytes + ROW_OVERHEAD)
        self.size, self._at_once = self.reserve_some(each, len(self.sizes), shards)
        logger.warning(
            "rows of shard %d can be kept nowhere: an epoch of steps decodes all of them %d times;"
            " give more memory, or room for a file (cache_folder)",
            self._shard.number + 1, -(-len(self.sizes) // self._at_once),
        )  # fmt: skip

    def _fill_memory(self) -> None:
        pages, buffers = PagePool(), list[WindowBuffer]()
        for chunk, drawn in self._drawn():
            if not buffers:
                buffers = [WindowBuffer(chunk, size, pages) for size in self.sizes]
            order = np.argsort(drawn, kind="stable")
            bounds = np.searchsorted(drawn, np.arange(self._buckets + 1), sorter=order).tolist()
            for buffer, first, stop in zip(buffers, bounds, bounds[1:], strict=False):
                buffer.take(chunk, first, stop, order)
        self._windows = [self._as_window(buffer, i) for i, buffer in enumerate(buffers)]

    def _fill_file(self, file: DiskCache) -> None:
        most = max(WINDOW_BYTES // self._source.row_bytes, STEP)
        writer = BucketWriter(file, ShufflePlan("full", most, self._buckets))
        with closing(chunks_of(self._source, self._shard, self._classes)) as chunks:
            for chunk in chunks:
                number = self._source.number(chunk.piece, chunk.start)
                writer.deal(chunk, self._seed, number)
            writer.finish()
            file.seal()

    def _read(self, file: DiskCache, index: int) -> Window:
        """Return a window out of the file."""
        buffer: WindowBuffer | None = None
        for chunk in file.read(index):
            buffer = buffer or WindowBuffer(chunk, self.sizes[index], PagePool())
            buffer.take(chunk, 0, chunk.rows)
        assert buffer is not None  # it is one that has rows
        return self._as_window(buffer, index)

    def _decoded(self, numbers: Sequence[int]) -> dict[int, Window]:
        """Return some windows out of all rows, which are decoded anew."""
        buffers, pages = dict[int, WindowBuffer](), PagePool()
        for chunk, drawn in self._drawn():
            for index in numbers:
                order = np.flatnonzero(drawn == index)
                if index not in buffers:
                    buffers[index] = WindowBuffer(chunk, self.sizes[index], pages)
                buffers[index].take(chunk, 0, len(order), order)
        return {index: self._as_window(buffer, index) for index, buffer in buffers.items()}

    def _drawn(self) -> Iterator[tuple[Chunk, np.ndarray]]:
        """Yield the rows as they come, by row, and the window of each."""
        with closing(chunks_of(self._source, self._shard, self._classes)) as chunks:
            for chunk in chunks:
                number = self._source.number(chunk.piece, chunk.start)
                drawn = buckets_of(self._seed, self._buckets, number, chunk.rows)
                yield chunk.by_row(copy_matrix), drawn

    @property
    def _seed(self) -> int:
        return _seed_of(self._shard)

    def _as_window(self, buffer: WindowBuffer, index: int) -> Window:
        return buffer.window(self._source, lambda row: self._members(index)[row], index, last=False)

    def _members(self, index: int) -> Any:
        """Return the numbers in the source of a window's rows; only messages need them."""
        numbers = [np.zeros(0, np.int64)]
        for first, drawn in self._runs():
            numbers.append(first + np.flatnonzero(drawn == index))
        return np.concatenate(numbers)

    def _counted(self) -> np.ndarray:
        """Return how many rows each window has."""
        sizes = np.zeros(self._buckets, np.int64)
        for _, drawn in self._runs():
            sizes += np.bincount(drawn, minlength=self._buckets)
        return sizes

    def _runs(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of the first row of each run, and the window of each of its rows."""
        for run in self._shard.runs:
            first = self._source.number(run.piece, run.first)
            yield first, buckets_of(self._seed, self._buckets, first, run.rows)
