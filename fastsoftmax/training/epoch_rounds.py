"""The only place that goes through an epoch of steps in rounds, each of all shards."""

from __future__ import annotations

from collections.abc import Callable

from fastsoftmax.training.learner import Learner
from fastsoftmax.training.rows import PassStopped, RunRows
from fastsoftmax.training.trainer_state import TrainerState


def take_rounds(
    rows: RunRows,
    state: TrainerState,
    active: Callable[[], list[Learner]],
    told: Callable[[], None],
    is_over: Callable[[], bool],
) -> bool:
    """Take the rounds of an epoch from where a run stands; return whether it has come to its end.

    active(): who takes the steps. told(): is called after each round. is_over(): ends it there; a
    round that is stopped on its way has not been.
    """
    place = state.place
    count = rows.rounds(active()[0])
    while place.window < count:
        try:
            done = [rows.stepped(each, place.epoch, place.window) for each in active()]
        except PassStopped:
            return False
        # All or none: a run that is resumed goes on from one round.
        state.visited += max(goes_on() for goes_on in done)
        place.enter(place.window + 1)
        told()
        if is_over() and place.window < count:
            return False
    return True
