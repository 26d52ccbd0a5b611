"""The only place that says when a learner has learnt enough: by its gain, or by validation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastsoftmax.options import TrainOptions
from fastsoftmax.training.learner_state import FoundWeights, LearnerState
from fastsoftmax.training.progress import EpochFacts

PATIENCE = 3  # epochs, where epochs is auto and validation says when to stop
FLOOR = 1e-5  # of the loss of guessing: less than this is nothing, whatever is left
WORTHWHILE = 1e-3  # of the loss: less than this is not worth further epochs


def expected_gain(state: LearnerState) -> tuple[float | None, float | None]:
    """Return what all further epochs are worth, from the losses of those before, and its error.

    The decrease of the progressive loss goes on as a geometric series, of ratio one half where
    there are only two. The error is that of two means over parts of an epoch, and None where
    an epoch is one part.
    """
    losses = [epoch["log_loss"] for epoch in state.history] + [state.epoch_loss.means()[0]]
    if len(losses) < 2:
        return None, None
    last = losses[-2] - losses[-1]
    ratio = 0.5
    if len(losses) > 2 and losses[-3] > losses[-2]:
        ratio = min(0.9, max(0.1, last / (losses[-3] - losses[-2])))
    error = state.epoch_loss.error()
    error = None if error is None else math.sqrt(2) * error
    return max(0.0, last * ratio / (1 - ratio)), error


def enough(
    state: LearnerState,
    last: EpochFacts,
    options: TrainOptions,
    weights: Callable[[], tuple[np.ndarray, np.ndarray]],
    *,
    finishes: bool,
) -> str | None:
    """Return why another epoch is worth too little, or None; weights(): those of `last`.

    finishes: full gradients come after the epochs.
    """
    steps, stopping = options.steps, options.stopping
    loss, patience = last.get("validation_log_loss"), stopping.patience
    if patience is None and steps.epochs == "auto" and loss is not None:
        patience = PATIENCE
    if loss is not None and patience is not None:
        if state.best is None or loss < state.best.loss - stopping.min_delta:
            state.best, state.waited = FoundWeights(loss, *weights()), 0
        else:
            state.waited += 1
        return "patience" if state.waited >= patience else None
    gain = last.get("gain")
    if steps.epochs != "auto" or finishes or gain is None:
        return None
    if gain < (stopping.tolerance or WORTHWHILE) * last["log_loss"]:
        return "tolerance"
    is_nothing = stopping.tolerance is None and gain < FLOOR * math.log(len(weights()[1]))
    return "floor" if is_nothing else None
