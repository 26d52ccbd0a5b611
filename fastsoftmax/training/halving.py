"""The only place that gives up the worse half of the models that are trained together."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.training.callbacks import Callback, Event
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.trainer_state import TrainerState

logger = logging.getLogger("fastsoftmax")

# They are halved after this share of an epoch, and when twice and four times as many rows have
# passed; never on fewer rows, and at the end of a span.
FIRST_HALVING, LEAST_ROWS = 1 / 8, 4096


def first_halving(rows: int) -> int:
    """Return how many rows pass before the worse half is given up, of so many in an epoch."""
    return max(int(rows * FIRST_HALVING), LEAST_ROWS)


class Survivors:
    """The learners of a run, and which of them were given up, and why."""

    def __init__(self, learners: list[Learner], state: TrainerState) -> None:
        self.all, self._state = learners, state

    def __len__(self) -> int:
        return len(self.all) - len(self._state.dropped)

    def list(self) -> list[Learner]:
        """Return those that were not given up."""
        gone = dict(self._state.dropped)
        return [learner for i, learner in enumerate(self.all) if i not in gone]

    def drop(self, learner: Learner, why: str) -> None:
        """Give one up."""
        given = ", ".join(f"{name}={value}" for name, value in learner.options.given().items())
        logger.info("%s: %s", given, why)
        self._state.dropped.append((self.all.index(learner), why))


def standing(learner: Learner, *, validated: bool) -> float:
    """Return the loss by which a learner is compared with others.

    It is that of the last validation where all have one, else the progressive loss since the worse
    half was last given up: of a learner that has ended by then, of its last rows.
    """
    state = learner.state
    if validated:
        return state.history[-1]["validation_log_loss"]
    if state.recent_loss.rows == 0 and state.history:
        return state.history[-1]["log_loss"]
    return state.recent_loss.means()[0]


class Halving(Callback):
    """Gives up the worse half of the learners, by how they stand."""

    def __init__(
        self, survivors: Survivors, state: TrainerState, active: Callable[[], list[Learner]]
    ) -> None:
        """active(): those that are still taking steps."""
        self._survivors, self._state, self._active = survivors, state, active

    def on_span(self, event: Event) -> None:
        """Give up the worse half, if it is time."""
        left = len(self._survivors)
        while left > 1 and self._state.visited >= self._state.halving:
            self._state.halving *= 2
            left = (left + 1) // 2
        if left < len(self._survivors):
            self._leave(left)
            event.learner = self._active()[0]

    def _leave(self, count: int) -> None:
        """Give up all but so many."""
        survivors = self._survivors.list()
        validated = all(
            each.state.history and "validation_log_loss" in each.state.history[-1]
            for each in survivors
        )
        ranked = sorted(survivors, key=lambda each: standing(each, validated=validated))
        for learner in ranked[count:]:
            self._survivors.drop(learner, f"given up after {learner.state.seen:,} rows")
        for learner in self._active():  # one that has ended keeps its last loss
            learner.state.recent_loss = RunningLoss()
