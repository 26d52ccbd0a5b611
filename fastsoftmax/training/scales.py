"""The only place that says how a learner's features are scaled and penalised, by their moments."""

from __future__ import annotations

import math

import numpy as np

from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.moments import Moments
from fastsoftmax.optim.objective import ElasticNet
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.prepared import Prepared

OFF = 4.0  # times the scale that all rows give: one of the first rows that is as far off is left


def scaling_of(
    learner: Learner, moments: Moments, wide: np.ndarray, kind: str | None = None
) -> Scaling:
    """Return what brings features to one scale; wide (d,): those of more than 24 bits.

    kind: of scaling, where not that of the options.

    Where l2 is one number for raw weights and steps alone are taken, features of about one scale
    share one: their weights then shrink by the same share at each step, which is exact.
    """
    o = learner.options
    exact = not learner.finishes and not o.penalty.standardize
    exact = exact and o.penalty.l2 not in ("auto", 0.0) and moments.are_alike
    scaling = moments.scaling(
        kind or o.penalty.scaling,
        np.dtype(o.steps.dtype),
        wide,
        centred=o.penalty.fit_intercept,
        scaled=not exact,
    )
    if learner.nonzeros is None:
        return scaling
    # Rows of a norm of 1, as text is given, whatever its numbers count.
    norm = math.sqrt(float(moments.squares(scaling).sum())) or 1.0
    return Scaling(scaling.centre, scaling.scale / norm)


def prepared_by(learner: Learner, moments: Moments | None, scaling: Scaling | None) -> Prepared:
    """Return what a learner works with, but for the penalty."""
    o, units = learner.options, np.ones(learner.d)
    if moments is not None and scaling is not None:
        # A column that never changes has no weight to penalise.
        deviation = moments.deviation if o.penalty.standardize else 1.0
        units = np.square(scaling.scale * deviation)
        if o.penalty.standardize and moments.is_sparse is not None:
            # Divided by the deviations of sparse features, which are measured about 0, rare ones,
            # which are most of all there are, would cost next to nothing: on rows drawn from
            # topics the held-out loss was 1.74 where one cost as much as another by its scale, and
            # 1.43 as they come, in rows of a norm of 1.
            few = moments.is_sparse > 0
            norm = math.sqrt(float(np.square(moments.deviation[few]).sum()))
            units[few] = np.square(scaling.scale[few] * norm)
    return Prepared(scaling, moments, float(o.penalty.l1), o.curvature_memory, units)


def is_far_off(scaling: Scaling, better: Scaling) -> bool:
    """Return whether some scale of the first rows is unlike that of all rows."""
    ratio = scaling.scale / better.scale
    return bool((ratio > OFF).any() or (ratio < 1 / OFF).any())


def moved(
    theta: np.ndarray, slope: np.ndarray, before: Scaling, after: Scaling
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (K, d + 1), the bias last, and the slope of the loss there, rescaled.

    slope (K, d + 1): by the weights for features as `before` has them. A feature x is x' / s + c
    in raw units, whose derivative follows from those by weight and bias.
    """
    d = theta.shape[1] - 1
    W, b = after.scaled(*before.raw(theta[:, :d], theta[:, d]))
    away = before.centre - after.centre
    by_weight = (slope[:, :d] / before.scale + away * slope[:, d:]) * after.scale
    return (
        np.concatenate([W, b[:, None]], axis=1),
        np.concatenate([by_weight, slope[:, d:]], axis=1),
    )


def penalised(theta: np.ndarray, loss: float, slope: np.ndarray, penalty: ElasticNet) -> tuple[
    float, np.ndarray
]:  # fmt: skip
    """Return a loss and its slope at weights (K, d + 1), with the smooth penalty on them."""
    weights, added = theta[:, :-1], slope.copy()
    added[:, :-1] += penalty.l2 * weights
    return loss + float((penalty.l2 * np.square(weights)).sum()) / 2, added
