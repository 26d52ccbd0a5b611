"""Values are looked up as Arrow does, integers by NumPy."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsoftmax.data import lookup
from fastsoftmax.data.lookup import MANY, Known, joined, positions_in
from fastsoftmax.data.word_list import Words, are_ascending, blob_of

KINDS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@settings(deadline=None)
@given(st.data(), st.sampled_from(KINDS), st.booleans())
def test_integers_are_found_as_arrow_finds_them(data, kind, near):
    limits = np.iinfo(kind)
    low = data.draw(st.integers(int(limits.min), int(limits.max)))
    numbers = (
        st.integers(low, min(low + 300, int(limits.max)))
        if near
        else st.integers(int(limits.min), int(limits.max))
    )
    known = pa.array(data.draw(st.lists(numbers, max_size=20, unique=True)), kind)
    everywhere = st.integers(int(limits.min), int(limits.max))
    values = pa.array(data.draw(st.lists(numbers | everywhere, max_size=40)), kind)
    found = pc.fill_null(pc.index_in(values, value_set=known), -1)
    assert positions_in(known, values).tolist() == found.to_pylist()
    both = pc.unique(pa.concat_arrays([known, values]))
    assert joined(known, values).to_pylist() == both.to_pylist()


@pytest.mark.parametrize("values", [["b", "a", "b", "c"], [True, False, True]])
def test_other_values_are_found_too(values):
    known, asked = pa.array(values[:1]), pa.array(values)
    assert positions_in(known, asked).tolist() == [0 if v == values[0] else -1 for v in values]
    assert joined(known, asked).to_pylist() == list(dict.fromkeys(values))


WORDS = [f"{'né'[j % 2 :]}{j}" * (1 + j % 3) for j in range(MANY)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_many_words_are_found_as_arrow_finds_them(kind):
    known = Known(pa.array(WORDS, kind))
    asked = pa.array([*WORDS[::-7], "", "no", *(word + "\0" for word in WORDS[:50])], kind)
    found = pc.fill_null(pc.index_in(asked, value_set=known.values), -1).to_pylist()
    assert known.find(asked).tolist() == found
    assert known.find(asked[:0]).tolist() == []
    assert known.find(asked.slice(3, 9)).tolist() == found[3:12]


def test_words_of_one_hash_are_told_apart(monkeypatch):
    few = lambda values: lookup.hashes_of.plain(values) >> np.uint64(50)  # noqa: E731
    few.plain = lookup.hashes_of
    monkeypatch.setattr(lookup, "hashes_of", few)
    asked = pa.array([*WORDS[:99], "no", "none"])
    assert Known(pa.array(WORDS)).find(asked).tolist() == [*range(99), -1, -1]
    # Those that are asked for may have the hash of one that is known.
    one = lambda values: np.arange(len(values), dtype=np.uint64)  # noqa: E731
    monkeypatch.setattr(lookup, "hashes_of", one)
    assert Known(pa.array(WORDS)).find(pa.array([*WORDS[:9], "no"])).tolist() == [*range(9), -1]


texts = st.text(st.sampled_from("\0aé猫"), max_size=70)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=8))
def test_words_are_in_order_where_python_says_so(words):
    def blob_is_ascending(some):
        return are_ascending(*blob_of(some))

    ordered = sorted(set(words))
    assert blob_is_ascending(ordered)
    assert blob_is_ascending(words) == all(a < b for a, b in pairwise(words))
    assert not blob_is_ascending([*ordered, ordered[-1]])
    held = Words(*blob_of(words))
    assert (list(held), held[-1], held[1:3]) == (words, words[-1], tuple(words[1:3]))
    assert held == tuple(words)
    assert held == Words(*blob_of(words))
    assert held != ()
    assert hash(held) == hash(tuple(words))
    with pytest.raises(IndexError):
        held[len(words)]
