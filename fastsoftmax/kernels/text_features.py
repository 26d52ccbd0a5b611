"""The only place that makes numbers of n-grams: which features they are, and how much of each.

Known n-grams are features by their hashes. Hashed ones are by the indices of their hashes, with a
sign, so that those which share an index cancel in the mean.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.hashing import index_of, sign_of
from fastsoftmax.kernels.ngrams import count_ngrams, forget


class Lookup(NamedTuple):
    """Which feature a key is: pairs (2^n, 2) int64 of keys and features, which are -1 for none.

    bits: 0 where hashes are the keys, else keys are the indices of so many bits of them.
    """

    pairs: np.ndarray
    bits: int


class Entries(NamedTuple):
    """Rows of nonzeros: `values` float32 of `features` int32; those of row t end at ends[t]."""

    ends: np.ndarray
    features: np.ndarray
    values: np.ndarray


class Weighting(NamedTuple):
    """What a count c becomes: 1 + by_log ln(c) + by_count (c - 1), then rows are divided by their
    l_p norm; p is 1 or 2, or 0 where they are not."""

    by_log: float
    by_count: float
    p: int


@kernel(EXACT)
def _feature(pairs, key):
    """Return the feature that a key is, or -1."""
    mask = pairs.shape[0] - 1
    slot = key & mask
    while pairs[slot, 1] >= 0:
        if pairs[slot, 0] == key:
            return pairs[slot, 1]
        slot = (slot + 1) & mask
    return -1


@kernel(EXACT)
def logarithm(c):
    """Return ln(c) of a whole number c >= 1: by ours, so that no library's digits matter.

    c = m 2^e with m in [1/sqrt(2), sqrt(2)), ln(m) = 2 artanh((m - 1) / (m + 1)).
    """
    m, e = float(c), 0
    while m >= 1.4142135623730951:
        m, e = m / 2, e + 1
    s = (m - 1) / (m + 1)
    power, total = s, 0.0
    for k in range(1, 25, 2):
        total += power / k
        power *= s * s
    return 2 * total + e * 0.6931471805599453


@kernel(EXACT)
def _weigh(c, weighting):
    """Return what a count becomes."""
    if c == 1:
        return 1.0
    value = 1.0 + weighting.by_count * (c - 1)
    return value + weighting.by_log * logarithm(c) if weighting.by_log > 0 else value


@kernel(EXACT)
def _scale(value, first, stop, p):
    """Divide value[first:stop] by its l_p norm."""
    norm = 0.0
    for at in range(first, stop):
        v = float(value[at])
        norm += v * v if p == 2 else abs(v)
    if p == 2:
        norm = np.sqrt(norm)
    for at in range(first, stop):
        value[at] = float(value[at]) / norm


@kernel(EXACT)
def _write_known(found, count, lookup, weighting, index, value, used):
    """Write those n-grams whose hashes are known, and return where they end."""
    for i in range(count):
        feature = _feature(lookup.pairs, found.hashes[i])
        if feature >= 0:
            index[used] = feature
            value[used] = _weigh(found.counts[i], weighting)
            used += 1
    return used


@kernel(EXACT)
def _write_hashed(found, count, mask, lookup, weighting, index, value, used):
    """Write the sums of signed values at the indices of hashes, and return where they end."""
    first, bits = used, lookup.bits
    for i in range(count):
        h = found.hashes[i]
        feature = _feature(lookup.pairs, index_of(h, bits))
        if feature < 0:
            continue
        slot = feature & mask
        while found.slots[slot] >= 0 and index[first + found.slots[slot]] != feature:
            slot = (slot + 1) & mask
        if found.slots[slot] < 0:
            found.slots[slot] = used - first
            index[used], value[used] = feature, 0.0
            found.places[used - first] = slot
            used += 1
        value[first + found.slots[slot]] += sign_of(h, bits) * _weigh(found.counts[i], weighting)
    stop, used = used, first
    for at in range(first, stop):
        found.slots[found.places[at - first]] = -1
        if value[at] != 0.0:  # where two signs leave nothing, there is no nonzero
            index[used], value[used] = index[at], value[at]
            used += 1
    return used


@kernel(EXACT, entry=True)
def encode(entries, first, used, texts, sizes, lookup, weighting, tokens, found):
    """Write the features of rows from `first` on, from nonzero `used` on.

    Return how many rows are done, how many nonzeros there are, and the byte of the row after them
    that is no UTF-8, or -1; where that is -1 and rows are left, the entries have no more room.
    """
    index, value = entries.features, entries.values
    for row in range(first, texts.starts.shape[0]):
        count, words, mask = count_ngrams(texts, row, sizes, tokens, found)
        if count < 0:
            return row, used, words
        forget(found, count)
        if used + count > index.shape[0]:
            return row, used, -1
        start = used
        if lookup.bits == 0:
            used = _write_known(found, count, lookup, weighting, index, value, used)
        else:
            used = _write_hashed(found, count, mask, lookup, weighting, index, value, used)
        if weighting.p > 0:
            _scale(value, start, used, weighting.p)
        entries.ends[row] = used
    return texts.starts.shape[0], used, -1


@kernel(EXACT, entry=True)
def place_keys(pairs, keys):
    """Put keys in slots, which are free, each with its number."""
    mask = pairs.shape[0] - 1
    for feature in range(keys.shape[0]):
        slot = keys[feature] & mask
        while pairs[slot, 1] >= 0:
            slot = (slot + 1) & mask
        pairs[slot, 0], pairs[slot, 1] = keys[feature], feature
