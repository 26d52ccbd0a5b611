"""The only place that ends a run by full gradients: when, and over what."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import closing, suppress

import numpy as np

from fastsoftmax.data.source import LabelStats, Source
from fastsoftmax.errors import DivergedError
from fastsoftmax.optim.objective import Objective
from fastsoftmax.optim.optimizer import Enough, OptimizerState, begin, begin_at, iterates
from fastsoftmax.optim.passes import Drawing, RowPass
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.rows import PassStopped, RunRows
from fastsoftmax.training.scales import is_far_off, moved, penalised, prepared_by, scaling_of
from fastsoftmax.training.step_trials import planned_epochs, steps_pay
from fastsoftmax.training.stopping import FLOOR
from fastsoftmax.training.trainer_state import TrainerState

logger = logging.getLogger("fastsoftmax")

OPTIMUM = 1e-7  # of the objective: what full gradients leave ungained where they are asked for


def ends_by_full_gradients(options: TrainOptions, *, one_pass: bool) -> bool:
    """Return whether full gradients end the run: where all is left open, and rows come again."""
    if options.stopping.solver == "lbfgs":
        return True
    steps = options.steps
    averages = steps.average is True or options.penalty.l1 > 0
    plain = steps.batch_size == 1 and not steps.adaptive and averages
    return plain and not options.by_hand and steps.epochs == "auto" and not one_pass


def planned(options: TrainOptions, source: Source, stats: LabelStats | None) -> TrainOptions:
    """Return the options of a run, which ends by epochs of steps where those are all that pays."""
    stopping = options.stopping
    is_asked = stopping.solver == "lbfgs" or stopping.tolerance is not None or options.penalty.l1
    if is_asked or options.sharding.count > 1 or stats is None:
        return options
    rows = max(stats.count_steps(), 1)
    sizes = (len(stats.classes), source.n_features, rows, source.nonzeros)
    if not steps_pay(*sizes, options.reading.memory_bytes):
        return options
    resolved = options.resolved(one_pass=source.one_pass)
    is_open = ends_by_full_gradients(resolved, one_pass=source.one_pass)
    return options.changed(epochs=planned_epochs(rows)) if is_open else options


def enough_of(learner: Learner) -> Enough:
    """Return what is too little for a learner to go on for by full gradients."""
    stopping = learner.options.stopping
    passes = learner.last_epoch - learner.sgd_epochs
    if stopping.tolerance is None and stopping.solver != "lbfgs":
        return Enough(passes, 0.0, FLOOR * math.log(learner.K), steps=1)
    return Enough(passes, stopping.tolerance or OPTIMUM, steps=1)


def objective_of(learner: Learner, passes: RowPass) -> Objective:
    """Return what a learner's weights are to minimise over all rows."""
    prepared = learner.prepared
    return Objective(
        passes,
        prepared.penalties,
        fit_intercept=learner.options.penalty.fit_intercept,
        squares=prepared.squares,
        drawing=prepared.drawing,
    )


def first_theta(learner: Learner) -> np.ndarray:
    """Return where full gradients begin: the weights (K, d + 1) so far, the bias last, float64."""
    W, b = learner.sgd.weights.mean()
    return np.concatenate([W, b[:, None]], axis=1).astype(np.float64)


def take_passes(
    learner: Learner,
    rows: RunRows,
    optimizer: OptimizerState | None,
    ended: Callable[[OptimizerState], bool],
) -> OptimizerState | None:
    """Go on by full gradients from where an earlier run came, or from the learner's weights.

    ended(optimizer): called after each pass; True is the end. Return None where a pass was stopped
    before its end. Raises DataError, or DivergedError, where the loss is not finite.
    """
    with closing(_Passes(learner, rows)) as passes, suppress(PassStopped):
        # A run that was kept after its last pass has no more of them.
        is_done = optimizer is not None and learner.state.is_over
        optimizer = passes.begin() if optimizer is None else optimizer.kept()
        enough = enough_of(learner)
        with closing(
            iterates(passes.objective, optimizer, enough, memory=learner.prepared.memory)
        ) as steps:
            while not is_done and next(steps, None) is not None:
                is_done = ended(optimizer)
        if optimizer.is_over:
            learner.state.ended = "floor" if enough.floor else "tolerance"
        passes.refuse_what_is_not_finite(passes.objective)
        return optimizer
    return None


