"""The only place that has the shards of some rows worked on, whoever does the work."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from fastsoftmax.data.loading.deal import Deal
from fastsoftmax.data.loading.shard_rows import Shard, forget
from fastsoftmax.data.source import Source
from fastsoftmax.engines.engine import Engine
from fastsoftmax.engines.merging import merged
from fastsoftmax.engines.tasks import Job
from fastsoftmax.options import Reading

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
        self.source, self.engine, self.watch = source, engine, _watch_nothing
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
        kept = [carrier.keep(value, everywhere=True) for value in state]
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

    def merged(self, name: str, call: Callable[..., Any], *state: Any) -> Any:
        """Return the sum of what a call returns for each shard, added in a tree of fixed shape."""
        return merged(self.each(name, call, *state))

    def _let_go(self) -> None:
        if self._source is not None:
            self.engine.carrier.let_go(self._source)
            self._source = None


def _watch_nothing(done: int, of: int) -> None:
    return
