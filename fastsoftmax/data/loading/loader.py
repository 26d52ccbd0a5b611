"""The only place that brings a source's rows to the kernels: decoded beside them, read once."""

from __future__ import annotations

import logging
import shutil
import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastsoftmax.data.formats.files import PAGES_SHARE
from fastsoftmax.data.loading.cache import (
    Cache,
    DiskCache,
    MemoryCache,
    digest_of,
)
from fastsoftmax.data.loading.prefetch import OrderedPool, Prefetcher
from fastsoftmax.data.loading.shuffle import (
    ShufflePlan,
    bucket_sizes,
    buckets_of,
    held_out,
    make_plan,
    piece_order,
)
from fastsoftmax.data.loading.shuffle_buffer import PagePool, Window, WindowBuffer, as_window, fill
from fastsoftmax.data.mixing import Segments
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.errors import DataError, OptionError, SaveError
from fastsoftmax.files import cache_folder
from fastsoftmax.kernels.transpose import copy_matrix
from fastsoftmax.labels import Classes
from fastsoftmax.options import Reading, Shuffling

logger = logging.getLogger("fastsoftmax")

KEPT_SHARE = 0.8  # of the memory: rows that are kept, and the windows
NO_ROOM = (
    "shuffle=full writes all rows once, and there is no room for them: name another folder with"
    " cache_folder=, or use shuffle=window"
)
SPARE = 1.1  # free space asked for, over what will be written


@dataclass(frozen=True)
class ReadPlan:
    """How rows are read; the windows are the same whatever it says.

    readers: threads that decode. keep: where decoded rows stay for later epochs, "off", "memory" or
    "disk". folder: of files on disk. named: whether they stay there for further runs.
    """

    readers: int = 1
    keep: str = "off"
    folder: Path | None = None
    named: bool = False


