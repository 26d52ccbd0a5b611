"""The update rules with averages, penalties and bounds against the plain mathematics."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.kernels.bounds import CAP, IMPLICIT, solve_implicit
from fastsoftmax.kernels.operands import new_block
from tests import oracle
from tests.optim.descents import BOUNDED, RULES, TOLERANCE, Trained, check, relative, wanted


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("l2", [0.0, 0.01, 1.0])
def test_shrinking_and_averaging_are_exact_at_every_step(rule, l2, dtype):
    for K, d, n in ((2, 5, 40), (10, 33, 61), (23, 64, 50)):
        check(rule, K, d, n, dtype, l2=l2, average=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", RULES)
def test_averages_are_exact_where_every_row_counts(rule, dtype):
    K = 2 if rule == "pairwise" else 10
    X, y, w, eta = oracle.problem(K, 33, 61)
    problem = (X.astype(dtype).astype(np.float64), y, np.ones_like(w), eta)
    want, got = wanted(rule, problem, K), Trained(rule, problem, dtype, average=True, K=K)
    assert relative(got.average.W[:, :33], want.W_sum) < TOLERANCE[dtype]
    assert_allclose(got.average.b[0, :K], want.b_sum, atol=TOLERANCE[dtype] * 61)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bound", [CAP, IMPLICIT])
@pytest.mark.parametrize("rule", BOUNDED)
def test_no_rule_lets_a_row_step_too_far(rule, bound, dtype):
    for K, d, n in ((2, 5, 40), (10, 33, 61), (23, 64, 50)):
        for l2 in (0.0, 0.3):
            check(rule, K, d, n, dtype, l2=l2, average=True, bound=bound)
        check(rule, K, d, n, dtype, bias=0.0, bound=bound)


@pytest.mark.parametrize("bound", [CAP, IMPLICIT])
@pytest.mark.parametrize("rule", ["blocked", "ahead", "panels"])
def test_bounded_steps_have_the_same_bits_for_any_threads(rule, bound):
    problem = oracle.problem(10, 800, 100)
    problem = (*problem[:3], problem[3] * 20)
    K = 10 if rule == "panels" else 40
    one, two = (
        Trained(rule, problem, np.float32, K=K, threads=threads, average=True, l2=0.1, bound=bound)
        for threads in (1, 2)
    )
    assert_array_equal(one.W, two.W)
    assert_array_equal(one.b, two.b)
    assert_array_equal(one.average.W[:, :800], two.average.W[:, :800])


@pytest.mark.parametrize("K", [2, 5, 100])
@pytest.mark.parametrize("s", [0.0, 1e-3, 1.0, 30.0, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_implicit_step_ends_where_its_gradient_is(dtype, s, K):
    rng = np.random.default_rng(K)
    eps = np.finfo(dtype).eps
    for spread in (1.0, 30.0, 1000.0):
        for _ in range(20):
            trial = new_block(K, 4, np.dtype(dtype), 8).trial
            trial[3] = -np.inf
            a, y = rng.normal(size=K) * spread, int(rng.integers(K))
            trial[3, :K] = a
            solve_implicit(trial, y, s)
            shift, g, _, a = trial[:, :K].astype(np.float64)
            z = a + shift
            others = np.delete(oracle.softmax(z), y)
            # z is known to within eps, and the gradient at it therefore.
            near = 16 * eps * (1 + abs(z).max())
            assert_allclose(g, np.insert(others, y, -others.sum()), atol=near, rtol=near)
            slack = near * (1 + s * (abs(g) * (1 - abs(g))).max())
            assert_allclose(shift, -s * g, atol=slack, rtol=16 * eps)
            assert not trial[1, K:].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_shrink_to_nothing_is_no_division_by_zero(dtype):
    X, y, w, _ = oracle.problem(3, 8, 30)
    problem = (X, y, w, np.full(30, 1.0))
    want = wanted("blocked", problem, 3, l2=2.0)
    got = Trained("blocked", problem, dtype, l2=2.0, average=True)
    assert relative(got.W, want.W) < TOLERANCE[dtype]
    assert relative(got.average.W[:, :8], want.W_sum) < TOLERANCE[dtype]


@pytest.mark.parametrize("rule", ["blocked", "ahead", "batches"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_threads_gives_the_same_bits(rule, dtype):
    problem = oracle.problem(23, 40, 200)
    first = Trained(rule, problem, dtype, average=True, l2=0.1)
    for threads in (2, 3, 4, 16):
        again = Trained(rule, problem, dtype, average=True, l2=0.1, threads=threads)
        assert_array_equal(again.W, first.W)
        assert_array_equal(again.b, first.b)
        assert_array_equal(again.average.W, first.average.W)
        assert again.tally == first.tally


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_panels_give_the_same_bits_for_any_number_of_threads(l2, dtype):
    X, y, w, eta = oracle.problem(10, 1700, 100)
    first = Trained("panels", (X, y, w, eta), dtype, average=True, l2=l2)
    for threads in (2, 3, 4):
        again = Trained("panels", (X, y, w, eta), dtype, average=True, l2=l2, threads=threads)
        assert_array_equal(again.W, first.W)
        assert_array_equal(again.b, first.b)
        assert_array_equal(again.average.W, first.average.W)
        assert again.tally == first.tally
