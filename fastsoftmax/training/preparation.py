"""The only place where a run chooses on its first rows what it was not told: scale, l2, step size.

What is chosen is a function of the data, the options and the window, and of nothing else.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from fastsoftmax.data.loading.shuffle import STEP, sample_order
from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.errors import DataError
from fastsoftmax.optim.moments import MIDDLE_ROWS, Moments, MomentSums, middles, wide_columns
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.schedules import Schedule
from fastsoftmax.training.finite_check import check_features, checked_norm
from fastsoftmax.training.learner import NORM_ROWS, Learner
from fastsoftmax.training.prepared import Prepared
from fastsoftmax.training.scales import prepared_by, scaling_of
from fastsoftmax.training.tuning import (
    RATE_ROWS,
    Problem,
    choose_l2,
    choose_rate,
    fit_to_some,
    penalty_rows,
)

logger = logging.getLogger("fastsoftmax")

CHECKED_ROWS = 1024  # looked at for being too large where no step size depends on their norm
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
    moments = first.moments()
    wide = wide_columns(window.parts)
    scaling = None if moments is None else scaling_of(learner, moments, wide)
    prepared = prepared_by(learner, moments, scaling)
    theta = choose_penalty(learner, prepared, sample, learner.steps or window.rows)
    learner.take(prepared)
    if theta is not None and learner.sgd_epochs == 0:  # full gradients begin near their end
        learner.sgd.weights.set(theta[:, : learner.d], theta[:, learner.d])
    if learner.sgd_epochs > 0:
        learner.state.schedule = choose_schedule(learner, window, sample)
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
        counted = counted[: max(RATE_ROWS, NORM_ROWS, penalty_rows(K, d))]
        order = order[counted]
        return Batch(self.window.parts, order, self.window.labels[order], weight[counted])

    def moments(self) -> Moments | None:
        """Return the moments of the columns; None where features are used as they are."""
        if self.learner.options.penalty.scaling == "off":
            return None
        order = np.arange(self.rows)
        sums = MomentSums(self.learner.d)
        sums.add(self.window.parts, order, self.learner.row_weights.of(self.window, order))
        if not sums.finite:
            check_features(self.window, np.arange(self.window.rows), self.learner.sgd.dtype)
        return sums.moments(middles(self.window.parts, self.sample().order[:MIDDLE_ROWS]))


def choose_penalty(
    learner: Learner, prepared: Prepared, sample: Batch, rows: int
) -> np.ndarray | None:
    """Set l2: as it was given, or that under which held-out rows of the sample do best.

    rows: those that take a step in an epoch. Return weights near the optimum, where known.
    """
    o = learner.options
    problem = Problem(
        learner.K, learner.d, rows, sample, prepared.units,
        prepared.scaling, o.penalty.fit_intercept, o.steps.dtype, o.reading.thread_count,
        prepared.memory, prepared.squares,
    )  # fmt: skip
    if o.penalty.l2 != "auto":
        prepared.l2 = float(o.penalty.l2)
        begins_there = learner.sgd_epochs == 0 and not o.penalty.l1
        return fit_to_some(problem, prepared.l2) if begins_there else None
    choice = choose_l2(problem)
    prepared.l2, prepared.notes["l2"] = choice.value, choice.reason
    logger.info("l2 %.3g: %s", choice.value, choice.reason)
    return choice.theta


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
    """Return the first step size that does best on the sample."""
    prepared, fit_intercept = learner.prepared, learner.options.penalty.fit_intercept
    raw = prepared.scaling is None
    norm = _norm(learner, window, sample.order[:NORM_ROWS], checks=raw)
    # The bias is the weight of a constant feature. Unless features are brought to one scale it has
    # the root mean square of the others, so that a common factor of all changes nothing.
    feature = norm / learner.d if raw else 1.0
    if raw and fit_intercept:
        learner.sgd.scale_bias(feature)
    norm += feature if fit_intercept else 0.0
    choice = choose_rate(learner.sgd, sample, learner.sgd.rule.unit(norm))
    prepared.notes["learning_rate"] = choice.reason
    logger.info("learning_rate %.3g: %s", choice.value, choice.reason)
    linear = learner.options.steps.schedule == "linear"
    return choice.value * BOLDER if linear else choice.value


def _norm(learner: Learner, window: Window, order: np.ndarray, *, checks: bool = True) -> float:
    """Return the mean squared norm of some rows; see `checked_norm`."""
    weight = learner.row_weights.of(window, order)
    return checked_norm(learner.sgd, window, order, weight, checks=checks)
