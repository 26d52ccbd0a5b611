"""The only place that passes over all rows: their loss, its gradient, and a sample on the way.

Sums over rows are float64 in a fixed order, so the bits depend on no number of threads. Those of
parts of the rows are added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import final

import numpy as np

from fastsoftmax.facts import dataclass
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.gradient import FullGradient
from fastsoftmax.optim.preconditioner import Batch
from fastsoftmax.optim.sample import RowSample
from fastsoftmax.optim.sparse_gradient import SparseGradient
from fastsoftmax.optim.tables import affine_of

CALL_FLOPS = 4e9  # of rows that are handed to the kernel at once


@dataclass(frozen=True)
class PassSums:
    """The weighted loss and hits of rows and their weight, and the loss's gradient by W (K, d) and
    b (K,); finite: whether all numbers were.
    """

    loss: float
    hits: float
    weight: float
    finite: bool
    W: np.ndarray
    b: np.ndarray

    def __add__(self, other: PassSums) -> PassSums:
        """Return the sums over the rows of both."""
        return PassSums(
            self.loss + other.loss,
            self.hits + other.hits,
            self.weight + other.weight,
            self.finite and other.finite,
            self.W + other.W,
            self.b + other.b,
        )


@dataclass(frozen=True)
class Drawing:
    """By which norms a sample of rows is drawn: of features scaled so, whose mean square is this.

    It is that of the first pass, in which features may have been scaled otherwise: a run that is
    resumed draws the same rows.
    """

    scaling: Scaling | None
    mean: float


@dataclass(frozen=True)
class PassRows:
    """What is known of the rows of a pass: n of them count, of K classes and d features.

    dtype: in which to compute. threads: that may. scaling: of the features, or None. nonzeros: of a
    row in the mean, where rows are sparse. is_part: they are a part of the rows of a pass, which is
    one thread's work, so that no sums are kept for others.
    """

    K: int
    d: int
    n: int
    dtype: str
    threads: int
    scaling: Scaling | None = None
    nonzeros: float | None = None
    is_part: bool = False

    @property
    def flops(self) -> float:
        """The work of a row, about."""
        return 4.0 * self.K * (self.d if self.nonzeros is None else max(self.nonzeros, 1.0))


class RowPass(ABC):
    """All rows, wherever they are, to be visited again and again: the same rows at each call."""

    def __init__(self, rows: PassRows) -> None:
        self.rows = rows

    @abstractmethod
    def sums(self, theta: np.ndarray) -> PassSums:
        """Return the sums over all rows at weights theta (K, d + 1), the bias last."""

    @abstractmethod
    def sums_and_sample(
        self, theta: np.ndarray, drawing: Drawing, count: int
    ) -> tuple[PassSums, Batch]:
        """Return the sums, and about so many rows from all over that were taken on the way."""

    @abstractmethod
    def sample(self, drawing: Drawing, count: int) -> Batch:
        """Return the rows that are taken on the way, by a pass that sums nothing."""

    def close(self) -> None:
        """End its threads."""


@final
class LocalPass(RowPass):
    """Rows that come as batches, the same at each call of `batches`."""

    def __init__(self, rows: PassRows, batches: Callable[[], Iterable[Batch]]) -> None:
        super().__init__(rows)
        self._batches = batches
        told = rows.K, rows.d, rows.dtype, rows.threads, rows.scaling
        self._full: FullGradient | SparseGradient
        if rows.nonzeros is None:
            self._full = FullGradient(*told, ranges=1 if rows.is_part else None)
        else:
            self._full = SparseGradient(*told)

    def close(self) -> None:
        """End its threads."""
        self._full.close()

    def sums(self, theta: np.ndarray) -> PassSums:
        """Return the sums over all rows; see RowPass."""
        return self._summed(theta, self._batches())

    def sums_and_sample(
        self, theta: np.ndarray, drawing: Drawing, count: int
    ) -> tuple[PassSums, Batch]:
        """Return the sums and a sample; see RowPass."""
        sample = self._new_sample(drawing, count)

        def offered() -> Iterator[Batch]:
            for batch in self._batches():
                sample.offer(batch)
                yield batch

        return self._summed(theta, offered()), sample.batch()

    def sample(self, drawing: Drawing, count: int) -> Batch:
        """Return a sample; see RowPass."""
        sample = self._new_sample(drawing, count)
        for batch in self._batches():
            sample.offer(batch)
        return sample.batch()

    def _summed(self, theta: np.ndarray, batches: Iterable[Batch]) -> PassSums:
        d = self.rows.d
        self._full.begin(theta[:, :d], theta[:, d])
        call = max(1024, int(CALL_FLOPS / self.rows.flops) // 1024 * 1024)
        loss = hits = total = 0.0
        finite = True
        for batch in batches:
            for start in range(0, len(batch.order), call):
                some = slice(start, start + call)
                tally = self._full.add(batch.parts, *(values[some] for values in batch[1:]))
                loss += tally.loss
                hits += tally.hits
                finite &= tally.finite
            total += float(batch.weight.sum())
        return PassSums(loss, hits, total, finite, *self._full.gradient())

    def _new_sample(self, drawing: Drawing, count: int) -> RowSample:
        affine = affine_of(drawing.scaling, np.dtype(self.rows.dtype))
        norms = partial(self._full.squared_norms, affine=affine)
        return RowSample(self.rows.n, count, drawing.mean, norms)
