"""Windows hold every row once, whatever the cuts; the thread that fills them stops when told to."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from contextlib import closing
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.read_plan import ReadPlan
from fastsoftmax.data.loading.shuffle import ShufflePlan, held_out, piece_order
from fastsoftmax.data.loading.shuffle_buffer import PagePool
from fastsoftmax.data.open import open_source
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes
from tests.tables import matrix, mixed_order, table

ROWS = 101
THREE = Classes("int64", (0, 1, 2))


def rows_of(width=5, dtype="float32"):
    return matrix(dtype, ROWS, width)


def weighted(X, layout="scalars"):
    return table(X, layout, w=np.arange(ROWS) / 2.0)


def sources(path):
    """Return the same rows as every kind of source, cut in many ways."""
    X = rows_of()
    whole = weighted(X)
    pq.write_table(whole, path, row_group_size=13)
    cut = pa.concat_tables([whole.slice(0, 40), whole.slice(40)])
    return {
        "parquet": open_source(path, "y", weight="w"),
        "small chunks": open_source(path, "y", weight="w", memory=1000),
        "table": open_source(cut, "y", weight="w"),
        "stream": open_source(lambda: whole.to_reader(9), "y", weight="w"),
        "reader": open_source(whole.to_reader(9), "y", weight="w"),
        "matrix": open_source(X, np.arange(ROWS) % 3, weight=np.arange(ROWS) / 2.0),
    }


KINDS = ["parquet", "small chunks", "table", "stream", "reader", "matrix"]


def assert_holds(windows, X, order):
    """Check that the windows, joined, are the rows of X in this order."""
    joined = [np.concatenate([part.values for part in w.parts], axis=1) for w in windows]
    assert_array_equal(np.concatenate(joined), X[order])
    assert_array_equal(np.concatenate([w.labels for w in windows]), order % 3)
    assert_array_equal(np.concatenate([w.weights for w in windows]), order / 2.0)
    assert_array_equal([w.number(i) for w in windows for i in range(w.rows)], order)
    assert [w.index for w in windows] == list(range(len(windows)))
    assert [w.last for w in windows] == [False] * (len(windows) - 1) + [True]


@pytest.mark.parametrize("size", [1, 7, 40, 100, 101, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_windows_hold_all_rows_whatever_the_cuts(tmp_path, kind, size):
    source = sources(tmp_path / "x")[kind]
    if not source.one_pass:
        source.scan_labels()
    with closing(Loader(source, THREE, ShufflePlan("off", size))) as feed:
        windows = list(feed.epoch(0, 0))
    assert_holds(windows, rows_of(), np.arange(ROWS))
    assert {w.rows for w in windows[:-1]} <= {size}


@pytest.mark.parametrize("size", [20, 101])
@pytest.mark.parametrize("kind", ["parquet", "table", "stream", "matrix"])
def test_pieces_are_read_in_the_order_of_the_epoch(tmp_path, kind, size):
    source = sources(tmp_path / "x")[kind]
    source.scan_labels()
    plan = ShufflePlan("window" if size < ROWS else "all", size)
    starts = np.cumsum([0, *source.pieces])
    feed = Loader(source, THREE, plan)
    for epoch in range(3):
        pieces = piece_order(plan, source.pieces, 5, epoch)
        order = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in pieces])
        assert_holds(list(feed.epoch(5, epoch)), rows_of(), order)
    feed.close()


@pytest.mark.parametrize("layout", ["scalars", "fixed", "mixed", "list"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float64", "bool"])
def test_parts_keep_their_dtype_and_are_row_major(tmp_path, layout, dtype):
    X = rows_of(dtype=dtype)
    pq.write_table(weighted(X, layout), tmp_path / "x", row_group_size=30)
    for size in (20, ROWS):
        feed = Loader(open_source(tmp_path / "x", "y", weight="w"), THREE, ShufflePlan("off", size))
        windows = list(feed.epoch(0, 0))
        assert_holds(windows, mixed_order(X) if layout == "mixed" else X, np.arange(ROWS))
        for part in windows[0].parts:
            assert part.is_row_major
            assert part.dtype == (np.uint8 if dtype == "bool" else dtype)


def test_places_and_held_out_rows_follow_the_rows(tmp_path):
    source = sources(tmp_path / "x")["parquet"]
    mask = held_out(9, 0.3, 0, ROWS)
    for window in Loader(source, THREE, ShufflePlan("window", 20, held=(9, 0.3))).epoch(1, 1):
        numbers = [window.number(row) for row in range(window.rows)]
        assert_array_equal(window.held, mask[numbers])
        for row in range(window.rows):
            group, within = divmod(int(numbers[row]), 13)
            assert window.place(row).endswith(f"x, row group {group}, row {within}")
        with pytest.raises(IndexError):
            window.place(window.rows)


def test_a_matrix_is_used_where_it_lies():
    X, y = rows_of(), np.arange(ROWS) % 3
    (window,) = Loader(open_source(X, y), THREE, ShufflePlan("all", ROWS)).epoch(0, 0)
    assert np.shares_memory(window.parts[0].values, X)
    assert window.weights is None


def test_a_column_major_matrix_is_copied_row_by_row():
    X, y = np.asfortranarray(rows_of(200)), np.arange(ROWS) % 3
    for size in (ROWS, 30):
        windows = list(Loader(open_source(X, y), THREE, ShufflePlan("off", size)).epoch(0, 0))
        assert all(window.parts[0].values.flags.c_contiguous for window in windows)
        assert_array_equal(np.concatenate([window.parts[0].values for window in windows]), X)


def test_a_window_of_all_rows_is_kept_for_every_epoch(tmp_path):
    source = sources(tmp_path / "x")["parquet"]
    feed = Loader(source, THREE, ShufflePlan("all", ROWS), ReadPlan(keep="memory"))
    (first,) = feed.epoch(0, 0)
    (second,) = feed.epoch(0, 1)
    assert first is second


def threads():
    return [thread for thread in threading.enumerate() if thread is not threading.main_thread()]


def wait_for(condition):
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    assert condition()


def endless(decoded):
    """Return a reader that never ends and notes how many batches were asked for."""
    batch = table(rows_of()).to_batches()[0]

    def batches():
        while True:
            decoded.append(1)
            yield batch

    return pa.RecordBatchReader.from_batches(batch.schema, batches())


def test_two_windows_are_alive_and_no_more():
    decoded: list[int] = []
    with closing(
        Loader(open_source(endless(decoded), "y"), THREE, ShufflePlan("window", ROWS))
    ) as feed:
        windows = feed.epoch(0, 0)
        for seen in range(1, 5):
            next(windows)
            wait_for(lambda seen=seen: len(decoded) >= seen + 1)
            time.sleep(0.02)
            # One batch fills a window; one more is decoded before it is known not to be the last.
            assert len(decoded) <= seen + 2


def test_a_window_is_let_go_when_the_next_one_is_asked_for():
    with closing(Loader(open_source(endless([]), "y"), THREE, ShufflePlan("window", ROWS))) as feed:
        windows = feed.epoch(0, 0)
        window = next(windows)
        seen = weakref.ref(window)
        del window
        next(windows)
        gc.collect()
        assert seen() is None


@pytest.mark.parametrize("end", ["close", "abandon", "feed", "next epoch"])
def test_the_thread_stops_when_nobody_wants_more(end):
    before = threads()
    feed = Loader(open_source(endless([]), "y"), THREE, ShufflePlan("window", 4 * ROWS))
    windows = feed.epoch(0, 0)
    next(windows)
    assert len(threads()) == len(before) + 1
    if end == "close":
        windows.close()
    elif end == "feed":
        feed.close()
    elif end == "next epoch":
        with pytest.raises(DataError, match="can be read once"):
            next(feed.epoch(0, 1))
    del windows
    gc.collect()
    wait_for(lambda: len(threads()) == len(before))


def test_the_thread_stops_in_the_midst_of_a_window():
    before = threads()
    feed = Loader(open_source(endless([]), "y"), THREE, ShufflePlan("window", 2000))
    windows = feed.epoch(0, 0)
    next(windows)
    started = time.monotonic()
    windows.close()
    assert time.monotonic() - started < 1.0
    assert threads() == before


def test_what_goes_wrong_in_the_thread_is_raised_as_it_is(tmp_path):
    whole = table(rows_of()).set_column(5, "y", pa.array([0, 1] * 40 + [None] * 21))
    pq.write_table(whole, tmp_path / "x", row_group_size=13)
    windows = Loader(open_source(tmp_path / "x", "y"), THREE, ShufflePlan("off", 20)).epoch(0, 0)
    assert len(list(islice(windows, 3))) == 3
    with pytest.raises(DataError, match='row group 6, row 2: column "y" is null'):
        next(windows)


@pytest.mark.parametrize("size", [10, 40, ROWS, 1000])
@pytest.mark.parametrize("later", [0, 50, ROWS + 40])
def test_a_stream_of_another_length_in_a_later_epoch_is_an_error(size, later):
    whole = pa.concat_tables([table(rows_of())] * 2)
    rows = [ROWS]
    source = open_source(lambda: whole.slice(0, rows[0]).to_reader(9), "y")
    source.scan_labels()
    rows[0] = later
    feed = Loader(source, THREE, ShufflePlan("off", size))
    with pytest.raises(DataError, match=f"101 rows at the first pass and {later} at a later one"):
        list(feed.epoch(0, 0))
    feed.close()


def test_a_reader_without_rows_is_an_error():
    reader = table(rows_of())[:0].to_reader()
    with pytest.raises(DataError, match="there are no rows"):
        list(Loader(open_source(reader, "y"), THREE, ShufflePlan("window", 10)).epoch(0, 0))


def test_memory_of_windows_is_used_again_once_nobody_uses_them():
    pages, float32 = PagePool(), np.dtype(np.float32)
    first = pages.array((2**20, 2), float32)
    where, view = first.ctypes.data, first[7:, 1]
    view[:] = 3
    del first
    second = pages.array((2**20, 2), float32)
    second[:] = 0
    assert (view == 3).all()  # a view keeps the memory
    del view
    third = pages.array((2**19, 2), float32)
    assert third.ctypes.data == where
    assert third.shape == (2**19, 2)


def test_small_windows_are_arrays_like_others():
    got = PagePool().array((3, 2), np.dtype(np.uint8))
    assert (got.shape, got.dtype, got.base) == ((3, 2), np.uint8, None)
