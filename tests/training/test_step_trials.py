"""Rows of few of very many features: penalties are compared by steps, and steps end the run."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax import evaluate, train
from fastsoftmax.training.step_trials import planned_epochs, steps_pay, vectors_are_long

sp = pytest.importorskip("scipy.sparse")

N, D, K, NONZEROS = 1200, 4000, 4, 12


def rows(seed, n=N):
    """Return rows whose features are as frequent as words are, and classes that follow them."""
    random = np.random.default_rng(seed)
    index = np.minimum((random.pareto(0.6, (n, NONZEROS)) * 20).astype(int), D - 1)
    X = sp.csr_matrix(
        (np.ones(index.size, np.float32), index.ravel(), np.arange(n + 1) * NONZEROS), (n, D)
    )
    X.sum_duplicates()
    W = np.random.default_rng(0).normal(size=(D, K))
    y = (X @ W + random.gumbel(size=(n, K))).argmax(axis=1)
    return X, y


@pytest.fixture(scope="module")
def model():
    return train(*rows(1))


def same(one, other):
    assert_array_equal(one.coef, other.coef)
    assert_array_equal(one.intercept, other.intercept)
    return True


def test_vectors_are_long_where_features_are_many_and_rare():
    assert vectors_are_long(60_000, 8_000, 60.0)
    assert not vectors_are_long(5_000, 1_000_000, 60.0)
    assert not vectors_are_long(60_000, 8_000, None)


def test_steps_pay_where_the_vectors_of_full_gradients_leave_the_memory():
    sizes = (10, 5_000, 1_000_000)
    assert not steps_pay(*sizes, 60.0, 10**9)
    assert steps_pay(*sizes, 60.0, 3 * 10**7)  # these take 21 MB, and rows the other half
    assert not steps_pay(*sizes, None, 3 * 10**7)
    assert steps_pay(10, 60_000, 8_000, 60.0, 10**12)


def test_more_rows_take_fewer_epochs():
    assert [planned_epochs(n) for n in (1, 10_000, 80_000, 10**9)] == [30, 30, 15, 4]


def test_a_default_run_ends_by_the_epochs_that_were_planned(model):
    assert model.record["ended"] == "epochs"
    assert model.record["options"]["epochs"] == 30 == len(model.history)
    assert "held-out rows" in model.record["reasons"]["l2"]


def test_it_is_as_good_as_the_optimum_of_its_objective(model):
    best = train(*rows(1), l2=model.record["options"]["l2"], solver="lbfgs", tolerance=1e-6)
    test = rows(2, 4000)
    assert evaluate(model, *test).log_loss < 1.01 * evaluate(best, *test).log_loss


def test_the_penalty_is_about_the_best(model):
    test, losses = rows(2, 4000), []
    for C in (0.1, 0.3, 1, 3, 10, 30, 100, 300):
        best = train(*rows(1), l2=1 / (C * N), solver="lbfgs", tolerance=1e-4)
        losses.append(evaluate(best, *test).log_loss)
    assert evaluate(model, *test).log_loss < 1.02 * min(losses)


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 3}, {"max_seconds": 1e9}])
def test_neither_threads_nor_who_looks_on_change_a_bit(model, options):
    assert same(train(*rows(1), **options), model)


@pytest.mark.parametrize("options", [{}, {"batch_size": 7}, {"l1": 1e-3, "average": True}])
def test_an_average_of_the_last_epoch_is_the_same_whoever_looks_on(options):
    random = np.random.default_rng(3)
    X = random.normal(size=(900, 30)).astype(np.float32)
    y = random.integers(0, 5, 900)
    one, other = (train(X, y, epochs=4, l2=1e-3, **options, **more)
                  for more in ({}, {"max_seconds": 1e9}))  # fmt: skip
    assert same(one, other)
    assert same(one.unaveraged, other.unaveraged)


@pytest.mark.parametrize("epoch", [3, 29])
def test_a_run_that_was_stopped_goes_on_with_the_same_bits(model, epoch, tmp_path):
    kept = {"checkpoint": tmp_path, "checkpoint_every": 500}
    stopped = train(*rows(1), report=lambda p: p.epoch == epoch, **kept)
    assert stopped.record["ended"] == "callback"
    assert same(train(*rows(1), **kept, resume=True), model)


def test_full_gradients_are_taken_where_they_are_asked_for():
    model = train(*rows(1), solver="lbfgs", tolerance=1e-4)
    assert model.record["ended"] == "tolerance"
