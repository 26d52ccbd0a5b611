"""When another epoch is worth too little."""

from __future__ import annotations

import numpy as np
import pytest

from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.learner_state import LearnerState
from fastsoftmax.training.stopping import PATIENCE, WORTHWHILE, expected_gain
from fastsoftmax.training.stopping import enough as why_enough


def epoch(loss, **more):
    """Return the facts of an epoch of this loss."""
    facts = {"epoch": 1, "rows": 10, "log_loss": loss, "accuracy": 0.5, "learning_rate": 0.1}
    return {**facts, **more}


def state_of(*losses):
    """Return a state after epochs of these losses, the last one not yet noted."""
    *before, last = losses
    return LearnerState(history=[epoch(loss) for loss in before], epoch_loss=losses_of(last))


def losses_of(loss, parts=4):
    """Return the sums of rows of this mean loss."""
    return RunningLoss(loss * 100, 50, 100, 100, parts, loss * loss * 100)


@pytest.mark.parametrize(
    ("losses", "gain"),
    [
        ((1.0,), None),
        ((1.0, 0.8), 0.2),  # a half, a quarter and so on of the last decrease
        ((1.0, 0.8, 0.75), 0.05 / 3),  # a geometric series of ratio 1/4
        ((1.0, 0.8, 0.601), 0.199 * 9),  # of 0.9 at most
        ((1.0, 0.5, 0.499), 0.001 / 9),  # of 0.1 at least
        ((1.0, 0.5, 0.6), 0.0),  # it rose
    ],
)
def test_the_gain_is_what_a_geometric_series_says(losses, gain):
    found, _ = expected_gain(state_of(*losses))
    assert found == (None if gain is None else pytest.approx(gain))


def test_the_gain_has_the_error_of_two_means_where_there_are_parts():
    state = state_of(1.0, 0.8)
    state.epoch_loss = RunningLoss(80, 50, 100, 100, 5, 68.0)  # variance 0.04 over 4
    assert expected_gain(state)[1] == pytest.approx(np.sqrt(2) * 0.1)
    state.epoch_loss = losses_of(0.8, parts=1)
    assert expected_gain(state)[1] is None


def enough(state, facts, finishes=False, **options):
    """Return why these facts end a run of these options."""
    given = TrainOptions.of(**options)
    weights = (np.ones((2, 3)), np.zeros(2))
    return why_enough(state, facts, given, lambda: weights, finishes=finishes)


def test_a_gain_below_a_share_of_the_loss_ends_a_run_whose_epochs_are_auto():
    little, much = 0.5 * WORTHWHILE, 2 * WORTHWHILE
    state = LearnerState()
    assert enough(state, epoch(1.0, gain=little))
    assert not enough(state, epoch(1.0, gain=much))
    assert not enough(state, epoch(1.0))
    assert not enough(state, epoch(1.0, gain=little), epochs=5)
    assert not enough(state, epoch(1.0, gain=little), finishes=True)
    assert enough(state, epoch(1.0, gain=much), tolerance=10 * WORTHWHILE)


def test_validation_ends_a_run_after_so_many_epochs_without_a_better_one():
    state = LearnerState()
    losses = [0.9, 0.8, 0.85, 0.81, 0.8, 0.7]
    ended = [enough(state, epoch(1.0, validation_log_loss=loss)) for loss in losses]
    assert ended.index("patience") == 1 + PATIENCE
    assert state.best.loss == 0.7  # the last one was better after all


def test_the_best_weights_are_kept_and_must_be_better_by_min_delta():
    state = LearnerState()
    told = {"patience": 2, "min_delta": 0.05, "epochs": 9}
    assert not enough(state, epoch(1.0, validation_log_loss=0.80), **told)
    assert not enough(state, epoch(1.0, validation_log_loss=0.78), **told)
    assert (state.best.loss, state.waited) == (0.80, 1)
    assert enough(state, epoch(1.0, validation_log_loss=0.76), **told)
    assert state.best.W.shape == (2, 3)
