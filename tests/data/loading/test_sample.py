"""A sample shows rows from all over the data, the same ones however they are read."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data import table
from fastsoftmax.data.formats.files import FileBatches
from fastsoftmax.data.loading import sample
from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.read_plan import ReadPlan
from fastsoftmax.data.loading.sample import draw
from fastsoftmax.data.loading.shuffle import ShufflePlan, held_out
from fastsoftmax.data.open import open_source
from fastsoftmax.data.preprocessing import NullPolicy
from fastsoftmax.labels import Classes

N, GROUP, WINDOW = 20_000, 500, 1000
TWENTY = Classes("int64", tuple(range(20)))


@pytest.fixture(scope="module")
def rows():
    """Rows that number themselves, sorted by class, with weights and a column of words."""
    number = np.arange(N)
    words = np.array(["a", "b", "c"])[number % 3]
    return pa.table({"x": number.astype(np.float64), "c": words, "y": number // 1000, "w": number})


@pytest.fixture(scope="module")
def path(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    pq.write_table(rows, path, row_group_size=GROUP)
    return path


def sampled(source, seed=0, count=200, readers=1, **plan):
    with closing(source), closing(loader(source, readers, **plan)) as rows:
        return rows.sample(seed, count)


def loader(source, readers=1, kind="window", window=WINDOW, held=None):
    plan = ShufflePlan(kind, window, rows=source.rows, held=held)
    return Loader(source, TWENTY, plan, ReadPlan(readers))


def numbers(window):
    return window.parts[0].matrix()[:, 0].astype(int)


@pytest.mark.parametrize(
    "pieces", [[1], [5, 1, 9], [1] * 50, [100] * 15, [100] * 40, [1000, 7] * 40]
)
def test_rows_drawn_are_there_once_and_as_many_as_asked_for(pieces):
    for count in (1, 10, 321, 10**6):
        for seed in range(3):
            draws = draw(pieces, seed, count)
            kept = sum(len(each.rows) for each in draws)
            assert min(count, sum(pieces)) * 0.9 <= kept <= min(count, sum(pieces))
            assert all(a.piece < b.piece for a, b in pairwise(draws))
            for each in draws:
                assert 0 <= each.rows[0] <= each.rows[-1] < pieces[each.piece]
                assert (np.diff(each.rows) > 0).all()


def test_all_rows_are_drawn_where_all_are_asked_for():
    for pieces in ([5, 1, 9], [1] * 50, [100] * 40):
        draws = draw(pieces, 3, sum(pieces))
        assert [len(each.rows) for each in draws] == pieces


def test_a_sample_of_sorted_rows_has_rows_of_every_class(path):
    window = sampled(open_source(str(path), "y", features=["x"]))
    assert_array_equal(np.unique(window.labels), np.arange(20))
    found = numbers(window)
    assert found.min() < 0.05 * N
    assert found.max() > 0.95 * N
    assert_array_equal(window.labels, found // 1000)
    assert window.place(3) == f"{path}, row group {found[3] // GROUP}, row {found[3] % GROUP}"


def test_one_long_piece_is_sampled_to_its_end(rows, tmp_path):
    pq.write_table(rows, tmp_path / "one.parquet")
    window = sampled(open_source(str(tmp_path / "one.parquet"), "y", features=["x"]))
    assert_array_equal(np.bincount(window.labels), np.full(20, 10))


def test_how_a_sample_is_read_leaves_no_mark_in_it(path, rows, monkeypatch):
    want = numbers(sampled(open_source(str(path), "y", features=["x"])))
    assert len(want) == 200
    parts = pa.Table.from_batches(rows.to_batches(max_chunksize=GROUP))
    others = [open_source(parts, "y", features=["x"])]
    monkeypatch.setattr(table, "MOST_ROWS", 70)
    others += [open_source(str(path), "y", features=["x"], memory=10**6)]
    for source in others:
        assert_array_equal(numbers(sampled(source, readers=3)), want)
    other = sampled(open_source(str(path), "y", features=["x"]), seed=1)
    assert not np.array_equal(numbers(other), want)


def test_a_sample_has_weights_categories_and_rows_held_out(path):
    source = open_source(str(path), "y", features=["x", "c"], categorical=["c"], weight="w")
    source.learn()
    window = sampled(source, held=(5, 0.25))
    found = numbers(window)
    assert_array_equal(window.weights, found)
    assert_array_equal(window.parts[1].matrix().argmax(axis=1), found % 3)
    assert_array_equal(window.held, held_out(5, 0.25, 0, N)[found])


def test_rows_dropped_for_nulls_weigh_nothing_in_a_sample(rows, tmp_path):
    x = [None if t % 4 == 0 else float(t) for t in range(N)]
    pq.write_table(pa.table({"x": x, "y": rows["y"]}), tmp_path / "x.parquet", row_group_size=GROUP)
    source = open_source(str(tmp_path / "x.parquet"), "y", null_policy=NullPolicy("drop"))
    source.learn()
    window = sampled(source)
    assert {*np.unique(window.weights)} == {0.0, 1.0}
    assert (numbers(window)[window.weights == 1] % 4 != 0).all()


def test_a_sample_takes_no_more_rows_than_a_window(path):
    assert sampled(open_source(str(path), "y", features=["x"]), count=10**6).rows == WINDOW


def test_a_sample_of_many_pieces_reads_few_of_their_rows(path, monkeypatch):
    read = []
    whole = FileBatches.read

    def counted(self, *arguments):
        for batch in whole(self, *arguments):
            read.append(batch.rows.num_rows)
            yield batch

    monkeypatch.setattr(FileBatches, "read", counted)
    monkeypatch.setattr(table, "MOST_ROWS", 64)
    assert sampled(open_source(str(path), "y", features=["x"])).rows == 200
    assert sum(read) < N / sample.READ_SHARE * 2


@pytest.mark.parametrize("kind", ["all", "full", "off"])
def test_windows_that_are_from_all_over_or_stay_in_order_give_no_sample(path, kind):
    assert sampled(open_source(str(path), "y", features=["x"]), kind=kind) is None
    assert sampled(open_source(str(path), "y", features=["x"]), window=N) is None


def test_a_reader_that_can_be_read_once_gives_no_sample(rows):
    assert sampled(open_source(rows.select(["x", "y"]).to_reader(), "y")) is None
