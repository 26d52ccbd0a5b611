"""The only place that gathers chunks into windows: rows that are shuffled together."""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.facts import dataclass
from fastsoftmax.kernels.transpose import copy_matrix

Numbering = Callable[[Any], Any]
PAGED_BYTES = 2**20  # of an array above which it gets pages of its own


@dataclass(frozen=True)
class Window:
    """Rows that are shuffled together, in the order in which they were read.

    parts: the features side by side, each row of a part together. labels: (rows,) int32. weights:
        (rows,) float64, or None. held: (rows,) bool, those not trained on, or None.
    number: gives the number in the source of a row, or of each in an array of them. index: the
        window's number in the epoch, from 0. last: whether the epoch ends with it.
    """

    parts: tuple[Part, ...]
    labels: np.ndarray
    weights: np.ndarray | None
    held: np.ndarray | None
    number: Numbering
    source: Source
    index: int
    last: bool

    @property
    def rows(self) -> int:
        """How many rows the window holds."""
        return int(self.labels.shape[0])

    def part(self, first: int, stop: int, index: int, *, last: bool) -> Window:
        """Return some of the rows as window number `index`, where they lie."""
        rows = slice(first, stop)
        weights, held = (None if a is None else a[rows] for a in (self.weights, self.held))
        return Window(
            tuple(part[rows] for part in self.parts), self.labels[rows], weights, held,
            lambda row: self.number(first + row), self.source, index, last,
        )  # fmt: skip

    def place(self, row: int) -> str:
        """Say where row `row` of the window stands in the source."""
        return self.source.place_of(int(self.number(row)))


class PagePool:
    """Memory of the windows of an epoch: it is used again once nobody uses the window before.

    Fresh memory costs as much as buffer it. The C library would keep what a window took, in
    pieces: 50 MB more for two windows of 32 MB.
    """

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an array of any content."""
        size = math.prod(shape) * dtype.itemsize
        if size < PAGED_BYTES or not hasattr(mmap, "MAP_PRIVATE"):
            return np.empty(shape, dtype)
        pages = self._take(size)
        array = np.ndarray(shape, dtype, pages)  # every view of it has it as its base
        weakref.finalize(array, _give_back, weakref.ref(self), pages).atexit = False
        return array

    def _take(self, size: int) -> mmap.mmap:
        fitting = [pages for pages in self._free if len(pages) >= size]
        if fitting:
            smallest = min(fitting, key=len)
            self._free.remove(smallest)
            return smallest
        self._free.clear()  # smaller ones would only add to what is held
        pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel built without
                pages.madvise(mmap.MADV_HUGEPAGE)
        return pages


def _give_back(owner: Callable[[], PagePool | None], pages: mmap.mmap) -> None:
    """Keep memory for the next window, unless the epoch is over."""
    home = owner()
    if home is not None:
        home._free.append(pages)


class RowNumbers:
    """Where rows stand in the source that came as spans of consecutive rows."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []  # number of the first row, rows

    def add(self, number: int, rows: int) -> None:
        """Note the next rows."""
        self._spans.append((number, rows))

    def __call__(self, row: Any) -> Any:
        """Return the number in the source of row `row`, or of each of an array of them."""
        numbers, rows = np.array(self._spans).T
        starts = np.cumsum(rows) - rows
        if np.max(row, initial=0) >= rows.sum():
            raise IndexError(row)
        at = np.searchsorted(starts, row, side="right") - 1
        return numbers[at] + row - starts[at]


