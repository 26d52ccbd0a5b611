"""The only place for what is minimised: the mean loss over all rows and penalties, its gradient."""

from __future__ import annotations

import numpy as np

from fastsoftmax.facts import dataclass
from fastsoftmax.optim.gradient import squared_norms_of
from fastsoftmax.optim.passes import Drawing, PassSums, RowPass
from fastsoftmax.optim.preconditioner import Batch

# Below this a pass is so short that float64 costs nothing that anyone would notice.
DOUBLE_FLOPS = 1e9


def precision(K: int, d: float, n: int, dtype: str) -> str:
    """Return the dtype in which to pass over n rows, where float64 may cost little.

    d: how many numbers of a row are met.
    """
    return "float64" if 4.0 * K * d * n < DOUBLE_FLOPS else dtype


@dataclass(frozen=True)
class ElasticNet:
    """l2/2 w^2 + l1 |w| for each weight of a feature, (d,) each, in the units of its weights."""

    l2: np.ndarray
    l1: np.ndarray


class Objective:
    """The mean loss over all rows, plus a penalty.

    d features and a bias make a row of theta (K, d + 1).
    """

    def __init__(
        self,
        passes: RowPass,
        penalty: ElasticNet,
        *,
        fit_intercept: bool = True,
        squares: np.ndarray | None = None,
        drawing: Drawing | None = None,
    ) -> None:
        """squares (d,): the mean squares of the features as scaled, where they are known.

        drawing: how to draw a sample, where not by the features as scaled.
        """
        rows = passes.rows
        self.K, self.d, self.n, self.dtype = rows.K, rows.d, rows.n, rows.dtype
        self.scaling, self.threads, self.nonzeros = rows.scaling, rows.threads, rows.nonzeros
        self.squares = np.zeros(self.d + 1) if squares is None else np.append(squares, 1.0)
        self.penalty, self.fit_intercept, self._pass = penalty, fit_intercept, passes
        self.log_loss = self.accuracy = np.nan
        self.finite = True
        own = Drawing(self.scaling, float(self.squares[:-1].sum()))
        self._sample: Batch | Drawing = drawing or own

    def __enter__(self) -> Objective:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads."""
        self._pass.close()

    @property
    def l2(self) -> np.ndarray:
        """The penalty of each column of theta: none for the bias."""
        return np.append(self.penalty.l2, 0.0)

    def evaluate(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the smooth part of the objective, and its gradient (K, d + 1)."""
        return self._valued(theta, self._pass.sums(theta))

    def evaluate_and_sample(self, theta: np.ndarray, count: int) -> tuple[float, np.ndarray]:
        """Evaluate, and have the rows that `sample` will return taken on the way."""
        if not isinstance(self._sample, Drawing):  # it was taken before
            return self.evaluate(theta)
        sums, self._sample = self._pass.sums_and_sample(theta, self._sample, count)
        return self._valued(theta, sums)

    def near(self, batch: Batch, far: float) -> Batch | None:
        """Return the rows whose squared norm is at most `far` times the median; None: all are."""
        norms = squared_norms_of(batch.parts, batch.order, self.d, self.dtype, self.scaling)
        middle = np.partition(norms, norms.size // 2)[norms.size // 2]
        kept = np.flatnonzero(norms <= far * middle)
        if len(kept) == len(norms) or not len(kept):
            return None
        return Batch(batch.parts, *(np.ascontiguousarray(each[kept]) for each in batch[1:]))

    def know(self, sample: Batch, log_loss: float, accuracy: float) -> None:
        """Take over what a pass over the same rows, otherwise scaled, has shown."""
        self._sample, self.log_loss, self.accuracy = sample, log_loss, accuracy

    def sample(self, count: int) -> Batch:
        """Return about so many rows from all over, always the same; it may take a pass."""
        if isinstance(self._sample, Drawing):
            self._sample = self._pass.sample(self._sample, count)
        return self._sample

    def _valued(self, theta: np.ndarray, sums: PassSums) -> tuple[float, np.ndarray]:
        """Return the smooth part of the objective and its gradient, from the sums over all rows."""
        d, total = self.d, sums.weight
        self.finite &= sums.finite
        self.log_loss, self.accuracy = sums.loss / total, sums.hits / total
        l2, weights = self.penalty.l2, theta[:, :d]
        smooth = self.log_loss + float((l2 * np.square(weights)).sum()) / 2
        # Of sparse rows they lie feature by feature, and all that follows goes class by class.
        by_weight = np.ascontiguousarray(sums.W) / total + l2 * weights
        gradient = np.concatenate([by_weight, sums.b[:, None] / total], axis=1)
        if not self.fit_intercept:
            gradient[:, d] = 0.0
        return smooth, gradient
