"""The only place that minimises the objective over all rows: full gradients, preconditioned L-BFGS.

Sums over rows are float64 in a fixed order, so the bits depend on no number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.gradient import FullGradient
from fastsoftmax.optim.lbfgs import Point, Search
from fastsoftmax.optim.preconditioner import Batch, Curvature, choose_matrices, sample_rows
from fastsoftmax.optim.state import array_of, check_alike

# Below this a pass is so short that float64 costs nothing that anyone would notice.
DOUBLE_FLOPS = 1e9
CALL_FLOPS = 4e9  # of rows that are handed to the kernel at once
# The curvature is taken anew after so many iterations: it was taken far from the optimum.
RENEWALS = (4, 12, 30, 60)


def precision(K: int, d: int, n: int, dtype: str) -> str:
    """Return the dtype in which to pass over n rows, where float64 may cost little."""
    return "float64" if 4.0 * K * d * n < DOUBLE_FLOPS else dtype


@dataclass(frozen=True)
class Penalty:
    """l2/2 w^2 + l1 |w| for each weight of a feature, (d,) each, in the units of its weights."""

    l2: np.ndarray
    l1: np.ndarray


@dataclass
class OptimizerState:
    """How far a minimisation has come: the point reached, and what the way on depends on."""

    point: Point
    search: Search
    log_loss: float
    accuracy: float
    learnt_at: np.ndarray  # weights at which the curvature was taken
    learnt: int = 0  # passes before that
    steps: int = 0
    is_over: bool = False

    @property
    def passes(self) -> int:
        """Passes over the rows so far, line search included."""
        return self.search.evaluations

    @property
    def gain(self) -> float:
        """Nats that the optimum is estimated to lie below the objective here."""
        return self.search.gain

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return all that the way on depends on: facts, and arrays by name."""
        facts, arrays = self.search.state()
        facts |= {name: getattr(self, name) for name in _FACTS}
        facts["point"] = [self.point.smooth, self.point.value]
        arrays |= {"x": self.point.x, "gradient": self.point.gradient, "learnt_at": self.learnt_at}
        return facts, arrays

    @classmethod
    def of(
        cls, facts: dict[str, Any], arrays: dict[str, np.ndarray], shape: tuple[int, ...]
    ) -> OptimizerState:
        """Return the journey of this state of weights of this shape; its search has yet to be told
        what it minimises.
        """
        check_alike(facts, {**_FACTS, "point": (0.0, 0.0)})
        smooth, value = facts["point"]
        x, gradient, learnt_at = (
            array_of(arrays, n, shape) for n in ("x", "gradient", "learnt_at")
        )
        return cls(
            Point(x, smooth, gradient, value),
            Search.of(facts, arrays, shape),
            learnt_at=learnt_at,
            **{name: facts[name] for name in _FACTS},
        )


# What its state has beside the point and the search, by its types.
_FACTS: dict[str, Any] = {
    "log_loss": 0.0, "accuracy": 0.0, "learnt": 0, "steps": 0, "is_over": False,
}  # fmt: skip


