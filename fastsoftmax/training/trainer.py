"""The one loop: epochs over windows of rows, each row a step of every model that is trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from operator import methodcaller

import numpy as np

from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.data.mixing import Mixing
from fastsoftmax.errors import DataError, DivergedError
from fastsoftmax.optim.optimizer import OptimizerState
from fastsoftmax.optim.state import State, dump, load
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.callbacks import Callback, Event
from fastsoftmax.training.ending import why_ended
from fastsoftmax.training.epoch_rounds import take_rounds
from fastsoftmax.training.finish import pass_progress, take_passes
from fastsoftmax.training.halving import Survivors, first_halving
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.preparation import prepare
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.rows import SAMPLE_ROWS, RunRows, TrainingRows
from fastsoftmax.training.standing import epoch_progress, whole_epoch
from fastsoftmax.training.trainer_state import TrainerState


class Trainer:
    """Models that are trained together over the rows of a source, and how far they are.

    callbacks act on its events, in their order; all that the rest of the run depends on is in
    `state`, in the learners' own, and in what is measured of the mixing of the epoch at hand.
    """

    def __init__(self, rows: RunRows, learners: Sequence[Learner], options: TrainOptions) -> None:
        """options: of the run; those of the learners agree in all that concerns rows."""
        self.rows, self.learners, self.options = rows, list(learners), options
        halving = first_halving(self.learners[0].steps or 0)
        self.state = TrainerState(rows.plan.told, halving)
        self.survivors = Survivors(self.learners, self.state)
        self.callbacks: list[Callback] = []
        self.told_to_stop = False
        self._mixing: Mixing | None = None
        self._started = time.perf_counter()
        self._pool: ThreadPoolExecutor | None = None
        if len(self.learners) > 1:
            threads = min(options.reading.thread_count, len(self.learners))
            self._pool = ThreadPoolExecutor(threads)

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
        for learner in self.learners:
            learner.close()

    @property
    def seconds(self) -> float:
        """Seconds since training began, those before it was resumed included."""
        return self.state.spent + time.perf_counter() - self._started

    @property
    def is_over(self) -> bool:
        """Whether the run ends before its last epoch: time is up, or a callback said so."""
        limit = self.options.stopping.max_seconds
        if limit is None or self.learners[0].state.prepared is None:  # time is that of training
            return self.told_to_stop
        return self.told_to_stop or self.seconds - self.state.spent >= limit

    @property
    def has_begun(self) -> bool:
        """Whether anything has been learnt."""
        return self.state.visited > 0

    def why_ended(self, learner: Learner) -> str:
        """Return why a learner takes no more steps."""
        is_done = self.state.place.phase == "done"
        return why_ended(learner, is_done=is_done, told_to_stop=self.told_to_stop)

    def train(self) -> None:
        """Train all epochs, or until another is worth little, or the run is over."""
        place = self.state.place
        while place.phase == "steps" and self.active():
            try:
                self._train_epoch()
            except DivergedError as error:
                if not any(callback.on_divergence(error) for callback in self.callbacks):
                    raise
                continue
            if self.is_over:
                break
        if not self.is_over:
            place.leave("steps")
        if place.phase == "finish":
            self._finish_all()
        last = Event(self.survivors.list()[0], self.progress)
        self._emit("on_stop", last)
        if place.phase == "steps":
            self.close_epoch()
        self._emit("on_end", Event(last.learner, self._ended))

    def close_epoch(self) -> None:
        """Note how an epoch went that ended before its end, if one did."""
        if self.state.place.is_inside:
            for learner in self.active():
                self._end_epoch_of(learner, is_whole=False)

    def kept(self) -> State:
        """Return all that the rest of the run depends on: facts, and arrays by name."""
        return dump(
            replace(
                self.state,
                spent=self.seconds,
                mixing=None if self._mixing is None else self._mixing.state(),
                learners=[learner.kept() for learner in self.learners],
            )
        )

    def restore(self, state: State) -> None:
        """Go on from what was kept; raise ValueError where it is not of such a run."""
        learner = self.learners[0]
        sizes = {"K": learner.K, "d": learner.d, "columns": learner.d + 1}
        kept = load(TrainerState, state, {**sizes, "weights": learner.sgd.dtype})
        for each, own in zip(self.learners, kept.learners, strict=True):
            each.restore(own)
        self.state.become(replace(kept, learners=[]))
        self._mixing = self.rows.new_mixing()
        if self._mixing is not None and kept.mixing is not None:
            self._mixing.restore(kept.mixing)

    def _emit(self, name: str, event: Event) -> None:
        """Tell the callbacks of an event; where one says so, the run is over."""
        for callback in self.callbacks:
            if methodcaller(name, event)(callback):
                self.told_to_stop = True

    def active(self) -> list[Learner]:
        """Return the learners that take the steps of this epoch."""
        epoch, left = self.state.place.epoch, self.survivors.list()
        return [each for each in left if epoch < each.sgd_epochs and not each.state.is_over]

    def _train_epoch(self) -> None:
        """Train an epoch from where the run stands to its end, or until the run is over."""
        place, begins, rows = self.state.place, not self.state.place.is_inside, self.rows
        if not isinstance(rows, TrainingRows):
            self._train_rounds()
            return
        fresh = any(not each.has_chosen for each in self.active())
        if fresh and (sample := rows.sample(SAMPLE_ROWS)) is not None:
            self._prepare(self.active(), sample)
        if begins:
            self._mixing = self.rows.new_mixing()
        for window in rows.epoch(place.epoch, place.window):
            self._prepare(self.active(), window)
            if begins:
                for learner in self.active():
                    learner.begin_epoch()
            begins = False
            order = rows.order(window, place.epoch)
            self._train_window(window, order)
            if self.is_over and place.row < len(order):
                return
            rows.add_to(self._mixing, window)
            place.enter(window.index + 1)
            if self.is_over and not window.last:
                return
            del window  # its memory is free before the next one is asked for
        self._end_epoch()

    def _train_rounds(self) -> None:
        """Train an epoch in rounds over shards, from where the run stands."""
        rows, begins = self.rows, not self.state.place.is_inside
        if any(each.state.prepared is None for each in self.active()):
            self._prepare(self.active(), rows.first_window(SAMPLE_ROWS))
        for learner in self.active() if begins else ():
            learner.begin_epoch()
        is_whole = take_rounds(
            rows, self.state, self.active,
            lambda: self._emit("on_span", Event(self.active()[0], self.progress)),
            lambda: self.is_over,
        )  # fmt: skip
        if is_whole:
            self._end_epoch()

    def _prepare(self, learners: list[Learner], window: Window) -> None:
        """Have learners choose what was left open on the first rows to come; start the clock."""
        fresh = [learner for learner in learners if learner.state.prepared is None]
        for learner in fresh:
            prepare(learner, window, measures=self.rows.is_validated)
        if fresh:
            self._started = time.perf_counter()
            self._emit("on_start", Event(fresh[0], self.progress))

    def _train_window(self, window: Window, order: np.ndarray) -> None:
        """Train on a window's rows from where the run stands, in spans after which it may end."""
        place, step = self.state.place, self.learners[0].sgd.lengths.span
        while place.row < len(order):
            some = order[place.row : place.row + step]
            self._step(window, some, ends=window.last and place.row + step >= len(order))
            self.state.visit(len(some))
            if self.rows.stats is None:  # nobody could count them before
                self.rows.count(window, some, self.learners[0].row_weights.of(window, some))
            self._emit("on_span", Event(self.active()[0], self.progress))
            if self.is_over:
                return

    def _step(self, window: Window, order: np.ndarray, *, ends: bool) -> None:
        active = self.active()
        if self._pool is None:
            active[0].step(window, order, ends=ends)
            return
        jobs = [self._pool.submit(each.step, window, order, ends=ends) for each in active]
        for learner, job in zip(active, jobs, strict=True):
            try:
                job.result()
            except DivergedError as error:
                if len(self.survivors) == 1:
                    raise
                why = f"diverged after {learner.state.seen:,} rows: {error}"
                self.survivors.drop(learner, why)

    def _end_epoch(self) -> None:
        """Note how an epoch went, and go on to the next."""
        for learner in self.active():
            if learner.state.epoch_loss.rows == 0:
                raise DataError(
                    "no row is left to train on: give other data, or a smaller holdout=."
                )
            self._end_epoch_of(learner)
        self.state.place.enter_epoch(self.state.place.epoch + 1)

    def _end_epoch_of(self, learner: Learner, *, is_whole: bool = True) -> None:
        progress = whole_epoch(self.progress(learner), learner)
        mixing = None if self._mixing is None else self._mixing.value
        event = Event(learner, lambda _: progress, mixing, is_whole=is_whole)
        self._emit("on_epoch", event)

    def _ended(self, learner: Learner) -> Progress:
        """Return how the last epoch or pass went, and why none came after it."""
        last = self.state.last or self.progress(learner)
        return replace(last, seconds=self.seconds, ended=self.why_ended(learner))

    def progress(self, learner: Learner) -> Progress:
        """Return where a learner stands in its epoch."""
        treated = self.rows.source.treated()
        return epoch_progress(learner, self.state.place.epoch, self.seconds, treated)

    def _finish_all(self) -> None:
        """Let the learners that finish so go on by full gradients."""
        for learner in self.survivors.list():
            if learner.finishes and not (learner.state.is_found or self.is_over):
                self._finish(learner)
        if not self.is_over:
            self.state.place.leave("finish")

    def _finish(self, learner: Learner) -> None:
        """Let a learner go on by full gradients until next to nothing is left to gain."""
        if learner.state.prepared is None:
            self._prepare([learner], self.rows.first_window(SAMPLE_ROWS))
        found = self.state.optimizer
        optimizer = take_passes(learner, self.rows, found, lambda now: self._end_pass(learner, now))
        if optimizer is None:  # what is known is where the pass before it ended
            return
        learner.reach(optimizer.point.x)
        if not self.is_over:
            self.state.optimizer, learner.state.is_found = None, True

    def _end_pass(self, learner: Learner, optimizer: OptimizerState) -> bool:
        """Note where full gradients stand; return whether that is enough."""
        treated = self.rows.source.treated()
        progress = pass_progress(learner, optimizer, self.seconds, treated)
        self.state.optimizer = optimizer.kept()
        learner.reach(optimizer.point.x)
        self.state.visited += learner.steps or 0
        self._emit("on_pass", Event(learner, lambda _: progress))
        return self.is_over or learner.state.is_over
