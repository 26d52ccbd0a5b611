"""The seam of update rules: each fits its example, and one more needs a line in the list alone."""

from __future__ import annotations

import math
import re
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax.data.parts import Dense
from fastsoftmax.optim.rules import choice
from fastsoftmax.optim.rules.rule import Rule, Task
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.tally import Tally
from fastsoftmax.options import TrainOptions
from fastsoftmax.training import warmup
from tests import floors, oracle


def rows_of(K, d, n=150):
    """Return rows, classes, weights (some are 0) and step sizes."""
    X, y, w, eta = oracle.problem(K, d, n, seed=3)
    return X.astype(np.float32), y, w, eta


@pytest.mark.parametrize("rule", choice.RULES)
def test_each_rule_is_the_first_to_fit_its_example(rule):
    K, d, options = rule.example
    task = Task(K, d, TrainOptions.of(**options).steps, rule.nonzeros)
    assert choice.choose_rule(task) is rule


@pytest.mark.parametrize("rule", choice.RULES)
@pytest.mark.parametrize("average", [False, True])
def test_each_rule_goes_on_from_copies_of_its_views(rule, average):
    K, d, options = rule.example
    X, y, w, eta = rows_of(K, d)
    told = TrainOptions.of(average=average, threads=1, **options)

    def step(sgd, first, stop):
        here = np.arange(first, stop)
        sgd.step((Dense(X),), here, y[here], w[here], eta[here] / 10, ends=stop == len(y))

    with SGD(K, d, told, rule.nonzeros) as whole, SGD(K, d, told, rule.nonzeros) as other:
        for sgd in (whole, other):
            sgd.penalise(np.full(d, 1e-3), np.full(d, 1e-4))
        step(whole, 0, 70)
        whole.weights.settle()
        stored = {name: view.copy() for name, view in whole.views().items()}
        step(whole, 70, len(y))
        other.restore(stored)
        step(other, 70, len(y))
        for sgd in (whole, other):
            sgd.weights.settle()
        for name, view in whole.views().items():
            assert_array_equal(other.views()[name], view, err_msg=name)


def stepped(rule, dtype, threads, average):
    """Return the weights, tally and rows after the rows of a rule's example took their steps."""
    K, d, options = rule.example
    X, y, w, eta = rows_of(K, d)
    told = TrainOptions.of(average=average, threads=threads, dtype=dtype, l2=0.01, **options)
    with SGD(K, d, told, rule.nonzeros) as sgd:
        tally = sgd.step((Dense(X),), np.arange(len(y)), y, w, eta, ends=True)
        sgd.weights.settle()
        return sgd.weights.mean(), tally, (X, y, w, eta)


def by_the_book(rule, X, y, w, eta, average):
    """Return what the plain mathematics make of the same rows; None where they have no rule."""
    K, d, options = rule.example
    state = oracle.zeros(K, d)
    if options.get("adaptive"):
        return None
    if "batch_size" in options:
        oracle.descend_batches(state, X, y, w, eta, options["batch_size"], l2=0.01)
    else:
        oracle.descend(state, X, y, w, eta, l2=0.01)
    share = state.steps if average else 1
    W, b = (state.W_sum, state.b_sum) if average else (state.W, state.b)
    return W / share, b / share, state.loss


@pytest.mark.parametrize("rule", choice.RULES)
@pytest.mark.parametrize("average", [False, True])
def test_each_rule_takes_the_steps_of_the_book(rule, average):
    (W, b), tally, rows = stepped(rule, "float64", 1, average)
    want = by_the_book(rule, *rows, average)
    if want is None:  # see test_adagrad
        assert np.isfinite(W).all()
        return
    assert_allclose(W, want[0], rtol=1e-9, atol=1e-12)
    assert_allclose(b, want[1], rtol=1e-9, atol=1e-12)
    assert_allclose(tally.loss, want[2], rtol=1e-10)


@pytest.mark.parametrize("rule", choice.RULES)
def test_each_rule_has_the_same_bits_for_any_number_of_threads(rule):
    (W, b), tally, _ = stepped(rule, "float32", 1, True)
    for threads in (2, 3):
        (W_more, b_more), tally_more, _ = stepped(rule, "float32", threads, True)
        assert_array_equal(W_more, W)
        assert_array_equal(b_more, b)
        assert tally_more == tally


