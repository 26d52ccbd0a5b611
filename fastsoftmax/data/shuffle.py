"""The only place for the order of rows: a function of seed, epoch, pieces and window alone.

Random words come from a counter-based generator (Salmon, Moraes, Dror and Shaw, Parallel Random
Numbers: As Easy as 1, 2, 3, SC 2011), so any of them can be had without the ones before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastsoftmax.data.source import Source
from fastsoftmax.kernels.permute import fisher_yates
from fastsoftmax.options import TrainOptions

HELD_OUT, PIECES, ROWS = range(3)  # what words are for: no two purposes share any
LANES = 4  # words in a block of Philox
ALL_SHARE = 0.6  # of the memory: all rows, decoded
WINDOW_SHARE = 0.35  # of the memory: one of the two windows alive
STEP = 4096  # windows are whole multiples of this many rows
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


@dataclass(frozen=True)
class Plan:
    """Which rows are shuffled together.

    kind: "all" (one permutation of all rows), "window" (pieces, then rows within windows) or
        "off" (source order).
    window: rows of a window. row_major: whether a resident matrix that lies column by column is
        copied row by row, which reads faster.
    """

    kind: str
    window: int
    row_major: bool = True


def _window_rows(row_bytes: int, memory: int) -> int:
    fitting = int(WINDOW_SHARE * memory) // row_bytes
    return max(fitting - fitting % STEP, STEP)


def make_plan(source: Source, options: TrainOptions) -> Plan:
    """Return the plan for the rows of `source` under the options' memory, shuffle and window."""
    memory, rows = options.memory_bytes, source.rows
    row_bytes = source.row_bytes + ROW_OVERHEAD
    window = options.shuffle_window or _window_rows(row_bytes, memory)
    if rows is None:
        return Plan("off" if options.shuffle == "off" else "window", window)
    fits = rows * row_bytes <= ALL_SHARE * memory
    free = source.resident and source.pieces is not None and len(source.pieces) == 1
    if (fits or free) and options.shuffle != "window" and options.shuffle_window is None:
        window = rows
    window = min(window, rows)
    kind = "all" if window == rows else "window"
    return Plan("off" if options.shuffle == "off" else kind, window, row_major=fits)


def _permuted(count: int, seed: int, purpose: int, epoch: int, part: int) -> np.ndarray:
    order = np.arange(count, dtype=np.int64)
    fisher_yates(order, words(seed, purpose, epoch, part, 0, max(count - 1, 0)))
    return order


def piece_order(plan: Plan, pieces: Sequence[int], seed: int, epoch: int) -> np.ndarray:
    """Return the order (int64) in which the pieces are read in this epoch."""
    if plan.kind != "window":
        return np.arange(len(pieces), dtype=np.int64)
    return _permuted(len(pieces), seed, PIECES, epoch, 0)


def row_order(plan: Plan, rows: int, seed: int, epoch: int, index: int) -> np.ndarray:
    """Return the order (rows,) int64 of the rows of window number `index` in this epoch."""
    if plan.kind == "off":
        return np.arange(rows, dtype=np.int64)
    return _permuted(rows, seed, ROWS, epoch, index)