def choose_reading(
    source: Source, plan: ShufflePlan, reading: Reading, *, rereads: bool
) -> ReadPlan:
    """Return how to read `source`; rereads: some rows are read more than once.

    Raises OptionError where rows are to be kept in memory and do not fit.
    """
    keep, memory = reading.cache, source.room(reading.memory_bytes)
    if keep == "memory" and not (source.in_memory or _fits(plan, memory)):
        raise OptionError(
            f"cache=memory keeps all rows decoded, more than memory={reading.memory}"
            " allows: raise memory=, or choose cache=disk"
        )
    if keep == "auto":
        keep = _where_to_keep(source, plan, reading, rereads)
    # Readers are fewer rather than that columns are joined through a file, which takes longer.
    affordable = int(PAGES_SHARE * memory) // max(source.reading_bytes, 1)
    readers = max(min(reading.reader_count, affordable), 1)
    source.allot(memory // readers)
    return ReadPlan(readers, keep, _folder(reading), reading.cache_folder is not None)


def _folder(reading: Reading) -> Path:
    """Return where rows are kept on disk."""
    return cache_folder() if reading.cache_folder is None else Path(reading.cache_folder)


def _fits(plan: ShufflePlan, memory: int) -> bool:
    """Return whether all rows fit the memory: in one window, or beside the two that are alive."""
    if plan.holds_all:
        return True
    return plan.fits and plan.size + 2 * plan.window_bytes <= KEPT_SHARE * memory


def _where_to_keep(source: Source, plan: ShufflePlan, reading: Reading, rereads: bool) -> str:
    """Return where rows are kept if nobody says: where they fit, if they are read again."""
    if reading.cache_folder is not None and not source.in_memory:
        return "disk"
    if plan.holds_all:
        return "memory"
    # Even what needs no decoding reads faster from a cache: a Parquet page's checksum takes longer
    # than ours, and an IPC file is not ours to map.
    if source.in_memory or source.rows is None or not rereads:
        return "off"
    if _fits(plan, source.room(reading.memory_bytes)):
        return "memory"
    folder = _folder(reading)
    if has_room(folder, plan.size):
        return "disk"
    logger.info("too little space in %s for decoded rows: each epoch decodes them anew", folder)
    return "off"


def has_room(folder: Path, size: int) -> bool:
    """Return whether a file of `size` bytes fits in the folder, or in the nearest that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free >= SPARE * size


def settle_plan(
    source: Source, shuffling: Shuffling, reading: Reading, segments: Segments | None
) -> ShufflePlan:
    """Return the plan; unless asked for, sorted rows are dealt only where there is room."""
    plan = make_plan(source, shuffling, reading.memory_bytes, segments)
    if plan.kind == "full" and shuffling.shuffle == "auto":
        folder = _folder(reading)
        if not has_room(folder, plan.size):
            warnings.warn(
                f"the rows are sorted, but {folder} has no room to deal them anew: they are"
                " shuffled within windows, which learns worse. Name a folder with cache_folder=.",
                UserWarning,
                stacklevel=2,
            )
            shuffling = replace(shuffling, shuffle="window")
            return make_plan(source, shuffling, reading.memory_bytes, segments)
    return plan


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
        reading: ReadPlan = ReadPlan(),
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
                yield self._mark(chunk)

    def _mark(self, chunk: Chunk) -> Chunk:
        """Return the chunk with its rows that are held out marked."""
        if self._plan.held is None:
            return chunk
        first = self._source.number(chunk.piece, chunk.start)
        return replace(chunk, held=held_out(*self._plan.held, first, chunk.rows))

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
                number = _BucketRows(seed, self._plan.buckets, rows, bucket)
                yield buffer.window(source, number, index, last=index == len(order) - 1)

    def _deal(self, seed: int, stopped: threading.Event) -> None:
        """Write all rows, each to the bucket that is drawn for it, in source order within."""
        self._open_cache(seed)
        if self._cache is None:
            raise SaveError(NO_ROOM)
        if self._is_sealed:
            return
        logger.info("dealing the rows into %d buckets", self._plan.buckets)
        writer = _BucketWriter(self._cache, self._plan)
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


class _BucketWriter:
    """Rows on their way to buckets, collected into chunks worth writing."""

    def __init__(self, cache: Cache, plan: ShufflePlan) -> None:
        self._cache, self._buckets = cache, plan.buckets
        self._room = max(plan.window // plan.buckets, 1)  # all together take as much as a window
        self._buffers: dict[int, WindowBuffer] = {}
        self._pages = PagePool()

    def deal(self, chunk: Chunk, seed: int, number: int) -> None:
        """Take a chunk whose first row is `number` in the source."""
        chunk = replace(chunk, parts=tuple(part.by_row(copy_matrix) for part in chunk.parts))
        drawn = buckets_of(seed, self._buckets, number, chunk.rows)
        order = np.argsort(drawn, kind="stable")
        bounds = np.searchsorted(drawn, np.arange(self._buckets + 1), sorter=order).tolist()
        for bucket in range(self._buckets):
            start, stop = bounds[bucket : bucket + 2]
            while start < stop:
                buffer = self._buffers.get(bucket)
                if buffer is None:
                    buffer = self._buffers[bucket] = WindowBuffer(chunk, self._room, self._pages)
                some = min(stop, start + buffer.room)
                buffer.take(chunk, start, some, order)
                start = some
                if not buffer.room:
                    self._hand_in(bucket)

    def finish(self) -> None:
        """Hand in what is left."""
        for bucket in list(self._buffers):
            self._hand_in(bucket)

    def _hand_in(self, bucket: int) -> None:
        self._cache.add(self._buffers.pop(bucket).chunk(bucket, 0))


@dataclass(frozen=True)
class _BucketRows:
    """Where the rows of a bucket stand in the source; looked for only when a message needs it."""

    seed: int
    buckets: int
    rows: int
    bucket: int

    def __call__(self, row: int) -> int:
        step = 2**20
        for first in range(0, self.rows, step):
            drawn = buckets_of(self.seed, self.buckets, first, min(step, self.rows - first))
            here = np.flatnonzero(drawn == self.bucket)
            if row < here.size:
                return first + int(here[row])
            row -= here.size
        raise IndexError(row)


def _chain(first: Chunk, rest: Iterator[Chunk]) -> Iterator[Chunk]:
    yield first
    yield from rest


def _until(stopped: threading.Event, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield chunks until nobody wants them any more."""
    for chunk in chunks:
        if stopped.is_set():
            return
        yield chunk
