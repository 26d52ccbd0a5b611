"""The only place that steps row after row, on one thread: where W is tiny."""

from __future__ import annotations

from fastsoftmax.kernels.rowwise import descend_rowwise
from fastsoftmax.kernels.sizes import is_tiny
from fastsoftmax.optim.rules.rule import Rule, Task, Visit
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class Rowwise(Rule):
    """Per-sample SGD row after row."""

    name = "few classes and features"
    example = (4, 16, {})
    shrinks = True

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether the plain loop is faster than the blocked one."""
        return is_tiny(task.K, task.d)

    def workers(self, K: int, d: int, threads: int) -> int:
        """Return one: each row waits for the one before."""
        return 1

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row."""
        return self.step_alone(descend_rowwise, self.block, weights, visit)
