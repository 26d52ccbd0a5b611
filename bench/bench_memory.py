"""How much memory a run holds: for two data sets larger than that, one five times the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.bench_layouts import GROUP, D, write

MEMORY = "150MB"
# Run in a process of its own, which first has everything loaded that a run needs.
CHILD = """
import sys, threading, time, warnings
import numpy as np
import fastsoftmax, fastsoftmax.data.parquet

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


def held_by(path: Path) -> tuple[float, float]:
    """Return what a process holds before a run on `path`, and how much more at its peak, in MB."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), MEMORY], capture_output=True, text=True, check=True
    )
    before, more = map(float, done.stdout.split())
    return before, more


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
