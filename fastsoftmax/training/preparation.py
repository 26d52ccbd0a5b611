"""The only place where a run settles, on its first window, what it was not told: scale, l2, step.

What is settled is a function of the data, the options and the window, and of nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from fastsoftmax.data.loading.shuffle import STEP, sample_order
from fastsoftmax.data.loading.shuffle_buffer import Window
from fastsoftmax.model.scaling import Moments, Scaling
from fastsoftmax.optim.moments import MomentSums, wide_columns
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.optim.state import array_of, check_alike
from fastsoftmax.options import TrainOptions
from fastsoftmax.training.tuning import (
    RATE_ROWS,
    Problem,
    choose_l2,
    choose_rate,
    penalty_rows,
)

logger = logging.getLogger("fastsoftmax")

# Rows that the mean squared norm is measured on, and those that are looked at for being too large
# where no step size depends on it.
NORM_ROWS, CHECKED_ROWS = 4096, 1024


@dataclass
class Settled:
    """What a run works with: see `settle`. units (d,) turn an l2 into penalties of features.

    memory: the budget at the time, by which full gradients are preconditioned.
    """

    conditioning: Scaling | None
    moments: Moments | None
    units: np.ndarray
    l1: float
    memory: int
    l2: float = 0.0
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def penalties(self) -> tuple[np.ndarray, np.ndarray]:
        """The penalties l2, l1 (d,) of each feature's weights, in the units of these."""
        l1 = np.full(len(self.units), self.l1)
        return self.l2 * self.units, l1 if self.conditioning is None else l1 * np.sqrt(self.units)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return it as facts, and arrays by name."""
        arrays = {"units": self.units}
        for name, held in (("conditioning", self.conditioning), ("moments", self.moments)):
            if held is not None:
                arrays |= {f"{name}.{key}": value for key, value in vars(held).items()}
        return {name: getattr(self, name) for name in ("l1", "memory", "l2", "notes")}, arrays

    @classmethod
    def of(cls, facts: dict[str, Any], arrays: dict[str, np.ndarray], d: int) -> Settled:
        """Return what was settled with this state, for d features."""
        made: list[Any] = []
        for kind, name in ((Scaling, "conditioning"), (Moments, "moments")):
            keys = {f.name: f"{name}.{f.name}" for f in fields(kind)}
            known = all(key in arrays for key in keys.values())
            held = {f: array_of(arrays, key, (d,)) for f, key in keys.items()} if known else None
            made.append(held and kind(**held))
        conditioning, moments = made
        settled = cls(conditioning, moments, array_of(arrays, "units", (d,)), 0.0, 0)
        check_alike(facts, settled.state()[0])
        return replace(settled, **facts)

    @property
    def squares(self) -> np.ndarray | None:
        """The mean squares (d,) of the features as conditioned, where they were measured."""
        if self.moments is None or self.conditioning is None:
            return None
        return self.moments.squares(self.conditioning)


@dataclass(frozen=True)
class Beginning:
    """The first window, and what makes its rows count: weight_of(order) gives their weights.

    rows: those that take a step in an epoch.
    """

    window: Window
    weight_of: Callable[[np.ndarray], np.ndarray]
    rows: int
    K: int
    d: int
    options: TrainOptions

    @property
    def rows_seen(self) -> int:
        """How many rows of the window are looked at: unshuffled, as many as any window holds."""
        rows = self.window.rows
        return min(rows, STEP) if self.options.shuffling.shuffle == "off" else rows

    def sample(self) -> Batch:
        """Return rows of the window in a random order of their own, enough for every choice."""
        order = sample_order(self.rows_seen, self.options.shuffling.seed)
        weight = self.weight_of(order)
        counted = np.flatnonzero(weight > 0)
        counted = counted[: max(RATE_ROWS, NORM_ROWS, penalty_rows(self.K, self.d))]
        order = order[counted]
        return Batch(self.window.parts, order, self.window.labels[order], weight[counted])


def measure_columns(beginning: Beginning) -> MomentSums:
    """Return the sums behind the moments of all rows of the window that count."""
    order = np.arange(beginning.rows_seen)
    gauge = MomentSums(beginning.d)
    gauge.add(beginning.window.parts, order, beginning.weight_of(order))
    return gauge


def settle(beginning: Beginning, moments: Moments | None, sample: Batch) -> Settled:
    """Return the conditioning, the penalties' units and l2.

    Where l2 is one number for raw weights and training is row by row, all features share one scale:
    their weights then shrink by the same share at each step, which is exact.
    """
    o = beginning.options
    conditioning = None
    units = np.ones(beginning.d)
    standardised = bool(o.penalty.standardize)
    if moments is not None:
        exact = (
            o.stopping.solver == "sgd" and not standardised and o.penalty.l2 not in ("auto", 0.0)
        )
        conditioning = moments.conditioning(
            np.dtype(o.steps.dtype),
            wide_columns(beginning.window.parts),
            centred=o.penalty.fit_intercept,
            scaled=not exact,
        )
        # A column that never changes has no weight to penalise.
        units = np.square(conditioning.scale * (moments.deviation if standardised else 1.0))
    settled = Settled(conditioning, moments, units, float(o.penalty.l1), o.reading.memory_bytes)
    if o.penalty.l2 != "auto":
        settled.l2 = float(o.penalty.l2)
        return settled
    problem = Problem(
        beginning.K,
        beginning.d,
        beginning.rows,
        sample,
        units,
        conditioning,
        o.penalty.fit_intercept,
        o.steps.dtype,
        o.reading.thread_count,
        o.reading.memory_bytes,
        settled.squares,
    )
    choice = choose_l2(problem)
    settled.l2, settled.notes["l2"] = choice.value, choice.reason
    logger.info("l2 %.3g: %s", choice.value, choice.reason)
    return settled


def step_size(sgd: SGD, sample: Batch, norm: float, settled: Settled) -> float:
    """Return the step size that does best on the sample."""
    choice = choose_rate(sgd, sample, sgd.rule.unit(norm))
    settled.notes["learning_rate"] = choice.reason
    logger.info("learning_rate %.3g: %s", choice.value, choice.reason)
    return choice.value