def test_each_kernel_that_steps_belongs_to_one_rule():
    kernels = {
        name
        for path in (floors.PACKAGE / "kernels").glob("*.py")
        for name in re.findall(r"^(?:def )?(descend\w*)", path.read_text(), re.MULTILINE)
    }
    homes = [sys.modules[rule.__module__] for rule in choice.RULES]
    used = [name for home in homes for name in vars(home) if name.startswith("descend")]
    assert sorted(used) == sorted(kernels)


class SignSteps(Rule):
    """Steps by the sign of each mean gradient, a call at a time, in plain NumPy."""

    name = "signs"
    example = (3, 5, {})
    numbers = 2

    def __init__(self, task, threads):
        super().__init__(task, threads)
        self.calls = np.zeros(1)

    @staticmethod
    def fits(task):
        return (task.K, task.d) == (3, 5)

    def shortened(self, call, span):
        return 64, 64

    def step(self, weights, visit):
        (X,) = TAKEN
        W, b = weights.get()
        rows = visit.order[visit.weight > 0]
        z = X[rows] @ W.T + b
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        y = visit.labels[visit.weight > 0]
        loss = -np.log(p[np.arange(len(rows)), y]).sum()
        p[np.arange(len(rows)), y] -= 1
        if len(rows):
            eta = visit.eta[0] / math.sqrt(1 + self.calls[0])
            weights.set(W - eta * np.sign(p.T @ X[rows]), b - eta * np.sign(p.sum(axis=0)))
            self.calls += 1
        return Tally(float(loss), 0.0, bool(np.isfinite(loss)))

    def views(self):
        return {"calls": self.calls}


TAKEN: list[np.ndarray] = []  # the rows, which a kernel would find through its part tables


@pytest.fixture
def signs(monkeypatch):
    monkeypatch.setattr(choice, "RULES", (SignSteps, *choice.RULES))
    random = np.random.default_rng(0)
    X = random.normal(size=(600, 5)).astype(np.float32)
    y = (X @ random.normal(size=(5, 3))).argmax(axis=1)
    TAKEN[:] = [X]
    return X, y


BY_SIGNS = {"learning_rate": 0.02, "epochs": 3, "average": False}


def test_a_rule_in_the_list_is_trained_with(signs):
    X, y = signs
    model = fastsoftmax.train(X, y, **BY_SIGNS)
    losses = [epoch["log_loss"] for epoch in model.history]
    assert losses[0] > losses[1] > losses[2]
    assert (model.predict(X) == y).mean() > 0.8
    # Ten calls of 64 rows an epoch, each a step of one size for all weights.
    size = sum(0.02 * (1 - first / 1800) / math.sqrt(1 + i) for i, first in enumerate(firsts()))
    assert np.abs(model.coef).max() <= size * (1 + 1e-5)


def firsts():
    """Return how many rows were seen before each call of three epochs."""
    return [600 * epoch + first for epoch in range(3) for first in range(0, 600, 64)]


def test_a_rule_in_the_list_is_kept_in_checkpoints(signs, tmp_path):
    X, y = signs
    want = fastsoftmax.train(X, y, **BY_SIGNS)
    kept = {"checkpoint": str(tmp_path), "checkpoint_every": 1}
    fastsoftmax.train(X, y, report=lambda progress: progress.rows_seen > 700, **kept, **BY_SIGNS)
    resumed = fastsoftmax.train(X, y, resume=True, **kept, **BY_SIGNS)
    assert_array_equal(resumed.weights, want.weights)


def test_a_rule_in_the_list_is_warmed_up(signs, monkeypatch):
    monkeypatch.setattr(warmup, "RULES", choice.RULES[:1])
    stepped = []
    monkeypatch.setattr(SignSteps, "step", lambda self, *_: stepped.append(self.dtype.name))
    warmup.all_calls()
    assert stepped == ["float32", "float32", "float64", "float64"]
