"""Columns whose pages are too many are read in groups: the same rows, and no more memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastsoftmax.data.formats import wide_columns
from fastsoftmax.data.formats.wide_columns import NoRoom, joined, side_by_side
from fastsoftmax.data.open import open_source

ROWS, COLUMNS = 3000, 120
SMALL, LARGE = 3 * 10**6, 10**9


@pytest.fixture
def mixed(tmp_path):
    rng = np.random.default_rng(0)
    scalars = {f"x{j}": rng.random(ROWS).astype(np.float32) for j in range(COLUMNS)}
    lists = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(4 * ROWS)), 4)
    words = pa.array(rng.choice(["red", "green"], ROWS)).dictionary_encode()
    holes = pa.array(np.arange(ROWS), mask=np.arange(ROWS) % 7 == 0)
    some = {"list": lists, "hue": words, "holes": holes, "y": rng.integers(0, 3, ROWS)}
    path = tmp_path / "mixed.parquet"
    pq.write_table(pa.table({**scalars, **some}), path, row_group_size=ROWS // 2)
    return path


def rows_of(path, memory):
    names = [f"x{j}" for j in range(COLUMNS)]
    source = open_source(path, "y", features=["list", *names], keep=["hue", "holes"], memory=memory)
    scan = source.scan_labels()
    chunks = list(source.chunks(scan.classes))
    parts = zip(*(chunk.parts for chunk in chunks), strict=True)
    features = np.concatenate(
        [np.concatenate([part.matrix() for part in column]) for column in parts], axis=1
    )
    kept = pa.Table.from_batches([chunk.kept for chunk in chunks]).to_pydict()
    return features, np.concatenate([chunk.labels for chunk in chunks]), kept


def count_joined(monkeypatch):
    """Return a list that grows by the number of groups whenever columns are joined."""
    seen = []

    def counted(groups, batch_rows):
        seen.append(len(groups))
        return joined(groups, batch_rows)

    monkeypatch.setattr("fastsoftmax.data.formats.parquet.joined", counted)
    return seen


def test_columns_read_in_groups_give_the_same_rows(mixed, monkeypatch):
    seen = count_joined(monkeypatch)
    want = rows_of(mixed, LARGE)
    assert not seen
    got = rows_of(mixed, SMALL)
    assert len(seen) == 2
    assert min(seen) > 2
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])
    assert got[2] == want[2]


def counted_rows(path, memory, monkeypatch):
    """Return the groups that were read side by side, and the rows (n, COLUMNS) that came of it."""
    seen = []

    def counted(groups):
        seen.append(len(groups))
        return side_by_side(groups)

    monkeypatch.setattr("fastsoftmax.data.formats.parquet.side_by_side", counted)
    source = open_source(path, "y", features=[f"x{j}" for j in range(COLUMNS)], memory=memory)
    chunks = list(source.chunks(source.scan_labels().classes))
    return seen, np.concatenate([chunk.parts[0].matrix() for chunk in chunks])


def test_a_row_group_that_fits_decoded_is_joined_in_memory(mixed, monkeypatch):
    joins = count_joined(monkeypatch)
    none, want = counted_rows(mixed, LARGE, monkeypatch)
    some, got = counted_rows(mixed, 6 * 10**6, monkeypatch)
    assert not none
    assert not joins
    assert len(some) == 2  # one for each row group
    assert min(some) > 2
    np.testing.assert_array_equal(got, want)


def test_joined_in_memory_columns_of_different_lengths_are_refused():
    for groups in ([batches(2), batches(3, name="b")], [batches(2, 2), batches(4, name="b")]):
        with pytest.raises(pa.ArrowInvalid, match="different numbers of rows"):
            next(side_by_side(groups))


def test_a_row_group_joined_in_memory_takes_its_share_of_it(tmp_path):
    column = pa.array(np.random.default_rng(0).random(2_000))
    path, memory = tmp_path / "wide.parquet", 24 * 10**6
    named = {f"x{j}": column for j in range(300)}
    pq.write_table(pa.table(named), path, compression="none", use_dictionary=False)
    before, held = pa.total_allocated_bytes(), []
    for chunk in open_source(path, memory=memory).chunks(None):
        held.append(pa.total_allocated_bytes() - before)
        del chunk
    # Up to version 21 Arrow asks for nearly twice the room that it then writes to.
    most = 0.3 if int(pa.__version__.split(".")[0]) > 21 else 0.4
    assert 0.15 * memory < max(held) < most * memory


def test_columns_are_read_at_once_where_no_temporary_file_can_be(mixed, monkeypatch, caplog):
    want = rows_of(mixed, LARGE)
    monkeypatch.setattr(wide_columns, "cache_folder", lambda: mixed.parent / "nowhere")
    got = rows_of(mixed, SMALL)
    np.testing.assert_array_equal(got[0], want[0])
    assert "there is no room for a temporary file" in caplog.text


def test_a_full_disk_is_told_before_any_row(monkeypatch):
    class Full:
        def __init__(self, *_):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(wide_columns.pa.ipc, "new_stream", Full)
    with pytest.raises(NoRoom, match="No space left"):
        next(joined([batches(3)], 2))


def batches(*sizes, name="a"):
    return iter([pa.record_batch({name: np.arange(size)}) for size in sizes])


def test_groups_may_be_cut_anywhere():
    got = pa.Table.from_batches(joined([batches(2, 5), batches(4, 3, name="b")], 100))
    assert got.column_names == ["a", "b"]
    assert got["a"].to_pylist() == [0, 1, 0, 1, 2, 3, 4]
    assert got["b"].to_pylist() == [0, 1, 2, 3, 0, 1, 2]


def test_groups_of_different_lengths_are_refused():
    with pytest.raises(pa.ArrowInvalid, match="different numbers of rows"):
        list(joined([batches(2, 2), batches(2, name="b")], 100))


def test_pages_of_many_columns_are_not_held_at_once(tmp_path):
    column = pa.array(np.random.default_rng(0).random(20_000))
    path, memory = tmp_path / "wide.parquet", 8 * 10**6
    named = {f"x{j}": column for j in range(300)}
    pq.write_table(pa.table(named), path, compression="none", use_dictionary=False)
    before, held = pa.total_allocated_bytes(), []
    for chunk in open_source(path, memory=memory).chunks(None):
        held.append(pa.total_allocated_bytes() - before)
        del chunk
    assert max(held) < 0.3 * memory  # the pages are 48 MB


def test_what_lists_the_row_groups_is_read_once_and_taken_off_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "many.parquet"
    rng = np.random.default_rng(0)
    table = pa.table({**{f"x{j}": rng.random(ROWS) for j in range(50)}, "y": np.arange(ROWS) % 3})
    pq.write_table(table, path, row_group_size=ROWS // 20)
    read = []
    real = pq.read_metadata
    monkeypatch.setattr(pq, "read_metadata", lambda file: read.append(file) or real(file))
    source = open_source(path, "y", memory=LARGE)
    scan = source.scan_labels()
    assert sum(chunk.rows for chunk in source.chunks(scan.classes)) == ROWS
    assert len(read) == 1
    assert source.index_bytes == 2**10 * 51 * 20
    assert source.room(10**7) == 10**7 - source.index_bytes
    assert source.room(10**6) == 500_000
