"""The only place that says what more rows would gain: the loss of models of fewer, and a forecast.

The excess of the loss over that of endless rows falls as a power of their number; which power, the
losses say themselves (Viering and Loog, The shape of learning curves: a review, 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fastsoftmax.data.loading.shuffle import uniforms
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.facts import dataclass
from fastsoftmax.model.logits import logits_of
from fastsoftmax.model.model import Model
from fastsoftmax.model.scoring import log_sum_exp
from fastsoftmax.training.cross_validate import settings_of, trained
from fastsoftmax.training.inputs import Inputs
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.shares import Share
from fastsoftmax.training.train import opened_trainer

FRACTIONS = (0.1, 0.2, 0.35, 0.6, 1.0)  # of the rows that models are trained on
JUDGED = 0.2  # of all rows: what the models are judged by
MOST_REPEATS = 3  # models of a fraction, each of rows of its own
BLOCKS = 100  # of judged rows, which a bootstrap draws
DRAWS = 400  # of the bootstrap
POWERS = (0.5, 0.75, 1.0, 1.5)


@dataclass(frozen=True)
class LearningCurve:
    """How the loss falls as rows are added.

    rows: that models were trained on. log_loss: of them, on rows that none has seen; error: its
    standard error. forecast: the log-loss of twice the most rows; forecast_error: the standard
    error of what is gained from here to there.
    """

    rows: tuple[int, ...]
    log_loss: tuple[float, ...]
    error: tuple[float, ...]
    forecast: float
    forecast_error: float

    @property
    def gain(self) -> float:
        """How much less the log-loss would be with twice the rows."""
        return self.log_loss[-1] - self.forecast


@dataclass(frozen=True)
class _Judged:
    """What models lose on rows that none has seen, in blocks of these: sums, and weights."""

    losses: np.ndarray  # (models, BLOCKS)
    weights: np.ndarray  # (BLOCKS,)


def learning_curve(
    data: Any,
    target: Any = None,
    *,
    fractions: Sequence[float] = FRACTIONS,
    features: Sequence[str] | None = None,
    weight: Any = None,
    classes: Sequence[Any] | None = None,
    categorical: Sequence[str] | None = None,
    report: Callable[[Progress], bool | None] | None = None,
    **options: Any,
) -> LearningCurve:
    """Train models on fractions of the rows, over one read, and forecast what twice the rows gain.

    A fifth of the rows is left out, and judges all models. fractions: of the other rows, ascending;
    of small ones there are several models, each of rows of its own. The other arguments are those
    of `train`.
    """
    sizes = _checked(fractions)
    chosen = settings_of(options)
    seed = chosen.shuffling.seed
    shares = [share for size in sizes for share in _shares(seed, size)]
    at = np.repeat(np.arange(len(sizes)), [len(_shares(seed, size)) for size in sizes])
    inputs = Inputs(data, target, features, weight, classes, categorical)
    with opened_trainer(inputs, [chosen] * len(shares), report, shares=shares) as trainer:
        models = trained(trainer, inputs)
        rows = np.array([learner.steps for learner in trainer.learners], np.float64)
        judged = _judge(trainer.rows.source, models, seed)
    return _curve(rows, judged, at)


def _checked(fractions: Sequence[float]) -> tuple[float, ...]:
    """Return the fractions; raise OptionError where a curve cannot be drawn through them."""
    try:
        found = tuple(float(each) for each in fractions)
    except (TypeError, ValueError):
        found = ()
    rises = all(a < b for a, b in pairwise(found))
    if len(found) < 3 or not rises or found[0] <= 0 or found[-1] > 1:
        raise OptionError(
            f"fractions must be three numbers or more in (0, 1], ascending, got {fractions!r:.100}"
        )
    return found


def _shares(seed: int, fraction: float) -> list[Share]:
    """Return ranges of rows that a fraction of those not judged are in, side by side."""
    repeats = max(1, min(MOST_REPEATS, int(1 / fraction + 1e-9)))
    width = (1 - JUDGED) * fraction
    return [
        Share(seed, JUDGED + i * width, min(JUDGED + (i + 1) * width, 1.0)) for i in range(repeats)
    ]


def _judge(source: Source, models: Sequence[Model], seed: int) -> _Judged:
    losses, weights = np.zeros((len(models), BLOCKS)), np.zeros(BLOCKS)
    for chunk, judged in _judged_rows(source, models[0], seed):
        assert chunk.labels is not None  # asked for by giving the classes
        numbers = source.number(chunk.piece, chunk.start) + judged
        w = np.ones(len(judged)) if chunk.weights is None else chunk.weights[judged]
        blocks, y = numbers % BLOCKS, chunk.labels[judged]
        weights += np.bincount(blocks, w, BLOCKS)
        place = _place(source, chunk)
        for i, model in enumerate(models):
            z = np.concatenate([z for _, z in logits_of(model.parameters, chunk.parts, place)])
            z = z[judged].astype(np.float64)
            loss = log_sum_exp(z) - z[np.arange(len(y)), y]
            losses[i] += np.bincount(blocks, w * loss, BLOCKS)
    if not weights.any():
        raise DataError("no row is left to judge the models by: give more rows.")
    return _Judged(losses, weights)


def _judged_rows(source: Source, model: Model, seed: int) -> Iterator[tuple[Chunk, np.ndarray]]:
    for chunk in source.chunks(model.classes_):
        first = source.number(chunk.piece, chunk.start)
        judged = np.flatnonzero(uniforms(seed, first, chunk.rows) < JUDGED)
        if len(judged):
            yield chunk, judged


def _place(source: Source, chunk: Chunk) -> Callable[[int], str]:
    return lambda row: source.place(chunk.piece, chunk.start + row)


def _curve(rows: np.ndarray, judged: _Judged, at: np.ndarray) -> LearningCurve:
    """Return the curve; at (models,): which fraction each model is of."""
    sizes = int(at.max()) + 1
    n = np.array([rows[at == i].mean() for i in range(sizes)])
    losses = _means(judged, np.ones(BLOCKS), at)
    draws = np.array(list(_drawn_curves(judged, at)))
    error = draws.std(axis=0, ddof=1)
    gain, doubt = _gains(n, losses)
    spread = np.std([_gains(n, curve)[0] for curve in draws], ddof=1)
    return LearningCurve(
        tuple(round(each) for each in n.tolist()), tuple(losses.tolist()), tuple(error.tolist()),
        float(losses[-1]) - gain, float(np.hypot(spread, doubt)),
    )  # fmt: skip


def _means(judged: _Judged, drawn: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the mean loss of each fraction's models; blocks count as often as they are drawn."""
    each = judged.losses @ drawn / (judged.weights @ drawn)
    return np.bincount(at, each) / np.bincount(at)