class WindowBuffer:
    """A window, or what is dealt to one, that is being filled."""

    def __init__(self, like: Chunk, size: int, pages: PagePool) -> None:
        """Make room for `size` rows of the kind of a chunk's."""
        self.rows = 0
        self._parts = tuple(part.room(size, pages.array) for part in like.parts)
        self._labels = np.empty(size, np.int32)
        self._weights = None if like.weights is None else np.empty(size)
        self._held = None if like.held is None else np.empty(size, np.bool_)

    @property
    def room(self) -> int:
        """How many rows fit beside those that are there."""
        return len(self._labels) - self.rows

    def take(self, chunk: Chunk, start: int, stop: int, order: np.ndarray | None = None) -> None:
        """Copy the chunk's rows from `start` to `stop`, or those that stand there in `order`."""
        here = slice(self.rows, self.rows + stop - start)
        there: slice | np.ndarray = slice(start, stop) if order is None else order[start:stop]
        for mine, part in zip(self._parts, chunk.parts, strict=True):
            if order is None:
                mine.fill(copy_matrix, self.rows, part[start:stop])
            else:
                mine.fill(copy_matrix, self.rows, part, order[start:stop])
        assert chunk.labels is not None  # asked for by giving the classes
        self._labels[here] = chunk.labels[there]
        if self._weights is not None and chunk.weights is not None:
            self._weights[here] = chunk.weights[there]
        if self._held is not None and chunk.held is not None:
            self._held[here] = chunk.held[there]
        self.rows += stop - start

    def chunk(self, piece: int, start: int) -> Chunk:
        """Return what was filled as a chunk, good until more is taken."""
        rows = slice(0, self.rows)
        weights, held = (None if a is None else a[rows] for a in (self._weights, self._held))
        parts = tuple(part[rows] for part in self._parts)
        return Chunk(parts, self._labels[rows], weights, piece, start, held=held)

    def window(self, source: Source, number: Numbering, index: int, last: bool) -> Window:
        """Return what was filled as a window."""
        return as_window(self.chunk(0, 0), source, number, index, last)


def as_window(chunk: Chunk, source: Source, number: Numbering, index: int, last: bool) -> Window:
    """Return a chunk's rows as a window, where they lie."""
    assert chunk.labels is not None  # asked for by giving the classes
    return Window(chunk.parts, chunk.labels, chunk.weights, chunk.held, number, source, index, last)


def fill(
    chunks: Iterator[Chunk],
    source: Source,
    sizes: Callable[[int], int],
    first: int = 0,
    skipped: int = 0,
) -> Iterator[Window]:
    """Yield windows of as many rows as `sizes` tells of each, wherever the chunks were cut.

    The first one has the number `first`; before it, so many rows are skipped.
    """
    index, buffer, numbers, pages = first, None, RowNumbers(), PagePool()
    for chunk in chunks:
        done = min(skipped, chunk.rows)
        skipped -= done
        while done < chunk.rows:
            if buffer is not None and not buffer.room:
                yield buffer.window(source, numbers, index, last=False)
                index, buffer, numbers = index + 1, None, RowNumbers()
            if buffer is None:
                buffer = WindowBuffer(chunk, sizes(index), pages)
            stop = min(done + buffer.room, chunk.rows)
            buffer.take(chunk, done, stop)
            numbers.add(source.number(chunk.piece, chunk.start + done), stop - done)
            done = stop
    if buffer is not None:
        yield buffer.window(source, numbers, index, last=True)


def fill_all(
    chunks: Iterator[Chunk], source: Source, rows: int, step: int, keep: Callable[[Window], None]
) -> Iterator[Window]:
    """Gather all rows into one window, and yield `step` of them at a time as they come in.

    keep: is handed that window once it is full, before its last rows are yielded.
    """
    buffer, numbers, index = None, RowNumbers(), 0
    for chunk in chunks:
        buffer = buffer or WindowBuffer(chunk, rows, PagePool())
        fitting = min(chunk.rows, buffer.room)  # too many rows: the source will say so
        buffer.take(chunk, 0, fitting)
        numbers.add(source.number(chunk.piece, chunk.start), fitting)
        so_far = buffer.window(source, numbers, 0, last=True)
        while index * step < rows and buffer.rows >= min((index + 1) * step, rows):
            first, stop = index * step, min((index + 1) * step, rows)
            if stop == rows:
                keep(so_far)
            yield so_far.part(first, stop, index, last=stop == rows)
            index += 1
