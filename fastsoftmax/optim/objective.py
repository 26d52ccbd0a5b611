"""The only place for what is minimised: the mean loss over all rows, its gradient, and penalties.

Sums over rows are float64 in a fixed order, so the bits depend on no number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.kernels.transpose import copy_matrix
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.gradient import FullGradient
from fastsoftmax.optim.preconditioner import Batch

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
    ) -> None:
        """squares (d,): the mean squares of the features as scaled, where they are known."""
        self.squares = np.zeros(d + 1) if squares is None else np.append(squares, 1.0)
        self.K, self.d, self.n, self._rows, self.penalty = K, d, n, rows, penalty
        self.dtype = dtype
        self.scaling, self.fit_intercept, self.threads = scaling, fit_intercept, threads
        self._full = FullGradient(K, d, self.dtype, threads, scaling)
        self._call_rows = max(1024, int(CALL_FLOPS / (4 * K * d)) // 1024 * 1024)
        self.log_loss = self.accuracy = np.nan
        self.finite = True

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

    def sample(self, count: int) -> Batch:
        """Return so many rows from all over: of those that count, every so many-th.

        Where rows come in several batches, it takes a pass and copies what it returns.
        """
        every, some, parts = max(1, self.n // max(count, 1)), [], []
        for batch in self._rows():
            counted = np.flatnonzero(batch.weight > 0)
            is_all = len(counted) >= self.n
            counted = counted[::every]
            taken = Batch(batch.parts, *(np.ascontiguousarray(v[counted]) for v in batch[1:]))
            if is_all:
                return taken
            some.append(taken)
            parts.append([part.take(copy_matrix, taken.order) for part in batch.parts])
        order = np.arange(sum(len(taken.order) for taken in some))
        labels, weight = (np.concatenate([taken[i] for taken in some]) for i in (2, 3))
        together = tuple(_joined(pieces) for pieces in zip(*parts, strict=True))
        return Batch(together, order, labels, weight)


def _joined(pieces: Sequence[Part]) -> Part:
    """Return the rows of parts of one kind as one."""
    joined, first = pieces[0].room(sum(part.rows for part in pieces)), 0
    for part in pieces:
        joined.fill(copy_matrix, first, part)
        first += part.rows
    return joined
