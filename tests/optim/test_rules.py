"""The update rules against the plain mathematics: blocked, plain, mini-batch; any thread count."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.data.parts import Dense
from fastsoftmax.kernels.compile import in_python
from fastsoftmax.kernels.gather import part_table
from fastsoftmax.kernels.measure import measure, squared_norms
from fastsoftmax.kernels.minibatch import STEPS, descend_minibatch, new_gradient
from fastsoftmax.kernels.operands import Rows, new_block, new_coefficients, weights_length
from fastsoftmax.kernels.panels import panel_start
from fastsoftmax.kernels.sizes import PANEL_FEATURES, PANEL_ROW, panel_count
from fastsoftmax.kernels.workers import Team
from tests import oracle
from tests.optim.descents import RULES, Trained, check, relative

# `make test` leaves tests of float64 out where it runs the rules for another processor.
in_float64 = pytest.mark.parametrize("dtype", [np.float64])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", RULES[:5])
@pytest.mark.parametrize("K", [2, 3, 4, 5, 6, 7, 10, 11, 16, 17, 33, 70])
def test_every_rule_takes_the_steps_of_the_formula(rule, K, dtype):
    for d in (1, 15, 16, 70):
        for B in (8, 16, 32):
            check(rule, K, d, 70, dtype, B=B)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_classes_take_the_steps_of_the_formula(dtype):
    for d in (1, 15, 16, 70):
        for B in (8, 16, 32):
            check("pairwise", 2, d, 70, dtype, B=B)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", RULES)
def test_any_sizes_up_to_seventy_will_do(rule, dtype):
    rng = np.random.default_rng(70)
    for _ in range(40):
        K, d, n = int(rng.integers(2, 71)), int(rng.integers(1, 71)), int(rng.integers(1, 71))
        check(rule, K, d, n, dtype, B=int(rng.choice([8, 16, 64])))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", RULES)
def test_without_intercept_the_bias_stays_zero(rule, dtype):
    got = check(rule, 5, 12, 40, dtype, bias=0.0)
    assert_array_equal(got.b, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_beyond_one_panel_add_up(dtype):
    check("blocked", 6, 1100, 20, dtype)
    check("ahead", 6, 2050, 60, dtype)
    check("batches", 6, 2050, 20, dtype)
    for d in (770, 1024, 1100, 1600):
        for l2 in (0.0, 0.1):
            check("panels", 6, d, 20, dtype, average=True, l2=l2)


@in_float64
def test_panels_use_rows_where_they_lie_as_they_use_gathered_ones(dtype):
    X, y, w, eta = oracle.problem(5, 64, 50)
    in_place = Trained("panels", (X, y, w, eta), dtype)
    for other in (np.asfortranarray(X), X[:, ::-1]):
        rows = Trained("panels", (X, y, w, eta), dtype, given=other)
        if other.flags.f_contiguous:
            assert_array_equal(rows.W, in_place.W)
        else:
            assert_allclose(rows.W, in_place.W[:, ::-1], rtol=1e-9, atol=1e-12)


@in_float64
def test_a_batch_of_one_is_a_per_sample_step(dtype):
    problem = oracle.problem(4, 9, 50)
    batches = Trained("batches", problem, dtype, batch=1, l2=0.05)
    blocked = Trained("blocked", problem, dtype, l2=0.05)
    assert relative(batches.W, blocked.W) < 1e-13


def test_a_batch_goes_on_across_calls_with_the_same_bits():
    X, y, w, eta = oracle.problem(4, 9, 50)
    whole = Trained("batches", (X, y, w, eta), np.float32, batch=20)
    weights, gradient = new_coefficients(4, 9, np.dtype("f4")), new_gradient(4, 9, np.dtype("f4"))
    block = new_block(4, 9, np.dtype("f4"), 8)
    X = X.astype(np.float32)
    with Team(1) as team:
        for part, ends in ((slice(0, 13), False), (slice(13, 50), True)):
            rows = Rows(part_table((Dense(X),)), np.arange(50)[part], y[part], w[part], eta[part])
            descend_minibatch(
                weights, gradient, None, block, rows, 20, ends, 0.0, 1.0, team.barrier, 0, 1
            )
    assert_array_equal(weights.W, whole.weights.W)
    assert_array_equal(weights.b, whole.weights.b)
    assert gradient.facts[STEPS] == 3


@in_float64
def test_a_row_of_weight_two_is_not_two_rows_but_one_longer_step(dtype):
    X, y, _, eta = oracle.problem(3, 6, 20)
    doubled = Trained("blocked", (X, y, np.full(20, 2.0), eta), dtype)
    longer = Trained("blocked", (X, y, np.ones(20), 2 * eta), dtype)
    assert_allclose(doubled.W, longer.W, rtol=1e-13)
    assert_allclose(doubled.tally.loss, 2 * longer.tally.loss, rtol=1e-13)


@pytest.mark.parametrize("rule", RULES)
def test_a_row_that_is_not_finite_stops_the_steps(rule):
    X, y, w, eta = oracle.problem(3, 6, 40)
    X[30, 2] = np.nan
    assert not Trained(rule, (X, y, w, eta), np.float32).tally.finite


@pytest.mark.parametrize("rule", RULES)
def test_an_exploding_step_is_reported(rule):
    X, y, w, _ = oracle.problem(3, 6, 200)
    assert not Trained(rule, (X, y, w, np.full(200, 3e38)), np.float32).tally.finite


@in_float64
def test_gradients_sum_to_zero_over_classes(dtype):
    got = Trained("blocked", oracle.problem(7, 20, 60), dtype)
    assert_allclose(got.W.sum(axis=0), 0, atol=1e-14)
    assert_allclose(got.b.sum(), 0, atol=1e-14)


@in_float64
def test_one_step_is_the_gradient_by_five_point_differences(dtype):
    X, y, w, _ = oracle.problem(4, 6, 12, seed=3)
    w = np.abs(w) + 0.1
    rng = np.random.default_rng(1)
    W, b, l2, h = rng.normal(size=(4, 6)), rng.normal(size=4), 0.3, 1e-3

    def five_point(move):
        values = [oracle.objective(*move(i * h), X, y, w, l2) for i in (-2, -1, 1, 2)]
        return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)

    def moved(k, j):
        def move(by):
            V, c = W.copy(), b.copy()
            if j is None:
                c[k] += by
            else:
                V[k, j] += by
            return V, c

        return move

    weights = new_coefficients(4, 6, np.dtype(dtype))
    weights.W[:, :6], weights.b[0, :4] = W, b
    gradient, block = new_gradient(4, 6, np.dtype(dtype)), new_block(4, 6, np.dtype(dtype), 8)
    rows = Rows(part_table((Dense(X),)), np.arange(12), y, w / w.mean(), np.full(12, 1.0))
    with Team(1) as team:
        descend_minibatch(
            weights, gradient, None, block, rows, 12, True, l2, 1.0, team.barrier, 0, 1
        )
    for k in range(4):
        assert_allclose(b[k] - weights.b[0, k], five_point(moved(k, None)), atol=1e-9)
        for j in range(6):
            assert_allclose(W[k, j] - weights.W[k, j], five_point(moved(k, j)), atol=1e-9)


@in_float64
def test_measuring_takes_no_step(dtype):
    X, y, w, eta = oracle.problem(5, 12, 43)
    got = Trained("blocked", (X, y, w, eta), dtype)
    before = got.W.copy()
    block = new_block(5, 12, np.dtype(dtype), 8)
    loss, _, _ = measure(got.weights, block, Rows(part_table((Dense(X),)), np.arange(43), y, w, w))
    assert_allclose(loss, w @ oracle.losses(got.W, got.b, X, y), rtol=1e-12)
    assert_array_equal(got.W, before)


def test_squared_norms_are_summed_in_float64():
    X = np.full((3, 50), 1e4, np.float32) + np.arange(3, dtype=np.float32)[:, None]
    norms = np.zeros(3)
    block = new_block(2, 50, np.dtype("f4"), 8)
    squared_norms(norms, block.X[0], np.arange(3), part_table((Dense(X),)))
    assert_allclose(norms, (X.astype(np.float64) ** 2).sum(axis=1), rtol=1e-14)


GOLDEN = (
    6.858692625309284, 15.578197978495226, 19.02817917072386, 27.75888276280601, 31.689563811415496,
    39.96979259656257, 48.617168575455686, 56.33425142981981, 65.68017192038222, 76.70131870266962,
)  # fmt: skip


@in_float64
def test_ten_losses_of_ten_blocks_stay_as_they_are(dtype):
    problem = oracle.problem(3, 10, 80, seed=42)
    for want, stop in zip(GOLDEN, range(8, 81, 8), strict=True):
        got = Trained("blocked", tuple(a[:stop] for a in problem), dtype, K=3)
        assert_allclose(got.tally.loss, want, rtol=1e-12)


def test_no_panel_is_wider_than_its_row():
    start = in_python(panel_start)
    for d in range(PANEL_FEATURES, 3000):
        count, length = panel_count(d), weights_length(2, d, np.dtype(np.float32))
        starts = [start(length, p, count) for p in range(count + 1)]
        assert starts[-1] == length
        assert max(np.diff(starts)) <= PANEL_ROW
