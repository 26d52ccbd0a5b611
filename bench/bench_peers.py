"""How many rows a second one pass takes, beside other trainers of softmax regression.

All get the same rows: pixels of images where there are any (`make demo-fashion` fetches them), or
drawn ones. Each has its own search for a step size, over powers of ten and thrice those, on the
first rows (LogisticRegression for its C). Slow ones see fewer rows. What was learnt stands beside
their speed: the log-loss of rows never seen. Peers that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import fastsoftmax
from bench.conftest import draw_problem
from bench.interleave import median_seconds

FASHION = Path(__file__).parent.parent / "demo-out" / "fashion"
RATES = tuple(base * 10.0**power for power in range(-4, 1) for base in (1, 3))
SEARCHED = 6_000  # rows that a step size is chosen on

Train = Callable[[np.ndarray, np.ndarray, float], Callable[[np.ndarray], np.ndarray]]


class Data(NamedTuple):
    """Rows to learn from and rows to be measured on, float32 between 0 and 1."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def load_data(n: int) -> Data:
    """Return Fashion-MNIST where it is at hand, else drawn rows of its shape."""
    if FASHION.exists():
        pq = pytest.importorskip("pyarrow.parquet")

        def read(name: str) -> tuple[np.ndarray, np.ndarray]:
            read = pq.read_table(FASHION / f"fashion-{name}.parquet")
            y = read["label"].to_numpy().astype(np.int64)
            pixels = read.drop_columns(["label"]).column(0).combine_chunks()
            X = pixels.flatten().to_numpy().reshape(len(y), -1)
            return X.astype(np.float32) / np.float32(255), y

        X, y = read("train")
        return Data(X[:n], y[:n], *read("test"))
    drawn = draw_problem(n + 10_000, 784, 10)
    return Data(drawn.X[:n], drawn.y[:n], drawn.X[n:], drawn.y[n:])


def log_loss(proba: np.ndarray, y: np.ndarray) -> float:
    """Return the mean log-loss; a class held impossible counts as 1e-15."""
    return float(-np.log(np.maximum(proba[np.arange(len(y)), y], 1e-15)).mean())


def softmax(z: np.ndarray) -> np.ndarray:
    """Return probabilities of logits (n, K)."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def own(batch_size: int) -> Train:
    """fastsoftmax itself, everything counted: label scan, shuffle, training."""

    def train(X, y, rate):
        model = fastsoftmax.train(
            X, y, classes=range(10), epochs=1, threads=1, batch_size=batch_size, learning_rate=rate
        )
        return model.predict_proba

    return train


def by_numpy(batch_size: int) -> Train:
    """Mini-batches in plain NumPy."""

    def train(X, y, rate):
        W, b = np.zeros((10, X.shape[1]), np.float32), np.zeros(10, np.float32)
        order = np.random.default_rng(0).permutation(len(y))
        for start in range(0, len(y), batch_size):
            rows = order[start : start + batch_size]
            x = X[rows]
            g = softmax(x @ W.T + b)
            g[np.arange(len(rows)), y[rows]] -= 1
            g *= np.float32(rate / len(rows))
            W -= g.T @ x
            b -= g.sum(axis=0)
        return lambda X: softmax(X @ W.T + b)

    return train


def by_scikit_learn() -> Train:
    """SGDClassifier: ten classifiers, one against the rest."""
    linear_model = pytest.importorskip("sklearn.linear_model")

    def train(X, y, rate):
        model = linear_model.SGDClassifier(
            loss="log_loss",
            alpha=0,
            learning_rate="constant",
            eta0=rate,
            max_iter=1,
            tol=None,
            random_state=0,
        )
        return model.fit(X, y).predict_proba

    return train


def by_full_gradients(solver: str, passes: int) -> Train:
    """LogisticRegression: so many passes of a solver for the optimum, a little penalty."""
    linear_model = pytest.importorskip("sklearn.linear_model")

    def train(X, y, rate):
        model = linear_model.LogisticRegression(solver=solver, max_iter=passes, tol=1e-9, C=rate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged yet
            return model.fit(X, y).predict_proba

    return train


def by_torch(batch_size: int) -> Train:
    """A linear layer, cross-entropy and SGD, batches cut from one permutation."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)

    def train(X, y, rate):
        layer = torch.nn.Linear(X.shape[1], 10)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        steps = torch.optim.SGD(layer.parameters(), lr=rate)
        rows, labels = torch.from_numpy(X), torch.from_numpy(y)
        for batch in torch.randperm(len(y)).split(batch_size):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(layer(rows[batch]), labels[batch]).backward()
            steps.step()
        with torch.no_grad():
            W, b = layer.weight.numpy().copy(), layer.bias.numpy().copy()
        return lambda X: softmax(X @ W.T + b)

    return train


