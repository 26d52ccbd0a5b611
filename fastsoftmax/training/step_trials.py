"""The only place that compares penalties by fits made of steps: for rows of few of many features.

There all vectors of full gradients, one number for each class and feature, take longer than a pass
over the rows does; and steps touch the features of a row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from fastsoftmax.optim.lbfgs import VECTOR_BYTES
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.schedules import Schedule
from fastsoftmax.optim.sgd import SGD
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.tuning import (
    STRENGTHS,
    Problem,
    Trials,
    penalty_rows,
    split,
    taken,
    visit,
)

# Of a feature's nonzeros: two loops over twenty pairs of vectors in float64, and what else is as
# long as they, take as long as 22 products of a pass. Steps pay before that: on 8,000 texts of 43
# words, 12,000 in all, 30 epochs end at a test loss of 0.792 after 1.5 s, 64 passes at 0.813 in 26.
VECTORS = 66
# On 8,000 descriptions of packages 20 epochs end 0.5 % above the test loss of the optimum, 40 end
# 0.1 % below it.
LEAST_EPOCHS, MOST_EPOCHS, MANY_ROWS = 4, 30, 10_000
SHORTER = 4  # times as few epochs has a fit that is compared, whose steps fall to 0 as well
STEP_COST = 4.0  # of a fit's products, to those of full gradients: what lies apart takes longer
NONZERO_FLOPS = 200.0  # that finding a feature's weights takes as long as
START_FLOPS = 1e8  # that beginning a fit takes as long as


def vectors_are_long(d: int, rows: int, nonzeros: float | None) -> bool:
    """Return whether weights are so many that combining them is much of what full gradients take,
    beside sums over rows.
    """
    return nonzeros is not None and VECTORS * (d + 1) > max(nonzeros, 1.0) * rows


def steps_pay(K: int, d: int, rows: int, nonzeros: float | None, memory: int) -> bool:
    """Return whether steps are better than full gradients, whose vectors are long or too large."""
    too_large = nonzeros is not None and VECTOR_BYTES * K * (d + 1) > memory // 2
    return too_large or vectors_are_long(d, rows, nonzeros)


def compares_by_steps(learner: Learner, rows: int) -> bool:
    """Return whether l2 is to be chosen, of so many rows that take a step, by fits of steps."""
    some = min(rows, penalty_rows(learner.K, learner.d, learner.nonzeros))
    steps = learner.options.steps
    are_plain = steps.batch_size == 1 and not steps.adaptive and not learner.options.penalty.l1
    is_open = learner.options.penalty.l2 == "auto" and are_plain
    memory = learner.options.reading.memory_bytes
    return is_open and steps_pay(learner.K, learner.d, some, learner.nonzeros, memory)


def planned_epochs(rows: int) -> int:
    """Return how many epochs of steps end a run of so many rows near enough to the optimum."""
    return max(LEAST_EPOCHS, min(MOST_EPOCHS, round(MOST_EPOCHS * (MANY_ROWS / rows) ** (1 / 3))))


def trial_epochs(rows: int) -> int:
    """Return how many epochs of steps a fit to so many rows has that is compared with others."""
    return max(LEAST_EPOCHS, round(planned_epochs(rows) / SHORTER))


def step_flops(problem: Problem, rows: int) -> float:
    """Return about what a fit by steps takes."""
    each = STEP_COST * 4.0 * problem.K + NONZERO_FLOPS
    return START_FLOPS + trial_epochs(rows) * rows * each * problem.row_numbers


class StepTrials(Trials):
    """Fits of one problem by steps, each under one strength of the penalty.

    fresh(l2): an SGD at zeros under penalties l2 (d,). eta0: the step size that they begin with.
    """

    # Weak penalties look better after few epochs than after all that the run takes. On titles of
    # packages C = 32 is 0.1 % better by trial, and 1 % worse in the end, than C = 10.
    alike = 0.002

    def __init__(
        self, problem: Problem, sample: Batch, folds: int, used: int,
        *, fresh: Callable[[np.ndarray], SGD], eta0: float,
    ) -> None:  # fmt: skip
        """folds: into which rows are dealt; used: how many of them are held out in turn."""
        super().__init__(problem)
        self._fresh, self._eta0 = fresh, eta0
        self.folds = [split(sample, fold, folds) for fold in range(used)]
        self.held_rows = sum(len(held.order) for _, held in self.folds)
        # Each fit has weights of its own, of a quarter of the budget together where that can be.
        size = problem.K * (problem.d + 1) * np.dtype(problem.dtype).itemsize
        at_once = min(problem.threads, max(1, problem.memory // (4 * size)))
        self._pool = ThreadPoolExecutor(at_once)
        self._losses: dict[int, list[Future[tuple[float, float]]]] = {}

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown(cancel_futures=True)

    def expect(self, strengths: Iterable[int]) -> None:
        """Begin with fits that will be asked for."""
        for strength in strengths:
            if strength not in self._losses:
                self._losses[strength] = [
                    self._pool.submit(self._held_out, strength, *fold) for fold in self.folds
                ]

    def loss(self, strength: int) -> float:
        """Return the mean loss of rows when they are held out, under STRENGTHS[strength]."""
        self.expect([strength])
        found = [fold.result() for fold in self._losses[strength]]
        return sum(loss for loss, _ in found) / sum(weight for _, weight in found)

    def nearest(self, strength: int) -> None:
        """Return no weights: those of a fit by steps are no better than the run's own."""

    def _held_out(self, strength: int, kept: Batch, held: Batch) -> tuple[float, float]:
        """Return the loss of held-out rows after a fit to the others, and their weight."""
        l2 = self.vectors / (STRENGTHS[strength] * len(kept.order))
        with self._fresh(l2 * self.problem.units) as sgd, np.errstate(all="ignore"):
            n = len(kept.order)
            epochs = trial_epochs(n)
            schedule = Schedule("linear", self._eta0, float(epochs * n), float(n))
            for epoch in range(epochs):
                order = np.random.Generator(np.random.Philox(epoch)).permutation(n)
                visit(sgd, taken(kept, order), schedule(epoch * n + np.arange(n)))
            loss = sum(tally.loss for _, tally in sgd.measured(*held))
        return loss, float(held.weight.sum())
