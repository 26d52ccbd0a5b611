"""The only place that sums full gradients: of many rows, at weights that stay as they are.

Sums are float64 and do not depend on the number of threads.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from fastsoftmax.data.parts import Part, Sparse
from fastsoftmax.kernels.gather import Affine, part_table
from fastsoftmax.kernels.gradient import GradientSums, add_gradient, new_sums
from fastsoftmax.kernels.measure import squared_norms
from fastsoftmax.kernels.operands import Rows, new_block, new_coefficients
from fastsoftmax.kernels.sizes import gradient_rows, range_count
from fastsoftmax.kernels.workers import Team
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.rules.sparse_rule import squared_norms_of_lists
from fastsoftmax.optim.tables import affine_of
from fastsoftmax.optim.tally import Tally

SHORT_FLOPS = 1e9  # of a kernel call, about: a hundredth of a second


class FullGradient:
    """The loss and its gradient over many rows, at weights that stay as they are meanwhile.

    Sums are float64 and do not depend on the number of threads.
    """

    def __init__(
        self, K: int, d: int, dtype: str, threads: int, scaling: Scaling | None = None,
        *, ranges: int | None = None,
    ) -> None:  # fmt: skip
        """Make room for K classes, d features and the sums of each thread.

        ranges: into which rows are cut, each of which has float64 sums, so that threads share
        them; by default as K and d suggest.
        """
        self.K, self.d, self.rows = K, d, gradient_rows(K, d)
        self._affine = affine_of(scaling, np.dtype(dtype))
        kind = np.dtype(dtype)
        ranges = ranges or range_count(K, d)
        self._team = Team(min(threads, ranges))
        self._weights = new_coefficients(K, d, kind)
        self._new_sums = partial(new_sums, K, d, kind, self._team.size, ranges)
        self._sums: GradientSums | None = None
        self._blocks = [new_block(K, d, kind, self.rows) for _ in range(self._team.size)]

    def __enter__(self) -> FullGradient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads."""
        self._team.close()

    def begin(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Start anew, at weights (K, d) and biases (K,)."""
        self._weights.W[:, : self.d] = coef
        self._weights.b[0, : self.K] = intercept
        if self._sums is None:
            self._sums = self._new_sums()  # zeros that nobody touched take no memory yet
        else:
            self._sums.W[:] = 0
            self._sums.b[:] = 0

    def add(
        self,
        parts: tuple[Part, ...],
        order: np.ndarray,
        labels: np.ndarray,
        weight: np.ndarray,
    ) -> Tally:
        """Add some rows; return their weighted loss and hits."""
        assert self._sums is not None  # begun
        table = part_table(parts, affine=self._affine)
        rows, sums = Rows(table, order, labels, weight, weight), self._sums
        ranges, tiles = len(sums.b), -(-len(order) // self.rows)
        bounds = np.minimum(tiles * np.arange(ranges + 1) // ranges * self.rows, len(order))
        bounds[-1] = len(order)
        facts = np.zeros((ranges, 3))
        # A call for each range where there is much to do, so that an interrupt is seen.
        alone = 4.0 * self.K * self.d * len(order) > SHORT_FLOPS * self._team.size

        def share(worker: int) -> None:
            own = np.array([worker, ranges, self._team.size])
            for first in range(*own) if alone else (worker,):
                own[:2] = first, first + 1 if alone else ranges
                add_gradient(
                    self._weights, self._blocks[worker], sums, worker, rows, bounds, own, facts,
                )  # fmt: skip

        self._team.share(share)
        loss, hits = (float(sum(facts[:, i].tolist())) for i in (0, 1))
        return Tally(loss, hits, bool(facts[:, 2].all()))

    def squared_norms(
        self, parts: tuple[Part, ...], order: np.ndarray, affine: Affine | None
    ) -> np.ndarray:
        """Return ||x||^2 (n,) float64 of some rows, their features scaled by `affine`."""
        norms, size = np.empty(len(order)), self._team.size

        def share(worker: int) -> None:
            own = slice(len(order) * worker // size, len(order) * (worker + 1) // size)
            norms[own] = _norms(parts, order[own], self._blocks[worker].X[0], affine)

        self._team.share(share)
        return norms

    def gradient(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums over all rows of w (p - onehot(y)) x' (K, d) and w (p - onehot(y)) (K,).

        Both float64; ranges are added in their order.
        """
        assert self._sums is not None  # begun
        W, b = self._sums.W, self._sums.b
        if len(b) == 1:  # they are handed on: other memory would have to be cleared first
            self._sums = None
            return np.negative(W[0], out=W[0]), np.negative(b[0], out=b[0])
        return -W.sum(axis=0), -b.sum(axis=0)


def squared_norms_of(
    parts: tuple[Part, ...], order: np.ndarray, d: int, dtype: str, scaling: Scaling | None
) -> np.ndarray:
    """Return ||x||^2 (n,) float64 of some rows of d features, as they are scaled."""
    kind = np.dtype(dtype)
    if any(isinstance(part, Sparse) for part in parts):
        return squared_norms_of_lists(parts, order, affine_of(scaling, kind), kind)
    return _norms(parts, order, new_block(1, d, kind, 8).X[0], affine_of(scaling, kind))


def _norms(
    parts: tuple[Part, ...], order: np.ndarray, scratch: np.ndarray, affine: Affine | None
) -> np.ndarray:
    norms, table = np.zeros(len(order)), part_table(parts, affine=affine)
    squared_norms(norms, scratch, order, table)
    return norms
