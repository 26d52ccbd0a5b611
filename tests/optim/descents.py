"""What tests of the update rules share: rows that a rule steps through, beside the oracle."""

from functools import lru_cache

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.data.parts import Dense
from fastsoftmax.kernels.binary import descend_binary
from fastsoftmax.kernels.blocks import descend_blocks
from fastsoftmax.kernels.bounds import OFF
from fastsoftmax.kernels.gather import part_table
from fastsoftmax.kernels.lookahead import descend_lookahead, new_turns, other_turn
from fastsoftmax.kernels.minibatch import descend_minibatch, new_gradient
from fastsoftmax.kernels.narrow import descend_narrow, new_narrow
from fastsoftmax.kernels.operands import Rows, new_average, new_block, new_coefficients
from fastsoftmax.kernels.panels import descend_panels, new_panels, panel_columns
from fastsoftmax.kernels.rowwise import descend_rowwise
from fastsoftmax.kernels.sizes import NARROW_CLASSES, PANEL_CLASSES
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
        K=None, start=None, given=None, bound=OFF, own=(),
    ):  # fmt: skip
        X, y, w, eta = problem
        own = np.array(own, dtype=np.float64)
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
                facts = self._by_panels(X, rows, l2, own, bias, team)
            elif rule == "plain":
                facts = descend_rowwise(self.weights, self.average, block, rows, l2, own, bias)
            elif rule == "narrow":
                narrow = new_narrow(self.d, np.dtype(dtype))
                facts = descend_narrow(self.weights, self.average, narrow, rows, l2, own, bias)
            elif rule == "pairwise":
                facts = descend_binary(self.weights, self.average, block, rows, l2, own, bias)
            else:
                facts = team.run(
                    lambda i: descend_minibatch(
                        self.weights, self.gradient, self.average, block, rows,
                        batch, True, l2, bias, team.barrier, i, threads,
                    )
                )  # fmt: skip

        self.tally = Tally(*facts)

    def _by_panels(self, X, rows, l2, own, bias, team):
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
                self.weights, averages[i], panels, shares[i], l2, own, bias, team.barrier, i, size
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


@lru_cache(maxsize=256)
def told_and_wanted(takes_batches, K, d, n, dtype, bound, l2, fits):
    """Return a problem, weights to start from and where the oracle ends, which takes its time."""
    problem = oracle.problem(K, d, n, seed=K + d)
    problem = (problem[0].astype(dtype).astype(np.float64), *problem[1:])
    settings = {"l2": l2, "fit_intercept": fits}
    if bound != "off":
        settings["bound"] = bound
        # Steps that some rows would take too far.
        problem = (*problem[:3], problem[3] * np.where(np.arange(n) % 3 == 0, 30.0, 1.0))
    # From zero weights, classes not met yet tie exactly, and which of them is first is rounding.
    rng = np.random.default_rng(d)
    start = rng.normal(size=(K, d)).astype(dtype), rng.normal(size=K).astype(dtype)
    if not fits:
        start[1][:] = 0
    rule = "batches" if takes_batches else "plain"
    return problem, start, wanted(rule, problem, K, start, **settings)


def check(rule, K, d, n, dtype, *, l2=0.0, bias=1.0, bound=OFF, **settings):
    K = {"pairwise": 2, "panels": min(K, PANEL_CLASSES), "narrow": min(K, NARROW_CLASSES)}.get(
        rule, K
    )
    problem, start, want = told_and_wanted(
        rule == "batches", K, d, n, dtype, ("off", "cap", "implicit")[bound], l2, bias > 0
    )
    problem = tuple(array.copy() for array in problem)  # kernels write in some
    got = Trained(rule, problem, dtype, K=K, start=start, l2=l2, bias=bias, bound=bound, **settings)
    tolerance = TOLERANCE[dtype]
    assert relative(got.W, want.W) < tolerance
    assert_allclose(got.b, want.b, atol=tolerance)
    assert_allclose(got.tally.loss, want.loss, rtol=tolerance)
    assert_allclose(got.tally.hits, want.hits, rtol=1e-12)
    if got.average is not None:
        assert relative(got.average.W[:, :d], want.W_sum) < tolerance
        assert_allclose(got.average.b[0, :K], want.b_sum, atol=tolerance * n)
    return got
