"""A first epoch steps over the rows of a file as they come in, in an order of its own."""

from __future__ import annotations

import hashlib
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax import TrainingInterrupted
from fastsoftmax.data.formats.files import FileBatches
from fastsoftmax.data.loading import shuffle
from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.read_plan import choose_reading
from fastsoftmax.data.loading.shuffle import make_plan
from fastsoftmax.data.open import open_source
from fastsoftmax.labels import Classes
from fastsoftmax.options import Reading, Shuffling
from fastsoftmax.training import callbacks

N, GROUP, STEP, K = 30_000, 700, 4096, 4
FOUR = Classes("int64", tuple(range(K)))


@pytest.fixture(autouse=True)
def small_data_are_streamed(monkeypatch):
    monkeypatch.setattr(shuffle, "STREAMED_BYTES", 0)
    monkeypatch.setattr(shuffle, "LEAST_STREAMED", STEP)
    monkeypatch.setattr(callbacks, "REPORT_SECONDS", 0.0)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(N, 12)).astype(np.float32)
    X[:, 0] = np.arange(N) / N
    return X, (X[:, :K] + rng.gumbel(size=(N, K))).argmax(axis=1)


def as_parquet(rows, path):
    X, y = rows
    named = {f"x{j}": X[:, j] for j in range(X.shape[1])}
    pq.write_table(pa.table({**named, "y": y, "w": 1.0 + y}), path, row_group_size=GROUP)
    return str(path)


@pytest.fixture(scope="module")
def path(rows, tmp_path_factory):
    return as_parquet(rows, tmp_path_factory.mktemp("data") / "rows.parquet")


def opened(path, **reading):
    """Return a source, and what loads it as a run by hand would."""
    source = open_source(path, "y", weight="w")
    segments = source.scan_labels().segments
    plan = make_plan(source, Shuffling(), 10**9, segments, streams=True)
    read = choose_reading(source, plan, Reading(**reading), rereads=True)
    return source, Loader(source, FOUR, plan, read)


def numbers(window):
    return np.rint(window.parts[0].matrix()[:, 0] * N).astype(int)


