"""The only place that sums full gradients and curvature of sparse rows, at weights that stay.

Workers share the rows where these are looked at, and the classes where sums over rows are made: the
bits do not depend on how many workers there are.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.kernels.by_feature import FeatureWeights, new_feature_weights
from fastsoftmax.kernels.gather import Affine
from fastsoftmax.kernels.lists import ListRows, Lists, ListTables, new_lists
from fastsoftmax.kernels.sparse_sums import add_lists, curvatures_of_lists, residuals_of_lists
from fastsoftmax.kernels.workers import Team
from fastsoftmax.kernels.workspace import ALIGNMENT, aligned
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.preconditioner import SURE, UNSEEN, Batch, Diagonal
from fastsoftmax.optim.rules.sparse_rule import squared_norms_of_lists
from fastsoftmax.optim.tables import affine_of
from fastsoftmax.optim.tally import Tally

BLOCK_NUMBERS = 2**18  # of residuals that are held at once, of 64 rows at least
SHARES = 8  # that the rows of a block are cut into
CURVATURE_ROWS = 65536  # of a sample, at most


class _Sums:
    """Sums over sparse rows of d features: what the two stages of kernels/sparse_sums.py need."""

    def __init__(
        self, K: int, d: int, dtype: np.dtype, threads: int, scaling: Scaling | None
    ) -> None:
        self.weights: FeatureWeights = new_feature_weights(K, d, dtype)
        width = self.weights.V.shape[1]
        # A cache line of the sums is one worker's.
        self._lines = width * 8 // ALIGNMENT
        self.team = Team(max(1, min(threads, self._lines)))
        self._affine, self.dtype, self.K, self.d = affine_of(scaling, dtype), dtype, K, d
        self._step = max(64, BLOCK_NUMBERS // width)
        self._R = aligned((self._step, width), dtype)
        self.G, self.g = aligned((d, width), np.dtype(np.float64)), np.zeros(width)

    def begin(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Start anew, at weights (K, d) and biases (K,)."""
        self.weights.V[:, : self.K] = coef.T
        self.weights.b[0, : self.K] = intercept
        self.G[:], self.g[:] = 0, 0

    def add(
        self, parts: tuple[Part, ...], rows: tuple[np.ndarray, np.ndarray, np.ndarray],
        *, squares: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """Add rows, by number, class and weight; return loss, hits and what was not finite (3,).

        squares: the curvature of each weight in place of the gradient, whose sign is turned.
        """
        tables = ListTables(parts, self._affine)
        scratch = [new_lists(tables, self.dtype) for _ in range(self.team.size)]
        facts = np.zeros((SHARES, 3))
        for start in range(0, len(rows[0]), self._step):
            some = [values[start : start + self._step] for values in rows]
            block = tables.rows(some[0], some[1], some[2], some[2])
            self._in_turn(scratch, block, facts, squares)
        return np.add.accumulate(facts, axis=0)[-1]

    def _in_turn(
        self, scratch: list[Lists], block: ListRows, facts: np.ndarray, squares: bool
    ) -> None:
        """Take both stages over the rows of a block."""
        n, width = len(block.order), self._R.shape[1]
        cuts = [n * i // SHARES for i in range(SHARES + 1)]

        def look(worker: int) -> None:
            for i in range(worker, SHARES, self.team.size):
                ends = cuts[i], cuts[i + 1]
                if squares:
                    curvatures_of_lists(self._R, self.weights, scratch[worker], block, *ends, SURE)
                else:
                    # Its own biases, to which nothing is added but is written.
                    own = self.weights if worker == 0 else self._apart(worker)
                    residuals_of_lists(self._R, facts[i], own, scratch[worker], block, *ends)

        def gather(worker: int) -> None:
            lines = [self._lines * (worker + i) // self.team.size for i in (0, 1)]
            first, stop = (min(line * ALIGNMENT // 8, width) for line in lines)
            add_lists(self.G, self.g, self._R, scratch[worker], block, first, stop, squares)

        for stage in (look, gather):
            self.team.share(stage)

    def _apart(self, worker: int) -> FeatureWeights:
        weights = self.weights
        return FeatureWeights(weights.V, weights.b.copy(), weights.R, weights.trial, weights.state)


class SparseGradient:
    """The loss and its gradient over many sparse rows, as `FullGradient` has them."""

    def __init__(
        self, K: int, d: int, dtype: str, threads: int, scaling: Scaling | None = None
    ) -> None:
        """Make room for K classes, d features and the sums."""
        self._sums = _Sums(K, d, np.dtype(dtype), threads, scaling)

    def __enter__(self) -> SparseGradient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads."""
        self._sums.team.close()

    def begin(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Start anew, at weights (K, d) and biases (K,)."""
        self._sums.begin(coef, intercept)

    def add(
        self, parts: tuple[Part, ...], order: np.ndarray, labels: np.ndarray, weight: np.ndarray
    ) -> Tally:
        """Add some rows; return their weighted loss and hits."""
        loss, hits, odd = self._sums.add(parts, (order, labels, weight)).tolist()
        return Tally(loss, hits, odd == 0)

    def squared_norms(
        self, parts: tuple[Part, ...], order: np.ndarray, affine: Affine | None
    ) -> np.ndarray:
        """Return ||x||^2 (n,) float64 of some rows, their features scaled by `affine`."""
        return squared_norms_of_lists(parts, order, affine, self._sums.dtype)

    def gradient(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of w (p - onehot(y)) x' (K, d) and w (p - onehot(y)) (K,); see there."""
        K, sums = self._sums.K, self._sums
        return -sums.G[:, :K].T, -sums.g[:K]


class SparseDiagonal(Diagonal):
    """One number a weight, of sparse rows."""

    def __init__(
        self, K: int, d: int, dtype: str, scaling: Scaling | None, threads: int = 1
    ) -> None:
        super().__init__(K, d, dtype, scaling)
        self._scaling, self._threads = scaling, threads
        self._curvature = np.ones((K, d + 1), order="F")

    def sample_rows(self, rows: int) -> int:
        """Return how many of so many rows the curvature is taken from."""
        return min(rows, CURVATURE_ROWS)

    def passes(self, rows: int) -> float:
        """Return about how many passes over so many rows it takes to learn the curvature."""
        return min(1.0, CURVATURE_ROWS / max(rows, 1))

    def learn(self, theta: np.ndarray, sample: Batch, l2: np.ndarray, squares: np.ndarray) -> None:
        """Take the curvature from a sample of rows; see `Preconditioner`."""
        K, d = self.K, self.d
        sums = _Sums(K, d, self.dtype, self._threads, self._scaling)
        sums.begin(theta[:, :d], theta[:, d])
        sums.add(sample.parts, (sample.order, sample.labels, sample.weight), squares=True)
        sums.team.close()
        total = max(float(sample.weight.sum()), 1e-300)
        by_class = np.ascontiguousarray(sums.G[:, :K].T)
        found = np.concatenate([by_class, sums.g[:K, None]], axis=1) / total
        # What a sample hardly has is held by what it has over all rows.
        self._curvature = np.asfortranarray(found + UNSEEN * found[:, d:] * squares)
        self.penalise(l2)
