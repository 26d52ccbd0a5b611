"""How much memory a run holds: for two data sets larger than that, one five times the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.bench_layouts import GROUP, D, write

MEMORY = "150MB"
# Run in a process of its own, which first has everything loaded that a run needs.
CHILD = """
import sys, threading, time, warnings
import numpy as np
import fastsoftmax, fastsoftmax.data.formats.parquet

def held():
    with open("/proc/self/status") as file:
        facts = dict(line.split(":", 1) for line in file)
    return sum(int(facts[name].split()[0]) for name in ("RssAnon", "RssFile")) / 1024

def watch():
    while not stopped.is_set():
        peak.append(held())
        time.sleep(0.005)

warnings.simplefilter("ignore")
path, memory = sys.argv[1:]
X = np.zeros((100, 784), np.uint8)
fastsoftmax.train(X, np.arange(100) % 10, epochs=1)
before, peak, stopped = held(), [0.0], threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
fastsoftmax.train(path, "y", epochs=2, memory=memory, learning_rate=1e-6)
stopped.set()
watcher.join()
print(before, max(peak) - before)
"""


def held_by(path: Path, memory: str = MEMORY) -> tuple[float, float]:
    """Return what a process holds before a run on `path`, and how much more at its peak, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), memory], capture_output=True, text=True, check=True
    )
    before, more = map(float, done.stdout.split())
    return before, more


def write_columns(path: Path, columns: int, rows: int, groups: int) -> None:
    """Write row groups of float32 columns."""
    rng = np.random.default_rng(0)
    X = rng.random((columns, rows), np.float32)
    named = {f"x{j}": X[j] for j in range(columns)}
    table = pa.table({**named, "y": rng.integers(0, 10, rows)})
    with pq.ParquetWriter(path, table.schema, compression="none", use_dictionary=False) as writer:
        for _ in range(groups):
            writer.write_table(table)


# Columns, rows of a row group, row groups, memory: the pages of a row group exceed their share.
WIDE = (
    (784, 20_000, 10, "150MB"),
    (784, 20_000, 50, "150MB"),
    (2_000, 40_000, 1, "100MB"),
    (2_000, 40_000, 5, "100MB"),
)


@pytest.mark.parametrize(("columns", "rows", "groups", "memory"), WIDE)
def bench_memory_of_columns(
    benchmark, report, quick, tmp_path, columns, rows, groups, memory
) -> None:
    """Train two epochs on scalar columns that are read some at a time."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    if quick and (columns, groups) != (WIDE[0][0], WIDE[0][2]):
        pytest.skip("one of them is enough for a look")
    groups = 1 if quick else groups
    path = tmp_path / "wide.parquet"
    write_columns(path, columns, rows, groups)
    found: list[tuple[float, float]] = []
    benchmark.pedantic(
        lambda: found.append(held_by(path, memory)), rounds=1 if quick else 3, iterations=1
    )
    path.unlink()
    before, more = np.median(found, axis=0)
    report.add(
        "Memory of a run on scalar columns of float32 in Parquet",
        **{
            "columns": f"{columns:,}",
            "MB of a row group": f"{rows * columns * 4 / 1e6:.0f}",
            "row groups": groups,
            "memory": memory,
            "MB before": f"{before:.0f}",
            "MB more at the peak": f"{more:.0f}",
        },
    )


def bench_memory(benchmark, report, quick, tmp_path) -> None:
    """Train two epochs on both, in turn; the peaks must not grow with the rows."""
    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (GROUP, D)).astype(np.uint8)
    y = rng.integers(0, 10, GROUP).astype(np.int32)
    sizes = (2, 4) if quick else (10, 50)  # row groups
    for size in sizes:
        write("list", tmp_path / f"{size}.parquet", ((X, y) for _ in range(size)))
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}

    def one_round() -> None:
        for size in sizes:
            found[size].append(held_by(tmp_path / f"{size}.parquet"))

    benchmark.pedantic(one_round, rounds=1 if quick else 3, iterations=1)
    first = float(np.median([more for _, more in found[sizes[0]]]))
    for size in sizes:
        before, more = np.median(found[size], axis=0)
        report.add(
            f"Memory of a run at memory={MEMORY}, rows of {D} uint8 pixels in Parquet lists",
            **{
                "rows": f"{size * GROUP:,}",
                "MB decoded": f"{size * GROUP * D / 1e6:,.0f}",
                "MB before": f"{before:.0f}",
                "MB more at the peak": f"{more:.0f}",
                "to the smaller": f"{more / first:.2f}",
            },
        )
        (tmp_path / f"{size}.parquet").unlink()
