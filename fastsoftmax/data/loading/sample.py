"""The only place that draws rows from all over a source, to see of it what no window shows.

Some pieces are read, or the first rows of them, and of what was read some rows are kept. Which, is
a function of the seed, the sizes of the pieces and the rows asked for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import numpy as np

from fastsoftmax.data.loading.prefetch import OrderedPool
from fastsoftmax.data.loading.shuffle import SAMPLES, ShufflePlan, marked, words
from fastsoftmax.data.loading.shuffle_buffer import PagePool, Window, WindowBuffer
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes

MOST_PIECES = 32  # that are read of
WHOLE_PIECES = 16  # where there are fewer, all are read to their end: else too little is seen
READ_SHARE = 8  # of the rows, one in so many is read, or
READ_ROWS = 4  # so many for each that is kept, where that is more


@dataclass(frozen=True)
class Draw:
    """Rows (n,) int64 of a piece, ascending."""

    piece: int
    rows: np.ndarray


def draw(pieces: Sequence[int], seed: int, count: int) -> list[Draw]:
    """Return `count` rows, or all where there are fewer, spread over the pieces."""
    sizes = np.array(pieces, np.int64)
    total = int(sizes.sum())
    count = min(count, total)
    if len(sizes) <= MOST_PIECES or count == total:
        chosen, shares = np.arange(len(sizes)), sizes / total
    else:  # one row after so many belongs to a piece that is read
        steps = _spread(total, MOST_PIECES, seed, 1)
        found = np.searchsorted(sizes.cumsum(), steps, side="right")
        times = np.bincount(found, minlength=len(sizes))
        chosen = np.flatnonzero(times)
        shares = times[chosen] / times.sum()
    ends = np.rint(np.cumsum(shares) * count).astype(np.int64)
    wanted = np.minimum(np.diff(ends, prepend=0), sizes[chosen])
    reach = sizes[chosen]
    if len(sizes) >= WHOLE_PIECES:
        most = max(READ_ROWS * count, total // READ_SHARE)
        reach = np.minimum(reach, np.maximum(wanted, (shares * most).astype(np.int64)))
    return [
        Draw(int(piece), _spread(int(rows), int(some), seed, 2 + int(piece)))
        for piece, rows, some in zip(chosen, reach, wanted, strict=True)
        if some
    ]


def _spread(total: int, count: int, seed: int, part: int) -> np.ndarray:
    """Return `count` of so many numbers, ascending: one of each of as many equal stretches."""
    starts = np.arange(count + 1, dtype=np.int64) * total // count
    drawn = words(seed, SAMPLES, 0, part, 0, count) >> np.uint64(32)
    within = drawn * np.diff(starts).astype(np.uint64) >> np.uint64(32)
    return starts[:-1] + within.astype(np.int64)


def sample_window(
    source: Source, classes: Classes, plan: ShufflePlan, draws: Sequence[Draw], readers: int
) -> Window:
    """Read the rows that were drawn, in the order of their numbers, as a window of their own."""
    by_piece = {each.piece: each.rows for each in draws}
    size = sum(map(len, by_piece.values()))
    buffer, numbers, pages = None, [], PagePool()
    for chunk in _read(source, classes, by_piece, readers):
        rows = by_piece[chunk.piece]
        first, stop = np.searchsorted(rows, [chunk.start, chunk.start + chunk.rows])
        here = rows[first:stop] - chunk.start
        chunk = marked(chunk, source, plan)
        buffer = buffer or WindowBuffer(chunk, size, pages)
        buffer.take(chunk, 0, len(here), here)
        numbers.append(source.number(chunk.piece, chunk.start) + here)
    assert buffer is not None  # draws are of rows that are there
    found = np.concatenate(numbers)
    return buffer.window(source, lambda row: found[row], 0, last=True)


def _read(
    source: Source, classes: Classes, by_piece: dict[int, np.ndarray], readers: int
) -> Generator[Chunk, None, None]:
    """Yield the chunks of these pieces, each to its last row that was drawn."""

    def work(jobs: Iterator[int]) -> Generator[Chunk, None, None]:
        for piece in jobs:
            last = int(by_piece[piece][-1])
            with closing(source.chunks(classes, [piece])) as chunks:
                for chunk in chunks:
                    yield chunk
                    if chunk.start + chunk.rows > last:
                        break

    pieces = list(by_piece)
    if source.in_memory or len(pieces) < 2:
        yield from work(iter(pieces))
    else:
        yield from OrderedPool(work, pieces, readers).items()
