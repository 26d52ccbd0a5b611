"""The only place for the values that all rules share: coefficients, their sums, rows, a block."""

from __future__ import annotations

from collections import namedtuple

import numpy as np

from fastsoftmax.kernels.bounds import OFF, TRIAL_ROWS
from fastsoftmax.kernels.prefetch import new_lines
from fastsoftmax.kernels.sizes import COEFFICIENTS_ROW, has_panels
from fastsoftmax.kernels.workspace import aligned, padded, row_length


# Classes, since their values then have room for what `frames` remembers of them.
class Coefficients(namedtuple("Coefficients", "W b")):
    """W (K, d) and b (1, width), padded to whole vectors; padding biases are -inf."""


class Average(namedtuple("Average", "W b H")):
    """The sums of W and b over steps, and scratch for coefficients; None where not averaged."""


class Block(namedtuple("Block", "X Z R G mass lines trial")):
    """Scratch.

    Two blocks X (2, B, d), margins Z and residuals R (B, width), Gram matrix G (B, B), and the sum
    of exponentials of each row, mass (B,) float64; lists of lines (workers, n) to look ahead;
    logits on the way to an implicit step, trial (TRIAL_ROWS, width).
    """


# Rows to visit: a part table, row numbers, and per row class, weight and step (eta times weight);
# how steps are bounded (see `bounds`), which makes some of them shorter, in place.
Rows = namedtuple("Rows", "table order y weight step bound", defaults=(OFF,))


def weights_length(K: int, d: int, dtype: np.dtype) -> int:
    """Return the length of rows of W; workers of panels have a W of their own."""
    return padded(d, dtype) if has_panels(K, d) else row_length(d, dtype)


def new_coefficients(K: int, d: int, dtype: np.dtype) -> Coefficients:
    """Return zero weights and biases for K classes and d features, padded."""
    b = aligned((1, padded(K, dtype)), dtype)
    b[0, K:] = -np.inf
    return Coefficients(aligned((K, weights_length(K, d, dtype)), dtype), b)


def new_average(K: int, d: int, dtype: np.dtype, rows: int) -> Average:
    """Return zero sums of weights and biases, and coefficients for blocks of `rows` rows."""
    width = padded(K, dtype)
    return Average(
        aligned((K, weights_length(K, d, dtype)), dtype),
        aligned((1, width), dtype),
        block_coefficients(rows, width, dtype),
    )


def block_coefficients(rows: int, width: int, dtype: np.dtype) -> np.ndarray:
    """Return zeros (rows, width) that lie as tiles of a sweep read them."""
    return aligned((rows, max(width, COEFFICIENTS_ROW)), dtype)[:, :width]


def new_block(K: int, d: int, dtype: np.dtype, rows: int, workers: int = 1) -> Block:
    """Return scratch for blocks of `rows` rows, a multiple of eight."""
    width = padded(K, dtype)
    return Block(
        aligned((2, rows, weights_length(K, d, dtype)), dtype),
        aligned((rows, width), dtype),
        aligned((rows, width), dtype),
        aligned((rows, rows), dtype),
        aligned((rows,), np.dtype(np.float64)),
        new_lines(rows, d, workers),
        aligned((TRIAL_ROWS, width), dtype),
    )
