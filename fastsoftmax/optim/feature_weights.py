"""The only place that owns weights whose K numbers of a feature lie together, for sparse rows.

What shrinks all of W, or waits until a feature is met again, is looked through by whoever asks for
the weights, and never written back: it costs nothing until then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, final

import numpy as np

from fastsoftmax.kernels.sparse import (
    SIGMA,
    STEPS,
    FeatureAverage,
    FeatureWeights,
    H,
    Lazy,
    P,
    S,
    new_feature_average,
    new_feature_weights,
)
from fastsoftmax.optim.weights import Weights


@final
class FeatureMajor(Weights):
    """W = s V of K classes and d features, and b; W is handed on as (K, d), one feature together.

    average: what kernels need to average steps, or None. lazy: the penalties that wait, or None.
    """

    def __init__(self, K: int, d: int, dtype: np.dtype, *, average: bool) -> None:
        self.K, self.d, self.dtype = K, d, dtype
        self.arrays: FeatureWeights = new_feature_weights(K, d, dtype)
        self.average: FeatureAverage | None = new_feature_average(K, d, dtype) if average else None
        self._counts = True
        self.lazy: Lazy | None = None
        self.sums = []  # kernels settle by themselves

    @property
    def _state(self) -> np.ndarray:
        return np.asarray(self.arrays.state)

    def wait(self, l2: np.ndarray, l1: np.ndarray) -> None:
        """Have these penalties (d,) wait until a feature is met, or none where all are 0."""
        self.lazy = None
        if l2.any() or l1.any():
            self.lazy = Lazy(l2.copy(), np.zeros(self.d), l1.copy(), np.zeros(self.d))
            self._owe_nothing()

    def get(self) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of W (K, d) and b (K,) as they are now; see Weights."""
        W = self._present()
        W *= self.dtype.type(self._state[S])
        return W.T, self.arrays.b[0, : self.K].copy()

    def set(self, W: np.ndarray, b: np.ndarray) -> None:
        """Begin at W (K, d) and b (K,)."""
        if self.average is not None and self.is_averaged:
            self.average.A[:] = self._total()
            self.average.U[:], self._state[SIGMA] = 0, 0.0
        self.arrays.V[:, : self.K] = W.T
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
        self._state[:] = 0.0
        self._state[S] = 1.0
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
        self.average.A[:, : self.K] += W.T
        self.average.b[:] += b
        self._state[STEPS] += steps

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Return W (K, d) and b (K,), their mean over steps where there is one; see Weights."""
        if self.average is None or not self.is_averaged:
            return self.get()
        steps = float(self._state[STEPS])
        W, b = self._total()[:, : self.K] / steps, self.average.b / steps
        return W.astype(self.dtype).T, b.astype(self.dtype)

    def measured(self) -> Any:
        """Return the mean as kernels take it."""
        if self.lazy is None and not self.is_averaged:
            return self.arrays
        shown = new_feature_weights(self.K, self.d, self.dtype)
        W, b = self.mean()
        shown.V[:, : self.K], shown.b[0, : self.K] = W.T, b
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

    def settle(self) -> None:
        """Do nothing: kernels do it before digits are lost."""

    def drop_unsettled(self) -> None:
        """Do nothing: there is nothing that views do not have."""

    def expect(self, names: Collection[str]) -> None:
        """Have the sums be among the views, or not; see Weights."""
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

    def views(self) -> dict[str, np.ndarray]:
        """Return the arrays that the next step depends on, by name."""
        arrays, K = self.arrays, self.K
        found = {"V": arrays.V[:, :K], "b": arrays.b[0, :K], "state": arrays.state}
        if self.average is not None and self.is_averaged:  # else all are 0
            found |= {
                "U": self.average.U[:, :K],
                "A": self.average.A[:, :K],
                "sum_b": self.average.b,
            }
        if self.lazy is not None:
            found |= {"H": self.lazy.H, "P": self.lazy.P}
        return found

    def _owe_nothing(self) -> None:
        if self.lazy is not None:
            self.lazy.H[:], self.lazy.P[:] = self._state[H], self._state[P]

    def _total(self) -> np.ndarray:
        """Return the sum of W over the steps that are averaged: (d, width) float64."""
        assert self.average is not None
        return self.average.A + self._state[SIGMA] * self.arrays.V - self.average.U

    def _present(self) -> np.ndarray:
        """Return V (d, K) where all penalties have acted, a copy."""
        V = self.arrays.V[:, : self.K]
        if self.lazy is None:
            return V.copy()
        l2, l1 = self.lazy.l2, self.lazy.l1
        lost = -np.expm1(-l2 * (self._state[H] - self.lazy.H))
        behind = self._state[P] - self.lazy.P
        np.divide(lost, l2, out=behind, where=l2 > 0)
        kind = self.dtype
        decay, due = (1.0 - lost).astype(kind)[:, None], (l1 * behind).astype(kind)[:, None]
        left = np.maximum(np.abs(V) * decay - due, kind.type(0))
        return np.where(V > 0, left, -left)
