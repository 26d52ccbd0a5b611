"""The only place that hashes values of columns: strings and whole numbers, to indices with signs.

A value is its UTF-8 bytes, a number its decimal digits, so that a column may be of another type
later. What a hash and its bits are is said in kernels/hashing.py; it takes in how many bytes there
are and then eight at a time, the first the lowest. NumPy alone does it: nothing is compiled for a
few rows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyarrow import types

from fastsoftmax.data import compute as pc
from fastsoftmax.data.values import plain_values
from fastsoftmax.data.word_list import WORD, words_at

# What hashes begin with; and the numbers of kernels/hashing.py, which loads what compilers need.
OF_VALUE = 0x5851F42D4C957F2D
MULTIPLIER, MIXERS = 0x2127599BF4325C37, (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)
SHIFT = np.uint64(33)


def hashes_of(values: pa.Array) -> np.ndarray:
    """Return the hashes (n,) uint64 of strings, integers or booleans, of which none is null."""
    plain = plain_values(values)
    if not (types.is_string(plain.type) or types.is_large_string(plain.type)):
        plain = pc.cast(plain, pa.large_string())
    wide = plain.cast(pa.large_binary())
    _, ends, data = wide.buffers()
    if not len(wide):
        return np.zeros(0, np.uint64)
    offsets = np.frombuffer(ends, np.int64, len(wide) + 1, wide.offset * 8)
    first, stop = int(offsets[0]), int(offsets[-1])
    held = np.zeros(stop - first + WORD, np.uint8)  # a word may reach beyond the last byte
    if data is not None:
        held[: stop - first] = np.frombuffer(data, np.uint8, stop)[first:]
    return _hashed(held, offsets[:-1] - first, np.diff(offsets))


def _hashed(held: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the hashes of bytes, each of which has WORD bytes after it."""
    found = _absorb(np.full(len(starts), OF_VALUE, np.uint64), sizes.astype(np.uint64))
    left = np.arange(len(starts))  # those that have bytes from `at` on
    at = 0
    while (left := left[sizes[left] > at]).size:
        words = words_at(held, starts[left] + at, "<")
        missing = np.maximum(at + WORD - sizes[left], 0).astype(np.uint64) * np.uint64(8)
        mask = np.uint64(2**64 - 1) >> missing
        found[left] = _absorb(found[left], words & mask)
        at += WORD
    for multiplier in MIXERS:
        found = (found ^ found >> SHIFT) * np.uint64(multiplier)
    return np.asarray(found ^ found >> SHIFT)


def _absorb(hashes: np.ndarray, words: np.ndarray) -> np.ndarray:
    return np.asarray((hashes ^ words) * np.uint64(MULTIPLIER))


def indices_and_signs(hashes: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the index (n,) int64 that each hash is, of so many bits, and 1 or -1, float32."""
    index = (hashes >> np.uint64(64 - bits)).astype(np.int64)
    sign = (hashes >> np.uint64(63 - bits)) & np.uint64(1)
    return index, (1 - 2 * sign.astype(np.int8)).astype(np.float32)


class Collisions:
    """How much of what was counted has the index of another value, seen before it."""

    def __init__(self, bits: int) -> None:
        self._bits, self._index = bits, np.zeros(0, np.int64)
        self._first = np.zeros(0, np.uint64)  # the value that an index was first seen with
        self._mass = self._collided = 0

    def add(self, hashes: np.ndarray) -> None:
        """Count values by their hashes."""
        index, _ = indices_and_signs(hashes, self._bits)
        self._take(index, hashes)
        first = self._first[np.searchsorted(self._index, index)]
        self._mass += len(hashes)
        self._collided += int(np.count_nonzero(first != hashes))

    def __add__(self, other: Collisions) -> Collisions:
        """Return the counts of the rows of both."""
        merged = Collisions(self._bits)
        for each in (self, other):
            merged._take(each._index, each._first)
            merged._mass, merged._collided = (
                merged._mass + each._mass, merged._collided + each._collided,
            )  # fmt: skip
        return merged

    @property
    def share(self) -> float:
        """Of all that was counted."""
        return self._collided / self._mass if self._mass else 0.0

    def _take(self, index: np.ndarray, hashes: np.ndarray) -> None:
        """Note which values indices are first seen with."""
        both = np.concatenate([self._index, index])
        firsts = np.concatenate([self._first, hashes])
        order = np.argsort(both, kind="stable")
        both = both[order]
        is_first = np.append(True, both[1:] != both[:-1])[: len(both)]
        self._index, self._first = both[is_first], firsts[order][is_first]
