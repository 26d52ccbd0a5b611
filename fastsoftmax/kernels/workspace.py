"""The only place that lays out memory: arrays on cache lines, rows in whole vectors."""

from __future__ import annotations

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
# Lines this many bytes apart compete for the same few places of the first-level cache: 19 rows of
# 1,024 floats, read side by side, took twice as long as 19 rows of 1,040.
WAYS_APART = 4096


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


def row_length(d: int, dtype: np.dtype) -> int:
    """Return the length of rows of d features in whole vectors, and a line more where rows would
    else lie in each other's way."""
    length = padded(d, dtype)
    if length * np.dtype(dtype).itemsize % (WAYS_APART // 2) == 0:
        length += padded(1, dtype)
    return length
