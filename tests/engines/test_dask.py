"""A Dask cluster does the work: the same bits, whichever of its workers comes, goes or dies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.errors import DataError, OptionError

distributed = pytest.importorskip("distributed", reason="distributed is not installed")
pytestmark = [
    pytest.mark.filterwarnings("ignore:::distributed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
OPTIONS = {"solver": "lbfgs", "l2": 1e-3, "tolerance": 1e-8, "shards": 6}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    random = np.random.default_rng(5)
    X = random.normal(size=(12_000, 30)).astype(np.float32)
    y = (X[:, :5] + random.gumbel(size=(len(X), 5))).argmax(axis=1)
    table = pa.table({**{f"x{j}": column for j, column in enumerate(X.T)}, "y": y})
    where = tmp_path_factory.mktemp("dask") / "rows.parquet"
    pq.write_table(table, where, row_group_size=1000)
    return where


@pytest.fixture(scope="module")
def client():
    with new_client() as client:
        yield client


@contextlib.contextmanager
def new_client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def want(path, tmp_path_factory):
    return digest(fastsoftmax.train(path, "y", **OPTIONS), tmp_path_factory.mktemp("want"))


def digest(model, folder):
    model.save(folder / "model")
    return hashlib.sha256((folder / "model").read_bytes()).hexdigest()


@contextlib.contextmanager
def killing(cluster, seconds):
    """Kill a worker after so many seconds."""
    (victim, *_) = (nanny.pid for nanny in cluster.workers.values())

    def kill():
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def test_a_client_its_address_and_its_executor_give_the_same_bits(client, path, want, tmp_path):
    for workers in (client, client.scheduler.address, client.get_executor()):
        model = fastsoftmax.train(path, "y", workers=workers, **OPTIONS)
        assert digest(model, tmp_path) == want
    assert client.status == "running"


def test_results_come_by_the_scheduler_where_workers_cannot_be_reached(
    client, path, want, tmp_path, monkeypatch
):
    from fastsoftmax.engines import dask

    assert dask._reaches_workers(client)
    monkeypatch.setattr(dask, "REACHING_SECONDS", 0.0)
    assert not dask._reaches_workers(client)
    assert digest(fastsoftmax.train(path, "y", workers=client, **OPTIONS), tmp_path) == want
    monkeypatch.undo()
    monkeypatch.setattr(client, "direct_to_workers", False)
    assert not dask._reaches_workers(client)


def test_rows_in_memory_are_sent(client, path, tmp_path):
    table = pq.read_table(path)
    found = {digest(fastsoftmax.train(table, "y", workers=w, **OPTIONS), tmp_path)
             for w in (client, None)}  # fmt: skip
    assert len(found) == 1


@pytest.mark.parametrize("seconds", [0.02, 0.15, 0.3])
def test_a_worker_that_is_killed_changes_no_bit(path, want, tmp_path, seconds):
    with new_client() as client, killing(client.cluster, seconds):
        model = fastsoftmax.train(path, "y", workers=client, **OPTIONS)
        assert digest(model, tmp_path) == want


def test_a_worker_that_is_killed_in_rounds_of_steps_changes_no_bit(path, tmp_path):
    told = {"epochs": 2, "shards": 3}
    want = digest(fastsoftmax.train(path, "y", **told), tmp_path)
    with new_client() as client, killing(client.cluster, 0.5):
        assert digest(fastsoftmax.train(path, "y", workers=client, **told), tmp_path) == want


def test_a_worker_that_does_not_answer_is_not_waited_for(client, monkeypatch):
    from fastsoftmax.engines import dask
    from fastsoftmax.engines.tasks import this_worker

    monkeypatch.setattr(dask, "ASKING_SECONDS", 0.3)
    carrier = dask.Dask(client, is_own=False)
    assert len(carrier.everywhere(this_worker)) == 2
    (silent, *_) = (nanny.pid for nanny in client.cluster.workers.values())
    os.kill(silent, signal.SIGSTOP)
    try:
        began = time.perf_counter()
        assert carrier.everywhere(this_worker) == []
        assert time.perf_counter() - began < 5
    finally:
        os.kill(silent, signal.SIGCONT)


def test_a_worker_that_joins_and_one_that_leaves_change_no_bit(client, path, want, tmp_path):
    def change(progress):
        if progress.finished and progress.epoch == 1:
            client.cluster.scale(3)
            client.wait_for_workers(3, timeout=60)
        if progress.finished and progress.epoch == 3:
            client.cluster.scale(1)

    try:
        model = fastsoftmax.train(path, "y", workers=client, report=change, **OPTIONS)
    finally:
        client.cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
    assert digest(model, tmp_path) == want


def test_what_a_task_raises_is_raised_once_with_its_place(client, path, tmp_path):
    columns = pq.read_table(path).to_pydict()
    columns["x7"][4321] = float("nan")
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet", row_group_size=1000)
    began = time.perf_counter()
    with pytest.raises(DataError, match=r'bad\.parquet, row group 4, row 321: column "x7" is nan'):
        fastsoftmax.train(tmp_path / "bad.parquet", "y", workers=client, **OPTIONS)
    assert time.perf_counter() - began < 20


def test_a_worker_of_another_level_is_refused_with_a_table(path):
    from fastsoftmax.kernels.level import LEVEL

    if LEVEL.processor in ("x86-64-v2", "generic"):
        pytest.skip("there is no lower level")
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            dashboard_address=None,
            env={"FASTSOFTMAX_LEVEL": "x86-64-v2"},
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        pytest.raises(OptionError, match=r"(?s)other versions.*this process.*tcp://.*x86-64-v2"),
    ):
        fastsoftmax.train(path, "y", workers=client, **OPTIONS)


def test_nothing_stays_at_the_workers_of_a_run_that_is_over(client, path):
    def kept():
        from fastsoftmax.data.loading import shard_rows

        return set(shard_rows._kept)

    before = client.run(kept)  # an executor's workers cannot be told that a run is over
    fastsoftmax.train(path, "y", workers=client, **OPTIONS)
    assert client.run(kept) == before
