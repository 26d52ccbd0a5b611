"""Files give what the NumPy reference holds; a damaged, changed or odd file is named."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data.formats import files, ipc
from fastsoftmax.data.open import open_source
from fastsoftmax.data.table import WAITING_SHARE
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes
from tests.tables import DTYPES, LAYOUTS, ROWS, matrix, mixed_order, read, table

THREE = Classes("int64", (0, 1, 2))
Y = np.arange(ROWS) % 3


def write_parquet(whole, path, **options):
    pq.write_table(whole, path, write_page_checksum=True, **options)
    return path


def write_ipc(whole, path, batch_rows=10):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, whole.schema) as writer:
        writer.write_table(whole, batch_rows)
    return path


def read_all(*given, **named):
    source = open_source(*given, **named)
    source.scan_labels()
    list(source.chunks(THREE))


def refused(*given, **named):
    """Return the sentence with which files are refused, at once or while they are read."""
    with pytest.raises(DataError) as caught:
        read_all(*given, **named)
    return str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_files_of_any_layout_and_piece_size_give_their_rows(tmp_path, dtype, layout):
    X = matrix(dtype)
    want = mixed_order(X) if layout == "mixed" else X
    written = [
        write_parquet(table(X, layout), tmp_path / f"{size}.parquet", row_group_size=size)
        for size in (1, 7, 100)
    ]
    written.append(write_ipc(table(X, layout), tmp_path / "x.arrow"))
    for path in written:
        source = open_source(path, "y")
        got, labels = read(source, source.scan_labels().classes)
        assert_array_equal(got, want)
        assert got.dtype == np.result_type(np.uint8 if dtype == "bool" else dtype)
        assert_array_equal(labels, Y)
        assert source.rows == ROWS
        assert not source.resident


@pytest.fixture
def folder(tmp_path):
    """Three files of 10, 8 and 5 rows, two of them Parquet, one Arrow IPC with no telling name."""
    whole = table(matrix("float32"), name=[f"n{t}" for t in range(ROWS)])
    (tmp_path / "deep").mkdir()
    write_parquet(whole.slice(0, 10), tmp_path / "a.parquet", row_group_size=4)
    write_ipc(whole.slice(10, 8), tmp_path / "b.data", 5)
    write_parquet(whole.slice(18), tmp_path / "deep" / "c.pq")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden").write_text("nothing")
    return tmp_path


def test_folders_globs_and_lists_are_one_data_set(folder):
    listed = [str(folder / "a.parquet"), folder / "b.data", str(folder / "deep" / "c.pq")]
    for given in (
        folder,
        str(folder),
        listed,
        [folder / "*.*", folder / "deep"],
        folder / "**" / "*.*",
    ):
        source = open_source(given, "y", features=["x0", "x2"])
        assert source.pieces == (4, 4, 2, 5, 3, 5)
        got, labels = read(source, THREE)
        assert_array_equal(got, matrix("float32")[:, [0, 2]])
        assert_array_equal(labels, Y)


def test_a_glob_of_folders_is_the_files_in_them(folder):
    assert open_source(folder / "d*", "y", features=["x0"]).pieces == (5,)


def test_the_place_of_a_row_is_file_piece_and_row(folder):
    source = open_source(folder, "y", features=["x0"])
    assert source.place(1, 3) == f"{folder / 'a.parquet'}, row group 1, row 3"
    assert source.place(4, 2) == f"{folder / 'b.data'}, record batch 1, row 2"


def test_pieces_come_in_the_order_asked_for(folder):
    source = open_source(folder, "y", features=["x0"])
    starts = np.cumsum([0, 4, 4, 2, 5, 3])
    order = [5, 0, 3, 2, 4, 1]
    rows = np.concatenate([np.arange(starts[i], starts[i] + source.pieces[i]) for i in order])
    got, labels = read(source, THREE, order)
    assert_array_equal(got[:, 0], matrix("float32")[rows, 0])
    assert_array_equal(labels, Y[rows])
    assert_array_equal(source.scan_labels().segments.counts.sum(axis=1), source.pieces)


def test_few_files_are_open_at_a_time(folder, monkeypatch):
    monkeypatch.setattr(files, "MOST_OPEN", 1)
    got, _ = read(open_source(folder, "y", features=["x0"]), THREE, order=[5, 0, 3, 2, 4, 1])
    assert len(got) == ROWS


def test_columns_are_handed_on_and_weights_read(folder):
    source = open_source(folder, "y", weight="x1", features=["x0"], keep=["name"])
    chunks = list(source.chunks(THREE))
    kept = [name for chunk in chunks for name in chunk.kept["name"].to_pylist()]
    assert kept == [f"n{t}" for t in range(ROWS)]
    weights = np.concatenate([chunk.weights for chunk in chunks])
    assert_array_equal(weights, matrix("float32")[:, 1])


def test_a_large_row_group_is_decoded_in_parts(tmp_path):
    rows = 3000
    X = matrix("float32", rows, 100)
    path = write_parquet(table(X, "fixed"), tmp_path / "x.parquet")
    source = open_source(path, "y", memory=2 * 10**6)
    chunks = list(source.chunks(THREE))
    assert max(chunk.rows for chunk in chunks) == 2 * 10**6 // WAITING_SHARE // 400
    assert [chunk.start for chunk in chunks] == [104 * i for i in range(len(chunks))]
    assert_array_equal(np.concatenate([chunk.parts[0].values for chunk in chunks]), X)


def test_a_large_record_batch_is_read_in_slices(tmp_path, monkeypatch):
    X = matrix("float32", 3000, 10)
    whole = table(X, "fixed")
    with pa.ipc.new_file(tmp_path / "x.arrow", whole.schema) as writer:
        writer.write_table(whole, max_chunksize=1600)
    for large in (2**25, 1000):
        monkeypatch.setattr(ipc, "LARGE_BATCH", large)
        source = open_source(tmp_path / "x.arrow", "y", memory=10**6)
        chunks = list(source.chunks(THREE))
        assert_array_equal(np.concatenate([chunk.parts[0].values for chunk in chunks]), X)
        assert (max(chunk.rows for chunk in chunks) < 1600) == (large == 1000)
    assert [(chunk.piece, chunk.start) for chunk in chunks][-1][0] == 1


def test_columns_with_dots_and_of_one_beginning_are_told_apart(tmp_path):
    whole = pa.table({"a": [1.0, 2.0], "a.b": [3.0, 4.0], "y": [0, 1]})
    path = write_parquet(whole, tmp_path / "x.parquet")
    for name, want in (("a", [1, 2]), ("a.b", [3, 4])):
        got, _ = read(open_source(path, "y", features=[name]))
        assert_array_equal(got[:, 0], want)


def test_files_may_order_their_columns_otherwise(tmp_path):
    X = matrix("float32")
    write_parquet(table(X), tmp_path / "a.parquet")
    write_parquet(table(X).select(["y", "x2", "x1", "x0"]), tmp_path / "b.parquet")
    got, _ = read(open_source(tmp_path, "y"))
    assert_array_equal(got, np.concatenate([X, X]))


def test_strings_in_dictionaries_and_lists_are_read(tmp_path):
    names = pa.array(["b", "a", None, "a"]).fill_null("c").dictionary_encode()
    whole = pa.table({"v": [[1, 2]] * 4, "y": names})
    for path in (write_parquet(whole, tmp_path / "a"), write_ipc(whole, tmp_path / "b")):
        source = open_source(path, "y")
        classes = source.scan_labels().classes
        assert classes.values == ("a", "b", "c")
        assert_array_equal(read(source, classes)[1], [1, 0, 2, 0])


def test_a_fingerprint_has_no_path_and_no_clock(folder):
    first, second, third = open_source(folder, "y", features=["x0"]).fingerprint()
    assert [f["name"] for f in (first, second, third)] == ["a.parquet", "b.data", "c.pq"]
    assert [f["rows"] for f in (first, second, third)] == [10, 8, 5]
    assert first["size"] == (folder / "a.parquet").stat().st_size
    bytes_ = (folder / "a.parquet").read_bytes()
    length = int.from_bytes(bytes_[-8:-4], "little")
    assert first["sha256"] == hashlib.sha256(bytes_[-8 - length : -8]).hexdigest()
    os.utime(folder / "a.parquet", (1, 1))
    assert open_source(folder, "y", features=["x0"]).fingerprint()[0] == first


def test_nulls_are_named_with_file_row_group_and_row(tmp_path):
    ages = pa.array([1.0] * 9 + [None])
    path = write_parquet(
        pa.table({"age": ages, "y": [0, 1] * 5}), tmp_path / "x.parquet", row_group_size=4
    )
    assert refused(path, "y") == (
        f'{path}, row group 2, row 1: column "age" is null. '
        "Use rows without nulls, or fill them (pyarrow.compute.fill_null)."
    )
    assert f'{path}, row group 2, row 1: column "age" is null' in refused(
        path, "age", features=["y"]
    )


def test_an_unknown_label_in_a_file_is_named(tmp_path):
    path = write_parquet(table(matrix("int8")), tmp_path / "x.parquet", row_group_size=4)
    source = open_source(path, "y")
    with pytest.raises(DataError) as caught:
        source.scan_labels(Classes("int64", (0, 1)))
    assert f'{path}, row group 0, row 2: column "y" is 2, none of the 2 classes (0, 1).' in str(
        caught.value
    )


def test_a_file_that_is_missing_empty_or_of_another_kind_is_named(tmp_path):
    path = tmp_path / "x.parquet"
    assert refused(path, "y") == f"{path}: there is no such file."
    assert refused(str(tmp_path / "*.pq"), "y") == f"{tmp_path / '*.pq'}: no file matches."
    assert refused(tmp_path, "y") == f"{tmp_path}: the folder holds no files."
    assert refused([], "y") == "no files were given; name at least one."
    path.write_text("id,name")
    assert f"{path}: it is neither Parquet, Arrow IPC, CSV, JSON lines nor NumPy's" in refused(
        path, "y"
    )
    path.with_suffix(".csv").write_text("id,name")
    assert "x.csv: there are no rows." in refused(path.with_suffix(".csv"), "y")


@pytest.mark.parametrize("write", [write_parquet, write_ipc])
def test_a_truncated_file_is_named(tmp_path, write):
    path = write(table(matrix("float32")), tmp_path / "x")
    path.write_bytes(path.read_bytes()[:-20])
    got = refused(path, "y")
    assert got.startswith(f"{path}: it is not a whole ")
    assert "\n" not in got


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path):
    X = np.arange(20000, dtype=np.float32).reshape(-1, 2)
    whole = pa.table({"v": pa.array(X[:, 0]), "y": np.arange(len(X)) % 2})
    path = write_parquet(whole, tmp_path / "x", compression="none", use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    damaged[20000] ^= 1
    path.write_bytes(damaged)
    assert f"{path}, row group 0: it cannot be decoded" in refused(path, "y")


@pytest.mark.parametrize("write", [write_parquet, write_ipc])
def test_files_without_rows_or_features_are_refused(tmp_path, write):
    path = write(table(matrix("int8"), "list")[:0], tmp_path / "x")
    assert refused(path, "y") == f"{path}: there are no rows."
    write(table(matrix("int8")).select(["y"]), path)
    assert f"{path}: there are no features" in refused(path, "y")


def test_an_empty_file_among_others_does_no_harm(tmp_path):
    X = matrix("int8")
    write_parquet(table(X, "list")[:0], tmp_path / "a")
    write_parquet(table(X, "list"), tmp_path / "b")
    got, _ = read(open_source(tmp_path, "y"))
    assert_array_equal(got, X)


def test_columns_that_one_file_lacks_or_types_otherwise_are_named(tmp_path):
    write_parquet(table(matrix("float32")), tmp_path / "a")
    write_parquet(table(matrix("float32")).drop_columns("x1"), tmp_path / "b")
    assert f'{tmp_path / "b"}: there is no column "x1"' in refused(tmp_path, "y")
    write_parquet(table(matrix("float64")), tmp_path / "b")
    assert f'{tmp_path / "b"}: column "x0" is of type double, but float' in refused(tmp_path, "y")


def test_lists_of_another_length_in_another_file_are_named(tmp_path):
    write_parquet(table(matrix("int8"), "list"), tmp_path / "a")
    write_parquet(table(matrix("int8", width=4), "list"), tmp_path / "b")
    want = f'{tmp_path / "b"}, row group 0, row 0: column "v" holds a list of 4 numbers, but of 3'
    assert want in refused(tmp_path, "y")


def test_two_columns_of_one_name_are_refused(tmp_path):
    columns = [pa.array([1.0, 2.0]), pa.array([1.0, 2.0]), pa.array([0, 1])]
    path = write_parquet(pa.Table.from_arrays(columns, ["a", "a", "y"]), tmp_path / "x")
    assert '2 columns are called "a"; rename all but one.' in refused(path, "y")


def test_the_target_of_files_is_a_name(tmp_path):
    path = write_parquet(table(matrix("int8")), tmp_path / "x")
    assert "the target of files is the name of a column, not an array" in refused(path, Y)


def test_a_file_that_changed_during_the_run_is_named(tmp_path):
    path = write_parquet(table(matrix("int8")), tmp_path / "x")
    source = open_source(path, "y")
    source.scan_labels()
    write_parquet(table(matrix("float64")), path)
    with pytest.raises(DataError, match="x: the file changed during the run"):
        list(source.chunks(THREE))
    path.unlink()
    with pytest.raises(DataError, match="x: the file cannot be opened: No such file"):
        list(source.chunks(THREE))


def test_feather_files_are_arrow_files(tmp_path):
    X = matrix("float32")
    for compression in ("lz4", "uncompressed"):
        pa.feather.write_feather(table(X), str(tmp_path / "x"), compression)
        got, _ = read(open_source(tmp_path / "x", "y"))
        assert_array_equal(got, X)
