"""The only place for L-BFGS: directions, line search, and the estimate of what is left to gain.

Nocedal and Wright, Numerical Optimization, 2nd ed. 2006, algorithm 7.4; with an L1 penalty
OWL-QN: Andrew and Gao, Scalable training of L1-regularized log-linear models, ICML 2007.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastsoftmax.optim.state import array_of, check_alike

SUFFICIENT = 1e-4  # Armijo: of the decrease that the slope promises
HISTORY = 20  # pairs of steps and gradient changes
HALVINGS = 30
TREND = 5  # iterations whose decrease is extrapolated
# What the state of a search has beside `gain`, which may be None, by its types.
STORED: dict[str, Any] = {
    "evaluations": 0, "share": 0.0, "values": [0.0], "curvatures": [0.0],
}  # fmt: skip


@dataclass
class Point:
    """Where the search stands: x, the smooth objective and its gradient there, and the whole."""

    x: np.ndarray
    smooth: float
    gradient: np.ndarray
    value: float


@dataclass
class Search:
    """A search for the x (any shape) that minimises a smooth convex function plus sum(l1 |x|).

    evaluate(x): value and gradient of the smooth part. precondition(v): an approximation of the
    inverse Hessian times v. l1: an array of the shape of x, or None.
    """

    evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]]
    precondition: Callable[[np.ndarray], np.ndarray]
    l1: np.ndarray | None = None
    evaluations: int = 0
    gain: float = np.inf  # what the optimum is estimated to lie below the present value
    _pairs: list[tuple[np.ndarray, np.ndarray, float]] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)
    _share: float = 1.0  # of what `precondition` says, as the last step's curvature has it

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return all that the next step depends on: facts, and arrays by name."""
        facts = {
            "evaluations": self.evaluations,
            "gain": self.gain if np.isfinite(self.gain) else None,
            "share": self._share,
            "values": self._values[-2 * TREND - 1 :],
            "curvatures": [curvature for _, _, curvature in self._pairs],
        }
        arrays: dict[str, np.ndarray] = {}
        for i, (s, y, _) in enumerate(self._pairs):
            arrays |= {f"s{i}": s, f"y{i}": y}
        return facts, arrays

    @classmethod
    def of(
        cls, facts: dict[str, Any], arrays: dict[str, np.ndarray], shape: tuple[int, ...]
    ) -> Search:
        """Return the search of this state, to be told by `resume` what it minimises."""
        check_alike(facts, STORED)
        search = cls(_unknown, _unknown)
        search.evaluations, search._share = facts["evaluations"], facts["share"]
        if not (search._share > 0 and all(curvature > 0 for curvature in facts["curvatures"])):
            raise ValueError("curvatures are positive")
        search.gain = np.inf if facts["gain"] is None else facts["gain"]
        search._values = list(facts["values"])
        search._pairs = [
            (array_of(arrays, f"s{i}", shape), array_of(arrays, f"y{i}", shape), curvature)
            for i, curvature in enumerate(facts["curvatures"])
        ]
        if not all(s.any() and y.any() for s, y, _ in search._pairs):
            raise ValueError("there are steps that go nowhere")
        return search

    def resume(self, evaluate: Any, precondition: Any, l1: np.ndarray | None) -> None:
        """Go on with these."""
        self.evaluate, self.precondition, self.l1 = evaluate, precondition, l1

    def start(self, x: np.ndarray) -> Point:
        """Return the point at x."""
        point = self._at(x)
        self._values = [point.value]
        return point

    def step(self, point: Point, most: int) -> Point | None:
        """Return the next point; None where there is none below, or after `most` evaluations."""
        slope = self._slope(point)
        direction = self._direction(point, slope)
        promised = _dot(slope, direction)
        if not promised < 0:
            if not self._pairs:
                self.gain = 0.0
                return None
            self._pairs.clear()
            direction = self._direction(point, slope)
            promised = _dot(slope, direction)
        if not promised < 0:
            self.gain = 0.0
            return None
        # Where steps turn out shorter than promised, the promise was of a part of what is left.
        self.gain = max(-promised / (2 * min(self._share, 1.0)), self._extrapolated())
        found = self._search_line(point, slope, direction, promised, most)
        if found is None:
            return None
        s, y = found.x - point.x, found.gradient - point.gradient
        curvature = _dot(s, y)
        if curvature > np.finfo(float).eps * np.sqrt(_dot(s, s) * _dot(y, y)):
            self._pairs.append((s, y, curvature))
            del self._pairs[: max(0, len(self._pairs) - HISTORY)]
            expected = _dot(y, self.precondition(y))
            if expected > 0:  # so small numbers may have a product of 0
                self._share = curvature / expected
        self._values.append(found.value)
        return found

    def _at(self, x: np.ndarray) -> Point:
        smooth, gradient = self.evaluate(x)
        self.evaluations += 1
        value = smooth if self.l1 is None else smooth + float((self.l1 * np.abs(x)).sum())
        return Point(x, smooth, gradient, value)

    def _slope(self, point: Point) -> np.ndarray:
        """Return the gradient; with L1 the one of steepest descent, 0 where x stays at 0."""
        if self.l1 is None:
            return point.gradient
        g, l1 = point.gradient, self.l1
        at_zero = np.sign(g) * np.maximum(np.abs(g) - l1, 0.0)
        return np.where(point.x == 0, at_zero, g + l1 * np.sign(point.x))

    def _direction(self, point: Point, slope: np.ndarray) -> np.ndarray:
        """Return - H slope, H the approximate inverse Hessian (the two-loop recursion)."""
        q = slope.copy()
        shares = []
        for s, y, curvature in reversed(self._pairs):
            share = _dot(s, q) / curvature
            shares.append(share)
            q -= share * y
        q = self._share * self.precondition(q)
        for (s, y, curvature), share in zip(self._pairs, reversed(shares), strict=True):
            q += (share - _dot(y, q) / curvature) * s
        direction = -q
        if self.l1 is not None:  # only where it goes downhill
            direction[(direction * slope >= 0) & (self.l1 > 0)] = 0.0
        return direction

    def _search_line(
        self, point: Point, slope: np.ndarray, direction: np.ndarray, promised: float, most: int
    ) -> Point | None:
        length = 1.0
        for _ in range(HALVINGS):
            if self.evaluations >= most:
                return None
            x = point.x + length * direction
            expected = length * promised
            if self.l1 is not None:  # no weight crosses 0
                orthant = np.where(point.x != 0, np.sign(point.x), -np.sign(slope))
                x[(x * orthant <= 0) & (self.l1 > 0)] = 0.0
                expected = _dot(slope, x - point.x)
            found = self._at(x)
            if found.value <= point.value + SUFFICIENT * expected:
                return found
            rise = found.value - point.value - expected
            best = -expected / (2 * rise) if np.isfinite(rise) and rise > 0 else 0.1
            if not abs(found.value - point.value) > 1e-14 * abs(point.value):
                return None  # rounding is all that is left
            length *= min(0.5, max(0.1, best))
        return None

    def _extrapolated(self) -> float:
        """Return what a geometric series of the last decreases still adds up to."""
        if len(self._values) <= 2 * TREND:
            return 0.0
        before, middle, now = (self._values[-1 - i * TREND] for i in (2, 1, 0))
        older, newer = before - middle, middle - now
        if older <= 0 or newer <= 0:
            return 0.0
        ratio = min(newer / older, 0.95)
        return newer * ratio / (1 - ratio)


def _unknown(x: np.ndarray) -> Any:
    raise NotImplementedError("the search has not been told what it minimises")


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """Return the sum of products; NumPy's own loops, whose order depends on no thread."""
    return float(np.einsum("i,i->", a.ravel(), b.ravel()))
