"""The only place that owns weights whose K numbers of a feature lie together, for sparse rows.

What shrinks all of W, or waits until a feature is met again, is looked through by whoever asks for
the weights, and never written back: it costs nothing until then.

Steps from zeros leave the weights of two classes each other's negatives, under all penalties: then
the first one's are kept alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, final

import numpy as np

from fastsoftmax.kernels.by_feature import (
    HALF,
    L1,
    L2,
    LAST,
    MIDDLE,
    MISSED,
    SIGMA,
    SINCE,
    STEPS,
    SUMS,
    TERMS,
    FeatureAverage,
    FeatureWeights,
    H,
    P,
    S,
    columns_of,
    new_feature_average,
    new_feature_weights,
    new_penalties,
)
from fastsoftmax.kernels.waiting import REACH
from fastsoftmax.optim.weights import Weights

FIRST = "first"  # what views call the weights of the first class, where they stand for both
FACTORIALS = np.cumprod(np.maximum(np.arange(TERMS), 1.0))
SLACK = 4  # rounding units by which negatives of each other may differ


def numbers_of_a_feature(K: int, dtype: np.dtype) -> int:
    """Return how many numbers the weights of a feature are, for steps from zeros."""
    return columns_of(K, dtype, mirrored=K == 2)


def mirrors(W: np.ndarray) -> bool:
    """Return whether the weights (2, d) of two classes are each other's negatives."""
    size = np.abs(W[0]) + np.abs(W[1])
    return bool((np.abs(W[0] + W[1]) <= SLACK * np.finfo(W.dtype).eps * size).all())


