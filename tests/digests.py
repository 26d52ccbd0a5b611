"""Digests of what some forty runs learn: whether a change to the code changed a single bit.

    python -m tests.digests save FILE       before the change
    python -m tests.digests compare FILE    after it, on the same machine

Every update rule, solver and kind of data has its run, by hand and by default. The bits are those
of one kind of processor and one set of package versions, so a file of digests is kept where it was
made. Only public names are used, so that the tool can stand beside any version of the package.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import fastsoftmax

BY_HAND = {"learning_rate": 0.05, "epochs": 2}
# One problem for each update rule: rows, K, d and options.
RULES: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "binary": (9000, 2, 28, {}),
    "rowwise": (9000, 4, 16, {}),
    "blocks": (5000, 64, 64, {}),
    "lookahead": (700, 600, 512, {"threads": 2}),
    "panels": (3000, 10, 784, {"threads": 2}),
    "mini-batches": (5000, 10, 40, {"batch_size": 24, "learning_rate": 0.5}),
    "AdaGrad": (5000, 10, 40, {"adaptive": True, "l1": 1e-4, "l2": 1e-3}),
    "l1": (5000, 10, 40, {"l1": 1e-3}),
    "penalties of features": (5000, 10, 40, {"learning_rate": "auto", "standardize": True}),
}
SOLVERS: dict[str, dict[str, Any]] = {
    "default": {},
    "default, l2 given": {"l2": 1e-3},
    "default, l1": {"l1": 1e-3},
    "default, no intercept": {"fit_intercept": False},
    "default, validation": {"holdout": 0.2, "patience": 2, "epochs": 8},
    "default, AdaGrad": {"adaptive": True, "epochs": 3},
    "default, mini-batches": {"batch_size": 16, "epochs": 3},
    "full gradients": {"solver": "lbfgs", "l2": 1e-4},
    "full gradients, l1": {"solver": "lbfgs", "l1": 1e-3},
    "full gradients, float64": {"solver": "lbfgs", "dtype": "float64", "tolerance": 1e-9},
}


def problem(n: int, K: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (n, d) float32 and classes (n,) that a linear model tells apart, but for some."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, d)).astype(np.float32) * np.geomspace(0.3, 3, d, dtype=np.float32)
    z = X @ random.normal(size=(d, K)).astype(np.float32) / np.sqrt(d)
    return X, (z + random.gumbel(size=(n, K))).argmax(axis=1)


def runs(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of each run, and what trains its model."""
    for name, (n, K, d, options) in RULES.items():
        X, y = problem(n, K, d)
        for average in (False, True):
            told = {**BY_HAND, **options, "average": average}
            label = f"{name}{', averaged' if average else ''}"
            yield label, lambda X=X, y=y, told=told: fastsoftmax.train(X, y, **told)
    X, y = problem(4000, 5, 30, seed=1)
    for name, told in SOLVERS.items():
        yield name, lambda told=told: fastsoftmax.train(X, y, **told)
    yield from data_runs(folder, X, y)


def data_runs(
    folder: Path, X: np.ndarray, y: np.ndarray
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield runs over each kind of data."""
    train = fastsoftmax.train
    columns = {f"x{j}": column for j, column in enumerate(X.T)}
    table = pa.table({**columns, "y": y, "w": np.linspace(0.0, 2.0, len(y))})
    pq.write_table(table, folder / "columns.parquet", row_group_size=700)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    pq.write_table(pa.table({"v": lists, "y": y}), folder / "lists.parquet", row_group_size=700)
    fastsoftmax.pack(
        folder / "columns.parquet", folder / "packed.parquet", "y", features=list(columns)
    )
    ordered = table.take(np.argsort(y, kind="stable"))
    pq.write_table(ordered, folder / "sorted.parquet", row_group_size=700)
    windows = {**BY_HAND, "shuffle_window": 1024}
    for kind in ("columns", "lists", "packed"):
        path = folder / f"{kind}.parquet"
        yield kind, lambda path=path: train(path, "y")
        yield f"{kind}, windows", lambda path=path: train(path, "y", **windows)
    for cache in ("disk", "off"):
        told = {**windows, "cache": cache, "holdout": 0.1}
        yield f"cache {cache}", lambda told=told: train(folder / "columns.parquet", "y", **told)
    dealt = {**windows, "shuffle": "full"}
    yield "buckets", lambda: train(folder / "sorted.parquet", "y", **dealt)
    yield "in order", lambda: train(table, "y", shuffle="off", epochs=2)
    yield "weights", lambda: train(table, "y", weight="w", class_weight="balanced")
    mixed = with_categories(table)
    for nulls in ("mean", "zero", "drop"):
        told = {"categorical": ["c"], "nulls": nulls, "null_indicators": nulls == "zero"}
        yield f"categories, nulls {nulls}", lambda told=told: train(mixed, "y", **told)
    yield (
        "one pass",
        lambda: train(table.to_reader(), "y", classes=range(5), learning_rate=0.05, l2=1e-3),
    )
    for name, dtype in (("columns in memory", np.float64), ("whole numbers", np.int16)):
        matrix = np.asfortranarray((X * 8).astype(dtype))
        yield name, lambda matrix=matrix: train(matrix, y, epochs=2)
    yield "validation beside", lambda: train(X[500:], y[500:], validation=(X[:500], y[:500]))
    yield (
        "from another model",
        lambda: train(X[2000:], y[2000:], init=train(X[:2000], y[:2000], **BY_HAND), **BY_HAND),
    )
    yield (
        "many settings",
        lambda: (
            fastsoftmax.sweep(X, y, learning_rate=[0.01, 0.1, 1.0], l2=[0.0, 1e-2], epochs=2).best
        ),
    )
    yield "calibrated", lambda: fastsoftmax.calibrate(train(X, y, **BY_HAND), X[:900], y[:900])


def with_categories(table: pa.Table) -> pa.Table:
    """Return the table with a column of categories, and nulls in two columns."""
    random = np.random.default_rng(2)
    n = len(table)
    words = pa.array(np.array(["red", "green", "blue"])[random.integers(0, 3, n)])
    gaps = pa.array(random.normal(size=n), mask=random.random(n) < 0.1)
    return table.append_column("c", words).append_column("g", gaps).drop_columns(["w"])


def digest(model: Any) -> str:
    """Return a digest of a model's weights and of what its features are scaled by."""
    found = hashlib.sha256(model.weights.tobytes() + model.bias.tobytes())
    found.update(model.coef.tobytes() + model.intercept.tobytes())
    losses = [[epoch["rows"], epoch["log_loss"], epoch["accuracy"]] for epoch in model.history]
    found.update(json.dumps(losses).encode())
    return found.hexdigest()


def digests() -> dict[str, str]:
    """Train all models; return the digest of each."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, train in runs(Path(folder)):
            found[name] = digest(train())
    return found


def main(verb: str, path: str) -> int:
    """Save the digests, or compare them with those saved; return the exit code."""
    found = digests()
    if verb == "save":
        Path(path).write_text(json.dumps(found, indent=1))
        sys.stdout.write(f"{len(found)} digests saved to {path}\n")
        return 0
    saved = json.loads(Path(path).read_text())
    differing = [name for name in {**saved, **found} if saved.get(name) != found.get(name)]
    for name in differing:
        sys.stdout.write(f"other bits: {name}\n")
    sys.stdout.write(f"{len(found) - len(differing)} of {len(found)} digests are the same\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
