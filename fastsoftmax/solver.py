"""The only place that chooses a kernel and calls it: weights, their scratch and their workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.kernels.batches import STEPS, descend_batches
from fastsoftmax.kernels.descent import Rows, descend
from fastsoftmax.kernels.gather import part_table
from fastsoftmax.kernels.measure import measure, squared_norms
from fastsoftmax.kernels.pair import descend_pairwise
from fastsoftmax.kernels.plain import descend_plainly
from fastsoftmax.kernels.scratch import (
    block_rows,
    is_tiny,
    new_average,
    new_block,
    new_gradient,
    new_weights,
    useful_workers,
)
from fastsoftmax.kernels.workers import Team
from fastsoftmax.options import TrainOptions

# A kernel call is kept below about 50 ms, so that an interrupt is seen and a block end is near.
CALL_FLOPS = 2e9
CALL_ROWS = 8192


class Tally(NamedTuple):
    """Facts of some rows: weighted loss (nats), weighted hits, whether all numbers were finite."""

    loss: float
    hits: float
    finite: bool


class Visit(NamedTuple):
    """Rows to visit: a part table, and for each row its number, class, weight and step size."""

    table: np.ndarray
    order: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    eta: np.ndarray
    ends: bool


class Solver:
    """W and b of K classes and d features, and the steps that change them.

    Rows come as arrays `parts` side by side, the numbers `order` of the rows to visit, and for each
    of these its class, weight and step size. A row of weight 0 takes no step and is not counted.
    """

    def __init__(self, K: int, d: int, options: TrainOptions) -> None:
        self.K, self.d, self.dtype = K, d, np.dtype(options.dtype)
        self.l2, self.batch_size = float(options.l2), options.batch_size
        self.bias = 1.0 if options.fit_intercept else 0.0
        rows = block_rows(K, d)
        plain = self.batch_size == 1 and is_tiny(K, d)
        self._in_turn = descend_pairwise if K == 2 else descend_plainly
        self._team = Team(1 if plain else useful_workers(K, d, options.thread_count))
        self._weights = new_weights(K, d, self.dtype)
        self._block = new_block(K, d, self.dtype, rows, self._team.size)
        self._average = new_average(K, d, self.dtype, rows) if options.average else None
        self._sums = [np.zeros((K, d)), np.zeros(K)]
        self._averaged = 0.0
        self._parts: tuple[np.ndarray, ...] = ()
        self._part_table = part_table(())
        self._gradient = new_gradient(K, d, self.dtype) if self.batch_size > 1 else None
        self._descend: Callable[..., Any] = self._per_batch if self.batch_size > 1 else (
            self._row_by_row if plain else self._per_block
        )  # fmt: skip
        whole = int(CALL_FLOPS / (4 * K * d)) // rows * rows
        self.call_rows = max(rows, min(CALL_ROWS, whole))

    def __enter__(self) -> Solver:
        return self

    def __exit__(self, *error: object) -> None:
        self._team.__exit__(*error)

    def set_weights(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Begin at weights (K, d) and biases (K,)."""
        self._weights.W[:, : self.d] = coef
        self._weights.b[0, : self.K] = intercept

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of W (K, d) and b (K,): as they are now, or their mean over all steps."""
        if self._average is None or self._averaged == 0:
            return self._weights.W[:, : self.d].copy(), self._weights.b[0, : self.K].copy()
        coef, intercept = (total / self._averaged for total in self._sums)
        return coef.astype(self.dtype), intercept.astype(self.dtype)

    def warm_up(self, parts: tuple[np.ndarray, ...], *, measures: bool) -> None:
        """Have all that a run needs compiled, on no rows; `measures`: `measure` too."""
        nothing = np.zeros(0)
        order, labels = nothing.astype(np.int64), nothing.astype(np.int32)
        self.step(parts, order, labels, nothing, nothing)
        if measures:
            self.measure(parts, order, labels, nothing)

    def step(
        self,
        parts: tuple[np.ndarray, ...],
        order: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
        eta: np.ndarray,
        *,
        ends: bool = False,
    ) -> Tally:
        """Take the steps of some rows; `ends`: the epoch ends with them, and so does its batch."""
        visit = Visit(self._table(parts), order, labels, weight, eta, ends)
        tally = Tally(*self._descend(visit))
        if self._average is not None:
            self._add_up(int(np.count_nonzero(weight)))
        return tally

    def measure(
        self,
        parts: tuple[np.ndarray, ...],
        order: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
    ) -> Tally:
        """Return the weighted loss (nats) and hits of some rows, with the weights as they are."""
        rows = Rows(part_table(parts), order, labels, weight, weight)
        return Tally(*measure(self._measured_weights(), self._block, rows))

    def squared_norms(self, parts: tuple[np.ndarray, ...], order: np.ndarray) -> np.ndarray:
        """Return ||x||^2 (n,) float64 of some rows."""
        norms = np.zeros(len(order))
        squared_norms(norms, self._block.X[0], order, part_table(parts))
        return norms

    def _table(self, parts: tuple[np.ndarray, ...]) -> np.ndarray:
        """Return the part table of these arrays, made anew only when they are others."""
        if self._parts is not parts:
            self._parts, self._part_table = parts, part_table(parts)
        return self._part_table

    def _measured_weights(self) -> Any:
        if self._average is None:
            return self._weights
        shown = new_weights(self.K, self.d, self.dtype)
        shown.W[:, : self.d], shown.b[0, : self.K] = self.weights()
        return shown

    def _per_block(self, visit: Visit) -> Any:
        rows = Rows(*visit[:4], visit.eta * visit.weight)
        team = self._team
        return team.run(
            lambda worker: descend(
                self._weights, self._average, self._block, rows,
                self.l2, self.bias, team.barrier, worker, team.size,
            )
        )  # fmt: skip

    def _row_by_row(self, visit: Visit) -> Any:
        rows = Rows(*visit[:4], visit.eta * visit.weight)
        return self._in_turn(self._weights, self._average, self._block, rows, self.l2, self.bias)

    def _per_batch(self, visit: Visit) -> Any:
        rows = Rows(*visit[:5])
        team = self._team
        return team.run(
            lambda worker: descend_batches(
                self._weights, self._gradient, self._average, self._block, rows,
                self.batch_size, visit.ends, self.l2, self.bias, team.barrier, worker, team.size,
            )
        )  # fmt: skip

    def _add_up(self, rows: int) -> None:
        """Move the kernel's short sums of W and b into float64 ones, before they lose digits."""
        average = self._average
        assert average is not None
        self._sums[0] += average.W[:, : self.d]
        self._sums[1] += average.b[0, : self.K]
        average.W[:] = 0
        average.b[0, : self.K] = 0
        if self._gradient is None:
            self._averaged += rows
        else:
            self._averaged = float(self._gradient.facts[STEPS])