@final
class FeatureMajor(Weights):
    """W = s V of K classes and d features, and b; W is handed on as (K, d), one feature together.

    average: what kernels need to average steps, or None. waiting: the penalties that
    wait, or None.
    is_mirrored: there are two classes, and the first one's weights are kept alone.
    """

    def __init__(self, K: int, d: int, dtype: np.dtype, *, average: bool) -> None:
        self.K, self.d, self.dtype = K, d, dtype
        self._averages = average
        self._lay_out(mirrored=K == 2)
        self._counts = True
        self.waiting: np.ndarray | None = None
        self.sums = []  # kernels settle by themselves

    def _lay_out(self, *, mirrored: bool) -> None:
        """Begin with zeros."""
        K, d, dtype = self.K, self.d, self.dtype
        self.is_mirrored = mirrored
        self.arrays: FeatureWeights = new_feature_weights(K, d, dtype, mirrored=mirrored)
        self.average: FeatureAverage | None = None
        if self._averages:
            self.average = new_feature_average(K, d, dtype, mirrored=mirrored)

    def _keep_both(self) -> None:
        """Keep the weights of two classes, which are about to differ by more than their signs."""
        arrays, average = self.arrays, self.average
        self._lay_out(mirrored=False)
        pairs = [(arrays.V, self.arrays.V)]
        if average is not None and self.average is not None:
            pairs += [(average.U, self.average.U), (average.A, self.average.A)]
            self.average.b[:] = average.b
        for old, new in pairs:
            new[:, :1], new[:, 1:2] = old, -old
        self.arrays.b[:], self.arrays.state[:] = arrays.b, arrays.state

    def _of_classes(self, kept: np.ndarray) -> np.ndarray:
        """Return numbers of all classes (d, K), a copy, of what is kept of them."""
        if self.is_mirrored:
            return np.concatenate([kept, -kept], axis=1)
        return kept[:, : self.K].copy()

    def _kept(self, W: np.ndarray) -> np.ndarray:
        """Return what is kept of weights (K, d): a number, or K, of each feature."""
        return (0.5 * (W[:1] - W[1:])).T if self.is_mirrored else W.T

    @property
    def _columns(self) -> int:
        return 1 if self.is_mirrored else self.K

    @property
    def _state(self) -> np.ndarray:
        return np.asarray(self.arrays.state)

    def wait(self, l2: np.ndarray, l1: np.ndarray, *, stays: bool = True) -> None:
        """Have these penalties (d,) wait until a feature is met, or none where all are 0.

        stays: nobody changes them. Then the mean over steps misses nothing of an l2 that waits.
        """
        self.waiting = None
        self._state[HALF] = REACH / l2.max() if stays and l2.any() else 0.0
        if l2.any() or l1.any():
            self.waiting = new_penalties(l2, l1)
            self._owe_nothing()

    def get(self) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of W (K, d) and b (K,) as they are now; see Weights."""
        W = self._of_classes(self._present())
        W *= self.dtype.type(self._state[S])
        return W.T, self.arrays.b[0, : self.K].copy()

    def set(self, W: np.ndarray, b: np.ndarray) -> None:
        """Begin at W (K, d) and b (K,)."""
        if self.average is not None and self.is_averaged:
            self.average.A[:] = self._total()
            self.average.U[:], self._state[SIGMA] = 0, 0.0
        if self.is_mirrored and not mirrors(W):
            self._keep_both()
        self.arrays.V[:, : self._columns] = self._kept(W)
        self.arrays.b[0, : self.K] = b
        self._state[S] = 1.0
        self._owe_nothing()

    def change(self, act: Callable[[np.ndarray], None]) -> None:
        """Let something act on W (K, d) in place."""
        W, b = self.get()
        act(W)
        self.set(W, b)

    def zero(self) -> None:
        """Begin at zeros, with nothing averaged."""
        self.restart_average()
        self.arrays.V[:] = 0
        self.arrays.b[0, : self.K] = 0
        half = self._state[HALF]
        self._state[:] = 0.0
        self._state[S], self._state[HALF] = 1.0, half
        self._owe_nothing()

    @property
    def is_averaged(self) -> bool:
        """Whether `mean` is that of some steps."""
        return bool(self._state[STEPS] > 0)

    @property
    def is_averaging(self) -> bool:
        """Whether steps to come count for the mean."""
        return self.averaging is not None

    @property
    def averaged_steps(self) -> float:
        """How many steps `mean` is of."""
        return float(self._state[STEPS])

    def add_to_average(self, W: np.ndarray, b: np.ndarray, steps: float) -> None:
        """Count steps that were taken elsewhere in the mean; see Weights."""
        assert self.average is not None  # or nobody averaged
        if self.is_mirrored and not mirrors(W):
            self._keep_both()
        self.average.A[:, : self._columns] += self._kept(W)
        self.average.b[:] += b
        self._state[STEPS] += steps

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Return W (K, d) and b (K,), their mean over steps where there is one; see Weights."""
        if self.average is None or not self.is_averaged:
            return self.get()
        steps = float(self._state[STEPS])
        W, b = self._of_classes(self._total()) / steps, self.average.b / steps
        return W.astype(self.dtype).T, b.astype(self.dtype)

    def measured(self) -> Any:
        """Return the mean as kernels take it."""
        if self.waiting is None and not self.is_averaged:
            return self.arrays
        shown = new_feature_weights(self.K, self.d, self.dtype, mirrored=self.is_mirrored)
        W, b = self.mean()
        shown.V[:, : self._columns], shown.b[0, : self.K] = self._kept(W), b
        return shown

    def count(self, rows: int, steps: int) -> None:
        """Do nothing: kernels count."""

    @property
    def averaging(self) -> FeatureAverage | None:
        """What the steps to come are averaged by, or None."""
        return self.average if self._counts else None

    def average_steps(self, *, counts: bool) -> None:
        """Average the steps to come, or leave the sums alone; see Weights."""
        self._counts = counts
        self._miss_nothing()

    def settle(self) -> None:
        """Do nothing: kernels do it before digits are lost."""

    def drop_unsettled(self) -> None:
        """Do nothing: there is nothing that views do not have."""

    def expect(self, names: Collection[str]) -> None:
        """Have the sums be among the views, or not, and both classes or one; see Weights."""
        if self.is_mirrored != (FIRST in names):
            self._lay_out(mirrored=FIRST in names)
        if "U" in names:
            self._state[STEPS] = 1.0
        else:
            self.restart_average()

    def restart_average(self) -> None:
        """Forget the steps averaged so far."""
        if self.average is not None and self.is_averaged:
            for sums in self.average:
                sums[:] = 0
        self._state[STEPS] = self._state[SIGMA] = 0.0
        self._miss_nothing()

    def views(self) -> dict[str, np.ndarray]:
        """Return the arrays that the next step depends on, by name."""
        arrays, K = self.arrays, self._columns
        name = FIRST if self.is_mirrored else "V"
        found = {name: arrays.V[:, :K], "b": arrays.b[0, : self.K], "state": arrays.state}
        if self.average is not None and self.is_averaged:  # else all are 0
            found |= {
                "U": self.average.U[:, :K],
                "A": self.average.A[:, :K],
                "sum_b": self.average.b,
            }
        if self.waiting is not None:
            found["since"] = self.waiting[:, SINCE]
            if self.is_averaged:
                found["missed"] = self.waiting[:, MISSED]
        return found

    def _owe_nothing(self) -> None:
        if self.waiting is not None:
            self.waiting[:, SINCE] = self._now()
        self._miss_nothing()

    def _miss_nothing(self) -> None:
        """Begin the sums over steps by which the mean is told what waits, with no step."""
        if self.waiting is not None:
            self.waiting[:, MISSED] = 0.0
        self._state[MIDDLE] = self._state[H] + self._state[HALF]
        self._state[LAST:SUMS] = 1.0 / FACTORIALS
        self._state[SUMS:] = 0.0

    def _missed(self) -> np.ndarray | float:
        """Return how many steps too many the weights of each feature count for: (d, 1)."""
        if self.waiting is None or self._state[HALF] <= 0.0:
            return 0.0
        l2, l1, since, missed = self.waiting.T
        x, summed = l2 * self._state[HALF], np.zeros(self.d)
        for coefficient in self._state[: SUMS - 1 : -1]:
            summed = summed * x + coefficient
        found = self._state[SIGMA] - np.exp(l2 * (since - self._state[MIDDLE])) * summed - missed
        return np.where((l2 > 0) & (l1 <= 0), found, 0.0)[:, None]

    def _now(self) -> np.ndarray:
        """Return what SINCE would be of each feature if it were met now."""
        assert self.waiting is not None
        return np.where(self.waiting[:, L2] > 0, self._state[H], self._state[P])

    def _total(self) -> np.ndarray:
        """Return the sum of W over the steps that are averaged: (d, width) float64."""
        assert self.average is not None
        counted = self._state[SIGMA] - self._missed()
        return self.average.A + counted * self.arrays.V - self.average.U

    def _present(self) -> np.ndarray:
        """Return V (d, columns) where all penalties have acted, a copy."""
        V = self.arrays.V[:, : self._columns]
        if self.waiting is None:
            return V.copy()
        l2, l1 = self.waiting[:, L2], self.waiting[:, L1]
        behind = self._now() - self.waiting[:, SINCE]
        lost = -np.expm1(-l2 * behind)
        np.divide(lost, l2, out=behind, where=l2 > 0)
        kind = self.dtype
        decay, due = (1.0 - lost).astype(kind)[:, None], (l1 * behind).astype(kind)[:, None]
        left = np.maximum(np.abs(V) * decay - due, kind.type(0))
        return np.where(V > 0, left, -left)
