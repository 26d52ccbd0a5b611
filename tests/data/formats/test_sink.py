"""Predictions go into a file row by row, in order, and a file that stands is whole."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fastsoftmax.data.formats import sink as sink_module
from fastsoftmax.data.formats.sink import format_of, open_sink
from fastsoftmax.errors import DataError, OptionError, SaveError
from fastsoftmax.labels import given_classes, sort_classes
from fastsoftmax.model.scoring import write_predictions
from tests.models import Rows, make_model, make_table


def read(path) -> pa.Table:
    """Read a Parquet or an Arrow file."""
    if path.suffix in sink_module.IPC:
        with pa.OSFile(str(path)) as file:
            return pa.ipc.open_file(file).read_all()
    return pq.read_table(path, page_checksum_verification=True)


@pytest.fixture
def X() -> np.ndarray:
    """Some rows."""
    return np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)


def draw_probabilities(n: int, K: int) -> np.ndarray:
    """Return random rows that sum to 1."""
    p = np.random.default_rng(0).random((n, K))
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["out.parquet", "out.PQ", "out.arrow", "out.feather"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_row_is_written_in_order(tmp_path, X, name, dtype):
    model = make_model(3, 4, dtype=dtype)
    source = Rows((X,), kept=make_table(50), sizes=(20, 30))
    rows = write_predictions(model.parameters, source, tmp_path / name, proba=True, top_n=2)
    got = read(tmp_path / name)
    p = model.predict_proba(X)
    order = np.argsort(-p, axis=1, kind="stable")[:, :2]
    assert rows == got.num_rows == 50
    assert got.column_names == [
        "id",
        "name",
        "prediction",
        "probability",
        "probabilities",
        "top_predictions",
        "top_probabilities",
    ]
    assert got.select(["id", "name"]).equals(make_table(50))
    np.testing.assert_array_equal(got["prediction"].to_numpy(), model.predict(X))
    np.testing.assert_array_equal(np.stack(got["top_predictions"].to_numpy()), order)
    tol = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(got["probability"].to_numpy(), p.max(axis=1), rtol=tol)
    np.testing.assert_allclose(np.stack(got["probabilities"].to_numpy()), p, rtol=tol)
    want = np.take_along_axis(p, order, axis=1)
    np.testing.assert_allclose(np.stack(got["top_probabilities"].to_numpy()), want, rtol=tol)
    value = pa.from_numpy_dtype(dtype)
    assert got.schema.field("probability").type == value
    assert got.schema.field("probabilities").type.list_size == 3
    assert got.schema.field("probabilities").type.value_type == value


def test_lines_of_csv_hold_each_probability_in_a_column_of_its_own(tmp_path):
    classes = given_classes(["a", 'say "b"', "c, d"])
    p = draw_probabilities(4, 3)
    kept = pa.record_batch({"id": pa.array([1, None, 3, 4]), "name": ["", "x,y", "z\n", None]})
    with open_sink(tmp_path / "out.csv", classes, proba=True, top_n=2) as sink:
        sink.append(p, kept, np.array([False, False, True, False]))
    convert = pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    got = pyarrow.csv.read_csv(tmp_path / "out.csv", None, parse, convert)
    assert got.column_names == [
        *("id", "name", "prediction", "probability", "p_0", "p_1", "p_2"),
        *("top_prediction_1", "top_prediction_2", "top_probability_1", "top_probability_2"),
    ]
    want = p.copy()
    want[2] = np.nan
    numbers = [got[f"p_{k}"].to_numpy() for k in range(3)]
    np.testing.assert_array_equal(np.column_stack(numbers), want)
    assert got["name"].to_pylist() == ["", "x,y", "z\n", None]
    assert got["prediction"][2].as_py() is None
    assert got["prediction"][0].as_py() == classes.values[p[0].argmax()]


@pytest.mark.parametrize("name", ["out.jsonl", "out.ndjson"])
def test_lines_of_json_hold_lists_and_text(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sink_module, "GROUP_ROWS", 2)
    p = draw_probabilities(3, 2)
    when = pa.array([0, 1, None], pa.timestamp("s"))
    kept = pa.record_batch({"id": ["ä\n", None, "</script>"], "when": when})
    with open_sink(tmp_path / name, given_classes([False, True]), proba=True, top_n=1) as sink:
        for t in range(3):
            sink.append(p[t : t + 1], kept.slice(t, 1))
    lines = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
    assert [line["id"] for line in lines] == ["ä\n", None, "</script>"]
    assert [line["when"] for line in lines] == ["1970-01-01 00:00:00", "1970-01-01 00:00:01", None]
    assert [line["probabilities"] for line in lines] == p.tolist()
    assert [line["prediction"] for line in lines] == p.argmax(axis=1).astype(bool).tolist()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "arrow"])
def test_a_pipe_carries_every_row(kind, monkeypatch):
    monkeypatch.setattr(sink_module, "GROUP_ROWS", 2)
    pipe, p = io.BytesIO(), draw_probabilities(5, 2)
    with open_sink("-", given_classes(["a", "b"]), format=kind, pipe=pipe) as sink:
        for row in p:
            sink.append(row[None])
    raw = pipe.getvalue()
    if kind == "arrow":
        got = pa.ipc.open_stream(raw).read_all()
    elif kind == "csv":
        got = pyarrow.csv.read_csv(io.BytesIO(raw))
    else:
        got = pa.Table.from_pylist([json.loads(line) for line in raw.splitlines()])
    assert got["prediction"].to_pylist() == ["ab"[k] for k in p.argmax(axis=1)]
    np.testing.assert_array_equal(got["probability"].to_numpy(), p.max(axis=1))


def test_the_format_is_what_the_name_ends_in_or_what_is_said():
    assert format_of("a.PQ") == "parquet"
    assert format_of("a.feather") == "arrow"
    assert format_of("a.txt", "csv") == "csv"
    assert format_of("-") == "csv"
    with pytest.raises(OptionError, match="parquet needs a file"):
        format_of("-", "parquet")
    with pytest.raises(
        OptionError, match="format must be one of parquet, arrow, csv, jsonl, got x"
    ):
        format_of("a.csv", "x")


@pytest.mark.parametrize(
    ("name", "column", "rule"),
    [
        ("out.csv", pa.array([[1]]), 'CSV cannot hold column "odd" of type list'),
        ("out.jsonl", pa.array([np.nan]), 'JSON cannot hold column "odd"'),
        ("out.jsonl", pa.array([[1.0, np.inf]]), 'JSON cannot hold column "odd"'),
        ("out.jsonl", pa.array([{"a": b"x"}]), 'JSON cannot hold column "odd"'),
    ],
)
def test_what_lines_of_text_cannot_hold_is_named(tmp_path, name, column, rule):
    with pytest.raises(DataError, match=rule):
        append_kept(tmp_path / name, pa.record_batch({"odd": column}))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("classes", "kind"),
    [
        (given_classes(["a", "b", "ç"]), pa.string()),
        (given_classes([False, True]), pa.bool_()),
        (sort_classes("uint8", [1, 200]), pa.uint8()),
        (sort_classes("uint64", [0, 2**64 - 1]), pa.uint64()),
    ],
)
def test_predictions_have_the_labels_own_type(tmp_path, classes, kind):
    p = draw_probabilities(20, len(classes))
    with open_sink(tmp_path / "out.parquet", classes, top_n=2) as sink:
        sink.append(p)
    got = read(tmp_path / "out.parquet")
    assert got.schema.field("prediction").type == kind
    assert got.schema.field("top_predictions").type.value_type == kind
    assert got["prediction"].to_pylist() == [classes.values[k] for k in p.argmax(axis=1)]


def test_only_what_is_asked_for_is_written(tmp_path):
    with open_sink(tmp_path / "out.parquet", given_classes([0, 1])) as sink:
        sink.append(draw_probabilities(3, 2))
    assert read(tmp_path / "out.parquet").column_names == ["prediction", "probability"]


def test_of_equal_probabilities_the_first_class_comes_first(tmp_path):
    with open_sink(tmp_path / "out.arrow", given_classes(range(5)), top_n=4) as sink:
        sink.append(np.array([[0.1, 0.3, 0.1, 0.3, 0.2]]))
    assert read(tmp_path / "out.arrow")["top_predictions"].to_pylist() == [[1, 3, 4, 0]]


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow"])
def test_rows_are_gathered_into_groups(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sink_module, "GROUP_ROWS", 100)
    with open_sink(tmp_path / name, given_classes([0, 1])) as sink:
        for _ in range(25):
            sink.append(draw_probabilities(10, 2))
        # What waits is bounded, whatever the number of rows.
        assert sink.rows == 200
    assert sink.rows == 250
    if name == "out.parquet":
        groups = pq.ParquetFile(tmp_path / name).metadata
        got = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    else:
        got = [len(batch) for batch in read(tmp_path / name).to_batches()]
    assert got == [100, 100, 50]


def test_a_flipped_bit_in_the_output_is_found(tmp_path):
    path = tmp_path / "out.parquet"
    with open_sink(path, given_classes([0, 1])) as sink:
        sink.append(draw_probabilities(1000, 2))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(OSError, match=r"(?i)crc|checksum|corrupt"):
        read(path)


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_whole_and_nothing_else(tmp_path, failure):
    (tmp_path / "out.parquet").write_bytes(b"old")

    def write():
        with open_sink(tmp_path / "out.parquet", given_classes([0, 1])) as sink:
            sink.append(draw_probabilities(10, 2))
            sink.flush()
            raise failure

    with pytest.raises(failure):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]
    assert (tmp_path / "out.parquet").read_bytes() == b"old"


def test_a_full_disk_is_said_in_a_sentence(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with (
        pytest.raises(SaveError, match=r"out.parquet could not be written: No space left"),
        open_sink(tmp_path / "out.parquet", given_classes([0, 1])) as sink,
    ):
        sink.append(draw_probabilities(10, 2))
    assert not any(tmp_path.iterdir())


def test_bad_data_leave_nothing_behind(tmp_path, X):
    X[40, 1] = np.nan
    source = Rows((X,), sizes=(20, 30))
    with pytest.raises(DataError, match="row group 1, row 20"):
        write_predictions(make_model(3, 4).parameters, source, tmp_path / "out.parquet")
    assert not any(tmp_path.iterdir())


def test_no_rows_leave_nothing_behind(tmp_path):
    with (
        pytest.raises(DataError, match="no rows"),
        open_sink(tmp_path / "out.parquet", given_classes([0, 1])),
    ):
        pass
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.txt", "out", "out.parquet.gz"])
def test_an_output_of_no_known_kind_is_refused(tmp_path, name):
    with (
        pytest.raises(OptionError, match=r"must end in one of \.parquet, \.pq, \.arrow, \.feather"),
        open_sink(tmp_path / name, given_classes([0, 1])),
    ):
        pass


@pytest.mark.parametrize("top_n", [0, 3])
def test_more_classes_than_there_are_cannot_be_asked_for(tmp_path, top_n):
    with (
        pytest.raises(OptionError, match=rf"top_k must be in 1\.\.2, .* got {top_n}"),
        open_sink(tmp_path / "out.parquet", given_classes([0, 1]), top_n=top_n),
    ):
        pass


def append_kept(path, *kept: pa.RecordBatch) -> None:
    """Write a row for each row kept."""
    with open_sink(path, given_classes([0, 1])) as sink:
        for batch in kept:
            sink.append(draw_probabilities(batch.num_rows, 2), batch)


def test_a_kept_column_cannot_have_the_name_of_a_result(tmp_path):
    batch = pa.record_batch({"prediction": pa.array([1])})
    with pytest.raises(OptionError, match='a column "prediction" is written already'):
        append_kept(tmp_path / "out.parquet", batch)


def test_a_kept_column_cannot_change_its_type(tmp_path):
    batches = [pa.record_batch({"id": pa.array([v])}) for v in (1, "one")]
    with pytest.raises(DataError, match=r"changes its type .* int64, then string"):
        append_kept(tmp_path / "out.parquet", *batches)


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow"])
def test_kept_columns_keep_their_values_whatever_their_encoding(tmp_path, name):
    batches = [
        pa.record_batch(
            {
                "kind": pa.array(kinds).dictionary_encode(),
                "when": pa.array([0, None], pa.timestamp("us", "UTC")),
            }
        ).slice(0, rows)
        for kinds, rows in ((["x", None], 2), (["y", "z"], 1))
    ]
    append_kept(tmp_path / name, *batches)
    got = read(tmp_path / name)
    assert got["kind"].to_pylist() == ["x", None, "y"]
    assert got["when"].cast(pa.int64()).to_pylist() == [0, None, 0]


def test_a_type_that_the_file_cannot_hold_is_said_in_a_sentence(tmp_path):
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(DataError, match=r"out\.parquet cannot hold these columns"):
        append_kept(tmp_path / "out.parquet", pa.record_batch({"u": union}))
    assert not any(tmp_path.iterdir())
