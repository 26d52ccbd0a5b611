"""The only place that cross-validates: models of all folds over one read, each judged by one."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastsoftmax.data.loading.shuffle import uniforms
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.errors import DivergedError, OptionError
from fastsoftmax.evaluation.evaluate import Totals, empty_totals, nothing_judged
from fastsoftmax.evaluation.report import Report
from fastsoftmax.facts import dataclass
from fastsoftmax.kernels.transpose import copy_matrix
from fastsoftmax.model.logits import logits_of
from fastsoftmax.model.model import Model
from fastsoftmax.model.scoring import softmax
from fastsoftmax.options import TrainOptions, is_count
from fastsoftmax.training.inputs import Inputs
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.shares import Share, fold_of
from fastsoftmax.training.train import model_of, opened_trainer, train_to_end
from fastsoftmax.training.trainer import Trainer

TOP_K = 5  # where there are more classes than that
# Options that folds leave no room for.
NOT_HERE = ("holdout", "checkpoint", "resume", "shards", "workers")


@dataclass(frozen=True)
class CrossValidation:
    """What the models of all folds do on rows that they have not seen.

    reports: of each model on its fold. log_loss, accuracy: the means over the folds;
    log_loss_error, accuracy_error: their standard errors. models: that of each fold, trained
    on all others.
    """

    reports: tuple[Report, ...]
    log_loss: float
    log_loss_error: float
    accuracy: float
    accuracy_error: float
    models: tuple[Model, ...]


@dataclass(frozen=True)
class OutOfFold:
    """Some rows, each scored by the model that has not seen it.

    rows: of the chunk that count. z: (n, K) logits. folds: (n,). numbers: (n,) in source order.
    """

    chunk: Chunk
    rows: np.ndarray
    z: np.ndarray
    folds: np.ndarray
    numbers: np.ndarray


def cross_validate(
    data: Any,
    target: Any = None,
    *,
    folds: int = 5,
    out: str | os.PathLike[str] | None = None,
    features: Sequence[str] | None = None,
    weight: Any = None,
    classes: Sequence[Any] | None = None,
    categorical: Sequence[str] | None = None,
    report: Callable[[Progress], bool | None] | None = None,
    **options: Any,
) -> CrossValidation:
    """Train a model without each of `folds` parts of the rows, and judge it by that part.

    The models share one read of the rows, as those of `sweep` do. Which fold a row is in depends on
    the seed and its number alone. out: a file for the probabilities of each row by the model that
    has not seen it (.parquet, .arrow, .csv or .jsonl): its number, fold and class, the class
    predicted, and all probabilities. The other arguments are those of `train`; categories and what
    fills nulls are learnt of all rows.
    """
    inputs = Inputs(data, target, features, weight, classes, categorical)
    with opened_folds(inputs, folds, report, options) as (trainer, models):
        totals = [empty_totals(m, _top_k(m)) for m in models]
        with contextlib.ExitStack() as stack:
            sink = None if out is None else _opened(stack, out, models[0], target)
            for some in out_of_fold(trainer.rows.source, models, trainer.options.shuffling.seed):
                _add(totals, some)
                if sink is not None:
                    sink(some)
        if any(total.rows == 0 for total in totals):
            raise nothing_judged()
        values = models[0].classes_.values
        reports = tuple(total.report(values, {}) for total in totals)
    losses, hits = [r.log_loss for r in reports], [r.accuracy for r in reports]
    return CrossValidation(reports, *_mean(losses), *_mean(hits), tuple(models))


@contextlib.contextmanager
def opened_folds(
    inputs: Inputs, folds: int, report: Any, options: dict[str, Any]
) -> Iterator[tuple[Trainer, list[Model]]]:
    """Train a model without each fold; give them, and the trainer whose rows they are of."""
    if not (is_count(folds, 2) and folds <= 1000):
        raise OptionError(f"folds must be a whole number in 2..1000, got {folds!r}")
    chosen = settings_of(options)
    shares = [
        Share(chosen.shuffling.seed, fold / folds, (fold + 1) / folds, outside=True)
        for fold in range(folds)
    ]
    with opened_trainer(inputs, [chosen] * folds, report, shares=shares) as trainer:
        yield trainer, trained(trainer, inputs)


def settings_of(options: dict[str, Any]) -> TrainOptions:
    """Return the options of a run in which rows are dealt to models."""
    chosen = TrainOptions.of(**options)
    given = chosen.given()
    for name in NOT_HERE:
        if name in given:
            raise OptionError(f"{name} is of train: here rows are dealt to models, leave it out")
    return chosen


def trained(trainer: Trainer, inputs: Inputs) -> list[Model]:
    """Train all models, and return them; raise DivergedError where one is lost."""
    if trainer.rows.source.one_pass:
        raise OptionError("a reader can be read once, and these rows are read again: give others")
    train_to_end(trainer, inputs)
    for _, why in trainer.state.dropped:
        raise DivergedError(f"a model {why}")
    return [model_of(trainer, learner, inputs) for learner in trainer.learners]


def out_of_fold(source: Source, models: Sequence[Model], seed: int) -> Iterator[OutOfFold]:
    """Yield all rows in source order, each scored by the model that has not seen it."""
    classes, folds = models[0].classes_, len(models)
    for chunk in source.chunks(classes):
        first = source.number(chunk.piece, chunk.start)
        dealt = fold_of(uniforms(seed, first, chunk.rows), folds)
        z = np.empty((chunk.rows, len(classes)))
        for fold, model in enumerate(models):
            rows = np.flatnonzero(dealt == fold)
            if len(rows):
                z[rows] = _logits(model, chunk, rows, source)
        counted = np.arange(chunk.rows)
        if chunk.weights is not None:
            counted = np.flatnonzero(chunk.weights > 0)
        yield OutOfFold(chunk, counted, z[counted], dealt[counted], first + counted)


def _logits(model: Model, chunk: Chunk, rows: np.ndarray, source: Source) -> np.ndarray:
    """Return the logits of some rows of a chunk."""
    parts = []
    for part in chunk.parts:
        some = part.room(len(rows))
        some.fill(copy_matrix, 0, part, rows)
        parts.append(some)

    def place(row: int) -> str:
        return source.place(chunk.piece, chunk.start + int(rows[row]))

    return np.concatenate([z for _, z in logits_of(model.parameters, tuple(parts), place)])


def _add(totals: list[Totals], some: OutOfFold) -> None:
    labels, weights = some.chunk.labels, some.chunk.weights
    assert labels is not None  # asked for by giving the classes
    w = np.ones(len(some.rows)) if weights is None else weights[some.rows]
    for fold, total in enumerate(totals):
        here = np.flatnonzero(some.folds == fold)
        if len(here):
            total.add(some.z[here], labels[some.rows][here], w[here])


def _opened(
    stack: contextlib.ExitStack, out: str | os.PathLike[str], model: Model, target: Any
) -> Callable[[OutOfFold], None]:
    """Return what writes rows to a file."""
    from fastsoftmax.data.formats.sink import open_sink
    from fastsoftmax.data.formats.whole import record_batch

    sink = stack.enter_context(open_sink(out, model.classes_, proba=True))
    name = target if isinstance(target, str) else "label"

    def write(some: OutOfFold) -> None:
        if not len(some.rows):
            return
        labels = some.chunk.labels
        assert labels is not None  # asked for by giving the classes
        given = model.classes_.array()[labels[some.rows]]
        beside = {"row": some.numbers, "fold": some.folds, name: given}
        sink.append(softmax(some.z), record_batch(beside))

    return write


def _top_k(model: Model) -> int | None:
    return TOP_K if len(model.classes_) > TOP_K else None


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
