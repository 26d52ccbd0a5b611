"""The only place for what happens beside the steps of a run: each callback acts on its events.

start: the first rows are there, and what was left open is chosen. span: some thousand rows took
their steps. epoch, pass: one is done, of steps or of full gradients. stop: no more steps are taken.
end: the run is over.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from fastsoftmax.data.mixing import POOR
from fastsoftmax.errors import DivergedError
from fastsoftmax.optim.state import State
from fastsoftmax.training.divergence import SAFER
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.rows import RunRows
from fastsoftmax.training.trainer_state import GoodState, TrainerState

logger = logging.getLogger("fastsoftmax")

Report = Callable[[Progress], bool | None]
REPORT_SECONDS = 0.2
RETREATS = 3  # from steps of our own that led astray


class Event:
    """What callbacks are told: of which learner, and where it stands.

    progress is made when it is first asked for; a callback may put another in its place, for those
    after it. mixing: how well the rows of the epoch were mixed, where that was measured. is_whole:
    the epoch came to its end.
    """

    def __init__(
        self,
        learner: Learner,
        measure: Callable[[Learner], Progress],
        mixing: float | None = None,
        *,
        is_whole: bool = True,
    ) -> None:
        self.learner, self.mixing, self.is_whole, self._measure = learner, mixing, is_whole, measure

    @cached_property
    def progress(self) -> Progress:
        """Where the learner stands."""
        return self._measure(self.learner)


class Callback:
    """Does nothing at any event; a callback does at some. True asks the run to stop."""

    def on_start(self, event: Event) -> bool | None:
        """Act once what was left open is chosen."""

    def on_span(self, event: Event) -> bool | None:
        """Act after some thousand rows."""

    def on_epoch(self, event: Event) -> bool | None:
        """Act on an epoch of steps, once for each learner."""

    def on_pass(self, event: Event) -> bool | None:
        """Act on a pass of full gradients."""

    def on_stop(self, event: Event) -> bool | None:
        """Act when no more steps are taken."""

    def on_end(self, event: Event) -> bool | None:
        """Act when the run is over."""

    def on_divergence(self, error: DivergedError) -> bool:
        """Return whether the run can go on all the same."""
        return False


class Validation(Callback):
    """Measures the loss on rows that take no step."""

    def __init__(self, rows: RunRows) -> None:
        self._rows = rows

    def on_epoch(self, event: Event) -> None:
        """Measure the learner's weights."""
        loss, accuracy = self._rows.validation_loss(event.learner.sgd).means()
        event.progress = replace(
            event.progress, validation_log_loss=loss, validation_accuracy=accuracy
        )

    def on_pass(self, event: Event) -> None:
        """Measure the weights that were reached."""
        event.learner.show_found()
        self.on_epoch(event)


class History(Callback):
    """Lets learners note what an epoch or pass was like, and whether another is worth it."""

    def on_epoch(self, event: Event) -> None:
        """Note the facts of an epoch."""
        facts = event.progress.facts()
        if event.mixing is not None:
            facts["mixing"] = event.mixing
        event.learner.end_epoch(facts)

    def on_pass(self, event: Event) -> None:
        """Note the facts of a pass."""
        self.on_epoch(event)


class Log(Callback):
    """Says a line about each epoch and pass to the logger."""

    def on_epoch(self, event: Event) -> None:
        """Say it."""
        logger.info("%s", event.progress)

    def on_pass(self, event: Event) -> None:
        """Say it."""
        logger.info("%s", event.progress)


class Reporting(Callback):
    """Hands where the run stands to whoever asked for it, some times a second and at each epoch."""

    def __init__(self, report: Report | None, state: TrainerState) -> None:
        self._report, self._state = report, state
        self._reported = 0.0
        self._told = False  # of an epoch since the run was begun or resumed

    def on_span(self, event: Event) -> bool | None:
        """Report, if it is time."""
        now = time.perf_counter()
        if now - self._reported < REPORT_SECONDS:
            return None
        self._reported = now
        return self._tell(event.progress)

    def on_epoch(self, event: Event) -> bool | None:
        """Report."""
        self._state.last, self._told = event.progress, True
        return self._tell(event.progress)

    def on_pass(self, event: Event) -> bool | None:
        """Report."""
        return self.on_epoch(event)

    def on_end(self, event: Event) -> bool | None:
        """Report again how the last epoch went, where a run was resumed after it."""
        if self._state.last is None or self._told:
            return None
        return self._tell(self._state.last)

    def _tell(self, progress: Progress) -> bool | None:
        return None if self._report is None else self._report(progress)