def _drawn_curves(judged: _Judged, at: np.ndarray) -> Iterator[np.ndarray]:
    """Yield what the losses may have been: of other rows, and of other models of each fraction.

    Models of a fraction differ as their rows do; by the spread of one fraction's models that of a
    single one of more rows is guessed, as the excess of the loss falls: as 1 / rows.
    """
    random = np.random.Generator(np.random.Philox(0))
    each = judged.losses.sum(axis=1) / judged.weights.sum()
    counts = np.bincount(at)
    several = [i for i in range(len(counts)) if counts[i] > 1]
    spread = {i: float(each[at == i].std(ddof=1)) for i in several}
    first = several[0] if several else None
    mean = np.bincount(at, each) / counts
    floor = mean.min()
    for _ in range(DRAWS):
        drawn = np.bincount(random.integers(0, BLOCKS, BLOCKS), minlength=BLOCKS).astype(float)
        curve = _means(judged, drawn, at)
        for i in range(len(counts)):
            deviation = spread.get(i, 0.0)
            if i not in spread and first is not None:
                excess = max(mean[first] - floor, 1e-12)
                deviation = spread[first] * min(1.0, max(mean[i] - floor, 0.1 * excess) / excess)
            curve[i] += random.normal() * deviation / np.sqrt(counts[i])
        yield curve


def _gains(rows: np.ndarray, losses: np.ndarray) -> tuple[float, float]:
    """Return what twice the most rows gain, and how far that depends on the power.

    For each power c, a + b rows^-c is fitted, with a and b >= 0, for no log-loss is below 0; the
    gain is the mean of theirs, each as likely as its fit is. Many rows tell more of what comes than
    few: the weights are their numbers.
    """
    scale, most = rows / rows[-1], max(float(losses[-1]), 0.0)
    found = []
    for power in POWERS:
        x = scale**-power
        mean_x, mean_y = np.average(x, weights=scale), np.average(losses, weights=scale)
        slope = float(scale @ ((x - mean_x) * (losses - mean_y)) / (scale @ (x - mean_x) ** 2))
        slope = max(slope, 0.0)
        end = mean_y - slope * mean_x
        if end < 0:
            end, slope = 0.0, max(float(scale @ (x * losses) / (scale @ x**2)), 0.0)
        left = losses - end - slope * x
        # What the fit leaves at the last size is chance there, and would be the same further on.
        found.append((float(scale @ left**2), min(slope * (1 - 2.0**-power), most)))
    squares, gains = np.array(found).T
    likely = ((squares + 1e-12) / (squares.min() + 1e-12)) ** (-len(rows) / 2)
    mean = float(np.average(gains, weights=likely))
    return mean, float(np.sqrt(np.average((gains - mean) ** 2, weights=likely)))
