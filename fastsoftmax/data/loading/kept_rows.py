"""The only place that tells whether rows are decoded anew or come from what is kept of them."""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import closing

from fastsoftmax.data.loading.cache import Cache, DiskCache, MemoryCache, digest_of
from fastsoftmax.data.loading.prefetch import OrderedPool
from fastsoftmax.data.loading.read_plan import ReadPlan
from fastsoftmax.data.loading.shuffle import ShufflePlan, marked
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.files import cache_folder
from fastsoftmax.labels import Classes

logger = logging.getLogger("fastsoftmax")


class KeptRows:
    """The rows of a source as chunks, kept as they come where the reading says so.

    cache: what keeps them, or None. is_sealed: whether all are there.
    """

    def __init__(
        self, source: Source, classes: Classes, plan: ShufflePlan, reading: ReadPlan
    ) -> None:
        self._source, self._classes, self._plan, self._reading = source, classes, plan, reading
        self._keeps = reading.keep != "off" and not (source.in_memory or source.one_pass)
        self.cache: Cache | None = None
        self.is_sealed = False

    def chunks(self, order: Sequence[int] | None) -> Generator[Chunk, None, None]:
        """Yield the chunks of the pieces in `order`: from what is kept, or to be kept, if it is."""
        fills_memory = self._plan.holds_all and not self._reading.named
        if not self._keeps or fills_memory:
            yield from self.decoded(order)
            return
        if not self.is_sealed:  # what an epoch left that was not read to its end is begun anew
            self.drop()
            self.open(None)
        if self.cache is not None and self.is_sealed and order is not None:
            for piece in order:
                yield from self.cache.read(piece)
            return
        with closing(self.decoded(order)) as chunks:
            for chunk in chunks:
                yield self._keep(chunk)
        if self.cache is not None:
            self.cache.seal()
            self.is_sealed = True

    def open(self, seed: int | None) -> None:
        """Open what rows are kept in: dealt with `seed`, or piece by piece."""
        if self._reading.keep == "memory" and seed is None:
            self.cache = MemoryCache()
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
            self.cache, self.is_sealed = cache, cache.is_sealed

    def _keep(self, chunk: Chunk) -> Chunk:
        """Keep a chunk where rows are kept; return it, laid out by row if that was done for it."""
        if self.cache is None:
            return chunk
        try:
            return self.cache.add(chunk)
        except OSError as error:
            self._do_without(error)
            return chunk

    def _do_without(self, error: OSError) -> None:
        """Go on without keeping rows."""
        self.drop()
        self._keeps = False
        logger.warning("decoded rows cannot be kept (%s): each epoch decodes them anew", error)

    def decoded(self, order: Sequence[int] | None) -> Generator[Chunk, None, None]:
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

    def drop(self) -> None:
        """Forget what is kept."""
        if self.cache is not None:
            self.cache.close()
        self.cache, self.is_sealed = None, False
