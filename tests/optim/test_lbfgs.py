"""L-BFGS by itself: minima that are known, penalties that leave exact zeros, a memory kept."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.optim.lbfgs import HISTORY, LBFGS, TREND, Memory, Pair
from fastsoftmax.optim.state import dump, load


def quadratic(d=12, condition=1e4, seed=0):
    """Return f(x) = (x - m)' A (x - m) / 2 with its gradient, m, and A."""
    random = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(random.normal(size=(d, d)))
    A = Q @ np.diag(np.geomspace(1, condition, d)) @ Q.T
    m = random.normal(size=(1, d))

    def evaluate(x):
        slope = (x - m) @ A
        return float(((x - m) * slope).sum() / 2), slope

    return evaluate, m, A


def rosenbrock(x):
    """Return 100 (x1 - x0^2)^2 + (1 - x0)^2 and its gradient; the minimum is 0 at (1, 1)."""
    (a, b) = x[0]
    value = 100 * (b - a * a) ** 2 + (1 - a) ** 2
    return value, np.array([[-400 * a * (b - a * a) - 2 * (1 - a), 200 * (b - a * a)]])


def run(search, x, most=400):
    """Return the last point, and the values on the way."""
    point, values = search.start(x), []
    while (following := search.step(point, most)) is not None:
        point = following
        values.append(point.value)
    return point, values


def same(*vectors):
    return vectors


def test_a_quadratic_is_minimised_to_rounding():
    evaluate, m, _ = quadratic()
    point, values = run(LBFGS(evaluate, same), np.zeros((1, 12)))
    assert_allclose(point.x, m, atol=1e-7)
    assert values == sorted(values, reverse=True)


def test_the_inverse_hessian_as_a_preconditioner_takes_one_step():
    evaluate, m, A = quadratic()
    search = LBFGS(evaluate, lambda *vectors: [v @ np.linalg.inv(A) for v in vectors])
    start = search.start(np.zeros((1, 12)))
    search.assess(start)
    promised = search.memory.gain
    point = search.step(start, 100)
    assert_allclose(point.x, m, atol=1e-9)
    assert search.memory.evaluations == 2
    # What was promised was all there was: half the slope along the step.
    assert_allclose(promised, evaluate(np.zeros((1, 12)))[0], rtol=1e-9)
    assert search.memory.gain < 1e-9 * promised
    assert search.memory.missed < 1e-9


def test_rosenbrocks_valley_is_followed_to_its_end():
    point, _ = run(LBFGS(rosenbrock, same), np.array([[-1.2, 1.0]]))
    assert_allclose(point.x, [[1.0, 1.0]], atol=1e-6)
    assert point.value < 1e-12


def test_l1_shrinks_and_leaves_exact_zeros():
    m, h = np.array([[3.0, -2.0, 0.4, -0.1, 0.0]]), np.array([[1.0, 4.0, 1.0, 2.0, 1.0]])
    l1 = np.full((1, 5), 0.5)

    def evaluate(x):
        return float((h * np.square(x - m)).sum() / 2), h * (x - m)

    point, _ = run(LBFGS(evaluate, same, l1), np.zeros((1, 5)))
    want = np.sign(m) * np.maximum(np.abs(m) - l1 / h, 0.0)
    assert_allclose(point.x, want, atol=1e-9)
    assert_array_equal(point.x == 0, want == 0)
    assert_allclose(point.value, evaluate(want)[0] + 0.5 * np.abs(want).sum())


def test_what_is_left_to_gain_is_not_underestimated():
    evaluate, _, _ = quadratic(condition=100.0)
    search = LBFGS(evaluate, same)
    point, ratios = search.start(np.zeros((1, 12))), []
    while (following := search.step(point, 200)) is not None and following.value > 1e-12:
        ratios.append(search.memory.gain / following.value)
        point = following
    assert len(ratios) > 15
    assert min(ratios) > 1


def test_no_more_evaluations_are_made_than_were_allowed():
    search = LBFGS(rosenbrock, same)
    run(search, np.array([[-1.2, 1.0]]), most=9)
    assert search.memory.evaluations <= 9


@pytest.mark.parametrize("steps", [1, 5, HISTORY + 5])
def test_a_search_goes_on_from_a_memory_that_was_kept(steps):
    evaluate, _, _ = quadratic(condition=1e6)
    whole = LBFGS(evaluate, same)
    point = whole.start(np.zeros((1, 12)))
    for _ in range(steps):
        point = whole.step(point, 500)
    kept = load(Memory, dump(whole.memory), {"K": 1, "columns": 12})
    assert len(kept.pairs) == min(steps, HISTORY)
    assert len(kept.values) <= 2 * TREND + 1
    other, there = LBFGS(evaluate, same, memory=kept), point
    for _ in range(4):
        point, there = whole.step(point, 500), other.step(there, 500)
        assert_array_equal(point.x, there.x)
        assert whole.memory.gain == other.memory.gain


@pytest.mark.parametrize("curvature", [0.0, -1.0, float("nan")])
def test_a_pair_that_tells_of_no_curvature_is_refused(curvature):
    one = np.ones((1, 2))
    with pytest.raises(ValueError, match="go nowhere"):
        Pair(curvature, one, one)
    with pytest.raises(ValueError, match="go nowhere"):
        Pair(1.0, one, 0 * one)
