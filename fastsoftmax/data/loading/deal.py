"""The only place that deals rows to shards: a function of the pieces, the seed and their number."""

from __future__ import annotations

import heapq
import logging
import math
from collections.abc import Sequence
from itertools import pairwise

from fastsoftmax.data.loading.shuffle import deal_order
from fastsoftmax.data.source import Source
from fastsoftmax.errors import OptionError
from fastsoftmax.facts import dataclass
from fastsoftmax.options import Reading, Sharding

logger = logging.getLogger("fastsoftmax")

RUNS = 16  # of a shard, at least, where rows in memory are cut into runs
LEAST_RUN = 1024  # rows of these
SHARES = 2  # shards for each worker, where their number is chosen: a power of two at least so many
ENOUGH_ROWS, LEAST_ROWS = 10**6, 4096  # from which on threads share rows; of a shard


@dataclass(frozen=True)
class Run:
    """Rows `first` to `stop` of a piece."""

    piece: int
    first: int
    stop: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.stop - self.first


@dataclass(frozen=True)
class Deal:
    """The runs of rows that each shard has, in source order."""

    shards: tuple[tuple[Run, ...], ...]

    def pieces(self, shard: int) -> list[int]:
        """Return the pieces that are a shard's to look at, where each is looked at once."""
        return [run.piece for run in self.shards[shard] if run.first == 0]


def count_of(source: Source, sharding: Sharding, reading: Reading) -> int:
    """Return into how many shards rows are dealt; 1 is a run without."""
    rows, workers = source.rows, sharding.workers
    if sharding.shards != "auto":
        return sharding.count
    if rows is None or source.one_pass:
        return 1
    threads = reading.thread_count
    if workers is None and (threads < 2 or rows < ENOUGH_ROWS):
        return 1
    wanted = 2 ** math.ceil(math.log2(SHARES * (workers if isinstance(workers, int) else threads)))
    while wanted > 1 and rows < LEAST_ROWS * wanted:
        wanted //= 2
    logger.info("shards %d", wanted)
    return wanted


def run_rows(rows: int, shards: int) -> int:
    """Return into runs of how many rows data in memory are cut, which costs nothing."""
    return max(-(-rows // (RUNS * shards)), min(LEAST_RUN, -(-rows // shards)))


def deal(pieces: Sequence[int], shards: int, seed: int) -> Deal:
    """Deal the pieces, of so many rows each, to shards of sizes as equal as they allow.

    A piece that is larger than a shard should be is dealt in runs of its rows. The largest are
    dealt first, those of one size in an order drawn by the seed, each to the smallest shard so far.
    """
    total = sum(pieces)
    if total < shards:
        raise OptionError(f"the data have {total:,} rows, fewer than shards={shards:,}: deal fewer")
    runs = [run for piece, rows in enumerate(pieces) for run in _runs(piece, rows, total, shards)]
    order = sorted(deal_order(len(runs), seed), key=lambda i: -runs[i].rows)  # a stable sort
    filled = [(0, shard) for shard in range(shards)]
    dealt: list[list[Run]] = [[] for _ in range(shards)]
    for i in order:
        rows, shard = heapq.heappop(filled)
        dealt[shard].append(runs[i])
        heapq.heappush(filled, (rows + runs[i].rows, shard))
    return Deal(tuple(tuple(sorted(each, key=lambda r: (r.piece, r.first))) for each in dealt))


def spread(pieces: Sequence[int], shards: int) -> Deal:
    """Deal the pieces in source order: one shard has the rows before those of the next."""
    total, number = max(sum(pieces), 1), 0
    dealt: list[list[Run]] = [[] for _ in range(shards)]
    for piece, rows in enumerate(pieces):
        for run in _runs(piece, rows, total, shards):
            dealt[(number + run.rows // 2) * shards // total].append(run)
            number += run.rows
    return Deal(tuple(map(tuple, dealt)))


def _runs(piece: int, rows: int, total: int, shards: int) -> list[Run]:
    """Return the runs of a piece: one, unless it is larger than a shard should be."""
    count = -(-rows * shards // total) if rows * shards > total else min(rows, 1)
    cuts = [rows * i // count for i in range(count + 1)] if count else [0]
    return [Run(piece, first, stop) for first, stop in pairwise(cuts)]
