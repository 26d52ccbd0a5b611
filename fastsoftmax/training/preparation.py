"""The only place where a run chooses on its first rows what it was not told: scale, l2, step size.

What is chosen is a function of the data, the options and the window, and of nothing else.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from fastsoftmax.data.loading.shuffle import STEP, sample_order
from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass
from fastsoftmax.optim.moments import MIDDLE_ROWS, Moments, middles, wide_columns
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.schedules import Schedule
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.sparse_moments import new_moment_sums
from fastsoftmax.training.finite_check import check_features, checked_norm
from fastsoftmax.training.learner import NORM_ROWS, Learner
from fastsoftmax.training.prepared import Prepared
from fastsoftmax.training.scales import prepared_by, scaling_of
from fastsoftmax.training.step_trials import StepTrials, compares_by_steps, step_flops
from fastsoftmax.training.tuning import (
    RATE_ROWS,
    RATES,
    SPARSE,
    STRENGTHS,
    Choice,
    Problem,
    Rate,
    choose_l2,
    choose_rate,
    fit_to_some,
    penalty_rows,
)

logger = logging.getLogger("fastsoftmax")

CHECKED_ROWS = 1024  # looked at for being too large where no step size depends on their norm
CAPPED_RATES = (0.1, 0.3, 1.0)  # in units of 1 over the median squared norm
# A step that falls to 0 may begin bolder than one that stays: on Fashion-MNIST 20 epochs end 1.6 %
# above the optimum from three times the step, 3.9 % from it.
BOLDER = 3.0


def prepare(learner: Learner, window: Window, *, measures: bool) -> None:
    """Choose what was left open on a window, and have the learner work with it.

    measures: losses will be measured on rows that take no step, so that too is compiled now.
    """
    first = _FirstRows(window, learner)
    sample = first.sample()
    if not len(sample.order):
        raise DataError("no row is left to train on: give other data, or a smaller holdout=.")
    moments = first.moments(sample)
    wide = wide_columns(window.parts)
    scaling = None if moments is None else scaling_of(learner, moments, wide)
    prepared, rows = prepared_by(learner, moments, scaling), learner.steps or window.rows
    if compares_by_steps(learner, rows):
        prepared = choose_by_steps(learner, window, prepared, sample, rows)
        theta = None
    else:
        theta = choose_penalty(learner, prepared, sample, rows)
    learner.take(prepared)
    if theta is not None and learner.sgd_epochs == 0:  # full gradients begin near their end
        learner.sgd.weights.set(theta[:, : learner.d], theta[:, learner.d])
    if learner.sgd_epochs > 0:
        learner.state.schedule = learner.state.schedule or choose_schedule(learner, window, sample)
        learner.sgd.warm_up(window.parts, measures=measures)
    elif scaling is None:
        _norm(learner, window, sample.order[:CHECKED_ROWS])  # for its checks
    if learner.init is not None:
        learner.sgd.weights.set(*(scaling.scaled(*learner.init) if scaling else learner.init))


@dataclass(frozen=True)
class _FirstRows:
    """The rows of the first window, as a learner sees them."""

    window: Window
    learner: Learner

    @property
    def rows(self) -> int:
        """How many rows of the window are looked at: unshuffled, as many as any window holds."""
        rows = self.window.rows
        return min(rows, STEP) if self.learner.options.shuffling.shuffle == "off" else rows

    def sample(self) -> Batch:
        """Return rows of the window in a random order of their own, enough for every choice."""
        order = sample_order(self.rows, self.learner.options.shuffling.seed)
        weight = self.learner.row_weights.of(self.window, order)
        counted = np.flatnonzero(weight > 0)
        K, d = self.learner.K, self.learner.d
        counted = counted[: max(RATE_ROWS, NORM_ROWS, penalty_rows(K, d, self.learner.nonzeros))]
        order = order[counted]
        return Batch(self.window.parts, order, self.window.labels[order], weight[counted])

    def moments(self, sample: Batch) -> Moments | None:
        """Return the moments of the columns; None where features are used as they are."""
        if self.learner.options.penalty.scaling == "off":
            return None
        order = np.arange(self.rows)
        sums = new_moment_sums(self.learner.d, sparse=self.learner.nonzeros is not None)
        sums.add(self.window.parts, order, self.learner.row_weights.of(self.window, order))
        if not sums.finite:
            check_features(self.window, np.arange(self.window.rows), self.learner.sgd.dtype)
        return sums.moments(middles(self.window.parts, sample.order[:MIDDLE_ROWS]))


def choose_penalty(
    learner: Learner, prepared: Prepared, sample: Batch, rows: int
) -> np.ndarray | None:
    """Set l2: as it was given, or that under which held-out rows of the sample do best.

    rows: those that take a step in an epoch. Return weights near the optimum, where known.
    """
    o, problem = learner.options, _problem(learner, prepared, sample, rows)
    if o.penalty.l2 != "auto":
        prepared.l2 = float(o.penalty.l2)
        begins_there = learner.sgd_epochs == 0 and not o.penalty.l1
        return fit_to_some(problem, prepared.l2) if begins_there else None
    choice = choose_l2(problem)
    _note_penalty(prepared, choice)
    return choice.theta


def choose_by_steps(
    learner: Learner, window: Window, prepared: Prepared, sample: Batch, rows: int
) -> Prepared:
    """Choose first the steps and then l2, by fits made of such steps; return what was prepared."""
    # As the steps to come are: what takes them is compiled once.
    prepared.l2 = 1.0 / (STRENGTHS[SPARSE] * rows)
    learner.sgd.weights.average_steps(counts=False)
    learner.take(prepared)
    schedule = choose_schedule(learner, window, sample)
    prepared = learner.prepared
    bound, scaling = learner.sgd.bound, prepared.scaling
    options = learner.options.changed(average=False, threads=1)

    def fresh(l2: np.ndarray) -> SGD:
        sgd = SGD(learner.K, learner.d, options, learner.nonzeros)
        sgd.scale(scaling)
        sgd.penalise(l2, np.zeros(learner.d))
        sgd.bound = bound
        return sgd

    eta0 = schedule.eta0 * (1.0 if schedule.kind == "linear" else BOLDER)
    trials = partial(StepTrials, fresh=fresh, eta0=eta0)
    choice = choose_l2(_problem(learner, prepared, sample, rows), trials, step_flops)
    _note_penalty(prepared, choice)
    if learner.sgd_epochs > 0:
        learner.state.schedule = schedule
    return prepared


def _problem(learner: Learner, prepared: Prepared, sample: Batch, rows: int) -> Problem:
    o = learner.options
    return Problem(
        learner.K, learner.d, rows, sample, prepared.units,
        prepared.scaling, o.penalty.fit_intercept, o.steps.dtype, o.reading.thread_count,
        prepared.memory, prepared.squares, learner.nonzeros,
    )  # fmt: skip


def _note_penalty(prepared: Prepared, choice: Choice) -> None:
    prepared.l2, prepared.notes["l2"] = choice.value, choice.reason
    logger.info("l2 %.3g: %s", choice.value, choice.reason)


def choose_schedule(learner: Learner, window: Window, sample: Batch) -> Schedule:
    """Return the step sizes: the first as given, or the one that does best on the sample."""
    steps, rate = learner.options.steps, learner.options.steps.learning_rate
    if isinstance(rate, str):
        rate = _best_rate(learner, window, sample)
    else:
        _norm(learner, window, sample.order[:CHECKED_ROWS])  # for its checks
    epochs = math.inf if learner.steps is None else float(learner.steps)
    first, taken = learner.before
    halflife = steps.halflife or float(first) or epochs
    planned = learner.last_epoch * epochs
    logger.info("step size %.6g, schedule %s", rate, steps.schedule)
    return Schedule(steps.schedule, rate, planned, halflife, float(taken))


def _best_rate(learner: Learner, window: Window, sample: Batch) -> float:
    """Return the first step size that does best on the sample, and take the scale and the bound of
    steps with which it does.
    """
    sgd, o, prepared = learner.sgd, learner.options, learner.prepared
    _scale_bias(learner, window, sample)
    wide, ways = wide_columns(window.parts), _ways_to_try(learner)
    tries: list[tuple[Rate, Prepared, str]] = []
    for kind, bound in ways:
        tried = prepared
        if kind != o.penalty.scaling and prepared.moments is not None:
            scaling = scaling_of(learner, prepared.moments, wide, kind)
            tried = prepared_by(learner, prepared.moments, scaling)
            tried.l2, tried.notes = prepared.l2, dict(prepared.notes)
            tried.notes["scaling"] = f"{kind}, with which steps did best"
        learner.take(tried)
        sgd.bound = bound
        # Rows that are far away are held by a cap: the steps are those that suit most rows.
        held = bound == "cap" and o.steps.max_step == "auto"
        middle, rates = (np.median, CAPPED_RATES) if held else (np.mean, RATES)
        rate = choose_rate(sgd, sample, _unit(learner, window, sample, middle), rates)
        tries.append((rate, tried, bound))
    found, best, sgd.bound = min(tries, key=lambda each: each[0].loss)
    if len(ways) > 1 and o.steps.max_step == "auto":
        lowest = f"{found.loss:.4f}, the lowest progressive log-loss"
        best.notes["max_step"] = f"{sgd.bound}: {lowest}"
    best.notes["learning_rate"] = found.reason
    learner.take(best)
    logger.info("learning_rate %.3g, max_step %s: %s", found.value, sgd.bound, found.reason)
    linear = o.steps.schedule == "linear"
    return learner.caution * (found.value * BOLDER if linear else found.value)


def _ways_to_try(learner: Learner) -> list[tuple[str, str]]:
    """Return the kinds of scaling, each with how steps are bounded, that are compared.

    The plain one is first; others are tried where columns have tails. No one scale suits these:
    where values lie far out in most rows the middle is right; in pixels, of which most are 0, it is
    wrong. Where full gradients end the run, steps need not be the best (Fashion-MNIST: 47 passes
    from where they end in the middle scale, 68 from the better point in the other).
    """
    moments, kind = learner.prepared.moments, learner.options.penalty.scaling
    steps = learner.options.steps
    plain = "off" if steps.max_step == "auto" else steps.max_step
    if moments is None or not moments.have_tails:
        return [(kind, plain)]
    kinds = [kind, "spread"] if kind == "auto" and not learner.finishes else [kind]
    ways = [(each, plain) for each in kinds]
    if steps.max_step == "auto" and steps.batch_size == 1 and not steps.adaptive:
        ways += [(each, "cap") for each in [*kinds, *(["middle"] if kind == "auto" else [])]]
    return ways


def _scale_bias(learner: Learner, window: Window, sample: Batch) -> None:
    """Let the bias be the weight of a constant feature like the others, where they are unscaled.

    It has the root mean square of the others, so that a common factor of all changes nothing.
    """
    if learner.prepared.scaling is None and learner.options.penalty.fit_intercept:
        norm = _norm(learner, window, sample.order[:NORM_ROWS])
        learner.sgd.scale_bias(norm / learner.sgd.row_numbers)


def _unit(
    learner: Learner, window: Window, sample: Batch, middle: Callable[[np.ndarray], float]
) -> float:
    """Return what step sizes are tried in units of 1 over: the mean or median squared norm."""
    raw = learner.prepared.scaling is None
    order = sample.order[:NORM_ROWS]
    norm = _norm(learner, window, order, checks=raw)
    if middle is np.median:
        norm = float(np.median(learner.sgd.squared_norms(window.parts, order)))
    if learner.options.penalty.fit_intercept:
        norm += norm / learner.sgd.row_numbers if raw else 1.0
    return learner.sgd.rule.unit(norm)


def _norm(learner: Learner, window: Window, order: np.ndarray, *, checks: bool = True) -> float:
    """Return the mean squared norm of some rows; see `checked_norm`."""
    weight = learner.row_weights.of(window, order)
    return checked_norm(learner.sgd, window, order, weight, checks=checks)
