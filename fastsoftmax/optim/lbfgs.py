"""The only place for L-BFGS: directions, line search, and the estimate of what is left to gain.

Nocedal and Wright, Numerical Optimization, 2nd ed. 2006, algorithm 7.4; with an L1 penalty
OWL-QN: Andrew and Gao, Scalable training of L1-regularized log-linear models, ICML 2007.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import NamedTuple

import numpy as np

from fastsoftmax.facts import dataclass
from fastsoftmax.optim.state import array

SUFFICIENT = 1e-4  # Armijo: of the decrease that the slope promises
HISTORY = 20  # pairs of steps and gradient changes
VECTOR_BYTES = 8 * (2 * HISTORY + 12)  # of each weight: these pairs, and a few vectors more
HALVINGS = 30
UNSURE = 0.3  # share of an estimate of the gain, by which another may differ from it
TREND = 5  # iterations whose decrease is extrapolated


@dataclass
class Point:
    """Where the search stands: x, the smooth objective and its gradient there, and the whole."""

    smooth: float
    value: float
    x: np.ndarray = array("K", "columns")
    gradient: np.ndarray = array("K", "columns")


@dataclass
class Pair:
    """A step s, the change y of the gradient along it, and their product, the curvature."""

    curvature: float
    s: np.ndarray = array("K", "columns")
    y: np.ndarray = array("K", "columns")

    def __post_init__(self) -> None:
        """Raise ValueError for a step that goes nowhere."""
        if not (self.curvature > 0 and self.s.any() and self.y.any()):
            raise ValueError("there are steps that go nowhere")


@dataclass
class Memory:
    """What the next step of a search depends on, beside the point.

    gain: what the optimum is estimated to lie below the present value; None where nobody knows.
    missed: by which share of it the estimate before differed from what its step gained and left.
    values: the last ones. share: of what the preconditioner says, as the last step's curvature has
    it.
    """

    evaluations: int = 0
    gain: float | None = None
    missed: float = 1.0
    pairs: list[Pair] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    share: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError where the share is not positive."""
        if not self.share > 0:
            raise ValueError("curvatures are positive")

    def note(self, value: float) -> None:
        """Keep a value, and of those before as many as are looked at again."""
        self.values.append(value)
        del self.values[: -2 * TREND - 1]


class _Ahead(NamedTuple):
    """Where a search goes from a point: the slope there, a direction, their product, the gain."""

    point: Point
    slope: np.ndarray
    direction: np.ndarray
    promised: float
    gain: float


