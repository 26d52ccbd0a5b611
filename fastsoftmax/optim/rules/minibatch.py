"""The only place that steps batch by batch, with the mean gradient of its rows."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.minibatch import STEPS, descend_minibatch, new_gradient
from fastsoftmax.kernels.operands import Rows
from fastsoftmax.optim.rules.rule import CALL_FLOPS, SUMMED_ROWS, Rule, Task, Visit, summed_length
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights


class MiniBatch(Rule):
    """Mini-batch SGD: the gradient of a batch is accumulated in place, across calls."""

    name = "mini-batches"
    example = (10, 16, {"batch_size": 64})
    numbers = 2

    def __init__(self, task: Task, threads: int) -> None:
        """Allocate the gradient of the batch at hand."""
        super().__init__(task, threads)
        self._batch_size = task.steps.batch_size
        self._gradient = new_gradient(self.K, self.d, self.dtype)

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether a step has several rows."""
        return task.steps.batch_size > 1

    def shortened(self, call: int, span: int) -> tuple[int, int]:
        """Return lengths at which sums that each batch adds W to keep their digits."""
        call = summed_length(call, self.block_rows, self.K, self.d, CALL_FLOPS)
        return call, min(span, SUMMED_ROWS)

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per batch."""
        rows = Rows(visit.tables[0], visit.order, visit.labels, visit.weight, visit.eta)
        team = self.team
        sums = weights.sums[0] if weights.sums else None
        return Tally(
            *team.run(
                lambda worker: descend_minibatch(
                    weights.arrays, self._gradient, sums, self.block, rows, self._batch_size,
                    visit.ends, visit.l2, visit.bias, team.barrier, worker, team.size,
                )
            )
        )  # fmt: skip

    def counted(self, visit: Visit) -> int:
        """Return how many batches closed in the last call."""
        steps = int(self._gradient.facts[STEPS])
        self._gradient.facts[STEPS] = 0
        return steps

    def views(self) -> dict[str, np.ndarray]:
        """Return the gradient and facts of a batch that goes on in the next call."""
        W, b, facts = self._gradient
        return {"gradient_W": W[:, : self.d], "gradient_b": b[0, : self.K], "batch": facts}
