"""The only place that steps block by block, at matrix-product speed: any classes and features."""

from __future__ import annotations

from fastsoftmax.kernels.blocks import descend_blocks
from fastsoftmax.optim.rules.rule import Rule, Task, Visit
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class Blocks(Rule):
    """Exact per-sample SGD in blocks; workers share the classes."""

    name = "many classes"
    example = (100, 64, {})

    @staticmethod
    def fits(task: Task) -> bool:
        """Return True: it is the last of the list."""
        return True

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row."""
        rows, team = visit.rows(), self.team
        sums = weights.sums[0] if weights.sums else None
        return Tally(
            *team.run(
                lambda worker: descend_blocks(
                    weights.arrays, sums, self.block, rows,
                    visit.l2, visit.bias, team.barrier, worker, team.size,
                )
            )
        )  # fmt: skip
