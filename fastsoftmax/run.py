"""The one loop: epochs over windows of rows, each row a step."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fastsoftmax.begin import NORM_ROWS, Beginning, Settled, measure_columns, settle, step_size
from fastsoftmax.conditioning import Moments
from fastsoftmax.curvature import Batch
from fastsoftmax.data.feed import Feed, choose_reading, settle_plan
from fastsoftmax.data.mixing import POOR, Mixing
from fastsoftmax.data.shuffle import row_order
from fastsoftmax.data.source import LabelScan, Source
from fastsoftmax.data.windows import Window
from fastsoftmax.errors import DataError, DivergedError
from fastsoftmax.kernels.parts import categories_of, part_width
from fastsoftmax.labels import Classes, class_factors
from fastsoftmax.optimum import Objective, Penalty, State, minimise
from fastsoftmax.options import TrainOptions
from fastsoftmax.progress import Progress, Sums
from fastsoftmax.schedules import Schedule
from fastsoftmax.solver import Solver

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
LARGEST_RATIO = 1e8  # of what the dtype holds, to the largest square of a norm
REPORT_SECONDS = 0.2


class Run:
    """One training run: what it reads, the solver it drives, and how far it has come."""

    def __init__(
        self,
        source: Source,
        classes: Classes,
        scan: LabelScan | None,
        options: TrainOptions,
        report: Callable[[Progress], bool | None] | None,
        weights_as_given: bool,
    ) -> None:
        self.source, self.classes, self.scan = source, classes, scan
        self.options = options = options.settled(one_pass=source.one_pass)
        self.report = report
        self.told_to_stop = False
        self.plan = settle_plan(source, options, None if scan is None else scan.segments)
        self.solver = Solver(len(classes), source.n_features, options)
        reading = choose_reading(source, self.plan, options)
        self.feed = Feed(source, classes, self.plan, reading)
        self.schedule: Schedule | None = None
        self.settled: Settled | None = None
        self.init: tuple[np.ndarray, np.ndarray] | None = None  # raw weights to begin at
        self.validation: Feed | None = None
        self.history: list[dict[str, Any]] = []
        self.mass = np.zeros(len(classes)) if scan is None else scan.mass
        self.factors = class_factors(options.class_weight, classes, scan)
        self.unit = 1.0
        if scan is not None and not weights_as_given:
            self.unit = scan.mean_weight(self.factors)
        # How many rows take a step in an epoch.
        self.steps = None if scan is None else scan.count_steps(self.factors)
        self.seen = 0
        self.started = time.perf_counter()
        self._reported = 0.0
        self._warned = self._warned_of_mixing = False
        self._watched = Sums()
        self._ones = np.ones(0)
        self._best: tuple[float, tuple[np.ndarray, np.ndarray]] | None = None
        self._waited = 0  # epochs since the best one
        self._found: tuple[np.ndarray, np.ndarray] | None = (
            None  # weights that are not the solver's
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.feed.close()
        if self.validation is not None:
            self.validation.close()
        self.solver.__exit__(*error)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def is_over(self) -> bool:
        """Whether the run ends before its last epoch: time is up, or `report` said so."""
        limit = self.options.max_seconds
        return self.told_to_stop or (limit is not None and self.seconds >= limit)

    @property
    def last_epoch(self) -> int:
        """How many epochs there are at most."""
        return MOST_EPOCHS if self.options.epochs == "auto" else int(self.options.epochs)

    @property
    def planned_epochs(self) -> int | None:
        """How many epochs there will be; None where the run ends when another is worth little."""
        return None if self.options.epochs == "auto" else self.last_epoch

    @property
    def finishes(self) -> bool:
        """Whether full gradients end the run: all rows are at hand, and passes over them short."""
        o, K, d = self.options, len(self.classes), self.source.n_features
        if o.solver == "lbfgs":
            return True
        short = 4.0 * K * d * (self.source.rows or math.inf) <= FINISH_FLOPS
        simple = o.batch_size == 1 and not o.by_hand and o.epochs == "auto" and o.average is True
        watched = self.validation is not None or o.holdout is not None
        return simple and short and self.plan.kind == "all" and not watched

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (K, d) and biases (K,) found, for features as they are conditioned."""
        if self._best is not None:
            return self._best[1]
        return self._found or self.solver.weights()

    def train(self) -> None:
        """Train all epochs, or until another is worth little, or the run is over."""
        epochs = self.last_epoch
        if self.finishes:
            epochs = self._epochs_before_finish()
        for epoch in range(epochs):
            self._train_epoch(epoch)
            if self.is_over or self._is_enough():
                break
        if self.finishes and not self.is_over:
            self._finish()

    def _epochs_before_finish(self) -> int:
        """Return how many epochs of SGD bring full gradients near: none where all is small."""
        K, d, rows = len(self.classes), self.source.n_features, self.steps or 0
        small = 4.0 * K * d * rows < SMALL_FLOPS or self.options.l1 > 0 or self.init is not None
        return 0 if small else min(EPOCHS_BEFORE, self.last_epoch - 1)

    def _train_epoch(self, epoch: int) -> None:
        sums = Sums()
        first_rate = None
        mixing = self._mixing()
        windows = self.feed.epoch(self.options.seed, epoch)
        half = (self.steps or 0) // 2 if self.last_epoch == 1 else None
        for window in windows:
            order = row_order(self.plan, window.rows, self.options.seed, epoch, window.index)
            if self.schedule is None:
                self._begin(window)
            if sums.rows == 0 and self._averages_tail:
                self.solver.restart_average()
            first_rate = first_rate or float(self._schedule(np.array([self.seen]))[0])
            self._train_window(epoch, window, order, sums, half)
            if mixing is not None:
                trained = window.labels if window.held is None else window.labels[~window.held]
                mixing.add(np.bincount(trained, minlength=len(self.classes)))
            if self.is_over:
                break
            del window  # its memory is free before the next one is asked for
        if sums.rows == 0:
            raise DataError("no row is left to train on: give other data, or a smaller holdout=.")
        self._finish_epoch(epoch, sums, first_rate or 0.0, mixing)

    @property
    def _averages_tail(self) -> bool:
        """Whether the average is of the last epoch alone, or of half of an only one."""
        return bool(self.options.average) and not self.options.by_hand

    def _begin(self, window: Window) -> None:
        """Settle what was left open on the first rows to come, and start the clock."""
        o, d = self.options, self.source.n_features
        beginning = Beginning(
            window, lambda order: self._weight(window, order),
            self.steps or window.rows, len(self.classes), d, o,
        )  # fmt: skip
        sample = beginning.sample()
        if not len(sample.order):
            raise DataError("no row is left to train on: give other data, or a smaller holdout=.")
        self.settled = settle(beginning, self._moments(beginning), sample)
        conditioning = self.settled.conditioning
        self.solver.condition(conditioning)
        self.solver.penalise(self.settled.l2 * self.settled.units)
        if self.finishes and self._epochs_before_finish() == 0:
            if conditioning is None:
                self._mean_squared_norm(window, sample.order)  # for its checks
        else:
            self._settle_steps(window, sample)
        if self.init is not None:
            raw = self.init if conditioning is None else conditioning.conditioned(*self.init)
            self.solver.set_weights(*raw)
        self.started = time.perf_counter()

    def _settle_steps(self, window: Window, sample: Batch) -> None:
        """Settle the size of steps on a sample, and have what takes them compiled."""
        o, d, settled = self.options, self.source.n_features, self.settled
        assert settled is not None
        conditioning = settled.conditioning
        rate = o.learning_rate
        if isinstance(rate, str):
            norm = self._mean_squared_norm(window, sample.order, checks=conditioning is None)
            # The bias is the weight of a constant feature. Unless features are brought to one
            # scale it has the root mean square of the others, so that a common factor of all
            # changes nothing.
            feature = 1.0 if conditioning is not None else norm / d
            if conditioning is None and o.fit_intercept:
                self.solver.bias *= feature
            norm += feature if o.fit_intercept else 0.0
            rate = step_size(self.solver, sample, norm, settled)
            if o.schedule == "linear":
                # A step that falls to 0 may begin bolder than one that stays: on Fashion-MNIST 20
                # epochs end 1.6 % above the optimum from three times the step, 3.9 % from it.
                rate *= BOLDER
        else:
            self._mean_squared_norm(window, sample.order)
        epochs = math.inf if self.steps is None else float(self.steps)
        planned = self.last_epoch * epochs
        self.schedule = Schedule(o.schedule, rate, planned, o.halflife or epochs)
        logger.info("step size %.6g, schedule %s, window %s", rate, o.schedule, self.plan)
        measures = self.validation is not None or o.holdout is not None
        self.solver.warm_up(window.parts, measures=measures)

    def _moments(self, beginning: Beginning) -> Moments | None:
        """Return the moments of the columns; None where features are used as they are."""
        if self.options.conditioning == "off":
            return None
        gauge = measure_columns(beginning)
        if not gauge.finite:
            self._check_features(beginning.window, np.arange(beginning.window.rows))
        return gauge.moments()

    def _batches(self) -> Iterator[Batch]:
        """Yield all rows that are trained on, in the same order at each call."""
        for window in self.feed.epoch(self.options.seed, 0):
            order = np.arange(window.rows)
            weight = self._weight(window, order)
            counted = order if weight.all() else np.flatnonzero(weight)
            yield Batch(window.parts, counted, window.labels[counted], weight[counted])

    def _finish(self) -> None:
        """Go on by full gradients until next to nothing is left to gain."""
        if self.settled is None:
            self._begin(next(iter(self.feed.epoch(self.options.seed, 0))))
        o, settled = self.options, self.settled
        assert settled is not None
        l1 = np.full(self.source.n_features, float(o.l1))
        if settled.conditioning is not None:
            l1 *= np.sqrt(settled.units)
        objective = Objective(
            len(self.classes), self.source.n_features, self._batches,
            Penalty(settled.l2 * settled.units, l1),
            n=self.steps or 1, dtype=o.dtype, threads=o.thread_count,
            conditioning=settled.conditioning, fit_intercept=o.fit_intercept,
            squares=settled.squares,
        )  # fmt: skip
        W, b = self.solver.weights()
        theta = np.concatenate([W, b[:, None]], axis=1).astype(np.float64)
        before = len(self.history)
        with objective:
            theta, _ = minimise(
                objective, theta, passes=self.last_epoch - before,
                tolerance=o.tolerance or (OPTIMUM if o.solver == "lbfgs" else ENOUGH),
                memory=o.memory_bytes,
                report=lambda state, theta: self._tell_of_pass(before, state, theta),
            )  # fmt: skip
            if not objective.finite:
                self._name_odd_features()
        if self._best is None:
            self._found = self._as_weights(theta)

    def _as_weights(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        d = self.source.n_features
        return theta[:, :d].astype(self.solver.dtype), theta[:, d].astype(self.solver.dtype)

    def _name_odd_features(self) -> None:
        for window in self.feed.epoch(self.options.seed, 0):
            self._check_features(window, np.arange(window.rows))
        raise DivergedError("the loss is not finite: scale the features, or take dtype=float64.")

    def _tell_of_pass(self, before: int, state: State, theta: np.ndarray) -> bool:
        """Note where full gradients stand; return whether the run is over."""
        steps = self.steps or 0
        progress = Progress(
            epoch=before + state.passes,
            epochs=self.planned_epochs, rows=steps,
            rows_per_epoch=steps, rows_seen=self.seen + steps * state.passes,
            seconds=self.seconds, log_loss=state.log_loss, accuracy=state.accuracy,
            learning_rate=0.0, treated=self.source.treated(), gain=state.gain, finished=True,
            solver="lbfgs",
        )  # fmt: skip
        if self.validation is not None or self.options.holdout is not None:
            self.solver.restart_average()
            self.solver.set_weights(*self._as_weights(theta))
            progress = self._validated(progress)
        self.history.append(progress.facts())
        logger.info("%s", progress)
        self._report(progress)
        return self.is_over or self._is_enough()

    def _is_enough(self) -> bool:
        """Whether another epoch is worth too little: by its estimated gain, or by validation."""
        o, last = self.options, self.history[-1]
        loss = last.get("validation_log_loss")
        patience = o.patience
        if patience is None and o.epochs == "auto" and loss is not None:
            patience = PATIENCE
        if loss is not None and patience is not None:
            if self._best is None or loss < self._best[0] - o.min_delta:
                self._best, self._waited = (loss, self.solver.weights()), 0
            else:
                self._waited += 1
            return self._waited >= patience
        gain = last.get("gain")
        if o.epochs != "auto" or self.finishes or gain is None:
            return False
        return bool(gain < (o.tolerance or WORTHWHILE) * last["log_loss"])

    def _schedule(self, t: np.ndarray) -> np.ndarray:
        assert self.schedule is not None
        return self.schedule(t)

    def _mean_squared_norm(
        self, window: Window, order: np.ndarray, *, checks: bool = True
    ) -> float:
        """Return the mean of w ||x||^2 over the first rows; 1 if that is 0."""
        order = order[:NORM_ROWS]
        weight = self._weight(window, order)
        norms = self.solver.squared_norms(window.parts, order)
        self._check_features(window, order[~np.isfinite(norms)])
        if checks:
            self._refuse_too_large(window, order, norms)
        mean = float(weight @ norms) / max(float(np.count_nonzero(weight)), 1.0)
        return mean if 0 < mean < math.inf else 1.0

    def _refuse_too_large(self, window: Window, order: np.ndarray, norms: np.ndarray) -> None:
        """Raise DataError at the first row whose products with others cannot be computed."""
        odd = np.flatnonzero(norms > np.finfo(self.solver.dtype).max / LARGEST_RATIO)
        if odd.size:
            raise DataError(
                f"{window.place(int(order[odd[0]]))}: the features are so large (norm"
                f" {math.sqrt(norms[odd[0]]):.3g}) that their products do not fit"
                f" {self.solver.dtype}: check them, scale them, or train with dtype=float64."
            )

    def _weight(self, window: Window, order: np.ndarray) -> np.ndarray:
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

    def _times(self, weight: np.ndarray) -> np.ndarray:
        """Return how many rows will have been seen before each row of these weights (n,)."""
        if weight is self._ones:
            return np.arange(self.seen, self.seen + len(weight))
        counted = weight > 0
        return self.seen + np.cumsum(counted) - counted

    def _train_window(
        self, epoch: int, window: Window, order: np.ndarray, sums: Sums, half: int | None
    ) -> None:
        step = self.solver.call_rows
        for start in range(0, len(order), step):
            if half is not None and self._averages_tail and self.seen <= half:
                self.solver.restart_average()
            some = order[start : start + step]
            weight = self._weight(window, some)
            labels = window.labels.take(some)
            if self.scan is None:
                self.mass += np.bincount(labels, weight, len(self.mass))
            t = self._times(weight)
            ends = window.last and start + step >= len(order)
            tally = self.solver.step(
                window.parts, some, labels, weight, self._schedule(t), ends=ends
            )
            facts = Sums.of(tally, weight)
            self.seen += facts.rows
            self._watch(window, some, tally.finite, facts)
            sums.add(facts)
            self._tell(epoch, sums)
            if self.is_over:
                return

    def _watch(self, window: Window, order: np.ndarray, finite: bool, facts: Sums) -> None:
        """Stop where numbers are not finite, or the mean loss is far above that of guessing."""
        if not finite:
            self._check_features(window, order)
            raise self._diverged("not finite", window, order)
        self._watched.add(facts)
        last = self.steps is not None and self.seen % self.steps == 0
        if self._watched.rows >= WATCHED_ROWS or last:
            mean, _ = self._watched.means()
            self._watched = Sums()
            if mean > 100 * math.log(len(self.classes)):
                raise self._diverged(f"{mean:.3g}", window, order)

    def _check_features(self, window: Window, order: np.ndarray) -> None:
        """Raise DataError naming the first feature among rows that is not finite once cast."""
        names = self.source.feature_names
        for row in order:
            column = 0
            for part in window.parts:
                if categories_of(part.dtype) is not None:
                    column += part_width(part)
                    continue
                with np.errstate(over="ignore"):
                    cast = part[row].astype(self.solver.dtype)
                odd = np.flatnonzero(~np.isfinite(cast))
                if len(odd):
                    j = column + int(odd[0])
                    name = f'column "{names[j]}"' if names else f"feature {j}"
                    raise DataError(
                        f"{window.place(int(row))}: {name} is {part[row][odd[0]]}"
                        + _remedy(float(part[row][odd[0]]), self.solver.dtype)
                    )
                column += part.shape[1]

    def _diverged(self, loss: str, window: Window, order: np.ndarray) -> DivergedError:
        assert self.schedule is not None
        rate = self.schedule.eta0
        safe = min(0.5 / (1.0 + self._mean_squared_norm(window, order)), rate / 10)
        return DivergedError(
            f"the loss is {loss} after {self.seen:,} rows. The learning rate ({rate:.3g}) is too"
            f" high for these features: try learning_rate={safe:.2g}, or scale the features."
        )

    def _tell(self, epoch: int, sums: Sums) -> None:
        now = time.perf_counter()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._report(self._progress(epoch, sums))

    def _report(self, progress: Progress) -> None:
        if self.report is not None and self.report(progress):
            self.told_to_stop = True

    def _progress(self, epoch: int, sums: Sums) -> Progress:
        log_loss, accuracy = sums.means()
        return Progress(
            epoch=epoch + 1,
            epochs=self.planned_epochs,
            rows=sums.rows,
            rows_per_epoch=self.steps,
            rows_seen=self.seen,
            seconds=self.seconds,
            log_loss=log_loss,
            accuracy=accuracy,
            learning_rate=float(self._schedule(np.array([self.seen]))[0]),
            treated=self.source.treated(),
        )

    def _mixing(self) -> Mixing | None:
        """Return what measures how well windows mix the rows, where they do not hold all."""
        if self.scan is None or self.plan.kind not in ("window", "full"):
            return None
        return Mixing(self.scan.counts)

    def _warn_of_mixing(self, mixing: Mixing) -> None:
        if mixing.value >= POOR or self.plan.kind == "full" or self._warned_of_mixing:
            return
        self._warned_of_mixing = True
        warnings.warn(
            f"rows are shuffled within windows whose labels are unlike the whole (mixing"
            f" {mixing.value:.2f}): use shuffle=full, or more memory",
            UserWarning,
            stacklevel=2,
        )

    def _finish_epoch(self, epoch: int, sums: Sums, rate: float, mixing: Mixing | None) -> None:
        progress = replace(self._progress(epoch, sums), learning_rate=rate, finished=True)
        progress = self._validated(replace(progress, **self._worth(sums)))
        self.history.append(progress.facts())
        if mixing is not None:
            self.history[-1]["mixing"] = mixing.value
            self._warn_of_mixing(mixing)
        logger.info("%s", progress)
        self._report(progress)
        lost = progress.log_loss > math.log(len(self.classes))
        if lost and self.options.by_hand and not self._warned:
            self._warned = True
            warnings.warn(
                f"after epoch {epoch + 1} the mean log-loss ({progress.log_loss:.3g}) is worse than"
                f" guessing ({math.log(len(self.classes)):.3g}): try a smaller learning_rate",
                UserWarning,
                stacklevel=2,
            )

    def _worth(self, sums: Sums) -> dict[str, Any]:
        """Estimate what another epoch is worth, from the losses of the ones before.

        The decrease of the progressive loss goes on as a geometric series, or by half of the last
        one where there are only two. The error is that of two means over parts of an epoch.
        """
        losses = [epoch["log_loss"] for epoch in self.history] + [sums.means()[0]]
        if len(losses) < 2:
            return {}
        last = losses[-2] - losses[-1]
        ratio = 0.5
        if len(losses) > 2 and losses[-3] > losses[-2]:
            ratio = min(0.9, max(0.1, last / (losses[-3] - losses[-2])))
        return {"gain": max(0.0, last * ratio), "gain_error": math.sqrt(2) * sums.error()}

    def _validated(self, progress: Progress) -> Progress:
        """Return the progress with the loss on what is held out, where anything is."""
        checked = self._validate()
        if checked is None:
            return progress
        log_loss, accuracy = checked.means()
        return replace(progress, validation_log_loss=log_loss, validation_accuracy=accuracy)

    def _validate(self) -> Sums | None:
        """Return the loss on the validation data or the held-out rows, if there are any."""
        if self.validation is not None:
            return self._measure(self.validation)
        if self.options.holdout is not None:
            return self._measure(self.feed)
        return None

    def _measure(self, feed: Feed) -> Sums:
        sums = Sums()
        for window in feed.epoch(self.options.seed, 0):
            order = np.arange(window.rows) if window.held is None else np.flatnonzero(window.held)
            weight = np.ones(len(order)) if window.weights is None else window.weights[order]
            step = self.solver.call_rows
            for start in range(0, len(order), step):
                some, share = order[start : start + step], weight[start : start + step]
                tally = self.solver.measure(window.parts, some, window.labels[some], share)
                if not tally.finite:
                    self._check_features(window, some)
                sums.add(Sums.of(tally, share))
        return sums


def _remedy(value: float, dtype: np.dtype) -> str:
    if math.isfinite(value):
        return f", too large for {dtype}: scale it, or train with dtype=float64."
    return ". Drop the row, or fill the value before training."
