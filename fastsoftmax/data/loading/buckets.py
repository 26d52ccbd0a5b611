"""The only place that deals rows into buckets, which are read as windows later on.

A bucket is a window's rows from all over the source: rows that are sorted come out as if drawn by
chance, at the cost of writing and reading each once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastsoftmax.data.loading.cache import Cache
from fastsoftmax.data.loading.shuffle import ShufflePlan, buckets_of
from fastsoftmax.data.loading.shuffle_buffer import PagePool, WindowBuffer
from fastsoftmax.data.source import Chunk
from fastsoftmax.facts import dataclass
from fastsoftmax.kernels.transpose import copy_matrix


class BucketWriter:
    """Rows on their way to buckets, collected into chunks worth writing."""

    def __init__(self, cache: Cache, plan: ShufflePlan) -> None:
        self._cache, self._buckets = cache, plan.buckets
        self._room = max(plan.window // plan.buckets, 1)  # all together take as much as a window
        self._buffers: dict[int, WindowBuffer] = {}
        self._pages = PagePool()

    def deal(self, chunk: Chunk, seed: int, number: int) -> None:
        """Take a chunk whose first row is `number` in the source."""
        chunk = chunk.by_row(copy_matrix)
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
class BucketRows:
    """Where the rows of a bucket stand in the source; looked for only when a message needs it."""

    seed: int
    buckets: int
    rows: int
    bucket: int

    def __call__(self, row: Any) -> Any:
        """Return the number in the source of row `row`, or of each of an array of them."""
        step, found = 2**20, [np.zeros(0, np.int64)]
        for first in range(0, self.rows, step):
            drawn = buckets_of(self.seed, self.buckets, first, min(step, self.rows - first))
            found.append(first + np.flatnonzero(drawn == self.bucket))
        return np.concatenate(found)[row]
