"""One model in training: its solver and step sizes, its losses, and when it has learnt enough."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import astuple
from typing import Any

import numpy as np

from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.data.source import LabelStats
from fastsoftmax.errors import DataError, DivergedError
from fastsoftmax.labels import Classes, class_factors
from fastsoftmax.model.scaling import Moments
from fastsoftmax.optim.objective import Objective, OptimizerState, Penalty, minimise, precision
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.schedules import Schedule
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.state import array_of, check_alike, copies
from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.finite_check import check_features, refuse_too_large
from fastsoftmax.training.preparation import (
    CHECKED_ROWS,
    NORM_ROWS,
    Beginning,
    Settled,
    measure_columns,
    settle,
    step_size,
)

logger = logging.getLogger("fastsoftmax")

MOST_EPOCHS = 200  # where epochs is auto
BOLDER = 3.0
PATIENCE = 3  # epochs, where epochs is auto and validation says when to stop
WORTHWHILE = 1e-3  # of the loss: less than this is not worth another epoch
ENOUGH, OPTIMUM = 1e-4, 1e-7  # of the objective: what full gradients leave ungained
FINISH_FLOPS = 1e10  # of a pass, that full gradients are taken over where nobody asked for them
SMALL_FLOPS = 1e8  # of a pass: below it SGD before full gradients gains nothing
EPOCHS_BEFORE = 3  # of SGD before full gradients
WATCHED_ROWS = 8192  # rows whose mean loss tells whether training diverges
SAFER = 10.0  # by which a step size of our own that led astray is divided

Weights = tuple[np.ndarray, np.ndarray]
# What a state has that is not there at the start, by its types.
STORED: dict[str, Any] = {
    "history": [{"epoch": 0, "rows": 0, "log_loss": 0.0, "accuracy": 0.0, "learning_rate": 0.0}],
    "schedule": ("", 0.0, 0.0, 0.0, 0.0),
    "first_rate": 0.0,
    "best": 0.0,
}


class Learner:
    """A model that steps over rows as they come, by options of its own.

    It asks nobody for rows, and knows no clock: the same rows leave the same bits.
    """

    def __init__(
        self,
        classes: Classes,
        d: int,
        scan: LabelStats | None,
        options: TrainOptions,
        *,
        weights_as_given: bool = False,
        finishes: bool = False,
    ) -> None:
        """finishes: full gradients end the run."""
        self.options, self.K, self.d = options, len(classes), d
        self.sgd = SGD(self.K, d, options)
        self.factors = class_factors(options.penalty.class_weight, classes, scan)
        self.unit = 1.0
        if scan is not None and not weights_as_given:
            self.unit = scan.mean_weight(self.factors)
        # How many rows take a step in an epoch.
        self.steps = None if scan is None else scan.count_steps(self.factors)
        self.finishes = finishes
        self.schedule: Schedule | None = None
        self.settled: Settled | None = None
        self.init: Weights | None = None  # raw weights to begin at
        # Where the rows to come are new to them: the rows that were first there, and all steps.
        self.before = (0, 0)
        self.history: list[dict[str, Any]] = []
        self.seen = 0  # rows that took a step
        self.sums = RunningLoss()  # of this epoch
        self.recent = RunningLoss()  # since the field was last halved
        self.first_rate: float | None = None  # of this epoch
        self.is_found = False  # full gradients have come to their end
        self.is_over = False  # another epoch is worth too little
        self._watched = RunningLoss()
        self._ones = np.ones(0)
        self._best: tuple[float, Weights] | None = None
        self._waited = 0  # epochs since the best one
        self._found: Weights | None = None  # weights that are not the solver's

    def close(self) -> None:
        """End its threads."""
        self.sgd.close()

    @property
    def last_epoch(self) -> int:
        """How many epochs there are at most."""
        return (
            MOST_EPOCHS if self.options.steps.epochs == "auto" else int(self.options.steps.epochs)
        )

    @property
    def planned_epochs(self) -> int | None:
        """How many epochs there will be; None where the run ends when another is worth little."""
        return None if self.options.steps.epochs == "auto" else self.last_epoch

    @property
    def sgd_epochs(self) -> int:
        """How many epochs of steps there are at most; none where all is small."""
        if not self.finishes:
            return self.last_epoch
        small = 4.0 * self.K * self.d * (self.steps or 0) < SMALL_FLOPS
        if small or self.options.penalty.l1 > 0 or self.init is not None:
            return 0
        return min(EPOCHS_BEFORE, self.last_epoch - 1)

    @property
    def averages_tail(self) -> bool:
        """Whether the average is of the last epoch alone, or of half of an only one."""
        return bool(self.options.steps.average) and not self.options.by_hand

    def weights(self) -> Weights:
        """Return the weights (K, d) and biases (K,) found, for features as they are conditioned."""
        if self._best is not None:
            return self._best[1]
        return self._found or self.sgd.weights.mean()

    def last_weights(self) -> Weights | None:
        """Return the weights after the last step, where those found are a mean over steps."""
        others = self._best is not None or self._found is not None
        return None if others or not self.sgd.weights.is_averaged else self.sgd.weights.get()

    def begin(self, window: Window, *, measures: bool) -> None:
        """Settle what was left open on the first rows to come; `measures`: `measure` is needed."""
        beginning = Beginning(
            window, lambda order: self.weight_of(window, order),
            self.steps or window.rows, self.K, self.d, self.options,
        )  # fmt: skip
        sample = beginning.sample()
        if not len(sample.order):
            raise DataError("no row is left to train on: give other data, or a smaller holdout=.")
        self.settled = settle(beginning, self._moments(beginning), sample)
        self.prepare()
        if self.sgd_epochs == 0:
            if self.settled.conditioning is None:
                self._mean_squared_norm(window, sample.order[:CHECKED_ROWS])  # for its checks
        else:
            self._settle_steps(window, sample, measures=measures)
        if self.init is not None:
            conditioning = self.settled.conditioning
            raw = self.init if conditioning is None else conditioning.conditioned(*self.init)
            self.sgd.weights.set(*raw)

    def prepare(self) -> None:
        """Have the solver work with what was settled."""
        assert self.settled is not None
        self.sgd.scale(self.settled.conditioning)
        self.sgd.penalise(*self.settled.penalties)

    def begin_epoch(self) -> None:
        """Start the sums of an epoch."""
        self.sums, self.first_rate = RunningLoss(), None
        if self.averages_tail:
            self.sgd.weights.restart_average()

    def step(self, window: Window, order: np.ndarray, *, ends: bool) -> RunningLoss:
        """Let rows take their steps; `ends`: the epoch ends with them."""
        facts = RunningLoss()
        half = (self.steps or 0) // 2 if self.last_epoch == 1 and self.averages_tail else None
        start = 0
        while start < len(order):
            stop = start + self.sgd.call_rows
            if half is not None and self.seen <= half:
                self.sgd.weights.restart_average()
                stop = min(stop, start + max(half - self.seen, 1)) if self.seen < half else stop
            some = order[start:stop]
            weight = self.weight_of(window, some)
            eta = self.rates(self._times(weight))
            if self.first_rate is None:
                self.first_rate = float(eta[0])
            start += len(some)
            last = ends and start == len(order)
            labels = window.labels.take(some)
            tally = self.sgd.step(window.parts, some, labels, weight, eta, ends=last)
            these = RunningLoss.of(tally, weight)
            self.seen += these.rows
            self._watch(window, some, tally.finite, these)
            facts += these
        self.sgd.weights.settle()
        self.sums += facts
        self.recent += facts
        return facts

    def rates(self, t: np.ndarray) -> np.ndarray:
        """Return the step sizes of rows before which `t` (n,) rows were seen."""
        assert self.schedule is not None
        return self.schedule(t)

    def worth(self) -> dict[str, Any]:
        """Estimate what another epoch is worth, from the losses of the ones before.

        The decrease of the progressive loss goes on as a geometric series, or by half of the last
        one where there are only two. The error is that of two means over parts of an epoch, and
        None where an epoch is one part.
        """
        losses = [epoch["log_loss"] for epoch in self.history] + [self.sums.means()[0]]
        if len(losses) < 2:
            return {}
        last = losses[-2] - losses[-1]
        ratio = 0.5
        if len(losses) > 2 and losses[-3] > losses[-2]:
            ratio = min(0.9, max(0.1, last / (losses[-3] - losses[-2])))
        error = self.sums.error()
        error = None if error is None else math.sqrt(2) * error
        return {"gain": max(0.0, last * ratio), "gain_error": error}

    def end_epoch(self, facts: dict[str, Any]) -> None:
        """Note an epoch's facts, and whether another is worth too little: by its estimated gain, or
        by validation.
        """
        self.history.append(facts)
        self.is_over = self._is_enough(facts)

    def finish(
        self,
        windows: Callable[[], Iterator[Window]],
        journey: OptimizerState | None,
        report: Callable[[OptimizerState], bool],
    ) -> None:
        """Go on by full gradients until next to nothing is left to gain.

        windows(): yields all rows, the same at each call. journey: how far an earlier run came.
        report(journey): called after each step; ends it by returning True.
        """
        o, settled = self.options, self.settled
        assert settled is not None
        n = self.steps or 1
        objective = Objective(
            self.K, self.d, lambda: map(self._batch, windows()), Penalty(*settled.penalties),
            n=n, dtype=precision(self.K, self.d, n, o.steps.dtype), threads=o.reading.thread_count,
            conditioning=settled.conditioning, fit_intercept=o.penalty.fit_intercept,
            squares=settled.squares,
        )  # fmt: skip
        W, b = self.sgd.weights.mean()
        theta = np.concatenate([W, b[:, None]], axis=1).astype(np.float64)
        enough = OPTIMUM if o.stopping.solver == "lbfgs" else ENOUGH
        tolerance = o.stopping.tolerance or enough
        with objective:
            end = minimise(
                objective, theta, passes=self.last_epoch - self.sgd_epochs,
                tolerance=tolerance,
                memory=settled.memory, journey=journey, report=report,
            )  # fmt: skip
            if not objective.finite:
                for window in windows():
                    check_features(window, np.arange(window.rows), self.sgd.dtype)
                raise DivergedError(
                    "the loss is not finite: scale the features, or take dtype=float64."
                )
        self.reach(end.point.x)

    def reach(self, theta: np.ndarray) -> None:
        """Have found the weights theta (K, d + 1), the bias last."""
        self._found = self._as_weights(theta)

    def _batch(self, window: Window) -> Batch:
        order = np.arange(window.rows)
        weight = self.weight_of(window, order)
        counted = order if weight.all() else np.flatnonzero(weight)
        return Batch(window.parts, counted, window.labels[counted], weight[counted])

    def show(self, theta: np.ndarray) -> None:
        """Measure and stop by the weights theta (K, d + 1), the bias last."""
        self.sgd.weights.restart_average()
        self.sgd.weights.set(*self._as_weights(theta))

    def weight_of(self, window: Window, order: np.ndarray) -> np.ndarray:
        """Return the weights of rows in units of the mean weight; 0 where held out."""
        held = window.held
        if window.weights is None and self.factors is None:
            if len(self._ones) != len(order):
                self._ones = np.ones(len(order))
            if held is None:
                return self._ones
            weight = np.ones(len(order))
        else:
            weight = np.ones(len(order)) if window.weights is None else window.weights[order]
            if self.factors is not None:
                weight = weight * self.factors[window.labels[order]]
            weight /= self.unit
        if held is not None:
            weight[held[order]] = 0.0
        return weight

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return all that its next step depends on: facts, and arrays by name."""
        facts: dict[str, Any] = {
            "history": self.history,
            "seen": self.seen,
            "sums": astuple(self.sums),
            "recent": astuple(self.recent),
            "watched": astuple(self._watched),
            "first_rate": self.first_rate,
            "is_over": self.is_over,
            "is_found": self.is_found,
            "waited": self._waited,
            "best": None if self._best is None else self._best[0],
            "found": self._found is not None,
            "schedule": None if self.schedule is None else astuple(self.schedule),
        }
        arrays = copies(self.sgd.views())
        for name, held in (("best", self._best and self._best[1]), ("found", self._found)):
            if held is not None:
                arrays |= {f"{name}.W": held[0], f"{name}.b": held[1]}
        if self.settled is not None:
            facts["settled"], more = self.settled.state()
            arrays |= more
        return facts, arrays

    def restore(self, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go on from a state."""
        for name, like in STORED.items():
            if facts[name] is not None:
                check_alike(facts[name], like)
        self.history, self.seen, self._waited = facts["history"], facts["seen"], facts["waited"]
        self.sums, self.recent = RunningLoss(*facts["sums"]), RunningLoss(*facts["recent"])
        self._watched = RunningLoss(*facts["watched"])
        self.first_rate = facts["first_rate"]
        self.is_over, self.is_found = facts["is_over"], facts["is_found"]
        if facts["best"] is not None:
            self._best = float(facts["best"]), self._stored("best", arrays)
        if facts["found"]:
            self._found = self._stored("found", arrays)
        if facts["schedule"] is not None:
            self.schedule = Schedule(*facts["schedule"])
        if "settled" in facts:
            self.settled = Settled.of(facts["settled"], arrays, self.d)
            if self.schedule is None and self.sgd_epochs > 0:
                raise ValueError("there are steps without a size")
            self.prepare()
        self.sgd.restore(arrays)

    def _stored(self, name: str, arrays: dict[str, np.ndarray]) -> Weights:
        W, b = self.sgd.weights.get()
        return array_of(arrays, f"{name}.W", W), array_of(arrays, f"{name}.b", b)

    def _settle_steps(self, window: Window, sample: Batch, *, measures: bool) -> None:
        """Settle the size of steps on a sample, and have what takes them compiled."""
        o, d, settled = self.options, self.d, self.settled
        assert settled is not None
        conditioning = settled.conditioning
        rate = o.steps.learning_rate
        if isinstance(rate, str):
            norm = self._mean_squared_norm(window, sample.order, checks=conditioning is None)
            # The bias is the weight of a constant feature. Unless features are brought to one
            # scale it has the root mean square of the others, so that a common factor of all
            # changes nothing.
            feature = 1.0 if conditioning is not None else norm / d
            if conditioning is None and o.penalty.fit_intercept:
                self.sgd.scale_bias(feature)
            norm += feature if o.penalty.fit_intercept else 0.0
            rate = step_size(self.sgd, sample, norm, settled)
            if o.steps.schedule == "linear":
                # A step that falls to 0 may begin bolder than one that stays: on Fashion-MNIST 20
                # epochs end 1.6 % above the optimum from three times the step, 3.9 % from it.
                rate *= BOLDER
        else:
            self._mean_squared_norm(window, sample.order[:CHECKED_ROWS])  # for its checks
        epochs = math.inf if self.steps is None else float(self.steps)
        planned = self.last_epoch * epochs
        first, taken = self.before
        halflife = o.steps.halflife or float(first) or epochs
        self.schedule = Schedule(o.steps.schedule, rate, planned, halflife, float(taken))
        logger.info("step size %.6g, schedule %s", rate, o.steps.schedule)
        self.sgd.warm_up(window.parts, measures=measures)

    def _moments(self, beginning: Beginning) -> Moments | None:
        """Return the moments of the columns; None where features are used as they are."""
        if self.options.penalty.conditioning == "off":
            return None
        gauge = measure_columns(beginning)
        if not gauge.finite:
            window = beginning.window
            check_features(window, np.arange(window.rows), self.sgd.dtype)
        return gauge.moments()

    def _as_weights(self, theta: np.ndarray) -> Weights:
        W, b = theta[:, : self.d], theta[:, self.d]
        return W.astype(self.sgd.dtype), b.astype(self.sgd.dtype)

    def _is_enough(self, last: dict[str, Any]) -> bool:
        o = self.options
        loss, patience = last.get("validation_log_loss"), o.stopping.patience
        if patience is None and o.steps.epochs == "auto" and loss is not None:
            patience = PATIENCE
        if loss is not None and patience is not None:
            if self._best is None or loss < self._best[0] - o.stopping.min_delta:
                self._best, self._waited = (loss, self.sgd.weights.mean()), 0
            else:
                self._waited += 1
            return self._waited >= patience
        gain = last.get("gain")
        if o.steps.epochs != "auto" or self.finishes or gain is None:
            return False
        return bool(gain < (o.stopping.tolerance or WORTHWHILE) * last["log_loss"])

    def _mean_squared_norm(
        self, window: Window, order: np.ndarray, *, checks: bool = True
    ) -> float:
        """Return the mean of w ||x||^2 over the first rows; 1 if that is 0."""
        order = order[:NORM_ROWS]
        weight = self.weight_of(window, order)
        norms = self.sgd.squared_norms(window.parts, order)
        check_features(window, order[~np.isfinite(norms)], self.sgd.dtype)
        if checks:
            refuse_too_large(window, order, norms, self.sgd.dtype)
        mean = float(weight @ norms) / max(float(np.count_nonzero(weight)), 1.0)
        return mean if 0 < mean < math.inf else 1.0

    def _times(self, weight: np.ndarray) -> np.ndarray:
        """Return how many rows will have been seen before each row of these weights (n,)."""
        if weight is self._ones:
            return np.arange(self.seen, self.seen + len(weight))
        counted = weight > 0
        return self.seen + np.cumsum(counted) - counted

    def _watch(self, window: Window, order: np.ndarray, finite: bool, facts: RunningLoss) -> None:
        """Stop where numbers are not finite, or the mean loss is far above that of guessing."""
        if not finite:
            check_features(window, order, self.sgd.dtype)
            raise self._diverged("not finite", window, order)
        self._watched += facts
        last = self.steps is not None and self.seen % self.steps == 0
        if self._watched.rows >= WATCHED_ROWS or last:
            mean, _ = self._watched.means()
            self._watched = RunningLoss()
            if mean > 100 * math.log(self.K):
                raise self._diverged(f"{mean:.3g}", window, order)

    def _diverged(self, loss: str, window: Window, order: np.ndarray) -> DivergedError:
        assert self.schedule is not None
        rate = self.schedule.eta0
        safe = min(0.5 / (1.0 + self._mean_squared_norm(window, order)), rate / SAFER)
        return DivergedError(
            f"the loss is {loss} after {self.seen:,} rows, at the rows from"
            f" {window.place(int(order[0]))}. The learning rate ({rate:.3g}) is too"
            f" high for these features: try learning_rate={safe:.2g}, or scale the features."
        )