class _Passes:
    """The objective of a learner over all rows, whose moments the first pass may show."""

    def __init__(self, learner: Learner, rows: RunRows) -> None:
        self._learner, self._rows = learner, rows
        self.objective = objective_of(learner, rows.passes(learner))

    def close(self) -> None:
        """End its threads."""
        self.objective.close()

    def refuse_what_is_not_finite(self, objective: Objective) -> None:
        """Raise DataError at the first feature that made a loss no number, or DivergedError."""
        if objective.finite:
            return
        self._rows.refuse_what_is_not_finite(self._learner)
        raise DivergedError("the loss is not finite: scale the features, or take dtype=float64.")

    def begin(self) -> OptimizerState:
        """Take the first pass; where rows do not fit in memory, learn what the first did not show.

        What features are divided by came from a sample. Where that turns out far off, the weights
        are brought to better scales, and the loss of the pass is theirs too.
        """
        learner, prepared = self._learner, self._learner.prepared
        theta, before = first_theta(learner), prepared.scaling
        if self._rows.plan.kind == "all" or prepared.moments is None or before is None:
            return begin(self.objective, theta, prepared.memory)
        passes, survey = self._rows.surveying(learner)
        with objective_of(learner, passes) as objective:
            state = begin(objective, theta, prepared.memory)
            self.refuse_what_is_not_finite(objective)
            sample = objective.sample(0)
        moments = survey.sums.moments((prepared.moments.median, prepared.moments.width))
        after = scaling_of(learner, moments, survey.wide)
        if not is_far_off(before, after):
            after = before
        else:
            logger.info("features are scaled anew: the first rows did not show all of them")
        found = prepared_by(learner, moments, after)
        slope = state.point.gradient.copy()
        slope[:, :-1] -= prepared.penalties.l2 * theta[:, :-1]
        found.l2, found.notes = prepared.l2, prepared.notes
        squares = prepared.squares
        found.drawing = Drawing(before, 0.0 if squares is None else float(squares.sum()))
        learner.take(found)
        self.close()
        self.objective = objective_of(learner, self._rows.passes(learner))
        self.objective.know(sample, state.log_loss, state.accuracy)
        theta, slope = moved(theta, slope, before, after)
        smooth, slope = penalised(theta, state.log_loss, slope, found.penalties)
        return begin_at(self.objective, theta, smooth, slope)


class PassWatch:
    """Tells where a pass stands that many workers are at, and ends it where the run is over.

    tell: hands on what makes a Progress, and returns whether the run is to stop. is_over: whether
    it is anyway. seconds: of the run so far.
    """

    def __init__(
        self,
        learner: Learner,
        state: TrainerState,
        tell: Callable[[Callable[[], Progress]], bool],
        is_over: Callable[[], bool],
        seconds: Callable[[], float],
    ) -> None:
        self._learner, self._state, self._tell = learner, state, tell
        self._is_over, self._seconds = is_over, seconds

    def __call__(self, done: int, of: int) -> None:
        """Look at a round of which so many tasks are done."""
        if self._tell(lambda: self._progress(done, of)) or self._is_over():
            raise PassStopped

    def _progress(self, done: int, of: int) -> Progress:
        learner, optimizer = self._learner, self._state.optimizer
        steps, passes = learner.steps or 0, 0 if optimizer is None else max(optimizer.passes, 1)
        rows = steps * done // of
        return Progress(
            epoch=learner.sgd_epochs + passes + 1,
            epochs=learner.planned_epochs,
            rows=rows,
            rows_per_epoch=steps,
            rows_seen=learner.state.seen + steps * passes + rows,
            seconds=self._seconds(),
            log_loss=math.nan if optimizer is None else optimizer.log_loss,
            accuracy=math.nan if optimizer is None else optimizer.accuracy,
            learning_rate=0.0,
            solver="lbfgs",
            shards=(done, of),
        )


def pass_progress(
    learner: Learner, optimizer: OptimizerState, seconds: float, treated: dict[str, int]
) -> Progress:
    """Return where a learner stands after a pass."""
    steps, gain = learner.steps or 0, optimizer.gain
    return Progress(
        epoch=learner.sgd_epochs + max(optimizer.passes, 1),
        epochs=learner.planned_epochs,
        rows=steps,
        rows_per_epoch=steps,
        rows_seen=learner.state.seen + steps * max(optimizer.passes, 1),
        seconds=seconds,
        log_loss=optimizer.log_loss,
        accuracy=optimizer.accuracy,
        learning_rate=0.0,
        treated=treated,
        gain=gain if math.isfinite(gain) else None,
        gain_error=optimizer.gain_error if math.isfinite(gain) else None,
        finished=True,
        solver="lbfgs",
    )
