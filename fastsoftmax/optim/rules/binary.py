"""The only place that steps on the difference of two classes' weights."""

from __future__ import annotations

from fastsoftmax.kernels.binary import descend_binary
from fastsoftmax.kernels.sizes import is_tiny
from fastsoftmax.optim.rules.rule import Rule, Task, Visit
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class Binary(Rule):
    """Per-sample SGD row after row for two classes, whose softmax is one sigmoid."""

    name = "two classes, few features"
    example = (2, 16, {})
    shrinks = True

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether there are two classes, and the plain loop is faster."""
        return task.K == 2 and is_tiny(task.K, task.d)

    def workers(self, K: int, d: int, threads: int) -> int:
        """Return one: each row waits for the one before."""
        return 1

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row."""
        return self.step_alone(descend_binary, self.block, weights, visit)
