"""What an epoch costs from each layout of the same rows, beside reading them and beside memory.

Images of 784 pixels, repeated to many more rows than the memory allowed holds. First epochs are
given as ratios to the time that pyarrow takes to iterate the same columns in one thread; later ones
to training from a NumPy matrix of as many rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from bench.bench_peers import load_data
from bench.interleave import median_seconds

ROWS, QUICK_ROWS, GROUP, D = 2_000_000, 40_000, 20_000, 784
MEMORY, QUICK_MEMORY = "500MB", "20MB"


def lists(X: np.ndarray) -> pa.Array:
    """Return rows as lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), D).cast(pa.list_(pa.uint8()))


def required(X: np.ndarray) -> pa.Array:
    """Return rows as lists of fixed size without nulls."""
    item = pa.field("item", pa.uint8(), nullable=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), type=pa.list_(item, D))


def in_layout(layout: str, X: np.ndarray, y: np.ndarray) -> pa.Table:
    """Return a table of rows X (n, D) uint8 and labels y."""
    label = pa.field("y", pa.int32(), nullable=False)
    if layout == "columns":
        fields = [pa.field(f"p{j}", pa.uint8(), nullable=False) for j in range(D)]
        arrays = [pa.array(np.ascontiguousarray(X[:, j])) for j in range(D)]
    else:
        column = required(X) if layout == "required list" else lists(X)
        fields = [pa.field("pixels", column.type, nullable=layout != "required list")]
        arrays = [column]
    return pa.Table.from_arrays([*arrays, pa.array(y)], schema=pa.schema([*fields, label]))


