"""The only place that preconditions full gradients: an inverse of about the Hessian, from a sample.

Near the optimum most rows are classified with certainty and have no curvature, and each class sees
other rows that have. So each class gets a matrix of its own where that pays: on Fashion-MNIST 43
passes bring the objective within 0.1 %, one matrix of second moments for all classes takes 214, and
none 848.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.kernels.cholesky import factor, solve
from fastsoftmax.kernels.curvature import add_products, add_squares, class_curvatures, new_products
from fastsoftmax.kernels.gather import part_table
from fastsoftmax.kernels.operands import Rows, new_block, new_coefficients
from fastsoftmax.kernels.sizes import block_rows
from fastsoftmax.kernels.workers import Team
from fastsoftmax.kernels.workspace import aligned, padded
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.tables import affine_of

ROWS_PER_FEATURE = 6  # of the sample, so that its matrix has full rank and little noise
LEAST_ROWS = 4096
CHEAP = 16  # passes, about, that the products of a sample of rows may cost
WORTH_PASSES = 30  # over all rows, that a matrix for each class may cost
RIDGE = 1e-6  # of the mean diagonal, added to it
SHARED_NUMBERS = 10**6  # of all factors, from which on threads share them
UNSEEN = 0.05  # of the curvature a feature would have if it had nothing to do with the class


class Batch(NamedTuple):
    """Rows to visit: arrays side by side, the rows' numbers, and for each its class and weight."""

    parts: tuple[Part, ...]
    order: np.ndarray
    labels: np.ndarray
    weight: np.ndarray


def sample_rows(d: int, rows: int) -> int:
    """Return how many of the rows the curvature is taken from: the more, the fewer features."""
    return min(rows, max(LEAST_ROWS, ROWS_PER_FEATURE * d, CHEAP * rows // d))


def choose_matrices(K: int, d: int, rows: int, memory: int, itemsize: int) -> int:
    """Return how many matrices to use: one for each class, one, or none but a diagonal."""
    sample = sample_rows(d, rows)
    size = padded(d + 1, np.dtype(f"f{itemsize}")) * (d + 1) * itemsize
    if K * size <= memory // 4 and sample * d <= 8 * WORTH_PASSES * rows:
        return K
    if size <= memory // 8 and sample * d <= 8 * WORTH_PASSES * rows * K:
        return 1
    return 0


class Preconditioner:
    """About the inverse of the Hessian of the mean loss and the penalty, for weights (K, d + 1)."""

    def __init__(
        self,
        K: int,
        d: int,
        dtype: str,
        matrices: int,
        threads: int,
        scaling: Scaling | None,
    ) -> None:
        """Make room; `learn` fills it. matrices: K, 1 or 0, as `choose_matrices` says."""
        self.K, self.d, self.matrices = K, d, matrices
        self._dtype = np.dtype(dtype)
        self._affine = affine_of(scaling, self._dtype)
        shared = K * (d + 1) ** 2 >= SHARED_NUMBERS
        self._team = Team(max(1, min(threads, matrices)) if shared else 1)
        self._factors = aligned((matrices, d + 1, padded(d + 1, self._dtype)), self._dtype)
        self._level = np.ones((K, 1))
        self._diagonal = np.ones((K, d + 1))

    def __enter__(self) -> Preconditioner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads."""
        self._team.close()

    def passes(self, rows: int) -> float:
        """Return about how many passes over so many rows it takes to learn the curvature."""
        if self.matrices == 0:
            return 1.0
        return sample_rows(self.d, rows) * self.d * self.matrices / (4.0 * self.K * rows)

    def learn(self, theta: np.ndarray, sample: Batch, l2: np.ndarray, squares: np.ndarray) -> None:
        """Take the curvature at weights theta (K, d + 1), the bias last, from a sample of rows.

        l2 (d + 1,): the penalty of each feature. squares (d + 1,): the mean of its square over all
        rows, or 0: a feature that the sample hardly has would else seem to have no curvature.
        """
        K, d = self.K, self.d
        weights = new_coefficients(K, d + 1, self._dtype)
        weights.W[:, : d + 1] = theta
        rows = Rows(part_table(sample.parts, affine=self._affine), *sample[1:], sample.weight)
        n = len(sample.order)
        curves = np.empty((n, K), self._dtype)
        block = new_block(K, d + 1, self._dtype, block_rows(K, d + 1))
        class_curvatures(curves, weights, block, rows, 0, n, d)
        total = max(float(sample.weight.sum()), 1e-300)
        if self.matrices == 0:
            sums = np.zeros((K, d + 1))
            add_squares(sums, curves, new_products(d, self._dtype), rows, d)
            level = curves.mean(axis=0, dtype=np.float64)[:, None]
            self._diagonal = sums / total + l2 + UNSEEN * level * squares
            floor = RIDGE * self._diagonal.mean(axis=1, keepdims=True)
            self._diagonal = np.maximum(self._diagonal, np.maximum(floor, 1e-300))
            return
        if self.matrices == 1:
            levels = curves.sum(axis=0, dtype=np.float64)
            self._level = (levels / levels.mean()).reshape(-1, 1)
            curves = curves.mean(axis=1, keepdims=True)
        level = curves.sum(axis=0, dtype=np.float64)
        self._factors[:] = 0

        def share(worker: int) -> None:
            scratch, square = new_products(d, self._dtype), np.empty((d + 1, d + 1))
            for k in range(worker, self.matrices, self._team.size):
                H = self._factors[k]
                add_products(H, curves, k, scratch, rows, d)
                mean = float(np.einsum("ii->", H[:, : d + 1])) / (d + 1)
                unseen = UNSEEN * level[k] * squares
                factor(H, square, total * l2 + RIDGE * mean + unseen)

        self._team.run(share)
        self._total = total

    def apply(self, v: np.ndarray) -> np.ndarray:
        """Return about the inverse Hessian times v (K, d + 1)."""
        if self.matrices == 0:
            return v / self._diagonal
        solved = np.ascontiguousarray(v / self._level)

        def share(worker: int) -> None:
            for k in range(worker, self.K, self._team.size):
                solve(self._factors[k if self.matrices > 1 else 0], solved[k])

        self._team.run(share)
        return solved * self._total
