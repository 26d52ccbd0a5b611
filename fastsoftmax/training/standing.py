"""The only place that tells where a learner stands in an epoch of steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastsoftmax.training.learner import Learner
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.stopping import expected_gain


def epoch_progress(
    learner: Learner, epoch: int, seconds: float, treated: dict[str, int]
) -> Progress:
    """Return where a learner stands in an epoch, from 0."""
    state = learner.state
    log_loss, accuracy = state.epoch_loss.means()
    steps = state.schedule is not None  # where full gradients are all, no step has a size
    return Progress(
        epoch=epoch + 1,
        epochs=learner.planned_epochs,
        rows=state.epoch_loss.rows,
        rows_per_epoch=learner.steps,
        rows_seen=state.seen,
        seconds=seconds,
        log_loss=log_loss,
        accuracy=accuracy,
        learning_rate=float(learner.rates(np.array([state.seen]))[0]) if steps else 0.0,
        treated=treated,
    )


def whole_epoch(progress: Progress, learner: Learner) -> Progress:
    """Return how an epoch went that has come to its end."""
    gain, error = expected_gain(learner.state)
    rate = learner.state.first_rate or 0.0
    return replace(progress, learning_rate=rate, finished=True, gain=gain, gain_error=error)


def round_progress(progress: Progress, rounds: int, done: int, of: int) -> Progress:
    """Return where a learner stands in a round of steps of which so many tasks are done."""
    rows = (progress.rows_per_epoch or 0) * done // (of * max(rounds, 1))
    return replace(
        progress,
        rows=progress.rows + rows, rows_seen=progress.rows_seen + rows, shards=(done, of),
    )  # fmt: skip