def by_river() -> Train:
    """River's softmax regression takes a row at a time, as a dictionary."""
    linear_model = pytest.importorskip("river.linear_model")
    optim = pytest.importorskip("river.optim")

    def train(X, y, rate):
        model = linear_model.SoftmaxRegression(optim.SGD(rate), l2=0)
        for row, label in zip(X, y, strict=True):
            model.learn_one(dict(enumerate(row.tolist())), int(label))

        def proba(X):
            told = [model.predict_proba_one(dict(enumerate(row.tolist()))) for row in X]
            return np.array([[row.get(k, 0.0) for k in range(10)] for row in told])

        return proba

    return train


def by_vowpal_wabbit(folder: Path) -> Train:
    """One against all, from its binary cache; --quiet. Its cache is written before it is timed."""
    vw = pytest.importorskip("vowpalwabbit")

    def cache_of(X, y):
        text, cache = folder / f"{len(y)}.txt", folder / f"{len(y)}.cache"
        if not cache.exists():
            with text.open("w") as lines:
                for row, label in zip(X, y, strict=True):
                    there = np.flatnonzero(row)
                    words = " ".join(f"{j}:{row[j]:g}" for j in there)
                    lines.write(f"{label + 1} | {words}\n")
            vw.Workspace(f"--oaa 10 -d {text} --cache_file {cache} --quiet").finish()
        return text, cache

    def train(X, y, rate):
        text, cache = cache_of(X, y)
        model = vw.Workspace(
            f"--oaa 10 --loss_function logistic -l {rate} --probabilities "
            f"-d {text} --cache_file {cache} --quiet"
        )

        def proba(X):
            rows = (" ".join(f"{j}:{row[j]:g}" for j in np.flatnonzero(row)) for row in X)
            return np.array([model.predict(f"| {words}") for words in rows])

        return proba

    return train


def bench_peers(benchmark, report, quick) -> None:
    """Search each peer's step size, then time one pass of each in turn."""
    n, rates_tried = (3_000, RATES[1::3]) if quick else (60_000, RATES)
    data = load_data(n)
    test = slice(0, 200 if quick else 2_000)
    with tempfile.TemporaryDirectory() as folder:
        # How each is made, the share of the rows it sees, and the module it needs.
        makers: dict[str, tuple[Callable[[], Train], float, str]] = {
            "fastsoftmax, every row a step": (lambda: own(1), 1, "numpy"),
            "fastsoftmax, batches of 64": (lambda: own(64), 1, "numpy"),
            "NumPy, batches of 64": (lambda: by_numpy(64), 1, "numpy"),
            "NumPy, batches of 1,024": (lambda: by_numpy(1024), 1, "numpy"),
            "scikit-learn SGDClassifier": (by_scikit_learn, 1, "sklearn"),
            "scikit-learn LogisticRegression, lbfgs, 20 iterations": (
                lambda: by_full_gradients("lbfgs", 20), 1, "sklearn",
            ),
            "scikit-learn LogisticRegression, saga, 3 passes": (
                lambda: by_full_gradients("saga", 3), 1, "sklearn",
            ),
            "PyTorch, every row a step": (lambda: by_torch(1), 0.1, "torch"),
            "PyTorch, batches of 64": (lambda: by_torch(64), 1, "torch"),
            "PyTorch, batches of 1,024": (lambda: by_torch(1024), 1, "torch"),
            "Vowpal Wabbit, from its cache": (
                lambda: by_vowpal_wabbit(Path(folder)), 1, "vowpalwabbit",
            ),
            "River": (by_river, 0.02, "river"),
        }  # fmt: skip
        runs, rates, rows = {}, {}, {}
        for name, (make, share, module) in makers.items():
            if importlib.util.find_spec(module) is None:
                continue
            train, rows[name] = make(), int(n * share)
            searched = slice(0, min(SEARCHED, rows[name]))
            losses = {}
            for rate in rates_tried:
                proba = train(data.X[searched], data.y[searched], rate)
                losses[rate] = log_loss(proba(data.X_test[test]), data.y_test[test])
            rates[name] = min(losses, key=losses.__getitem__)
            part = slice(0, rows[name])
            X, y = np.ascontiguousarray(data.X[part]), data.y[part]
            runs[name] = lambda train=train, X=X, y=y, rate=rates[name]: train(X, y, rate)
        learnt = {
            name: log_loss(run()(data.X_test[test]), data.y_test[test])
            for name, run in runs.items()
        }
        seconds = median_seconds(benchmark, runs, 1 if quick else 5)
    first = rows["fastsoftmax, every row a step"] / seconds["fastsoftmax, every row a step"]
    for name, taken in seconds.items():
        speed = rows[name] / taken
        report.add(
            "Peers: images of 784 pixels in 10 classes, one pass unless said, one thread",
            **{
                "trainer": name,
                "seconds": f"{taken:.3f}",
                "rows/s": f"{speed:,.0f}",
                "fastsoftmax is faster by": f"{first / speed:.1f}",
                "step size": f"{rates[name]:g}",
                "log-loss after it": f"{learnt[name]:.4f}",
            },
        )
