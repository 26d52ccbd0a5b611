"""Strings of every Arrow type are one and the same in every role: label, category, kept column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax.cli.main import main
from fastsoftmax.data.outline import count_values
from fastsoftmax.errors import DataError

rng = np.random.default_rng(4)
WORDS = ["a", "bb", "", "ccc"]
LABELS = [WORDS[i] for i in rng.integers(4, size=60)]
NULLS = [None if i % 7 == 0 else word for i, word in enumerate(LABELS)]
X = rng.normal(size=60)
PLAIN = [pa.string(), pa.large_string()]
PLAIN += [pa.string_view()] if hasattr(pa, "string_view") else []
INDICES = (pa.int8(), pa.uint16(), pa.int64())
KINDS = [*PLAIN, *(pa.dictionary(index, kind) for index in INDICES for kind in PLAIN)]
QUICK = {"l2": 0.1}


def array(words, kind):
    """Return words in an Arrow type, sliced, a dictionary with values that no row has."""
    words = ["pad", *words]
    if not pa.types.is_dictionary(kind):
        return pa.array(words, kind)[1:]
    values = ["unused", *sorted({word for word in words if word is not None})]
    at = [None if word is None else values.index(word) for word in words]
    held = pa.array(values, kind.value_type)
    return pa.DictionaryArray.from_arrays(pa.array(at, kind.index_type), held)[1:]


def table(kind):
    return pa.table(
        {"x": X, "c": array(LABELS, kind), "n": array(NULLS, kind), "y": array(LABELS, kind)}
    )


@pytest.mark.parametrize("nulls", ["zero", "mean", "drop"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_strings_of_every_type_train_and_judge_alike(kind, nulls):
    want = fastsoftmax.train(table(pa.string()), "y", categorical=["c", "n"], nulls=nulls, **QUICK)
    data = table(kind)
    model = fastsoftmax.train(
        data, "y", categorical=["c", "n"], nulls=nulls, validation=data, **QUICK
    )
    assert model.feature_names == want.feature_names
    assert model.feature_names[:5] == ("x", "c=", "c=a", "c=bb", "c=ccc")
    assert list(model.classes) == sorted(WORDS)
    assert_array_equal(want.predict_proba(data), want.predict_proba(table(pa.string())))
    assert fastsoftmax.evaluate(want, data).rows == (60 if nulls != "drop" else 51)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_strings_of_every_type_are_read_from_files_and_handed_on(kind, ending, tmp_path):
    path, model = str(tmp_path / "d.arrow"), str(tmp_path / "m.safetensors")
    with pa.ipc.new_file(path, table(kind).schema) as writer:
        writer.write_table(table(kind))
    argv = ["train", path, "--target", "y", "--categorical", "c,n", "--nulls", "zero"]
    assert main([*argv, "-o", model, "--l2", "0.1", "--quiet"]) == 0
    out = str(tmp_path / f"p.{ending}")
    assert main(["predict", model, path, "-o", out, "--keep", "c,n,y", "--quiet"]) == 0
    written = pq.read_table(out) if ending == "parquet" else pa.ipc.open_file(out).read_all()
    assert written["n"].to_pylist() == NULLS
    assert main(["inspect", path, "--target", "n"]) == 0
    assert dict(count_values(path, "n"))[None] == NULLS.count(None)
    packed = str(tmp_path / f"packed.{ending}")
    fastsoftmax.pack(path, packed, "y", features=["x"], keep=["n"])
    assert fastsoftmax.train(packed, "y", **QUICK).feature_names == ("x",)


def test_nulls_among_a_dictionarys_values_are_nulls_of_the_column():
    at = pa.array([0, 1, 2] * 20)
    words = pa.DictionaryArray.from_arrays(at, pa.array(["a", None, "b"]))
    numbers = pa.DictionaryArray.from_arrays(at, pa.array([1.0, None, 2.0]))
    y = np.arange(60) % 2
    with pytest.raises(DataError, match=r"row 1: .* is null"):
        fastsoftmax.train(pa.table({"x": X, "y": words}), "y")
    data = pa.table({"c": words, "v": numbers, "y": y})
    options = {"categorical": ["c"], "null_indicators": True, **QUICK}
    with pytest.raises(DataError, match=r"row 1: .* is null"):
        fastsoftmax.train(data, "y", categorical=["c"])
    model = fastsoftmax.train(data, "y", nulls="mean", **options)
    assert model.feature_names == ("c=a", "c=b", "c is null", "v", "v is null")
    assert fastsoftmax.evaluate(model, data).treated == {'nulls in "c"': 20, 'nulls in "v"': 20}
    dropping = fastsoftmax.train(data, "y", categorical=["c"], nulls="drop", **QUICK)
    assert fastsoftmax.evaluate(dropping, data).rows == 40


@pytest.mark.parametrize("nulls", ["zero", "mean", "drop", "error"])
@pytest.mark.parametrize("name", ["x", "c", "v"])
def test_a_column_that_is_null_in_all_new_rows_is_of_the_type_the_model_knows(name, nulls):
    vectors = pa.array([[1.0, 2.0]] * 60, pa.list_(pa.float32(), 2))
    data = pa.table({"x": X, "c": LABELS, "v": vectors, "y": LABELS})
    model = fastsoftmax.train(data, "y", categorical=["c"], nulls=nulls, **QUICK)
    bare = data.set_column(data.schema.names.index(name), name, pa.nulls(60))
    if nulls == "error":
        with pytest.raises(DataError, match=f'row 0: column "{name}" is null'):
            model.predict_proba(bare)
        return
    assert np.isnan(model.predict_proba(bare)).all() == (nulls == "drop")


@pytest.mark.parametrize("nulls", ["error", "zero", "mean", "drop"])
@pytest.mark.parametrize("options", [{}, {"solver": "sgd", "epochs": 1}, {"solver": "lbfgs"}])
def test_a_table_of_categories_alone_is_trained_on(options, nulls):
    data = pa.table({"a": LABELS, "b": ["one"] * 60, "y": LABELS})
    model = fastsoftmax.train(data, "y", categorical=["a", "b"], nulls=nulls, l2=0.01, **options)
    assert model.n_features == 5
    assert fastsoftmax.evaluate(model, data).accuracy == 1
    assert list(model.predict(data)) == LABELS


def test_a_category_with_one_value_teaches_nothing_and_does_no_harm():
    data = pa.table({"b": ["one"] * 60, "y": LABELS})
    model = fastsoftmax.train(data, "y", categorical=["b"], **QUICK)
    assert fastsoftmax.evaluate(model, data).accuracy == max(map(LABELS.count, WORDS)) / 60


def test_a_category_that_is_null_everywhere_in_training_is_refused():
    for column in (pa.nulls(60), pa.nulls(60, pa.string())):
        with pytest.raises(DataError, match="null in all rows: leave it out"):
            fastsoftmax.train(
                pa.table({"a": column, "y": LABELS}), "y", categorical=["a"], nulls="zero"
            )
