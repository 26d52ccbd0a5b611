"""The only place for the whole Hessian: where all weights are few, steps are nearly Newton's."""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.cholesky import factor, solve
from fastsoftmax.kernels.curvature import add_all_products, new_products
from fastsoftmax.kernels.workers import Team
from fastsoftmax.kernels.workspace import aligned, row_length
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.preconditioner import (
    LEAST_ROWS,
    UNSEEN,
    Batch,
    ByClass,
    Diagonal,
    Preconditioner,
    choose_matrices,
    learning_passes,
    sample_rows,
    two_of,
)

MOST_WEIGHTS = 1200  # whose matrix is factored in the time of a few passes
# Rows of the sample for each weight: a step leaves about so much less of the gain. Products of rows
# take the square of the weights, a step more takes a pass over all rows: where these are few and
# weights many, fewer rows and a step more are sooner done.
LEAST_PER_WEIGHT, MOST_PER_WEIGHT = 8, 40
PASS_WORK = 32  # of products of a number with another, for each row that is passed over
SAMPLE_FLOPS = 2e10  # of the products of a sample of rows
RIDGE = 1e-9  # of the mean diagonal: what holds directions in which the loss is flat
KEPT_PASSES = 8  # that matrices of classes may cost where they are kept for many penalties
SHARED_FLOPS = 1e8  # of the products, from which on threads share them


def has_whole(K: int, d: int, memory: int) -> bool:
    """Return whether the whole matrix is few numbers, and fits."""
    weights = K * (d + 1)
    return weights <= MOST_WEIGHTS and 24 * weights**2 <= memory // 4


def curvature_rows(K: int, d: int, rows: int, memory: int) -> int:
    """Return how many of so many rows the curvature is taken from."""
    return whole_rows(K, d, rows) if has_whole(K, d, memory) else sample_rows(d, rows)


def whole_rows(K: int, d: int, rows: int) -> int:
    """Return how many of so many rows the whole matrix is taken from."""
    weights = K * (d + 1)
    worth = PASS_WORK * rows // weights**2
    per_weight = min(max(worth, LEAST_PER_WEIGHT), MOST_PER_WEIGHT)
    wanted = min(per_weight * weights, int(SAMPLE_FLOPS / weights**2))
    return min(rows, max(LEAST_ROWS, wanted))


class WholeHessian(Preconditioner):
    """One matrix for all weights (K (d + 1)): steps are Newton's, as far as the sample tells."""

    renewals = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

    def __init__(self, K: int, d: int, dtype: str, scaling: Scaling | None, threads: int) -> None:
        super().__init__(K, d, dtype, scaling)
        self._threads = threads
        weights = K * (d + 1)
        self._H, self._L = np.zeros((weights, weights)), np.zeros((weights, weights))
        self._scratch = np.zeros((weights, weights))
        self._unseen, self._unit = np.zeros(weights), np.ones(weights)

    def sample_rows(self, rows: int) -> int:
        """Return how many of so many rows the curvature is taken from."""
        return whole_rows(self.K, self.d, rows)

    def passes(self, rows: int) -> float:
        """Return about how many passes over so many rows it takes to learn the curvature."""
        weights = self.K * (self.d + 1)
        return (self.sample_rows(rows) + weights / 3.0) * weights / (8.0 * rows)

    def learn(self, theta: np.ndarray, sample: Batch, l2: np.ndarray, squares: np.ndarray) -> None:
        """Take the curvature from a sample of rows; see `Preconditioner`."""
        K, D = self.K, self.d + 1
        rows, P = self._look(theta, sample)
        sums = aligned((K * D, row_length(K * D, self.dtype)), self.dtype)
        blocks = aligned((K, D, row_length(D, self.dtype)), self.dtype)
        flops = float(len(P)) * len(sums) ** 2
        with Team(self._threads if flops > SHARED_FLOPS else 1) as team:

            def share(worker: int) -> None:
                scratch = new_products(self.d, self.dtype)
                pairs = new_products(len(sums) - 1, self.dtype)
                add_all_products(sums, blocks, P, scratch, pairs, rows, self.d, worker, team.size)

            team.share(share)
        np.divide(sums[:, : len(sums)], self._total, out=self._H)
        for k, block in enumerate(blocks):
            self._H[k * D : (k + 1) * D, k * D : (k + 1) * D] = block[:, :D] / self._total
        level = (P * (1 - P)).mean(axis=0, dtype=np.float64)
        self._unseen = (UNSEEN * level[:, None] * squares).ravel()
        self.penalise(l2)

    def penalise(self, l2: np.ndarray) -> None:
        """Let the curvature that was learnt be that under another penalty (d + 1,)."""
        diagonal = np.einsum("ii->i", self._H)
        # A feature that the sample hardly has is held by what it has over all rows.
        held = np.tile(l2, self.K) + np.maximum(self._unseen - diagonal, 0.0)
        added = held + RIDGE * (float(diagonal.mean()) or 1.0)
        # Penalties of features of unlike scale differ by many powers of ten: a unit diagonal.
        self._unit = 1.0 / np.sqrt(diagonal + added)
        np.multiply(self._H, self._unit[:, None], out=self._L)
        self._L *= self._unit
        factor(self._L, self._scratch, added * np.square(self._unit))

    def apply(self, *vectors: np.ndarray) -> list[np.ndarray]:
        """Return about the inverse Hessian times each of one or two vectors (K, d + 1)."""
        solved = [v.ravel() * self._unit for v in vectors]
        solve(self._L, *two_of(solved))
        return [(v * self._unit).reshape(self.K, self.d + 1) for v in solved]


def new_preconditioner(
    K: int, d: int, dtype: str, scaling: Scaling | None, *,
    rows: int, memory: int, threads: int, keeps: bool = False,
) -> Preconditioner:  # fmt: skip
    """Return what suits so many classes, features and rows, within the memory (bytes).

    keeps: what it learns can be taken under one penalty after another.
    """
    if has_whole(K, d, memory):
        return WholeHessian(K, d, dtype, scaling, threads)
    matrices = choose_matrices(K, d, rows, memory, np.dtype(dtype).itemsize)
    if keeps and learning_passes(d, rows) > KEPT_PASSES:
        matrices = min(matrices, 1)
    if matrices:
        return ByClass(K, d, dtype, scaling, matrices=matrices, threads=threads, keeps=keeps)
    return Diagonal(K, d, dtype, scaling)
