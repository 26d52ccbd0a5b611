"""The only place for what is minimised: the mean loss over all rows, its gradient, and penalties.

Sums over rows are float64 in a fixed order, so the bits depend on no number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.gradient import FullGradient
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sample import RowSample
from fastsoftmax.optim.tables import affine_of

# Below this a pass is so short that float64 costs nothing that anyone would notice.
DOUBLE_FLOPS = 1e9
CALL_FLOPS = 4e9  # of rows that are handed to the kernel at once


def precision(K: int, d: int, n: int, dtype: str) -> str:
    """Return the dtype in which to pass over n rows, where float64 may cost little."""
    return "float64" if 4.0 * K * d * n < DOUBLE_FLOPS else dtype


@dataclass(frozen=True)
class ElasticNet:
    """l2/2 w^2 + l1 |w| for each weight of a feature, (d,) each, in the units of its weights."""

    l2: np.ndarray
    l1: np.ndarray


@dataclass(frozen=True)
class Drawing:
    """By which norms a sample of rows is drawn: of features scaled so, whose mean square is this.

    It is that of the first pass, in which features may have been scaled otherwise: a run that is
    resumed draws the same rows.
    """

    scaling: Scaling | None
    mean: float


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
        penalty: ElasticNet,
        *,
        n: int,
        dtype: str,
        threads: int,
        scaling: Scaling | None = None,
        fit_intercept: bool = True,
        squares: np.ndarray | None = None,
        drawing: Drawing | None = None,
    ) -> None:
        """squares (d,): the mean squares of the features as scaled, where they are known.

        drawing: how to draw a sample, where not by the features as scaled.
        """
        self.squares = np.zeros(d + 1) if squares is None else np.append(squares, 1.0)
        self.K, self.d, self.n, self._rows, self.penalty = K, d, n, rows, penalty
        self.dtype = dtype
        self.scaling, self.fit_intercept, self.threads = scaling, fit_intercept, threads
        self._full = FullGradient(K, d, self.dtype, threads, scaling)
        self.log_loss = self.accuracy = np.nan
        self.finite = True
        own = Drawing(scaling, float(self.squares[:-1].sum()))
        self._sample: Batch | Drawing = drawing or own

    def __enter__(self) -> Objective:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads."""
        self._full.close()

    @property
    def l2(self) -> np.ndarray:
        """The penalty of each column of theta: none for the bias."""
        return np.append(self.penalty.l2, 0.0)

    def evaluate(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the smooth part of the objective, and its gradient (K, d + 1)."""
        return self._evaluated(theta, self._rows())

    def evaluate_and_sample(self, theta: np.ndarray, count: int) -> tuple[float, np.ndarray]:
        """Evaluate, and have the rows that `sample` will return taken on the way."""
        if not isinstance(self._sample, Drawing):  # it was taken before
            return self.evaluate(theta)
        sample = self._new_sample(self._sample, count)

        def offered() -> Iterator[Batch]:
            for batch in self._rows():
                sample.offer(batch)
                yield batch

        found = self._evaluated(theta, offered())
        self._sample = sample.batch()
        return found

    def near(self, batch: Batch, far: float) -> Batch | None:
        """Return the rows whose squared norm is at most `far` times the median; None: all are."""
        affine = affine_of(self.scaling, np.dtype(self.dtype))
        norms = self._full.squared_norms(batch.parts, batch.order, affine)
        kept = np.flatnonzero(norms <= far * np.median(norms))
        if len(kept) == len(norms) or not len(kept):
            return None
        return Batch(batch.parts, *(np.ascontiguousarray(each[kept]) for each in batch[1:]))

    def know(self, sample: Batch, log_loss: float, accuracy: float) -> None:
        """Take over what a pass over the same rows, otherwise scaled, has shown."""
        self._sample, self.log_loss, self.accuracy = sample, log_loss, accuracy

    def _evaluated(self, theta: np.ndarray, rows: Iterable[Batch]) -> tuple[float, np.ndarray]:
        d, total = self.d, 0.0
        self._full.begin(theta[:, :d], theta[:, d])
        call = max(1024, int(CALL_FLOPS / (4 * self.K * d)) // 1024 * 1024)
        loss = hits = 0.0
        for batch in rows:
            for start in range(0, len(batch.order), call):
                some = slice(start, start + call)
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

    def sample(self, count: int) -> Batch:
        """Return about so many rows from all over, always the same; it may take a pass."""
        if isinstance(self._sample, Drawing):
            sample = self._new_sample(self._sample, count)
            for batch in self._rows():
                sample.offer(batch)
            self._sample = sample.batch()
        return self._sample

    def _new_sample(self, drawing: Drawing, count: int) -> RowSample:
        affine = affine_of(drawing.scaling, np.dtype(self.dtype))
        norms = partial(self._full.squared_norms, affine=affine)
        return RowSample(self.n, count, drawing.mean, norms)
