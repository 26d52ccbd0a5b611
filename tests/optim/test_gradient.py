"""The full gradient against the plain mathematics: any number of threads, calls and parts."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.data.parts import Dense
from fastsoftmax.kernels.sizes import RANGE_SUMS, range_count
from fastsoftmax.optim.gradient import FullGradient
from tests import oracle

TOLERANCE = {"float32": 2e-6, "float64": 1e-13}


def problem(K, d, n, seed=0):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, d)), rng.integers(0, K, n).astype(np.int32)
    return (
        X,
        y,
        rng.random(n) * (rng.random(n) < 0.8),
        rng.normal(size=(K, d)) / 4,
        rng.normal(size=K),
    )


def summed(K, d, given, dtype="float64", threads=1, calls=1, kind=None):
    X, y, w, W, b = given
    X = X.astype(kind or dtype)
    with FullGradient(K, d, dtype, threads) as full:
        for _ in range(2):  # the second time must start from nothing
            full.begin(W, b)
            tallies = [
                full.add((Dense(X),), order, y[order], w[order])
                for order in np.array_split(np.arange(len(y)), calls)
            ]
        return *full.gradient(), sum(t.loss for t in tallies), sum(t.hits for t in tallies)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("K", "d", "n"),
    [(2, 3, 700), (7, 33, 90), (10, 320, 1500), (40, 20, 520), (3, 2, 1)],
)
def test_it_is_that_of_the_formula(K, d, n, dtype):
    given = X, y, w, W, b = problem(K, d, n)
    got_W, got_b, loss, hits = summed(K, d, given, dtype, threads=2, calls=3 if n > 3 else 1)
    Z = X @ W.T + b
    residuals = w[:, None] * (oracle.softmax(Z) - np.eye(K)[y])
    limit = TOLERANCE[dtype]
    scale = np.abs(residuals).T @ np.abs(X)
    assert (np.abs(got_W - residuals.T @ X) <= 20 * limit * scale + 1e-300).all()
    assert_allclose(got_b, residuals.sum(axis=0), rtol=0, atol=20 * limit * np.abs(residuals).sum())
    assert_allclose(loss, w @ oracle.losses(W, b, X, y), rtol=20 * limit)
    if dtype == "float64":
        assert_allclose(hits, w @ (Z.argmax(axis=1) == y))
        far = np.linalg.norm(got_W - residuals.T @ X)
        assert far <= 1e-12 * np.linalg.norm(residuals.T @ X)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("K", "d"), [(5, 40), (100, 30)])
def test_any_number_of_threads_gives_the_same_bits(K, d, dtype):
    given = problem(K, d, 3001)
    want = summed(K, d, given, dtype, threads=1, calls=2)
    for threads in (2, 3, 4, 16):
        for mine, theirs in zip(summed(K, d, given, dtype, threads, calls=2), want, strict=True):
            assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kind", ["uint8", "float16", "F"])
def test_rows_of_any_kind_are_taken(kind):
    X, y, w, W, b = problem(4, 20, 300)
    X = np.round(np.abs(X) * 8)
    want = summed(4, 20, (X, y, w, W, b))
    as_given = X.astype("float64", order="F") if kind == "F" else X
    got = summed(4, 20, (as_given, y, w, W, b), kind=None if kind == "F" else kind)
    for mine, theirs in zip(got, want, strict=True):
        assert_array_equal(mine, theirs)


def test_float64_sums_keep_what_float32_would_lose():
    X, y = np.ones((200_000, 1), np.float32), np.zeros(200_000, np.int32)
    with FullGradient(2, 1, "float32", 2) as full:
        full.begin(np.zeros((2, 1)), np.array([0.0, 1e-3]))
        full.add((Dense(X),), np.arange(len(y)), y, np.ones(len(y)))
        got, _ = full.gradient()
    p = 1 / (1 + np.exp(-np.float64(np.float32(1e-3))))
    assert_allclose(got[:, 0], [-200_000 * p, 200_000 * p], rtol=3e-6)


def test_features_that_are_not_finite_are_told():
    X, y, w, W, b = problem(3, 5, 100)
    X[77, 2] = np.inf
    with FullGradient(3, 5, "float64", 1) as full:
        full.begin(W, b)
        assert not full.add((Dense(X),), np.arange(100), y, w).finite
        assert full.add((Dense(X),), np.arange(70), y[:70], w[:70]).finite


def test_large_sums_have_few_ranges():
    assert range_count(10, 784) == 16
    assert range_count(1000, RANGE_SUMS // 500) == 8
    assert range_count(10_000, 1024) == 4


def test_sums_that_no_thread_shares_are_the_same_and_stay_with_whoever_asked():
    X, y, w, W, b = problem(7, 33, 90)
    want = summed(7, 33, (X, y, w, W, b))
    with FullGradient(7, 33, "float64", 1, ranges=1) as full:
        found = []
        for factor in (1.0, 2.0):
            full.begin(W, b)
            full.add((Dense(X),), np.arange(90), y, w * factor)
            found.append(full.gradient())
    assert_allclose(found[0][0], want[0], rtol=0, atol=1e-12 * np.abs(want[0]).max())
    assert_allclose(found[1][0], 2.0 * found[0][0], rtol=1e-12)
