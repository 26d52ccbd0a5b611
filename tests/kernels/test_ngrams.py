"""N-grams are what their definition says, in any script; hashes stay what they are."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsoftmax.kernels import hashing, ngrams, text_counts, text_features
from fastsoftmax.kernels.characters import character_table
from fastsoftmax.kernels.tokens import TextBytes
from tests import oracle_text

# Of one to four bytes, of every kind; with lower cases that are shorter, and longer.
SIGNS = "abAZ09_ .,-~'\n\0éÉßİſKȺΣςЖд٣\u0301\u200d\u00ad中文あアーก\u0e34한字☺😀𐐀𝟘\U000e0100"
WORDS = [(1, 1), (1, 2), (2, 3), None]
CHARACTERS = [None, (3, 5), (1, 2), (4, 4)]


def texts_of(rows: list[bytes], lower: bool = True) -> TextBytes:
    """Return texts as kernels read them."""
    data = np.frombuffer(b"".join(rows) or b"\0", np.uint8)
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return TextBytes(data, ends[:-1].copy(), ends[1:].copy(), character_table(lower))


def counted(rows: list[bytes], sizes: ngrams.Sizes, lower: bool = True) -> text_counts.Counter:
    """Return the counts of rows."""
    counter = text_counts.Counter(
        np.empty((2**12, 3), np.int64), np.empty(2**17, np.uint8),
        np.full(2**13, -1, np.int32), np.zeros(4, np.int64),
    )  # fmt: skip
    scratch = ngrams.room_for(max(map(len, rows), default=0), sizes)
    texts, trained = texts_of(rows, lower), np.ones(len(rows), np.bool_)
    done = text_counts.count_rows(counter, 0, 2**12, trained, texts, sizes, 0, *scratch)
    assert done == (len(rows), -1)
    return counter


def names_of(counter: text_counts.Counter) -> list[str]:
    """Return the names of what was counted."""
    ends = [0, *counter.entries[: counter.totals[0], 2].tolist()]
    names = counter.names.tobytes()
    return [names[a:b].decode() for a, b in pairwise(ends)]


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.text(st.sampled_from(SIGNS), max_size=12), max_size=4),
    words=st.sampled_from(WORDS),
    characters=st.sampled_from(CHARACTERS),
    lower=st.booleans(),
)
def test_ngrams_of_random_texts_are_those_of_the_definition(rows, words, characters, lower):
    sizes = ngrams.Sizes(*(words or (0, 0)), *(characters or (0, 0)))
    counter = counted([row.encode() for row in rows], sizes, lower)
    named = [oracle_text.names(row, words, characters, lower) for row in rows]
    want = oracle_text.vocabulary(named, 1)
    assert names_of(counter) == list(dict.fromkeys(name for row in named for name in row))
    assert counter.entries[: len(want), 1].tolist() == [want[name] for name in names_of(counter)]
    assert counter.totals[text_counts.MASS] == sum(map(len, named))


@settings(max_examples=100, deadline=None)
@given(row=st.text(st.sampled_from(SIGNS), max_size=20))
def test_the_name_of_an_ngram_has_its_hash(row):
    sizes = ngrams.Sizes(1, 3, 2, 4)
    counter = counted([row.encode()], sizes)
    names = [name.encode() for name in names_of(counter)]
    hashes = np.zeros(len(names), np.int64)
    tokens, _ = ngrams.room_for(max(map(len, names), default=0), sizes)
    assert ngrams.hash_names(hashes, texts_of(names, lower=False), tokens) == -1
    np.testing.assert_array_equal(hashes, counter.entries[: len(names), 0])


@settings(max_examples=300, deadline=None)
@given(
    row=st.lists(
        st.sampled_from([b"a", b"\x80", b"\xbf", b"\xc0", b"\xc3", b"\xe0", b"\xed", b"\xf0",
                         b"\xf4", b"\xf5", b"\xff", b"\x9f", b"\xa0", b"\x90", "é中😀".encode()]),
        max_size=6,
    )
)  # fmt: skip
def test_bytes_that_are_no_utf8_are_found_where_python_finds_them(row):
    text, sizes = b"".join(row), ngrams.Sizes(1, 1, 0, 0)
    try:
        want = (1, -1) if text.decode() is not None else None
    except UnicodeDecodeError as error:
        want = (0, error.start)
    counter = counted([], sizes)
    scratch = ngrams.room_for(len(text), sizes)
    texts, trained = texts_of([text]), np.ones(1, np.bool_)
    assert text_counts.count_rows(counter, 0, 2**12, trained, texts, sizes, 0, *scratch) == want


HASHES = [
    "681f016cbfa3d52e",
    "5c786b4cc061ef9f",
    "1d64269e165a704f",
    "d610f35d779597f2",
    "a52509ae8ba95ef1",
]


def test_hashes_stay_what_they_are():
    names = [b"softmax", b"softmax regression", "中文".encode(), "中 文".encode(), b"~ing "]
    hashes = np.zeros(len(names), np.int64)
    tokens, _ = ngrams.room_for(32, ngrams.Sizes(1, 2, 0, 0))
    ngrams.hash_names(hashes, texts_of(names, lower=False), tokens)
    assert hashing.VERSION == 1
    assert [f"{h % 2**64:016x}" for h in hashes.tolist()] == HASHES


def test_a_hash_is_an_index_a_sign_and_a_check():
    h = -0x123456789ABCDEF
    bits = f"{h % 2**64:064b}"
    for size in (8, 18, 28):
        assert hashing.index_of(h, size) == int(bits[:size], 2)
        assert hashing.sign_of(h, size) == (-1 if bits[size] == "1" else 1)
        assert hashing.check_of(h, size) == int(bits[size + 1 :], 2)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 1000, 2**22])
def test_logarithms_are_right_to_the_last_digits(count):
    assert text_features.logarithm(count) == pytest.approx(math.log(count), rel=1e-15, abs=0)