class LBFGS:
    """A search for the x (any shape) that minimises a smooth convex function plus sum(l1 |x|).

    evaluate(x): value and gradient of the smooth part. precondition(v, ...): an approximation of
    the inverse Hessian times each of one or two arrays. l1: an array of the shape of x, or None.
    memory: of an earlier search to go on with; it changes with each step.
    """

    def __init__(
        self,
        evaluate: Callable[[np.ndarray], tuple[float, np.ndarray]],
        precondition: Callable[..., Sequence[np.ndarray]],
        l1: np.ndarray | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._evaluate, self._precondition, self._l1 = evaluate, precondition, l1
        self.memory = Memory() if memory is None else memory
        self._ahead: _Ahead | None = None
        self._newest: Pair | None = None  # until its curvature is compared with what was expected

    def start(self, x: np.ndarray) -> Point:
        """Return the point at x."""
        point = self._at(x)
        self.memory.values = [point.value]
        return point

    def forget(self) -> None:
        """Think anew where to go: the preconditioner is another."""
        self._ahead = None

    def begin_anew(self) -> None:
        """Forget all steps: what they told of the curvature is not to be seen any more."""
        self._ahead, self._newest, memory = None, None, self.memory
        memory.gain, memory.missed, memory.share = None, 1.0, 1.0
        memory.pairs.clear()

    def assess(self, point: Point) -> _Ahead | None:
        """Return where to go from a point, and what that may gain; None: nothing lies below.

        The decrement of Newton's method, - slope direction / 2, is what a quadratic would gain.
        """
        if self._ahead is not None and self._ahead.point is point:
            return self._ahead
        memory, slope = self.memory, self._slope(point)
        direction = self._direction(point, slope)
        promised = _dot(slope, direction)
        if not promised < 0 and memory.pairs:
            memory.pairs.clear()
            direction = self._direction(point, slope)
            promised = _dot(slope, direction)
        if not promised < 0:
            memory.gain = 0.0
            return None
        # Where steps turn out shorter than promised, the promise was of a part of what is left.
        gain = max(-promised / (2 * min(memory.share, 1.0)), _extrapolated(memory.values))
        self._ahead = _Ahead(point, slope, direction, promised, gain)
        if memory.gain is None and np.isfinite(gain):
            memory.gain = gain
        return self._ahead

    def step(self, point: Point, most: int) -> Point | None:
        """Return the next point; None where there is none below, or after `most` evaluations."""
        ahead = self.assess(point)
        if ahead is None:
            return None
        found = self._search_line(ahead, most)
        if found is None:
            return None
        memory = self.memory
        self._learn(found.x - point.x, found.gradient - point.gradient)
        memory.note(found.value)
        following = self.assess(found)
        if following is not None:
            left = ahead.gain - (point.value - found.value)
            memory.missed = min(abs(following.gain - left) / ahead.gain, 1.0)
            # Of two estimates that are so unlike, the larger.
            gain = max(following.gain, left) if memory.missed > UNSURE else following.gain
            memory.gain = gain if np.isfinite(gain) else None
        return found

    def _learn(self, s: np.ndarray, y: np.ndarray) -> None:
        """Keep a step and the change of the gradient along it, where they tell of a curvature."""
        memory, curvature = self.memory, _dot(s, y)
        if not curvature > np.finfo(float).eps * np.sqrt(_dot(s, s) * _dot(y, y)):
            return
        self._newest = Pair(curvature, s, y)
        memory.pairs.append(self._newest)
        del memory.pairs[: max(0, len(memory.pairs) - HISTORY)]

    def _at(self, x: np.ndarray) -> Point:
        smooth, gradient = self._evaluate(x)
        self.memory.evaluations += 1
        value = smooth if self._l1 is None else smooth + float((self._l1 * np.abs(x)).sum())
        return Point(smooth, value, x, gradient)

    def _slope(self, point: Point) -> np.ndarray:
        """Return the gradient; with L1 the one of steepest descent, 0 where x stays at 0."""
        if self._l1 is None:
            return point.gradient
        g, l1 = point.gradient, self._l1
        at_zero = np.sign(g) * np.maximum(np.abs(g) - l1, 0.0)
        return np.where(point.x == 0, at_zero, g + l1 * np.sign(point.x))

    def _direction(self, point: Point, slope: np.ndarray) -> np.ndarray:
        """Return - H slope, H the approximate inverse Hessian (the two-loop recursion)."""
        q, pairs = slope.copy(order="K"), self.memory.pairs
        room = np.empty_like(q)  # new memory for each product would take longer than the product
        shares = []
        for pair in reversed(pairs):
            share = _dot(pair.s, q) / pair.curvature
            shares.append(share)
            q -= np.multiply(share, pair.y, out=room)
        q = self._preconditioned(q)
        for pair, share in zip(pairs, reversed(shares), strict=True):
            q += np.multiply(share - _dot(pair.y, q) / pair.curvature, pair.s, out=room)
        direction = -q
        if self._l1 is not None:  # only where it goes downhill
            direction[(direction * slope >= 0) & (self._l1 > 0)] = 0.0
        return direction

    def _preconditioned(self, q: np.ndarray) -> np.ndarray:
        """Return q preconditioned, times the share of it that the last step's curvature has.

        Both vectors at once: what a preconditioner is made of is read but once.
        """
        memory, pair = self.memory, self._newest
        if pair is None:
            return memory.share * self._precondition(q)[0]
        found, change = self._precondition(q, pair.y)
        self._newest, expected = None, _dot(pair.y, change)
        if expected > 0:  # so small numbers may have a product of 0
            memory.share = pair.curvature / expected
        return memory.share * found

    def _search_line(self, ahead: _Ahead, most: int) -> Point | None:
        point, slope, direction, promised, _ = ahead
        length = 1.0
        for _ in range(HALVINGS):
            if self.memory.evaluations >= most:
                return None
            x = point.x + length * direction
            expected = length * promised
            if self._l1 is not None:  # no weight crosses 0
                orthant = np.where(point.x != 0, np.sign(point.x), -np.sign(slope))
                x[(x * orthant <= 0) & (self._l1 > 0)] = 0.0
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


def _extrapolated(values: list[float]) -> float:
    """Return what a geometric series of the last decreases still adds up to."""
    if len(values) <= 2 * TREND:
        return 0.0
    before, middle, now = (values[-1 - i * TREND] for i in (2, 1, 0))
    older, newer = before - middle, middle - now
    if older <= 0 or newer <= 0:
        return 0.0
    ratio = min(newer / older, 0.95)
    return newer * ratio / (1 - ratio)


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """Return the sum of products; NumPy's own loops, whose order depends on no thread."""
    if a.flags.f_contiguous and b.flags.f_contiguous:  # feature by feature: no copies
        a, b = a.T, b.T
    return float(np.einsum("i,i->", a.ravel(), b.ravel()))
