"""The only place for the rows of a run: in which order they come, and what is known of them."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np

from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.read_plan import choose_plan, choose_reading
from fastsoftmax.data.loading.shuffle import ShufflePlan, row_order
from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.data.mixing import Mixing
from fastsoftmax.data.source import LabelStats, Source
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes
from fastsoftmax.optim.moments import MomentSums, wide_columns
from fastsoftmax.optim.objective import precision
from fastsoftmax.optim.passes import LocalPass, PassRows, RowPass
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.sparse_moments import SparseMomentSums, new_moment_sums
from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.finite_check import check_features
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.row_weights import RowWeights

SAMPLE_ROWS = 65_536  # from all over the data, on which what was left open is chosen


@dataclass
class PassSurvey:
    """What a pass shows of the columns of all rows; wide (d,): those of more than 24 bits."""

    sums: MomentSums | SparseMomentSums
    wide: np.ndarray

    @classmethod
    def of(cls, d: int, *, sparse: bool) -> PassSurvey:
        """Return what was shown of d columns before the first row."""
        return cls(new_moment_sums(d, sparse=sparse), np.zeros(d, np.bool_))

    def __add__(self, other: PassSurvey) -> PassSurvey:
        """Return what the rows of both show."""
        mine: Any = self.sums  # both are of one kind
        return PassSurvey(mine + other.sums, self.wide | other.wide)

    def add(self, window: Window, weights: RowWeights) -> None:
        """Add the rows of a window."""
        order = np.arange(window.rows)
        self.wide = wide_columns(window.parts)
        self.sums.add(window.parts, order, weights.of(window, order))


class PassStopped(Exception):
    """A pass was ended before its end by whoever watched it."""


class RunRows(ABC):
    """All rows of a run, and those that losses are validated on, wherever they are visited.

    mass (K,): the weight of the rows of each class, as far as they were met.
    """

    source: Source
    classes: Classes
    stats: LabelStats | None
    plan: ShufflePlan
    is_validated: bool
    mass: np.ndarray

    @abstractmethod
    def close(self) -> None:
        """Stop reading; the source stays the caller's to close."""

    @abstractmethod
    def first_window(self, count: int) -> Window:
        """Return rows to choose on: up to so many from all over the data, or all where they fit."""

    def check(self, learners: Sequence[Learner]) -> None:
        """Raise OptionError where learners ask for what cannot be done where the rows are."""

    def new_mixing(self) -> Mixing | None:
        """Return what measures how well windows mix the rows, where they do not hold all."""
        return None

    def rounds(self, learner: Learner) -> int:
        """Return in how many rounds an epoch of steps is taken; 0 where windows come one by one."""
        return 0

    def stepped(self, learner: Learner, epoch: int, number: int) -> Callable[[], int]:
        """Take a round of an epoch; return what lets the learner go on from it, and tells how many
        rows took a step.
        """
        raise NotImplementedError

    def watch(self, look: Callable[[int, int], None]) -> None:
        """Have look(done, of) called now and then in passes that are long; it may stop them."""

    def count(self, window: Window, order: np.ndarray, weight: np.ndarray) -> None:
        """Note that rows of these weights took a step, where nobody could count them before."""

    @abstractmethod
    def passes(self, learner: Learner) -> RowPass:
        """Return what passes over all rows that a learner learns from."""

    @abstractmethod
    def surveying(self, learner: Learner) -> tuple[RowPass, PassSurvey]:
        """Return what passes over all rows, and what its first pass shows of them on the way."""

    @abstractmethod
    def validation_loss(self, sgd: SGD) -> RunningLoss:
        """Return the loss of rows that take no step, at the weights as they are."""

    @abstractmethod
    def refuse_what_is_not_finite(self, learner: Learner) -> None:
        """Raise DataError at the first feature of all rows that is no finite number."""


def pass_rows(learner: Learner, threads: int) -> PassRows:
    """Return what is known of the rows that a learner learns from."""
    K, d, n, steps = learner.K, learner.d, learner.steps or 1, learner.options.steps
    dtype = precision(K, learner.sgd.row_numbers, n, steps.dtype)
    return PassRows(K, d, n, dtype, threads, learner.prepared.scaling, learner.nonzeros)


def batch_of(window: Window, weights: RowWeights) -> Batch:
    """Return the rows of a window that count."""
    order = np.arange(window.rows)
    weight = weights.of(window, order)
    counted = order if weight.all() else np.flatnonzero(weight)
    return Batch(window.parts, counted, window.labels[counted], weight[counted])


class _Batches:
    """The batches of all windows; that of a window that holds all rows, and stays, is made once."""

    def __init__(self, windows: Callable[[], Iterator[Window]], weights: RowWeights) -> None:
        self._windows, self._weights = windows, weights
        self._made: tuple[np.ndarray, ...] = ()
        self._of: Callable[[], Window | None] = lambda: None  # weak: it may not stay

    def __call__(self) -> Iterator[Batch]:
        """Yield them."""
        for window in self._windows():
            if self._of() is window:
                yield Batch(window.parts, *self._made)
                continue
            batch = batch_of(window, self._weights)
            if window.index == 0 and window.last:
                self._of, self._made = weakref.ref(window), batch[1:]
            yield batch


