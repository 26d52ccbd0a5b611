"""The only place for what a run chooses for itself before its first step: l2 and the step size.

Both are chosen on rows that are at hand, by their effect, and told with their reason.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastsoftmax.facts import dataclass
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.hessian import MOST_WEIGHTS
from fastsoftmax.optim.objective import ElasticNet, Objective, precision
from fastsoftmax.optim.optimizer import (
    Enough,
    OptimizerState,
    begin,
    iterates_by,
    minimise,
    preconditioner_of,
)
from fastsoftmax.optim.passes import LocalPass, PassRows
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sgd import SGD

# C, the inverse of the penalty times the rows: from strong to weak, half a decade at a time.
STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-6, 9))
# Where the search begins where it does not try them all: C = 0.1, or 0.01 where weights are many.
# C = 10 for sparse rows, whose features are many and each in few of them.
USUAL, STRONG, SPARSE = 4, 2, 8
WORSE = 2  # strengths in turn whose loss is above the best: weaker ones will not do better
# Of the loss: less tells no two penalties apart. On digits the test loss is 1.02 times that of the
# best C in place of 1.03, over six splits; on iris, wine and breast_cancer it is as it was.
ALIKE = 0.005
CHANCE = 0.2  # the same of many held-out rows, times the root of how many they are
SAMPLE_FLOPS = 3e8  # of a pass over the rows that l2 is chosen on
SPARSE_FLOPS = 1e9  # the same, for sparse rows: there the best penalty is another for more rows
CURVATURE_FLOPS = 2e9  # of the products of these rows, where all weights have one matrix
ROWS_PER_WEIGHT = 100  # of these rows, at most
LEAST_ROWS = 8000  # of these rows, if there are so many
ENOUGH_ROWS = 20  # for each class, below which rows cannot tell one penalty from another
FOLDS = ((500, 50), (5000, 5), (10**9, 4))  # up to so many rows, so many folds
FOLD_FLOPS = 2e9  # that fits of one strength to all folds may take, about
LEAST_FOLDS = 4  # of which some are then left out
# Of the rows, to which a fit is as good a beginning of full gradients as three epochs of steps, and
# needs no kernels of steps: of twelve sets eight took 0.73 to 0.97 of the processor time from it,
# three 1.03 to 1.05, one 1.3.
NEAR_SHARE = 1 / 8
TRY_ALL = 500  # rows up to which all strengths are tried: there the best one varies much
TOLD_APART = 2000  # rows, below which losses scatter too much to tell what lies between two
ONE_FOLD = 5000  # rows, from which on one fold alone tells enough
THREAD_FLOPS = 1e8  # of a pass, below which one thread does it
SETTLED = 1e-4  # relative gain at which a fit for a comparison ends
NEARLY = 1e-3  # the same, where many weights make passes long: strengths differ by more
PASSES = 60  # of such a fit, at most
STEPS = 2  # of it, at least, which have borne out what was estimated
STALE = 6  # passes of a fit after which the curvature is taken anew for the next ones
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
    nonzeros: float | None = None

    @property
    def row_numbers(self) -> float:
        """How many numbers of a row are met."""
        return float(self.d) if self.nonzeros is None else max(self.nonzeros, 1.0)

    @property
    def has_many_weights(self) -> bool:
        """Whether they are too many for one matrix of curvature."""
        return self.K * (self.d + 1) > MOST_WEIGHTS

    def penalties(self, l2: float) -> ElasticNet:
        """Return the penalties of each feature's weights under an l2."""
        return ElasticNet(l2 * self.units, np.zeros(self.d))

    def objective(self, batch: Batch, l2: float) -> Objective:
        """Return the objective over some rows under a penalty."""
        small = 4 * self.K * self.row_numbers * len(batch.order) < THREAD_FLOPS
        rows = PassRows(
            self.K,
            self.d,
            n=len(batch.order),
            # That of the passes to come, over all rows: another would have to be compiled as well.
            dtype=precision(self.K, self.row_numbers, self.rows, self.dtype),
            threads=1 if small else self.threads,  # a pass is over before a second has begun
            scaling=self.scaling,
            nonzeros=self.nonzeros,
        )
        return Objective(
            LocalPass(rows, lambda: (batch,)),
            self.penalties(l2),
            fit_intercept=self.fit_intercept,
            squares=self.squares,
        )


@dataclass(frozen=True)
class Choice:
    """A value, and why it was taken; theta (K, d + 1): weights that come near the fit under it."""

    value: float
    reason: str
    theta: np.ndarray | None = None


