"""The only place that steps over sparse rows by AdaGrad: a feature has a step size of its own."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.by_feature import L1, L2
from fastsoftmax.kernels.sparse_adagrad import FeatureSquares, descend_list_adagrad
from fastsoftmax.optim.feature_weights import FeatureMajor
from fastsoftmax.optim.penalties import Penalties
from fastsoftmax.optim.rules.adagrad import UNIT
from fastsoftmax.optim.rules.rule import Task, Visit
from fastsoftmax.optim.rules.sparse_rule import SparseRule
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class SparseAdaGrad(SparseRule):
    """AdaGrad row after row; penalties of whatever kind wait until a feature is met."""

    name = "sparse AdaGrad"
    example = (3, 5, {"adaptive": True})

    def __init__(self, task: Task, threads: int) -> None:
        """Allocate the sums of squared gradients."""
        super().__init__(task, threads)
        d = self.d
        self._squares = FeatureSquares(np.zeros(d), np.zeros(1), np.zeros(d), np.zeros(d))

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether rows are sparse and each feature is to have its own step size."""
        return task.nonzeros is not None and bool(task.steps.adaptive)

    def penalise(self, l2: np.ndarray, l1: np.ndarray) -> Penalties:
        """Take over all penalties."""
        assert self._weights is not None  # made before
        self._squares.l2[:], self._squares.l1[:] = l2, l1
        self._weights.wait(l2, l1, stays=False)
        self._share_out()
        return Penalties(self.K, np.zeros(self.d), np.zeros(self.d))

    def unit(self, norm: float) -> float:
        """Return a number that depends on no row: each gradient is divided by its own size."""
        return UNIT

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row."""
        assert isinstance(weights, FeatureMajor)
        (tables,) = visit.tables
        rows = tables.rows(visit.order, visit.labels, visit.weight, visit.eta)
        facts = descend_list_adagrad(
            weights.arrays, weights.averaging, weights.waiting, self._squares, self.scratch(tables),
            rows, visit.bias,
        )  # fmt: skip
        return Tally(*facts)

    def restart(self) -> None:
        """Forget the gradients."""
        self._squares.G[:], self._squares.b[:] = 0.0, 0.0
        self._share_out()

    def views(self) -> dict[str, np.ndarray]:
        """Return the sums of squared gradients, and the penalties that follow from them."""
        own = {"squares": self._squares.G, "squares_b": self._squares.b}
        if self._weights is not None and self._weights.waiting is not None:
            waiting = self._weights.waiting
            own |= {"own_l2": waiting[:, L2], "own_l1": waiting[:, L1]}
        return own

    def _share_out(self) -> None:
        """Have penalties act as each feature's step size has them."""
        if self._weights is None or self._weights.waiting is None:
            return
        G, waiting = self._squares.G, self._weights.waiting
        share = np.divide(1.0, np.sqrt(G), out=np.zeros(self.d), where=G > 0)
        waiting[:, L2], waiting[:, L1] = self._squares.l2 * share, self._squares.l1 * share
