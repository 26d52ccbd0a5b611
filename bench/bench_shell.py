"""What users feel first: seconds from the command to the saved model, beside scikit-learn.

Both are processes of their own that read the same Parquet file, and take turns: a default run, and
a script with StandardScaler + LogisticRegression(C=1, max_iter=100). Test losses stand beside them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from bench.bench_peers import load_data
from bench.conftest import FIRST, draw_problem
from bench.interleave import median_seconds

# Rows, features and classes of tables like well-known ones.
TABLES = {
    "300,000 x 40": (300_000, 40, 5),
    "like Letter": (15_000, 16, 26),
    "like shuttle": (43_500, 9, 7),
}
TESTS = 5_000  # rows

PEER = """
import sys
import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def rows(path):
    table = pq.read_table(path)
    names = [name for name in table.column_names if name != "y"]
    X = table[names[0]].combine_chunks()
    if len(names) == 1:
        X = X.flatten().to_numpy().reshape(table.num_rows, -1).astype(np.float32)
    else:
        X = np.column_stack([table[name].to_numpy() for name in names])
    return X, table["y"].to_numpy()

fit = make_pipeline(StandardScaler(), LogisticRegression(C=1, max_iter=100)).fit(*rows(sys.argv[1]))
if len(sys.argv) > 2:
    X, y = rows(sys.argv[2])
    print(log_loss(y, fit.predict_proba(X)))
"""


def write(folder: Path, name: str, quick: bool) -> tuple[Path, Path]:
    """Write rows to train on and rows to test on; return their paths."""
    paths = folder / "train.parquet", folder / "test.parquet"
    if name == "Fashion-MNIST":
        data = load_data(3_000 if quick else 60_000)
        for path, X, y in ((paths[0], data.X, data.y), (paths[1], data.X_test, data.y_test)):
            pixels = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
            pq.write_table(pa.table({"pixels": pixels, "y": y}), path)
        return paths
    n, d, K = TABLES[name]
    n = n // 10 if quick else n
    problem = draw_problem(n + TESTS, d, K, 0)
    for path, some in ((paths[0], slice(0, n)), (paths[1], slice(n, None))):
        columns = {f"x{j}": np.ascontiguousarray(problem.X[some, j]) for j in range(d)}
        pq.write_table(pa.table({**columns, "y": problem.y[some]}), path)
    return paths


def run(*words: str | Path) -> str:
    """Run Python with these words; return what it printed."""
    # Some machines choose for OpenBLAS what slows the peer down.
    own = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=own)
    return done.stdout


@pytest.mark.parametrize("name", [*TABLES, "Fashion-MNIST"])
def bench_shell(benchmark, report, quick, tmp_path, name) -> None:
    """Time both from the shell, after a run each that is not measured."""
    pytest.importorskip("sklearn")
    train, test = write(tmp_path, name, quick)
    saved, script = tmp_path / "m.safetensors", tmp_path / "peer.py"
    script.write_text(PEER)
    ours = ("-m", "fastsoftmax", "train", train, "--target", "y", "-o", saved, "--quiet")
    cases = {
        "fastsoftmax train": lambda: run(*ours),
        "scikit-learn": lambda: run("-W", "ignore", script, train),
    }
    seconds = median_seconds(benchmark, cases, 1 if quick else 5)
    losses = {
        "fastsoftmax train": fastsoftmax.evaluate(fastsoftmax.load(saved), test, "y").log_loss,
        "scikit-learn": float(run("-W", "ignore", script, train, test)),
    }
    for case, taken in seconds.items():
        report.add(
            FIRST,
            data=name,
            case=case,
            s=f"{taken:.2f}",
            sooner=f"{seconds['scikit-learn'] / taken:.1f}",
            **{"test log-loss": f"{losses[case]:.4f}"},
        )
