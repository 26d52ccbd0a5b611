"""Data sets of all kinds, made from a seed: scales, tails, imbalance, classes, shapes.

Each is a Problem: rows to train on, rows to test on, and what is odd about it. `bench_defaults.py`
compares default runs on them with the best of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Columns = Callable[[np.random.Generator, int, int], np.ndarray]


class Problem(NamedTuple):
    """X (n, d) and y (n,) to train on, and others to test on."""

    name: str
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def normal(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return columns without surprises."""
    return random.standard_normal((n, d))


def student(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return columns a fifth of which have tails so heavy that they have no variance."""
    X = random.standard_normal((n, d))
    X[:, : max(1, d // 5)] = random.standard_t(1.2, (n, max(1, d // 5)))
    return X


def lognormal(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return columns a fifth of which are lognormal, sigma 2."""
    X = random.standard_normal((n, d))
    X[:, : max(1, d // 5)] = np.exp(2 * X[:, : max(1, d // 5)])
    return X


def pareto(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return columns half of which are Pareto, index 1.5."""
    X = random.standard_normal((n, d))
    X[:, : d // 2] = random.pareto(1.5, (n, d // 2))
    return X


def contaminated(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return normal columns in which one value of a thousand is a thousand times larger."""
    X = random.standard_normal((n, d))
    return np.where(random.random((n, d)) < 1e-3, 1000 * X, X)


def unlike(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return columns whose scales run over ten powers of ten, and whose means are far from 0."""
    scales = 10.0 ** random.uniform(-5, 5, d)
    return (random.standard_normal((n, d)) + random.uniform(-50, 50, d)) * scales


def rare(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return indicators, most of them of one row in some hundred or thousand."""
    return (random.random((n, d)) < 10.0 ** random.uniform(-3.5, -0.5, d)).astype(float)


def counts(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return counts of unlike means."""
    return random.poisson(10.0 ** random.uniform(-2, 2, d), (n, d)).astype(float)


def collinear(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return columns that are nearly sums of a few others."""
    few = random.standard_normal((n, max(2, d // 4)))
    return few @ random.standard_normal((few.shape[1], d)) + 0.01 * random.standard_normal((n, d))


def drifting(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return columns whose mean and spread grow from the first row to the last."""
    time = np.linspace(0, 1, n)[:, None]
    return random.standard_normal((n, d)) * (1 + 9 * time) + 10 * time


def places(random: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return indicators of places, some of which hardly any row is at, and how far away they are,
    to a hundredth; the last columns are normal.
    """
    among = d - 6
    at = random.choice(among, n, p=random.dirichlet(np.full(among, 0.3)))
    far = random.lognormal(0, 1, among)[at] + 0.01 * random.standard_normal(n)
    return np.column_stack([np.eye(among)[at], far, random.standard_normal((n, 5))])


# name: columns, rows, features, classes, and how sharply the classes are told apart.
KINDS: dict[str, tuple[Columns, int, int, int, float]] = {
    "normal": (normal, 20_000, 20, 5, 1.5),
    "normal, two classes": (normal, 20_000, 20, 2, 1.5),
    "normal, many classes": (normal, 20_000, 16, 60, 3.0),
    "normal, wide": (normal, 2_000, 300, 4, 2.0),
    "normal, few rows": (normal, 200, 10, 3, 1.5),
    "normal, more features than rows": (normal, 300, 400, 3, 2.0),
    "normal, long": (normal, 150_000, 12, 3, 1.0),
    "noise": (normal, 5_000, 20, 4, 0.0),
    "separable": (normal, 5_000, 20, 4, 60.0),
    "separable, wide": (normal, 3_000, 500, 5, 60.0),
    "student t": (student, 50_000, 40, 5, 2.0),
    "student t, two classes": (student, 20_000, 10, 2, 2.0),
    "student t, few rows": (student, 1_500, 20, 3, 2.0),
    "lognormal": (lognormal, 50_000, 40, 5, 2.0),
    "lognormal, many classes": (lognormal, 20_000, 20, 30, 3.0),
    "pareto": (pareto, 30_000, 30, 4, 2.0),
    "pareto, few rows": (pareto, 1_500, 12, 3, 2.0),
    "contaminated": (contaminated, 30_000, 20, 5, 2.0),
    "contaminated, wide": (contaminated, 8_000, 200, 10, 2.0),
    "unlike scales": (unlike, 20_000, 20, 4, 2.0),
    "unlike scales, two classes": (unlike, 5_000, 40, 2, 2.0),
    "unlike scales, wide": (unlike, 5_000, 250, 10, 2.0),
    "rare features": (rare, 50_000, 60, 4, 4.0),
    "rare features, wide": (rare, 20_000, 400, 5, 6.0),
    "counts": (counts, 20_000, 30, 5, 2.0),
    "counts, many classes": (counts, 20_000, 30, 40, 3.0),
    "collinear": (collinear, 10_000, 40, 5, 2.0),
    "collinear, wide": (collinear, 4_000, 300, 5, 2.0),
    "drift": (drifting, 30_000, 20, 4, 2.0),
    "imbalance": (normal, 50_000, 20, 6, 2.0),
    "imbalance, tails": (student, 50_000, 20, 8, 2.0),
    "imbalance, places": (places, 60_000, 120, 14, 12.0),
    "imbalance, few rows at places": (places, 6_000, 60, 9, 20.0),
    "mixture": (unlike, 40_000, 30, 5, 2.0),
}


def problem(name: str, seed: int = 0) -> Problem:
    """Return one of KINDS, made from a seed of its own."""
    columns, n, d, K, sharpness = KINDS[name]
    random = np.random.default_rng([seed, *name.encode()])
    tests = max(2_000, n // 4)
    X = columns(random, n + tests, d)
    if name == "mixture":  # tails of another kind beside
        X[:, : d // 2] = lognormal(random, len(X), d // 2)
    low, middle, high = np.quantile(X, [0.1, 0.5, 0.9], axis=0)
    width = np.where(high > low, high - low, np.maximum(X.std(axis=0), 1e-300) * 2.5)
    Z = np.clip((X - middle) / width * 2.5, -6, 6)
    logits = sharpness * Z @ random.standard_normal((d, K)) / np.sqrt(d)
    if name.startswith("imbalance"):
        logits -= 2.0 * np.arange(K)
    y = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    order = np.arange(len(X)) if name == "drift" else random.permutation(len(X))
    held = np.zeros(len(X), np.bool_)
    held[random.permutation(len(X))[:tests]] = True
    kept, held_out = order[~held[order]], order[held[order]]
    X = X.astype(np.float32) if name not in ("unlike scales", "mixture") else X
    return Problem(name, X[kept], y[kept], X[held_out], y[held_out])


def problems(seed: int = 0) -> Iterator[Problem]:
    """Yield all of them."""
    for name in KINDS:
        yield problem(name, seed)
