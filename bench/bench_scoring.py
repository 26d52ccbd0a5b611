"""What predicting and evaluating a large file cost, beside iterating it with pyarrow on one thread.

Both from the shell, process and all, and in this process; all cases take turns. The answers are
compared with those of NumPy on some rows before anything is timed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import fastsoftmax
from bench.conftest import draw_problem
from bench.interleave import median_seconds

ROWS, QUICK_ROWS, GROUP, D, K = 5_000_000, 1_000_000, 1_000_000, 64, 10
CHECKED = 1_000  # rows


def write(path: Path, rows: int) -> None:
    """Write float32 columns and labels as pyarrow does by default."""
    writer = None
    for seed, first in enumerate(range(0, rows, GROUP)):
        problem = draw_problem(min(GROUP, rows - first), D, K, seed)
        columns = {f"x{j}": np.ascontiguousarray(problem.X[:, j]) for j in range(D)}
        table = pa.table({**columns, "y": problem.y})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def iterate(path: Path) -> None:
    """Read all rows as pyarrow does on one thread."""
    for _ in pq.ParquetFile(path).iter_batches(use_threads=False):
        pass


def shell(*words: str | Path) -> None:
    """Run fastsoftmax on the command line."""
    command = [sys.executable, "-m", "fastsoftmax", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True)


def check(model: fastsoftmax.Model, path: Path, out: Path) -> None:
    """Raise where the file of predictions differs from what NumPy makes of its first rows."""
    names = [f"x{j}" for j in range(D)]
    batch = next(pq.ParquetFile(path).iter_batches(CHECKED, columns=names))
    X = np.stack([column.to_numpy() for column in batch.columns], axis=1)
    rows = next(pq.ParquetFile(out).iter_batches(CHECKED))
    got = rows.column("probabilities").flatten().to_numpy().reshape(-1, K)
    np.testing.assert_allclose(got, model.predict_proba(X), rtol=1e-4, atol=1e-7)


def bench_scoring(benchmark, report, quick, tmp_path) -> None:
    """Time reading alone, evaluating and predicting."""
    n = QUICK_ROWS if quick else ROWS
    path, saved, out = tmp_path / "rows.parquet", tmp_path / "m.safetensors", tmp_path / "p.parquet"
    write(path, n)
    os.sync()  # or the system would write the rows while they are timed
    part = next(pq.ParquetFile(path).iter_batches(100_000))
    model = fastsoftmax.train(part, "y", epochs=1)
    model.save(saved)
    model = fastsoftmax.load(saved)
    shell("predict", saved, path, "--proba", "-o", out)
    check(model, path, out)
    cases = {
        "iterate": lambda: iterate(path),
        "evaluate": lambda: shell("evaluate", saved, path),
        "predict --proba": lambda: shell("predict", saved, path, "--proba", "-o", out),
        "fastsoftmax.evaluate": lambda: fastsoftmax.evaluate(model, path),
        "predict_proba": lambda: model.predict_proba(path),
    }
    seconds = median_seconds(benchmark, cases, 1 if quick else 5)
    for path_to in (path, out):
        path_to.unlink()  # the folder outlives the test
    for name, taken in seconds.items():
        report.add(
            f"Scoring: {n:,} rows of {D} float32 columns, {K} classes, from Parquet",
            case=name,
            **{"s": f"{taken:.2f}", "to iterate": f"{taken / seconds['iterate']:.2f}"},
        )
