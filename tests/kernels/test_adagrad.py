"""AdaGrad: each step that of the plain mathematics; useful where features are of unlike scales."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax.kernels.adagrad import LEAST
from tests import oracle

# Labels drawn by chance are learnt by nobody.
pytestmark = pytest.mark.filterwarnings("ignore:after epoch")


def descended(X, y, w, eta, *, l2, l1, fit_intercept):
    """AdaGrad in plain NumPy: weights, biases, and the sum of the weights after each step."""
    K, d = int(y.max()) + 1, X.shape[1]
    W, b, total = np.zeros((K, d)), np.zeros(K), np.zeros((K, d))
    G, B = np.full((K, d), LEAST), np.full(K, LEAST)
    for t in np.flatnonzero(w > 0):
        r = oracle.softmax(W @ X[t] + b)
        r[y[t]] -= 1
        g = w[t] * (np.outer(r, X[t]) + l2 * W)
        G += g * g
        own = eta / np.sqrt(G)
        W = W - own * g
        W = np.sign(W) * np.maximum(np.abs(W) - own * w[t] * l1, 0.0)
        B += (w[t] * r) ** 2
        if fit_intercept:
            b = b - eta * w[t] * r / np.sqrt(B)
        total += W
    return W, b, total / np.count_nonzero(w)


@pytest.mark.parametrize("K", [2, 5])
@pytest.mark.parametrize(("l2", "l1"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.02)])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_steps_are_those_of_the_oracle(K, l2, l1, fit_intercept):
    X, y, w, _ = oracle.problem(K, 7, 150, seed=3)
    model = fastsoftmax.train(
        X, y, weight=w, adaptive=True, learning_rate=0.1, schedule="constant", epochs=1, l2=l2,
        l1=l1, fit_intercept=fit_intercept, shuffle="off", dtype="float64", average=False,
    )  # fmt: skip
    w = w / w[w > 0].mean()
    W, b, _ = descended(X, y, w, 0.1, l2=l2, l1=l1, fit_intercept=fit_intercept)
    assert_allclose(model.coef, W, rtol=1e-9, atol=1e-11)
    assert_allclose(model.intercept, b, rtol=1e-9, atol=1e-11)


def test_the_average_is_over_all_steps():
    X, y, w, _ = oracle.problem(3, 7, 150, seed=4)
    model = fastsoftmax.train(
        X, y, weight=w, adaptive=True, learning_rate=0.1, schedule="constant", epochs=1,
        shuffle="off", dtype="float64", average=True,
    )  # fmt: skip
    w = w / w[w > 0].mean()
    _, _, mean = descended(X, y, w, 0.1, l2=0.0, l1=0.0, fit_intercept=True)
    assert_allclose(model.coef, mean, rtol=1e-9, atol=1e-11)


def test_features_of_unlike_scales_are_learnt_at_one_step_size():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 6))
    y = (X @ rng.normal(size=(6, 3))).argmax(axis=1)
    scaled = X * np.array([1.0, 100.0, 0.01, 1.0, 30.0, 0.1])
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    losses = {
        adaptive: fastsoftmax.sweep(
            scaled, y, adaptive=adaptive, learning_rate=rates, epochs=3, halve=False
        ).table[0]["log_loss"]
        for adaptive in (False, True)
    }
    assert losses[True] < 0.8 * losses[False]


def test_the_result_does_not_depend_on_threads():
    X, y, _, _ = oracle.problem(4, 30, 400, seed=5)
    one, four = (
        fastsoftmax.train(X, y, adaptive=True, learning_rate=0.1, epochs=2, threads=threads)
        for threads in (1, 4)
    )
    assert_array_equal(one.weights, four.weights)
