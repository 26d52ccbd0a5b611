"""The only place that brings a source's rows to the kernels: decoded beside them, read once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager

from fastsoftmax.data.loading.buckets import BucketRows, BucketWriter
from fastsoftmax.data.loading.cache import Cache, DiskCache, MemoryCache, digest_of
from fastsoftmax.data.loading.prefetch import OrderedPool, Prefetcher
from fastsoftmax.data.loading.read_plan import PLAIN, ReadPlan
from fastsoftmax.data.loading.sample import draw, sample_window
from fastsoftmax.data.loading.shuffle import ShufflePlan, bucket_sizes, marked, piece_order
from fastsoftmax.data.loading.shuffle_buffer import PagePool, Window, WindowBuffer, as_window, fill
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.errors import DataError, SaveError
from fastsoftmax.files import cache_folder
from fastsoftmax.labels import Classes

logger = logging.getLogger("fastsoftmax")

NO_ROOM = (
    "shuffle=full writes all rows once, and there is no room for them: name another folder with"
    " cache_folder=, or use shuffle=window"
)


class Loader:
    """The windows of each epoch, in the order of the plan; labels encoded against `classes`.

    Threads decode, one more gathers windows while the one before is in use; it fills none further
    than that. A window that holds all rows is filled once and kept.
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
        self._cache: Cache | None = None
        self._is_sealed = False
        self._keeps = reading.keep != "off" and not (source.in_memory or source.one_pass)
        self._reader: Prefetcher[Window] | None = None

    def epoch(self, seed: int, epoch: int, first: int = 0) -> Iterator[Window]:
        """Yield the windows of this epoch from number `first`, each plan.window rows but the last.

        What goes wrong in a thread is raised here as it is. One epoch runs at a time: another one,
        or `close`, ends it.
        """
        self._stop()
        if self._source.rows is not None and self._plan.window >= self._source.rows:
            if first > 0:
                return
            window = self._kept or self._all_rows()
            if self._reading.keep != "off" or self._source.in_memory:
                self._kept = window
            yield window
            return
        stopped = threading.Event()
        reader = self._reader = Prefetcher(self._windows(seed, epoch, first, stopped), stopped)
        try:
            yield from reader.items()
        finally:
            reader.stop()

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
        self._drop_cache()

    def _stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None

    def _drop_cache(self) -> None:
        if self._cache is not None:
            self._cache.close()
        self._cache, self._is_sealed = None, False

    def _all_rows(self) -> Window:
        """Return all rows as one window: the source's own arrays where they will do."""
        with closing(self._chunks(self._all_pieces())) as chunks:
            first = next(chunks, None)
            if first is None:
                raise DataError("the data have no rows.")
            if first.rows == self._source.rows and all(p.is_row_major for p in first.parts):
                rest = sum(chunk.rows for chunk in chunks)  # the source checks its end
                assert rest == 0
                return as_window(first, self._source, lambda row: row, 0, last=True)
            (window,) = fill(_chain(first, chunks), self._source, self._size)
            return window

    def _windows(
        self, seed: int, epoch: int, first: int, stopped: threading.Event
    ) -> Generator[Window, None, None]:
        order = piece_order(self._plan, self._source.pieces, seed, epoch)
        if self._plan.kind == "full" and order is not None:
            yield from self._dealt_windows(order, seed, first, stopped)
            return
        empty, skipped = first == 0, first * self._plan.window
        if order is not None and self._source.pieces is not None:
            while order and skipped >= self._source.pieces[order[0]]:
                skipped -= self._source.pieces[order[0]]
                order = order[1:]
        # A part of the rows is no cache of them.
        chunks = self._chunks(order) if first == 0 or self._is_sealed else self._decoded(order)
        with closing(chunks):
            for window in fill(_until(stopped, chunks), self._source, self._size, first, skipped):
                empty = False
                yield window
        if empty and not stopped.is_set():
            raise DataError("the data have no rows.")

    def _all_pieces(self) -> list[int] | None:
        return None if self._source.pieces is None else list(range(len(self._source.pieces)))

    def _size(self, index: int) -> int:
        """Return how many rows window `index` may hold; the last may hold fewer than the others."""
        size, total = self._plan.window, self._source.rows
        left = size if total is None else total - index * size
        return min(size, left) if left > 0 else size  # too many rows: the source will say so

    def _chunks(self, order: Sequence[int] | None) -> Generator[Chunk, None, None]:
        """Yield the chunks of the pieces in `order`: from what is kept, or to be kept, if it is."""
        fills_memory = self._plan.holds_all and not self._reading.named
        if not self._keeps or fills_memory:
            yield from self._decoded(order)
            return
        if not self._is_sealed:  # what an epoch left that was not read to its end is begun anew
            self._drop_cache()
            self._open_cache(None)
        if self._cache is not None and self._is_sealed and order is not None:
            for piece in order:
                yield from self._cache.read(piece)
            return
        with closing(self._decoded(order)) as chunks:
            for chunk in chunks:
                self._keep(chunk)
                yield chunk
        if self._cache is not None:
            self._cache.seal()
            self._is_sealed = True

    def _open_cache(self, seed: int | None) -> None:
        """Open what rows are kept in: dealt with `seed`, or piece by piece."""
        if self._reading.keep == "memory" and seed is None:
            self._cache = MemoryCache()
            return
        facts = self._source.fingerprint() if self._reading.named else []
        name = None
        if facts:
            deal = None if seed is None else [seed, self._plan.buckets]
            names = [repr(self._source.columns), self._source.drops, self._plan.held, deal]
            classes = [self._classes.kind, list(self._classes.values)]
            known = [facts, self._source.modified(), names, classes, self._source.labelling]
            name = f"fastsoftmax-{digest_of(known)}.arrow"
        try:
            cache = DiskCache(self._reading.folder or cache_folder(), name)
        except OSError as error:
            self._do_without(error)
        else:
            self._cache, self._is_sealed = cache, cache.is_sealed

    def _keep(self, chunk: Chunk) -> None:
        if self._cache is None:
            return
        try:
            self._cache.add(chunk)
        except OSError as error:
            self._do_without(error)

    def _do_without(self, error: OSError) -> None:
        """Go on without keeping rows."""
        self._drop_cache()
        self._keeps = False
        logger.warning("decoded rows cannot be kept (%s): each epoch decodes them anew", error)

    def _decoded(self, order: Sequence[int] | None) -> Generator[Chunk, None, None]:
        """Yield the chunks of the pieces in `order` (default: all) as they are decoded."""
        source, pieces = self._source, self._source.pieces
        if source.in_memory or pieces is None or len(pieces) < 2:
            chunks = source.chunks(self._classes, order)
        else:
            chunks = OrderedPool(
                lambda jobs: source.chunks(self._classes, jobs),
                range(len(pieces)) if order is None else order,
                self._reading.readers,
            ).items()
        with closing(chunks):
            for chunk in chunks:
                yield marked(chunk, source, self._plan)

    def _dealt_windows(
        self, order: Sequence[int], seed: int, first: int, stopped: threading.Event
    ) -> Iterator[Window]:
        """Yield one bucket after the other, from number `first` in the order."""
        if self._cache is None:
            self._deal(seed, stopped)
        assert self._cache is not None
        rows, source = self._source.rows or 0, self._source
        sizes = bucket_sizes(seed, self._plan.buckets, rows)
        pages = PagePool()
        for index, bucket in list(enumerate(order))[first:]:
            buffer = None
            for chunk in self._cache.read(bucket):
                buffer = buffer or WindowBuffer(chunk, int(sizes[bucket]), pages)
                buffer.take(chunk, 0, chunk.rows)
            if buffer is not None and not stopped.is_set():
                number = BucketRows(seed, self._plan.buckets, rows, bucket)
                yield buffer.window(source, number, index, last=index == len(order) - 1)

    def _deal(self, seed: int, stopped: threading.Event) -> None:
        """Write all rows, each to the bucket that is drawn for it, in source order within."""
        self._open_cache(seed)
        if self._cache is None:
            raise SaveError(NO_ROOM)
        if self._is_sealed:
            return
        logger.info("dealing the rows into %d buckets", self._plan.buckets)
        writer = BucketWriter(self._cache, self._plan)
        with closing(self._decoded(None)) as chunks, _telling_of_room():
            for chunk in chunks:
                if stopped.is_set():
                    self._drop_cache()
                    return
                writer.deal(chunk, seed, self._source.number(chunk.piece, chunk.start))
            writer.finish()
            self._cache.seal()
        self._is_sealed = True


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
