"""The only place that decides block sizes and lays out a kernel's memory."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.blocks import Average, Block, Coefficients
from fastsoftmax.kernels.compile import in_python
from fastsoftmax.kernels.curvature import ProductScratch
from fastsoftmax.kernels.gradient import GradientSums
from fastsoftmax.kernels.lookahead import BLOCKS, Turn
from fastsoftmax.kernels.minibatch import FACTS, Gradient
from fastsoftmax.kernels.panels import TURNS, Panels, panel_start
from fastsoftmax.kernels.tiles import CLASS_TILE, COEFFICIENTS_ROW, MANY, PANEL_ROW, SWEEP_ROWS

WORKER_FLOPS = 2_000_000  # of a block, that make another worker worth waiting for
# Lookahead costs B / (2 K) + B / (2 d) of the useful work: with this and blocks of 32 rows, up to
# 6 %. At K = 1,000, d = 768 one thread takes 1.04 times as long, two the same, twelve 0.8 of the
# time; where W comes from memory (K = 10,000, d = 1,024) one takes 1.06 and sixteen 0.95.
AHEAD = 256
# Numbers of W from which on it comes from memory once a block: K = 10,000, d = 1,024 takes 1.27
# times as long in blocks of 32 rows, 1.04 times in those of 64; K = 2,000 takes less with 32.
LARGE = 2**22
# Panels pay for at most this many classes and at least this many features: against blocks shared by
# class, the time is 0.75 to 0.85 at (K, d) = (10, 784), 0.8 at (2, 784) and (16, 784), 0.85 to 0.95
# at (10, 300), 1 at (10, 128), 1.2 at (7, 64) and (4, 128).
PANEL_CLASSES, PANEL_FEATURES = 16, 300
PANEL = 384  # features of a panel, at least; PANEL_ROW has room for twice as many
# Lines this many bytes apart compete for the same few places of the first-level cache: 19 rows of
# 1,024 floats, read side by side, took twice as long as 19 rows of 1,040.
WAYS_APART = 4096
RANGE_SUMS = 2**17  # numbers: sixteen ranges of these take 16 MB
PRODUCT_ROWS = 96  # rows whose products are added at once: two blocks of them stay in the cache
ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def padded(count: int, dtype: np.dtype) -> int:
    """Return `count` rounded up to whole vectors of dtype."""
    lanes = ALIGNMENT // np.dtype(dtype).itemsize
    return -(-count // lanes) * lanes


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return zeros of `shape` that begin on a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def block_rows(K: int, d: int) -> int:
    """Return B, how many rows are gathered and, unless `is_tiny`, stepped together."""
    if is_tiny(K, d):
        return 128  # 16 at once cost a third more: gather and steps hinder each other
    if MANY and K * d >= LARGE:
        return 96
    return 16 if K <= 64 or (not MANY and d > 1024) else 32


def row_length(d: int, dtype: np.dtype) -> int:
    """Return the length of rows of d features in whole vectors, and a line more where rows would
    else lie in each other's way."""
    length = padded(d, dtype)
    if length * np.dtype(dtype).itemsize % (WAYS_APART // 2) == 0:
        length += padded(1, dtype)
    return length


def weights_length(K: int, d: int, dtype: np.dtype) -> int:
    """Return the length of rows of W; workers of panels have a W of their own."""
    return padded(d, dtype) if has_panels(K, d) else row_length(d, dtype)


def new_coefficients(K: int, d: int, dtype: np.dtype) -> Coefficients:
    """Return zero weights and biases for K classes and d features, padded."""
    b = aligned((1, padded(K, dtype)), dtype)
    b[0, K:] = -np.inf
    return Coefficients(aligned((K, weights_length(K, d, dtype)), dtype), b)


def new_average(K: int, d: int, dtype: np.dtype, rows: int) -> Average:
    """Return zero sums of weights and biases, and coefficients for blocks of `rows` rows."""
    width = padded(K, dtype)
    return Average(
        aligned((K, weights_length(K, d, dtype)), dtype),
        aligned((1, width), dtype),
        _coefficients(rows, width, dtype),
    )


def _coefficients(rows: int, width: int, dtype: np.dtype) -> np.ndarray:
    return aligned((rows, max(width, COEFFICIENTS_ROW)), dtype)[:, :width]


def _at_hand(workers: int, count: int) -> np.ndarray:
    """Return lists of cache lines to ask for that hold none yet but their own first line."""
    lines = np.zeros((workers, count), dtype=np.int64)
    for i in range(workers):
        lines[i, 0] = lines[i:].ctypes.data
    return lines


def _lines(rows: int, d: int, workers: int) -> np.ndarray:
    """Return lists that hold the cache lines of so many rows."""
    return _at_hand(workers, rows * (d * np.dtype(np.float64).itemsize // ALIGNMENT + 2))


def new_block(K: int, d: int, dtype: np.dtype, rows: int, workers: int = 1) -> Block:
    """Return scratch for blocks of `rows` rows, a multiple of eight."""
    width = padded(K, dtype)
    return Block(
        aligned((2, rows, weights_length(K, d, dtype)), dtype),
        aligned((rows, width), dtype),
        aligned((rows, width), dtype),
        aligned((rows, rows), dtype),
        aligned((rows,), np.dtype(np.float64)),
        _lines(rows, d, workers),
    )


def new_turns(K: int, d: int, dtype: np.dtype, rows: int, workers: int) -> tuple[Turn, Turn]:
    """Return scratch for every other block of `rows` rows, a multiple of eight."""
    width = padded(K, dtype)
    X = aligned((BLOCKS, rows, weights_length(K, d, dtype)), dtype)
    lines = _lines(rows, d, workers)
    even, odd = (
        Turn(
            X,
            aligned((rows, width), dtype),
            aligned((rows, width), dtype),
            aligned((rows, rows), dtype),
            aligned((rows, rows), dtype),
            aligned((rows,), np.dtype(np.float64)),
            lines,
        )
        for _ in range(2)
    )
    return even, odd


def looks_ahead(K: int, d: int) -> bool:
    """Return whether the steps of one block are taken while W is brought up to the one before."""
    return AHEAD * (K + d) <= K * d < LARGE


def other_turn(average: Average | None) -> Average | None:
    """Return the same sums with coefficients for every other block."""
    if average is None:
        return None
    rows, width = average.H.shape
    return average._replace(H=_coefficients(rows, width, average.H.dtype))


def has_panels(K: int, d: int) -> bool:
    """Return whether workers share the features: a class each would be too little to share."""
    return K <= PANEL_CLASSES and d >= PANEL_FEATURES


def panel_count(d: int) -> int:
    """Return how many panels d features are cut into."""
    return max(1, d // PANEL)


def new_panels(K: int, d: int, dtype: np.dtype, workers: int = 1) -> Panels:
    """Return scratch for blocks of SWEEP_ROWS rows, their features cut into panels."""
    rows, width, parts = SWEEP_ROWS, padded(K, dtype), panel_count(d)
    across, length = padded(rows, dtype), row_length(d, dtype)
    return Panels(
        aligned((TURNS, parts, rows, width), dtype),
        aligned((TURNS, parts, rows, across), dtype),
        aligned((workers, 2, parts, rows, PANEL_ROW), dtype),
        aligned((workers, rows, length), dtype),
        aligned((workers, rows, 1), np.dtype(np.int64)),
        aligned((workers, K, length), dtype),
        aligned((workers, 1, width), dtype),
        aligned((workers, rows, width), dtype),
        aligned((workers, rows, COEFFICIENTS_ROW), dtype)[:, :, :width],
        aligned((workers, rows, across), dtype),
        aligned((workers, rows), np.dtype(np.float64)),
        _lines(rows, d, workers),
    )


def panel_columns(d: int, worker: int, workers: int) -> tuple[int, int]:
    """Return the first feature of a worker's panels and the first after them."""
    count, start = panel_count(d), in_python(panel_start)
    first, stop = (count * w // workers for w in (worker, worker + 1))
    return start(d, first, count), start(d, stop, count)


def new_gradient(K: int, d: int, dtype: np.dtype) -> Gradient:
    """Return an empty batch for K classes and d features."""
    return Gradient(
        aligned((K, weights_length(K, d, dtype)), dtype),
        aligned((1, padded(K, dtype)), dtype),
        np.zeros(FACTS, dtype=np.float64),
    )


def range_count(K: int, d: int) -> int:
    """Return how many ranges the rows of a full gradient are cut into: few where sums are large."""
    return 16 if K * d <= RANGE_SUMS else 8 if K * d <= 8 * RANGE_SUMS else 4


def gradient_rows(K: int, d: int) -> int:
    """Return how many rows of a full gradient make a block: no step waits for another."""
    return block_rows(K, d) if is_tiny(K, d) else 32


def drained_rows(K: int, d: int) -> int:
    """Return how many rows of a full gradient are summed in the model's dtype, before float64.

    One block, where W is small: little is lost even where all rows are equal. Where W is large
    that would take as long as the products, and 256 rows cost a tenth.
    """
    return 1 if K * d <= RANGE_SUMS else 256


def new_sums(K: int, d: int, dtype: np.dtype, workers: int) -> GradientSums:
    """Return empty sums for the full gradient of K classes and d features."""
    ranges = range_count(K, d)
    return GradientSums(
        np.zeros((ranges, K, d)),
        np.zeros((ranges, K)),
        aligned((workers, K, weights_length(K, d, dtype)), dtype),
        aligned((workers, 1, padded(K, dtype)), dtype),
    )


def new_products(d: int, dtype: np.dtype) -> ProductScratch:
    """Return scratch for products of rows of d features and a 1 with themselves."""
    shape = (PRODUCT_ROWS, row_length(d + 1, dtype))
    return ProductScratch(aligned(shape, dtype), aligned(shape, dtype), _at_hand(1, 1))


def is_tiny(K: int, d: int) -> bool:
    """Return whether the plain loop is faster than the blocked one."""
    return K * d < 400


def useful_workers(K: int, d: int, threads: int) -> int:
    """Return how many of `threads` workers are worth having.

    Each needs a class tile of its own, and enough of a block to outweigh barriers and the rows
    and residuals that move between cores: two workers at K = 10, d = 784 took 1.0 to 1.8 times as
    long as one, at K = 1,000, d = 768 they take 0.55 of the time.
    """
    tiles = -(-K // CLASS_TILE)
    worth = 4 * K * d * block_rows(K, d) // WORKER_FLOPS
    return max(1, min(threads, tiles, worth))
