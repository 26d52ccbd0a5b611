"""The kernels score many rows as NumPy scores few: the same answers, sums and errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.data.open import open_source
from fastsoftmax.data.source import Column
from fastsoftmax.errors import DataError
from fastsoftmax.evaluation.evaluate import evaluate
from fastsoftmax.inference import answers, bulk
from fastsoftmax.labels import given_classes
from fastsoftmax.model import scoring
from fastsoftmax.model.model import Model
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.model.scoring import write_predictions
from tests.floors import PACKAGE
from tests.models import make_model
from tests.tables import DTYPES, LAYOUTS, feature_columns, matrix, mixed_order

ROWS = 700


@pytest.fixture
def by_kernels(monkeypatch):
    """Return a function that says whether kernels score, and with how many threads."""

    def choose(chosen: bool, threads: int = 2) -> None:
        monkeypatch.setattr(scoring, "is_worth", lambda *sizes: chosen)
        monkeypatch.setattr(bulk, "available_threads", lambda: threads)
        monkeypatch.setattr(bulk, "SUMMED_ROWS", 100)

    return choose


def scaled(model: Model, seed: int = 3) -> Model:
    """Return a model of features that are brought to one scale."""
    random, d = np.random.default_rng(seed), model.n_features
    scale = random.uniform(0.5, 2, d).astype(model.dtype).astype(np.float64)
    centre = random.normal(size=d).astype(model.dtype).astype(np.float64)
    return Model.of(replace(model.parameters, scaling=Scaling(centre, scale)))


def close(got, want, dtype) -> None:
    """Assert that two ways of summing agree; the smallest numbers may be 0."""
    eps = 256 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(got, want, rtol=eps, atol=eps)


def check_answers(model: Model, data, by_kernels) -> None:
    """Assert that all answers are those of NumPy, with one thread and with several the same."""
    for ask in ("decision_function", "predict_proba", "predict_log_proba", "predict"):
        by_kernels(False)
        want = getattr(model, ask)(data)
        by_kernels(True, 1)
        got = getattr(model, ask)(data)
        by_kernels(True, 3)
        np.testing.assert_array_equal(getattr(model, ask)(data), got)
        assert got.dtype == want.dtype
        if ask == "predict":
            np.testing.assert_array_equal(got, want)
        else:
            close(got, want, model.dtype)


def check_report(model: Model, data, target, by_kernels, **more) -> None:
    """Assert that the report is that of NumPy, with one thread and with several the same."""
    by_kernels(False)
    want = evaluate(model, data, target, **more)
    by_kernels(True, 1)
    got = evaluate(model, data, target, **more)
    by_kernels(True, 3)
    again = evaluate(model, data, target, **more)
    assert str(asdict(got)) == str(asdict(again))
    assert (got.rows, got.treated) == (want.rows, want.treated)
    for name in ("log_loss", "accuracy", "macro_f1", "weighted_f1"):
        close(getattr(got, name), getattr(want, name), model.dtype)
    if want.log_loss_prior is not None:
        close(got.log_loss_prior, want.log_loss_prior, model.dtype)
    if want.top_k is not None:
        close(got.top_k_accuracy, want.top_k_accuracy, model.dtype)
    close(got.calibration_error, want.calibration_error, model.dtype)
    if want.confusion is not None:
        close(got.confusion, want.confusion, model.dtype)
    assert [b.rows for b in got.reliability] == [b.rows for b in want.reliability]


def rows_of(model: Model, rows: int = ROWS, seed: int = 1):
    """Return random features and classes for a model."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(rows, model.n_features)).astype(np.float32)
    return X, random.integers(0, len(model.classes_), rows)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("K", [2, 10, 300])
