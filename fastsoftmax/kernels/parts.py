"""The only place that says what a part is: rows of numbers, or codes that stand for features.

It compiles nothing, so that who only describes rows need not load the compiler.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def codes_dtype(categories: int) -> np.dtype[Any]:
    """Return the dtype of codes (rows, 1), each of which stands for so many features.

    The feature of a row's code is 1, the others 0; a code of -1 makes all 0.
    """
    return np.dtype("i4", metadata={"categories": categories})


def categories_of(dtype: np.dtype[Any]) -> int | None:
    """Return how many features a code of this dtype stands for, or None for plain numbers."""
    return None if dtype.metadata is None else dtype.metadata.get("categories")


def part_width(part: np.ndarray) -> int:
    """Return how many features a part holds."""
    categories = categories_of(part.dtype)
    return int(part.shape[1]) if categories is None else categories


def is_row_major(part: np.ndarray) -> bool:
    """Return whether each row of a part is contiguous."""
    return part.shape[1] == 1 or part.strides[1] == part.itemsize


def is_wide(dtype: np.dtype[Any]) -> bool:
    """Return whether numbers of a dtype have more digits than a float32 holds."""
    return dtype.itemsize >= 4 and dtype != np.float32 and categories_of(dtype) is None
