"""The only place that steps with the weights of a feature in one vector, for few classes."""

from __future__ import annotations

from fastsoftmax.kernels.narrow import descend_narrow, new_narrow
from fastsoftmax.kernels.sizes import is_narrow
from fastsoftmax.optim.rules.rule import Rule, Task, Visit
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class Narrow(Rule):
    """Per-sample SGD row after row, each row's margins taken ahead of the step before it."""

    name = "few classes, some features"
    example = (10, 64, {})
    shrinks = True

    def __init__(self, task: Task, threads: int) -> None:
        """Allocate scratch in which weights lie feature by feature."""
        super().__init__(task, threads)
        self._narrow = new_narrow(self.d, self.dtype)

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether all weights of a feature fit a vector, and rows are not too long."""
        return is_narrow(task.K, task.d)

    def workers(self, K: int, d: int, threads: int) -> int:
        """Return one: each row waits for the one before."""
        return 1

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row."""
        return self.step_alone(descend_narrow, self._narrow, weights, visit)
