"""The only place for checksums: of bytes that we wrote and read again."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel

# Words that are summed side by side; the multiplier is odd, so that a change of one word shows.
SIDE_BY_SIDE = 32
MULTIPLIER = 0x9E3779B97F4A7C15


@kernel(EXACT, entry=True)
def _fold(sums, words, multiplier):
    """Set each of SIDE_BY_SIDE sums to a polynomial in its share of the words, modulo 2^64."""
    whole = words.shape[0] // SIDE_BY_SIDE * SIDE_BY_SIDE
    for i in range(0, whole, SIDE_BY_SIDE):
        for j in range(SIDE_BY_SIDE):
            sums[j] = (sums[j] + words[i + j]) * multiplier
    for i in range(whole, words.shape[0]):
        sums[0] = (sums[0] + words[i]) * multiplier


def checksum(array: np.ndarray) -> int:
    """Return a checksum (64 bits) of an array's bytes: any one changed word changes it."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    whole = flat.size // 8 * 8
    sums = np.arange(SIDE_BY_SIDE, dtype=np.uint64)
    _fold(sums, flat[:whole].view(np.uint64), np.uint64(MULTIPLIER))
    total = flat.size
    for word in (*sums.tolist(), int.from_bytes(flat[whole:].tobytes(), "little")):
        total = (total + word) * MULTIPLIER % 2**64
    return total
