"""How rows are read leaves no mark: threads, what is kept, where; dealt rows are mixed."""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
from collections import namedtuple
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax import OptionError, SaveError
from fastsoftmax.data import table
from fastsoftmax.data.loading import cache, read_plan
from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.read_plan import ReadPlan, choose_reading
from fastsoftmax.data.loading.shuffle import ShufflePlan, bucket_sizes, buckets_of, held_out
from fastsoftmax.data.open import open_source
from fastsoftmax.labels import Classes
from fastsoftmax.options import Reading
from tests.tables import feature_columns

N, D, K = 5000, 12, 4
FOUR = Classes("int64", tuple(range(K)))
# Sorted rows in small windows, which many of these train on, deserve what is said of them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:rows are shuffled within:UserWarning", "ignore:after epoch:UserWarning"
)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 8, (N, D)).astype(np.uint8)
    y = np.sort((X[:, :K] + rng.integers(0, 4, (N, K))).argmax(axis=1))
    return X[np.argsort(y, kind="stable")], y, rng.random(N)


@pytest.fixture(scope="module")
def path(rows, tmp_path_factory):
    X, y, w = rows
    whole = pa.table({**feature_columns(X, "list"), "y": y, "w": w})
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    pq.write_table(whole, path, row_group_size=333)
    return path


def digest(path, folder, **options):
    settings = {"epochs": 3, "learning_rate": 1e-4, "weight": "w", "holdout": 0.1} | options
    fastsoftmax.train(path, "y", **settings).save(folder / "m")
    return hashlib.sha256((folder / "m").read_bytes()).hexdigest()


@pytest.mark.parametrize("shuffle", ["off", "window", "full"])
def test_how_rows_are_read_leaves_no_mark_in_the_model(path, tmp_path, shuffle, monkeypatch):
    plan = {"shuffle": shuffle, "shuffle_window": 1000}
    want = digest(path, tmp_path, cache="off", **plan)
    for options in (
        {"readers": 1},
        {"readers": 5, "threads": 1},
        {"cache": "memory"},
        {"cache": "disk"},
        {"cache_folder": str(tmp_path / "kept")},
        {"cache_folder": str(tmp_path / "kept")},
        {"memory": "20MB"},
    ):
        assert digest(path, tmp_path, **plan, **options) == want
    assert len(list((tmp_path / "kept").iterdir())) == 1
    monkeypatch.setattr(table, "MOST_ROWS", 70)
    monkeypatch.setattr("fastsoftmax.data.loading.prefetch.WAITING", 9)
    assert digest(path, tmp_path, **plan) == want


def test_later_epochs_do_not_read_the_source(path, monkeypatch, tmp_path):
    seen = []
    read = table.TableSource.chunks

    def counted(self, classes, order=None):
        for chunk in read(self, classes, order):
            seen.append(chunk.rows)
            yield chunk

    monkeypatch.setattr(table.TableSource, "chunks", counted)
    window = {"features": ["v"], "shuffle_window": 1000, "shuffle": "window"}
    for keep, passes in (("off", 3), ("memory", 1), ("disk", 1)):
        seen.clear()
        fastsoftmax.train(path, "y", epochs=3, learning_rate=1e-3, cache=keep, **window)
        assert sum(seen) == passes * N
    for shape in (window, {"features": ["v"]}):
        seen.clear()
        for _ in range(2):
            fastsoftmax.train(
                path, "y", epochs=2, learning_rate=1e-3, cache_folder=tmp_path / "kept", **shape
            )
        assert sum(seen) == N
        shutil.rmtree(tmp_path / "kept")


