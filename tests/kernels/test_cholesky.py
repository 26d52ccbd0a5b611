"""Matrices are factored, and systems solved, as NumPy does it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastsoftmax.kernels.cholesky import factor, solve

SIZES = [1, 2, 3, 15, 16, 17, 18, 19, 33, 64, 101]


def curved(n, dtype):
    """Return a symmetric matrix (n, n) whose eigenvalues are all above 0."""
    rows = np.random.default_rng(n).normal(size=(2 * n, n))
    return (rows.T @ rows / n).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", SIZES)
def test_the_factor_is_that_of_numpy(n, dtype):
    H, added = curved(n, dtype), np.linspace(0.0, 1.0, n)
    L = np.full((n, n + 3), 7.0, dtype)  # rows may be longer, and the upper triangle is not read
    L[:, :n] = np.where(np.tri(n, dtype=bool), H, np.nan)
    factor(L, np.empty((n, n)), added)
    expected = np.linalg.cholesky(H.astype(np.float64) + np.diag(added))
    rtol = 1e-12 if dtype == np.float64 else 1e-6
    assert_allclose(np.tril(L[:, :n]), expected, rtol=0, atol=rtol * np.abs(expected).max())
    assert_array_equal(L[:, n:], 7.0)


@pytest.mark.parametrize("n", SIZES)
def test_two_systems_are_solved_with_it(n):
    H, vectors = curved(n, np.float64), np.random.default_rng(0).normal(size=(2, n))
    L, found = H.copy(), vectors.copy()
    factor(L, np.empty((n, n)), np.zeros(n))
    solve(L, found[0], found[1])
    assert_allclose(found, np.linalg.solve(H, vectors.T).T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("at", [0, 7, 16, 30])
def test_a_direction_of_no_curvature_is_left_alone(at):
    n = 31
    H = curved(n, np.float64)
    H[at], H[:, at] = 0.0, 0.0
    found, other = np.ones(n), np.zeros(n)
    factor(H, np.empty((n, n)), np.zeros(n))
    solve(H, found, other)
    assert abs(found[at]) < 1e-12
    assert np.isfinite(found).all()