class LossWarning(Callback):
    """Warns once where a given step size leaves the loss above that of guessing."""

    def __init__(self, state: TrainerState) -> None:
        self._state = state

    def on_epoch(self, event: Event) -> None:
        """Compare with guessing."""
        progress, guessing = event.progress, math.log(event.learner.K)
        by_hand = event.learner.options.by_hand
        if progress.log_loss <= guessing or not by_hand or self._state.warned_of_loss:
            return
        self._state.warned_of_loss = True
        warnings.warn(
            f"after epoch {progress.epoch} the mean log-loss ({progress.log_loss:.3g}) is worse"
            f" than guessing ({guessing:.3g}): try a smaller learning_rate",
            UserWarning,
            stacklevel=2,
        )


class MixingWarning(Callback):
    """Warns once where windows of rows are unlike the whole."""

    def __init__(self, state: TrainerState) -> None:
        self._state = state

    def on_epoch(self, event: Event) -> None:
        """Look at how the rows of the epoch were mixed."""
        mixing = event.mixing
        if mixing is None or mixing >= POOR or self._state.warned_of_mixing:
            return
        if self._state.plan[0] == "full" or not event.is_whole:
            return
        self._state.warned_of_mixing = True
        warnings.warn(
            f"rows are shuffled within windows whose labels are unlike the whole (mixing"
            f" {mixing:.2f}): use shuffle=full, or more memory",
            UserWarning,
            stacklevel=2,
        )


class Retreat(Callback):
    """Goes back to the last good state with a smaller step, where a step of its own led astray."""

    def __init__(self, learner: Learner, state: TrainerState) -> None:
        self._learner, self._state = learner, state

    def on_start(self, event: Event) -> None:
        """Note the state."""
        self._state.good = GoodState(self._state.visited, self._learner.kept())

    def on_epoch(self, event: Event) -> None:
        """Note the state."""
        self.on_start(event)

    def on_divergence(self, error: DivergedError) -> bool:
        """Go back, unless that was done often enough."""
        state, learner, good = self._state, self._learner, self._state.good
        if good is None or state.retreats == RETREATS:
            return False
        state.retreats += 1
        state.visited = good.visited
        learner.restore(good.learner)
        assert learner.state.schedule is not None
        rate = learner.rate / SAFER
        learner.state.schedule = replace(learner.state.schedule, eta0=rate)
        note = f"lowered to {rate:.3g} in epoch {state.place.epoch + 1}: {error}"
        learner.prepared.notes["learning_rate"] = note
        warnings.warn(f"learning_rate {note}", UserWarning, stacklevel=2)
        state.place.enter(0)
        state.good = GoodState(state.visited, learner.kept())
        return True


class Keeper(Protocol):
    """What keeps the state of a run."""

    def is_due(self, rows: int) -> bool:
        """Whether the state is to be kept, now that so many rows were visited in all."""

    def keep(self, state: Callable[[], State]) -> None:
        """Keep the state."""


class Checkpointing(Callback):
    """Has the state of the run kept now and then, and when it stops."""

    def __init__(self, keeper: Keeper, state: TrainerState, kept: Callable[[], State]) -> None:
        self._keeper, self._state, self._kept = keeper, state, kept

    def on_span(self, event: Event) -> None:
        """Keep the state, if it is time."""
        if self._keeper.is_due(self._state.visited):
            self._keeper.keep(self._kept)

    def on_pass(self, event: Event) -> None:
        """Keep the state, if it is time."""
        self.on_span(event)

    def on_stop(self, event: Event) -> None:
        """Keep the state."""
        self._keeper.keep(self._kept)
