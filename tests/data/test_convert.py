"""Data of any kind become Parquet, with every value and type."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax import DataError, OptionError
from tests import floors

TABLE = pa.table(
    {
        "a": [1, None, 3],
        "s": pa.array(["x", None, "y"]).dictionary_encode(),
        "v": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)),
    }
)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_every_value_and_type_is_kept(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    done = fastsoftmax.convert(TABLE, path)
    assert (done.rows, done.columns, done.bytes) == (3, 3, path.stat().st_size)
    found = pq.read_table(path) if ending == "parquet" else pa.ipc.open_file(path).read_all()
    assert found.to_pydict() == TABLE.to_pydict()
    assert found.schema.field("v").type == TABLE.schema.field("v").type
    assert found.schema.field("s").type == pa.string()


def test_many_files_become_one_whose_row_groups_read_well(tmp_path):
    for part in range(3):
        path = tmp_path / f"{part}.csv"
        path.write_text("a,zip\n" + "".join(f"{i}.5,0{i % 3}\n" for i in range(20_000)))
    out = tmp_path / "out.parquet"
    done = fastsoftmax.convert(str(tmp_path / "*.csv"), out, types={"zip": "string"})
    assert done.rows == 60_000
    file = pq.ParquetFile(out)
    assert file.num_row_groups == 1
    assert str(file.schema_arrow.field("zip").type) == "string"


def test_lazy_frames_and_readers_are_converted(tmp_path):
    polars = pytest.importorskip("polars")
    frame = polars.LazyFrame({"a": [1, 2], "y": ["p", "q"]})
    assert fastsoftmax.convert(frame, tmp_path / "out.parquet").rows == 2
    assert pq.read_table(tmp_path / "out.parquet")["y"].to_pylist() == ["p", "q"]


def test_files_of_other_types_are_refused_with_their_place(tmp_path):
    (tmp_path / "1.csv").write_text("a\n1\n")
    (tmp_path / "2.csv").write_text("a\nx\n")
    with pytest.raises(DataError, match=r'2.csv, line 2: .*"a" was int64, then string'):
        fastsoftmax.convert(tmp_path, tmp_path.parent / "out.parquet")
    assert not (tmp_path.parent / "out.parquet").exists()


def test_what_cannot_be_converted_is_refused(tmp_path):
    with pytest.raises(DataError, match="a matrix has no names of columns"):
        fastsoftmax.convert(np.zeros((3, 2)), tmp_path / "out.parquet")
    with pytest.raises(OptionError, match=r"must end in one of \.parquet"):
        fastsoftmax.convert(TABLE, tmp_path / "out.csv")
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])
    with pytest.raises(DataError, match='2 columns are called "x"; rename all but one'):
        fastsoftmax.convert(twice, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def run(command, given, folder):
    words = [sys.executable, "-m", "fastsoftmax", *command]
    env = {"PYTHONPATH": str(floors.ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(words, input=given, capture_output=True, cwd=folder, env=env, check=False)


def as_bytes(kind):
    """Return 300 rows as what a pipe may carry."""
    rows = pa.table({"a": [i % 10 for i in range(300)], "y": [i % 10 // 5 for i in range(300)]})
    sink = pa.BufferOutputStream()
    if kind == "arrow stream":
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
    elif kind == "parquet":
        pq.write_table(rows, sink)
    elif kind == "json":
        return "".join(f'{{"a": {i % 10}, "y": {i % 10 // 5}}}\n' for i in range(300)).encode()
    else:
        csv = "a,y\n" + "".join(f"{i % 10},{i % 10 // 5}\n" for i in range(300))
        return pa.compress(csv.encode(), "zstd", asbytes=True) if kind == "zstd" else csv.encode()
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("kind", ["csv", "json", "arrow stream", "parquet", "zstd"])
def test_stdin_is_data_of_any_format(tmp_path, kind):
    done = run(["convert", "-", "-o", "out.parquet", "--json"], as_bytes(kind), tmp_path)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(tmp_path / "out.parquet")["a"].to_pylist()[:12] == [*range(10), 0, 1]


def test_a_run_trains_on_stdin_in_as_many_passes_as_it_takes(tmp_path):
    done = run(["train", "-", "--target", "y", "-o", "m", "--quiet"], as_bytes("csv"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert fastsoftmax.load(tmp_path / "m").record["data"][0]["rows"] == 300


def test_an_empty_stdin_is_told_in_a_sentence(tmp_path):
    done = run(["inspect", "-"], b"", tmp_path)
    assert (done.returncode, done.stderr) == (3, b"fastsoftmax: -: nothing came from stdin.\n")
