"""The only place that says which facts of a part kernels ask for.

It compiles nothing, so that who only describes rows need not load the compiler.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from fastsoftmax.facts import dataclass


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


@dataclass(frozen=True)
class Nonzeros:
    """A part of whose numbers most are 0, as it lies in memory.

    indptr (rows + 1,) int64, beginning anywhere: row t has the numbers indptr[t] : indptr[t + 1]
    of index, int32, each the feature it is of, and of value, float32 or float64; a value of None
    stands for ones. The order within a row is any, no feature is there twice, none of the values
    is 0. width: how many features there are.
    """

    indptr: np.ndarray
    index: np.ndarray
    value: np.ndarray | None
    width: int


class PartLike(Protocol):
    """What says how it lies in memory."""

    @property
    def stored(self) -> Stored | Nonzeros:
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
