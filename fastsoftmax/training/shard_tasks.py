"""The only place that says what is done with one shard: tasks, pure, each of some state.

A task takes the source and the shard, and returns what is added to that of the others. Whoever
carries it out needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fastsoftmax.data.loading.mixed_rows import windows_of
from fastsoftmax.data.loading.shard_rows import Shard
from fastsoftmax.data.source import Source
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.passes import Drawing, LocalPass, PassRows, PassSums
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.finite_check import check_features
from fastsoftmax.training.row_weights import RowWeights
from fastsoftmax.training.rows import PassSurvey, batch_of, held_out_loss

Treated = dict[tuple[int, int], dict[str, int]]


def survey(source: Source, shard: Shard) -> Any:
    """Return what a shard shows of the feature columns."""
    return source.surveyed(shard.pieces, shard.held_out)


def count_labels(source: Source, shard: Shard, classes: Classes | None) -> Any:
    """Return the sums over the labels of a shard."""
    return source.count_labels(shard.pieces, classes, shard.held_out)


@dataclass(frozen=True)
class PassState:
    """What a pass over a shard needs: theta (K, d + 1), or None where nothing is summed.

    sampling: how a sample is drawn, and of how many rows, or None. surveys: columns are measured.
    dtype: of the model, which features must fit.
    """

    classes: Classes
    rows: PassRows
    weights: RowWeights
    theta: np.ndarray | None
    sampling: tuple[Drawing, int] | None
    surveys: bool
    dtype: str


@dataclass(frozen=True)
class PassFound:
    """What a pass over some shards found: what was asked for of it."""

    sums: PassSums | None
    samples: tuple[Batch, ...]
    survey: PassSurvey | None
    treated: Treated

    def __add__(self, other: PassFound) -> PassFound:
        """Return what was found in both."""
        sums = None if self.sums is None or other.sums is None else self.sums + other.sums
        survey = None
        if self.survey is not None and other.survey is not None:
            survey = self.survey + other.survey
        treated = {**self.treated, **other.treated}
        return PassFound(sums, self.samples + other.samples, survey, treated)


def pass_over(source: Source, shard: Shard, state: PassState) -> PassFound:
    """Pass over the rows of a shard; raise DataError at the first that is no number."""
    weights = state.weights.fresh()
    seen = None
    if state.surveys:
        seen = PassSurvey.of(state.rows.d, sparse=state.rows.nonzeros is not None)

    def batches() -> Iterator[Batch]:
        for window in windows_of(source, shard, state.classes):
            if seen is not None:
                seen.add(window, weights)
            yield batch_of(window, weights)

    passes, sums = LocalPass(state.rows, batches), None
    samples: tuple[Batch, ...] = ()
    if state.theta is None and state.sampling is not None:
        samples = (passes.sample(*state.sampling),)
    elif state.theta is not None and state.sampling is not None:
        sums, sample = passes.sums_and_sample(state.theta, *state.sampling)
        samples = (sample,)
    elif state.theta is not None:
        sums = passes.sums(state.theta)
    if sums is not None and not sums.finite:
        refuse_what_is_not_finite(source, shard, state.classes, state.dtype)
    return PassFound(sums, samples, seen, source.treated_by_place())


def refuse_what_is_not_finite(source: Source, shard: Shard, classes: Classes, dtype: str) -> None:
    """Raise DataError at the first feature of a shard that is no finite number."""
    for window in windows_of(source, shard, classes):
        check_features(window, np.arange(window.rows), np.dtype(dtype))


@dataclass(frozen=True)
class MeasureState:
    """Weights (K, d) and biases (K,) whose loss is measured, how features are scaled and how many
    of a row are not 0, where rows are sparse."""

    classes: Classes
    options: TrainOptions
    W: np.ndarray
    b: np.ndarray
    scaling: Scaling | None
    nonzeros: float | None


def measure(source: Source, shard: Shard, state: MeasureState) -> RunningLoss:
    """Return the loss of the rows of a shard that are held out."""
    K, d = state.W.shape
    with SGD(K, d, state.options, state.nonzeros) as sgd:
        sgd.scale(state.scaling)
        sgd.weights.set(state.W, state.b)
        return held_out_loss(windows_of(source, shard, state.classes), sgd)


def alone(options: TrainOptions) -> TrainOptions:
    """Return the options of a run as its tasks get them, each of which is one thread's work."""
    sharding = replace(options.sharding, workers=None)
    return replace(options, sharding=sharding).changed(threads=1)
