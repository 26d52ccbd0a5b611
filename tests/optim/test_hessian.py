"""The whole Hessian, and the rows it is taken from: against finite differences and all rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.data.parts import Codes, Dense
from fastsoftmax.optim.hessian import (
    MOST_WEIGHTS,
    WholeHessian,
    has_whole,
    new_preconditioner,
)
from fastsoftmax.optim.objective import ElasticNet, Objective
from fastsoftmax.optim.optimizer import Enough, begin, iterates
from fastsoftmax.optim.passes import LocalPass, PassRows
from fastsoftmax.optim.preconditioner import Batch, ByClass, Diagonal
from fastsoftmax.optim.sample import RowSample

K, D, N = 4, 5, 300


def rows(seed=0, n=N, d=D, K=K):
    """Return rows of a problem whose classes overlap, with weights."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, d))
    y = (X @ random.normal(size=(d, K)) + random.gumbel(size=(n, K))).argmax(axis=1)
    return Batch((Dense(X),), np.arange(n), y.astype(np.int32), random.uniform(0.5, 2, n))


def objective_of(batch, l2, K=K, threads=1, **options):
    """Return the objective over rows, in float64."""
    d = batch.parts[0].width
    penalty = ElasticNet(np.full(d, l2), np.zeros(d))
    passes = LocalPass(PassRows(K, d, len(batch.order), "float64", threads), lambda: (batch,))
    return Objective(passes, penalty, **options)


def test_its_inverse_undoes_the_change_of_the_gradient():
    batch, theta = rows(), np.random.default_rng(1).normal(size=(K, D + 1)) / 3
    step = np.random.default_rng(2).normal(size=theta.shape)
    step -= step.mean(axis=0)  # a number added to all classes changes nothing
    with objective_of(batch, 0.1) as objective, WholeHessian(K, D, "float64", None, 1) as hessian:
        hessian.learn(theta, batch, objective.l2, np.zeros(D + 1))
        size = 1e-5
        changes = [objective.evaluate(theta + sign * size * step)[1] for sign in (1, -1)]
        change = (changes[0] - changes[1]) / (2 * size)
        got = hessian.apply(change)[0]
    assert_allclose(got - got.mean(axis=0), step, rtol=1e-5, atol=1e-6)


def test_another_penalty_is_taken_without_learning_anew():
    batch, theta = rows(), np.zeros((K, D + 1))
    v = np.random.default_rng(3).normal(size=theta.shape)
    v -= v.mean(axis=0)
    found = []
    for first in (0.3, 1e-3):
        with WholeHessian(K, D, "float64", None, 1) as hessian:
            hessian.learn(theta, batch, np.append(np.full(D, first), 0.0), np.zeros(D + 1))
            hessian.penalise(np.append(np.full(D, 0.02), 0.0))
            found.append(hessian.apply(v)[0])
    assert_array_equal(*found)


