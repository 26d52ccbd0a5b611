"""Sparse rows take the steps, and have the sums, of the dense rows that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.data.parts import Sparse
from fastsoftmax.kernels.by_feature import S
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim import sparse_moments
from fastsoftmax.optim.moments import MomentSums
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.sparse_gradient import SparseDiagonal, SparseGradient
from fastsoftmax.optim.sparse_moments import SparseMomentSums
from fastsoftmax.optim.state import copies
from fastsoftmax.options import TrainOptions
from tests import oracle
from tests.sparse_rows import mixed_rows, random_rows, sparse_part

N, K = 300, 5
PARTS, X = mixed_rows(N)
D = X.shape[1]
_, Y, WEIGHT, _ = oracle.problem(K, D, N)
ETA = np.linspace(1.0, 0.1, N)
ORDER = np.arange(N)
TOLERANCE = {"float64": 1e-12, "float32": 2e-6}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def sgd(**options):
    return SGD(K, D, TrainOptions.of(**{"l2": 0.0, "average": False, **options}), 7.0)


@each_dtype
@pytest.mark.parametrize("l2", [0.0, 0.02, 0.5, 3.0])
def test_steps_and_their_mean_are_those_of_dense_rows(dtype, l2):
    want = oracle.descend(oracle.zeros(K, D), X, Y, WEIGHT, ETA, l2)
    with sgd(dtype=dtype, l2=l2, average=True) as own:
        tallies = [
            own.step(PARTS, ORDER[s], Y[s], WEIGHT[s], ETA[s])
            for s in (slice(0, 1), slice(1, 120), slice(120, 120), slice(120, N))
        ]
        assert_allclose(sum(t.loss for t in tallies), want.loss, rtol=TOLERANCE[dtype])
        assert sum(t.hits for t in tallies) == pytest.approx(want.hits)
        W, b = own.weights.get()
        assert_allclose(W, want.W, atol=TOLERANCE[dtype])
        assert_allclose(b, want.b, atol=TOLERANCE[dtype])
        W, b = own.weights.mean()
        assert_allclose(W, want.W_sum / want.steps, atol=TOLERANCE[dtype])
        assert_allclose(b, want.b_sum / want.steps, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("bound", ["cap", "implicit"])
def test_bounded_steps_are_those_of_dense_rows(bound):
    want = oracle.descend(oracle.zeros(K, D), X, Y, WEIGHT, 3 * ETA, 0.01, bound=bound)
    with sgd(dtype="float64", l2=0.01, max_step=bound) as own:
        own.step(PARTS, ORDER, Y, WEIGHT, 3 * ETA)
        assert_allclose(own.weights.get()[0], want.W, atol=1e-9)


@each_dtype
@pytest.mark.parametrize("own_l2", [False, True])
@pytest.mark.parametrize("l1", [0.0, 0.01])
def test_penalties_that_wait_are_those_that_act_at_each_step(dtype, own_l2, l1):
    rng = np.random.default_rng(4)
    l2 = rng.random(D) if own_l2 else np.zeros(D)
    shrink = 0.0 if own_l2 else 0.3
    own_l1 = l1 * rng.random(D)
    want = oracle.descend_penalised(oracle.zeros(K, D), X, Y, WEIGHT, ETA, l2, own_l1, shrink)
    with sgd(dtype=dtype) as own:
        own.penalise(l2 if own_l2 else np.full(D, shrink), own_l1)
        for s in (slice(0, 70), slice(70, N)):
            own.step(PARTS, ORDER[s], Y[s], WEIGHT[s], ETA[s])
        W, b = own.weights.get()
        assert_allclose(W, want.W, atol=10 * TOLERANCE[dtype])
        assert_allclose(b, want.b, atol=10 * TOLERANCE[dtype])
        assert (W == 0).any() == (l1 > 0) or own_l2
        before = copies(own.views())
        own.measure(PARTS, ORDER, Y, WEIGHT)
        own.weights.mean()
        for name, view in own.views().items():  # who looks changes nothing
            assert_array_equal(view, before[name])


@each_dtype
@pytest.mark.parametrize("penalty", ["none", "of all", "own"])
def test_batches_and_their_mean_are_those_of_dense_rows(dtype, penalty):
    rng = np.random.default_rng(4)
    l2 = {"none": np.zeros(D), "of all": np.full(D, 0.4), "own": rng.random(D)}[penalty]
    l1 = 0.01 * rng.random(D) * (penalty == "own")
    shrink, left = (0.0, (l2, l1)) if penalty == "own" else (l2[0], None)
    eta = 3 * ETA
    want = oracle.descend_batches(
        oracle.zeros(K, D), X, Y, WEIGHT, eta, 16, l2=shrink, own=left
    )  # fmt: skip
    with sgd(dtype=dtype, batch_size=16, average=True) as own:
        own.penalise(l2, l1)
        for s in (slice(0, 1), slice(1, 100), slice(100, 100), slice(100, N)):
            own.step(PARTS, ORDER[s], Y[s], WEIGHT[s], eta[s], ends=s.stop == N)
        W, b = own.weights.get()
        assert_allclose(W, want.W, atol=5 * TOLERANCE[dtype])
        assert_allclose(b, want.b, atol=5 * TOLERANCE[dtype])
        W, b = own.weights.mean()
        assert_allclose(b, want.b_sum / want.steps, atol=5 * TOLERANCE[dtype])
        if penalty != "own":  # the mean misses l1 that waits
            assert_allclose(W, want.W_sum / want.steps, atol=5 * TOLERANCE[dtype])


@pytest.mark.parametrize("classes", [2, K])
@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 30.0])
def test_the_mean_misses_nothing_of_an_l2_that_waits(classes, batch_size, strength):
    l2 = strength * np.random.default_rng(4).random(D) ** 4  # some are 1,000 times others
    l2[::9] = 0.0
    y = (Y % classes).astype(np.int32)
    want = oracle.zeros(classes, D)
    told = TrainOptions.of(l2=0.0, average=True, dtype="float64", batch_size=batch_size)
    with SGD(classes, D, told, 7.0) as own:
        own.penalise(l2, np.zeros(D))
        own.weights.average_steps(counts=False)
        for first, stop in ((0, 96), (96, 97), (97, 250), (250, N)):
            if first == 96:  # features wait when averaging begins
                own.weights.average_steps(counts=True)
                want.W_sum[:], want.b_sum[:], want.steps = 0, 0, 0
            if first == 250:
                own.weights.set(*own.weights.get())
            s = slice(first, stop)
            own.step(PARTS, ORDER[s], y[s], WEIGHT[s], ETA[s], ends=True)
            rows = (X[s], y[s], WEIGHT[s], ETA[s])
            oracle.descend_batches(want, *rows, batch_size, own=(l2, np.zeros(D)))
            W, b = own.weights.mean()
            if first >= 96:
                assert_allclose(W, want.W_sum / want.steps, atol=1e-7)
                assert_allclose(b, want.b_sum / want.steps, atol=1e-7)


@each_dtype
@pytest.mark.parametrize("is_penalised", [False, True])
def test_step_sizes_of_features_and_what_waits_for_them_are_those_of_dense_rows(
    dtype, is_penalised
):
    rng = np.random.default_rng(4)
    l2, l1 = is_penalised * rng.random(D), 0.05 * is_penalised * rng.random(D)
    want = oracle.descend_by_feature(oracle.zeros(K, D), X, Y, WEIGHT, 0.3 * ETA, l2, l1)
    with sgd(dtype=dtype, adaptive=True, average=True) as own:
        own.penalise(l2, l1)
        for s in (slice(0, 70), slice(70, N)):
            own.step(PARTS, ORDER[s], Y[s], WEIGHT[s], 0.3 * ETA[s])
        W, b = own.weights.get()
        assert_allclose(W, want.W, atol=10 * TOLERANCE[dtype])
        assert_allclose(b, want.b, atol=10 * TOLERANCE[dtype])
        assert (W == 0).any() == is_penalised
        if not is_penalised:
            mean = want.W_sum / want.steps
            assert_allclose(own.weights.mean()[0], mean, atol=10 * TOLERANCE[dtype])


def test_steps_are_those_of_dense_rows_where_weights_have_room_between_them():
    classes, n = 512, 60
    y = np.random.default_rng(8).integers(0, classes, n).astype(np.int32)
    rows = (X[:n], y, WEIGHT[:n], ETA[:n])
    want = oracle.descend(oracle.zeros(classes, D), *rows, 0.9)
    told = TrainOptions.of(l2=0.9, average=True, dtype="float32")
    with SGD(classes, D, told, 7.0) as own:
        assert own.weights.arrays.V.strides[0] > 4 * classes
        own.step(PARTS, ORDER[:n], y, WEIGHT[:n], ETA[:n])
        assert_allclose(own.weights.get()[0], want.W, atol=2e-6)
        W, b = own.weights.mean()
        assert_allclose(W, want.W_sum / want.steps, atol=2e-6)
        found = own.measure(PARTS, ORDER[:n], y, WEIGHT[:n]).loss
        assert_allclose(found, WEIGHT[:n] @ oracle.losses(W, b, X[:n], y), rtol=1e-5)


def test_the_factor_of_all_weights_is_brought_back_before_digits_are_lost():
    with sgd(dtype="float32", l2=0.9, average=True) as own:
        for _ in range(20):
            own.step(PARTS, ORDER, Y, WEIGHT, ETA)
            assert 2.0**-4 <= own.weights.arrays.state[S] <= 1.0


def test_biases_stay_where_there_are_none():
    with sgd(fit_intercept=False) as own:
        own.step(PARTS, ORDER, Y, WEIGHT, ETA)
        assert not own.weights.get()[1].any()


def test_the_order_within_a_row_is_any():
    Z = random_rows(N, D)
    found = []
    for shuffled in (False, True):
        with sgd(dtype="float64") as own:
            own.step((sparse_part(Z, shuffled=shuffled),), ORDER, Y, WEIGHT, ETA)
            found.append(own.weights.get()[0])
    assert_allclose(*found, atol=1e-13)


def test_a_run_that_is_kept_goes_on_with_the_same_bits():
    options = {"average": True, "l2": 0.05}
    with sgd(**options) as whole, sgd(**options) as again:
        whole.step(PARTS, ORDER[:100], Y[:100], WEIGHT[:100], ETA[:100])
        again.restore(copies(whole.views()))
        for own in (whole, again):
            own.step(PARTS, ORDER[100:], Y[100:], WEIGHT[100:], ETA[100:])
        for name, view in whole.views().items():
            assert_array_equal(again.views()[name], view)


def test_weights_are_set_and_averaged_from_there():
    rng = np.random.default_rng(2)
    state = oracle.State(rng.normal(size=(K, D)), rng.normal(size=K))
    with sgd(dtype="float64", average=True, l2=0.1) as own:
        own.weights.set(state.W, state.b)
        want = oracle.descend(state, X, Y, WEIGHT, ETA, 0.1)
        own.step(PARTS, ORDER, Y, WEIGHT, ETA)
        assert_allclose(own.weights.mean()[0], want.W_sum / want.steps, atol=1e-12)
        own.weights.restart_average()
        assert_allclose(own.weights.mean()[0], want.W, atol=1e-12)


@each_dtype
def test_rows_are_scaled_and_measured_as_dense_ones(dtype):
    scaling = Scaling(np.zeros(D), np.linspace(0.5, 2.0, D))
    Z = X * scaling.scale
    rng = np.random.default_rng(3)
    W, b = rng.normal(size=(K, D)), rng.normal(size=K)
    with sgd(dtype=dtype) as own:
        own.scale(scaling)
        own.weights.set(W, b)
        found = own.measure(PARTS, ORDER, Y, WEIGHT)
        norms = own.squared_norms(PARTS, ORDER)
    assert_allclose(found.loss, WEIGHT @ oracle.losses(W, b, Z, Y), rtol=1e-5)
    assert_allclose(norms, (Z * Z).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_number_that_is_not_finite_once_cast_is_found(value):
    part = sparse_part(random_rows(N, D))
    part.value[5] = value
    with sgd() as own:
        assert not own.step((part,), ORDER, Y, WEIGHT, ETA).finite
        assert not np.isfinite(own.squared_norms((part,), ORDER)).all()


@each_dtype
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_full_gradients_are_those_of_dense_rows_whatever_the_threads(dtype, threads):
    classes = 40
    rng = np.random.default_rng(6)
    y = rng.integers(0, classes, N).astype(np.int32)
    W, b = rng.normal(size=(classes, D)), rng.normal(size=classes)
    found = []
    for team in (1, threads):
        full = SparseGradient(classes, D, dtype, team)
        full.begin(W, b)
        tally = full.add(PARTS, ORDER, y, WEIGHT)
        found.append((*full.gradient(), np.array(tally)))
        full.close()
    for one, several in zip(*found, strict=True):
        assert_array_equal(one, several)
    want_W, want_b = oracle.gradient(W, b, X, y, WEIGHT, 0.0)
    assert_allclose(found[0][0] / WEIGHT.sum(), want_W, atol=TOLERANCE[dtype])
    assert_allclose(found[0][1] / WEIGHT.sum(), want_b, atol=TOLERANCE[dtype])
    assert_allclose(found[0][2][0], WEIGHT @ oracle.losses(W, b, X, y), rtol=TOLERANCE[dtype])


def test_the_diagonal_is_that_of_the_hessian():
    rng = np.random.default_rng(7)
    theta = rng.normal(size=(K, D + 1)) / 4
    one = SparseDiagonal(K, D, "float64", None)
    one.learn(theta, Batch(PARTS, ORDER, Y, WEIGHT), np.zeros(D + 1), np.zeros(D + 1))
    p = oracle.softmax(X @ theta[:, :D].T + theta[:, D])
    curved = WEIGHT[:, None] * np.maximum(p * (1 - p), 1e-3)
    ones = np.concatenate([X, np.ones((N, 1))], axis=1)
    want = curved.T @ np.square(ones) / WEIGHT.sum()
    floor = 1e-6 * want.mean(axis=1, keepdims=True)
    assert_allclose(1 / one.apply(np.ones((K, D + 1)))[0], np.maximum(want, floor), rtol=1e-12)


def test_columns_are_measured_about_zero_where_they_are_sparse():
    found = SparseMomentSums(D)
    for s in (slice(0, 90), slice(90, N)):
        found.add(PARTS, ORDER[s], WEIGHT[s])
    moments = found.moments()
    numbers = slice(20, 23)
    own = MomentSums(3)
    own.add(PARTS[1:2], ORDER, WEIGHT)
    assert_allclose(moments.mean[numbers], own.moments().mean, atol=1e-12)
    assert_allclose(moments.deviation[numbers], own.moments().deviation)
    few = np.r_[:20, 23:D]
    counted = X[WEIGHT > 0][:, few]
    rms = np.sqrt(WEIGHT @ np.square(X[:, few]) / WEIGHT.sum())
    assert not moments.mean[few].any()
    assert_allclose(moments.reach[few], np.abs(counted).max(axis=0))
    rare = moments.reach[few] * np.sqrt(8 / len(counted))
    assert_allclose(moments.deviation[few], np.maximum(rms, rare))
    halves = [SparseMomentSums(D) for _ in range(2)]
    for half, s in zip(halves, (slice(0, 90), slice(90, N)), strict=True):
        half.add(PARTS, ORDER[s], WEIGHT[s])
    merged = (halves[0] + halves[1]).moments()
    assert_allclose(merged.deviation, moments.deviation)


def test_rows_of_one_norm_are_scaled_by_how_many_have_a_feature_and_not_by_its_sizes():
    rng = np.random.default_rng(5)
    n, d = 400, 12
    X = rng.random((n, d)) * (rng.random((n, d)) < np.geomspace(0.9, 0.05, d))
    X[:, 3] *= 100
    X[0] = 0
    X[1:] /= np.sqrt(np.square(X[1:]).sum(axis=1))[:, None] + (X[1:].sum(axis=1) == 0)[:, None]
    X = X.astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum((X > 0).sum(axis=1))])
    part = Sparse(indptr, np.nonzero(X)[1].astype(np.int32), X[X > 0], d)
    found = SparseMomentSums(d)
    found.add((part,), np.arange(n), np.ones(n))
    told = ("spread", np.dtype(np.float64), np.zeros(d, np.bool_))
    scaling = found.moments().scaling(*told, centred=True, scaled=True)
    shares = (X > 0).mean(axis=0)
    assert_allclose(scaling.scale, shares**-0.25, rtol=1e-5)


def test_norms_of_rows_are_those_of_any_number_at_once(monkeypatch):
    some = random_rows(50, 9, 0.5).astype(np.float32)
    part, chosen = sparse_part(some), np.flatnonzero(np.arange(50) % 3)
    norms = (some[chosen].astype(np.float64) ** 2).sum(axis=1)
    want = norms[norms > 0].min(), norms.max()
    assert_allclose(sparse_moments._norms(part, chosen), want)
    monkeypatch.setattr(sparse_moments, "BLOCK", 12)
    assert_allclose(sparse_moments._norms(part, chosen), want)
    here = chosen[(chosen >= 7) & (chosen < 40)]
    cut = sparse_moments._norms(part[7:40], here - 7)
    assert_allclose(cut, sparse_moments._norms(part, here))
    assert sparse_moments._norms(part[:0], chosen[:0]) == (np.inf, 0.0)
