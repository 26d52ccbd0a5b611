"""What a run chooses by trial: penalties and step sizes, where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastsoftmax
from fastsoftmax.data.parts import Dense
from fastsoftmax.optim.optimizer import minimise
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.options import TrainOptions
from fastsoftmax.training import learner
from fastsoftmax.training.tuning import (
    RATES,
    STRENGTHS,
    FullGradientTrials,
    Problem,
    Trials,
    _likely,
    _lowest,
    begins_near,
    choose_l2,
    choose_rate,
    penalty_rows,
)
from tests import oracle


def batch_of(X, y, weight=None):
    """Return rows as they are handed on."""
    weight = np.ones(len(y)) if weight is None else weight
    return Batch((Dense(X),), np.arange(len(y)), y.astype(np.int32), weight)


def problem_of(X, y, K, rows=None):
    """Return rows to choose a penalty on, of so many in all."""
    n, d = X.shape
    return Problem(K, d, rows or n, batch_of(X, y), np.ones(d), None, True, "float64", 1, 10**9)


def strength(choice, rows, K):
    """Return the C that a choice stands for."""
    return (2.0 if K == 2 else 1.0) / (choice.value * rows)


def far_rows(n, K, seed):
    """Return columns of which a few rows are far away, and classes that see little of that."""
    random = np.random.default_rng(seed)
    X = np.concatenate([random.standard_t(1.5, (n, 8)), random.lognormal(0, 2, (n, 8))], axis=1)
    near = np.sign(X) * np.log1p(np.abs(X))
    y = (near @ random.normal(size=(16, K)) + random.gumbel(size=(n, K))).argmax(axis=1)
    return X / X.std(axis=0), y


@pytest.mark.parametrize("seed", range(3))
def test_penalties_are_compared_by_fits_that_have_converged(seed):
    """Where a few rows have nearly all of the curvature, too little seems to be left to gain."""
    X, y = far_rows(8000, 4, seed)
    problem = problem_of(X, y, 4)
    with FullGradientTrials(problem, problem.sample, 4, 1) as trials:
        for strength in (4, 6, 8, 10):
            loss, kept = trials.loss(strength), trials.folds[0].kept
            found = kept.evaluate(trials.thetas[strength])[0]
            best = minimise(kept, trials.theta, passes=300, tolerance=1e-9, memory=10**9)
            assert found <= kept.evaluate(best)[0] * (1 + 5e-4)
            trials.folds[0].held.evaluate(best)
            assert_allclose(loss, trials.folds[0].held.log_loss, rtol=4e-3)


class Told(Trials):
    """Losses that are known; held: on how many rows they were taken."""

    held = 1000

    def __init__(self, problem, sample, folds, used):
        super().__init__(problem)
        self.folds, self.held_rows = range(used), self.held

    def close(self):
        pass

    def loss(self, strength):
        return {4: 0.5, 6: 0.499, 8: 0.4985}.get(strength, 0.6)

    def nearest(self, strength):
        return None


@pytest.mark.parametrize(("held", "C"), [(1000, 0.1), (8000, 1.0), (60_000, 10.0)])
def test_losses_within_chance_tell_no_two_penalties_apart(held, C):
    problem = problem_of(np.zeros((3000, 1)), np.arange(3000) % 2, 2)
    found = strength(choose_l2(problem, type("Held", (Told,), {"held": held})), 3000, 2)
    assert abs(math.log10(found / C)) <= 0.5  # a parabola may be lowest beside it


def test_what_rows_gain_beyond_those_that_were_fitted_is_chance():
    losses = {4: 0.5, 6: 0.45, 8: 0.40, 10: 0.39}
    assert _likely(losses, {}) == losses
    told = _likely(losses, {4: 0.40, 6: 0.34, 8: 0.33, 10: 0.34})
    assert_allclose(list(told.values()), [0.5, 0.45, 0.44, 0.44])


def test_features_that_tell_nothing_are_held_at_zero():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(600, 20)), random.integers(0, 3, 600)
    choice = choose_l2(problem_of(X, y, 3))
    assert_allclose(strength(choice, 600, 3), STRENGTHS[0])
    assert "held-out rows" in choice.reason


def test_many_rows_that_tell_much_are_hardly_held():
    random = np.random.default_rng(0)
    X = random.normal(size=(3000, 5))
    y = (X @ random.normal(size=(5, 3)) * 8 + random.gumbel(size=(3000, 3))).argmax(axis=1)
    assert strength(choose_l2(problem_of(X, y, 3)), 3000, 3) >= 1.0


def test_the_prior_of_a_sample_is_that_of_all_rows():
    """C = 1 / (l2 rows) carries over: ten times the rows, a tenth of the penalty."""
    random = np.random.default_rng(1)
    X = random.normal(size=(900, 8))
    y = (X @ random.normal(size=(8, 3)) + random.gumbel(size=(900, 3))).argmax(axis=1)
    alone, part = choose_l2(problem_of(X, y, 3)), choose_l2(problem_of(X, y, 3, rows=9000))
    assert_allclose(part.value, alone.value / 10)


def test_two_classes_count_the_penalty_half():
    """Two vectors of weights have half of one each, so the same C is twice the penalty."""
    random = np.random.default_rng(2)
    X = random.normal(size=(600, 20))
    choice = choose_l2(problem_of(X, random.integers(0, 2, 600), 2))
    assert_allclose(choice.value, 2.0 / (STRENGTHS[0] * 600))


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize(("left", "right"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_the_lowest_loss_of_a_parabola_is_found_between_those_tried(at, left, right):
    for lowest in (-0.4, 0.0, 0.3):
        losses = {at + i: 0.5 + 0.1 * (i - lowest) ** 2 for i in (-left, 0, right)}
        assert _lowest(losses, at) == pytest.approx(lowest)


def test_nothing_is_sought_between_losses_that_do_not_rise_on_both_sides():
    assert _lowest({1: 0.5, 2: 0.4}, 2) == 0.0
    assert _lowest({1: 0.5, 2: 0.4, 3: 0.4}, 2) == 0.0
    assert _lowest({1: 0.5, 2: 0.4, 3: 0.39}, 2) == 0.0
    assert _lowest({1: math.inf, 2: 0.4, 3: 0.5}, 2) == 0.0
    assert _lowest({2: 0.4}, 2) == 0.0


def test_too_few_rows_at_hand_leave_the_usual_penalty():
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 4
    choice = choose_l2(problem_of(X, y, 4, rows=10**6))
    assert_allclose(choice.value, 1e-6)
    assert "too few rows" in choice.reason
    choice = choose_l2(problem_of(X[:1], y[:1], 4, rows=1))
    assert choice.value == 1.0
    assert "too few rows" in choice.reason


def test_rows_to_choose_a_penalty_on_are_fewer_where_rows_are_long():
    assert penalty_rows(10, 784) == int(3e8 / (4 * 7840))
    assert penalty_rows(1000, 2048) == 1000


def test_full_gradients_begin_with_the_fit_that_chose_l2_where_that_is_near(monkeypatch):
    assert begins_near(10, 784, 60_000)
    assert not begins_near(10, 784, 100_000)
    assert not begins_near(1000, 768, 8_000)  # rows that cannot tell one penalty from another
    monkeypatch.setattr(learner, "SMALL_FLOPS", 0.0)
    random = np.random.default_rng(0)
    X = random.normal(size=(600, 400))
    y = (X[:, :4] + random.gumbel(size=(600, 4))).argmax(axis=1)
    steps = []

    class Epochs:
        def on_epoch(self, progress):
            steps.append(progress.epoch)

    fastsoftmax.train(X, y, callbacks=[Epochs()])
    assert not steps
    fastsoftmax.train(X, y, l2=1e-2, callbacks=[Epochs()])
    assert steps == [1, 2, 3]


def progressive(X, y, K, eta):
    """Return the mean loss of the second half of the rows, each before its own step."""
    state, half = oracle.zeros(K, X.shape[1]), len(y) // 2
    ones = np.ones(half)
    with np.errstate(all="ignore"):
        oracle.descend(state, X[:half], y[:half], ones, eta * ones)
        before = state.loss
        oracle.descend(state, X[half : 2 * half], y[half : 2 * half], ones, eta * ones)
    return (state.loss - before) / half


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_step_size_has_the_lowest_progressive_loss_of_all(scale):
    K, random = 4, np.random.default_rng(3)
    X = random.normal(size=(1200, 6)) * scale
    y = (X @ random.normal(size=(6, K)) / scale * 2 + random.gumbel(size=(1200, K))).argmax(axis=1)
    norm = float(np.square(X).sum(axis=1).mean()) + 1.0
    with SGD(K, 6, TrainOptions.of(dtype="float64", l2=0.0, average=False)) as sgd:
        choice = choose_rate(sgd, batch_of(X, y), norm)
        assert not sgd.weights.get()[0].any()  # it begins at zeros again
    losses = [progressive(X, y, K, share / norm) for share in RATES]
    assert_allclose(choice.value, RATES[int(np.nanargmin(losses))] / norm)
    assert f"{min(losses):.4f}" in choice.reason


def test_rows_of_weight_0_do_not_decide():
    K, random = 3, np.random.default_rng(4)
    X = random.normal(size=(2000, 5))
    y = (X @ random.normal(size=(5, K)) + random.gumbel(size=(2000, K))).argmax(axis=1)
    weight = np.ones(2000)
    weight[::2] = 0
    y[::2] = random.integers(0, K, 1000)
    X[::2] *= 1e3
    with SGD(K, 5, TrainOptions.of(dtype="float64", l2=0.0, average=False)) as sgd:
        with_them = choose_rate(sgd, batch_of(X, y, weight), 6.0)
        without = choose_rate(sgd, batch_of(X[1::2], y[1::2]), 6.0)
    assert with_them.value == without.value
    assert with_them.reason == without.reason
    assert math.isfinite(with_them.value)


def test_pixels_keep_the_scale_that_suits_them():
    # Most are 0 and few are large, so the middle of their values says nothing of them.
    random = np.random.default_rng(0)
    y = np.arange(4000) % 4
    X = np.where(random.random((4000, 40)) < 0.12, random.integers(1, 256, (4000, 40)), 0)
    X[:, :4] = np.where(np.eye(4, dtype=bool)[y], X[:, :4] + random.integers(0, 200, (4000, 4)), 0)
    X += random.integers(0, 2, X.shape)
    left = fastsoftmax.train(X.astype(np.uint8), y, epochs=2, l2=1e-3)
    told = fastsoftmax.train(X.astype(np.uint8), y, epochs=2, l2=1e-3, scaling="spread")
    assert left.history[-1]["log_loss"] <= 1.001 * told.history[-1]["log_loss"]
