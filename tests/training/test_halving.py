"""Which of the models that are trained together are given up."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

import fastsoftmax
from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.halving import LEAST_ROWS, Halving, Survivors, first_halving, standing
from fastsoftmax.training.learner_state import LearnerState
from fastsoftmax.training.trainer_state import TrainerState
from tests.training.test_train import problem


class Stood:
    """What stands for a learner: its loss since the last halving, and that of epochs."""

    def __init__(self, recent=None, *history, is_over=False):
        loss = RunningLoss() if recent is None else RunningLoss(recent * 100, 0, 100, 100)
        self.state = LearnerState(
            recent_loss=loss, history=list(history), is_over=is_over, seen=100
        )
        self.options = TrainOptions.of(l2=0.5)


def epoch(loss, validated=None):
    facts = {"epoch": 1, "rows": 100, "log_loss": loss, "accuracy": 0.5, "learning_rate": 0.1}
    return facts if validated is None else facts | {"validation_log_loss": validated}


def halve(*learners, visited=LEAST_ROWS):
    """Return which are left, by number, after the worse half was given up."""
    state = TrainerState(("all", 9, 0), LEAST_ROWS, visited=visited)
    survivors = Survivors(list(learners), state)
    active = [each for each in learners if not each.state.is_over]

    def still_active():
        return [each for each in active if each in survivors.list()] or survivors.list()

    Halving(survivors, state, still_active).on_span(SimpleNamespace(learner=learners[0]))
    return [learners.index(each) for each in survivors.list()]


def test_the_worse_half_is_given_up_by_its_recent_loss():
    assert halve(*map(Stood, (0.4, 0.2, 0.3, 0.9))) == [1, 2]
    assert halve(*map(Stood, (0.4, 0.2, 0.3))) == [1, 2]
    assert halve(*map(Stood, (0.4, 0.2)), visited=LEAST_ROWS - 1) == [0, 1]
    assert halve(*map(Stood, (0.4, 0.2, 0.3, 0.9)), visited=2 * LEAST_ROWS) == [1]


def test_one_that_has_ended_keeps_its_last_loss():
    ended = Stood(None, epoch(0.8), is_over=True)
    assert standing(ended, validated=False) == 0.8
    assert halve(ended, Stood(0.3, epoch(0.4)), Stood(0.5, epoch(0.6))) == [1, 2]
    best = Stood(0.1, epoch(0.2), is_over=True)
    assert halve(best, Stood(0.3), Stood(0.5), Stood(0.6)) == [0, 1]
    assert best.state.recent_loss.rows == 100  # to be compared again


def test_validation_decides_where_all_have_one():
    learners = [Stood(0.1, epoch(0.1, 0.9)), Stood(0.5, epoch(0.5, 0.4))]
    assert halve(*learners) == [1]
    mixed = [Stood(0.1, epoch(0.1, 0.9)), Stood(0.5)]
    assert halve(*mixed) == [0]


@pytest.mark.parametrize(("rows", "want"), [(100, LEAST_ROWS), (10**6, 125_000)])
def test_the_first_halving_comes_after_an_eighth_of_an_epoch(rows, want):
    assert first_halving(rows) == want


def test_a_setting_that_stopped_early_does_not_win_by_stopping():
    X, y, _ = problem(4, 10, 9000)
    found = fastsoftmax.sweep(
        X, y, learning_rate=[1e-6, 0.02], holdout=0.1, patience=1, min_delta=1e-3, epochs=8
    )
    assert found.table[0]["learning_rate"] == 0.02
    assert all(math.isfinite(line["log_loss"]) for line in found.table)