@pytest.mark.parametrize("is_scaled", [False, True])
def test_kernels_answer_as_numpy(by_kernels, dtype, K, is_scaled):
    model = make_model(K, 17, dtype=dtype, named=False)
    model = scaled(model) if is_scaled else model
    X, y = rows_of(model)
    w = np.random.default_rng(2).integers(0, 3, len(X)) / 2
    for data in (X, np.asfortranarray(X)):
        check_answers(model, data, by_kernels)
        check_report(model, data, y, by_kernels)
        check_report(model, data, y, by_kernels, weight=w, top_k=min(K, 3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernels_take_all_dtypes_and_layouts(by_kernels, dtype, layout):
    if dtype == "bool" and layout == "tensor":
        pytest.skip("Arrow has no tensors of bits")
    X = matrix(dtype, width=20)
    X = X[:, :20]
    wide = mixed_order(X) if layout == "mixed" else X
    columns = feature_columns(X, layout)
    names = {
        "scalars": tuple(Column(f"x{j}") for j in range(20)),
        "mixed": tuple(Column(name, 1 if name == "v" else None) for name in columns),
    }.get(layout, (Column("v", 20),))
    model = scaled(make_model(3, 20))
    model = Model.of(replace(model.parameters, columns=names))
    table = pa.table({**columns, "label": np.arange(len(X)) % 3})
    check_answers(model, table, by_kernels)
    check_report(model, table, "label", by_kernels)
    by_kernels(True)
    nameless = Model.of(replace(model.parameters, columns=None))
    close(model.decision_function(table), nameless.decision_function(wide), model.dtype)


@pytest.fixture(params=[7, 100, 10_000], ids="{} rows a group".format)
def path(request, tmp_path):
    """A file of named columns in row groups of some size, with weights, and columns to keep."""
    X, y = rows_of(make_model(5, 4))
    path = tmp_path / "rows.parquet"
    w = np.arange(ROWS) % 4 / 2
    table = pa.table(
        {**feature_columns(X[:, :1], "scalars"), "v": list(X[:, 1:]), "label": y, "w": w}
    ).rename_columns(["a", "v", "label", "w"])
    table = table.append_column("id", pa.array([f"row {t}" for t in range(ROWS)]))
    pq.write_table(table, path, row_group_size=request.param)
    return path


def test_files_in_row_groups_of_any_size(by_kernels, path):
    model = scaled(make_model(5, 4))
    check_answers(model, str(path), by_kernels)
    check_report(model, str(path), None, by_kernels, weight="w")
    assert evaluate(model, str(path), weight="w").rows == ROWS - len(range(0, ROWS, 4))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_files_of_predictions_are_the_same(by_kernels, path, tmp_path, suffix):
    model, written = make_model(5, 4), []
    for chosen, threads in ((False, 1), (True, 1), (True, 3)):
        by_kernels(chosen, threads)
        out = tmp_path / f"out{len(written)}.{suffix}"
        source = open_source(str(path), like=model.columns, keep=("id", "label"))
        rows = write_predictions(model.parameters, source, out, proba=True, top_n=2)
        assert rows == ROWS
        read = pq.read_table if suffix == "parquet" else lambda f: pa.ipc.open_file(f).read_all()
        written.append(read(out).combine_chunks())
    want, got, again = written
    assert got.equals(again)
    assert got.schema.equals(want.schema)
    for name in ("id", "label", "prediction", "top_predictions"):
        assert got[name].equals(want[name]), name
    flat = [table["probabilities"].combine_chunks().flatten().to_numpy() for table in written]
    close(flat[1], flat[0], model.dtype)


def test_cuts_of_the_reader_do_not_show(by_kernels, path, monkeypatch):
    model = make_model(5, 4)
    by_kernels(True)
    want = evaluate(model, str(path)), model.predict_proba(str(path))
    monkeypatch.setattr("fastsoftmax.data.table.MOST_ROWS", 64)
    monkeypatch.setattr(bulk, "ANSWER_BYTES", 1)
    assert str(evaluate(model, str(path))) == str(want[0])
    np.testing.assert_array_equal(model.predict_proba(str(path)), want[1])


@pytest.mark.parametrize("as_stream", [False, True])
def test_streams_are_scored_as_tables(by_kernels, as_stream):
    model = make_model(5, 4, named=True)
    X, y = rows_of(model)
    table = pa.table({"a": X[:, 0], "v": list(X[:, 1:]), "label": y})

    def data():
        batches = table.to_batches(max_chunksize=90)
        return pa.RecordBatchReader.from_batches(table.schema, batches)

    by_kernels(False)
    want = model.predict_proba(data()), evaluate(model, data())
    by_kernels(True)
    close(model.predict_proba(data if as_stream else data()), want[0], model.dtype)
    close(evaluate(model, data if as_stream else data()).log_loss, want[1].log_loss, model.dtype)


@pytest.mark.parametrize("nulls", ["zero", "mean", "drop"])
def test_nulls_and_categories_are_treated_alike(by_kernels, tmp_path, nulls):
    random = np.random.default_rng(4)
    x = pa.array(random.normal(size=ROWS), mask=random.random(ROWS) < 0.1)
    c = pa.array([None if t % 31 == 0 else "abcde"[t % 5] for t in range(ROWS)])
    y = random.integers(0, 3, ROWS)
    path = tmp_path / "rows.parquet"
    table = pa.table({"x": x, "c": c, "u": random.normal(size=ROWS), "y": y})
    pq.write_table(table, path, row_group_size=99)
    model = fastsoftmax.train(
        table.slice(0, 300), "y", categorical=["c"], nulls=nulls, epochs=1, threads=1
    )
    new = table.set_column(1, "c", pa.array([*(["zz"] * 9), *c.to_pylist()[9:]]))
    pq.write_table(new, path, row_group_size=99)
    check_report(model, str(path), None, by_kernels)
    answers = []
    for chosen in (False, True):
        by_kernels(chosen)
        answers.append(model.predict_proba(str(path)))
    np.testing.assert_array_equal(np.isnan(answers[0]), np.isnan(answers[1]))
    assert np.isnan(answers[0]).any() == (nulls == "drop")
    close(answers[1], answers[0], model.dtype)
    if nulls == "drop":
        messages = [message(by_kernels, chosen, model.predict, str(path)) for chosen in (0, 1)]
        assert messages[0] == messages[1]


def message(by_kernels, chosen, ask, *data) -> str:
    """Return what is said to be wrong."""
    by_kernels(bool(chosen))
    with pytest.raises(DataError) as caught:
        ask(*data)
    return str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 3e38])
