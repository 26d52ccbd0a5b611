"""The only place that knows what rules of sparse rows share: their weights, tables and measures."""

from __future__ import annotations

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.kernels.gather import Affine
from fastsoftmax.kernels.lists import Lists, ListTables, new_lists
from fastsoftmax.kernels.sparse_sums import measure_lists, norms_of_lists
from fastsoftmax.kernels.workers import Team
from fastsoftmax.optim.feature_weights import FeatureMajor
from fastsoftmax.optim.penalties import ALIKE, Penalties
from fastsoftmax.optim.rules.rule import CALL_FLOPS, SPAN_ROWS, Lengths, Rule, Task
from fastsoftmax.optim.tables import PartTables
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights

MOST_ROWS, LEAST_ROWS = 32768, 64  # of a call
SHARE = 8  # of CALL_FLOPS: products of numbers that lie apart take so many times as long


class SparseRule(Rule):
    """Steps over rows that touch the weights of their own features alone, on one thread.

    The kernel applies all penalties itself: l2 that is the same for all features by a factor of
    all weights, other ones to a feature's weights before these are used.
    """

    nonzeros = 2.0

    def __init__(self, task: Task, threads: int) -> None:
        """Allocate; `fits` must hold."""
        self.K, self.d, self.dtype = task.K, task.d, np.dtype(task.steps.dtype)
        self._nonzeros = max(task.nonzeros or 1.0, 1.0)
        self.columns, self.team = [(0, self.d)], Team(1)
        self._weights: FeatureMajor | None = None

    def new_weights(self, *, average: bool) -> Weights:
        """Return zeros, the weights of a feature together."""
        self._weights = FeatureMajor(self.K, self.d, self.dtype, average=average)
        return self._weights

    def new_tables(self) -> PartTables:
        """Return what describes rows to its kernel."""
        return PartTables(lambda parts, affine: [ListTables(parts, affine)])

    def lengths(self, penalties: Penalties) -> Lengths:
        """Return how many rows to hand over at once."""
        rows = int(CALL_FLOPS / SHARE / (4 * self.K * self._nonzeros))
        call = max(LEAST_ROWS, min(MOST_ROWS, 1 << max(rows, 1).bit_length() - 1))
        return Lengths(call, max(call, SPAN_ROWS), 2**62)

    def penalise(self, l2: np.ndarray, l1: np.ndarray) -> Penalties:
        """Take over the penalties (d,) that wait for their features; return the one of all."""
        assert self._weights is not None  # made before
        nothing = np.zeros(self.d)
        if np.ptp(l2) <= ALIKE * l2.max(initial=0.0):
            self._weights.wait(nothing, l1)
            return Penalties(self.K, l2, nothing)
        self._weights.wait(l2, l1)
        return Penalties(self.K, nothing, nothing)

    def measure(
        self, weights: Weights, parts: tuple[Part, ...], affine: Affine | None,
        rows: tuple[np.ndarray, np.ndarray, np.ndarray],
    ) -> Tally:  # fmt: skip
        """Return the facts of rows with the weights as they are."""
        order, labels, weight = rows
        tables = ListTables(parts, affine)
        visited = tables.rows(order, labels, weight, weight)
        return Tally(*measure_lists(weights.measured(), self.scratch(tables), visited))

    def squared_norms(
        self, parts: tuple[Part, ...], order: np.ndarray, affine: Affine | None
    ) -> np.ndarray:
        """Return ||x||^2 (n,) float64 of some rows."""
        return squared_norms_of_lists(parts, order, affine, self.dtype)

    def scratch(self, tables: ListTables) -> Lists:
        """Return room for rows of these tables."""
        return new_lists(tables, self.dtype)


def squared_norms_of_lists(
    parts: tuple[Part, ...], order: np.ndarray, affine: Affine | None, dtype: np.dtype
) -> np.ndarray:
    """Return ||x||^2 (n,) float64 of some rows; NaN where it is not finite."""
    tables, norms = ListTables(parts, affine), np.zeros(len(order))
    nothing = np.zeros(0)
    rows = tables.rows(order, np.zeros(0, np.int32), nothing, nothing)
    norms_of_lists(norms, new_lists(tables, dtype), rows)
    return norms
