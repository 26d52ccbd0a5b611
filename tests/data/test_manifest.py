"""A model remembers which row groups it was trained on, and is trained on with new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax import DataError
from fastsoftmax.cli import main as cli
from fastsoftmax.data.manifest import merged, names_of, new_pieces
from fastsoftmax.data.open import open_source

D, GROUP = 4, 100
FORMATS = ("parquet", "bare parquet", "arrow")


def rows(seed: int, n: int = 2 * GROUP) -> pa.Table:
    """Return rows of one vector and a label, which differ by nothing but the vectors' values."""
    y = np.arange(n) // (n // 4)
    X = np.random.default_rng(seed).normal(size=(n, D)) + 2 * np.eye(D)[y]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel().astype(np.float32)), D)
    return pa.table({"x": vectors, "y": y})


def write(path: Path, kind: str, *tables: pa.Table) -> str:
    path.parent.mkdir(exist_ok=True)
    if kind == "arrow":
        with pa.ipc.new_file(path, tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table, max_chunksize=GROUP)
    else:
        bare = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        options = bare if kind.startswith("bare") else {}
        with pq.ParquetWriter(path, tables[0].schema, **options) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=GROUP)
    return str(path)


def train(data, **options):
    return fastsoftmax.train(data, "y", learning_rate=0.01, epochs=1, **options)


def trained_rows(model) -> int:
    return model.history[-1]["rows"]


@pytest.mark.parametrize("kind", FORMATS)
def test_only_new_files_and_row_groups_are_trained_on(tmp_path, kind):
    first, grown = tmp_path / "a", tmp_path / "b"
    write(first, kind, rows(0))
    one = train(str(first))
    assert trained_rows(one) == 200
    write(grown, kind, rows(1))
    two = train([str(first), str(grown)], init=one)
    alone = train(str(grown), init=one)
    assert trained_rows(two) == 200
    assert_array_equal(two.weights, alone.weights)
    write(grown, kind, rows(1), rows(2))
    three = train([str(first), str(grown)], init=two)
    assert trained_rows(three) == 200
    with pytest.raises(DataError, match="on all of these rows: give others, or seen=again"):
        train([str(first), str(grown)], init=three)
    assert trained_rows(train([str(first), str(grown)], init=three, seen="again")) == 600


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_changed_since_is_refused(tmp_path, kind):
    path = tmp_path / "a"
    write(path, kind, rows(0), rows(1))
    model = train(str(path))
    write(path, kind, rows(0), rows(2))
    with pytest.raises(DataError, match="a file of this name, and 2 of its 4 row groups have chan"):
        train(str(path), init=model)
    again = train(str(path), init=model, seen="again")
    assert trained_rows(again) == 400
    with pytest.raises(DataError, match="on all of these rows"):
        train(str(path), init=again)


def test_a_file_seen_is_known_in_another_folder_and_by_another_name(tmp_path):
    model = train(write(tmp_path / "a", "parquet", rows(0)))
    for name in ("folder/a", "b"):
        path = write(tmp_path / name, "parquet", rows(0))
        with pytest.raises(DataError, match="on all of these rows"):
            train(path, init=model)


def test_rows_left_out_shift_no_place_in_messages(tmp_path):
    first = write(tmp_path / "a", "parquet", rows(0))
    model = train(first)
    bad = rows(1).to_pydict()
    bad["x"][130][2] = float("nan")
    schema = rows(1).schema
    second = write(tmp_path / "b", "parquet", pa.table(bad, schema=schema))
    with pytest.raises(DataError, match="b, row group 1, row 30"):
        train([first, second], init=model)


