"""The only place that trains in rounds: each shard a task, what comes of them added in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import final

import numpy as np

from fastsoftmax.data.loading.loader import Loader
from fastsoftmax.data.loading.mixed_rows import whole_window
from fastsoftmax.data.loading.sample import draw, sample_window
from fastsoftmax.data.loading.shards import Shards, dealt
from fastsoftmax.data.loading.shuffle import ShufflePlan
from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.data.mixing import BINS
from fastsoftmax.data.source import LabelStats, Source
from fastsoftmax.engines.merging import merged
from fastsoftmax.errors import OptionError
from fastsoftmax.labels import Classes
from fastsoftmax.optim.passes import Drawing, PassSums, RowPass
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sample import joined_batches
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.options import TrainOptions
from fastsoftmax.training import shard_tasks as tasks
from fastsoftmax.training import step_rounds
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.rows import SAMPLE_ROWS, PassSurvey, RunRows, held_out_loss, pass_rows
from fastsoftmax.training.step_tasks import Round

logger = logging.getLogger("fastsoftmax")

SAMPLE_BYTES = 2**26  # of the rows that are drawn from all shards, and looked at here


@contextmanager
def opened_shards(source: Source, options: TrainOptions) -> Iterator[Shards]:
    """Give the shards of a source, and workers for them."""
    refuse_what_shards_cannot(options)
    seed, reading = options.shuffling.seed, options.reading
    held = None if options.shuffling.holdout is None else (seed, options.shuffling.holdout)
    with dealt(source, options.sharding, reading, seed=seed, held=held) as shards:
        yield shards


def refuse_what_shards_cannot(options: TrainOptions) -> None:
    """Raise OptionError for options that only a run without shards knows."""
    if options.shuffling.shuffle != "auto" or options.shuffling.shuffle_window is not None:
        raise OptionError(
            "shards shuffle their own rows, each all of them: leave out shuffle and shuffle_window,"
            " or shards"
        )


def refuse_sparse_steps(learner: Learner) -> None:
    """Raise OptionError where weights are to become 0 by steps: a mean of some is hardly ever 0."""
    if learner.options.penalty.l1 > 0:
        raise OptionError(
            "with shards l1 takes full gradients, which find weights that are 0; the mean of what"
            " shards find by steps is hardly ever 0: leave out learning_rate, batch_size, adaptive"
            " and epochs, or take solver=lbfgs, or leave out shards"
        )


def learn_columns(shards: Shards) -> None:
    """Learn of the feature columns what must be known before training."""
    if shards.source.has_to_learn:
        shards.source.take_survey(shards.merged("columns", tasks.survey))
        shards.changed()


def scan_labels(shards: Shards, classes: Classes | None) -> LabelStats:
    """Return what the labels of all shards tell; see Source.scan_labels."""
    found = list(shards.each("labels", tasks.count_labels, classes))
    if classes is None:
        classes, _ = merged(each.discovery for each in found).classes()
        if len(classes) > BINS:  # some share a number in what was counted, each shard its own
            found = list(shards.each("labels", tasks.count_labels, classes))
    stats: LabelStats = merged(found).stats()
    return stats


@final
class ShardedPass(RowPass):
    """All rows, in a round of tasks."""

    def __init__(
        self, shards: Shards, classes: Classes, learner: Learner, survey: PassSurvey | None = None
    ) -> None:
        """survey: is filled by each pass."""
        super().__init__(pass_rows(learner, learner.options.reading.thread_count))
        self._shards, self._classes, self._survey = shards, classes, survey
        self._weights, self._dtype = learner.row_weights.fresh(), str(learner.sgd.dtype)
        self._tasks_rows = replace(pass_rows(learner, 1), is_part=True)

    def sums(self, theta: np.ndarray) -> PassSums:
        """Return the sums over all rows; see RowPass."""
        return self._taken(theta, None)[0]

    def sums_and_sample(
        self, theta: np.ndarray, drawing: Drawing, count: int
    ) -> tuple[PassSums, Batch]:
        """Return the sums and a sample; see RowPass."""
        return self._taken(theta, (drawing, count))

    def sample(self, drawing: Drawing, count: int) -> Batch:
        """Return a sample; see RowPass."""
        return self._taken(None, (drawing, count))[1]

    def _taken(self, theta: np.ndarray | None, sampling: tuple[Drawing, int] | None) -> tuple:
        if sampling is not None:  # its rows come here
            most = max(SAMPLE_BYTES // max(self._shards.source.row_bytes, 1), 1)
            sampling = sampling[0], min(sampling[1], most)
        if theta is not None:  # as the kernels take it: half the bytes, and no other bits
            theta = theta.astype(self.rows.dtype)
        state = tasks.PassState(
            self._classes, self._tasks_rows, self._weights, theta, sampling,
            self._survey is not None, self._dtype,
        )  # fmt: skip
        found = self._shards.merged("pass over shard", tasks.pass_over, state)
        self._shards.source.take_treated(found.treated)
        if self._survey is not None:
            self._survey.sums, self._survey.wide = found.survey.sums, found.survey.wide
        return found.sums, joined_batches(found.samples) if found.samples else None


@final
class ShardedRows(RunRows):
    """The rows of a source, visited wherever their shards are."""

    def __init__(
        self,
        shards: Shards,
        classes: Classes,
        stats: LabelStats,
        options: TrainOptions,
        validation: Loader | None = None,
    ) -> None:
        """validation: brings rows of other data."""
        self.shards, self.source, self.classes, self.stats = shards, shards.source, classes, stats
        self._options, self._validation = options, validation
        self._mixing = 1.0
        self._sample: Window | None = None  # until it is asked for
        held = shards.shards[0].held
        self.plan = ShufflePlan("shards", 0, rows=self.source.rows, held=held)
        self.is_validated = validation is not None or held is not None
        self.mass = stats.mass
        shards.changed()

    def check(self, learners: Sequence[Learner]) -> None:
        """Refuse what steps in rounds cannot do, and get ready for them; see RunRows."""
        stepping = [each for each in learners if each.sgd_epochs > 0]
        for learner in stepping:
            refuse_sparse_steps(learner)
        if stepping:
            self.shards.mix(self._options.shuffling.seed)
            self._sample = self.first_window(SAMPLE_ROWS)
            self._mixing = step_rounds.mixing_of(self.shards, self.classes, self._sample)
            alone = [learner for learner in stepping if not learner.finishes]
            if alone:
                step_rounds.warn_of_ends_above(
                    self._mixing, self.rounds(alone[0]), len(self.shards)
                )
        for learner in stepping if self._mixing < step_rounds.ALIKE else ():
            if learner.options.steps.learning_rate == "auto":
                learner.caution = step_rounds.CAUTION

    def rounds(self, learner: Learner) -> int:
        """Return in how many rounds an epoch of steps is taken; see RunRows."""
        rows = self.source.rows or 1
        return step_rounds.round_count(learner, len(self.shards), rows, self._mixing)

    def stepped(self, learner: Learner, epoch: int, number: int) -> Callable[[], int]:
        """Take a round of an epoch; see RunRows."""
        self._sample = None  # of a run that is resumed nothing is chosen any more
        now = Round(epoch, number, self.rounds(learner))
        step_rounds.forget_early_steps(learner, now)
        found = step_rounds.stepped(self.shards, self.classes, learner, now)
        self.source.take_treated(found.treated)
        return partial(step_rounds.take, learner, found)

    def watch(self, look: Callable[[int, int], None]) -> None:
        """Have look(done, of) called with the tasks of a round; see RunRows."""
        self.shards.watch = look

    def close(self) -> None:
        """Stop reading."""
        if self._validation is not None:
            self._validation.close()

    def first_window(self, count: int) -> Window:
        """Return so many rows from all shards, as far as they are few bytes; or all in memory."""
        if self._sample is not None:
            sample, self._sample = self._sample, None
            return sample
        source, options = self.source, self._options
        # Those that one machine would choose on, so that it chooses the same.
        whole = whole_window(source, self.shards.shards[0], self.classes)
        if whole is not None:
            return whole
        assert source.pieces is not None  # no stream
        most = max(SAMPLE_BYTES // max(source.row_bytes, 1), 1)
        draws = draw(source.pieces, options.shuffling.seed, min(count, most))
        readers = options.reading.reader_count
        return sample_window(source, self.classes, self.plan, draws, readers)

    def passes(self, learner: Learner) -> RowPass:
        """Return what passes over all rows; see RunRows."""
        return ShardedPass(self.shards, self.classes, learner)

    def surveying(self, learner: Learner) -> tuple[RowPass, PassSurvey]:
        """Return what passes over all rows, and what that shows; see RunRows."""
        survey = PassSurvey.of(learner.d, sparse=learner.nonzeros is not None)
        return ShardedPass(self.shards, self.classes, learner, survey), survey

    def validation_loss(self, sgd: SGD) -> RunningLoss:
        """Return the loss of the rows to validate on; see RunRows."""
        if self._validation is not None:
            return held_out_loss(self._validation.all(self._options.shuffling.seed), sgd)
        W, b = sgd.weights.mean()
        options = tasks.alone(self._options)
        state = tasks.MeasureState(self.classes, options, W, b, sgd.scaling, self.source.nonzeros)
        with self.shards.unwatched():  # it belongs to a pass that is done
            loss: RunningLoss = self.shards.merged("validation of shard", tasks.measure, state)
        return loss

    def refuse_what_is_not_finite(self, learner: Learner) -> None:
        """Raise DataError at the first feature that is no finite number."""
        call = tasks.refuse_what_is_not_finite
        for _ in self.shards.each("check of shard", call, self.classes, str(learner.sgd.dtype)):
            continue
