"""The only place that takes texts apart: UTF-8 in, tokens in lower case and their hashes out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsoftmax.kernels.characters import BETWEEN, KIND_BITS, MARK, WORD
from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.hashing import OF_WORD, absorb, finish

BLANK = 32
_KIND = (1 << KIND_BITS) - 1


class TextBytes(NamedTuple):
    """UTF-8: row t's is data[starts[t] : stops[t]], uint8 and int64; `characters`: a table."""

    data: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    characters: np.ndarray


class Tokens(NamedTuple):
    """The tokens of one text: token i is text[starts[i] : stops[i]], with hashes[i].

    text: uint8; tokens as they are written, with one blank before, after, and between those that do
    not touch. Room for a text of n bytes: `text_room(n)` bytes, and n tokens.
    """

    text: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    hashes: np.ndarray


def text_room(length: int) -> int:
    """Return how many bytes the tokens of a text of so many bytes may take.

    The lower case of a character is at most half as long again, and two blanks are added.
    """
    return length + length // 2 + 2


@kernel(EXACT)
def tail_at(data, at, stop):
    """Return the six bits of a byte that goes on with a character; -1 where it is another."""
    if at >= stop:
        return -1
    byte = int(data[at])
    return byte & 63 if byte & 192 == 128 else -1


@kernel(EXACT)
def character_at(data, at, stop):
    """Return the code point at a byte above 127, and its bytes; of what is no UTF-8, 0 bytes."""
    first = int(data[at])
    one = tail_at(data, at + 1, stop)
    if first < 224:
        return (first & 31) << 6 | one, 2 if first >= 194 and one >= 0 else 0
    two = tail_at(data, at + 2, stop)
    if first < 240:
        point = (first & 15) << 12 | one << 6 | two
        surrogate = 0xD800 <= point < 0xE000
        fits = one >= 0 and two >= 0 and point >= 0x800 and not surrogate
        return point, 3 if fits else 0
    three = tail_at(data, at + 3, stop)
    point = (first & 7) << 18 | one << 12 | two << 6 | three
    fits = first < 245 and one >= 0 and two >= 0 and three >= 0
    return point, 4 if fits and 0x10000 <= point < 0x110000 else 0


@kernel(EXACT)
def write_character(text, used, point):
    """Write a code point above 127 as UTF-8, and return where it ends."""
    if point < 0x80:  # the lower case of a few
        text[used] = point
        return used + 1
    if point < 0x800:
        text[used] = 192 | point >> 6
        text[used + 1] = 128 | point & 63
        return used + 2
    if point < 0x10000:
        text[used] = 224 | point >> 12
        text[used + 1] = 128 | (point >> 6) & 63
        text[used + 2] = 128 | point & 63
        return used + 3
    text[used] = 240 | point >> 18
    text[used + 1] = 128 | (point >> 12) & 63
    text[used + 2] = 128 | (point >> 6) & 63
    text[used + 3] = 128 | point & 63
    return used + 4


@kernel(EXACT)
def tokenize(texts, row, tokens):
    """Take a row's text apart. Return how many tokens there are, and the bytes of their text.

    Where it is no UTF-8, return -1 and the first byte that is not.
    """
    data, characters = texts.data, texts.characters
    text, starts, stops, hashes = tokens
    at, stop = texts.starts[row], texts.stops[row]
    text[0] = BLANK
    used, count = 1, 0
    inside = BETWEEN  # what the token that is open is made of
    parted = False  # from the token before
    h = OF_WORD
    while at < stop:
        point = int(data[at])
        size = 1
        if point > 127:
            point, size = character_at(data, at, stop)
            if size == 0:
                return -1, at - texts.starts[row]
        entry = int(characters[point])
        kind = entry & _KIND
        if kind == MARK:
            kind = inside
        elif inside != BETWEEN and (kind != WORD or inside != WORD):
            stops[count], hashes[count] = used, finish(h)
            count += 1
            inside = BETWEEN
        at += size
        if kind == BETWEEN:
            parted = True
            continue
        if inside == BETWEEN:
            if parted and used > 1:
                text[used] = BLANK
                used += 1
            starts[count], h = used, OF_WORD
            inside, parted = kind, False
        if entry >> KIND_BITS < 128:
            text[used] = entry >> KIND_BITS
            h = absorb(h, entry >> KIND_BITS)
            used += 1
        else:
            end = write_character(text, used, entry >> KIND_BITS)
            for place in range(used, end):
                h = absorb(h, int(text[place]))
            used = end
    if inside != BETWEEN:
        stops[count], hashes[count] = used, finish(h)
        count += 1
    text[used] = BLANK
    return count, used + 1