def test_a_model_tells_where_it_comes_from(tmp_path, capsys):
    first = write(tmp_path / "a.parquet", "parquet", rows(0))
    second = write(tmp_path / "b.parquet", "parquet", rows(1))
    one = train(first)
    two = train(second, init=one)
    three = train(second, init=two, seen="again")
    assert "lineage" not in one.record
    assert [parent["epochs"] for parent in three.record["lineage"]] == [1, 1]
    assert [entry["name"] for entry in three.ledger] == ["a.parquet", "b.parquet"]
    three.save(tmp_path / "m")
    assert fastsoftmax.load(tmp_path / "m").ledger == three.ledger
    assert cli.main(["inspect", str(tmp_path / "m")]) == 0
    said = capsys.readouterr().out
    assert "before that" in said
    assert "a.parquet (200 rows)" in said
    assert said.count("of 200 rows in 1 epoch") == 2


def test_classes_are_those_of_the_model_to_start_from(tmp_path):
    model = train(write(tmp_path / "a", "parquet", rows(0)))
    some = rows(1).filter(pa.array(np.arange(200) < 100))
    assert list(train(write(tmp_path / "b", "parquet", some), init=model).classes) == [0, 1, 2, 3]


def test_data_in_memory_are_always_new():
    X = np.random.default_rng(0).normal(size=(50, 3))
    y = np.arange(50) % 2
    model = fastsoftmax.train(X, y, epochs=1)
    assert fastsoftmax.train(X, y, epochs=1, init=model).history[0]["rows"] == 50
    assert model.ledger == []


def test_names_hold_no_folder_but_what_tells_files_apart():
    assert names_of(["/data/a/p.parquet"]) == ["p.parquet"]
    assert names_of(["/data/day=1/p", "/data/day=2/p"]) == ["day=1/p", "day=2/p"]
    assert names_of(["/data/y=1/day=1/p"]) == ["y=1/day=1/p"]
    assert names_of(["/x/a/p", "/x/b/p", "/x/b/c/q"]) == ["a/p", "b/p", "b/c/q"]


def test_entries_of_files_read_again_are_kept_once():
    old = [{"name": "a", "pieces": ["1"]}, {"name": "b", "pieces": ["2", "3"]}]
    now = [{"name": "a", "pieces": ["1", "4"]}, {"name": "b", "pieces": ["2"]}]
    assert merged(old, now) == [old[1]]
    assert new_pieces(old, ["c"], [{"name": "c", "pieces": ["3", "5", "1"]}]) == [[1]]


def test_digests_of_record_batches_are_read_from_any_writer(tmp_path):
    one = open_source(write(tmp_path / "a", "arrow", rows(0, 400)), "y").fingerprint()[0]
    with pa.ipc.new_file(tmp_path / "b", rows(0).schema) as writer:
        pass
    with pa.ipc.new_file(
        tmp_path / "c", rows(0).schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(rows(0, 400), max_chunksize=GROUP)
    packed = open_source(str(tmp_path / "c"), "y").fingerprint()[0]
    assert len(set(one["pieces"])) == 4
    assert len(set(packed["pieces"])) == 4
    both = open_source([str(tmp_path / "b"), str(tmp_path / "a")], "y").fingerprint()
    assert [len(entry["pieces"]) for entry in both] == [0, 4]


def test_going_on_to_new_rows_learns_from_them_and_keeps_what_was_learnt(tmp_path):
    table = pq.read_table(Path(__file__).parents[2] / "examples/data/digits-train.parquet")
    parts = [
        write(tmp_path / str(i), "parquet", table.slice(360 * i, 360).rename_columns(["x", "y"]))
        for i in range(2)
    ]
    first = fastsoftmax.train(parts[0], "y", classes=range(10))
    second = fastsoftmax.train(parts[:2], "y", init=first)

    def loss(model, part):
        return fastsoftmax.evaluate(model, part, "y").log_loss

    assert loss(second, parts[1]) < 0.95 * loss(first, parts[1])
    assert loss(second, parts[0]) < loss(first, parts[0]) + 0.01
    forgetful = fastsoftmax.train(parts[1], "y", classes=range(10), init=first, seen="again")
    assert loss(forgetful, parts[0]) > 10 * loss(second, parts[0])
    assert len(second.history) == 1
