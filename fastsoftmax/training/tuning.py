"""The only place for what a run chooses for itself before its first step: l2 and the step size.

Both are chosen on rows that are at hand, by their effect, and told with their reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.objective import ElasticNet, Objective, precision
from fastsoftmax.optim.optimizer import minimise
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sgd import SGD

# C, the inverse of the penalty times the rows: from strong to weak, half a decade at a time.
STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-6, 9))
WORSE = 2  # strengths in turn whose loss is above the best: weaker ones will not do better
# Of the loss: less tells no two penalties apart. On digits the test loss is 1.02 times that of the
# best C in place of 1.03, over six splits; on iris, wine and breast_cancer it is as it was.
ALIKE = 0.005
SAMPLE_FLOPS = 3e8  # of a pass over the rows that l2 is chosen on
ENOUGH_ROWS = 20  # for each class, below which rows cannot tell one penalty from another
FOLDS = ((500, 50), (2000, 10), (5000, 5), (10**9, 4))  # up to so many rows, so many folds
FOLD_FLOPS = 4e9  # that fits of one strength to all folds may take, about
LEAST_FOLDS = 4  # of which some are then left out
ONE_FOLD = 5000  # rows, from which on one fold alone tells enough
THREAD_FLOPS = 1e8  # of a pass, below which one thread does it
SETTLED = 1e-4  # relative gain at which a fit for a comparison ends
PASSES = 40  # of such a fit, at most
# Where rows are many each fit goes on from that of the strength before, and takes its time.
NEARLY, FEW_PASSES = 1e-3, 12
RATE_ROWS = 8192  # that step sizes are compared on
RATE_FLOPS = 2e10
RATES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # in units of 1 / (mean squared norm + 1)


@dataclass(frozen=True)
class Problem:
    """Rows at hand, and what is being fitted to them; `units` (d,) turn an l2 into penalties."""

    K: int
    d: int
    rows: int  # of the whole data that take a step
    sample: Batch
    units: np.ndarray
    scaling: Scaling | None
    fit_intercept: bool
    dtype: str
    threads: int
    memory: int
    squares: np.ndarray | None = None

    @property
    def small(self) -> bool:
        """Whether a pass is over before a second thread has begun."""
        return 4 * self.K * self.d * len(self.sample.order) < THREAD_FLOPS

    def objective(self, batch: Batch, l2: float) -> Objective:
        """Return the objective over some rows under a penalty."""
        return Objective(
            self.K,
            self.d,
            lambda: (batch,),
            ElasticNet(l2 * self.units, np.zeros(self.d)),
            n=len(batch.order),
            # That of the passes to come, over all rows: another would have to be compiled as well.
            dtype=precision(self.K, self.d, self.rows, self.dtype),
            threads=1 if self.small else self.threads,
            scaling=self.scaling,
            fit_intercept=self.fit_intercept,
            squares=self.squares,
        )


@dataclass(frozen=True)
class Choice:
    """A value, and why it was taken."""

    value: float
    reason: str


def penalty_rows(K: int, d: int) -> int:
    """Return on how many rows l2 is chosen, at most."""
    return max(1000, int(SAMPLE_FLOPS / (4 * K * d)))


def choose_l2(problem: Problem) -> Choice:
    """Return the l2 under which held-out rows are predicted best, by cross-validation.

    C = 1 / (l2 rows) carries over from a sample to all rows: it is the prior's width. Where rows
    are few, the strongest penalty is taken of those whose losses are alike: a weak one costs more
    where it is wrong.
    """
    some = penalty_rows(problem.K, problem.d)
    sample = _first(problem.sample, some)
    n = len(sample.order)
    if n < ENOUGH_ROWS * problem.K and n < problem.rows:
        return Choice(1.0 / problem.rows, "C = 1: too few rows at hand to tell penalties apart")
    folds = min(n, next(count for limit, count in FOLDS if n <= limit))
    fit = float(n * problem.K * problem.d * (4 * PASSES + 2 * problem.d))
    affordable = max(1, int(FOLD_FLOPS / fit)) if n <= ONE_FOLD else 1
    folds = folds if affordable >= folds else max(affordable, LEAST_FOLDS)
    parts = [_split(sample, fold, folds) for fold in range(min(folds, affordable))]
    thetas = [np.zeros((problem.K, problem.d + 1)) for _ in parts]
    losses: list[float] = []
    # Two classes have two vectors of weights here, half of one each: the penalty counts half.
    vectors = 2.0 if problem.K == 2 else 1.0
    for C in STRENGTHS:
        loss = weight = 0.0
        for fold, (kept, held) in enumerate(parts):
            with problem.objective(kept, vectors / (C * len(kept.order))) as objective:
                thetas[fold] = minimise(
                    objective,
                    thetas[fold],
                    passes=PASSES if len(parts) > 1 else FEW_PASSES,
                    tolerance=SETTLED if len(parts) > 1 else NEARLY,
                    memory=problem.memory,
                )
            with problem.objective(held, 0.0) as objective:
                objective.evaluate(thetas[fold])
                share = float(held.weight.sum())
                loss += objective.log_loss * share
                weight += share
        losses.append(loss / weight)
        best = int(np.argmin(losses))
        if len(losses) - 1 - best >= WORSE:
            break
    if len(parts) > 1:  # few rows
        alike = losses[best] * (1 + ALIKE)  # it may be no number, where a feature is none
        best = next((i for i, loss in enumerate(losses) if loss <= alike), best)
    C = STRENGTHS[best]
    held_out = sum(len(held.order) for _, held in parts)
    reason = (
        f"C = {C:.3g}: log-loss {losses[best]:.4f} on {held_out:,} held-out rows of {n:,}, in"
        f" {len(parts)} fold(s)"
    )
    return Choice(vectors / (C * problem.rows), reason)


def _first(batch: Batch, count: int) -> Batch:
    """Return the first rows of a batch that count."""
    return _taken(batch, np.flatnonzero(batch.weight > 0)[:count])


def _taken(batch: Batch, rows: np.ndarray) -> Batch:
    return Batch(batch.parts, *(np.ascontiguousarray(values[rows]) for values in batch[1:]))


def _split(batch: Batch, fold: int, folds: int) -> tuple[Batch, Batch]:
    """Return the rows outside and inside a fold; each class is dealt to the folds in turn."""
    places = np.empty(len(batch.labels), np.int64)
    places[np.argsort(batch.labels, kind="stable")] = np.arange(len(places))
    inside = places % folds == fold
    return _taken(batch, np.flatnonzero(~inside)), _taken(batch, np.flatnonzero(inside))


def choose_rate(sgd: SGD, sample: Batch, norm: float) -> Choice:
    """Return the constant step size with the lowest progressive loss, each begun at zeros.

    norm: the mean squared norm of the rows, their bias included. The loss is over the second half
    of the rows, each taken before the row's own step.
    """
    most = max(1024, int(RATE_FLOPS / (len(RATES) * 4 * sgd.K * sgd.d)))
    sample = _first(sample, min(RATE_ROWS, most))
    half = len(sample.order) // 2
    first, second = (_taken(sample, np.arange(*ends)) for ends in ((0, half), (half, 2 * half)))
    losses = []
    for share in RATES:
        sgd.restart()
        loss = math.inf
        if _visit(sgd, first, share / norm) < math.inf:
            loss = _visit(sgd, second, share / norm)
        losses.append(loss)
    sgd.restart()
    best = int(np.argmin(losses))
    told = ", ".join(
        f"{share / norm:.2g}: {loss:.4f}"
        for share, loss in zip(RATES, losses, strict=True)
        if math.isfinite(loss)
    )
    return Choice(
        RATES[best] / norm, f"the lowest progressive log-loss over {2 * half:,} rows ({told})"
    )


def _visit(sgd: SGD, batch: Batch, eta: float) -> float:
    """Return the mean loss of rows that each take a step; infinite where that went wrong."""
    loss = 0.0
    for start in range(0, len(batch.order), sgd.call_rows):
        some = slice(start, start + sgd.call_rows)
        order, labels, weight = batch.order[some], batch.labels[some], batch.weight[some]
        step = np.full(len(order), eta)
        tally = sgd.step(batch.parts, order, labels, weight, step, ends=True)
        if not (tally.finite and math.isfinite(tally.loss)):
            return math.inf
        loss += tally.loss
    return loss / max(float(batch.weight.sum()), 1e-300)
