"""The only place that gathers chunks into windows, one window ahead of the kernels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from fastsoftmax.data.ahead import Ahead
from fastsoftmax.data.shuffle import Plan, held_out, piece_order
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes

LINE = 64  # bytes of a cache line


@dataclass(frozen=True)
class Span:
    """Consecutive rows of a window: from row `start` of `piece`, number `number` in the source."""

    piece: int
    start: int
    number: int
    rows: int


@dataclass(frozen=True)
class Window:
    """Rows that are shuffled together, in the order in which they were read.

    parts: arrays (rows, width) side by side, each in its own dtype: row-major, or a resident
        source's own. labels: (rows,) int32. weights: (rows,) float64, or None.
    spans: where the rows stand in the source. index: the window's number in the epoch, from 0.
    last: whether the epoch ends with it.
    """

    parts: tuple[np.ndarray, ...]
    labels: np.ndarray
    weights: np.ndarray | None
    spans: tuple[Span, ...]
    source: Source
    index: int
    last: bool

    @property
    def rows(self) -> int:
        """How many rows the window holds."""
        return int(self.labels.shape[0])

    def numbers(self) -> np.ndarray:
        """Return each row's number in the source (rows,) int64."""
        return np.concatenate(
            [np.arange(s.number, s.number + s.rows, dtype=np.int64) for s in self.spans]
        )

    def held_out(self, seed: int, fraction: float) -> np.ndarray:
        """Return which of the rows are held out: a mask (rows,)."""
        return np.concatenate([held_out(seed, fraction, s.number, s.rows) for s in self.spans])

    def place(self, row: int) -> str:
        """Say where row `row` of the window stands in the source."""
        for span in self.spans:
            if row < span.rows:
                return self.source.place(span.piece, span.start + row)
            row -= span.rows
        raise IndexError(row)


class Feed:
    """The windows of each epoch, in the order of the plan; labels encoded against `classes`.

    A window that holds all rows is filled once and kept. Others are filled by a thread while the
    one before is in use; it fills none further than that.
    """

    def __init__(self, source: Source, classes: Classes, plan: Plan) -> None:
        """Feed the rows of `source`, which stays the caller's to close."""
        self._source, self._classes, self._plan = source, classes, plan
        self._starts = list(accumulate(source.pieces or (), initial=0))
        self._kept: Window | None = None
        self._reader: Ahead[Window] | None = None

    def epoch(self, seed: int, epoch: int) -> Iterator[Window]:
        """Yield the windows of this epoch, each plan.window rows but the last.

        What goes wrong in the reader is raised here as it is. One epoch runs at a time: another
        one, or `close`, ends it.
        """
        self._stop()
        if self._source.rows is not None and self._plan.window >= self._source.rows:
            if self._kept is None:
                self._kept = self._all_rows()
            yield self._kept
            return
        stopped = threading.Event()
        reader = self._reader = Ahead(self._windows(seed, epoch, stopped), stopped)
        try:
            yield from reader.items()
        finally:
            reader.stop()

    def close(self) -> None:
        """Stop the reader and drop the window that is kept."""
        self._stop()
        self._kept = None

    def _stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def _all_rows(self) -> Window:
        """Return all rows as one window: the source's own arrays where they will do."""
        chunks = self._source.chunks(self._classes)
        first = next(chunks)
        if first.rows == self._source.rows and all(map(self._will_do, first.parts)):
            rest = sum(chunk.rows for chunk in chunks)  # the source checks its end
            assert rest == 0
            return Window(
                first.parts,
                _labels(first),
                first.weights,
                (self._span(first),),
                self._source,
                0,
                True,
            )
        (window,) = self._fill(_chain(first, chunks))
        return window

    def _will_do(self, part: np.ndarray) -> bool:
        row_major = part.shape[1] == 1 or part.strides[1] == part.itemsize
        return row_major or (self._source.resident and not self._plan.row_major)

    def _windows(self, seed: int, epoch: int, stopped: threading.Event) -> Iterator[Window]:
        pieces = self._source.pieces
        order = None if pieces is None else piece_order(self._plan, pieces, seed, epoch).tolist()
        return self._fill(_until(stopped, self._source.chunks(self._classes, order)))

    def _span(self, chunk: Chunk) -> Span:
        return Span(chunk.piece, chunk.start, self._starts[chunk.piece] + chunk.start, chunk.rows)

    def _size(self, index: int) -> int:
        """Return how many rows window `index` may hold; the last may hold fewer than the others."""
        size, total = self._plan.window, self._source.rows
        left = size if total is None else total - index * size
        return min(size, left) if left > 0 else size  # too many rows: the source will say so

    def _fill(self, chunks: Iterator[Chunk]) -> Iterator[Window]:
        """Yield full windows as the chunks come, wherever those were cut."""
        index, filling = 0, None
        for chunk in chunks:
            done = 0
            while done < chunk.rows:
                if filling is not None and filling.is_full:
                    yield filling.window(self._source, index, last=False)
                    index, filling = index + 1, None
                if filling is None:
                    filling = _Filling(chunk, self._size(index))
                done += filling.take(chunk, self._span(chunk), done)
        if filling is None:
            raise DataError("the data have no rows.")
        yield filling.window(self._source, index, last=True)


class _Filling:
    """A window that is being filled."""

    def __init__(self, like: Chunk, size: int) -> None:
        self.rows = 0
        self._parts = tuple(np.empty((size, p.shape[1]), p.dtype) for p in like.parts)
        self._labels = np.empty(size, np.int32)
        self._weights = None if like.weights is None else np.empty(size)
        self._spans: list[Span] = []

    @property
    def is_full(self) -> bool:
        """Whether no row fits any more."""
        return self.rows == len(self._labels)

    def take(self, chunk: Chunk, span: Span, start: int) -> int:
        """Copy what fits of the chunk's rows from `start`; return how many that is."""
        count = min(chunk.rows - start, len(self._labels) - self.rows)
        here, there = slice(self.rows, self.rows + count), slice(start, start + count)
        for mine, part in zip(self._parts, chunk.parts, strict=True):
            _copy_rows(mine[here], part[there])
        self._labels[here] = _labels(chunk)[there]
        if self._weights is not None and chunk.weights is not None:
            self._weights[here] = chunk.weights[there]
        self._spans.append(Span(span.piece, span.start + start, span.number + start, count))
        self.rows += count
        return count

    def window(self, source: Source, index: int, last: bool) -> Window:
        """Return what was filled."""
        rows = self.rows
        return Window(
            tuple(part[:rows] for part in self._parts),
            self._labels[:rows],
            None if self._weights is None else self._weights[:rows],
            tuple(self._spans),
            source,
            index,
            last,
        )


def _labels(chunk: Chunk) -> np.ndarray:
    assert chunk.labels is not None  # asked for by giving the classes
    return chunk.labels


def _copy_rows(written: np.ndarray, read: np.ndarray) -> None:
    """Copy a matrix; one that lies column by column a cache line wide, at thrice the speed."""
    if read.shape[1] == 1 or read.strides[1] == read.itemsize:
        np.copyto(written, read)
        return
    step = LINE // read.itemsize
    for first in range(0, read.shape[1], step):
        np.copyto(written[:, first : first + step], read[:, first : first + step])


def _chain(first: Chunk, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    yield first
    yield from rest


def _until(stopped: threading.Event, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield chunks until nobody wants them any more."""
    for chunk in chunks:
        if stopped.is_set():
            return
        yield chunk
