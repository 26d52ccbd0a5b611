"""The only place that brings a source's rows to the kernels: decoded beside them, read once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager

from fastsoftmax.data.loading.buckets import BucketRows, BucketWriter
from fastsoftmax.data.loading.kept_rows import KeptRows
from fastsoftmax.data.loading.prefetch import ALIVE, ANY, Prefetcher
from fastsoftmax.data.loading.read_plan import PLAIN, ReadPlan
from fastsoftmax.data.loading.sample import draw, sample_window
from fastsoftmax.data.loading.shuffle import ShufflePlan, bucket_sizes, piece_order
from fastsoftmax.data.loading.shuffle_buffer import (
    PagePool,
    Window,
    WindowBuffer,
    as_window,
    fill,
    fill_all,
)
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.errors import DataError, SaveError
from fastsoftmax.labels import Classes

logger = logging.getLogger("fastsoftmax")

NO_ROOM = (
    "shuffle=full writes all rows once, and there is no room for them: name another folder with"
    " cache_folder=, or use shuffle=window"
)


class Loader:
    """The windows of each epoch, in the order of the plan; labels encoded against `classes`.

    Threads decode, one more gathers windows while the one before is in use; it fills none further
    than that. A window that holds all rows is filled once and kept; a first epoch may step over its
    rows while they come in.
    """

    def __init__(
        self,
        source: Source,
        classes: Classes,
        plan: ShufflePlan,
        reading: ReadPlan = PLAIN,
    ) -> None:
        """Load the rows of `source`, which stays the caller's to close."""
        self._source, self._classes, self._plan, self._reading = source, classes, plan, reading
        self._kept: Window | None = None
        self._rows = KeptRows(source, classes, plan, reading)
        self._reader: Prefetcher[Window] | None = None

    def epoch(self, seed: int, epoch: int, first: int = 0) -> Iterator[Window]:
        """Yield the windows of this epoch from number `first`.

        What goes wrong in a thread is raised here as it is. One epoch runs at a time: another one,
        or `close`, ends it.
        """
        self._stop()
        streams = self._plan.first > 0 and epoch == 0
        if self._holds_all and not streams:
            if first == 0:
                yield self._whole(seed)
            return
        if self._kept is not None:
            yield from self._again(self._kept, first)
            return
        stopped, alive = threading.Event(), ALIVE
        windows = self._windows(seed, epoch, first, stopped)
        if streams and self._reading.keep != "off":
            windows, alive = self._streamed(seed, first, stopped), ANY
        reader = self._reader = Prefetcher(windows, stopped, alive)
        try:
            yield from reader.items()
        finally:
            reader.stop()

    def all(self, seed: int) -> Iterator[Window]:
        """Yield all rows, the same at each call, in one window where it holds them."""
        if self._holds_all:
            self._stop()
            yield self._whole(seed)
        else:
            yield from self.epoch(seed, 0)

    def sample(self, seed: int, count: int) -> Window | None:
        """Return up to so many rows from all over the source, and no more than a window's.

        None where windows are of rows from all over the source themselves, where rows stay in
        their order, and where they can be read but once. It takes the memory of a window: let go
        of it before an epoch begins.
        """
        source, pieces = self._source, self._source.pieces
        if self._plan.kind != "window" or self._plan.holds_all or pieces is None:
            return None
        self._stop()
        draws = draw(pieces, seed, min(count, self._plan.window))
        return sample_window(source, self._classes, self._plan, draws, self._reading.readers)

    def close(self) -> None:
        """Stop the threads and drop what is kept."""
        self._stop()
        self._kept = None
        self._rows.drop()

    def _stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    @property
    def _holds_all(self) -> bool:
        rows = self._source.rows
        return rows is not None and self._plan.window >= rows

    def _whole(self, seed: int) -> Window:
        """Return all rows as one window: the source's own arrays where they will do."""
        window = self._kept or self._all_rows(seed)
        if self._reading.keep != "off" or self._source.in_memory:
            self._kept = window
        return window

    def _all_rows(self, seed: int) -> Window:
        """Read all rows into one window, in the order in which a first epoch reads them."""
        order = piece_order(self._plan, self._source.pieces, seed, 0)
        with closing(self._rows.chunks(order)) as chunks:
            first = next(chunks, None)
            if first is None:
                raise DataError("the data have no rows.")
            if first.rows == self._source.rows and all(p.is_row_major for p in first.parts):
                rest = sum(chunk.rows for chunk in chunks)  # the source checks its end
                assert rest == 0
                return as_window(first, self._source, lambda row: row, 0, last=True)
            (window,) = fill(_chain(first, chunks), self._source, self._size_of(1))
            return window

    def _again(self, whole: Window, first: int) -> Iterator[Window]:
        """Yield the windows of the first epoch, whose rows are all there, from number `first`."""
        step = self._plan.first
        for index in range(first, -(-whole.rows // step)):
            stop = min((index + 1) * step, whole.rows)
            yield whole.part(index * step, stop, index, last=stop == whole.rows)

    def _streamed(
        self, seed: int, first: int, stopped: threading.Event
    ) -> Generator[Window, None, None]:
        """Yield the windows of the first epoch, from number `first`, and keep their rows."""

        def keep(whole: Window) -> None:
            self._kept = whole

        source, plan = self._source, self._plan
        order = piece_order(plan, source.pieces, seed, 0)
        with closing(self._rows.chunks(order)) as chunks:
            coming = _until(stopped, chunks)
            for window in fill_all(coming, source, plan.window, plan.first, keep):
                if window.index >= first:
                    yield window

    def _windows(
        self, seed: int, epoch: int, first: int, stopped: threading.Event
    ) -> Generator[Window, None, None]:
        order = piece_order(self._plan, self._source.pieces, seed, epoch)
        if self._plan.kind == "full" and order is not None:
            yield from self._dealt_windows(order, seed, first, stopped)
            return
        empty, skipped = first == 0, first * self._plan.window_of(epoch)
        if order is not None and self._source.pieces is not None:
            while order and skipped >= self._source.pieces[order[0]]:
                skipped -= self._source.pieces[order[0]]
                order = order[1:]
        # A part of the rows is no cache of them.
        chunks = (
            self._rows.chunks(order)
            if first == 0 or self._rows.is_sealed
            else self._rows.decoded(order)
        )
        with closing(chunks):
            coming, sizes = _until(stopped, chunks), self._size_of(epoch)
            for window in fill(coming, self._source, sizes, first, skipped):
                empty = False
                yield window
        if empty and not stopped.is_set():
            raise DataError("the data have no rows.")

    def _size_of(self, epoch: int) -> Callable[[int], int]:
        """Return what tells how many rows each window of an epoch may hold, at most."""
        size, total = self._plan.window_of(epoch), self._source.rows

        def size_of(index: int) -> int:
            left = size if total is None else total - index * size
            return min(size, left) if left > 0 else size  # too many rows: the source will say so

        return size_of

    def _dealt_windows(
        self, order: Sequence[int], seed: int, first: int, stopped: threading.Event
    ) -> Iterator[Window]:
        """Yield one bucket after the other, from number `first` in the order."""
        if self._rows.cache is None:
            self._deal(seed, stopped)
        assert self._rows.cache is not None
        rows, source = self._source.rows or 0, self._source
        sizes = bucket_sizes(seed, self._plan.buckets, rows)
        pages = PagePool()
        for index, bucket in list(enumerate(order))[first:]:
            buffer = None
            for chunk in self._rows.cache.read(bucket):
                buffer = buffer or WindowBuffer(chunk, int(sizes[bucket]), pages)
                buffer.take(chunk, 0, chunk.rows)
            if buffer is not None and not stopped.is_set():
                number = BucketRows(seed, self._plan.buckets, rows, bucket)
                yield buffer.window(source, number, index, last=index == len(order) - 1)

    def _deal(self, seed: int, stopped: threading.Event) -> None:
        """Write all rows, each to the bucket that is drawn for it, in source order within."""
        self._rows.open(seed)
        if self._rows.cache is None:
            raise SaveError(NO_ROOM)
        if self._rows.is_sealed:
            return
        logger.info("dealing the rows into %d buckets", self._plan.buckets)
        writer = BucketWriter(self._rows.cache, self._plan)
        with closing(self._rows.decoded(None)) as chunks, _telling_of_room():
            for chunk in chunks:
                if stopped.is_set():
                    self._rows.drop()
                    return
                writer.deal(chunk, seed, self._source.number(chunk.piece, chunk.start))
            writer.finish()
            self._rows.cache.seal()
        self._rows.is_sealed = True


@contextmanager
def _telling_of_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SaveError(f"{NO_ROOM} ({error.strerror or error})") from error


def _chain(first: Chunk, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    yield first
    yield from rest


def _until(stopped: threading.Event, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield chunks until nobody wants them any more."""
    for chunk in chunks:
        if stopped.is_set():
            return
        yield chunk
