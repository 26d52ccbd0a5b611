"""The only place that holds many words as one blob: their bytes, and where each of them ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

WORD = 8  # bytes that are compared at once
ROUNDS = 8  # of these; what is longer and begins alike is rare


class Words(Sequence[str]):
    """Words that are made one by one, when they are asked for: a million of them take long.

    names: (bytes,) uint8, UTF-8. Word j is names[offsets[j] : offsets[j + 1]].
    """

    def __init__(self, names: np.ndarray, offsets: np.ndarray) -> None:
        """Take over arrays that are known to be well-formed."""
        self.names, self.offsets = names, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return tuple(self[j] for j in range(*at.indices(len(self))))
        start, stop = self.offsets[range(len(self))[at] :][:2]
        return self.names[start:stop].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        held = self.names.tobytes()
        return (held[start:stop].decode() for start, stop in pairwise(self.offsets.tolist()))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Words):
            pairs = ((self.offsets, other.offsets), (self.names, other.names))
            return all(np.array_equal(mine, theirs) for mine, theirs in pairs)
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))


def blob_of(words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return words one after the other, uint8, and where each begins and ends, int64."""
    if isinstance(words, Words):
        return words.names, words.offsets
    stored = [word.encode() for word in words]
    offsets = np.zeros(len(words) + 1, np.int64)
    np.cumsum([len(word) for word in stored], out=offsets[1:])
    return np.frombuffer(b"".join(stored), np.uint8), offsets


def words_at(held: np.ndarray, starts: np.ndarray, order: str) -> np.ndarray:
    """Return the WORD bytes that begin at each start as uint64; order: of bytes, "<" or ">".

    All must lie within `held`, uint8.
    """
    count = max(len(held) - WORD + 1, 0)
    return np.ndarray((count,), f"{order}u8", held, 0, (1,))[starts].astype(np.uint64)


def are_ascending(names: np.ndarray, offsets: np.ndarray) -> bool:
    """Return whether each word comes before the next one, by their bytes."""
    starts, sizes = offsets[:-1], np.diff(offsets)
    held = np.append(names, np.zeros(WORD, np.uint8))
    left = np.arange(len(starts) - 1)  # words that begin as the next one does
    for at in range(0, ROUNDS * WORD, WORD):
        first, second = (_masked(held, starts[j], sizes[j], at) for j in (left, left + 1))
        if (first > second).any():
            return False
        left = left[first == second]
        # What has ended is padded by zeros, and may have gone on with such.
        has_ended = sizes[left] <= at + WORD
        if (has_ended & (sizes[left] >= sizes[left + 1])).any():
            return False
        left = left[~has_ended]
        if not left.size:
            return True
    spans = (offsets[j : j + 3].tolist() for j in left)
    return all(names[a:b].tobytes() < names[b:c].tobytes() for a, b, c in spans)


def _masked(held: np.ndarray, starts: np.ndarray, sizes: np.ndarray, at: int) -> np.ndarray:
    """Return the bytes of words from `at` on, the first the highest, and zeros where they end."""
    found = words_at(held, starts + np.minimum(at, sizes), ">")
    missing = np.uint64(8) * np.clip(at + WORD - sizes, 0, WORD).astype(np.uint64)
    # In halves: a shift by all 64 bits is none.
    half = missing // np.uint64(2)
    return np.asarray(found >> half >> half << half << half)