@pytest.mark.parametrize("reading", [{}, {"cache": "off"}, {"readers": 3}])
def test_each_row_is_in_one_window_of_the_first_epoch_and_in_the_one_of_later_ones(path, reading):
    source, loader = opened(path, **reading)
    with closing(source), closing(loader):
        for first in (0, 3):
            windows = [
                (w.index, w.rows, w.last, numbers(w), w.place(0)) for w in loader.epoch(9, 0, first)
            ]
            assert [w[0] for w in windows] == list(range(first, -(-N // STEP)))
            assert [w[1] for w in windows[:-1]] == [STEP] * (len(windows) - 1)
            assert [w[2] for w in windows[:-1]] == [False] * (len(windows) - 1)
            assert windows[-1][2]
            read = np.concatenate([w[3] for w in windows])
            if first == 0:
                want = read
                assert_array_equal(np.sort(read), np.arange(N))
                assert not np.array_equal(read, np.arange(N))
            assert_array_equal(read, want[first * STEP :])
            for window in windows:
                group, row = divmod(window[3][0], GROUP)
                assert window[4].endswith(f"row group {group}, row {row}")
        (whole,) = loader.epoch(9, 1)
        assert_array_equal(numbers(whole), want)
        (again,) = loader.all(9)
        assert_array_equal(numbers(again), want)


def test_a_window_is_there_before_the_file_is_read_to_its_end(path, monkeypatch):
    read = []
    whole = FileBatches.read

    def counted(self, *arguments):
        for batch in whole(self, *arguments):
            read.append(batch.rows.num_rows)
            yield batch

    source, loader = opened(path, cache="off")
    monkeypatch.setattr(FileBatches, "read", counted)
    with closing(source), closing(loader):
        next(loader.epoch(0, 0))
        assert sum(read) < N


def test_rows_are_read_once_for_all_epochs(path, monkeypatch):
    read = []
    whole = FileBatches.read

    def counted(self, names, order, rows):
        for batch in whole(self, names, order, rows):
            read.append((batch.rows.num_rows, len(names)))
            yield batch

    monkeypatch.setattr(FileBatches, "read", counted)
    fastsoftmax.train(path, "y", learning_rate=0.01, epochs=3, features=["x0", "x1"])
    assert sum(rows for rows, names in read if names > 1) == N


def digest(path, folder, **options):
    told = {"epochs": 2, "learning_rate": 0.01, "weight": "w"} | options
    fastsoftmax.train(path, "y", **told).save(folder / "m")
    return hashlib.sha256((folder / "m").read_bytes()).hexdigest()


@pytest.mark.parametrize("common", [{}, {"epochs": 1}, {"holdout": 0.2}])
def test_how_rows_are_read_leaves_no_mark_in_the_model(path, tmp_path, common):
    want = digest(path, tmp_path, **common)
    for options in (
        {"readers": 3, "threads": 1},
        {"cache": "off"},
        {"cache": "disk"},
        {"cache_folder": str(tmp_path / "kept")},
        {"cache_folder": str(tmp_path / "kept")},
        {"memory": "50MB"},
    ):
        assert digest(path, tmp_path, **common, **options) == want


def test_rows_that_go_by_in_small_windows_teach_as_much(rows, path):
    X, y = rows
    told = {"learning_rate": 0.01, "epochs": 3}
    here, there = fastsoftmax.train(path, "y", features=[f"x{j}" for j in range(12)], **told), (
        fastsoftmax.train(X, y, **told)
    )  # fmt: skip
    losses = [model.history[-1]["log_loss"] for model in (here, there)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert not np.array_equal(here.coef, there.coef)


def plan_of(data, target, **options):
    source = open_source(data, target)
    segments = source.scan_labels().segments
    shuffling = Shuffling(**options)
    return make_plan(source, shuffling, 10**9, segments, streams=True)


def test_sorted_rows_rows_in_memory_and_windows_asked_for_wait_for_all(rows, path, tmp_path):
    X, y = rows
    assert plan_of(path, "y").first == STEP
    order = np.argsort(y, kind="stable")
    ordered = as_parquet((X[order], y[order]), tmp_path / "sorted.parquet")
    plans = [
        plan_of(ordered, "y"),
        plan_of(X, y),
        plan_of(pq.read_table(path), "y"),
        plan_of(path, "y", shuffle_window=N),
        plan_of(path, "y", shuffle="off"),
    ]
    assert [plan.first for plan in plans] == [0] * 5


def test_a_run_that_chooses_on_its_rows_waits_for_all(path, monkeypatch):
    seen = []
    whole = Loader.epoch

    def noted(self, seed, epoch, first=0):
        for window in whole(self, seed, epoch, first):
            seen.append(window.rows)
            yield window

    monkeypatch.setattr(Loader, "epoch", noted)
    fastsoftmax.train(path, "y", epochs=1, holdout=0.1)
    assert seen == [N]


class StopAfter:
    def __init__(self, reports):
        self.left = reports

    def __call__(self, progress):
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("options", [{"epochs": 1}, {"epochs": 2}, {"epochs": 2, "cache": "off"}])
def test_stopped_in_the_first_epoch_and_resumed_is_as_if_never_stopped(path, tmp_path, options):
    want = digest(path, tmp_path, **options)
    kept = {"checkpoint": str(tmp_path / "kept"), "checkpoint_every": "1", "resume": True}
    stops, is_stopped = 0, True
    while is_stopped:
        stop = StopAfter(3)
        found = digest(path, tmp_path, report=stop, **kept, **options)
        is_stopped = stop.left <= 0
        stops += is_stopped
    assert stops > 2
    assert found == want


def test_what_goes_wrong_while_rows_come_in_is_said(path, rows, tmp_path):
    X, y = rows
    bad = X.copy()
    bad[20_003, 5] = np.nan
    other = as_parquet((bad, y), tmp_path / "bad.parquet")
    with pytest.raises(fastsoftmax.DataError, match=r"row group 28, row 403: .*x5"):
        fastsoftmax.train(other, "y", learning_rate=0.01, epochs=1)


def test_an_interrupt_in_the_first_epoch_leaves_what_was_learnt(path):
    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as caught:
        fastsoftmax.train(path, "y", learning_rate=0.01, epochs=2, report=interrupt)
    assert caught.value.model.n_features == 13


@pytest.mark.parametrize("options", [{"learning_rate": 0.01}, {}])
def test_only_a_run_that_chooses_on_its_rows_draws_a_sample_of_them(path, monkeypatch, options):
    drawn = []
    monkeypatch.setattr(Loader, "sample", lambda *_: drawn.append(1))
    fastsoftmax.train(path, "y", epochs=1, shuffle_window=STEP, **options)
    assert len(drawn) == (not options)
