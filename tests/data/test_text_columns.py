"""Columns of texts come through a Source as n-grams, from whatever Arrow type holds them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastsoftmax.data.open import open_source
from fastsoftmax.data.parts import Dense, Sparse
from fastsoftmax.data.preprocessing import NgramPolicy, NullPolicy
from fastsoftmax.data.vocabulary import Recipe, TextColumns
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes

CLASSES = Classes("int64", (0, 1))
TITLES = ["red fox", "red dog", "blue fox", "blue dog", "red red dog", "a fox"]
BODIES = ["fox runs", "dog runs", None, "dog sits", "", "fox sits"]
ONE_WORD = Recipe((1, 1), norm=None)


def table(kind=None) -> pa.Table:
    kind = kind or pa.string()
    body = pa.array(BODIES)
    body = body.dictionary_encode() if pa.types.is_dictionary(kind) else body.cast(kind)
    return pa.table({"title": TITLES, "size": np.arange(6.0), "body": body, "y": [0, 1] * 3})


def opened(data, names=("title", "body"), recipe=ONE_WORD, nulls="zero", indicators=False):
    texts = TextColumns(names, recipe)
    policy = NullPolicy(nulls, indicators, texts=texts, ngrams=NgramPolicy(least=2))
    source = open_source(data, "y", null_policy=policy)
    source.learn()
    return source


def rows_of(source) -> np.ndarray:
    chunks = source.chunks(CLASSES)
    return np.concatenate(
        [np.hstack([part.matrix() for part in chunk.parts]) for chunk in chunks]
    )  # fmt: skip


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
    ids=["string", "large string", "dictionary"],
)
def test_each_column_has_features_of_its_own_in_its_place(kind):
    source = opened(table(kind))
    assert source.feature_names is not None
    names = list(source.feature_names)
    assert set(names) == {
        "title=red", "title=blue", "title=fox", "title=dog", "size",
        "body=fox", "body=dog", "body=runs", "body=sits",
    }  # fmt: skip
    assert names.index("size") == 4
    X = rows_of(source)
    assert X.shape == (6, 9)
    np.testing.assert_array_equal(X[:, names.index("title=red")], [1, 1, 0, 0, 2, 0])
    np.testing.assert_array_equal(X[:, names.index("size")], np.arange(6))
    np.testing.assert_array_equal(X[:, names.index("body=fox")], [1, 0, 0, 0, 0, 1])
    assert not X[[2, 4], 5:].any()


def test_parts_are_sparse_and_bytes_are_those_of_their_numbers():
    source = opened(table())
    (chunk,) = source.chunks(CLASSES)
    assert [type(part) for part in chunk.parts] == [Sparse, Dense, Sparse]
    assert source.row_bytes == (8 * 2 + 8) + 8 + (8 * 1 + 8)


def test_a_file_and_a_table_are_the_same(tmp_path):
    pq.write_table(table(), tmp_path / "t.parquet", row_group_size=2)
    source, file = opened(table()), opened(str(tmp_path / "t.parquet"))
    assert file.columns == source.columns
    np.testing.assert_array_equal(rows_of(file), rows_of(source))


def test_rows_held_out_have_no_say_in_what_is_known():
    texts = TextColumns(("title", "body"), ONE_WORD)
    policy = NullPolicy("zero", texts=texts, ngrams=NgramPolicy(least=1))
    source = open_source(table(), "y", null_policy=policy)
    source.learn(lambda start, count: np.arange(start, start + count) < 5)
    names = {"title=a", "title=fox", "size", "body=fox", "body=sits"}
    assert set(source.feature_names or ()) == names
    assert rows_of(source).shape == (6, 5)


def test_a_null_is_an_error_that_names_its_row_unless_nulls_says_otherwise():
    with pytest.raises(DataError, match=r'row 2: column "body" is null'):
        rows_of(opened(table(), nulls="error"))
    marked = opened(table(), indicators=True)
    assert (marked.feature_names or ())[-1] == "body is null"
    np.testing.assert_array_equal(rows_of(marked)[:, -1], [0, 0, 1, 0, 0, 0])
    dropped = opened(table(), nulls="drop")
    (chunk,) = dropped.chunks(CLASSES)
    assert chunk.weights is not None
    np.testing.assert_array_equal(chunk.weights, [1, 1, 0, 1, 1, 1])


def test_a_model_reads_texts_as_it_has_learnt_them():
    known = opened(table()).columns
    again = open_source(table().slice(0, 2), "y", like=known, null_policy=NullPolicy("zero"))
    np.testing.assert_array_equal(rows_of(again), rows_of(opened(table()))[:2])
    numbers = table().set_column(0, "title", pa.array(np.arange(6)))
    with pytest.raises(DataError, match='column "title" is of type int64, which is no text'):
        open_source(numbers, "y", like=known)


@pytest.mark.parametrize(
    ("data", "names", "message"),
    [
        (table(), ("titel",), 'text= lists "titel", which is no feature; did you mean "title"'),
        (table(), ("title", "size"), 'column "size" is of type double, which is no text'),
        (table().drop(["body"]), (), 'column "title" is of type string, which is no number.'
         " .* name it in categorical= or, as texts, in text="),
        (np.ones((4, 2)), ("title",), 'a matrix has no column "title"'),
        (table().slice(0, 1), ("title", "body"),
         'column "title" has no n-gram that is in min_count=2 rows: lower min_count='),
    ],
)  # fmt: skip
def test_what_cannot_be_read_as_text_is_said_in_a_sentence(data, names, message):
    target = np.array([0, 1, 0, 1]) if isinstance(data, np.ndarray) else "y"
    policy = NullPolicy("zero", texts=TextColumns(names))
    with pytest.raises(DataError, match=message):
        open_source(data, target, null_policy=policy).learn()


def test_a_reader_that_can_be_read_once_is_refused():
    with pytest.raises(DataError, match="can be read once: categories, n-grams"):
        opened(table().to_reader())


def test_what_there_is_no_room_to_count_is_said():
    texts = TextColumns(("title",), ONE_WORD)
    policy = NullPolicy("zero", texts=texts, ngrams=NgramPolicy(least=1, limit=4))
    titles = ["the a", "the b", "the c", "the d", "the e", "the e"]
    source = open_source(pa.table({"title": titles, "y": [0, 1] * 3}), "y", null_policy=policy)
    with pytest.warns(UserWarning, match='column "title" has more n-grams than memory= has room'):
        source.learn()
