"""The only place that ends a run by full gradients: when, and over what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np

from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.errors import DivergedError
from fastsoftmax.optim.objective import Objective, precision
from fastsoftmax.optim.optimizer import Enough, OptimizerState, begin, iterates
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.finite_check import check_features
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.rows import TrainingRows

OPTIMUM = 1e-7  # of the objective: what full gradients leave ungained where they are asked for
FLOOR = 1e-5  # of the loss of guessing: less than this is nothing, whatever is left


def ends_by_full_gradients(options: TrainOptions, rows: TrainingRows) -> bool:
    """Return whether full gradients end the run: where all is left open, and rows come again."""
    if options.stopping.solver == "lbfgs":
        return True
    steps = options.steps
    averages = steps.average is True or options.penalty.l1 > 0
    plain = steps.batch_size == 1 and not steps.adaptive and averages
    return plain and not options.by_hand and steps.epochs == "auto" and not rows.source.one_pass


def enough_of(learner: Learner) -> Enough:
    """Return what is too little for a learner to go on for by full gradients."""
    stopping = learner.options.stopping
    passes = learner.last_epoch - learner.sgd_epochs
    if stopping.tolerance is None and stopping.solver != "lbfgs":
        return Enough(passes, 0.0, FLOOR * math.log(learner.K))
    return Enough(passes, stopping.tolerance or OPTIMUM)


def objective_of(learner: Learner, windows: Callable[[], Iterator[Window]]) -> Objective:
    """Return what a learner's weights are to minimise over all rows.

    windows(): yields them, the same at each call.
    """
    o, prepared, n = learner.options, learner.prepared, learner.steps or 1
    return Objective(
        learner.K,
        learner.d,
        lambda: (_batch(learner, window) for window in windows()),
        prepared.penalties,
        n=n,
        dtype=precision(learner.K, learner.d, n, o.steps.dtype),
        threads=o.reading.thread_count,
        scaling=prepared.scaling,
        fit_intercept=o.penalty.fit_intercept,
        squares=prepared.squares,
    )


def first_theta(learner: Learner) -> np.ndarray:
    """Return where full gradients begin: the weights (K, d + 1) so far, the bias last, float64."""
    W, b = learner.sgd.weights.mean()
    return np.concatenate([W, b[:, None]], axis=1).astype(np.float64)


def take_passes(
    learner: Learner,
    rows: TrainingRows,
    optimizer: OptimizerState | None,
    ended: Callable[[OptimizerState], bool],
) -> OptimizerState:
    """Go on by full gradients from where an earlier run came, or from the learner's weights.

    ended(optimizer): called after each pass; True is the end. Raises DataError, or DivergedError,
    where the loss is not finite.
    """
    with objective_of(learner, rows.all) as objective:
        # A run that was kept after its last pass has no more of them.
        is_done = optimizer is not None and learner.state.is_over
        optimizer = optimizer or begin(objective, first_theta(learner))
        enough = enough_of(learner)
        with closing(
            iterates(objective, optimizer, enough, memory=learner.prepared.memory)
        ) as steps:
            while not is_done and next(steps, None) is not None:
                is_done = ended(optimizer)
        if optimizer.is_over:
            learner.state.ended = "floor" if enough.floor else "tolerance"
        if not objective.finite:
            for window in rows.all():
                check_features(window, np.arange(window.rows), learner.sgd.dtype)
            raise DivergedError(
                "the loss is not finite: scale the features, or take dtype=float64."
            )
    return optimizer


def pass_progress(
    learner: Learner, optimizer: OptimizerState, seconds: float, treated: dict[str, int]
) -> Progress:
    """Return where a learner stands after a pass."""
    steps, gain = learner.steps or 0, optimizer.gain
    return Progress(
        epoch=learner.sgd_epochs + optimizer.passes,
        epochs=learner.planned_epochs,
        rows=steps,
        rows_per_epoch=steps,
        rows_seen=learner.state.seen + steps * optimizer.passes,
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


def _batch(learner: Learner, window: Window) -> Batch:
    order = np.arange(window.rows)
    weight = learner.row_weights.of(window, order)
    counted = order if weight.all() else np.flatnonzero(weight)
    return Batch(window.parts, counted, window.labels[counted], weight[counted])
