"""Every kind of data gives the same rows at every entry, or one sentence that says what to do."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax.errors import DataError, FastsoftmaxError

pytestmark = [
    pytest.mark.filterwarnings("ignore::fastsoftmax.errors.NotConverged"),
    pytest.mark.filterwarnings("ignore:the log-loss falls"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),  # of numpy.matrix
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # files left open on purpose
]
rng = np.random.default_rng(3)
X = rng.normal(size=(80, 2))
LABELS = np.array(["a", "b", "c"])[np.digitize(X[:, 0], [-0.5, 0.5])]
TABLE = pa.table({"x": X[:, 0], "z": X[:, 1], "y": LABELS})
BATCHES = TABLE.to_batches(max_chunksize=30)
QUICK = {"l2": 0.01, "learning_rate": 0.1, "epochs": 2}


def stream_file(folder, table=TABLE, name="s.arrow"):
    path = str(folder / name)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    return path


class Batches:
    """Yields batches each time it is asked."""

    def __iter__(self):
        return iter(BATCHES)


def read_again(folder):
    """Yield kinds of data that can be read again."""
    encoded = pa.table({"x": X[:, 0], "z": X[:, 1], "y": pa.array(LABELS).dictionary_encode()})
    yield "a list of batches", BATCHES
    yield "a list of tables", [TABLE.slice(0, 10), TABLE.slice(10)]
    yield "what yields batches each time", Batches()
    yield "a function of a generator", lambda: (batch for batch in BATCHES)
    yield "a function of a list", lambda: BATCHES
    yield "a stream's file", stream_file(folder)
    yield "streams' files", [stream_file(folder, TABLE.slice(0, 30), "a.arrow"),
                             stream_file(folder, TABLE.slice(30), "b.arrow")]  # fmt: skip
    yield "a stream's file with dictionaries", stream_file(folder, encoded, "c.arrow")
    try:
        import polars
    except ImportError:
        return
    frame = polars.DataFrame({"x": X[:, 0], "z": X[:, 1], "y": LABELS})
    yield "a lazy frame", frame.lazy()
    yield "a lazy frame of a file", polars.scan_parquet(written(folder))
    yield "a list of frames", [frame[:10], frame[10:]]
    yield "a function of a lazy frame", frame.lazy


def written(folder):
    path = str(folder / "d.parquet")
    pq.write_table(TABLE, path)
    return path


def test_what_can_be_read_again_is_trained_on_judged_and_predicted_as_a_table_is(tmp_path):
    want = fastsoftmax.train(TABLE, "y", **QUICK)
    loss = fastsoftmax.evaluate(want, TABLE).log_loss
    for name, data in read_again(tmp_path):
        model = fastsoftmax.train(data, "y", validation=data, **QUICK)
        assert_array_equal(model.weights, want.weights, err_msg=name)
        assert_array_equal(model.predict(data), want.predict(TABLE), err_msg=name)
        assert fastsoftmax.evaluate(model, data).log_loss == pytest.approx(loss, rel=1e-12), name
        fastsoftmax.calibrate(model, data)
        fastsoftmax.sweep(data, "y", l2=[0.1, 0.01], epochs=1)
        done = fastsoftmax.pack(data, tmp_path / "p.parquet", "y")
        assert done.rows == 80, name


@pytest.mark.parametrize("kind", ["generator", "map", "iterator of a list", "reader"])
def test_what_yields_batches_once_is_trained_on_in_one_pass(kind):
    def make():
        return {
            "generator": lambda: (batch for batch in BATCHES),
            "map": lambda: map(TABLE.slice, (0, 50), (50, 30)),
            "iterator of a list": lambda: iter(BATCHES),
            "reader": TABLE.to_reader,
        }[kind]()

    options = {"learning_rate": 0.1, "schedule": "constant", "l2": 0.01}
    model = fastsoftmax.train(make(), "y", classes=["a", "b", "c"], epochs=1, **options)
    assert_array_equal(model.predict(make()), model.predict(TABLE))
    assert fastsoftmax.evaluate(model, make()).rows == 80
    with pytest.raises(FastsoftmaxError, match="give classes="):
        fastsoftmax.train(make(), "y")


def open_file(folder):
    return open(written(folder), "rb")


def refused():
    yield "an open file", open_file, "path of the file"
    yield "bytes", lambda folder: b"PAR1", "path of the file"
    yield "bytes in memory", lambda folder: io.BytesIO(b"PAR1"), "path of the file"
    yield "a Parquet file", lambda folder: pq.ParquetFile(written(folder)), "path of the file"
    yield "numbers one by one", lambda folder: iter([1.0, 2.0]), "item 0 is a float"
    yield "arrays one by one", lambda folder: (row for row in X), "item 0 is a ndarray"
    yield "an empty generator", lambda folder: iter(()), "there are no rows"
    yield "other columns", lambda folder: [TABLE, TABLE.drop_columns("x")], "other columns"
    yield "other types", lambda folder: [TABLE, TABLE.set_column(0, "x", [["1"] * 80])], "x: string"
    yield "lists of arrays", lambda folder: [pa.array([1.0])], "no table can be made"
    yield "an array", lambda folder: pa.array([1.0, 2.0]), "no table can be made"
    yield "a dict", lambda folder: {"x": [1.0]}, "Give a path"
    yield "a number", lambda folder: 3, "Give a path"
    yield "nothing", lambda folder: None, "Give a path"
    yield "an object", lambda folder: object(), "Give a path"
    yield "a set", lambda folder: {1, 2}, "item 0 is a int"
    yield "a masked matrix", lambda folder: np.ma.masked_less(X, 0), "masked"
    yield "a cut stream", cut_stream, "not a whole Arrow IPC stream"


def cut_stream(folder):
    path = stream_file(folder)
    with open(path, "r+b") as file:
        file.truncate(1500)
    return path


@pytest.mark.parametrize(
    ("make", "message"), [case[1:] for case in refused()], ids=[case[0] for case in refused()]
)
def test_what_is_not_read_is_refused_in_a_sentence(make, message, tmp_path):
    model = fastsoftmax.train(TABLE, "y", **QUICK)
    with pytest.raises(DataError, match=message):
        fastsoftmax.train(make(tmp_path), "y", classes=["a", "b", "c"], epochs=1)
    with pytest.raises(DataError):
        fastsoftmax.evaluate(model, make(tmp_path), "y")
    with pytest.raises(DataError):
        model.predict(make(tmp_path))
    with pytest.raises(DataError):
        fastsoftmax.pack(make(tmp_path), tmp_path / "p.parquet", "y")


def test_an_encrypted_file_is_refused_as_such(tmp_path):
    path = tmp_path / "e.parquet"
    path.write_bytes(b"PARE" + bytes(100) + b"PARE")
    with pytest.raises(DataError, match="the file is encrypted"):
        fastsoftmax.train(str(path), "y")


def test_masked_labels_and_weights_are_nulls():
    y, w = (X[:, 0] > 0).astype(int), np.ones(80)
    masked = np.ma.masked_array(y, mask=np.arange(80) == 7)
    weights = np.ma.masked_array(w, mask=np.arange(80) == 9)
    model = fastsoftmax.train(X, y, **QUICK)
    for call in (
        lambda: fastsoftmax.train(X, masked),
        lambda: fastsoftmax.train(X, y, validation=(X, masked), **QUICK),
        lambda: fastsoftmax.evaluate(model, X, masked),
        lambda: fastsoftmax.calibrate(model, X, masked),
    ):
        with pytest.raises(DataError, match="row 7: the target is null"):
            call()
    for call in (
        lambda: fastsoftmax.train(X, y, weight=weights),
        lambda: fastsoftmax.evaluate(model, X, y, weights),
    ):
        with pytest.raises(DataError, match="row 9: the weight is null"):
            call()
    whole = np.ma.masked_array(y, mask=False)
    assert_array_equal(fastsoftmax.train(X, whole, **QUICK).weights, model.weights)


def test_the_estimator_refuses_masked_values():
    pytest.importorskip("sklearn")
    y = (X[:, 0] > 0).astype(int)
    mask = np.arange(80) == 7
    estimator = fastsoftmax.SoftmaxClassifier(l2=0.01)
    with pytest.raises(DataError, match="labels are masked"):
        estimator.fit(X, np.ma.masked_array(y, mask=mask))
    with pytest.raises(DataError, match="X has masked values"):
        estimator.fit(np.ma.masked_array(X, mask=mask[:, None] & [True, True]), y)
    with pytest.raises(DataError, match="sample_weight has masked values"):
        estimator.fit(X, y, sample_weight=np.ma.masked_array(np.ones(80), mask=mask))


def test_columns_that_pandas_calls_by_numbers_are_found():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.c_[X, np.digitize(X[:, 0], [-0.5, 0.5]), np.ones(80)])
    model = fastsoftmax.train(frame, 2, weight=3, features=[0, np.int64(1)], **QUICK)
    assert model.feature_names == ("0", "1")
    assert fastsoftmax.evaluate(model, frame).rows == 80
    assert fastsoftmax.evaluate(model, frame, 2, 3).rows == 80
    with pytest.raises(DataError, match='there is no column "7"'):
        fastsoftmax.train(frame, 7)
    with pytest.raises(DataError, match="a list of columns, each a string"):
        fastsoftmax.train(frame, 2, features=[None])


def test_a_matrix_of_numpys_old_kind_is_a_matrix():
    y = (X[:, 0] > 0).astype(int)
    model = fastsoftmax.train(np.asmatrix(X), np.asmatrix(y).T, **QUICK)
    assert_array_equal(model.weights, fastsoftmax.train(X, y, **QUICK).weights)
    assert_array_equal(model.predict_proba(np.asmatrix(X)), model.predict_proba(X))
