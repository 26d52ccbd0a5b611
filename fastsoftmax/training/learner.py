"""One model in training: what takes its steps, how large they are, and what it has learnt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.data.source import LabelStats
from fastsoftmax.data.weight_unit import exponent_of, in_unit
from fastsoftmax.errors import DivergedError
from fastsoftmax.labels import Classes, class_factors
from fastsoftmax.optim.hessian import has_whole
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.state import copies
from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.divergence import diverged, is_astray
from fastsoftmax.training.finite_check import check_features, checked_norm
from fastsoftmax.training.learner_state import FoundWeights, LearnerState
from fastsoftmax.training.prepared import Prepared
from fastsoftmax.training.progress import EpochFacts
from fastsoftmax.training.row_weights import RowWeights
from fastsoftmax.training.stopping import enough
from fastsoftmax.training.tuning import begins_near

MOST_EPOCHS = 200  # where epochs is auto
SMALL_FLOPS = 1e8  # of a pass: below it SGD before full gradients gains nothing
EPOCHS_BEFORE = 3  # of SGD before full gradients
NORM_ROWS = 4096  # rows that a mean squared norm is measured on

Pair = tuple[np.ndarray, np.ndarray]  # W (K, d) and b (K,)


class Learner:
    """A model that steps over rows as they come, by options of its own.

    It asks nobody for rows, and knows no clock: the same rows leave the same bits. All that its
    next step depends on is in `state` and in the views of `sgd`.
    """

    def __init__(
        self,
        classes: Classes,
        d: int,
        stats: LabelStats | None,
        options: TrainOptions,
        *,
        weights_as_given: bool = False,
        finishes: bool = False,
        nonzeros: float | None = None,
    ) -> None:
        """finishes: full gradients end the run. nonzeros: of a row, where rows are sparse."""
        self.nonzeros = nonzeros
        self.options, self.K, self.d = options, len(classes), d
        self.sgd = SGD(self.K, d, options, nonzeros)
        factors = class_factors(options.penalty.class_weight, classes, stats)
        unit = 1.0
        if stats is not None and not weights_as_given:
            if factors is not None:
                factors = in_unit(factors, exponent_of(float(factors.max())))
            unit = stats.mean_weight(factors)
        self.row_weights = RowWeights(factors, unit)
        # How many rows take a step in an epoch.
        self.steps = None if stats is None else stats.count_steps(factors)
        self.finishes = finishes
        self.init: Pair | None = None  # raw weights to begin at
        self.is_watched = False  # its mean is looked at after each epoch
        # Where the rows to come are new to them: the rows that were first there, and all steps.
        self.before = (0, 0)
        self.state = LearnerState()
        self.caution = 1.0  # of step sizes that are chosen

    def close(self) -> None:
        """End its threads."""
        self.sgd.close()

    @property
    def last_epoch(self) -> int:
        """How many epochs there are at most."""
        epochs = self.options.steps.epochs
        return MOST_EPOCHS if epochs == "auto" else int(epochs)

    @property
    def planned_epochs(self) -> int | None:
        """How many epochs there will be; None where the run ends when another is worth little."""
        return None if self.options.steps.epochs == "auto" else self.last_epoch

    @property
    def sgd_epochs(self) -> int:
        """How many epochs of steps there are at most; none where full gradients begin as well."""
        if not self.finishes:
            return self.last_epoch
        rows, penalty = self.steps or 0, self.options.penalty
        begins = 4.0 * self.K * self.sgd.row_numbers * rows < SMALL_FLOPS
        if self.nonzeros is None:
            begins |= has_whole(self.K, self.d, self.options.curvature_memory)
            begins |= penalty.l2 == "auto" and begins_near(self.K, self.d, rows)
        if begins or penalty.l1 > 0 or self.init is not None:
            return 0
        return min(EPOCHS_BEFORE, self.last_epoch - 1)

    @property
    def is_in_last_epoch(self) -> bool:
        """Whether no epoch of steps can follow the one that begins, or nobody knows."""
        planned = self.planned_epochs
        return planned is None or len(self.state.history) + 1 >= planned

    @property
    def averages_tail(self) -> bool:
        """Whether the average is of the last epoch alone, or of half of an only one."""
        return bool(self.options.steps.average) and not self.options.by_hand

    @property
    def has_chosen(self) -> bool:
        """Whether nothing is left to be chosen on rows."""
        return self.state.prepared is not None or self.options.leaves_nothing_open

    @property
    def prepared(self) -> Prepared:
        """What was chosen on the first rows."""
        assert self.state.prepared is not None
        return self.state.prepared

    @property
    def rate(self) -> float:
        """The step size that the schedule begins with."""
        assert self.state.schedule is not None
        return self.state.schedule.eta0

    def weights(self) -> Pair:
        """Return the weights (K, d) and biases (K,) found, for features as they are scaled."""
        found = self.state.best or self.state.found
        return self.sgd.weights.mean() if found is None else found.pair

    def last_weights(self) -> Pair | None:
        """Return the weights after the last step, where those found are a mean over steps."""
        others = self.state.best is not None or self.state.found is not None
        averaged = self.sgd.weights.is_averaged
        return self.sgd.weights.get() if averaged and not others else None

    def take(self, prepared: Prepared) -> None:
        """Work with what was chosen."""
        self.state.prepared = prepared
        self.sgd.scale(prepared.scaling)
        self.sgd.penalise(prepared.penalties.l2, prepared.penalties.l1)

    def begin_epoch(self) -> None:
        """Start the sums of an epoch."""
        self.state.begin_epoch()
        if self.averages_tail:
            self.sgd.weights.restart_average()
            counts = self.is_watched or self.is_in_last_epoch
            self.sgd.weights.average_steps(counts=counts)

    def step(self, window: Window, order: np.ndarray, *, ends: bool) -> None:
        """Let rows take their steps; `ends`: the epoch ends with them."""
        total, state = RunningLoss(), self.state
        half = (self.steps or 0) // 2 if self.last_epoch == 1 and self.averages_tail else None
        start = 0
        while start < len(order):
            stop = start + self.sgd.call_rows
            if half is not None and state.seen <= half:
                self.sgd.weights.restart_average()
                stop = min(stop, start + max(half - state.seen, 1)) if state.seen < half else stop
            some = order[start:stop]
            start += len(some)
            total += self._step_over(window, some, ends=ends and start == len(order))
        self.sgd.weights.settle()
        state.add(total)

    def _step_over(self, window: Window, order: np.ndarray, *, ends: bool) -> RunningLoss:
        """Let the rows of one call take their steps."""
        state = self.state
        weight = self.row_weights.of(window, order)
        eta = self.rates(self.row_weights.times(state.seen, weight))
        if state.first_rate is None:
            state.first_rate = float(eta[0])
        labels = window.labels.take(order)
        tally = self.sgd.step(window.parts, order, labels, weight, eta, ends=ends)
        these = RunningLoss.of(tally, weight)
        state.seen += these.rows
        self._watch(window, order, tally.finite, these)
        return these

    def rates(self, t: np.ndarray) -> np.ndarray:
        """Return the step sizes of rows before which `t` (n,) rows were seen."""
        assert self.state.schedule is not None
        return self.state.schedule(t)

    def end_epoch(self, facts: EpochFacts) -> None:
        """Note an epoch's facts, and whether another is worth too little."""
        state = self.state
        state.history.append(facts)
        state.ended = enough(
            state, facts, self.options, self.sgd.weights.mean, finishes=self.finishes
        )
        state.is_over = state.ended is not None

    def reach(self, theta: np.ndarray) -> None:
        """Have found the weights theta (K, d + 1), the bias last."""
        W, b = (values.astype(self.sgd.dtype) for values in (theta[:, : self.d], theta[:, self.d]))
        self.state.found = FoundWeights(0.0, W, b)

    def show_found(self) -> None:
        """Measure and stop by the weights that full gradients have found."""
        assert self.state.found is not None
        self.sgd.weights.restart_average()
        self.sgd.weights.set(*self.state.found.pair)

    def kept(self) -> LearnerState:
        """Return copies of all that its next step depends on."""
        state = self.state
        return replace(state, history=list(state.history), views=copies(self.sgd.views()))

    def restore(self, kept: LearnerState) -> None:
        """Go on from what was kept; raise ValueError where that contradicts itself."""
        if kept.prepared is not None:
            if kept.schedule is None and self.sgd_epochs > 0:
                raise ValueError("there are steps without a size")
            self.take(kept.prepared)
        self.sgd.restore(kept.views)
        self.state = replace(kept, history=list(kept.history), views={})

    def _watch(self, window: Window, order: np.ndarray, finite: bool, these: RunningLoss) -> None:
        """Stop where numbers are not finite, or the mean loss is far above that of guessing."""
        state = self.state
        if not finite:
            check_features(window, order, self.sgd.dtype)
            raise self._diverged("not finite", window, order)
        last = self.steps is not None and state.seen % self.steps == 0
        watched = state.watched(these, is_due=last)
        if watched is not None and is_astray(watched, self.K):
            raise self._diverged(f"{watched.means()[0]:.3g}", window, order)

    def _diverged(self, loss: str, window: Window, order: np.ndarray) -> DivergedError:
        some = order[:NORM_ROWS]
        norm = checked_norm(self.sgd, window, some, self.row_weights.of(window, some))
        return diverged(loss, self.state.seen, window.place(int(order[0])), self.rate, norm)