@pytest.mark.parametrize(("kind", "keep"), [
    ("window", "off"), ("window", "memory"), ("window", "disk"), ("window", "named"),
    ("full", "disk"), ("full", "named"),
])  # fmt: skip
def test_an_epoch_given_up_leaves_no_rows_to_the_next(path, tmp_path, kind, keep):
    plan = ShufflePlan(kind, 1000, buckets=9 if kind == "full" else 0, rows=N)
    named = keep == "named"
    reading = ReadPlan(keep="disk" if named else keep, folder=tmp_path, named=named)
    source = open_source(path, "y")
    source.scan_labels()
    with closing(Loader(source, FOUR, plan, reading)) as fed:
        for rows_seen in (1, 2500):
            read = 0
            for window in fed.epoch(0, 0):
                read += window.rows
                if read >= rows_seen:
                    break
            assert rows_seen <= read < N
        for epoch in range(3):
            assert sum(window.rows for window in fed.epoch(0, epoch)) == N


def test_a_named_file_is_of_one_set_of_rows(path, tmp_path):
    given = {"epochs": 2, "features": ["v"], "cache_folder": tmp_path, "shuffle_window": 900}
    for count, more in enumerate(
        (
            {"shuffle": "window"},
            {"shuffle": "window", "holdout": 0.5},
            {"shuffle": "window", "holdout": 0.5, "seed": 1},
            {"shuffle": "window", "classes": [9, 0, 1, 2, 3]},
            {"shuffle": "window", "weight": "w"},
            {"shuffle": "full"},
            {"shuffle": "full", "shuffle_window": 700},
        )
    ):
        fastsoftmax.train(path, "y", **given | more)
        assert len(list(tmp_path.iterdir())) == count + 1
    fastsoftmax.train(path, "y", **given | {"epochs": 1, "seed": 3, "shuffle": "window"})
    assert len(list(tmp_path.iterdir())) == count + 1


def test_a_named_file_is_of_one_way_with_nulls(tmp_path):
    values = pa.array([1.0, None, 3.0, 8.0] * 50)
    pq.write_table(pa.table({"x": values, "y": [0, 1] * 100}), tmp_path / "x.parquet")
    given = {"epochs": 1, "shuffle": "window", "shuffle_window": 50, "learning_rate": 0.01}
    for nulls in ("zero", "mean", "drop"):
        want = fastsoftmax.train(tmp_path / "x.parquet", "y", nulls=nulls, **given)
        kept = given | {"cache_folder": tmp_path / "kept"}
        for _ in range(2):
            got = fastsoftmax.train(tmp_path / "x.parquet", "y", nulls=nulls, **kept)
            assert_array_equal(got.coef, want.coef)
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_a_full_disk_costs_the_cache_and_not_the_run(path, tmp_path, monkeypatch, caplog):
    want = digest(path, tmp_path, shuffle="window", shuffle_window=1000)
    add, added = cache.DiskCache.add, []

    def fails_at_last(self, chunk):
        added.append(chunk.rows)
        if len(added) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return add(self, chunk)

    monkeypatch.setattr(cache.DiskCache, "add", fails_at_last)
    with caplog.at_level(logging.WARNING, "fastsoftmax"):
        got = digest(path, tmp_path, shuffle="window", shuffle_window=1000, cache="disk")
    assert got == want
    assert "decoded rows cannot be kept" in caplog.text