def held_out_loss(windows: Iterable[Window], sgd: SGD) -> RunningLoss:
    """Return the loss of the rows that are held out, or of all where none are."""
    total = RunningLoss()
    for window in windows:
        order = np.arange(window.rows) if window.held is None else np.flatnonzero(window.held)
        weight = np.ones(len(order)) if window.weights is None else window.weights[order]
        for some, tally in sgd.measured(window.parts, order, window.labels[order], weight):
            if not tally.finite:
                check_features(window, order[some], sgd.dtype)
            total += RunningLoss.of(tally, weight[some])
    return total


@final
class TrainingRows(RunRows):
    """The rows of a source, in windows, visited here.

    validation: brings rows of other data, or None where `is_validated` by rows of these that are
    held out.
    """

    def __init__(
        self,
        source: Source,
        classes: Classes,
        stats: LabelStats | None,
        options: TrainOptions,
        *,
        plan: Sequence[Any] | None = None,
        validation: Loader | None = None,
    ) -> None:
        """plan: its kind, window, buckets and first, where a run that is resumed knows them."""
        self.source, self.classes, self.stats, self.validation = source, classes, stats, validation
        self.seed, held = options.shuffling.seed, options.shuffling.holdout
        segments = None if stats is None else stats.segments
        # What is given by hand needs no look at all rows before the first step.
        streams = options.leaves_nothing_open
        self.plan = choose_plan(
            source, options.shuffling, options.reading, segments, streams=streams
        )
        if plan is not None:
            kind, window, buckets, first = plan
            self.plan = replace(self.plan, kind=kind, window=window, buckets=buckets, first=first)
        rereads = options.steps.epochs != 1 or held is not None
        read = choose_reading(source, self.plan, options.reading, rereads=rereads)
        self.loader = Loader(source, classes, self.plan, read)
        self.is_validated = validation is not None or held is not None
        self.mass = np.zeros(len(classes)) if stats is None else stats.mass

    def close(self) -> None:
        """Stop reading; the source stays the caller's to close."""
        if self.validation is not None:
            self.validation.close()
        self.loader.close()

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Window]:
        """Yield the windows of an epoch from number `first`."""
        return self.loader.epoch(self.seed, epoch, first)

    def all(self) -> Iterator[Window]:
        """Yield all rows, the same at each call."""
        return self.loader.all(self.seed)

    def order(self, window: Window, epoch: int) -> np.ndarray:
        """Return the order in which a window's rows take their steps."""
        return row_order(self.plan, window.rows, self.seed, epoch, window.index)

    def sample(self, count: int) -> Window | None:
        """Return up to so many rows from all over the data, the same at each call; see Loader."""
        return self.loader.sample(self.seed, count)

    def first_window(self, count: int) -> Window:
        """Return rows to choose on; see RunRows."""
        return self.sample(count) or next(iter(self.all()))

    def passes(self, learner: Learner) -> RowPass:
        """Return what passes over all rows; see RunRows."""
        rows = pass_rows(learner, learner.options.reading.thread_count)
        return LocalPass(rows, _Batches(self.all, learner.row_weights))

    def surveying(self, learner: Learner) -> tuple[RowPass, PassSurvey]:
        """Return what passes over all rows, and what that shows; see RunRows."""
        survey = PassSurvey.of(learner.d, sparse=learner.nonzeros is not None)
        weights = learner.row_weights

        def batches() -> Iterator[Batch]:
            for window in self.all():
                survey.add(window, weights)
                yield batch_of(window, weights)

        return LocalPass(pass_rows(learner, learner.options.reading.thread_count), batches), survey

    def validation_loss(self, sgd: SGD) -> RunningLoss:
        """Return the loss of the rows to validate on; see RunRows."""
        loader = self.loader if self.validation is None else self.validation
        return held_out_loss(loader.all(self.seed), sgd)

    def refuse_what_is_not_finite(self, learner: Learner) -> None:
        """Raise DataError at the first feature that is no finite number."""
        for window in self.all():
            check_features(window, np.arange(window.rows), learner.sgd.dtype)

    def count(self, window: Window, order: np.ndarray, weight: np.ndarray) -> None:
        """Note that rows of these weights took a step; see RunRows."""
        self.mass += np.bincount(window.labels[order], weight, len(self.mass))

    def new_mixing(self) -> Mixing | None:
        """Return what measures how well windows mix the rows, where they do not hold all."""
        if self.stats is None or self.plan.kind not in ("window", "full"):
            return None
        return Mixing(self.stats.counts)

    def add_to(self, mixing: Mixing | None, window: Window) -> None:
        """Let a window count in how well rows are mixed."""
        if mixing is not None:
            trained = window.labels if window.held is None else window.labels[~window.held]
            mixing.add(np.bincount(trained, minlength=len(self.classes)))