def test_any_threads_give_the_same_bits():
    batch = rows(n=20_000, d=30)
    theta = np.random.default_rng(1).normal(size=(K, 31)) / 9
    found = []
    for threads in (1, 2, 3):
        with WholeHessian(K, 30, "float32", None, threads) as hessian:
            hessian.learn(theta, batch, np.full(31, 1e-3), np.zeros(31))
            found.append(hessian.apply(theta)[0].tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("d", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("matrices", [None, 1, K])
def test_two_vectors_at_once_are_as_two_in_turn(d, matrices):
    batch, random = rows(d=d), np.random.default_rng(1)
    theta, other = random.normal(size=(2, K, d + 1)) / 3
    whole = WholeHessian(K, d, "float64", None, 1)
    by_class = ByClass(K, d, "float64", None, matrices=matrices or 1, threads=1)
    with whole if matrices is None else by_class as found:
        found.learn(theta, batch, np.full(d + 1, 1e-3), np.zeros(d + 1))
        both = found.apply(theta, other)
        assert_array_equal(both, [found.apply(v)[0] for v in (theta, other)])
        assert_array_equal(both[::-1], found.apply(other, theta))


def test_classes_that_are_alike_share_a_matrix_until_they_differ():
    batch, theta = rows(), np.random.default_rng(1).normal(size=(K, D + 1)) / 3
    l2, none = np.full(D + 1, 1e-2), np.zeros(D + 1)
    with (
        ByClass(K, D, "float64", None, matrices=1, threads=1) as one,
        ByClass(K, D, "float64", None, matrices=K, threads=1) as each,
        ByClass(K, D, "float64", None, matrices=K, threads=1) as fresh,
    ):
        for found in (one, each):
            found.learn(0 * theta, batch, l2, none)
        assert_allclose(each.apply(theta)[0], one.apply(theta)[0], rtol=1e-9)
        for found in (each, fresh):
            found.learn(theta, batch, l2, none)
        assert_array_equal(each.apply(theta)[0], fresh.apply(theta)[0])


def test_penalties_of_unlike_scale_leave_no_direction_frozen():
    batch = rows()
    l2 = np.append(10.0 ** np.linspace(-12, 12, D), 0.0)
    with WholeHessian(K, D, "float64", None, 1) as hessian:
        hessian.learn(np.zeros((K, D + 1)), batch, l2, np.zeros(D + 1))
        classes, weak, strong = np.arange(K) - 1.5, np.zeros((K, D + 1)), np.zeros((K, D + 1))
        weak[:, 0] = strong[:, D - 1] = classes
        assert (np.abs(hessian.apply(weak)[0][:, 0]) > 0.1).all()
        assert_allclose(hessian.apply(strong)[0][:, D - 1], classes / 1e12, rtol=1e-6)


@pytest.mark.parametrize("l2", [0.0, 1e-3])
def test_a_few_steps_reach_the_optimum_and_say_how_far_it_was(l2):
    batch = rows(n=2000)
    with objective_of(batch, l2) as objective:
        state = begin(objective, np.zeros((K, D + 1)), 10**8)
        seen = [
            (now.point.value, now.gain)
            for now in iterates(objective, state, Enough(50, 1e-13), memory=10**8)
        ]
    best = seen[-1][0]
    assert len(seen) <= 15
    for value, gain in seen:
        if value - best > 1e-9:
            assert 1 / 3 < gain / (value - best) < 3


def test_an_estimate_of_the_gain_is_enough_once_a_step_has_borne_it_out():
    batch = rows(n=2000)
    with objective_of(batch, 1e-3) as objective:
        state = begin(objective, np.zeros((K, D + 1)), 10**8)
        state.memory.gain, state.memory.missed = 1e-3, 0.0
        assert Enough(50, 0.0, 1e-2).is_met(state)
        assert not Enough(50, 0.0, 1e-2, steps=1).is_met(state)  # none was taken
        state.steps = 1
        assert Enough(50, 0.0, 1e-2, steps=1).is_met(state)
        assert not Enough(50, 0.0, 1e-2, steps=2).is_met(state)
        state.memory.missed = 0.5  # the step led much less or much further down
        assert not Enough(50, 0.0, 1e-2, steps=1).is_met(state)
        state.memory.gain = 1e-5  # far less
        assert Enough(50, 0.0, 1e-2, steps=1).is_met(state)


def test_a_class_of_few_rows_is_not_held_by_those_it_is_sure_of():
    batch, theta = rows(n=4000), np.random.default_rng(1).normal(size=(K, D + 1)) / 3
    theta[0, D] -= 7.0
    scores = np.column_stack([batch.parts[0].values, np.ones(4000)]) @ theta.T
    p = np.exp(scores[:, 0]) / np.exp(scores).sum(axis=1)
    assert (p * (1 - p)).mean() < 1e-3
    X = np.column_stack([batch.parts[0].values, np.ones(4000)])
    exact = (X * (batch.weight * p * (1 - p))[:, None]).T @ X / batch.weight.sum()
    v = np.random.default_rng(2).normal(size=theta.shape)
    with ByClass(K, D, "float64", None, matrices=K, threads=1) as found:
        found.learn(theta, batch, np.zeros(D + 1), np.zeros(D + 1))
        got = found.apply(v)[0][0]
    assert_allclose(v[0] @ got, v[0] @ np.linalg.solve(exact, v[0]), rtol=0.1)


def test_what_suits_depends_on_how_many_weights_there_are():
    def kind(K, d, memory=10**9, rows=10**6, **options):
        with new_preconditioner(
            K, d, "float32", None, rows=rows, memory=memory, threads=1, **options
        ) as found:
            return type(found), getattr(found, "matrices", None)

    assert kind(10, 64) == (WholeHessian, None)
    assert kind(10, 784) == (ByClass, 10)
    assert kind(10, 784, rows=10_000, keeps=True) == (ByClass, 1)
    assert kind(16, 115, rows=40_000, keeps=True) == (ByClass, 16)
    assert kind(10, 784, memory=10**7) == (Diagonal, None)
    assert has_whole(2, MOST_WEIGHTS // 2 - 1, 10**9)
    assert not has_whole(2, MOST_WEIGHTS // 2, 10**9)


def norms_of(parts, order):
    return np.square(parts[0].values[order]).sum(axis=1)


@pytest.mark.parametrize("cuts", [(0, 4000), (0, 1000, 1001, 2500, 4000)])
def test_sums_over_a_sample_are_those_over_all_rows_up_to_chance(cuts):
    whole = rows(n=4000)
    norms = norms_of(whole.parts, whole.order)
    sample = RowSample(4000, 800, norms.mean(), norms_of)
    for first, stop in pairwise(cuts):
        sample.offer(Batch(whole.parts, *(each[first:stop] for each in whole[1:])))
    some = sample.batch()
    assert 700 < len(some.order) < 900
    assert_allclose(some.weight.sum(), whole.weight.sum(), rtol=0.05)
    X, w = whole.parts[0].values, whole.weight
    S, v = some.parts[0].values[some.order], some.weight
    assert_allclose((S.T * v) @ S, (X.T * w) @ X, atol=0.12 * np.trace((X.T * w) @ X) / D)


def test_rows_that_are_far_away_are_hardly_left_out():
    X = np.random.default_rng(0).normal(size=(5000, 3))
    X[::500] *= 100
    batch = Batch((Dense(X),), np.arange(5000), np.zeros(5000, np.int32), np.ones(5000))
    sample = RowSample(5000, 200, norms_of(batch.parts, batch.order).mean(), norms_of)
    sample.offer(batch)
    assert np.isin(np.arange(0, 5000, 500), sample.batch().order).all()


def test_a_sample_of_all_rows_is_the_rows_where_they_lie():
    batch = rows()
    sample = RowSample(N, N, 1.0, norms_of)
    sample.offer(batch)
    assert sample.batch().parts is batch.parts
    assert_array_equal(sample.batch().weight, batch.weight)


def test_rows_from_several_batches_are_copied_with_their_categories():
    codes, y = np.arange(10, dtype=np.uint8)[:, None] % 3, np.arange(10, dtype=np.int32)
    sample = RowSample(10, 10, 0.0, norms_of)
    for half in (slice(0, 5), slice(5, 10)):
        part = Codes(codes[half], 3)
        sample.offer(Batch((part,), np.arange(5), y[half], np.ones(5)))
    some = sample.batch()
    assert_array_equal(some.parts[0].values, codes)
    assert_array_equal(some.labels, y)
