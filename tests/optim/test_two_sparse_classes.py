"""Two classes of sparse rows are kept as one number a feature, and learn what dense rows do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.optim.feature_weights import mirrors
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.state import copies
from fastsoftmax.options import TrainOptions
from tests import oracle
from tests.sparse_rows import mixed_rows

N = 300
PARTS, X = mixed_rows(N)
D = X.shape[1]
_, Y, WEIGHT, _ = oracle.problem(2, D, N)
ETA = np.linspace(1.0, 0.1, N)
ORDER = np.arange(N)
RNG = np.random.default_rng(4)
OWN_L2, OWN_L1, NONE = RNG.random(D), 0.01 * RNG.random(D), np.zeros(D)
TOLERANCE = {"float64": 1e-11, "float32": 2e-5}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def sgd(**options):
    return SGD(2, D, TrainOptions.of(**{"l2": 0.0, "average": False, **options}), 7.0)


def stepped(own, eta=ETA):
    for s in (slice(0, 1), slice(1, 120), slice(120, N)):
        own.step(PARTS, ORDER[s], Y[s], WEIGHT[s], eta[s], ends=s.stop == N)
    return own.weights.get()


@each_dtype
@pytest.mark.parametrize("l2", [0.0, 0.02, 3.0])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("bound", ["off", "cap", "implicit"])
def test_steps_and_their_mean_are_those_of_dense_rows(dtype, l2, average, bound):
    want = oracle.descend(oracle.zeros(2, D), X, Y, WEIGHT, ETA, l2, bound=bound)
    with sgd(dtype=dtype, l2=l2, average=average, max_step=bound) as own:
        W, b = stepped(own)
        assert own.weights.arrays.V.shape == (D, 1)
        assert_array_equal(W[1], -W[0])
        assert_allclose(W, want.W, atol=TOLERANCE[dtype])
        assert_allclose(b, want.b, atol=TOLERANCE[dtype])
        W, b = own.weights.mean()
        if average:
            assert_allclose(W, want.W_sum / want.steps, atol=TOLERANCE[dtype])
            assert_allclose(b, want.b_sum / want.steps, atol=TOLERANCE[dtype])
        found = own.measure(PARTS, ORDER, Y, WEIGHT).loss
        assert_allclose(found, WEIGHT @ oracle.losses(W, b, X, Y), rtol=1e-5)


@each_dtype
@pytest.mark.parametrize("l2", [NONE, OWN_L2], ids=["", "own l2"])
@pytest.mark.parametrize("l1", [NONE, OWN_L1], ids=["", "l1"])
def test_penalties_batches_and_step_sizes_are_those_of_dense_rows(dtype, l2, l1):
    rows = (X, Y, WEIGHT, ETA)
    wants = {
        (): oracle.descend_penalised(oracle.zeros(2, D), *rows, l2, l1),
        ("adaptive", True): oracle.descend_by_feature(oracle.zeros(2, D), *rows, l2, l1),
        ("batch_size", 16): oracle.descend_batches(
            oracle.zeros(2, D), *rows, 16, own=(l2, l1)
        ),
    }  # fmt: skip
    for told, want in wants.items():
        with sgd(dtype=dtype, **dict([told] if told else [])) as own:
            own.penalise(l2, l1)
            W, b = stepped(own)
            assert_array_equal(W[1], -W[0])
            assert_allclose(W, want.W, atol=TOLERANCE[dtype])
            assert_allclose(b, want.b, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("options", [{"l2": 0.1}, {"batch_size": 7}], ids=str)
def test_weights_that_are_not_each_others_negatives_are_kept_both(options):
    start = oracle.State(RNG.normal(size=(2, D)), RNG.normal(size=2))
    with sgd(dtype="float64", average=True, **options) as own, sgd(**options) as plain:
        own.weights.set(start.W, start.b)
        batch = options.get("batch_size", 1)
        W, b = stepped(own)
        want = oracle.descend_batches(start, X, Y, WEIGHT, ETA, batch, options.get("l2", 0.0))
        assert_allclose(W, want.W, atol=1e-12)
        assert_allclose(b, want.b, atol=1e-12)
        assert_allclose(own.weights.mean()[0], want.W_sum / want.steps, atol=1e-12)
        plain.weights.set(np.stack([W[0], -W[0]]), b)
        assert plain.weights.is_mirrored
        assert not own.weights.is_mirrored


def test_what_was_averaged_stays_where_both_are_kept_from_then_on():
    with sgd(dtype="float64", average=True, l2=0.1) as own:
        stepped(own)
        want = oracle.descend(oracle.zeros(2, D), X, Y, WEIGHT, ETA, 0.1)
        want.W = want.W + 1.0
        own.weights.set(own.weights.get()[0] + 1.0, own.weights.get()[1])
        assert_allclose(own.weights.mean()[0], want.W_sum / want.steps, atol=1e-12)
        stepped(own)
        oracle.descend(want, X, Y, WEIGHT, ETA, 0.1)
        assert_allclose(own.weights.mean()[0], want.W_sum / want.steps, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"batch_size": 7}, {"adaptive": True}], ids=str)
@pytest.mark.parametrize("differ", [0.0, 1.0])
def test_a_run_that_is_kept_goes_on_with_the_same_bits(options, differ):
    told = {"average": True, **options}
    with sgd(**told) as whole, sgd(**told) as again:
        whole.penalise(OWN_L2, OWN_L1)
        again.penalise(OWN_L2, OWN_L1)
        whole.weights.set(np.stack([np.ones(D), np.full(D, differ - 1.0)]), np.zeros(2))
        whole.step(PARTS, ORDER[:100], Y[:100], WEIGHT[:100], ETA[:100])
        again.restore(copies(whole.views()))
        for own in (whole, again):
            own.step(PARTS, ORDER[100:], Y[100:], WEIGHT[100:], ETA[100:])
        for name, view in whole.views().items():
            assert_array_equal(again.views()[name], view)


def test_negatives_that_differ_by_rounding_count_as_negatives():
    v = RNG.normal(size=D).astype(np.float32)
    assert mirrors(np.stack([v, -np.nextafter(v, np.float32(9.0))]))
    assert not mirrors(np.stack([v, -v * np.float32(1.0001)]))
