"""The one loop: epochs over windows of rows, each row a step of every model in the field."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any, Protocol

import numpy as np

from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.read_plan import choose_plan, choose_reading
from fastsoftmax.data.loading.shuffle import row_order
from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.data.mixing import POOR, Mixing
from fastsoftmax.data.source import LabelStats, Source
from fastsoftmax.errors import DataError, DivergedError
from fastsoftmax.labels import Classes
from fastsoftmax.optim.objective import OptimizerState
from fastsoftmax.optim.state import State, check_alike
from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.finite_check import check_features
from fastsoftmax.training.learner import FINISH_FLOPS, SAFER, Learner
from fastsoftmax.training.memory_check import refuse_what_does_not_fit
from fastsoftmax.training.progress import NOTHING_YET, Progress

logger = logging.getLogger("fastsoftmax")

REPORT_SECONDS = 0.2
RETREATS = 3  # from steps of our own that led astray
# The field is halved after this share of an epoch, and when twice and four times as many rows have
# passed; never on fewer rows, and at the end of a span.
FIRST_HALVING, LEAST_ROWS = 1 / 8, 4096


class Keeper(Protocol):
    """What keeps the state of a run."""

    def is_due(self, rows: int) -> bool:
        """Whether the state is to be kept, now that so many rows were visited in all."""

    def keep(self, state: Callable[[], State]) -> None:
        """Keep the state."""


@dataclass
class Place:
    """Where a run stands: in a phase (steps, finish or done), and there in an epoch and window, at
    the row of its order that comes next.
    """

    phase: str = "steps"
    epoch: int = 0
    window: int = 0
    row: int = 0


class Trainer:
    """Models trained together over the rows of a source: what they read, and how far they are."""

    def __init__(
        self,
        source: Source,
        classes: Classes,
        scan: LabelStats | None,
        settings: Sequence[TrainOptions],
        report: Callable[[Progress], bool | None] | None = None,
        *,
        plan: Sequence[Any] | None = None,
        validated: bool = False,
        weights_as_given: bool = False,
        halves: bool = False,
        keeper: Keeper | None = None,
    ) -> None:
        """settings: the options of each model, which agree in all that concerns the rows.

        plan: its kind, window and buckets, where these are known already. validated: there will
        be `validation`. halves: the worse half of the field is given up now and then.
        """
        self.source, self.classes, self.scan = source, classes, scan
        settings = [options.resolved(one_pass=source.one_pass) for options in settings]
        self.options = options = settings[0]
        self.report, self.halves, self.keeper = report, halves, keeper
        self.told_to_stop = False
        segments = None if scan is None else scan.segments
        self.plan = choose_plan(source, options.shuffling, options.reading, segments)
        if plan is not None:
            kind, window, buckets = plan
            self.plan = replace(self.plan, kind=kind, window=window, buckets=buckets)
        self.validated = validated or options.shuffling.holdout is not None
        refuse_what_does_not_fit(len(classes), source.n_features, settings)
        threads = options.reading.threads if len(settings) == 1 else 1
        self._closing = ExitStack()
        self.learners = [
            Learner(
                classes, source.n_features, scan, each.changed(threads=threads),
                weights_as_given=weights_as_given, finishes=self._finishes(each),
            )
            for each in settings
        ]  # fmt: skip
        self.dropped: dict[int, str] = {}  # learners that were given up, and why
        for learner in self.learners:
            self._closing.callback(learner.close)
        rereads = options.steps.epochs != 1 or options.shuffling.holdout is not None
        read = choose_reading(source, self.plan, options.reading, rereads=rereads)
        self.feed = Loader(source, classes, self.plan, read)
        self._closing.callback(self.feed.close)
        self._crew: ThreadPoolExecutor | None = None
        if len(settings) > 1:
            self._crew = ThreadPoolExecutor(min(options.reading.thread_count, len(settings)))
            self._closing.callback(self._crew.shutdown)
        self.validation: Loader | None = None
        self.mass = np.zeros(len(classes)) if scan is None else scan.mass
        self.place = Place()
        self.visited = 0  # rows, in all epochs
        self.started = time.perf_counter()
        self._spent = 0.0  # seconds of the run before it was resumed
        self._last: Progress | None = None  # of an epoch that is done
        self._told = False  # such a one was reported since the run was resumed
        self._reported = 0.0
        self._warned = self._warned_of_mixing = False
        self._mixing: Mixing | None = None
        self._journey: OptimizerState | None = None
        self._good: tuple[int, State] | None = None  # where to go back to: rows visited, and state
        self._retreats = 0
        rows = self.learners[0].steps or 0
        self._halving = max(int(rows * FIRST_HALVING), LEAST_ROWS)

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *error: object) -> None:
        if self.validation is not None:
            self.validation.close()
        self._closing.close()

    @property
    def field(self) -> list[Learner]:
        """The learners that were not given up."""
        return [each for i, each in enumerate(self.learners) if i not in self.dropped]

    @property
    def seconds(self) -> float:
        """Seconds since training began, those before it was resumed included."""
        return self._spent + time.perf_counter() - self.started

    @property
    def is_over(self) -> bool:
        """Whether the run ends before its last epoch: time is up, or `report` said so."""
        limit = self.options.stopping.max_seconds
        return self.told_to_stop or (limit is not None and self.seconds - self._spent >= limit)

    @property
    def has_begun(self) -> bool:
        """Whether anything has been learnt."""
        return self.visited > 0

    def _finishes(self, o: TrainOptions) -> bool:
        """Whether full gradients end the run: all rows are at hand, and passes over them short."""
        if o.stopping.solver == "lbfgs":
            return True
        flops = 4.0 * len(self.classes) * self.source.n_features * (self.source.rows or math.inf)
        averages = o.steps.average is True or o.penalty.l1 > 0
        simple = o.steps.batch_size == 1 and not o.by_hand and o.steps.epochs == "auto" and averages
        simple = simple and not o.steps.adaptive and not self.validated
        return simple and flops <= FINISH_FLOPS and self.plan.kind == "all"

    def train(self) -> None:
        """Train all epochs, or until another is worth little, or the run is over."""
        while self.place.phase == "steps" and self._active():
            try:
                self._train_epoch()
            except DivergedError as error:
                self._retreat(error)
                continue
            if self.is_over:
                break
        if self.place.phase == "steps" and not self.is_over:
            self.place.phase = "finish"
        if self.place.phase == "finish":
            self._finish_all()
        self._keep()
        if self.place.phase == "steps":
            self.close_epoch()
        if self._last is not None and not self._told:  # it was resumed after its last epoch
            self._report(self._last)

    def close_epoch(self) -> None:
        """Note how an epoch went that ended before its end, if one did."""
        if self.place.window or self.place.row:
            for learner in self._active():
                self._note_epoch(learner)

    def state(self) -> State:
        """Return all that the rest of the run depends on: facts, and arrays by name."""
        facts: dict[str, Any] = {
            "place": astuple(self.place),
            "visited": self.visited,
            "halving": self._halving,
            "retreats": self._retreats,
            "plan": (self.plan.kind, self.plan.window, self.plan.buckets),
            "warned": (self._warned, self._warned_of_mixing),
            "spent": self.seconds,
            "last": None if self._last is None else asdict(self._last),
            "dropped": [[i, why] for i, why in self.dropped.items()],
            "mixing": None if self._mixing is None else self._mixing.state(),
            "learners": [],
        }
        arrays: dict[str, np.ndarray] = {}
        for i, learner in enumerate(self.learners):
            facts["learners"].append(_into(arrays, f"{i}.", learner.state()))
        if self._journey is not None:
            facts["journey"] = _into(arrays, "journey.", self._journey.state())
        if self._good is not None:
            facts["good"] = [self._good[0], _into(arrays, "good.", self._good[1])]
        return facts, arrays

    def restore(self, state: State) -> None:
        """Go on from a state."""
        facts, arrays = state
        check_alike(facts, self.state()[0])
        self.place = Place(*facts["place"])
        self.visited, self._halving = facts["visited"], facts["halving"]
        self._retreats = facts["retreats"]
        self._warned, self._warned_of_mixing = facts["warned"]
        self._spent = facts["spent"]
        if facts["last"] is not None:
            check_alike(facts["last"], asdict(NOTHING_YET))
            self._last = Progress(**facts["last"])
        check_alike(facts["dropped"], [(0, "")])
        self.dropped = dict(facts["dropped"])
        self._mixing = self._new_mixing()
        if self._mixing is not None and facts["mixing"] is not None:
            check_alike(facts["mixing"], (0, 0.0))
            self._mixing.restore(facts["mixing"])
        for i, (learner, each) in enumerate(zip(self.learners, facts["learners"], strict=True)):
            learner.restore(each, _out_of(arrays, f"{i}."))
        if "journey" in facts:
            learner = self.field[0]
            shape = (learner.K, learner.d + 1)
            self._journey = OptimizerState.of(facts["journey"], _out_of(arrays, "journey."), shape)
        if "good" in facts:
            check_alike(facts["good"], (0, {}))
            self._good = facts["good"][0], (facts["good"][1], _out_of(arrays, "good."))

    def _active(self) -> list[Learner]:
        """Return the learners that take the steps of this epoch."""
        epoch = self.place.epoch
        return [each for each in self.field if epoch < each.sgd_epochs and not each.is_over]

    def _train_epoch(self) -> None:
        """Train an epoch from where the run stands to its end, or until the run is over."""
        epoch, seed = self.place.epoch, self.options.shuffling.seed
        begins = self.place.window == 0 and self.place.row == 0
        if begins:
            self._mixing = self._new_mixing()
        for window in self.feed.epoch(seed, epoch, self.place.window):
            active = self._active()
            self._begin(active, window)
            if begins:
                for learner in active:
                    learner.begin_epoch()
                self._note_good()
            begins = False
            order = row_order(self.plan, window.rows, seed, epoch, window.index)
            self._train_window(window, order)
            if self.is_over and self.place.row < len(order):
                return
            if self._mixing is not None:
                trained = window.labels if window.held is None else window.labels[~window.held]
                self._mixing.add(np.bincount(trained, minlength=len(self.classes)))
            self.place.window, self.place.row = window.index + 1, 0
            if self.is_over and not window.last:
                return
            del window  # its memory is free before the next one is asked for
        self._end_epoch()

    def _begin(self, active: list[Learner], window: Window) -> None:
        """Have learners settle what was left open on the first rows to come; start the clock."""
        for learner in active:
            if learner.settled is None:
                learner.begin(window, measures=self.validated)
                self.started = time.perf_counter()

    def _train_window(self, window: Window, order: np.ndarray) -> None:
        """Train on a window's rows from where the run stands, in spans after which it may end."""
        step = self.learners[0].sgd.lengths.span
        while self.place.row < len(order):
            some = order[self.place.row : self.place.row + step]
            ends = window.last and self.place.row + step >= len(order)
            self._step(window, some, ends)
            self.place.row += len(some)
            self.visited += len(some)
            if self.scan is None:
                labels, weights = window.labels[some], self.learners[0].weight_of(window, some)
                self.mass += np.bincount(labels, weights, len(self.mass))
            self._tell()
            self._keep_if_due()
            if self.is_over:
                return

    def _step(self, window: Window, order: np.ndarray, ends: bool) -> None:
        active = self._active()
        if self._crew is None:
            active[0].step(window, order, ends=ends)
            return
        jobs = [self._crew.submit(each.step, window, order, ends=ends) for each in active]
        for learner, job in zip(active, jobs, strict=True):
            try:
                job.result()
            except DivergedError as error:
                if len(self.field) == 1:
                    raise
                self._drop(learner, f"diverged after {learner.seen:,} rows: {error}")
        left = len(self.field)
        while self.halves and left > 1 and self.visited + len(order) >= self._halving:
            self._halving *= 2
            left = (left + 1) // 2
        if left < len(self.field):
            self._leave(left)

    def _leave(self, count: int) -> None:
        """Give up all but the best by the progressive loss since the field was last halved."""
        field = self.field
        field.sort(key=lambda each: each.recent.means()[0])
        for learner in field[count:]:
            self._drop(learner, f"given up after {learner.seen:,} rows")
        for learner in self.field:
            learner.recent = RunningLoss()

    def _drop(self, learner: Learner, why: str) -> None:
        logger.info("%s: %s", learner.options.command_line(), why)
        self.dropped[self.learners.index(learner)] = why

    def _note_good(self) -> None:
        """Keep the state at the start of an epoch, where a step size of our own may prove bad."""
        learner = self.field[0]
        ours = isinstance(learner.options.steps.learning_rate, str)
        if len(self.learners) == 1 and ours and not self.source.one_pass:
            self._good = self.visited, learner.state()

    def _retreat(self, error: DivergedError) -> None:
        """Go back to the last good state with a smaller step; raise `error` if there is none."""
        if self._good is None or self._retreats == RETREATS:
            raise error
        self._retreats += 1
        learner = self.field[0]
        self.visited, state = self._good
        learner.restore(*state)
        assert learner.schedule is not None
        assert learner.settled is not None
        rate = learner.schedule.eta0 / SAFER
        learner.schedule = replace(learner.schedule, eta0=rate)
        note = f"lowered to {rate:.3g} in epoch {self.place.epoch + 1}: {error}"
        learner.settled.notes["learning_rate"] = note
        warnings.warn(f"learning_rate {note}", UserWarning, stacklevel=2)
        self.place.window = self.place.row = 0
        self._good = None  # the epoch begins anew, and notes its own

    def _finish_all(self) -> None:
        """Let the learners that finish so go on by full gradients."""
        for learner in self.field:
            if learner.finishes and not (learner.is_found or self.is_over):
                self._finish(learner)
        if not self.is_over:
            self.place.phase = "done"

    def _finish(self, learner: Learner) -> None:
        """Let a learner go on by full gradients."""
        if learner.settled is None:
            self._begin([learner], next(iter(self.feed.epoch(self.options.shuffling.seed, 0))))
        learner.finish(
            self._all_rows, self._journey, lambda journey: self._tell_of_pass(learner, journey)
        )
        if not self.is_over:
            self._journey, learner.is_found = None, True

    def _all_rows(self) -> Iterator[Window]:
        return self.feed.epoch(self.options.shuffling.seed, 0)

    def _tell_of_pass(self, learner: Learner, journey: OptimizerState) -> bool:
        """Note where full gradients stand; return whether the run is over."""
        steps, before = learner.steps or 0, learner.sgd_epochs
        progress = Progress(
            epoch=before + journey.passes,
            epochs=learner.planned_epochs, rows=steps,
            rows_per_epoch=steps, rows_seen=learner.seen + steps * journey.passes,
            seconds=self.seconds, log_loss=journey.log_loss, accuracy=journey.accuracy,
            learning_rate=0.0, treated=self.source.treated(),
            gain=journey.gain if math.isfinite(journey.gain) else None,
            finished=True, solver="lbfgs",
        )  # fmt: skip
        if self.validated:
            learner.show(journey.point.x)
            progress = self._validated(learner, progress)
        learner.end_epoch(progress.facts())
        logger.info("%s", progress)
        self._report(progress)
        self._journey = journey
        learner.reach(journey.point.x)
        self.visited += steps
        journey.is_over = journey.is_over or learner.is_over
        self._keep_if_due()
        return self.is_over or journey.is_over

    def _keep_if_due(self) -> None:
        if self.keeper is not None and self.keeper.is_due(self.visited):
            self._keep()

    def _keep(self) -> None:
        if self.keeper is not None:
            self.keeper.keep(self.state)

    def _tell(self) -> None:
        now = time.perf_counter()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._report(self._progress(self._active()[0]))

    def _report(self, progress: Progress) -> None:
        if progress.finished:
            self._last, self._told = progress, True
        if self.report is not None and self.report(progress):
            self.told_to_stop = True

    def _progress(self, learner: Learner) -> Progress:
        log_loss, accuracy = learner.sums.means()
        return Progress(
            epoch=self.place.epoch + 1,
            epochs=learner.planned_epochs,
            rows=learner.sums.rows,
            rows_per_epoch=learner.steps,
            rows_seen=learner.seen,
            seconds=self.seconds,
            log_loss=log_loss,
            accuracy=accuracy,
            learning_rate=float(learner.rates(np.array([learner.seen]))[0]),
            treated=self.source.treated(),
        )

    def _new_mixing(self) -> Mixing | None:
        """Return what measures how well windows mix the rows, where they do not hold all."""
        if self.scan is None or self.plan.kind not in ("window", "full"):
            return None
        return Mixing(self.scan.counts)

    def _end_epoch(self) -> None:
        """Note how an epoch went, and go on to the next."""
        for learner in self._active():
            if learner.sums.rows == 0:
                raise DataError(
                    "no row is left to train on: give other data, or a smaller holdout=."
                )
            self._note_epoch(learner)
        self._warn_of_mixing()
        self.place = Place("steps", self.place.epoch + 1)
        self._good = None

    def _note_epoch(self, learner: Learner) -> None:
        rate = learner.first_rate or 0.0
        progress = replace(self._progress(learner), learning_rate=rate, finished=True)
        progress = self._validated(learner, replace(progress, **learner.worth()))
        facts = progress.facts()
        if self._mixing is not None:
            facts["mixing"] = self._mixing.value
        learner.end_epoch(facts)
        logger.info("%s", progress)
        self._report(progress)
        self._warn_of_loss(learner, progress)

    def _warn_of_mixing(self) -> None:
        if self._mixing is None or self._warned_of_mixing:
            return
        if self._mixing.value >= POOR or self.plan.kind == "full":
            return
        self._warned_of_mixing = True
        warnings.warn(
            f"rows are shuffled within windows whose labels are unlike the whole (mixing"
            f" {self._mixing.value:.2f}): use shuffle=full, or more memory",
            UserWarning,
            stacklevel=2,
        )

    def _warn_of_loss(self, learner: Learner, progress: Progress) -> None:
        guessing = math.log(len(self.classes))
        expected = len(self.learners) > 1 or not learner.options.by_hand
        if progress.log_loss <= guessing or expected or self._warned:
            return
        self._warned = True
        warnings.warn(
            f"after epoch {progress.epoch} the mean log-loss ({progress.log_loss:.3g}) is worse"
            f" than guessing ({guessing:.3g}): try a smaller learning_rate",
            UserWarning,
            stacklevel=2,
        )

    def _validated(self, learner: Learner, progress: Progress) -> Progress:
        """Return the progress with the loss on what is held out, where anything is."""
        if not self.validated:
            return progress
        log_loss, accuracy = self._measure(learner, self.validation or self.feed).means()
        return replace(progress, validation_log_loss=log_loss, validation_accuracy=accuracy)

    def _measure(self, learner: Learner, feed: Loader) -> RunningLoss:
        sums, sgd = RunningLoss(), learner.sgd
        for window in feed.epoch(self.options.shuffling.seed, 0):
            order = np.arange(window.rows) if window.held is None else np.flatnonzero(window.held)
            weight = np.ones(len(order)) if window.weights is None else window.weights[order]
            step = sgd.call_rows
            for start in range(0, len(order), step):
                some, share = order[start : start + step], weight[start : start + step]
                tally = sgd.measure(window.parts, some, window.labels[some], share)
                if not tally.finite:
                    check_features(window, some, sgd.dtype)
                sums += RunningLoss.of(tally, share)
        return sums


def _into(arrays: dict[str, np.ndarray], prefix: str, state: State) -> dict[str, Any]:
    """Put a state's arrays among others, under a prefix, and return its facts."""
    arrays.update({prefix + name: array for name, array in state[1].items()})
    return state[0]


def _out_of(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays under a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
