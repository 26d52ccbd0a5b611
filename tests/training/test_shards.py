"""Runs in rounds over shards: one model whoever does the work, at the optimum of one machine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, feather

import fastsoftmax
from fastsoftmax.data.loading.deal import deal, spread
from fastsoftmax.errors import DataError, OptionError
from tests.engines.executors import Chaos

OPTIMUM = {"solver": "lbfgs", "l2": 1e-3, "tolerance": 1e-8}
LONG = os.environ.get("FASTSOFTMAX_SHARDS") == "1"  # make test-shards


def problem(n=6000, d=12, K=4, seed=5):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, d)).astype(np.float32)
    return X, (X[:, :K] + random.gumbel(size=(n, K))).argmax(axis=1)


def table_of(X, y, **more):
    return pa.table({**{f"x{j}": column for j, column in enumerate(X.T)}, "y": y, **more})


@pytest.fixture(scope="module")
def rows():
    return problem()


@pytest.fixture(scope="module")
def path(rows, tmp_path_factory):
    where = tmp_path_factory.mktemp("shards") / "rows.parquet"
    pq.write_table(table_of(*rows), where, row_group_size=500)
    return where


def digest(model, folder):
    model.save(folder / "model")
    return hashlib.sha256((folder / "model").read_bytes()).hexdigest()


def objective(model, X, y, l2, deviation=1.0):
    z = X.astype(np.float64) @ model.coef.T + model.intercept
    z -= z.max(axis=1, keepdims=True)
    loss = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]
    return loss.mean() + l2 / 2 * np.square(model.coef * deviation).sum()


def test_shards_are_as_equal_as_the_pieces_allow_and_have_every_row_once():
    for pieces in ([10] * 16, [7, 1, 0, 30, 2, 2, 9], [1000], [5, 3]):
        for count in (1, 2, 3, 8):
            dealt = deal(pieces, count, seed=3)
            seen = [row for shard in dealt.shards for run in shard
                    for row in [(run.piece, i) for i in range(run.first, run.stop)]]  # fmt: skip
            assert sorted(seen) == [(p, i) for p, rows in enumerate(pieces) for i in range(rows)]
            sizes = [sum(run.rows for run in shard) for shard in dealt.shards]
            assert max(sizes) - min(sizes) <= max(1, -(-sum(pieces) // count))
            looked_at = sorted(p for i in range(count) for p in dealt.pieces(i))
            assert looked_at == [p for p, rows in enumerate(pieces) if rows]
    assert [sum(r.rows for r in s) for s in deal([10] * 16, 4, 0).shards] == [40] * 4
    assert deal([10] * 16, 4, 0) != deal([10] * 16, 4, 1)


def test_shards_in_source_order_hold_the_rows_one_after_the_other():
    dealt = spread([10] * 7 + [0, 50], 4)
    assert [run.piece for shard in dealt.shards for run in shard] == [*range(7), 8, 8]
    assert [sum(run.rows for run in shard) for shard in dealt.shards] == [30, 30, 10 + 25, 25]


@pytest.mark.parametrize("shards", [2, 8, 32])
def test_any_number_of_shards_ends_at_the_optimum_of_one_machine(rows, path, shards):
    X, y = rows
    want = objective(fastsoftmax.train(path, "y", **OPTIMUM), X, y, 1e-3)
    got = objective(fastsoftmax.train(path, "y", shards=shards, **OPTIMUM), X, y, 1e-3)
    assert abs(got - want) <= 1e-6 * want


def test_a_default_run_in_shards_ends_where_one_without_does(rows, path):
    X, y = rows
    one = fastsoftmax.train(path, "y")
    many = fastsoftmax.train(path, "y", shards=4)
    l2 = one.record["options"]["l2"]
    assert many.record["options"]["l2"] == l2  # it is chosen on the same rows, if they are few
    want, got = (objective(model, X, y, l2, X.std(axis=0)) for model in (one, many))
    assert abs(got - want) <= 1e-4 * want
    assert many.record["shards"] == 4
    assert many.record["options"]["shards"] == 4
    assert "workers" not in many.record["options"]
    given = [
        fastsoftmax.train(path, "y", l2=l2, standardize=True, **o) for o in ({}, {"shards": 4})
    ]
    want, got = (objective(model, X, y, 0.0) for model in given)
    assert abs(got - want) <= 1e-4 * want


def test_one_shard_is_a_run_without(path, tmp_path):
    plain = fastsoftmax.train(path, "y", l2=1e-3)
    one = fastsoftmax.train(path, "y", l2=1e-3, shards=1)
    assert plain.coef.tobytes() == one.coef.tobytes()
    assert plain.history == one.history


def kinds_of_data(rows, path):
    X, y = rows
    yield path, "y"
    yield X, y
    yield np.asfortranarray(X), y
    yield table_of(X, y), "y"


@pytest.mark.parametrize("kind", range(4))
def test_who_does_the_work_changes_no_bit(rows, path, tmp_path, kind):
    data, target = list(kinds_of_data(rows, path))[kind]
    options = {"shards": 5, "l2": 1e-3, "holdout": 0.1}

    def run(workers):
        return digest(fastsoftmax.train(data, target, workers=workers, **options), tmp_path)

    found = {run(None), run(1), run(3)}
    with ThreadPoolExecutor(2) as pool, Chaos(kind) as chaos:
        found |= {run(pool), run(chaos)}
        assert chaos.lost
    assert len(found) == 1


def test_memory_caches_and_threads_change_no_bit(path, tmp_path):
    settings = [{}, {"memory": "10MB"}, {"cache": "off"}, {"cache": "memory"}, {"threads": 1}]
    settings += [{"cache": "disk", "memory": "10MB"}, {"cache_folder": str(tmp_path)}]
    found = {digest(fastsoftmax.train(path, "y", shards=3, l2=1e-3, **o), tmp_path)
             for o in settings}  # fmt: skip
    assert len(found) == 1


def test_rows_that_fit_no_memory_come_from_a_file(rows, path, tmp_path, monkeypatch):
    monkeypatch.setattr("fastsoftmax.data.loading.shard_rows.KEPT_SHARE", 0.0)
    monkeypatch.setattr("fastsoftmax.data.loading.shard_rows.WINDOW_BYTES", 2**15)
    cached = fastsoftmax.train(path, "y", shards=3, l2=1e-3, holdout=0.1)
    again = fastsoftmax.train(path, "y", shards=3, l2=1e-3, holdout=0.1, cache="off")
    monkeypatch.setattr("fastsoftmax.data.loading.shard_rows.KEPT_SHARE", 0.8)
    kept = fastsoftmax.train(path, "y", shards=3, l2=1e-3, holdout=0.1)
    assert digest(cached, tmp_path) == digest(again, tmp_path) == digest(kept, tmp_path)


def test_nothing_is_kept_of_a_run_that_is_over(path):
    from fastsoftmax.data.loading import shard_rows

    fastsoftmax.train(path, "y", shards=3, l2=1e-3)
    assert not shard_rows._kept


def test_weights_categories_and_nulls_are_learnt_over_all_shards(rows, tmp_path):
    X, y = rows
    random = np.random.default_rng(1)
    more = {
        "w": random.uniform(0.0, 2.0, len(y)),
        "c": np.array(["red", "green", "blue"])[random.integers(0, 3, len(y))],
        "g": pa.array(random.normal(size=len(y)), mask=random.random(len(y)) < 0.1),
    }
    pq.write_table(table_of(X, y, **more), tmp_path / "mixed.parquet", row_group_size=700)
    told = {"weight": "w", "categorical": ["c"], "nulls": "mean", "null_indicators": True}
    told |= {"class_weight": "balanced", **OPTIMUM}
    one = fastsoftmax.train(tmp_path / "mixed.parquet", "y", **told)
    found = [fastsoftmax.train(tmp_path / "mixed.parquet", "y", shards=4, workers=w, **told)
             for w in (None, 2)]  # fmt: skip
    assert digest(found[0], tmp_path) == digest(found[1], tmp_path)
    np.testing.assert_allclose(found[0].coef, one.coef, atol=1e-4)
    assert found[0].columns == one.columns or found[0].feature_names == one.feature_names


def test_more_classes_than_a_segment_tells_apart_are_counted_twice(tmp_path):
    X, y = problem(n=4000, d=6, K=6)
    y = y * 20 + np.arange(len(y)) % 20  # 120 classes
    pq.write_table(table_of(X, y), tmp_path / "many.parquet", row_group_size=300)
    told = {"solver": "lbfgs", "l2": 1e-2, "epochs": 3}
    with pytest.warns(fastsoftmax.NotConverged):
        one = fastsoftmax.train(tmp_path / "many.parquet", "y", **told)
    with pytest.warns(fastsoftmax.NotConverged):
        many = fastsoftmax.train(tmp_path / "many.parquet", "y", shards=4, **told)
    assert list(many.classes) == list(one.classes)
    np.testing.assert_allclose(many.record["prior"], one.record["prior"], rtol=1e-12)


def test_a_bad_value_is_named_as_without_shards(rows, tmp_path):
    X, y = rows
    X = X.copy()
    X[4321, 3] = np.nan
    pq.write_table(table_of(X, y), tmp_path / "bad.parquet", row_group_size=500)
    place = r"bad\.parquet, row group 8, row 321: column \"x3\" is nan"
    for workers in (None, 2):
        with pytest.raises(DataError, match=place):
            fastsoftmax.train(tmp_path / "bad.parquet", "y", shards=4, workers=workers, l2=1e-3)
    with pytest.raises(DataError, match="row 4321: feature 3 is nan"):
        fastsoftmax.train(X, y, shards=4, workers=2, l2=1e-3)


def test_a_file_that_changes_is_noticed_by_any_worker(rows, tmp_path):
    X, y = rows
    data = tmp_path / "rows.parquet"
    pq.write_table(table_of(X, y), data, row_group_size=500)

    def change(progress):
        if progress.finished and progress.epoch == 1:
            os.utime(data, ns=(1, 1))

    told = {"cache": "off", "memory": "10MB", "shards": 3, "workers": 2, **OPTIMUM}
    many = np.concatenate([X] * 40), np.concatenate([y] * 40)
    pq.write_table(table_of(*many), data, row_group_size=9000)
    with pytest.raises(DataError, match="changed during the run"):
        fastsoftmax.train(data, "y", report=change, **told)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shuffle": "off"}, "leave out shuffle"),
        ({"shuffle_window": 512}, "leave out shuffle"),
        ({"shuffle": "full", "learning_rate": 0.1, "epochs": 2}, "leave out shuffle"),
        ({"l1": 1e-3, "epochs": 2}, "with shards l1 takes full gradients"),
        ({"l1": 1e-3, "adaptive": True}, "with shards l1 takes full gradients"),
        ({"l1": 1e-3, "batch_size": 8}, "with shards l1 takes full gradients"),
        ({"shards": 0}, "shards must be a whole number >= 1"),
        ({"shards": 10**6}, "fewer than shards"),
        ({"shards": None, "workers": 2}, "say into how many parts"),
        ({"workers": "host"}, "workers must be a number of processes"),
    ],
)
def test_what_shards_cannot_do_is_refused_in_a_sentence(path, options, sentence):
    with pytest.raises(OptionError, match=sentence):
        fastsoftmax.train(path, "y", **{"shards": 3, **options})


@pytest.mark.parametrize("told", [{}, {"learning_rate": 0.1, "epochs": 1}, {"l1": 1e-3}])
def test_a_stream_is_refused(rows, told):
    table = table_of(*rows)
    for data in (table.to_reader(), lambda: table.to_reader()):
        with pytest.raises(DataError, match="These are a stream: write it to a Parquet file"):
            fastsoftmax.train(data, "y", shards=2, classes=[0, 1, 2, 3], **told)


def test_files_of_every_format_can_be_read_by_other_processes(rows, tmp_path):
    X, y = rows[0][:900], rows[1][:900]
    table = table_of(X, y)
    csv.write_csv(table, tmp_path / "rows.csv")
    feather.write_feather(table, tmp_path / "rows.arrow", chunksize=200)
    np.savez(tmp_path / "rows.npz", x=X, y=y)
    lines = (json.dumps(row) for row in table.to_pylist())
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    for name in ("rows.csv", "rows.arrow", "rows.npz", "rows.jsonl"):
        found = [fastsoftmax.train(tmp_path / name, "y", shards=3, workers=w, l2=1e-2)
                 for w in (None, 2)]  # fmt: skip
        assert found[0].coef.tobytes() == found[1].coef.tobytes(), name


def test_what_cannot_be_handed_to_other_processes_says_so(monkeypatch, rows, tmp_path):
    lines = "a,y\n" + "\n".join(f"{t},{t % 2}" for t in range(99))
    (tmp_path / "rows.csv").write_text(lines)
    with (tmp_path / "rows.csv").open() as file:
        command = [sys.executable, "-m", "fastsoftmax", "train", "-", "--target", "y", "-o",
                   str(tmp_path / "m"), "--shards", "2", "--workers", "2"]  # fmt: skip
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be handed to other processes" in done.stderr


def test_auto_takes_no_shards_where_rows_are_few(path):
    model = fastsoftmax.train(path, "y", shards="auto", l2=1e-3)
    assert "shards" not in model.record
    two = fastsoftmax.train(path, "y", shards="auto", workers=2, l2=1e-3)
    assert two.record.get("shards", 1) == two.record["options"]["shards"]


def test_a_run_that_is_resumed_ends_with_the_same_bits(path, tmp_path):
    told = {"shards": 4, "checkpoint_every": 1, **OPTIMUM}
    want = digest(fastsoftmax.train(path, "y", **told), tmp_path)

    def stop(progress):
        return progress.finished and progress.epoch == 2

    kept = {**told, "checkpoint": str(tmp_path / "kept")}
    part = fastsoftmax.train(path, "y", report=stop, **kept)
    assert part.record["ended"] == "callback"
    assert digest(fastsoftmax.train(path, "y", resume=True, workers=2, **kept), tmp_path) == want
    with pytest.raises(OptionError, match=r"options\.shards was 4, is 5"):
        fastsoftmax.train(path, "y", resume=True, **{**kept, "shards": 5})


def test_a_run_is_stopped_within_a_pass_and_goes_on_with_the_same_bits(path, tmp_path):
    want = digest(fastsoftmax.train(path, "y", shards=4, **OPTIMUM), tmp_path)
    told = {"shards": 4, "checkpoint": str(tmp_path / "kept"), **OPTIMUM}
    seen = []

    def stop(progress):
        seen.append(progress.shards)
        return progress.shards is not None and progress.epoch == 3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastsoftmax.training.callbacks.REPORT_SECONDS", 0.0)
        part = fastsoftmax.train(path, "y", report=stop, **told)
    assert (0, 4) in seen
    assert part.record["ended"] == "callback"
    assert len(part.history) == 2
    model = fastsoftmax.train(path, "y", resume=True, **told)
    assert digest(model, tmp_path) == want


def test_many_settings_are_swept_in_rounds(path):
    told = {"solver": "lbfgs", "l2": [1e-3, 1e-1], "holdout": 0.2}
    found = [fastsoftmax.sweep(path, "y", shards=3, workers=w, **told) for w in (None, 2)]
    assert found[0].table == found[1].table
    alone = fastsoftmax.train(path, "y", shards=3, solver="lbfgs", l2=1e-3, holdout=0.2)
    assert found[0].best.coef.tobytes() == alone.coef.tobytes()


def test_validation_rows_beside_are_measured(rows, path):
    X, y = problem(seed=6, n=2000)
    names = {f"x{j}": column for j, column in enumerate(X.T)}
    beside = pa.table({**names, "y": y})
    one = fastsoftmax.train(path, "y", validation=beside, **OPTIMUM)
    many = fastsoftmax.train(path, "y", validation=beside, shards=3, **OPTIMUM)
    last = [m.history[-1]["validation_log_loss"] for m in (one, many)]
    assert abs(last[0] - last[1]) < 1e-5


@pytest.mark.skipif(not LONG, reason="make test-shards runs it")
def test_two_hundred_runs_in_chaos_have_one_digest(path, tmp_path):
    found = set()
    for seed in range(200):
        with Chaos(seed, loses=0.3) as chaos:
            model = fastsoftmax.train(path, "y", shards=6, workers=chaos, l2=1e-3)
        found.add(digest(model, tmp_path))
    assert len(found) == 1


@pytest.mark.skipif(not LONG, reason="make test-shards runs it")
def test_fifty_killed_processes_in_ten_runs_leave_one_digest(tmp_path, monkeypatch):
    monkeypatch.setattr("fastsoftmax.training.callbacks.REPORT_SECONDS", 0.0)
    X, y = problem(n=20_000, d=40, K=8)
    random, found, killed = np.random.default_rng(0), set(), 0
    told = {"shards": 6, "workers": 3, **OPTIMUM}
    for run in range(10):

        def kill(progress, run=run):
            nonlocal killed
            children = _children()
            if killed < 5 * (run + 1) and children and random.random() < 0.4:
                with suppress(ProcessLookupError):  # it was killed before, and is gone by now
                    os.kill(int(random.choice(children)), signal.SIGKILL)
                    killed += 1

        found.add(digest(fastsoftmax.train(X, y, report=kill, **told), tmp_path))
    assert len(found) == 1
    assert killed >= 45


def _children():
    own = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    with open(own) as file:
        return [int(word) for word in file.read().split()]
