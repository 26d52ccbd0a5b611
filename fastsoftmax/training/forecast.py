"""The only place that foresees what a run will take: its memory by plan, its time by trial.

The trial is the run itself, over all rows, ended some seconds after its first step. How many passes
full gradients will take, where they end the run, is what they take over a part of the rows; where
that part would be all of them, or half, the trial goes on to its end.
"""

from __future__ import annotations

import math
import time
import warnings
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from fastsoftmax.data.loading.read_plan import choose_plan, choose_reading
from fastsoftmax.data.loading.shuffle import ShufflePlan
from fastsoftmax.data.some_rows import some_rows
from fastsoftmax.data.source import LabelStats, Source
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes
from fastsoftmax.model.model import Model
from fastsoftmax.optim.hessian import curvature_rows, has_whole
from fastsoftmax.optim.lbfgs import VECTOR_BYTES
from fastsoftmax.optim.preconditioner import choose_matrices
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.inputs import Inputs
from fastsoftmax.training.memory_check import bytes_per_weight
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.train import train

TRIED_SECONDS = 4.0  # of a trial, from its first step on
PART_ROWS = 2**16  # over which passes are counted; of less than twice as many the trial tells them
USUAL_PASSES = 20  # where that part cannot be trained on
READER_BYTES = 2**24  # that a reading thread holds, beside pages
# What a trial does without: it keeps nothing, and tells nobody.
LEFT_OUT = ("checkpoint", "resume", "log_json", "verbose", "cache_folder", "max_seconds")


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    memory_bytes: beyond the interpreter and its libraries. seconds: of reading and training. rows:
    of the data. features, classes: how many there are. order: how rows are shuffled, in words.
    """

    memory_bytes: int
    seconds: float
    rows: int
    features: int
    classes: int
    order: str


def forecast(inputs: Inputs, options: TrainOptions) -> Forecast:
    """Return what a run over files will take; it takes a few seconds itself.

    Files of lines are parsed meanwhile, and the labels of all rows are read.
    """
    started = time.perf_counter()
    inputs.check(options)
    with closing(inputs.open(options)) as source:
        opening = time.perf_counter() - started  # a file of lines is parsed by then
        if source.rows is None:
            raise OptionError("what can be read once is not looked at beforehand: give files")
        inputs.learn(source, options)
        classes, stats = inputs.scan(source, options)
        resolved = options.resolved(one_pass=False)
        plan = choose_plan(
            source, resolved.shuffling, resolved.reading,
            None if stats is None else stats.segments, streams=resolved.leaves_nothing_open,
        )  # fmt: skip
        held = _memory(source, classes, stats, plan, resolved)
        rows, features = source.rows, source.n_features
    known = replace(inputs, classes=list(classes.values))  # of which a part may lack some
    seconds = _training(known, options, rows)
    if options.stopping.max_seconds is not None:
        seconds = min(seconds, options.stopping.max_seconds)
    seconds += opening
    return Forecast(held, seconds, rows, features, len(classes), str(plan))


def _memory(
    source: Source,
    classes: Classes,
    stats: LabelStats | None,
    plan: ShufflePlan,
    options: TrainOptions,
) -> int:
    """Return the bytes of rows, of readers, of weights and of what steps them."""
    memory = source.room(options.reading.memory_bytes)
    read = choose_reading(source, plan, options.reading, rereads=options.steps.epochs != 1)
    rows = plan.size if plan.holds_all else 2 * plan.window_bytes
    if read.keep == "memory" and not plan.holds_all:
        rows += plan.size
    readers = read.readers * (source.reading_bytes + READER_BYTES)
    K, d = len(classes), source.n_features
    weights = bytes_per_weight(K, d, options, source.nonzeros) * K * d
    if not options.by_hand and options.steps.epochs == "auto":  # full gradients end the run
        weights += VECTOR_BYTES * K * (d + 1)
        trained = (source.rows or 1) if stats is None else stats.positive
        itemsize = np.dtype(options.steps.dtype).itemsize
        # Of each matrix there are the sums, the factor and what they are made in; and of the
        # rows that they are taken from a copy.
        if source.nonzeros is not None:  # a diagonal, and its sums
            return int(rows + min(readers, memory // 4) + weights + 16 * K * d)
        if has_whole(K, d, memory):
            weights += 24 * (K * (d + 1)) ** 2
        else:
            count = choose_matrices(K, d, trained, memory, itemsize)
            weights += 3 * count * itemsize * (d + 1) ** 2
        weights += curvature_rows(K, d, trained, memory) * d * itemsize
    return int(rows + min(readers, memory // 4) + weights + source.index_bytes)


class _Watch:
    """Sees how far a run comes in some seconds, and ends it then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.begun = self.at = time.perf_counter()
        self.last: Progress | None = None

    def on_start(self, progress: Progress) -> None:
        """Note when the first step was taken."""
        self.begun = time.perf_counter()

    def on_span(self, progress: Progress) -> bool:
        """Note how many rows took theirs."""
        self.at, self.last = time.perf_counter(), progress
        return self.at - self.begun > self._seconds

    on_epoch = on_pass = on_span

    def on_end(self, progress: Progress) -> None:
        """Note why the run ended."""
        self.last = progress


def _training(inputs: Inputs, options: TrainOptions, rows: int) -> float:
    """Return how long training on so many rows takes, by a trial."""
    quiet = {name: value for name, value in options.given().items() if name not in LEFT_OUT}
    ends_itself = _asked(options) is None and rows < 2 * PART_ROWS
    watch = _Watch(math.inf if ends_itself else TRIED_SECONDS)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a trial
        tried = _train(inputs, inputs.data, quiet, [watch])
        last = watch.last
        if last is None or last.ended != "callback":
            return time.perf_counter() - started
        # Passes are as many as the penalty lets them be, so it is that of all rows.
        chosen = {name: tried.record["options"][name] for name in ("l2", "standardize")}
        epochs = _passes(inputs, {**quiet, **chosen}, options, rows)
    rate = last.rows_seen / (watch.at - watch.begun)
    return watch.begun - started + epochs * (last.rows_per_epoch or rows) / rate


def _asked(options: TrainOptions) -> int | None:
    """Return the epochs that a run of steps is asked for; None where it ends by itself."""
    asked = options.steps.epochs
    return asked if isinstance(asked, int) and options.stopping.solver == "sgd" else None


def _passes(inputs: Inputs, quiet: dict[str, Any], options: TrainOptions, rows: int) -> int:
    """Return how many epochs and passes a run takes: as many as are asked for, or those of a run
    over a part of the rows.
    """
    asked = options.steps.epochs
    if (steps := _asked(options)) is not None:
        return steps
    data, _ = some_rows(inputs.data, quiet.get("types"), PART_ROWS)
    try:
        taken = len(_train(inputs, data, quiet, []).history)
    except DataError:  # a part may hold too few rows of a kind
        return asked if isinstance(asked, int) else USUAL_PASSES
    return min(taken, asked) if isinstance(asked, int) else taken


def _train(inputs: Inputs, data: Any, options: dict[str, Any], callbacks: list[Any]) -> Model:
    return train(
        data, inputs.target, features=inputs.features, weight=inputs.weight,
        classes=inputs.classes, categorical=inputs.categorical, validation=inputs.validation,
        init=inputs.init, callbacks=callbacks, **{**options, "seen": "again"},
    )  # fmt: skip
