"""The only place that preconditions full gradients: an inverse of about the Hessian, from a sample.

Near the optimum most rows are classified with certainty and have no curvature, and each class sees
other rows that have. So each class gets a matrix of its own where that pays: on Fashion-MNIST 43
passes bring the objective within 0.1 %, one matrix of second moments for all classes takes 214, and
none 848. Where all classes and features together are few, `optim/hessian.py` has the whole matrix.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.kernels.cholesky import factor, solve
from fastsoftmax.kernels.curvature import (
    add_products,
    add_squares,
    class_probabilities,
    new_products,
)
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
ALIKE = 1e-3  # curvatures of classes that differ by a smaller share are one
RIDGE = 1e-6  # of the mean diagonal, added to it
SHARED_NUMBERS = 10**6  # of all factors, from which on threads share them
UNSEEN = 0.05  # of the curvature a feature would have if it had nothing to do with the class
# p (1 - p) counts as this at least: rows that are surely right still hold W in place. Where a class
# has a matrix of its own they may hold it less: one of few rows is all but sure of all others, and
# with a thousandth its gain was said four times too low, and reached in twice the passes.
SURE, SURE_OF_CLASS = 1e-3, 1e-4


class Batch(NamedTuple):
    """Rows to visit: arrays side by side, the rows' numbers, and for each its class and weight."""

    parts: tuple[Part, ...]
    order: np.ndarray
    labels: np.ndarray
    weight: np.ndarray


