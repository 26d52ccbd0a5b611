"""Steps in rounds over shards: where one machine ends, with the same bits whoever does the work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.data.loading.mixed_rows import MixedRows, step_rows, visits_of, windows_of
from fastsoftmax.data.loading.shards import dealt
from fastsoftmax.data.open import open_source
from fastsoftmax.errors import DataError, DivergedError, OptionError
from fastsoftmax.labels import given_classes
from fastsoftmax.optim.shared_mean import SharedMean
from fastsoftmax.options import Reading, Sharding
from tests.engines.executors import Chaos
from tests.training.test_shards import LONG, digest, problem, table_of

STEPS = [
    {"epochs": 2},
    {"learning_rate": 0.05, "epochs": 2},
    {"batch_size": 16, "epochs": 1, "holdout": 0.1},
    {"adaptive": True, "epochs": 2},
    {"epochs": 2, "dtype": "float64", "l2": 1e-3, "standardize": False},
]

# Each share that is kept with each cache and each memory, and each of these with the other.
EACH_PAIR = [
    (0.8, "auto", "1GB"),
    (0.8, "off", "10MB"),
    (0.01, "auto", "10MB"),
    (0.01, "off", "1GB"),
]


@pytest.fixture(scope="module")
def rows():
    return problem()


@pytest.fixture(scope="module")
def path(rows, tmp_path_factory):
    where = tmp_path_factory.mktemp("rounds") / "rows.parquet"
    pq.write_table(table_of(*rows), where, row_group_size=500)
    return where


def log_loss(model, X, y):
    at = np.searchsorted(model.classes, y)
    return -np.log(model.predict_proba(X)[np.arange(len(y)), at]).mean()


@pytest.mark.parametrize("shards", [2, 8])
@pytest.mark.parametrize("order", ["as drawn", "by class"])
def test_steps_in_rounds_end_where_those_of_one_machine_do(rows, shards, order):
    X, y = rows
    at = np.argsort(y, kind="stable") if order == "by class" else np.arange(len(y))
    one, many = (fastsoftmax.train(X[at], y[at], epochs=6, shards=s) for s in (1, shards))
    assert many.record["options"]["epochs"] == 6
    assert many.history[-1]["rows"] == len(y)
    assert abs(log_loss(many, X, y) / log_loss(one, X, y) - 1) < 2e-3


@pytest.mark.parametrize("options", STEPS)
def test_who_takes_the_steps_changes_no_bit(rows, path, tmp_path, options):
    def run(data, target, workers):
        told = {"shards": 3, "workers": workers, **options}
        return digest(fastsoftmax.train(data, target, **told), tmp_path)

    # A pool of processes takes a while to begin.
    both = ((path, "y"), rows)
    for data, target in both if LONG else (both[STEPS.index(options) % 2],):
        found = {run(data, target, None), run(data, target, 2)}
        with ThreadPoolExecutor(2) as pool, Chaos(1, loses=0.05) as chaos:
            found |= {run(data, target, pool), run(data, target, chaos)}
        assert len(found) == 1


def test_steps_over_sparse_rows_are_taken_in_rounds(rows, tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    X, y = rows
    X = sparse.csr_matrix(np.where(np.abs(X) > 1, X, 0))
    one, many, again = (
        fastsoftmax.train(X, y, epochs=4, shards=s, workers=w)
        for s, w in ((1, None), (3, None), (3, 2))
    )
    assert digest(many, tmp_path) == digest(again, tmp_path)
    dense = X.toarray()
    assert abs(log_loss(many, dense, y) / log_loss(one, dense, y) - 1) < 5e-3


def test_where_rows_are_kept_changes_no_bit_of_the_steps(path, tmp_path, monkeypatch):
    monkeypatch.setattr("fastsoftmax.data.loading.mixed_rows.WINDOW_BYTES", 2**15)
    monkeypatch.setattr("fastsoftmax.data.loading.mixed_rows.STEP", 256)
    found = set()
    for share, cache in ((0.8, "auto"), (0.0, "auto"), (0.0, "off")):
        monkeypatch.setattr("fastsoftmax.data.loading.shard_rows.KEPT_SHARE", share)
        model = fastsoftmax.train(path, "y", shards=3, epochs=1, holdout=0.1, cache=cache)
        found.add(digest(model, tmp_path))
    assert len(found) == 1


@pytest.mark.parametrize("features", [130, 50])  # with epochs of steps first, and without
def test_no_cache_and_no_memory_shape_a_default_run(features, tmp_path, monkeypatch):
    monkeypatch.setattr("fastsoftmax.training.tuning.NEAR_SHARE", 2.0)  # as with more rows
    X, y = problem(n=20_000, d=features, K=10)
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(X.ravel(), features), "y": y})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2000)
    found, all_of_them = set(), product((0.8, 0.01), ("auto", "off"), ("1GB", "10MB"))
    for share, cache, memory in all_of_them if LONG else EACH_PAIR:
        monkeypatch.setattr("fastsoftmax.data.loading.shard_rows.KEPT_SHARE", share)
        told = {"shards": 3, "cache": cache, "memory": memory}
        model = fastsoftmax.train(tmp_path / "rows.parquet", "y", **told)
        steps = model.record["options"]["learning_rate"] != "auto"
        assert steps == (features == 130)
        found.add(digest(model, tmp_path))
    assert len(found) == 1


@pytest.mark.parametrize("memory", [2**15, 2**20])
def test_windows_that_nobody_keeps_are_gathered_some_at_a_time(path, monkeypatch, memory):
    monkeypatch.setattr("fastsoftmax.data.loading.mixed_rows.WINDOW_BYTES", 2**13)
    monkeypatch.setattr("fastsoftmax.data.loading.mixed_rows.STEP", 128)
    looks = []

    def looked(self):
        looks.append(self)
        return drawn(self)

    drawn = MixedRows._drawn
    monkeypatch.setattr(MixedRows, "_drawn", looked)
    source, classes = open_source(path, "y"), given_classes(range(4))
    with dealt(source, Sharding(shards=3), Reading(cache="off")) as shards:
        shards.mix(seed=7)
        shard = replace(shards.shards[0], memory=memory)
        monkeypatch.setattr("fastsoftmax.data.loading.shard_rows.KEPT_SHARE", 0.1)
        count = step_rows(source, shard, classes)
        seen = []
        for number in range(8):  # rounds
            span = count * number // 8, count * (number + 1) // 8
            for window, order in visits_of(source, shard, classes, 0, span):
                seen.append(np.asarray(window.number(order)))
    assert len(np.unique(np.concatenate(seen))) == count
    assert (len(looks) < 8) == (memory == 2**20)


@pytest.mark.parametrize("kind", ["file", "matrix"])
def test_rounds_of_an_epoch_visit_every_row_once_in_another_order_each(rows, path, kind):
    X, y = rows
    source = open_source(path, "y") if kind == "file" else open_source(X, y)
    classes = given_classes(range(4))
    with dealt(source, Sharding(shards=3), Reading()) as shards:
        shards.mix(seed=7)
        orders = []
        for epoch in (0, 1):
            seen = []
            for shard in shards.shards:
                count = step_rows(source, shard, classes)
                for span in ((0, count // 2), (count // 2, count)):
                    for window, order in visits_of(source, shard, classes, epoch, span):
                        numbers = np.asarray(window.number(order))
                        np.testing.assert_array_equal(window.labels[order], y[numbers])
                        seen.append(numbers)
            orders.append(np.concatenate(seen))
            np.testing.assert_array_equal(np.sort(orders[-1]), np.arange(len(y)))
        assert (orders[0] != orders[1]).any()
        passed = [w.number(np.arange(w.rows)) for s in shards.shards
                  for w in windows_of(source, s, classes)]  # fmt: skip
        np.testing.assert_array_equal(np.sort(np.concatenate(passed)), np.arange(len(y)))


@pytest.mark.parametrize("options", [STEPS[0], STEPS[3]])
def test_steps_that_stop_between_rounds_go_on_with_the_same_bits(path, tmp_path, options):
    told = {"shards": 3, **options}
    want = digest(fastsoftmax.train(path, "y", **told), tmp_path)
    kept = {**told, "checkpoint": str(tmp_path / "kept")}
    seen = []

    def stop(progress):
        seen.append(progress.shards)
        return progress.epoch == 2 and progress.rows > 2000

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastsoftmax.training.callbacks.REPORT_SECONDS", 0.0)
        part = fastsoftmax.train(path, "y", report=stop, **kept)
    assert part.record["ended"] == "callback"
    assert (0, 3) in seen
    model = fastsoftmax.train(path, "y", resume=True, workers=2, **kept)
    assert digest(model, tmp_path) == want


def test_settings_that_are_swept_in_rounds_are_those_trained_alone(path):
    told = {"shards": 3, "epochs": 2, "holdout": 0.2}
    found = fastsoftmax.sweep(path, "y", learning_rate=[0.01, 0.1], halve=False, **told)
    best = found.table[0]["learning_rate"]
    alone = fastsoftmax.train(path, "y", learning_rate=best, **told)
    assert found.best.coef.tobytes() == alone.coef.tobytes()


def test_rows_that_are_no_numbers_end_a_round_with_their_place(rows, tmp_path):
    X, y = rows
    X = X.copy()
    X[4321, 3] = np.nan
    pq.write_table(table_of(X, y), tmp_path / "bad.parquet", row_group_size=500)
    told = {"shards": 4, "learning_rate": 0.1, "epochs": 1}
    for workers in (None, 2):
        with pytest.raises(DataError, match=r'row group 8, row 321: column "x3" is nan'):
            fastsoftmax.train(tmp_path / "bad.parquet", "y", workers=workers, **told)


def test_steps_that_lead_astray_in_a_round_say_so(rows):
    X, y = rows
    with pytest.raises(DivergedError, match="learning rate"):
        fastsoftmax.train(X * 1e6, y, shards=3, learning_rate=1e6, epochs=2)


def test_weights_that_are_to_be_0_are_refused_in_rounds(path):
    with pytest.raises(OptionError, match="the mean of what shards find"):
        fastsoftmax.train(path, "y", shards=3, l1=1e-3, learning_rate=0.1)


@pytest.mark.parametrize("options", [{}, {"solver": "lbfgs"}, {"epochs": 3}, {"holdout": 0.1}])
def test_time_that_is_up_at_once_leaves_a_model(path, options):
    with pytest.warns(fastsoftmax.NotConverged, match="max_seconds"):
        model = fastsoftmax.train(path, "y", shards=3, max_seconds=1e-9, **options)
    assert model.record["ended"] == "max_seconds"
    assert np.isfinite(model.coef).all()


def test_means_of_shards_are_weighted_in_whatever_order_they_are_added():
    random = np.random.default_rng(0)
    values = [random.normal(size=3).astype(np.float32) for _ in range(3)]
    found = [SharedMean({"W": v.copy()}, w) for v, w in zip(values, (1.0, 0.0, 3.0), strict=True)]
    want = (values[0] + 3.0 * values[2].astype(np.float64)) / 4.0
    np.testing.assert_allclose((found[0] + found[1] + found[2]).mean()["W"], want, rtol=1e-12)
    assert found[0].mean()["W"] is found[0].values["W"]


def test_many_shards_of_few_rows_each_are_warned_of(rows):
    X, y = rows
    with pytest.warns(UserWarning, match="32 shards drift apart .* 291% of the 11 that an epoch"):
        fastsoftmax.train(X, y, shards=32, epochs=1)
    fastsoftmax.train(X, y, shards=32)


def test_shards_of_few_classes_each_are_warned_of_and_step_with_care(rows, tmp_path):
    X, y = rows
    order = np.argsort(y, kind="stable")
    pq.write_table(table_of(X[order], y[order]), tmp_path / "sorted.parquet", row_group_size=1500)
    with pytest.warns(UserWarning, match="labels of shards are unlike the whole"):
        many = fastsoftmax.train(tmp_path / "sorted.parquet", "y", shards=4, epochs=2)
    one = fastsoftmax.train(tmp_path / "sorted.parquet", "y", epochs=2)
    rates = [model.record["options"]["learning_rate"] for model in (one, many)]
    assert rates[1] < rates[0]
    told = {"shards": 4, "l2": 1e-3, "standardize": True}
    ended = [fastsoftmax.train(tmp_path / "sorted.parquet", "y", **told),
             fastsoftmax.train(X, y, **told)]  # fmt: skip
    assert abs(log_loss(ended[0], X, y) / log_loss(ended[1], X, y) - 1) < 1e-4