def test_sorted_rows_are_not_dealt_where_there_is_no_room(path, tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(read_plan.shutil, "disk_usage", lambda _: usage(10))
    given = {"epochs": 1, "features": ["v"], "shuffle_window": 1000}
    with pytest.warns(UserWarning, match="has no room to deal them anew"):
        model = fastsoftmax.train(path, "y", **given)
    assert model.record["buckets"] is None

    def fails(self, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache.DiskCache, "add", fails)
    with pytest.raises(SaveError, match=r"name another folder with cache_folder=.*No space left"):
        fastsoftmax.train(path, "y", **given, shuffle="full")


def test_nothing_is_kept_where_space_is_short(path, monkeypatch):
    source = open_source(path, "y", features=["v"])
    plan = ShufflePlan("window", 100, rows=N, size=40 * N)
    usage = namedtuple("usage", "free")
    for free, keep in ((40 * N * 2, "disk"), (40 * N, "off")):
        monkeypatch.setattr(read_plan.shutil, "disk_usage", lambda _, free=free: usage(free))
        assert choose_reading(source, plan, Reading(), rereads=True).keep == keep


def test_rows_that_do_not_fit_are_not_kept_in_memory(tmp_path):
    X = np.zeros((40_000, 100), np.float64)
    pq.write_table(
        pa.table({**feature_columns(X, "fixed"), "y": np.arange(40_000) % 2}), tmp_path / "x"
    )
    with pytest.raises(OptionError, match="cache=memory keeps all rows decoded"):
        fastsoftmax.train(tmp_path / "x", "y", memory="10MB", cache="memory")


def test_every_row_is_dealt_to_one_bucket(path, rows):
    X, y, w = rows
    seed, held = 7, (7, 0.2)
    plan = ShufflePlan("full", 700, buckets=9, rows=N, held=held)
    source = open_source(path, "y", weight="w")
    source.scan_labels()
    with_readers = Loader(source, FOUR, plan, ReadPlan(readers=3))
    sizes = bucket_sizes(seed, 9, N)
    assert sizes.max() <= 700
    for epoch in range(2):
        numbers = []
        for window in with_readers.epoch(seed, epoch):
            here = np.array([window.number(row) for row in range(window.rows)])
            assert_array_equal(window.parts[0].values, X[here])
            assert_array_equal(window.labels, y[here])
            assert_array_equal(window.weights, w[here])
            assert_array_equal(window.held, held_out(*held, 0, N)[here])
            assert len(set(buckets_of(seed, 9, 0, N)[here])) == 1
            group, row = divmod(int(here[-1]), 333)
            assert window.place(window.rows - 1).endswith(f"row group {group}, row {row}")
            numbers.append(here)
        assert [len(here) for here in numbers] != sizes.tolist()  # buckets come in an order
        assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(N))
    with_readers.close()


def test_sorted_rows_are_dealt_unless_they_fit(path, caplog):
    with caplog.at_level(logging.INFO, "fastsoftmax"):
        model = fastsoftmax.train(path, "y", epochs=2, features=["v"], shuffle_window=1000)
    assert "rows are sorted" in caplog.text
    assert model.history[-1]["mixing"] > 0.95


def test_windows_of_sorted_rows_are_warned_about(path):
    with pytest.warns(UserWarning, match="unlike the whole"):
        model = fastsoftmax.train(
            path, "y", epochs=2, features=["v"], shuffle_window=500, shuffle="window"
        )
    assert model.history[-1]["mixing"] < 0.8


def test_mixed_rows_are_not_dealt(rows, tmp_path):
    X, y, _ = rows
    order = np.random.default_rng(1).permutation(N)
    mixed = pa.table({**feature_columns(X[order], "list"), "y": y[order]})
    pq.write_table(mixed, tmp_path / "x", row_group_size=333)
    model = fastsoftmax.train(tmp_path / "x", "y", epochs=1, shuffle_window=1000)
    assert model.history[-1]["mixing"] > 0.95


def test_sorted_rows_that_are_dealt_train_as_well_as_rows_in_memory(path, rows):
    X, y, _ = rows
    options = {"epochs": 5, "learning_rate": 1e-3}
    report = fastsoftmax.evaluate(fastsoftmax.train(X, y, **options), X, y)
    dealt = fastsoftmax.train(path, "y", features=["v"], shuffle_window=1000, **options)
    windowed = fastsoftmax.train(
        path, "y", features=["v"], shuffle_window=1000, shuffle="window", **options
    )
    assert abs(fastsoftmax.evaluate(dealt, X, y).log_loss / report.log_loss - 1) < 0.01
    assert fastsoftmax.evaluate(windowed, X, y).log_loss / report.log_loss > 1.02
