"""Penalties and stopping: the objective of scikit-learn, exact zeros, the best weights kept."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression

import fastsoftmax
from fastsoftmax.data.parts import Dense
from fastsoftmax.kernels.bounds import CAP, OFF
from fastsoftmax.kernels.stretches import STRETCH_ROWS
from fastsoftmax.optim.objective import ElasticNet, Objective
from fastsoftmax.optim.passes import LocalPass, PassRows
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.options import TrainOptions
from tests import oracle
from tests.optim.descents import Trained, relative

sklearn_version = tuple(map(int, sklearn.__version__.split(".")[:2]))


def problem(K: int = 4, d: int = 8, n: int = 600, seed: int = 0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = (X @ rng.normal(size=(d, K)) + rng.gumbel(size=(n, K))).argmax(axis=1)
    return X, y


def objective(model, X, y, l2=0.0, l1=0.0):
    w = np.ones(len(y))
    smooth = oracle.objective(model.coef, model.intercept, X, y, w, l2)
    return smooth + l1 * np.abs(model.coef).sum()


def reference(X, y, *, l2=0.0, l1=0.0):
    """Return what scikit-learn finds, in whose terms C is 1 / (strength n)."""
    strength = l2 + l1
    kind = {"solver": "saga", "l1_ratio": l1 / strength} if l1 else {"solver": "lbfgs"}
    if l1 and sklearn_version < (1, 8):
        kind["penalty"] = "elasticnet"
    C = 1 / (strength * len(y))
    return LogisticRegression(C=C, tol=1e-9, max_iter=100_000, **kind).fit(X, y)


@pytest.mark.parametrize("bound", [OFF, CAP])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize(
    ("rule", "K", "d"),
    [("plain", 3, 5), ("pairwise", 2, 7), ("narrow", 10, 20), ("panels", 10, 600)],
)
def test_kernels_let_penalties_of_features_act_after_each_stretch_of_rows(
    rule, K, d, average, bound
):
    n, settings = 2 * STRETCH_ROWS + 100, {"bound": "cap"} if bound else {}
    X, y, w, eta = oracle.problem(K, d, n, seed=d)
    own, want = np.geomspace(1e-4, 1e-1, d), oracle.zeros(K, d)
    for first in range(0, n, STRETCH_ROWS):
        some = slice(first, first + STRETCH_ROWS)
        step = (eta * w)[some]
        if bound:
            step = np.minimum(step, 1 / (1 + np.square(X[some]).sum(axis=1)))
        want = oracle.descend(want, X[some], y[some], w[some], eta[some], **settings)
        want.W *= np.maximum(0.0, 1.0 - own * step.sum())
    problem, kept = (X, y, w, eta), {"average": average, "own": own, "bound": bound, "K": K}
    got = Trained(rule, problem, np.float64, **kept)
    assert relative(got.W, want.W) < 1e-11
    assert_allclose(got.b, want.b, atol=1e-11)
    assert_allclose(got.tally.loss, want.loss, rtol=1e-11)
    if average:
        assert relative(got.average.W[:, :d], want.W_sum) < 1e-11
    if rule == "panels":
        shared = Trained(rule, problem, np.float64, threads=2, **kept)
        assert_array_equal(shared.W, got.W)


def test_penalties_of_features_come_near_those_of_each_step():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 8)) * np.geomspace(0.5, 2.0, 8)
    y = (X @ rng.normal(size=(8, 4)) + rng.gumbel(size=(20_000, 4))).argmax(axis=1)
    eta, l2 = 1e-3, np.geomspace(1e-5, 4e-4, 8)
    options = TrainOptions.of(learning_rate=eta, epochs=1, dtype="float64", average=False)
    with SGD(4, 8, options.resolved(one_pass=False)) as sgd:
        sgd.penalise(l2, np.zeros(8))
        assert sgd.lengths.call == 8192
        some, w = np.arange(8192), np.ones(8192)
        sgd.step((Dense(X),), some, y[some].astype(np.int32), w, eta * w, ends=True)
        W, b = sgd.weights.get()
    U, c = np.zeros((4, 8)), np.zeros(4)
    for x, label in zip(X[:8192], y[:8192], strict=True):
        z = U @ x + c
        p = np.exp(z - z.max())
        p /= p.sum()
        p[label] -= 1
        U = U * (1 - eta * l2) - eta * np.outer(p, x)
        c = c - eta * p
    assert_allclose(W, U, rtol=1e-3, atol=1e-4)
    assert_allclose(b, c, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("K", "d"), [(2, 10), (4, 8), (10, 64), (10, 400)])
def test_losses_add_up_alike_wherever_calls_are_cut(K, d):
    X, y, w, eta = oracle.problem(K, d, 10_000, seed=K)
    options = TrainOptions.of(learning_rate=0.1, average=True, threads=2).resolved(one_pass=False)
    tallies = []
    for counts in (True, False):  # where steps are averaged, calls end where sums move on
        with SGD(K, d, options) as sgd:
            sgd.penalise(np.geomspace(1e-4, 1e-2, d), np.zeros(d))
            sgd.weights.average_steps(counts=counts)
            assert sgd.lengths.settled == 4096
            tallies.append(sgd.step((Dense(X),), np.arange(len(y)), y, w, eta, ends=True))
    assert tallies[0] == tallies[1]


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_lbfgs_reaches_the_optimum_of_scikit_learn(l2):
    X, y = problem()
    model = fastsoftmax.train(X, y, solver="lbfgs", l2=l2, standardize=False, dtype="float64")
    theirs = reference(X, y, l2=l2)
    assert_allclose(objective(model, X, y, l2), _value(theirs, X, y, l2=l2), rtol=1e-6)
    assert_allclose(model.coef, theirs.coef_, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("l2", "l1"), [(0.0, 0.01), (0.01, 0.02)])
def test_lbfgs_reaches_the_optimum_under_l1(l2, l1):
    X, y = problem()
    model = fastsoftmax.train(X, y, solver="lbfgs", l2=l2, l1=l1, standardize=False, tolerance=1e-8)
    theirs = reference(X, y, l2=l2, l1=l1)
    ours = objective(model, X, y, l2, l1)
    assert ours <= _value(theirs, X, y, l2=l2, l1=l1) * (1 + 1e-5)
    assert_array_equal(model.coef == 0, np.abs(theirs.coef_) < 1e-6)


def _value(fitted, X, y, *, l2=0.0, l1=0.0):
    smooth = oracle.objective(fitted.coef_, fitted.intercept_, X, y, np.ones(len(y)), l2)
    return smooth + l1 * np.abs(fitted.coef_).sum()


@pytest.mark.parametrize("batch_size", [1, 32])
@pytest.mark.parametrize("copies", [1, 4])
def test_sgd_under_l1_has_zeros_and_comes_near_the_optimum(batch_size, copies):
    X, y = problem(d=20, n=3000)
    X[:, 10:] = np.random.default_rng(1).normal(size=(len(X), 10))  # that tell nothing
    l1 = 0.01
    best = objective(
        fastsoftmax.train(X, y, solver="lbfgs", l2=0.0, l1=l1, standardize=False), X, y, l1=l1
    )
    Xs, ys = np.tile(X, (copies, 1)), np.tile(y, copies)
    model = fastsoftmax.train(
        Xs, ys, l2=0.0, l1=l1, learning_rate=0.02 * batch_size**0.5, epochs=40 // copies,
        batch_size=batch_size, scaling="auto", standardize=False,
    )  # fmt: skip
    assert objective(model, X, y, l1=l1) < best * 1.02
    noise = model.coef[:, 10:]
    assert (noise == 0).mean() > 0.7
    assert (model.coef[:, :10] != 0).mean() > 0.5


@pytest.mark.filterwarnings("ignore::fastsoftmax.errors.NotConverged")
def test_the_norm_falls_as_l2_grows():
    X, y = load_wine(return_X_y=True)
    for solver in ("lbfgs", "sgd"):
        norms = [
            np.linalg.norm(fastsoftmax.train(X, y, solver=solver, l2=l2, epochs=30).coef)
            for l2 in (1e-4, 1e-2, 1.0)
        ]
        assert norms[0] > norms[1] > norms[2]


def test_the_gradient_of_the_objective_is_that_of_the_oracle():
    X, y, w, _ = oracle.problem(5, 9, 70, seed=2)
    rng = np.random.default_rng(3)
    theta = rng.normal(size=(5, 10))
    rows = Batch((Dense(X),), np.flatnonzero(w), y[w > 0].astype(np.int32), w[w > 0])
    penalty = ElasticNet(np.full(9, 0.3), np.zeros(9))
    passes = LocalPass(PassRows(5, 9, 70, "float64", 2), lambda: [rows])
    with Objective(passes, penalty) as ours:
        value, gradient = ours.evaluate(theta)
    W, b = theta[:, :9], theta[:, 9]
    assert_allclose(value, oracle.objective(W, b, X, y, w, 0.3), rtol=1e-12)
    dW, db = oracle.gradient(W, b, X, y, w, 0.3)
    assert_allclose(gradient, np.concatenate([dW, db[:, None]], axis=1), atol=1e-12)


@pytest.mark.filterwarnings("ignore:after epoch")
def test_the_best_weights_are_kept():
    X, y = problem(d=40, n=300)
    kept = {"validation": problem(d=40, n=2000, seed=0), "learning_rate": 0.3, "l2": 0.0}
    patient = fastsoftmax.train(X, y, epochs=60, patience=3, schedule="constant", **kept)
    losses = [epoch["validation_log_loss"] for epoch in patient.history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 60
    cut = fastsoftmax.train(X, y, epochs=best + 1, schedule="constant", **kept)
    assert_array_equal(patient.weights, cut.weights)


def test_min_delta_ends_a_run_that_gains_little():
    X, y = problem()
    kept = {"holdout": 0.2, "learning_rate": 0.01, "epochs": 40, "patience": 1}
    eager = fastsoftmax.train(X, y, min_delta=0.05, **kept)
    assert len(eager.history) < len(fastsoftmax.train(X, y, **kept).history)


def test_a_step_of_our_own_that_leads_astray_is_lowered(monkeypatch):
    X, y = problem(n=2000)
    monkeypatch.setattr("fastsoftmax.training.preparation.BOLDER", 3e3)
    with pytest.warns(UserWarning, match="learning_rate lowered to"):
        model = fastsoftmax.train(X, y, epochs=2)
    assert "lowered to" in model.record["reasons"]["learning_rate"]
    assert np.isfinite(model.coef).all()
