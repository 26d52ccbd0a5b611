"""Rows of few numbers for tests: as sparse parts, beside others, and as a matrix."""

from __future__ import annotations

import numpy as np

from fastsoftmax.data.parts import Codes, Dense, Part, Sparse


def random_rows(n: int, d: int, share: float = 0.1, seed: int = 0) -> np.ndarray:
    """Return a matrix of which so many numbers are not 0; some of its rows are zeros."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((n, d)) < share, rng.normal(size=(n, d)), 0.0)
    X[::17] = 0.0
    return X


def sparse_part(X: np.ndarray, *, shuffled: bool = False) -> Sparse:
    """Return the rows of a matrix as a sparse part."""
    rows, index = X.nonzero()
    if shuffled:  # within rows
        order = np.lexsort((np.random.default_rng(1).random(len(rows)), rows))
        rows, index = rows[order], index[order]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(X)))])
    return Sparse(indptr, index.astype(np.int32), X[rows, index], X.shape[1])


def mixed_rows(n: int, seed: int = 0) -> tuple[tuple[Part, ...], np.ndarray]:
    """Return sparse parts, numbers and codes side by side, and the matrix they are."""
    rng = np.random.default_rng(seed)
    first, second = random_rows(n, 20, seed=seed), (random_rows(n, 9, 0.3, seed) > 0) * 1.0
    numbers = np.where(rng.random((n, 3)) < 0.3, 0.0, rng.normal(size=(n, 3)))
    codes = rng.integers(-1, 4, (n, 1)).astype(np.int32)
    ones = sparse_part(second)
    parts = (
        sparse_part(first),
        Dense(numbers.astype(np.float32)),
        Sparse(ones.indptr, ones.index, None, 9),
        Codes(codes, 4),
    )
    hot = (codes == np.arange(4)).astype(float)
    return parts, np.concatenate([first, numbers.astype(np.float32), second, hot], axis=1)
