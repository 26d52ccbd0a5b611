"""The only place that steps a block while the one before is still brought into W."""

from __future__ import annotations

from fastsoftmax.kernels.lookahead import descend_lookahead, new_turns, other_turn
from fastsoftmax.kernels.sizes import looks_ahead
from fastsoftmax.optim.rules.rule import Rule, Task, Visit
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class Lookahead(Rule):
    """Exact per-sample SGD in blocks, for some hundreds of classes and features or more."""

    name = "many classes and features"
    example = (600, 512, {})

    def __init__(self, task: Task, threads: int) -> None:
        """Allocate scratch for every other block as well."""
        super().__init__(task, threads)
        self._turns = new_turns(self.K, self.d, self.dtype, self.block_rows, self.team.size)

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether what it adds to the work is little."""
        return looks_ahead(task.K, task.d)

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row."""
        rows, team = visit.rows(), self.team
        even = weights.sums[0] if weights.sums else None
        odd = other_turn(even)
        return Tally(
            *team.run(
                lambda worker: descend_lookahead(
                    weights.arrays, even, odd, *self._turns, rows,
                    visit.l2, visit.bias, team.barrier, worker, team.size,
                )
            )
        )  # fmt: skip