class Objective:
    """The mean loss over rows that can be visited again and again, plus a penalty.

    rows(): yields Batches, the same at each call. d features and a bias make a row of theta
    (K, d + 1).
    """

    def __init__(
        self,
        K: int,
        d: int,
        rows: Callable[[], Iterable[Batch]],
        penalty: Penalty,
        *,
        n: int,
        dtype: str,
        threads: int,
        conditioning: Scaling | None = None,
        fit_intercept: bool = True,
        squares: np.ndarray | None = None,
    ) -> None:
        """squares (d,): the mean squares of the features as conditioned, where they are known."""
        self.squares = np.zeros(d + 1) if squares is None else np.append(squares, 1.0)
        self.K, self.d, self.n, self._rows, self.penalty = K, d, n, rows, penalty
        self.dtype = dtype
        self.conditioning, self.fit_intercept, self.threads = conditioning, fit_intercept, threads
        self._full = FullGradient(K, d, self.dtype, threads, conditioning)
        self._call_rows = max(1024, int(CALL_FLOPS / (4 * K * d)) // 1024 * 1024)
        self.log_loss = self.accuracy = np.nan
        self.finite = True

    def __enter__(self) -> Objective:
        return self

    def __exit__(self, *error: object) -> None:
        self._full.__exit__(*error)

    @property
    def l2(self) -> np.ndarray:
        """The penalty of each column of theta: none for the bias."""
        return np.append(self.penalty.l2, 0.0)

    def evaluate(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the smooth part of the objective, and its gradient (K, d + 1)."""
        d, total = self.d, 0.0
        self._full.begin(theta[:, :d], theta[:, d])
        loss = hits = 0.0
        for batch in self._rows():
            for start in range(0, len(batch.order), self._call_rows):
                some = slice(start, start + self._call_rows)
                tally = self._full.add(batch.parts, *(values[some] for values in batch[1:]))
                loss += tally.loss
                hits += tally.hits
                self.finite &= tally.finite
            total += float(batch.weight.sum())
        W, b = self._full.gradient()
        self.log_loss, self.accuracy = loss / total, hits / total
        l2, weights = self.penalty.l2, theta[:, :d]
        smooth = self.log_loss + float((l2 * np.square(weights)).sum()) / 2
        gradient = np.concatenate([W / total + l2 * weights, b[:, None] / total], axis=1)
        if not self.fit_intercept:
            gradient[:, d] = 0.0
        return smooth, gradient

    def sample(self) -> Batch:
        """Return the first rows, as many as their curvature is to be taken from."""
        batch = next(iter(self._rows()))
        counted = np.flatnonzero(batch.weight > 0)[: sample_rows(self.d, self.n)]
        return Batch(batch.parts, *(np.ascontiguousarray(v[counted]) for v in batch[1:]))


def minimise(
    objective: Objective,
    theta: np.ndarray,
    *,
    passes: int,
    tolerance: float,
    memory: int,
    journey: OptimizerState | None = None,
    report: Callable[[OptimizerState], bool] | None = None,
) -> OptimizerState:
    """Go from weights (K, d + 1), the bias last, to near the optimum, or on from a journey.

    Ends when the estimated gain is below `tolerance` times the objective, after `passes` over the
    rows, or when report(journey), called after each step, returns True.
    """
    K, d = objective.K, objective.d
    itemsize = np.dtype(objective.dtype).itemsize
    matrices = choose_matrices(K, d, objective.n, memory, itemsize)
    l1 = None
    if objective.penalty.l1.any():
        # Andrew and Gao's projections are onto the orthants of the weights as they are: a matrix
        # would turn the direction out of the orthant.
        matrices, l1 = 0, np.broadcast_to(np.append(objective.penalty.l1, 0.0), (K, d + 1))
    curvature = Curvature(
        K, d, objective.dtype, matrices, objective.threads, objective.conditioning
    )
    with curvature:

        def learn(at: np.ndarray) -> None:
            curvature.learn(at, objective.sample(), objective.l2, objective.squares)

        def precondition(v: np.ndarray) -> np.ndarray:
            # A number added to the weights of all classes changes no probability. Without L1,
            # where it would lead away from zeros, directions stay clear of that.
            w = curvature.apply(v)
            if not objective.fit_intercept:
                w[:, d] = 0.0
            return w if l1 is not None else w - w.mean(axis=0)

        learn(theta if journey is None else journey.learnt_at)
        if journey is None:
            search = Search(objective.evaluate, precondition, l1)
            point = search.start(theta)
            journey = OptimizerState(point, search, objective.log_loss, objective.accuracy, theta)
        else:
            journey.search.resume(objective.evaluate, precondition, l1)
        cost = curvature.passes(objective.n)
        search = journey.search
        while not journey.is_over and search.evaluations < passes and objective.finite:
            if journey.steps in RENEWALS and search.evaluations - journey.learnt >= cost:
                journey.learnt, journey.learnt_at = search.evaluations, journey.point.x
                learn(journey.learnt_at)
            following = search.step(journey.point, passes)
            if following is not None:
                journey.point, journey.steps = following, journey.steps + 1
            journey.log_loss, journey.accuracy = objective.log_loss, objective.accuracy
            enough = search.gain <= tolerance * abs(journey.point.value)
            journey.is_over = following is None or enough
            if report is not None and report(journey):
                break
    return journey
