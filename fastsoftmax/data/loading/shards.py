"""The only place that has the shards of some rows worked on, whoever does the work."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from fastsoftmax.data.loading.deal import Deal, deal, run_rows, spread
from fastsoftmax.data.loading.shard_rows import Shard, forget
from fastsoftmax.data.source import Source
from fastsoftmax.engines.choice import engine_of
from fastsoftmax.engines.engine import Engine
from fastsoftmax.engines.merging import merged
from fastsoftmax.engines.tasks import Job
from fastsoftmax.errors import DataError
from fastsoftmax.options import Reading, Sharding

logger = logging.getLogger("fastsoftmax")


Watch = Callable[[int, int], None]  # is told how many tasks of a round are done, of how many


class Shards:
    """Rows that are dealt to shards, and an engine that has these worked on in rounds.

    In a round each shard is one task: call(source, shard, *state), which is pure.
    """

    def __init__(
        self,
        source: Source,
        deal: Deal,
        engine: Engine,
        reading: Reading,
        held: tuple[int, float] | None = None,
    ) -> None:
        self.source, self.engine = source, engine
        self.watch: Watch = _watch_nothing
        run = uuid.uuid4().hex
        folder = None if reading.cache in ("off", "memory") else reading.cache_folder or ""
        self.shards = [
            Shard(number, runs, tuple(deal.pieces(number)), held, run, reading.memory_bytes, folder)
            for number, runs in enumerate(deal.shards)
        ]
        self._source: Any = None

    def __len__(self) -> int:
        return len(self.shards)

    def close(self) -> None:
        """Have everyone forget the rows; workers that are not ours go on living."""
        self._let_go()
        run = self.shards[0].run
        forget(run)
        self.engine.carrier.everywhere(forget, run)

    def mix(self, seed: int) -> None:
        """Have windows hold rows from all over a shard from now on: those of steps must."""
        self.shards = [replace(shard, mixed_by=(seed, len(self))) for shard in self.shards]

    def owners(self, numbers: np.ndarray) -> np.ndarray:
        """Return the shard (n,) that each row is of, by its number in the source."""
        source, runs = self.source, [(s.number, run) for s in self.shards for run in s.runs]
        firsts = np.array([source.number(run.piece, run.first) for _, run in runs])
        order = np.argsort(firsts)
        at = np.searchsorted(firsts[order], numbers, side="right") - 1
        return np.array([number for number, _ in runs])[order][at]

    def changed(self) -> None:
        """Hand the source over anew: more is known of it now."""
        self._let_go()

    def each(
        self, name: str, call: Callable[..., Any], *state: Any, ahead: int | None = None
    ) -> Iterator[Any]:
        """Yield what a call returns for each shard, in their order."""
        engine, carrier = self.engine, self.engine.carrier
        if self._source is None:
            self._source = carrier.keep(self.source)
        started = time.perf_counter()
        kept = [carrier.keep(value) for value in state]
        handed = time.perf_counter() - started
        tasks = [
            Job(f"{name} {shard.number + 1} of {len(self)}", shard.number, call,
                 (self._source, shard, *kept))
            for shard in self.shards
        ]  # fmt: skip
        before = engine.times.tasks, engine.times.waiting
        try:
            yield from engine.results(tasks, lambda done: self.watch(done, len(tasks)), ahead)
        finally:
            for value in kept:
                carrier.let_go(value)
        took = time.perf_counter() - started
        worked, waited = (
            now - then
            for now, then in zip((engine.times.tasks, engine.times.waiting), before, strict=True)
        )
        logger.info(
            "%s: %d shards in %.2f s: %.2f s in tasks, %.3f s handing over, %.3f s waiting",
            name, len(tasks), took, worked, handed, max(waited - worked / carrier.size, 0.0),
        )  # fmt: skip

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Let nobody watch meanwhile."""
        watch, self.watch = self.watch, _watch_nothing
        try:
            yield
        finally:
            self.watch = watch

    def merged(self, name: str, call: Callable[..., Any], *state: Any) -> Any:
        """Return the sum of what a call returns for each shard, added in a tree of fixed shape."""
        return merged(self.each(name, call, *state))

    def _let_go(self) -> None:
        if self._source is not None:
            self.engine.carrier.let_go(self._source)
            self._source = None


@contextmanager
def dealt(
    source: Source,
    sharding: Sharding,
    reading: Reading,
    *,
    seed: int = 0,
    held: tuple[int, float] | None = None,
    in_order: bool = False,
) -> Iterator[Shards]:
    """Give the shards of a source, and workers for them.

    held: the seed and the fraction of rows that are held out. in_order: each shard has the rows
    before those of the next.
    """
    if source.one_pass or source.pieces is None:
        raise DataError(
            "shards are dealt from rows that are known: of files, a table or a matrix. These are a"
            " stream: write it to a Parquet file, or leave out shards."
        )
    count = sharding.count
    source.cut(run_rows(source.rows or 0, count))
    pieces = source.pieces
    deal_of = spread(pieces, count) if in_order else deal(pieces, count, seed)
    with engine_of(sharding.workers, count, reading.thread_count) as engine:
        engine.greet()
        with closing(Shards(source, deal_of, engine, reading, held)) as shards:
            yield shards


def _watch_nothing(done: int, of: int) -> None:
    return
