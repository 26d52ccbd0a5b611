"""Rounds over shards: how two workers compare with one, and what a round costs beside its rows.

A pass of full gradients over rows in memory, kept by the workers; the sums must not differ by a
bit. Long rounds, of a second and more, are passes and steps over bytes in memory, or decoded from
Parquet. The state of an overhead round is W alone, and the rows are few.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.interleave import median_seconds
from fastsoftmax.data.loading.shards import Shards, dealt
from fastsoftmax.data.open import open_source
from fastsoftmax.data.parts import Dense
from fastsoftmax.labels import given_classes
from fastsoftmax.optim.passes import LocalPass, PassRows, PassSums
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.options import Reading, Sharding, TrainOptions, available_threads
from fastsoftmax.training import step_rounds
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.preparation import prepare
from fastsoftmax.training.rounds import ShardedRows, scan_labels
from fastsoftmax.training.row_weights import RowWeights
from fastsoftmax.training.shard_tasks import PassState, pass_over
from fastsoftmax.training.step_tasks import Round as StepRound

SHAPES = ((784, 10), (128, 100), (64, 10))
LONG_ROWS = {(784, 10): 1_300_000, (128, 100): 1_300_000, (64, 10): 10_000_000}  # of about 1.3 s
STATES = ((784, 10), (5000, 2000))  # 31 kB and 40 MB of float32
LOCAL = (None, 2)  # threads, processes


class Round:
    """A pass over rows in shards by some workers."""

    def __init__(self, shards: Shards, d: int, K: int, n: int) -> None:
        rows = PassRows(K, d, n, "float32", 1, is_part=True)
        theta = np.zeros((K, d + 1), np.float32)
        self.shards = shards
        weights = RowWeights(None, 1.0)
        self.state = PassState(
            given_classes(range(K)), rows, weights, theta, None, False, "float32"
        )

    def run(self) -> PassSums:
        """Take the pass."""
        sums: PassSums = self.shards.merged("pass", pass_over, self.state).sums
        return sums


@contextlib.contextmanager
def rounds(n: int, d: int, K: int, shards: int, everyone: dict[str, Any]) -> Iterator[dict]:
    """Give a Round of each workers, over the same rows."""
    random = np.random.default_rng(d + K)
    X = random.integers(0, 4, (n, d), dtype=np.uint8).astype(np.float32)
    y = np.arange(n) % K
    with contextlib.ExitStack() as stack:
        found = {}
        for name, workers in everyone.items():
            source = open_source(X, y)
            reading = Reading(threads=1 if name == "1 thread" else None, memory="4GB")
            sharding = Sharding(shards=shards, workers=workers)
            opened = stack.enter_context(dealt(source, sharding, reading))
            found[name] = Round(opened, d, K, n)
        yield found


@pytest.mark.parametrize(("d", "K"), SHAPES)
def bench_rounds(benchmark, report, quick, d, K) -> None:
    """Time passes by one worker and by as many as there are cores, in turn."""
    cores = available_threads()
    n = max(8192, min(400_000, int((4e8 if quick else 3e10) / (4 * K * d))))
    everyone = {"1 thread": None, f"{cores} threads": None, "1 process": 1,
                f"{cores} processes": cores}  # fmt: skip
    with rounds(n, d, K, 2 * cores, everyone) as cases:
        sums = [case.run() for case in cases.values()]
        for each in sums:
            np.testing.assert_array_equal(each.W, sums[0].W)
        runs = {name: case.run for name, case in cases.items()}
        seconds = median_seconds(benchmark, runs, 1 if quick else 7)
    for name, each in seconds.items():
        alone = seconds["1 process" if "process" in name else "1 thread"]
        report.add(
            "Rounds over shards, float32 in memory",
            d=d,
            K=K,
            workers=name,
            **{"rows/s": f"{n / each:,.0f}", "one worker = 1": f"{alone / each:.2f}"},
        )


def steps_of(shards: Shards, d: int, K: int) -> Callable[[], object]:
    """Return what takes a round of steps over all rows from the same weights each time."""
    classes = given_classes(range(K))
    given = {"learning_rate": 1e-9, "epochs": 2, "shards": len(shards)}
    options = TrainOptions.of(**given).resolved(one_pass=False)
    stats = scan_labels(shards, classes)
    learner = Learner(classes, d, stats, options)
    rows = ShardedRows(shards, classes, stats, options)
    rows.check([learner])
    prepare(learner, rows.first_window(4096), measures=False)
    return lambda: step_rounds.stepped(shards, classes, learner, StepRound(0, 0, 1))


def plain_sums(X: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return what reads all bytes by one thread and by as many as there are cores: the limit."""
    words, cores = X.reshape(-1)[: X.size // 8 * 8].view(np.uint64), available_threads()

    def read(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(np.add.reduce, np.array_split(words, threads)))

    return {"a plain sum, 1 thread": lambda: read(1),
            f"a plain sum, {cores} threads": lambda: read(cores)}  # fmt: skip


def cached_passes(d: int, K: int, n: int) -> dict[str, Callable[[], object]]:
    """Return passes over a few rows again and again, for each core one: what processors give."""
    cores, few = available_threads(), 512
    order = np.arange(n // 2 // cores) % few
    X = np.random.default_rng(d).random((few, d), np.float32)
    labels = (order % K).astype(np.int32)
    batch = Batch((Dense(X),), order, labels, np.ones(len(order)))
    rows = PassRows(K, d, len(order), "float32", 1, is_part=True)
    passes = [LocalPass(rows, lambda: [batch]) for _ in range(cores)]
    theta = np.zeros((K, d + 1), np.float32)

    def run(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda each: each.sums(theta), passes))

    return {"512 rows again, 1 thread": lambda: run(1),
            f"512 rows again, {cores} threads": lambda: run(cores)}  # fmt: skip


@pytest.mark.parametrize("kind", ["pass", "steps"])
@pytest.mark.parametrize("held", ["memory", "Parquet"])
@pytest.mark.parametrize(("d", "K"), SHAPES)
def bench_long_rounds(benchmark, report, quick, tmp_path, d, K, held, kind) -> None:
    """Time rounds of a second and more by one worker and by as many as there are cores, in turn."""
    cores, n = available_threads(), LONG_ROWS[d, K] // (100 if quick else 1)
    X = np.random.default_rng(d + K).integers(0, 4, (n, d), dtype=np.uint8)
    y = np.arange(n) % K
    everyone = {"1 thread": None, f"{cores} threads": None, "1 process": 1,
                f"{cores} processes": cores}  # fmt: skip
    if held == "Parquet":
        rows = pa.FixedSizeListArray.from_arrays(X.reshape(-1), d)
        table = pa.table({"x": rows, "y": y})
        fast = {"use_dictionary": False, "compression": "none"}
        pq.write_table(table, tmp_path / "rows.parquet", row_group_size=n // (8 * cores), **fast)
        del table, rows
    runs = {} if held == "Parquet" else plain_sums(X) | cached_passes(d, K, n)
    with contextlib.ExitStack() as stack:
        for name, workers in everyone.items():
            given = (tmp_path / "rows.parquet", "y") if held == "Parquet" else (X, y)
            reading = Reading(threads=1 if name == "1 thread" else None, memory="4GB")
            sharding = Sharding(shards=2 * cores, workers=workers)
            opened = stack.enter_context(dealt(open_source(*given), sharding, reading))
            is_pass = kind == "pass"
            runs[name] = Round(opened, d, K, n).run if is_pass else steps_of(opened, d, K)
        del X
        seconds = median_seconds(benchmark, runs, 1 if quick else 3)
    for name, each in seconds.items():
        first = name.replace(f"{cores} processes", "1 process")
        first = first.replace(f"{cores} threads", "1 thread")
        report.add(
            "Long rounds over shards, bytes",
            d=d, K=K, round=kind, rows=held, workers=name,
            seconds=f"{each:.2f}", **{"one worker = 1": f"{seconds[first] / each:.2f}"},
        )  # fmt: skip


@pytest.mark.parametrize(("d", "K"), STATES)
def bench_overhead(benchmark, report, quick, d, K) -> None:
    """Time rounds of two shards that have hardly a row, by threads, processes and a cluster."""
    everyone: dict[str, Any] = {"threads": None, "processes": 2}
    with contextlib.ExitStack() as stack:
        try:
            import distributed
        except ImportError:
            pass
        else:
            cluster = stack.enter_context(
                distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
            )
            everyone["dask"] = stack.enter_context(distributed.Client(cluster))
        cases = stack.enter_context(rounds(64, d, K, 2, everyone))
        runs = {name: case.run for name, case in cases.items()}
        seconds = median_seconds(benchmark, runs, 1 if quick else 9)
    for name, each in seconds.items():
        report.add(
            "What a round of two shards costs, hardly a row in it",
            state=f"{4 * K * d / 1e6:.3g} MB",
            workers=name,
            ms=f"{1e3 * each:.1f}",
        )
