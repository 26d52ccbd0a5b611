"""The only place that steps where workers share the features: few classes, many features."""

from __future__ import annotations

from fastsoftmax.kernels.panels import descend_panels, new_panels, panel_columns
from fastsoftmax.kernels.sizes import has_panels, panel_count
from fastsoftmax.optim.rules.rule import Rule, Task, Visit
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class Panels(Rule):
    """Exact per-sample SGD in blocks; each worker has panels of features, and sums of its own."""

    name = "few classes, many features"
    example = (10, 784, {})
    shrinks = True

    def __init__(self, task: Task, threads: int) -> None:
        """Allocate scratch for the panels of each worker."""
        super().__init__(task, threads)
        self._panels = new_panels(self.K, self.d, self.dtype, self.team.size)

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether a class each would be too little to share."""
        return has_panels(task.K, task.d)

    def workers(self, K: int, d: int, threads: int) -> int:
        """Return one for each panel, if there are threads."""
        return min(threads, panel_count(d))

    def cut(self, workers: int) -> list[tuple[int, int]]:
        """Return the features of each worker's panels."""
        return [panel_columns(self.d, worker, workers) for worker in range(workers)]

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row."""
        team = self.team
        rows = [visit.rows(worker) for worker in range(team.size)]
        sums = weights.sums or [None] * team.size
        return Tally(
            *team.run(
                lambda worker: descend_panels(
                    weights.arrays, sums[worker], self._panels, rows[worker],
                    visit.l2, visit.own, visit.bias, team.barrier, worker, team.size,
                )
            )
        )  # fmt: skip