@pytest.mark.parametrize("row", [0, 333, ROWS - 1])
def test_errors_are_the_same_word_for_word(by_kernels, tmp_path, value, row):
    model = make_model(5, 4)
    X, y = rows_of(model)
    X = X.astype(np.float64)
    X[row, 2] = value
    table = pa.table({"a": X[:, 0], "v": list(X[:, 1:]), "label": y})
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, row_group_size=50)
    nameless = Model.of(replace(model.parameters, columns=None))
    asked = [
        (model.predict_proba, str(path)),
        (model.predict, table),
        (nameless.decision_function, X),
        (evaluate, model, str(path)),
    ]
    for ask, *data in asked:
        want, got = (message(by_kernels, chosen, ask, *data) for chosen in (False, True))
        assert got == want


def test_of_equal_classes_the_first_is_predicted(by_kernels):
    model = Model(np.zeros((40, 3), np.float32), np.zeros(40, np.float32), given_classes(range(40)))
    X, y = rows_of(model)
    by_kernels(True)
    assert (model.predict(X) == 0).all()
    check_report(model, X, y, by_kernels, top_k=7)


def test_probabilities_survive_logits_of_ten_thousand(by_kernels):
    model = make_model(10, 4, named=False)
    X, y = rows_of(model)
    by_kernels(True)
    p = model.predict_proba(1e4 * X)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    got = evaluate(model, 1e4 * X, y).log_loss
    by_kernels(False)
    np.testing.assert_allclose(got, evaluate(model, 1e4 * X, y).log_loss, rtol=1e-5)


def test_kernels_are_for_many_rows():
    assert not answers.is_worth(20_000, 10, 64)
    assert answers.is_worth(5_000_000, 10, 64)


def test_few_rows_load_no_kernels(tmp_path):
    code = (
        "import sys, numpy as np, pyarrow as pa; from tests.models import make_model\n"
        "from fastsoftmax.evaluation.evaluate import evaluate\n"
        "model, X = make_model(3, 4, named=False), np.zeros((99, 4))\n"
        "table = pa.table({'v': list(X)})\n"
        "model.predict(X); model.predict_proba(table); evaluate(model, X, np.zeros(99, int))\n"
        "model.predict(table.to_reader())\n"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_all_rows_of_weight_zero_are_nothing_to_evaluate(by_kernels):
    model = make_model(3, 4, named=False)
    X, y = rows_of(model)
    texts = [message(by_kernels, c, evaluate, model, X, y, np.zeros(len(X))) for c in (0, 1)]
    assert texts[0] == texts[1]
