"""The only place that finds n-grams: of the words and of the characters of texts.

An n-gram of words is n tokens in a row. One of characters is n of them in a row, in the tokens that
touch each other and one blank on either side. A row's come in the order in which they begin, the
shortest first, words before characters; each is there once, with how often it occurs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.hashing import (
    APART,
    OF_CHARACTERS,
    TOGETHER,
    absorb,
    finish,
)
from fastsoftmax.kernels.tokens import BLANK, Tokens, text_room, tokenize
from fastsoftmax.kernels.vectors import noinline

CHARACTERS = ord("~")  # what the name of an n-gram of characters begins with, and no token


class Sizes(NamedTuple):
    """The least and the largest n of n-grams of words and of characters; 0 for none."""

    least_words: int
    most_words: int
    least_characters: int
    most_characters: int

    @property
    def of_a_byte(self) -> int:
        """How many n-grams begin at a byte, at most."""
        words = self.most_words - self.least_words + 1 if self.most_words else 0
        characters = self.most_characters - self.least_characters + 1
        return words + (characters if self.most_characters else 0)


class Found(NamedTuple):
    """The n-grams of one text: their hashes, counts, and the bytes of `Tokens.text` that each is.

    slots: which n-gram stands at a hash, int32, -1 where none does, between rows everywhere; a
    power of two of them. places: the slot of each n-gram.
    """

    hashes: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    places: np.ndarray
    slots: np.ndarray


LEAST_SLOTS = 16


def room_for(length: int, sizes: Sizes) -> tuple[Tokens, Found]:
    """Return room for a text of so many bytes."""
    most = (length + 2) * sizes.of_a_byte
    tokens = Tokens(
        np.empty(text_room(length), np.uint8),
        *(np.empty(length + 1, dtype) for dtype in (np.int32, np.int32, np.int64)),
    )
    hashes, slots = np.empty(most, np.int64), max(1 << (2 * most).bit_length(), LEAST_SLOTS)
    counts, starts, stops, places = (np.empty(most, np.int32) for _ in range(4))
    return tokens, Found(hashes, counts, starts, stops, places, np.full(slots, -1, np.int32))


@kernel(EXACT)
def _add(found, count, mask, h, start, stop):
    """Count an n-gram; return how many there are."""
    slot = h & mask
    while True:
        known = found.slots[slot]
        if known < 0:
            found.slots[slot] = count
            found.hashes[count], found.counts[count] = h, 1
            found.starts[count], found.stops[count] = start, stop
            found.places[count] = slot
            return count + 1
        if found.hashes[known] == h:
            found.counts[known] += 1
            return count
        slot = (slot + 1) & mask


@kernel(EXACT)
def forget(found, count):
    """Leave the slots as they are between rows."""
    for known in range(count):
        found.slots[found.places[known]] = -1


@kernel(EXACT)
def _of_words(tokens, length, sizes, found, count, mask):
    """Count the n-grams of `length` tokens; return how many there are."""
    for first in range(length):
        h = tokens.hashes[first]
        for last in range(first, min(first + sizes.most_words, length)):
            if last > first:
                apart = tokens.starts[last] != tokens.stops[last - 1]
                h = absorb(h, APART if apart else TOGETHER)
                h = finish(absorb(h, tokens.hashes[last]))
            if last - first + 1 >= sizes.least_words:
                count = _add(found, count, mask, h, tokens.starts[first], tokens.stops[last])
    return count


@kernel(EXACT)
def _next_character(text, at):
    """Return where the character after the one at `at` begins."""
    at += 1
    while int(text[at]) & 192 == 128:
        at += 1
    return at


@kernel(EXACT)
def _of_run(text, first, stop, sizes, found, count, mask):
    """Count the n-grams of characters in text[first:stop], which ends with a blank."""
    begin = first
    while begin < stop:
        h, at, n = OF_CHARACTERS, begin, 0
        while at < stop and n < sizes.most_characters:
            end = at + 1 if at + 1 == stop else _next_character(text, at)
            for place in range(at, end):
                h = absorb(h, int(text[place]))
            at, n = end, n + 1
            if n >= sizes.least_characters:
                count = _add(found, count, mask, finish(h), begin, at)
        if begin == first and n < sizes.least_characters:
            return _add(found, count, mask, finish(h), first, stop)  # all of a short one
        begin = begin + 1 if begin + 1 == stop else _next_character(text, begin)
    return count


@kernel(EXACT)
def _of_characters(text, length, sizes, found, count, mask):
    """Count the n-grams of characters of a text; return how many n-grams there are."""
    first = 0
    for at in range(1, length):
        if int(text[at]) == BLANK:
            count = _of_run(text, first, at + 1, sizes, found, count, mask)
            first = at
    return count


@kernel(EXACT)
def _mask_for(most, slots):
    """Return what makes slots of hashes: the least power of two of them with half of them free."""
    size = LEAST_SLOTS
    while size < 2 * most and size < slots.shape[0]:
        size *= 2
    return size - 1


@kernel(EXACT)
def count_ngrams(texts, row, sizes, tokens, found):
    """Count a row's n-grams. Return how many there are, those of words, and the mask of slots.

    Where the text is no UTF-8, the first is -1, and the second the byte.
    """
    noinline()
    length, size = tokenize(texts, row, tokens)
    if length < 0:
        return -1, size, 0
    most = length * (sizes.most_words - sizes.least_words + 1)
    if sizes.most_characters > 0:
        most += size * (sizes.most_characters - sizes.least_characters + 1)
    mask = _mask_for(most, found.slots)
    words = 0
    if sizes.most_words > 0:
        words = _of_words(tokens, length, sizes, found, 0, mask)
    count = words
    if sizes.most_characters > 0 and length > 0:
        count = _of_characters(tokens.text, size, sizes, found, words, mask)
    return count, words, mask


@kernel(EXACT, entry=True)
def hash_names(hashes, texts, tokens):
    """Set hashes to those of the n-grams that are named; return the first that is none, or -1."""
    for row in range(texts.starts.shape[0]):
        start, stop = texts.starts[row], texts.stops[row]
        if start < stop and int(texts.data[start]) == CHARACTERS:
            h = OF_CHARACTERS
            for place in range(start + 1, stop):
                h = absorb(h, int(texts.data[place]))
            hashes[row] = finish(h)
            continue
        length, _ = tokenize(texts, row, tokens)
        if length < 1:
            return row
        h = tokens.hashes[0]
        for i in range(1, length):
            apart = tokens.starts[i] != tokens.stops[i - 1]
            h = finish(absorb(absorb(h, APART if apart else TOGETHER), tokens.hashes[i]))
        hashes[row] = h
    return -1