def penalty_rows(K: int, d: int, nonzeros: float | None = None) -> int:
    """Return on how many rows l2 is chosen, at most."""
    if nonzeros is not None:
        return max(1000, int(SPARSE_FLOPS / (4 * K * max(nonzeros, 1.0))))
    some, weights = SAMPLE_FLOPS / (4 * K * d), K * (d + 1)
    if weights <= MOST_WEIGHTS:
        curved = min(ROWS_PER_WEIGHT * weights, CURVATURE_FLOPS / weights**2)
        some = min(some, max(curved, LEAST_ROWS))
    return max(1000, int(some))


def begins_near(K: int, d: int, rows: int) -> bool:
    """Return whether the fit that chose l2, to some of so many rows, is near that to all."""
    some = min(penalty_rows(K, d), rows)
    return some >= ENOUGH_ROWS * K and some >= NEAR_SHARE * rows


class Trials(ABC):
    """Fits of one problem under one strength of the penalty after another, each compared.

    vectors: how many times the penalty of Problem counts. alike: losses that differ by a smaller
    share tell no two penalties apart, however many rows there are. held_rows: on which losses are
    taken, in so many folds. fitted: the mean loss of the rows that were fitted, of each strength so
    far, where fits are to the optimum.
    """

    problem: Problem
    folds: Sequence[Any]
    held_rows: int
    alike = 0.0

    def __init__(self, problem: Problem) -> None:
        self.problem, self.fitted = problem, dict[int, float]()
        # Two classes have two vectors of weights here, half of one each: the penalty counts half.
        self.vectors = 2.0 if problem.K == 2 else 1.0

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End its threads."""

    def expect(self, strengths: Iterable[int]) -> None:
        """Be told whose losses will be asked for."""

    @abstractmethod
    def loss(self, strength: int) -> float:
        """Return the mean loss of rows when they are held out, under STRENGTHS[strength]."""

    @abstractmethod
    def nearest(self, strength: int) -> np.ndarray | None:
        """Return a fit (K, d + 1) to all rows near one under a strength, if there is any."""


def fit_flops(problem: Problem, rows: int) -> float:
    """Return about what a fit takes at most: passes over the rows, each with two systems solved."""
    K, D = problem.K, problem.d + 1
    solved = float(K * D * D) if problem.has_many_weights else float(K * D) ** 2
    return PASSES * (4.0 * rows * K * D + 4.0 * solved)


def choose_l2(
    problem: Problem,
    new_trials: Callable[[Problem, Batch, int, int], Trials] | None = None,
    flops: Callable[[Problem, int], float] = fit_flops,
) -> Choice:
    """Return the l2 under which held-out rows are predicted best, by cross-validation.

    C = 1 / (l2 rows) carries over from a sample to all rows: it is the prior's width. The strongest
    penalty is taken of those whose losses are alike, within chance: a weak one costs more where it
    is wrong.

    new_trials: makes the fits, by full gradients where it is not given. flops: that a fit takes.
    """
    new_trials = new_trials or FullGradientTrials
    sample = _first(problem.sample, penalty_rows(problem.K, problem.d, problem.nonzeros))
    n = len(sample.order)
    if n < 2 or (n < ENOUGH_ROWS * problem.K and n < problem.rows):
        return Choice(1.0 / problem.rows, "C = 1: too few rows at hand to tell penalties apart")
    folds = min(n, next(count for limit, count in FOLDS if n <= limit))
    is_much = n > ONE_FOLD and problem.nonzeros is None
    affordable = 1 if is_much else max(1, int(FOLD_FLOPS / flops(problem, n)))
    folds = folds if affordable >= folds else max(affordable, LEAST_FOLDS)
    with new_trials(problem, sample, folds, min(folds, affordable)) as trial:
        losses = _tried_in_turn(trial) if n <= TRY_ALL else _tried_downhill(trial)
        likely = _likely(losses, trial.fitted)
        best = min(likely, key=lambda i: (likely[i], i))
        share = max(trial.alike, min(ALIKE, CHANCE / math.sqrt(trial.held_rows)))
        alike = likely[best] * (1 + share)  # it may be no number, where a feature is none
        best = next((i for i in sorted(likely) if likely[i] <= alike), best)
        beside = _lowest(likely, best) if n > TOLD_APART else 0.0
        C = STRENGTHS[best] * 10.0 ** (beside / 2)
        told = f"C = {C:.3g}, beside {STRENGTHS[best]:.3g}" if beside else f"C = {C:.3g}"
        reason = (
            f"{told}: log-loss {losses[best]:.4f} on {trial.held_rows:,} held-out rows of {n:,}, in"
            f" {len(trial.folds)} fold(s)"
        )
        return Choice(trial.vectors / (C * problem.rows), reason, trial.nearest(best))


def _likely(losses: dict[int, float], fitted: dict[int, float]) -> dict[int, float]:
    """Return the losses without what they gain by chance, as the losses of fitted rows tell.

    Under a weaker penalty rows that were not fitted gain less in the mean than those that were:
    what they gain beyond that is chance.
    """
    found = dict(losses)
    for stronger, i in pairwise(sorted(losses)):
        if i in fitted:
            found[i] = max(losses[i], found[stronger] - max(fitted[stronger] - fitted[i], 0.0))
    return found


def _lowest(losses: dict[int, float], at: int) -> float:
    """Return how many steps from `at` a parabola through it and those beside it is lowest."""
    below = max((i for i in losses if i < at and math.isfinite(losses[i])), default=at)
    above = min((i for i in losses if i > at and math.isfinite(losses[i])), default=at)
    if not below < at < above:
        return 0.0
    left, right = at - below, above - at
    rise, fall = (losses[above] - losses[at]) / right, (losses[below] - losses[at]) / left
    if rise <= 0 or fall <= 0:  # the strongest of those alike: there is none lower between
        return 0.0
    return (fall * right - rise * left) / (2 * (rise + fall))


def fit_to_some(problem: Problem, l2: float) -> np.ndarray | None:
    """Return the fit (K, d + 1) under an l2 to some of many rows; None where rows are few."""
    sample = _first(problem.sample, penalty_rows(problem.K, problem.d, problem.nonzeros))
    if 2 * len(sample.order) > problem.rows:
        return None
    zeros = np.zeros((problem.K, problem.d + 1))
    with problem.objective(sample, l2) as objective, np.errstate(all="ignore"):
        return minimise(objective, zeros, passes=PASSES, tolerance=SETTLED, memory=problem.memory)


def _tried_in_turn(trial: Trials) -> dict[int, float]:
    """Return the losses of strengths from the strongest on, until weaker ones do no better."""
    losses: dict[int, float] = {}
    for i in range(len(STRENGTHS)):
        losses[i] = trial.loss(i)
        if i - min(losses, key=lambda j: (losses[j], j)) >= WORSE:
            break
    return losses


def _tried_downhill(trial: Trials) -> dict[int, float]:
    """Return the losses of strengths on the way from a usual one to the best.

    They are a decade apart; then half a decade beside the best, where it is likelier lower.
    """
    first = STRONG if trial.problem.has_many_weights else USUAL
    first = first if trial.problem.nonzeros is None else SPARSE
    trial.expect((first, first + 2))
    losses = {first: trial.loss(first)}

    def go(step: int) -> None:
        at = min(losses, key=lambda i: (losses[i], i))
        while 0 <= at + step < len(STRENGTHS):
            if at + step not in losses:
                losses[at + step] = trial.loss(at + step)
            if not losses[at + step] < losses[at] * (1 - trial.alike):
                return
            at += step

    go(2)
    if len(losses) == 2:  # a weaker one is worse
        go(-2)
    best = min(losses, key=lambda i: (losses[i], i))
    below, above = (losses.get(best + step, math.inf) for step in (-2, 2))
    beside = best + (1 if above < below else -1)
    if 0 <= beside < len(STRENGTHS):
        losses[beside] = trial.loss(beside)
    return losses


@dataclass
class _Fold:
    """Rows that are fitted, and rows that are held out meanwhile; share: the weight of these."""

    kept: Objective
    held: Objective
    share: float


class FullGradientTrials(Trials):
    """Fits by full gradients.

    Each goes on from the fit under the strength nearest to its own, and all folds share a
    curvature, that of the rows of all of them: it is taken anew where fits take long with it.
    """

    def __init__(self, problem: Problem, sample: Batch, folds: int, used: int) -> None:
        """folds: into which rows are dealt; used: how many of them are held out in turn."""
        super().__init__(problem)
        zeros = np.zeros((problem.K, problem.d + 1))
        parts = [split(sample, fold, folds) for fold in range(used)]
        self.folds = [
            _Fold(
                problem.objective(kept, 0.0),
                problem.objective(held, 0.0),
                float(held.weight.sum()),
            )
            for kept, held in parts
        ]
        self.held_rows = sum(len(held.order) for _, held in parts)
        self._whole = problem.objective(sample, 0.0) if used > 1 else self.folds[0].kept
        self.theta, self.thetas = zeros, dict[int, np.ndarray]()
        self._curvature = preconditioner_of(self._whole, problem.memory, keeps=True)
        self._is_stale = True

    def close(self) -> None:
        """End its threads."""
        self._curvature.close()
        self._whole.close()
        for fold in self.folds:
            fold.kept.close()
            fold.held.close()

    def loss(self, strength: int) -> float:
        """Return the mean loss of rows when they are held out, under STRENGTHS[strength]."""
        C, whole = STRENGTHS[strength], self._whole
        if self.thetas:
            self.theta = self.nearest(strength)
        with np.errstate(all="ignore"):  # what is not finite is named later on
            at_all = self._fit_whole(C)
        self.thetas[strength] = self.theta
        loss = fitted = weight = 0.0
        for fold in self.folds:
            state = at_all if fold.kept is whole else self._fit(fold.kept, C)
            fold.held.evaluate(state.point.x)
            loss += fold.held.log_loss * fold.share
            fitted += state.log_loss * fold.share
            weight += fold.share
        self.fitted[strength] = fitted / weight
        return loss / weight

    def nearest(self, strength: int) -> np.ndarray:
        """Return the fit (K, d + 1) under the strength nearest to one, of the stronger ones."""
        return self.thetas[min(self.thetas, key=lambda i: (abs(i - strength), i))]

    def _fit_whole(self, C: float) -> OptimizerState:
        """Return the fit to all rows, and have the curvature there where it was far away.

        Where no folds are fitted with it, that is left to the next strength.
        """
        whole = self._whole
        self._penalise(whole, C)
        if self._is_stale:
            self._learn()
        else:
            self._curvature.penalise(whole.l2)
        state = self._fit(whole, C)
        self.theta = state.point.x
        self._is_stale = state.passes >= STALE
        if self._is_stale and self.folds[0].kept is not whole:
            self._learn()
        return state

    def _learn(self) -> None:
        whole, curvature = self._whole, self._curvature
        sample = whole.sample(curvature.sample_rows(whole.n))
        curvature.learn(self.theta, sample, whole.l2, whole.squares)
        self._is_stale = False

    def _penalise(self, objective: Objective, C: float) -> None:
        objective.penalty = self.problem.penalties(self.vectors / (C * objective.n))

    def _fit(self, objective: Objective, C: float) -> OptimizerState:
        self._penalise(objective, C)
        state = begin(objective, self.theta, self.problem.memory)
        is_cheap = len(self.folds) > 1 or not self.problem.has_many_weights
        enough = Enough(PASSES, SETTLED if is_cheap else NEARLY, steps=STEPS)
        for _ in iterates_by(self._curvature, objective, state, enough, learns=False):
            continue
        return state


def _first(batch: Batch, count: int) -> Batch:
    """Return the first rows of a batch that count."""
    return taken(batch, np.flatnonzero(batch.weight > 0)[:count])


def taken(batch: Batch, rows: np.ndarray) -> Batch:
    """Return some rows of a batch, by their places in it."""
    return Batch(batch.parts, *(np.ascontiguousarray(values[rows]) for values in batch[1:]))


def split(batch: Batch, fold: int, folds: int) -> tuple[Batch, Batch]:
    """Return the rows outside and inside a fold; each class is dealt to the folds in turn."""
    places = np.empty(len(batch.labels), np.int64)
    places[np.argsort(batch.labels, kind="stable")] = np.arange(len(places))
    inside = places % folds == fold
    return taken(batch, np.flatnonzero(~inside)), taken(batch, np.flatnonzero(inside))


class Rate(NamedTuple):
    """A constant step size, its progressive loss, and what was said of those compared with it."""

    value: float
    loss: float
    reason: str


def choose_rate(sgd: SGD, sample: Batch, norm: float, shares: Sequence[float] = RATES) -> Rate:
    """Return the constant step size with the lowest progressive loss, each begun at zeros.

    norm: the mean squared norm of the rows, their bias included; steps are shares of its inverse.
    The loss is over the second half of the rows, each taken before the row's own step.
    """
    most = max(1024, int(RATE_FLOPS / (len(RATES) * 4 * sgd.K * sgd.row_numbers)))
    sample = _first(sample, min(RATE_ROWS, most))
    half = len(sample.order) // 2
    first, second = (taken(sample, np.arange(*ends)) for ends in ((0, half), (half, 2 * half)))
    losses = []
    for share in shares:
        sgd.restart()
        loss = math.inf
        eta = np.full(half, share / norm)
        if visit(sgd, first, eta) < math.inf:
            loss = visit(sgd, second, eta)
        losses.append(loss)
    sgd.restart()
    best = int(np.argmin(losses))
    told = ", ".join(
        f"{share / norm:.2g}: {loss:.4f}"
        for share, loss in zip(shares, losses, strict=True)
        if math.isfinite(loss)
    )
    reason = f"the lowest progressive log-loss over {2 * half:,} rows ({told})"
    return Rate(shares[best] / norm, losses[best], reason)


def visit(sgd: SGD, batch: Batch, eta: np.ndarray) -> float:
    """Return the mean loss of rows that take steps (n,); infinite where that went wrong."""
    loss = 0.0
    for start in range(0, len(batch.order), sgd.call_rows):
        some = slice(start, start + sgd.call_rows)
        order, labels, weight = batch.order[some], batch.labels[some], batch.weight[some]
        tally = sgd.step(batch.parts, order, labels, weight, eta[some], ends=True)
        if not (tally.finite and math.isfinite(tally.loss)):
            return math.inf
        loss += tally.loss
    return loss / max(float(batch.weight.sum()), 1e-300)
