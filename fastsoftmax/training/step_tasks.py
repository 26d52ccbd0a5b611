"""The only place that says what a shard does in a round of steps: a task, pure, of some state."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from fastsoftmax.data.loading.mixed_rows import step_rows, visits_of
from fastsoftmax.data.loading.shard_rows import Shard
from fastsoftmax.data.source import Source
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes
from fastsoftmax.optim.schedules import Schedule
from fastsoftmax.optim.shared_mean import Arrays, SharedMean
from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.prepared import Prepared
from fastsoftmax.training.row_weights import RowWeights
from fastsoftmax.training.shard_tasks import Treated


@dataclass(frozen=True)
class Round:
    """A part of an epoch: number `number`, from 0, of so many."""

    epoch: int
    number: int
    of: int

    @property
    def is_last(self) -> bool:
        """Whether the epoch ends with it."""
        return self.number + 1 == self.of

    def span(self, rows: int) -> tuple[int, int]:
        """Return which of so many rows, in the order of the epoch, take their steps in it."""
        return rows * self.number // self.of, rows * (self.number + 1) // self.of


@dataclass(frozen=True)
class StepSizes(Schedule):
    """The step sizes of one shard, whose rows stand for those of all.

    first: rows that all shards have seen before. stride: how many rows of all there are for each of
    the shard's. last: rows that will have been seen when the round is over.
    """

    first: float = 0.0
    stride: float = 1.0
    last: float = 0.0

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Return the steps (n,) of rows before which `t` (n,) rows of the shard were seen."""
        return super().__call__(np.minimum(self.first + self.stride * t, self.last))


@dataclass(frozen=True)
class StepState:
    """What a round of steps begins at: shared, the weights and what their rule has beside them.

    seen: rows of all shards that took a step before. rows: of all shards. count: how many take a
    step in an epoch. bound and bias: how steps are bounded, and the share of them biases take.
    averages: whether the mean over steps is asked for.
    """

    classes: Classes
    d: int
    nonzeros: float | None
    options: TrainOptions
    prepared: Prepared
    weights: RowWeights
    schedule: Schedule
    shared: Arrays
    round: Round
    seen: int
    rows: int
    count: int
    bound: str
    bias: float
    averages: bool


@dataclass(frozen=True)
class StepsFound:
    """Where some shards came in a round: the last weights, and their mean over steps, if kept.

    loss: of rows before their own steps. rate: the first step size.
    """

    last: SharedMean
    average: SharedMean
    loss: RunningLoss
    rate: float | None
    treated: Treated

    def __add__(self, other: StepsFound) -> StepsFound:
        """Return where all of both came."""
        return StepsFound(
            self.last + other.last,
            self.average + other.average,
            self.loss + other.loss,
            other.rate if self.rate is None else self.rate,
            {**self.treated, **other.treated},
        )


def step_over(source: Source, shard: Shard, state: StepState) -> StepsFound:
    """Let the rows of a shard that are due in a round take their steps.

    Raises DataError at the first feature that is no number, and DivergedError.
    """
    rows = step_rows(source, shard, state.classes)
    with closing(_learner(rows, state)) as learner:
        first, stop = state.round.span(rows)
        left = stop - first
        epoch = state.round.epoch
        for window, order in visits_of(source, shard, state.classes, epoch, (first, stop)):
            left -= len(order)
            learner.step(window, order, ends=left == 0)
        weights, counted = learner.sgd.weights, learner.state.seen
        averaged: Arrays = {}
        if weights.is_averaged:
            averaged = dict(zip("Wb", weights.mean(), strict=True))
        elif state.averages:  # no row of the shard took a step
            averaged = dict(zip("Wb", weights.get(), strict=True))
        return StepsFound(
            SharedMean(learner.sgd.shared(), float(counted)),
            SharedMean(averaged, weights.averaged_steps),
            learner.state.epoch_loss,
            learner.state.first_rate,
            source.treated_by_place(),
        )


def _learner(rows: int, state: StepState) -> Learner:
    """Return what takes the steps of a shard of so many rows."""
    learner = Learner(state.classes, state.d, None, state.options, nonzeros=state.nonzeros)
    learner.row_weights = state.weights.fresh()
    learner.take(state.prepared)
    sgd, now, schedule = learner.sgd, state.round, state.schedule
    sgd.bound, sgd.bias_share = state.bound, state.bias
    sgd.share(state.shared)
    sgd.weights.average_steps(counts=state.averages)
    ends = now.epoch * state.count + now.span(state.count)[1]
    learner.state.schedule = StepSizes(
        schedule.kind, schedule.eta0, schedule.planned, schedule.halflife, schedule.before,
        float(state.seen), state.rows / rows, float(max(ends, state.seen)),
    )  # fmt: skip
    if now.of == 1:  # of an only epoch, half is averaged
        learner.steps = rows
    return learner
