"""The only place that steps over sparse rows in batches, by the mean gradient of their rows."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.sparse_batches import descend_list_batches, new_feature_gradient
from fastsoftmax.optim.feature_weights import FeatureMajor
from fastsoftmax.optim.rules.rule import Task, Visit
from fastsoftmax.optim.rules.sparse_rule import SparseRule
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class SparseBatches(SparseRule):
    """Mini-batch SGD, in which a batch touches the weights of its rows' features alone."""

    name = "sparse mini-batches"
    example = (3, 5, {"batch_size": 16})
    numbers = 2

    def __init__(self, task: Task, threads: int) -> None:
        """Allocate the gradient of the batch at hand."""
        super().__init__(task, threads)
        self._batch_size = task.steps.batch_size
        self._gradient = new_feature_gradient(self.K, self.d, self.dtype, mirrored=self.K == 2)

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether rows are sparse and a step has several."""
        return task.nonzeros is not None and task.steps.batch_size > 1

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per batch."""
        assert isinstance(weights, FeatureMajor)
        self._follow(weights)
        (tables,) = visit.tables
        rows = tables.rows(visit.order, visit.labels, visit.weight, visit.eta)
        facts = descend_list_batches(
            weights.arrays, weights.averaging, weights.waiting, self._gradient,
            self.scratch(tables), rows, self._batch_size, visit.ends, visit.l2, visit.bias,
        )  # fmt: skip
        return Tally(*facts)

    def restart(self) -> None:
        """Forget the batch at hand."""
        for sums in self._gradient:
            sums[:] = 0

    def views(self) -> dict[str, np.ndarray]:
        """Return the gradient and facts of a batch that goes on in the next call."""
        if self._weights is not None:
            self._follow(self._weights)
        G, b, touched, is_touched, facts = self._gradient
        K = self.K
        own = {"gradient_V": G[:, :K], "gradient_b": b[0, :K], "batch": facts}
        return own | {"touched": touched, "is_touched": is_touched}

    def _follow(self, weights: FeatureMajor) -> None:
        """Keep gradients of both classes, or of one, as the weights are kept."""
        old = self._gradient
        if (old.G.shape[1] == 1) == weights.is_mirrored:
            return
        self._gradient = new_feature_gradient(
            self.K, self.d, self.dtype, mirrored=weights.is_mirrored
        )
        for there, here in zip(old[1:], self._gradient[1:], strict=True):
            here[:] = there
        self._gradient.G[:, :1] = old.G[:, :1]
        if not weights.is_mirrored:
            self._gradient.G[:, 1:2] = -old.G
