"""The only place that makes a trained model's probabilities neither too sure nor too timid.

p = softmax(z / T): one temperature T for all rows moves no prediction, only how sure it is. The
log-loss is convex in beta = 1 / T, whose slope and curvature a pass over the rows sums up:

    loss = log sum_k exp(beta z_k) - beta z_y
    slope = sum_k p_k (z_k - z_y)      curvature = sum_k p_k (z_k - sum_j p_j z_j)^2

Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastsoftmax.data.open import in_one_place
from fastsoftmax.data.source import Chunk, Source
from fastsoftmax.errors import DataError
from fastsoftmax.evaluation.evaluate import (
    judged,
    judged_in_shards,
    nothing_judged,
    open_judged,
    refuse_infinite,
)
from fastsoftmax.model.model import Model, require_model
from fastsoftmax.options import Sharding

if TYPE_CHECKING:
    from fastsoftmax.data.loading.shard_rows import Shard
    from fastsoftmax.data.loading.shards import Shards

COLDEST, HOTTEST = 0.01, 100.0
MOST_PASSES = 20
PRECISION = 1e-5  # of a Newton step that is the last: what remains after it is about its square

# Slope and curvature of the log-loss at each of some beta.
Slopes = list[tuple[float, float]]


def calibrate(
    model: Model,
    data: Any,
    target: Any = None,
    weight: Any = None,
    *,
    shards: int | str | None = None,
    workers: Any = None,
) -> Model:
    """Return `model` at the temperature T > 0 of least log-loss on `data`, which is read again.

    Give rows that training did not see. target, weight: as for `evaluate`. Weights and biases are
    divided by T, and record["temperature"] is T, times that of the model where it has one. T stays
    within 0.01 to 100: where the loss falls to the bound (rows that the model separates without a
    mistake have no best T, a model worse than chance has none above 0), that is T, with a warning.
    shards, workers: read parts of the rows at once, as in `train`.
    """
    require_model(model)
    sharding = Sharding(shards=shards, workers=workers)
    if shards is not None:
        data = in_one_place(data)
    with closing(open_judged(model, data, target, weight)) as source:
        if source.one_pass:
            raise DataError(
                "a reader can be read once, and calibration reads several times: give a callable"
                " that returns a fresh reader."
            )
        with judged_in_shards(source, model, sharding) as dealt:
            temperature = 1 / _least(lambda betas: _slopes(model, source, betas, dealt))
    if temperature in (COLDEST, HOTTEST):
        warnings.warn(
            f"the log-loss falls up to the bound of the temperature, {temperature:g}: these rows"
            " do not tell how sure the model may be",
            UserWarning,
            stacklevel=2,
        )
    record = {**model.record, "temperature": temperature * model.record.get("temperature", 1.0)}
    weights, bias = (
        (values.astype(np.float64) / temperature).astype(model.dtype)
        for values in (model.weights, model.bias)
    )
    return Model.of(replace(model.parameters, weights=weights, bias=bias, record=record))


def _least(slopes: Callable[[tuple[float, ...]], Slopes]) -> float:
    """Return the beta between the bounds of least loss: by Newton's method within a bracket.

    A step that leaves the bracket, or is more than half the one before, is one to the bracket's
    geometric middle instead: losses with exponential tails make Newton's steps short and many.
    """
    low, beta, high = 1 / HOTTEST, 1.0, 1 / COLDEST
    (at_low, _), now, (at_high, _) = slopes((low, beta, high))
    if at_low >= 0 or at_high <= 0:
        return low if at_low >= 0 else high
    step = math.inf
    for _ in range(MOST_PASSES - 1):
        slope, curvature = now
        low, high = (low, beta) if slope > 0 else (beta, high)
        newton = -slope / curvature if curvature > 0 else math.inf
        if abs(newton) <= PRECISION * beta:
            return min(max(beta + newton, low), high)
        is_trusted = low < beta + newton < high and abs(newton) <= abs(step) / 2
        step = newton if is_trusted else math.sqrt(low * high) - beta
        beta += step
        (now,) = slopes((beta,))
    return beta


def _slopes(model: Model, source: Source, betas: tuple[float, ...], dealt: Shards | None) -> Slopes:
    """Return the slopes at each beta, by one pass."""
    if dealt is None:
        found = _slope_sums(model, source, betas)
    else:
        found = dealt.merged("calibration of shard", slopes_of_shard, model, betas)
    total = float(found[-1, 0])
    if total == 0:
        raise nothing_judged()
    refuse_infinite(total)
    return [(slope, curvature) for slope, curvature in (found[:-1] / total).tolist()]


def slopes_of_shard(
    source: Source, shard: Shard, model: Model, betas: tuple[float, ...]
) -> np.ndarray:
    """Return the sums of slopes over the rows of a shard."""
    from fastsoftmax.data.loading.shard_rows import chunks_of

    return _slope_sums(model, source, betas, chunks_of(source, shard, model.classes_))


def _slope_sums(
    model: Model, source: Source, betas: tuple[float, ...], some: Iterator[Chunk] | None = None
) -> np.ndarray:
    """Return the sums of slope and curvature at each beta, and in the last line of weights."""
    sums, total = np.zeros((len(betas), 2)), 0.0
    for z, y, w in judged(model, source, some):
        z -= z.max(axis=1, keepdims=True)
        u = z - z[np.arange(len(y)), y][:, None]  # 0 for the row's class: sure rows cancel nothing
        total += float(w.sum())
        for beta, line in zip(betas, sums, strict=True):
            p = np.exp(beta * z)
            p /= p.sum(axis=1, keepdims=True)
            mean = (p * u).sum(axis=1)
            line += w @ mean, w @ (p * np.square(u - mean[:, None])).sum(axis=1)
    return np.vstack([sums, [[total, 0.0]]])
