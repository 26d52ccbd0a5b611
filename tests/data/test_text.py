"""Columns of text become the features that the definition says, however Arrow holds them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsoftmax.data.text import MOST_BYTES, NgramCount, TextEncoder
from fastsoftmax.data.values import as_arrow
from fastsoftmax.data.vocabulary import Recipe, Vocabulary
from fastsoftmax.errors import DataError
from fastsoftmax.kernels import hashing
from tests import oracle_text
from tests.kernels.test_ngrams import SIGNS
from tests.merging import cuts, groupings

LIMIT = 2**20
ROWS = [
    "the quick brown fox", "The QUICK, quick fox!", "", None, "Über ÜBER über-fox",
    "中文 中文字，文", "คอม คอมพิวเตอร์", "don't stop", "fox fox fox fox", None,
    "résumé re\u0301sume\u0301", "ſKİ ski",
]  # fmt: skip


def where(row):
    return f"row {row}"


def counted(array, recipe, limit=LIMIT, trained=None, spans=None):
    """Return the count of strings, taken in span by span."""
    count = NgramCount(recipe, limit)
    trained = np.ones(len(array), np.bool_) if trained is None else trained
    for first, stop in spans or [(0, len(array))]:
        count.add(array.slice(first, stop - first), trained[first:stop], "the text", where)
    return count


def names_of(vocabulary: Vocabulary) -> list[str]:
    return [vocabulary.name(feature) for feature in range(len(vocabulary))]


def rows_of(vocabulary, array):
    """Return the features of strings by name, in their order."""
    part = TextEncoder(vocabulary)(array, "the text", where)
    pairs = (part.numbers(row) for row in range(part.rows))
    return [
        {vocabulary.name(int(j)): float(x) for j, x in zip(index, value, strict=True)}
        for index, value in pairs
    ]


recipes = st.builds(
    Recipe,
    words=st.sampled_from([(1, 1), (1, 2), (2, 3)]),
    characters=st.sampled_from([None, (2, 3)]),
    lower=st.booleans(),
    normalize=st.sampled_from([None, "NFKC"]),
    norm=st.sampled_from(["l2", "l1", None]),
    tf=st.sampled_from(["count", "log", "binary"]),
)
texts = st.lists(st.none() | st.text(st.sampled_from(SIGNS + "aab  "), max_size=9), max_size=12)


@settings(max_examples=100, deadline=None)
@given(rows=texts, recipe=recipes, min_count=st.integers(1, 2), large=st.booleans())
def test_features_are_those_of_the_definition(rows, recipe, min_count, large):
    array = pa.array(["out", *rows, "of"], pa.large_string() if large else pa.string())
    array = array.slice(1, len(rows))
    vocabulary = counted(array, recipe).vocabulary(min_count, LIMIT)
    named = [
        oracle_text.names(
            row or "", recipe.words, recipe.characters, recipe.lower, recipe.normalize
        )
        for row in rows
    ]
    known = oracle_text.vocabulary(named, min_count)
    assert set(names_of(vocabulary)) == set(known)
    in_rows = [known[name] for name in names_of(vocabulary)]
    assert in_rows == sorted(in_rows, reverse=True)
    got = rows_of(vocabulary, array)
    want = [oracle_text.values(found, set(known), recipe.tf, recipe.norm) for found in named]
    assert [list(row) for row in got] == [list(row) for row in want]
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(list(mine.values()), list(theirs.values()), rtol=2e-7)


@settings(max_examples=60, deadline=None)
@given(
    spans=cuts(len(ROWS)), merge=groupings(), bits=st.sampled_from([None, 8]),
    limit=st.sampled_from([12, LIMIT]),
)  # fmt: skip
def test_counts_do_not_depend_on_how_rows_are_cut(spans, merge, bits, limit):
    array = pa.array(ROWS)
    recipe = Recipe(characters=(3, 4), bits=bits)
    whole = counted(array, recipe, limit)
    one_by_one = counted(array, recipe, limit, spans=spans)
    assert one_by_one.vocabulary(1, LIMIT) == whole.vocabulary(1, LIMIT)
    assert one_by_one.collisions == whole.collisions
    if limit == LIMIT:
        merged = merge([counted(array.slice(a, b - a), recipe) for a, b in spans])
        assert merged.vocabulary(1, LIMIT) == whole.vocabulary(1, LIMIT)
        assert merged.vocabulary(2, 5) == whole.vocabulary(2, 5)


def test_rows_that_are_not_trained_on_are_not_counted():
    trained = np.arange(len(ROWS)) % 2 == 0
    array = pa.array(ROWS)
    got = counted(array, Recipe(), trained=trained).vocabulary(1, LIMIT)
    assert got == counted(array.filter(as_arrow(trained)), Recipe()).vocabulary(1, LIMIT)


def test_those_in_most_rows_come_first_and_ties_take_no_side():
    array = pa.array(["b a", "a", "c a b", "d", "e", "f"])
    vocabulary = counted(array, Recipe((1, 1))).vocabulary(1, LIMIT)
    assert names_of(vocabulary)[:2] == ["a", "b"]
    assert set(names_of(vocabulary)[2:]) == set("cdef")
    again = counted(array.take(as_arrow(np.arange(6)[::-1].copy())), Recipe((1, 1)))
    assert again.vocabulary(1, LIMIT) == vocabulary
    assert names_of(again.vocabulary(1, 3)) == names_of(vocabulary)[:3]


def test_where_memory_ends_the_rarest_are_forgotten_and_found_anew():
    rows = ["the a", "the b", "the c", "the d", "the e", "the e"]
    count = counted(pa.array(rows), Recipe((1, 1)), limit=4)
    # The fourth row makes five: "the" alone is in more than one, so that the others go.
    assert count.forgotten == 1
    assert dict(zip(names_of(count.vocabulary(1, 9)), [6, 2], strict=True)) == {"the": 6, "e": 2}


def test_hashed_ngrams_are_summed_with_their_signs():
    recipe = Recipe((1, 1), bits=8, norm=None)
    words = [f"w{i}" for i in range(300)]
    array = pa.array([" ".join(words), "w1 w1 w2"])
    count = counted(array, recipe)
    vocabulary = count.vocabulary(1, LIMIT)
    assert vocabulary.name(0).startswith("#")
    known = counted(pa.array(words), Recipe((1, 1)))._known()
    want = np.zeros(256)
    for h in known[:, 0].tolist():
        want[hashing.index_of(h, 8)] += hashing.sign_of(h, 8)
    part = TextEncoder(vocabulary)(array, "the text", where)
    got = np.zeros(256)
    index, value = part.numbers(0)
    got[vocabulary.indices[index]] = value
    np.testing.assert_array_equal(got, want)
    assert (value != 0).all()
    assert len(set(index.tolist())) == len(index)
    heads = len({hashing.index_of(h, 8) for h in known[:, 0].tolist()})
    assert count.collisions == pytest.approx((300 - heads) / 303, abs=2 / 303)


@pytest.mark.parametrize("normalize", [None, "NFKC"])
def test_bytes_that_are_no_utf8_are_named_with_their_row(normalize):
    data = [b"fine", None, b"not \xff fine"]
    array = pa.array(data, pa.binary()).view(pa.string())
    recipe = Recipe(normalize=normalize)
    message = r"^row 2: the text is no UTF-8: byte 4 of it is 0xff\. "
    with pytest.raises(DataError, match=message):
        counted(array, recipe)
    vocabulary = counted(pa.array(["fine fine", "fine"]), recipe).vocabulary(1, LIMIT)
    with pytest.raises(DataError, match=message):
        TextEncoder(vocabulary)(array, "the text", where)


def test_a_text_that_is_too_long_is_named_with_its_row():
    array = pa.array(["short", "x" * (MOST_BYTES + 1)])
    with pytest.raises(DataError, match=r"row 1: the text is a text of 4,194,305 bytes, more than"):
        counted(array, Recipe())


def test_the_longest_text_is_read():
    row = "ab " * (MOST_BYTES // 3)
    vocabulary = counted(pa.array([row]), Recipe()).vocabulary(1, LIMIT)
    assert set(names_of(vocabulary)) == {"ab", "ab ab"}


def test_texts_in_which_nothing_is_known_are_empty_rows():
    vocabulary = counted(pa.array(["a b", "a b"]), Recipe()).vocabulary(2, LIMIT)
    assert rows_of(vocabulary, pa.array(["c d", None, "", "...", "a"])) == [{}] * 4 + [{"a": 1.0}]


def test_more_rows_than_there_is_room_for_at_first_are_read():
    rng = np.random.default_rng(0)
    rows = [" ".join(f"w{u}" for u in rng.integers(0, 3000, 30)) for _ in range(2000)]
    array = pa.array(rows)
    vocabulary = counted(array, Recipe()).vocabulary(1, LIMIT)
    assert len(vocabulary) > 50_000
    got = rows_of(vocabulary, array)
    assert all(len(row) > 30 for row in got)
    want = oracle_text.values(oracle_text.names(rows[-1]), set(names_of(vocabulary)), "count", "l2")
    assert list(got[-1]) == list(want)
