"""The only place for the order of rows: a function of seed, epoch, pieces and window alone.

Random words come from a counter-based generator (Salmon, Moraes, Dror and Shaw, Parallel Random
Numbers: As Easy as 1, 2, 3, SC 2011), so any of them can be had without the ones before.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastsoftmax.data.mixing import Segments, expected_mixing
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.facts import dataclass
from fastsoftmax.kernels.permute import fisher_yates
from fastsoftmax.options import Shuffling

logger = logging.getLogger("fastsoftmax")

# What words are for: no two purposes share any.
HELD_OUT, PIECES, ROWS, BUCKETS, SAMPLES, DEALS, SHARES, MIXES, VISITS, STEPS = range(10)
LANES = 4  # words in a block of Philox
ALL_SHARE = 0.6  # of the memory: all rows, decoded
WINDOW_SHARE = 0.3  # of the memory: one of the two windows alive
FILLED = 0.9  # of a window: a bucket; chance fills some more than others
MIXED = 0.9  # windows whose mixing is below are too unlike the whole
DRAWN = 2**20  # words at a time
LEAST_WINDOWS, ENOUGH_ROWS = 16, 2**16  # windows of an epoch, unless they hold this many rows
# Rows of a file are stepped over as they come in if they take so many bytes; fewer are there before
# it would matter. Their windows hold so many rows at least.
STREAMED_BYTES, LEAST_STREAMED = 2**25, 2**14
STEP, LEAST_STEP = 4096, 64  # windows are whole multiples of this many rows; of few, if they must
# A row's label (4), its weight (8), its place in the order (8) and the word that drew it (8).
ROW_OVERHEAD = 28


def words(seed: int, purpose: int, epoch: int, part: int, start: int, count: int) -> np.ndarray:
    """Return random words start, start + 1, ... (count,) uint64 of the stream so named."""
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([start // LANES, epoch, part, 0], dtype=np.uint64)
    skipped = start % LANES
    return np.random.Philox(key=key, counter=counter).random_raw(skipped + count)[skipped:]


def held_out(seed: int, fraction: float, start: int, count: int) -> np.ndarray:
    """Return which of the rows start, start + 1, ... are held out: a mask (count,)."""
    drawn = words(seed, HELD_OUT, 0, 0, start, count) >> np.uint64(11)
    return drawn < np.uint64(fraction * 2**53)


def uniforms(seed: int, start: int, count: int) -> np.ndarray:
    """Return a number in [0, 1) of each of the rows start, start + 1, ...: which share it is in."""
    return (words(seed, SHARES, 0, 0, start, count) >> np.uint64(11)) * 2.0**-53


def buckets_of(seed: int, buckets: int, start: int, count: int) -> np.ndarray:
    """Return the bucket (count,) uint32 that each of the rows start, start + 1, ... is dealt to."""
    drawn = words(seed, BUCKETS, 0, 0, start, count) >> np.uint64(32)
    return (drawn * np.uint64(buckets) >> np.uint64(32)).astype(np.uint32)


def bucket_sizes(seed: int, buckets: int, rows: int) -> np.ndarray:
    """Return how many of so many rows are dealt to each bucket: (buckets,) int64."""
    sizes = np.zeros(buckets, np.int64)
    for start in range(0, rows, DRAWN):
        drawn = buckets_of(seed, buckets, start, min(DRAWN, rows - start))
        sizes += np.bincount(drawn, minlength=buckets)
    return sizes


@dataclass(frozen=True)
class ShufflePlan:
    """Which rows are shuffled together.

    kind: "all" (one permutation of all rows), "window" (pieces, then rows within windows), "full"
        (rows dealt into buckets, these and the rows within permuted) or "off" (source order).
    window: rows of a window, at most. first: rows of a window of the first epoch, where rows are
        stepped over as they come in; else 0. buckets: how many there are. rows: of the source,
        None where nobody knows. row_bytes: what a row takes in a window, in the mean. size: the
        bytes of all rows. fits: whether they fit the memory at once. held: the seed and the
        fraction of rows that are held out, or None.
    """

    kind: str
    window: int
    buckets: int = 0
    rows: int | None = None
    row_bytes: int = 0
    size: int = 0
    fits: bool = False
    held: tuple[int, float] | None = None
    first: int = 0

    @property
    def told(self) -> tuple[str, int, int, int]:
        """What a checkpoint tells of it: all that the order of rows depends on."""
        return self.kind, self.window, self.buckets, self.first

    def window_of(self, epoch: int) -> int:
        """Return how many rows a window of an epoch holds, at most."""
        return self.first if self.first and epoch == 0 else self.window

    @property
    def window_bytes(self) -> int:
        """What a window takes."""
        return self.window * self.row_bytes

    @property
    def holds_all(self) -> bool:
        """Whether one window holds all rows."""
        return self.rows is not None and self.window >= self.rows

    def __str__(self) -> str:
        among = f", {self.buckets} buckets" if self.buckets else ""
        return f"{self.kind} ({self.window:,} rows{among})"


def _window_rows(row_bytes: int, memory: int, rows: int | None) -> int:
    """Return how many rows of those there are a window holds: what fits, and not too many.

    Training waits for the first window to fill, and reading for the last to be trained on.
    """
    fitting = int(WINDOW_SHARE * memory) // row_bytes
    if rows is not None:
        fitting = min(fitting, max(rows // LEAST_WINDOWS, ENOUGH_ROWS))
    step = STEP if fitting >= STEP else LEAST_STEP
    return max(fitting - fitting % step, step)


def make_plan(
    source: Source,
    shuffling: Shuffling,
    memory: int,
    segments: Segments | None = None,
    *,
    streams: bool = False,
) -> ShufflePlan:
    """Return the plan for the rows of `source` within so many bytes.

    segments: where the rows of each class stand, as far as it is known; shuffle=auto deals rows
    into buckets where windows of neighbours would be too unlike the whole. streams: rows may be
    stepped over as they come in, before all of them are there.
    """
    memory, rows = source.room(memory), source.rows
    row_bytes = source.row_bytes + ROW_OVERHEAD
    window = shuffling.shuffle_window or _window_rows(row_bytes, memory, rows)
    held = None if shuffling.holdout is None else (shuffling.seed, shuffling.holdout)
    if rows is None or source.decoded_bytes is None:
        kind = "off" if shuffling.shuffle == "off" else "window"
        return ShufflePlan(kind, window, row_bytes=row_bytes, held=held)
    size = source.decoded_bytes + rows * ROW_OVERHEAD
    fits = size <= ALL_SHARE * memory
    free = source.resident and source.pieces is not None and len(source.pieces) == 1
    if (fits or free) and shuffling.shuffle != "window" and shuffling.shuffle_window is None:
        window = rows
    plan = ShufflePlan("window", min(window, rows), 0, rows, row_bytes, size, fits, held)
    if shuffling.shuffle == "off":
        return replace(plan, kind="off")
    if plan.holds_all:
        first = _streamed_rows(plan, source, shuffling, segments) if streams else 0
        return replace(plan, kind="all", first=first)
    wanted = shuffling.shuffle == "auto" and _is_sorted(plan, source, shuffling.seed, segments)
    if shuffling.shuffle == "full" or wanted:
        return replace(plan, kind="full", buckets=math.ceil(rows / (FILLED * window)))
    return plan


def _is_sorted(plan: ShufflePlan, source: Source, seed: int, segments: Segments | None) -> bool:
    """Return whether windows of neighbouring rows would be too unlike the whole; say so."""
    mixing = _mixing_of_windows(plan, source, seed, segments)
    if mixing < MIXED:
        logger.info("rows are sorted (mixing of windows %.2f): they are dealt anew", mixing)
    return mixing < MIXED


def _mixing_of_windows(
    plan: ShufflePlan, source: Source, seed: int, segments: Segments | None
) -> float:
    """Return how well windows of the first epoch will be mixed, 1 where nobody knows."""
    if segments is None or source.pieces is None:
        return 1.0
    order = piece_order(plan, source.pieces, seed, 0)
    return expected_mixing(segments, np.array(order), plan.window_of(0))


def _streamed_rows(
    plan: ShufflePlan, source: Source, shuffling: Shuffling, segments: Segments | None
) -> int:
    """Return the rows of a window of the first epoch, where all fit and it need not wait for all.

    They do not depend on the memory, as the order of rows that fit it does not.
    """
    rows = plan.rows or 0
    first = min(max(rows // LEAST_WINDOWS, LEAST_STREAMED), ENOUGH_ROWS)
    first -= first % STEP
    asked = shuffling.shuffle_window is not None
    if asked or source.in_memory or plan.size < STREAMED_BYTES or first >= rows:
        return 0
    mixing = _mixing_of_windows(replace(plan, first=first), source, shuffling.seed, segments)
    return first if mixing >= MIXED else 0


def _permuted(count: int, seed: int, purpose: int, epoch: int, part: int) -> np.ndarray:
    order = np.arange(count, dtype=np.int64)
    fisher_yates(order, words(seed, purpose, epoch, part, 0, max(count - 1, 0)))
    return order


def piece_order(
    plan: ShufflePlan, pieces: Sequence[int] | None, seed: int, epoch: int
) -> list[int] | None:
    """Return the order in which the pieces, or the buckets, are read in this epoch."""
    if plan.kind == "full":
        return _permuted(plan.buckets, seed, PIECES, epoch, 0).tolist()
    if pieces is None:
        return None
    if plan.kind != "window" and not plan.first:
        return list(range(len(pieces)))
    return _permuted(len(pieces), seed, PIECES, epoch, 0).tolist()


def row_order(plan: ShufflePlan, rows: int, seed: int, epoch: int, index: int) -> np.ndarray:
    """Return the order (rows,) int64 of the rows of window number `index` in this epoch."""
    if plan.kind == "off":
        return np.arange(rows, dtype=np.int64)
    return _permuted(rows, seed, ROWS, epoch, index)


def marked(chunk: Chunk, source: Source, plan: ShufflePlan) -> Chunk:
    """Return the chunk with its rows that are held out marked."""
    if plan.held is None:
        return chunk
    first = source.number(chunk.piece, chunk.start)
    return replace(chunk, held=held_out(*plan.held, first, chunk.rows))


def deal_order(runs: int, seed: int) -> list[int]:
    """Return the order in which so many runs of rows are dealt to shards."""
    return _permuted(runs, seed, DEALS, 0, 0).tolist()


def mixed_order(rows: int, seed: int) -> np.ndarray:
    """Return the order (rows,) int64 in which rows in memory are shared out to shards."""
    return _permuted(rows, seed, MIXES, 0, 0)


def visit_order(windows: int, seed: int, epoch: int, shard: int) -> list[int]:
    """Return the order in which the windows of a shard are stepped over in an epoch."""
    return _permuted(windows, seed, VISITS, epoch, shard).tolist()


def step_order(rows: int, seed: int, epoch: int, shard: int, window: int) -> np.ndarray:
    """Return the order (rows,) int64 of the rows of a shard's window in an epoch."""
    return _permuted(rows, seed, STEPS, epoch, (shard << 32) + window)


def sample_order(rows: int, seed: int) -> np.ndarray:
    """Return an order (rows,) int64 of the first window's rows, to take samples in."""
    return _permuted(rows, seed, SAMPLES, 0, 0)
