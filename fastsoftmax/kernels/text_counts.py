"""The only place that counts in how many texts n-grams are: by hashes, or by their indices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.hashing import check_of, index_of
from fastsoftmax.kernels.ngrams import CHARACTERS, count_ngrams, forget


class Counter(NamedTuple):
    """In how many rows each key was seen: entries (n, 3) int64 of key, rows, and where names end.

    With `bits`, the third is what tells the first hash at that index from others. names: uint8.
    slots: which entry stands at a key. totals: entries; bytes of names; occurrences; those that
    are not of their entry's first hash.
    """

    entries: np.ndarray
    names: np.ndarray
    slots: np.ndarray
    totals: np.ndarray


ENTRIES, NAMES, MASS, COLLIDED = range(4)


@kernel(EXACT)
def _entry(counter, key, limit):
    """Return the entry of a key, and its slot; limit, where there is none yet."""
    mask = counter.slots.shape[0] - 1
    slot = key & mask
    while True:
        known = counter.slots[slot]
        if known < 0:
            return limit, slot
        if counter.entries[known, 0] == key:
            return int(known), slot
        slot = (slot + 1) & mask


@kernel(EXACT)
def _write_name(counter, text, start, stop, is_word):
    """Write the name of a new entry."""
    at = counter.totals[NAMES]
    if not is_word:
        counter.names[at] = CHARACTERS
        at += 1
    for place in range(start, stop):
        counter.names[at + place - start] = text[place]
    counter.totals[NAMES] = at + stop - start


@kernel(EXACT)
def _count_named(counter, tokens, found, count, words):
    """Count a row that has these n-grams."""
    for i in range(count):
        used = counter.totals[ENTRIES]
        known, slot = _entry(counter, found.hashes[i], used)
        if known == used:
            counter.slots[slot] = used
            counter.entries[used, 0], counter.entries[used, 1] = found.hashes[i], 0
            _write_name(counter, tokens.text, found.starts[i], found.stops[i], i < words)
            counter.entries[used, 2] = counter.totals[NAMES]
            counter.totals[ENTRIES] = used + 1
        counter.entries[known, 1] += 1
        counter.totals[MASS] += found.counts[i]


@kernel(EXACT)
def _count_hashed(counter, found, count, bits):
    """Count a row that has n-grams at these indices: each index once."""
    for i in range(count):
        h = found.hashes[i]
        used = counter.totals[ENTRIES]
        known, slot = _entry(counter, index_of(h, bits), used)
        if known == used:
            counter.slots[slot] = used
            counter.entries[used, 0], counter.entries[used, 1] = index_of(h, bits), 0
            counter.entries[used, 2] = check_of(h, bits)
            counter.totals[ENTRIES] = used + 1
        found.starts[i] = known
        if counter.entries[known, 1] >= 0:  # marked, so that the row counts once
            counter.entries[known, 1] = ~counter.entries[known, 1]
        counter.totals[MASS] += found.counts[i]
        if counter.entries[known, 2] != check_of(h, bits):
            counter.totals[COLLIDED] += found.counts[i]
    for i in range(count):
        known = found.starts[i]
        if counter.entries[known, 1] < 0:
            counter.entries[known, 1] = ~counter.entries[known, 1] + 1


@kernel(EXACT, entry=True)
def count_rows(counter, first, limit, trained, texts, sizes, bits, tokens, found):
    """Count the n-grams of those rows from `first` on that are `trained` on.

    Return how many rows are done, and the byte of the row after them that is no UTF-8, or -1; where
    that is -1 and rows are left, there are more than `limit` entries, or no room for the next.
    """
    for row in range(first, texts.starts.shape[0]):
        count, words, _ = count_ngrams(texts, row, sizes, tokens, found)
        if count < 0:
            return row, words
        forget(found, count)
        if not trained[row]:
            continue
        total = counter.totals[ENTRIES] + count
        if total > counter.entries.shape[0] or 2 * total > counter.slots.shape[0]:
            return row, -1
        if bits == 0:
            longest = 0
            for i in range(count):
                longest += found.stops[i] - found.starts[i] + 1
            if counter.totals[NAMES] + longest > counter.names.shape[0]:
                return row, -1
            _count_named(counter, tokens, found, count, words)
        else:
            _count_hashed(counter, found, count, bits)
        if counter.totals[ENTRIES] > limit:
            return row + 1, -1
    return texts.starts.shape[0], -1


@kernel(EXACT, entry=True)
def place_entries(counter):
    """Put all entries in slots, which are free."""
    for known in range(counter.totals[ENTRIES]):
        _, slot = _entry(counter, counter.entries[known, 0], -1)
        counter.slots[slot] = known