def write(layout: str, path: Path, batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write the rows, uncompressed, a row group at a time."""
    tables = (in_layout(layout, X, y) for X, y in batches)
    first = next(tables)
    if layout == "Arrow IPC":
        with pa.ipc.new_file(path, first.schema) as writer:
            writer.write_table(first)
            for table in tables:
                writer.write_table(table)
        return
    with pq.ParquetWriter(
        path, first.schema, compression="none", use_dictionary=False, write_page_checksum=True
    ) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def iterate(path: Path) -> int:
    """Read all rows as pyarrow does in one thread; return how many."""
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
    file = pq.ParquetFile(path, page_checksum_verification=True)
    return sum(batch.num_rows for batch in file.iter_batches(use_threads=False))


def epochs(data: object, target: object, **options: object) -> list[float]:
    """Train two epochs; return the seconds of each, the first with everything before it."""
    marks = [time.perf_counter()]

    def note(progress: fastsoftmax.Progress) -> None:
        if progress.finished:
            marks.append(time.perf_counter())

    fastsoftmax.train(data, target, epochs=2, learning_rate=1e-6, report=note, threads=1, **options)
    return np.diff(marks).tolist()


LAYOUTS = ("list", "required list", "columns", "packed uint8", "packed float32", "Arrow IPC")


@pytest.mark.parametrize("layout", LAYOUTS)
def bench_layouts(benchmark, report, quick, tmp_path, layout) -> None:
    """Time reading alone, first epochs with one reader and with two, and later epochs, in turn."""
    n = QUICK_ROWS if quick else ROWS
    images = load_data(GROUP)
    pixels, labels = (images.X * 255).astype(np.uint8), images.y.astype(np.int32)
    path = tmp_path / ("rows.arrow" if layout == "Arrow IPC" else "rows.parquet")
    batches = ((pixels, labels) for _ in range(n // GROUP))
    if layout.startswith("packed"):
        write("required list", tmp_path / "apart.parquet", batches)
        dtype = layout.removeprefix("packed ")
        fastsoftmax.pack(tmp_path / "apart.parquet", path, "y", dtype=dtype)
        (tmp_path / "apart.parquet").unlink()
    else:
        write(layout, path, batches)
    os.sync()  # or the system would write the rows while they are timed
    in_memory = max(n // 4 // GROUP, 1)  # a quarter of the rows: a matrix of all takes 1.6 GB
    X, y = np.tile(pixels, (in_memory, 1)), np.tile(labels, in_memory)
    if layout == "packed float32":
        X = X.astype(np.float32)
    memory = QUICK_MEMORY if quick else MEMORY
    first: dict[int, list[float]] = {1: [], 2: []}
    later: list[float] = []
    matrix: list[float] = []

    def train(readers: int) -> None:
        begun, went_on = epochs(path, "y", memory=memory, readers=readers)
        first[readers].append(begun)
        later.append(went_on / n)

    runs = {
        "iterate": lambda: iterate(path),
        "one reader": lambda: train(1),
        "two readers": lambda: train(2),
        "matrix": lambda: matrix.append(epochs(X, y)[1] / len(y)),
    }
    seconds = median_seconds(benchmark, runs, 1)
    path.unlink()  # the folder outlives the test
    alone = seconds["iterate"]
    report.add(
        f"Layouts: {n:,} rows of {D} uint8 pixels, memory={memory}, one thread trains",
        **{
            "layout": layout,
            "iterate, s": f"{alone:.2f}",
            "first epoch, one reader, s": f"{np.median(first[1]):.2f}",
            "to iterate": f"{np.median(first[1]) / alone:.2f}",
            "first epoch, two readers, s": f"{np.median(first[2]):.2f}",
            "with two to iterate": f"{np.median(first[2]) / alone:.2f}",
            "later epoch, rows/s": f"{1 / np.median(later):,.0f}",
            "NumPy in memory, rows/s": f"{1 / np.median(matrix):,.0f}",
            "later to NumPy": f"{np.median(matrix) / np.median(later):.2f}",
        },
    )


BUDGETS = ("300MB", "1GB", "4GB")


@pytest.mark.parametrize("layout", ["list", "columns"])
def bench_first_epoch(benchmark, report, quick, tmp_path, layout) -> None:
    """Time a first epoch, one reader and one trainer, with little memory and much, beside reading.

    All rows fit 1GB and 4GB.
    """
    n = QUICK_ROWS if quick else ROWS // 5
    images = load_data(GROUP)
    pixels, labels = (images.X * 255).astype(np.uint8), images.y.astype(np.int32)
    path = tmp_path / "rows.parquet"
    write(layout, path, ((pixels, labels) for _ in range(n // GROUP)))
    os.sync()  # or the system would write the rows while they are timed
    first: dict[str, list[float]] = {memory: [] for memory in BUDGETS}

    def train(memory: str) -> None:
        first[memory].append(epochs(path, "y", memory=memory, readers=1)[0])

    runs = {
        "iterate": lambda: iterate(path),
        **{memory: (lambda memory=memory: train(memory)) for memory in BUDGETS},
    }
    alone = median_seconds(benchmark, runs, 1 if quick else 7)["iterate"]
    path.unlink()
    for memory in BUDGETS:
        taken = float(np.median(first[memory]))
        report.add(
            f"A first epoch over {n:,} rows of {D} uint8 pixels: one reader, one thread trains",
            layout=layout,
            memory=memory,
            **{
                "iterate, s": f"{alone:.2f}",
                "first epoch, s": f"{taken:.2f}",
                "to iterate": f"{taken / alone:.2f}",
            },
        )


def bench_column_major(benchmark, report, quick) -> None:
    """Time `train` on the same matrix row by row and column by column."""
    images = load_data(6_000 if quick else 60_000)
    X, y = images.X, images.y
    by_column = np.asfortranarray(X)
    options = {"threads": 1, "learning_rate": 0.01}
    runs = {
        f"{epochs} epochs, {order}": (
            lambda data=data, epochs=epochs: fastsoftmax.train(data, y, epochs=epochs, **options)
        )
        for epochs in (1, 10)
        for order, data in (("rows", X), ("columns", by_column))
    }
    seconds = median_seconds(benchmark, runs, 1 if quick else 7)
    for epochs in (1, 10):
        taken = [seconds[f"{epochs} epochs, {order}"] for order in ("rows", "columns")]
        report.add(
            f"A matrix of {len(y):,} x {X.shape[1]} float32 that lies column by column",
            epochs=epochs,
            **{
                "row by row, s": f"{taken[0]:.3f}",
                "column by column, s": f"{taken[1]:.3f}",
                "ratio": f"{taken[1] / taken[0]:.2f}",
            },
        )