def sample_rows(d: int, rows: int) -> int:
    """Return how many of the rows the curvature is taken from: the more, the fewer features."""
    return min(rows, max(LEAST_ROWS, ROWS_PER_FEATURE * d, CHEAP * rows // d))


def learning_passes(d: int, rows: int) -> float:
    """Return about how many passes over so many rows a matrix for each class takes to learn."""
    return sample_rows(d, rows) * d / (4.0 * rows)


def choose_matrices(K: int, d: int, rows: int, memory: int, itemsize: int) -> int:
    """Return how many matrices to use: one for each class, one, or none but a diagonal."""
    sample = sample_rows(d, rows)
    size = padded(d + 1, np.dtype(f"f{itemsize}")) * (d + 1) * itemsize
    if K * size <= memory // 4 and sample * d <= 8 * WORTH_PASSES * rows:
        return K
    if size <= memory // 8 and sample * d <= 8 * WORTH_PASSES * rows * K:
        return 1
    return 0


def two_of(vectors: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return both of two vectors, or one and zeros: systems are solved for two at once."""
    first, *others = vectors
    return first, others[0] if others else np.zeros_like(first)


class Preconditioner(ABC):
    """About the inverse of the Hessian of the mean loss and the penalty, for weights (K, d + 1).

    renewals: the iterations after which it is taken anew, for it was taken far from the optimum,
    if as many passes were made as it takes to learn it; or `patience` times as many, where the loss
    is much as it was there.
    """

    renewals: tuple[int, ...] = (4, 12, 30, 60)
    patience = 1

    def __init__(self, K: int, d: int, dtype: str, scaling: Scaling | None) -> None:
        self.K, self.d, self.dtype = K, d, np.dtype(dtype)
        self._affine = affine_of(scaling, self.dtype)
        self._total = 1.0
        self._team = Team(1)

    def __enter__(self) -> Preconditioner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads."""
        self._team.close()

    @abstractmethod
    def sample_rows(self, rows: int) -> int:
        """Return how many of so many rows the curvature is taken from."""

    @abstractmethod
    def passes(self, rows: int) -> float:
        """Return about how many passes over so many rows it takes to learn the curvature."""

    @abstractmethod
    def learn(self, theta: np.ndarray, sample: Batch, l2: np.ndarray, squares: np.ndarray) -> None:
        """Take the curvature at weights theta (K, d + 1), the bias last, from a sample of rows.

        l2 (d + 1,): the penalty of each feature. squares (d + 1,): the mean of its square over all
        rows, or 0: a feature that the sample hardly has would else seem to have no curvature.
        """

    @abstractmethod
    def penalise(self, l2: np.ndarray) -> None:
        """Let what was learnt be the curvature under another penalty (d + 1,)."""

    @abstractmethod
    def apply(self, *vectors: np.ndarray) -> list[np.ndarray]:
        """Return about the inverse Hessian times each of one or two vectors (K, d + 1)."""

    def _look(self, theta: np.ndarray, sample: Batch) -> tuple[Rows, np.ndarray]:
        """Return a sample as kernels take it, and the probabilities (n, K) of its rows."""
        K, d = self.K, self.d
        weights = new_coefficients(K, d + 1, self.dtype)
        weights.W[:, : d + 1] = theta
        rows = Rows(part_table(sample.parts, affine=self._affine), *sample[1:], sample.weight)
        P = np.empty((len(sample.order), K), self.dtype)
        block = new_block(K, d + 1, self.dtype, block_rows(K, d + 1))
        class_probabilities(P, weights, block, rows, 0, len(P), d)
        self._total = max(float(sample.weight.sum()), 1e-300)
        return rows, P

    def _curvatures(
        self, theta: np.ndarray, sample: Batch, least: float = SURE
    ) -> tuple[Rows, np.ndarray]:
        """Return a sample as kernels take it, and w p (1 - p) (n, K), at least w `least`."""
        rows, P = self._look(theta, sample)
        one = self.dtype.type(1)
        sure = np.maximum(P * (one - P), self.dtype.type(least))
        return rows, sample.weight.astype(self.dtype)[:, None] * sure


class Diagonal(Preconditioner):
    """One number a weight."""

    def __init__(self, K: int, d: int, dtype: str, scaling: Scaling | None) -> None:
        super().__init__(K, d, dtype, scaling)
        self._curvature = np.ones((K, d + 1))

    def sample_rows(self, rows: int) -> int:
        """Return how many of so many rows the curvature is taken from."""
        return sample_rows(self.d, rows)

    def passes(self, rows: int) -> float:
        """Return about how many passes over so many rows it takes to learn the curvature."""
        return 1.0

    def learn(self, theta: np.ndarray, sample: Batch, l2: np.ndarray, squares: np.ndarray) -> None:
        """Take the curvature from a sample of rows; see `Preconditioner`."""
        rows, curves = self._curvatures(theta, sample)
        sums = np.zeros((self.K, self.d + 1))
        add_squares(sums, curves, new_products(self.d, self.dtype), rows, self.d)
        level = curves.mean(axis=0, dtype=np.float64)[:, None]
        self._curvature = sums / self._total + UNSEEN * level * squares
        self.penalise(l2)

    def penalise(self, l2: np.ndarray) -> None:
        """Let what was learnt be the curvature under another penalty (d + 1,)."""
        floor = RIDGE * self._curvature.mean(axis=1, keepdims=True)
        self._diagonal = np.maximum(self._curvature + l2, np.maximum(floor, 1e-300))

    def apply(self, *vectors: np.ndarray) -> list[np.ndarray]:
        """Return about the inverse Hessian times each of one or two vectors (K, d + 1)."""
        return [v / self._diagonal for v in vectors]


class ByClass(Preconditioner):
    """A matrix for each class, or one for all whose level differs.

    keeps: what was learnt stays, beside its factors, so that another penalty can be taken.
    """

    renewals = (4, 12, 20, 30, 45, 60)
    patience = 8

    def __init__(
        self, K: int, d: int, dtype: str, scaling: Scaling | None, *,
        matrices: int, threads: int, keeps: bool = False,
    ) -> None:  # fmt: skip
        """matrices: K or 1."""
        super().__init__(K, d, dtype, scaling)
        self.matrices = self._taken = matrices
        shape = (matrices, d + 1, padded(d + 1, self.dtype))
        shared = K * (d + 1) ** 2 >= SHARED_NUMBERS
        self._team = Team(max(1, min(threads, K)) if shared else 1)
        self._factors = aligned(shape, self.dtype)
        self._products = aligned(shape, self.dtype) if keeps else self._factors
        self._unseen, self._units = np.zeros((matrices, d + 1)), np.ones((matrices, d + 1))
        self._level = np.ones((K, 1))

    def sample_rows(self, rows: int) -> int:
        """Return how many of so many rows the curvature is taken from."""
        return sample_rows(self.d, rows)

    def passes(self, rows: int) -> float:
        """Return about how many passes over so many rows it takes to learn the curvature."""
        return learning_passes(self.d, rows) * self.matrices / self.K

    def learn(self, theta: np.ndarray, sample: Batch, l2: np.ndarray, squares: np.ndarray) -> None:
        """Take the curvature from a sample of rows; see `Preconditioner`."""
        shared = self.matrices == 1
        rows, curves = self._curvatures(theta, sample, SURE if shared else SURE_OF_CLASS)
        # At zero weights all classes are alike, and one of their matrices is that of all.
        shared |= bool(np.allclose(curves, curves[:, :1], rtol=ALIKE, atol=0.0))
        self._taken = 1 if shared else self.matrices
        self._level = np.ones((self.K, 1))
        if shared:
            levels = curves.sum(axis=0, dtype=np.float64)
            self._level = (levels / levels.mean()).reshape(-1, 1)
            curves = curves.mean(axis=1, keepdims=True)
        self._unseen = UNSEEN * curves.sum(axis=0, dtype=np.float64)[:, None] * squares
        self._products[: self._taken] = 0

        def share(worker: int) -> None:
            scratch, workers = new_products(self.d, self.dtype), self._team.size
            if shared:
                add_products(self._products[0], curves, 0, scratch, rows, self.d, worker, workers)
                return
            for k in range(worker, self.K, workers):
                add_products(self._products[k], curves, k, scratch, rows, self.d, 0, 1)

        self._team.share(share)
        self.penalise(l2)

    def penalise(self, l2: np.ndarray) -> None:
        """Let what was learnt be the curvature under another penalty (d + 1,)."""
        D = self.d + 1

        def share(worker: int) -> None:
            square = np.empty((D, D))
            for k in range(worker, self._taken, self._team.size):
                H, L = self._products[k, :, :D], self._factors[k]
                diagonal = np.einsum("ii->i", H).astype(np.float64)
                ridge = RIDGE * (float(diagonal.mean()) or 1.0)
                added = self._total * l2 + ridge + self._unseen[k]
                # Penalties of features of unlike scale differ by many powers of ten.
                unit = self._units[k] = 1.0 / np.sqrt(diagonal + added)
                np.multiply(H, unit[:, None], out=L[:, :D], casting="same_kind")
                L[:, :D] *= unit
                factor(L, square, added * np.square(unit))

        self._team.share(share)

    def apply(self, *vectors: np.ndarray) -> list[np.ndarray]:
        """Return about the inverse Hessian times each of one or two vectors (K, d + 1)."""
        units = self._units[: self._taken]
        solved = [np.ascontiguousarray(v / self._level * units) for v in vectors]
        first, second = two_of(solved)

        def share(worker: int) -> None:
            for k in range(worker, self.K, self._team.size):
                solve(self._factors[k if self._taken > 1 else 0], first[k], second[k])

        self._team.share(share)
        return [v * units * self._total for v in solved]
