"""The only place that says which facts of a part kernels ask for.

It compiles nothing, so that who only describes rows need not load the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


class Stored(NamedTuple):
    """A part as it lies in memory.

    values: (rows, width) numbers; or, where each stands for one of so many `categories`, codes
    (rows, 1) int32: the feature of a row's code is 1, the others 0; a code of -1 makes all 0.
    """

    values: np.ndarray
    categories: int | None = None

    @property
    def width(self) -> int:
        """How many features a row has."""
        return int(self.values.shape[1]) if self.categories is None else self.categories


class PartLike(Protocol):
    """What says how it lies in memory."""

    @property
    def stored(self) -> Stored:
        """The arrays, which live as long as it does."""


@dataclass(frozen=True)
class Matrix:
    """A matrix of numbers (rows, width) alone, as a part."""

    values: np.ndarray

    @property
    def stored(self) -> Stored:
        """The matrix."""
        return Stored(self.values)


def is_row_major(matrix: np.ndarray) -> bool:
    """Return whether each row of a matrix is contiguous."""
    return matrix.shape[1] == 1 or matrix.strides[1] == matrix.itemsize
