"""exp and the softmax of a row."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.recurrence import residual
from fastsoftmax.kernels.softmax import exp
from fastsoftmax.kernels.vectors import lanes, load, store
from fastsoftmax.kernels.workspace import aligned, padded
from tests import oracle

DTYPES = (np.float32, np.float64)


@kernel(EXACT)
def exp_of_row(out, x):
    for k in range(0, x.shape[1], lanes(x)):
        store(out, 0, k, exp(load(x, 0, k)))


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float32, -87.0), (np.float64, -708.0)])
def test_exp_is_within_two_ulp(dtype, lowest):
    x = np.linspace(lowest, 0, 4096, dtype=dtype)[None, :]
    got = np.empty_like(x)
    exp_of_row(got, x)
    want = np.exp(x.astype(np.longdouble))
    ulp = np.abs(got - want) / np.spacing(want.astype(dtype))
    assert ulp.max() < 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_is_exact_at_zero_and_zero_far_below(dtype):
    x = np.full((1, 16), -np.inf, dtype)
    x[0, :4] = 0, -1e30, -1000, -np.inf
    got = np.empty_like(x)
    exp_of_row(got, x)
    assert_array_equal(got[0, :5], [1, 0, 0, 0, 0])


def row_of(z, dtype):
    """Return logits as a padded row (padding classes are -inf) and a bias row."""
    R = aligned((1, padded(len(z), dtype)), dtype)
    R[0] = -np.inf
    R[0, : len(z)] = z
    return R, np.zeros_like(R)


def probabilities_of(z, y, dtype):
    R, b = row_of(z, dtype)
    loss, hit = residual(R, b, 0, y, dtype(1), 0.0)
    p = -R[0, : len(z)]
    p[y] += 1
    return p, loss, hit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("K", [2, 3, 7, 16, 17, 100])
def test_residuals_are_softmax_minus_one_hot(K, dtype):
    z = np.random.default_rng(K).normal(size=K) * 5
    for y in (0, K - 1):
        p, loss, hit = probabilities_of(z, y, dtype)
        eps = np.finfo(dtype).eps
        assert_allclose(p, oracle.softmax(z), rtol=50 * eps, atol=4 * eps)
        assert_allclose(loss, -oracle.log_softmax(z)[y], rtol=50 * eps, atol=4 * eps)
        assert hit == (z.argmax() == y)
        assert_allclose(p.sum(), 1, rtol=8 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_survives_logits_of_ten_thousand(dtype):
    p, loss, hit = probabilities_of([10_000, 0, -10_000], 1, dtype)
    assert_array_equal(p, [1, 0, 0])
    assert loss == 10_000
    assert not hit


@pytest.mark.parametrize("dtype", DTYPES)
def test_shifting_logits_changes_nothing(dtype):
    z = np.array([1, 2, 4], dtype)
    shifted = probabilities_of(z + dtype(1024), 0, dtype)
    assert_array_equal(shifted[0], probabilities_of(z, 0, dtype)[0])


def test_a_tie_counts_for_the_first_class_only():
    for y in (0, 1, 2):
        _, loss, hit = probabilities_of([0, 0, 0], y, np.float32)
        assert hit == (y == 0)
        assert_allclose(loss, math.log(3), rtol=1e-7)


def test_nan_in_a_logit_shows_in_the_loss():
    _, loss, _ = probabilities_of([0, np.nan, 1], 0, np.float32)
    assert math.isnan(loss)
