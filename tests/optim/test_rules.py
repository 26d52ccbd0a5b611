"""The update rules against the plain mathematics: blocked, plain, mini-batch; any thread count."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.data.parts import Dense
from fastsoftmax.kernels.binary import descend_binary
from fastsoftmax.kernels.blocks import descend_blocks
from fastsoftmax.kernels.bounds import CAP, IMPLICIT, OFF, solve_implicit
from fastsoftmax.kernels.compile import in_python
from fastsoftmax.kernels.gather import part_table
from fastsoftmax.kernels.lookahead import descend_lookahead, new_turns, other_turn
from fastsoftmax.kernels.measure import measure, squared_norms
from fastsoftmax.kernels.minibatch import STEPS, descend_minibatch, new_gradient
from fastsoftmax.kernels.narrow import descend_narrow, new_narrow
from fastsoftmax.kernels.operands import (
    Rows,
    new_average,
    new_block,
    new_coefficients,
    weights_length,
)
from fastsoftmax.kernels.panels import descend_panels, new_panels, panel_columns, panel_start
from fastsoftmax.kernels.rowwise import descend_rowwise
from fastsoftmax.kernels.sizes import (
    NARROW_CLASSES,
    PANEL_CLASSES,
    PANEL_FEATURES,
    PANEL_ROW,
    panel_count,
)
from fastsoftmax.kernels.workers import Team
from fastsoftmax.optim.tally import Tally
from tests import oracle

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
RULES = ("blocked", "ahead", "plain", "batches", "panels", "pairwise", "narrow")
BOUNDED = tuple(rule for rule in RULES if rule != "batches")


def relative(got, want):
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-300)


class Trained:
    """Weights after some rows under one of the rules."""

    def __init__(
        self, rule, problem, dtype, *, B=8, l2=0.0, average=False, bias=1.0, threads=1, batch=5,
        K=None, start=None, given=None, bound=OFF,
    ):  # fmt: skip
        X, y, w, eta = problem
        self.K, self.d = K or int(y.max()) + 1, X.shape[1]
        self.weights = new_coefficients(self.K, self.d, np.dtype(dtype))
        if start is not None:
            self.weights.W[:, : self.d], self.weights.b[0, : self.K] = start
        self.average = new_average(self.K, self.d, np.dtype(dtype), B) if average else None
        self.gradient = new_gradient(self.K, self.d, np.dtype(dtype))
        block = new_block(self.K, self.d, np.dtype(dtype), B, threads)
        X = np.ascontiguousarray(X, dtype) if given is None else given
        step = eta if rule == "batches" else eta * w
        rows = Rows(part_table((Dense(X),)), np.arange(len(y)), y, w, step, bound)
        with Team(threads) as team:
            if rule == "blocked":
                facts = team.run(
                    lambda i: descend_blocks(
                        self.weights, self.average, block, rows, l2, bias, team.barrier, i, threads
                    )
                )
            elif rule == "ahead":
                turns = new_turns(self.K, self.d, np.dtype(dtype), B, threads)
                other = other_turn(self.average)
                facts = team.run(
                    lambda i: descend_lookahead(
                        self.weights, self.average, other, *turns, rows,
                        l2, bias, team.barrier, i, threads,
                    )
                )  # fmt: skip
            elif rule == "panels":
                facts = self._by_panels(X, rows, l2, bias, team)
            elif rule == "plain":
                facts = descend_rowwise(self.weights, self.average, block, rows, l2, bias)
            elif rule == "narrow":
                narrow = new_narrow(self.d, np.dtype(dtype))
                facts = descend_narrow(self.weights, self.average, narrow, rows, l2, bias)
            elif rule == "pairwise":
                facts = descend_binary(self.weights, self.average, block, rows, l2, bias)
            else:
                facts = team.run(
                    lambda i: descend_minibatch(
                        self.weights, self.gradient, self.average, block, rows,
                        batch, True, l2, bias, team.barrier, i, threads,
                    )
                )  # fmt: skip

        self.tally = Tally(*facts)

    def _by_panels(self, X, rows, l2, bias, team):
        size = team.size
        dtype = self.weights.W.dtype
        panels = new_panels(self.K, self.d, dtype, size)
        columns = [panel_columns(self.d, i, size) for i in range(size)]
        shares = [
            rows._replace(table=part_table((Dense(X),), *part), step=rows.step.copy())
            for part in columns
        ]
        averages = [None] * size
        if self.average is not None:
            averages = [new_average(self.K, self.d, dtype, 8) for _ in columns]
        facts = team.run(
            lambda i: descend_panels(
                self.weights, averages[i], panels, shares[i], l2, bias, team.barrier, i, size
            )
        )
        if self.average is not None:
            self.average.b[:] = averages[0].b
            for own, (first, stop) in zip(averages, columns, strict=True):
                assert_array_equal(own.b, averages[0].b)
                self.average.W[:, first:stop] = own.W[:, first:stop]
        return facts

    @property
    def W(self):
        return self.weights.W[:, : self.d]

    @property
    def b(self):
        return self.weights.b[0, : self.K]


def wanted(rule, problem, K, start=None, **settings):
    X, y, w, eta = problem
    state = oracle.zeros(K, X.shape[1])
    if start is not None:
        state.W[:], state.b[:] = start
    if rule == "batches":
        return oracle.descend_batches(state, X, y, w, eta, 5, **settings)
    return oracle.descend(state, X, y, w, eta, **settings)


def check(rule, K, d, n, dtype, **settings):
    K = {"pairwise": 2, "panels": min(K, PANEL_CLASSES), "narrow": min(K, NARROW_CLASSES)}.get(
        rule, K
    )
    problem = oracle.problem(K, d, n, seed=K + d)
    problem = (problem[0].astype(dtype).astype(np.float64), *problem[1:])
    fits = settings.get("bias", 1.0) > 0
    bound = ("off", "cap", "implicit")[settings.get("bound", OFF)]
    oracle_settings = {"l2": settings.get("l2", 0.0), "fit_intercept": fits}
    if bound != "off":
        oracle_settings["bound"] = bound
        # Steps that some rows would take too far.
        problem = (*problem[:3], problem[3] * np.where(np.arange(n) % 3 == 0, 30.0, 1.0))
    # From zero weights, classes not met yet tie exactly, and which of them is first is rounding.
    rng = np.random.default_rng(d)
    start = rng.normal(size=(K, d)).astype(dtype), rng.normal(size=K).astype(dtype)
    if not fits:
        start[1][:] = 0
    want = wanted(rule, problem, K, start, **oracle_settings)
    got = Trained(rule, problem, dtype, K=K, start=start, **settings)
    tolerance = TOLERANCE[dtype]
    assert relative(got.W, want.W) < tolerance
    assert_allclose(got.b, want.b, atol=tolerance)
    assert_allclose(got.tally.loss, want.loss, rtol=tolerance)
    assert_allclose(got.tally.hits, want.hits, rtol=1e-12)
    if got.average is not None:
        assert relative(got.average.W[:, :d], want.W_sum) < tolerance
        assert_allclose(got.average.b[0, :K], want.b_sum, atol=tolerance * n)
    return got


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


def test_a_shrink_to_nothing_is_no_division_by_zero():
    X, y, w, _ = oracle.problem(3, 8, 30)
    problem = (X, y, w, np.full(30, 1.0))
    want = wanted("blocked", problem, 3, l2=2.0)
    got = Trained("blocked", problem, np.float64, l2=2.0, average=True)
    assert relative(got.W, want.W) < 1e-12
    assert relative(got.average.W[:, :8], want.W_sum) < 1e-12


@pytest.mark.parametrize("rule", RULES)
def test_without_intercept_the_bias_stays_zero(rule):
    got = check(rule, 5, 12, 40, np.float64, bias=0.0)
    assert_array_equal(got.b, 0)


def test_features_beyond_one_panel_add_up():
    check("blocked", 6, 1100, 20, np.float64)
    check("ahead", 6, 2050, 60, np.float64)
    check("batches", 6, 2050, 20, np.float64)
    for d in (770, 1024, 1100, 1600):
        for dtype in (np.float32, np.float64):
            for l2 in (0.0, 0.1):
                check("panels", 6, d, 20, dtype, average=True, l2=l2)


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


def test_panels_use_rows_where_they_lie_as_they_use_gathered_ones():
    X, y, w, eta = oracle.problem(5, 64, 50)
    in_place = Trained("panels", (X, y, w, eta), np.float64)
    for other in (np.asfortranarray(X), X[:, ::-1]):
        rows = Trained("panels", (X, y, w, eta), np.float64, given=other)
        if other.flags.f_contiguous:
            assert_array_equal(rows.W, in_place.W)
        else:
            assert_allclose(rows.W, in_place.W[:, ::-1], rtol=1e-9, atol=1e-12)


def test_a_batch_of_one_is_a_per_sample_step():
    problem = oracle.problem(4, 9, 50)
    batches = Trained("batches", problem, np.float64, batch=1, l2=0.05)
    blocked = Trained("blocked", problem, np.float64, l2=0.05)
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


def test_a_row_of_weight_two_is_not_two_rows_but_one_longer_step():
    X, y, _, eta = oracle.problem(3, 6, 20)
    doubled = Trained("blocked", (X, y, np.full(20, 2.0), eta), np.float64)
    longer = Trained("blocked", (X, y, np.ones(20), 2 * eta), np.float64)
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


def test_gradients_sum_to_zero_over_classes():
    got = Trained("blocked", oracle.problem(7, 20, 60), np.float64)
    assert_allclose(got.W.sum(axis=0), 0, atol=1e-14)
    assert_allclose(got.b.sum(), 0, atol=1e-14)


def test_one_step_is_the_gradient_by_five_point_differences():
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

    weights = new_coefficients(4, 6, np.dtype("f8"))
    weights.W[:, :6], weights.b[0, :4] = W, b
    gradient, block = new_gradient(4, 6, np.dtype("f8")), new_block(4, 6, np.dtype("f8"), 8)
    rows = Rows(part_table((Dense(X),)), np.arange(12), y, w / w.mean(), np.full(12, 1.0))
    with Team(1) as team:
        descend_minibatch(
            weights, gradient, None, block, rows, 12, True, l2, 1.0, team.barrier, 0, 1
        )
    for k in range(4):
        assert_allclose(b[k] - weights.b[0, k], five_point(moved(k, None)), atol=1e-9)
        for j in range(6):
            assert_allclose(W[k, j] - weights.W[k, j], five_point(moved(k, j)), atol=1e-9)


def test_measuring_takes_no_step():
    X, y, w, eta = oracle.problem(5, 12, 43)
    got = Trained("blocked", (X, y, w, eta), np.float64)
    before = got.W.copy()
    block = new_block(5, 12, np.dtype("f8"), 8)
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


def test_ten_losses_of_ten_blocks_stay_as_they_are():
    problem = oracle.problem(3, 10, 80, seed=42)
    for want, stop in zip(GOLDEN, range(8, 81, 8), strict=True):
        got = Trained("blocked", tuple(a[:stop] for a in problem), np.float64, K=3)
        assert_allclose(got.tally.loss, want, rtol=1e-12)


def test_no_panel_is_wider_than_its_row():
    start = in_python(panel_start)
    for d in range(PANEL_FEATURES, 3000):
        count, length = panel_count(d), weights_length(2, d, np.dtype(np.float32))
        starts = [start(length, p, count) for p in range(count + 1)]
        assert starts[-1] == length
        assert max(np.diff(starts)) <= PANEL_ROW
