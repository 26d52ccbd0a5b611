"""The only place that steps over sparse rows: row after row, on the features that a row has."""

from __future__ import annotations

from fastsoftmax.kernels.sparse import descend_lists
from fastsoftmax.optim.feature_weights import FeatureMajor
from fastsoftmax.optim.rules.rule import Task, Visit
from fastsoftmax.optim.rules.sparse_rule import SparseRule
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class SparseRows(SparseRule):
    """Per-sample SGD row after row."""

    name = "sparse rows"
    example = (3, 5, {})

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether rows are sparse."""
        return task.nonzeros is not None

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row."""
        assert isinstance(weights, FeatureMajor)
        (tables,) = visit.tables
        rows = tables.rows(visit.order, visit.labels, visit.weight, visit.step, visit.bound)
        facts = descend_lists(
            weights.arrays, weights.averaging, weights.waiting, self.scratch(tables), rows,
            visit.l2, visit.bias,
        )  # fmt: skip
        return Tally(*facts)
