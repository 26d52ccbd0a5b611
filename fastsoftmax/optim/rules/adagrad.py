"""The only place that steps by AdaGrad: each weight has a step size of its own."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.adagrad import LEAST, descend_adagrad
from fastsoftmax.kernels.operands import Rows, new_coefficients
from fastsoftmax.kernels.workspace import aligned
from fastsoftmax.optim.penalties import Penalties
from fastsoftmax.optim.rules.rule import SUMMED_ROWS, Rule, Task, Visit, summed_length
from fastsoftmax.optim.tally import Tally
from fastsoftmax.optim.weights import Weights

CALL_FLOPS = 5e8  # divisions and roots take longer than products
UNIT = 30.0  # in the place of a norm: steps are sizes of weights


class AdaGrad(Rule):
    """AdaGrad row after row; the kernel applies penalties of features' own itself."""

    name = "AdaGrad"
    example = (10, 16, {"adaptive": True})
    numbers = 2

    def __init__(self, task: Task, threads: int) -> None:
        """Allocate the sums of squared gradients."""
        super().__init__(task, threads)
        self._squares = new_coefficients(self.K, self.d, self.dtype)
        self._penalties = aligned((2, 1, self._squares.W.shape[1]), self.dtype)
        self.restart()

    @staticmethod
    def fits(task: Task) -> bool:
        """Return whether each weight is to have its own step size."""
        return bool(task.steps.adaptive)

    def workers(self, K: int, d: int, threads: int) -> int:
        """Return one: each row waits for the one before."""
        return 1

    def shortened(self, call: int, span: int) -> tuple[int, int]:
        """Return lengths at which sums that each row adds W to keep their digits."""
        call = summed_length(call, self.block_rows, self.K, self.d, CALL_FLOPS)
        return call, min(span, SUMMED_ROWS)

    def penalise(self, l2: np.ndarray, l1: np.ndarray) -> Penalties:
        """Take over all penalties."""
        self._penalties[0, 0, : self.d], self._penalties[1, 0, : self.d] = l2, l1
        return Penalties(self.K, np.zeros(self.d), np.zeros(self.d))

    def unit(self, norm: float) -> float:
        """Return a number that depends on no row: each gradient is divided by its own size."""
        return UNIT

    def step(self, weights: Weights, visit: Visit) -> Tally:
        """Take one step per row."""
        rows = Rows(visit.tables[0], visit.order, visit.labels, visit.weight, visit.eta)
        sums = weights.sums[0] if weights.sums else None
        l2, l1 = self._penalties
        facts = descend_adagrad(
            weights.arrays, self._squares, sums, self.block, rows, l2, l1, visit.bias
        )
        return Tally(*facts)

    def restart(self) -> None:
        """Forget the gradients."""
        self._squares.W[:], self._squares.b[:] = LEAST, LEAST

    def shared(self) -> dict[str, np.ndarray]:
        """Return the sums of squared gradients."""
        return self.views()

    def views(self) -> dict[str, np.ndarray]:
        """Return the sums of squared gradients."""
        W, b = self._squares.W[:, : self.d], self._squares.b[0, : self.K]
        return {"squares_W": W, "squares_b": b}
