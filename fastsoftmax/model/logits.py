"""The only place that computes the logits of rows for a trained model, z = W x + b.

NumPy alone does the work, in blocks of bounded size: nothing compiles, so one row takes no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from fastsoftmax.data.parts import Part, Sparse
from fastsoftmax.errors import DataError
from fastsoftmax.model.parameters import Parameters
from fastsoftmax.model.sparse_logits import later, refuse_infinite_logits, sparse_logits_of

# A block of rows and its logits stay in the cache of one core.
BLOCK_BYTES = 2**21


def logits_of(
    model: Parameters, parts: tuple[Part, ...], place: Callable[[int], str]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield first row and logits z = W x + b of each block of the rows in `parts`."""
    if any(isinstance(part, Sparse) for part in parts):
        yield from sparse_logits_of(model, parts, place)
        return
    rows = parts[0].rows
    K, d = model.weights.shape
    step = max(1, BLOCK_BYTES // ((d + K) * model.dtype.itemsize))
    block = np.empty((min(step, rows), d), model.dtype)
    for start in range(0, max(rows, 1), step):
        X = block[: min(step, rows - start)]
        _cast_rows(model, parts, start, X)
        if not np.isfinite(X).all():
            raise _describe_non_finite(model, parts, start, X, place)
        with np.errstate(over="ignore", invalid="ignore"):
            z = X @ model.weights.T
            z += model.bias
        refuse_infinite_logits(model, z, partial(later, place, start))
        yield start, z


def _cast_rows(model: Parameters, parts: tuple[Part, ...], start: int, X: np.ndarray) -> None:
    """Fill X with rows from `start`, part by part, in the dtype of X, as in training."""
    column, scaling = 0, model.scaling
    for part in parts:
        here, some = slice(column, column + part.width), part[start : start + len(X)]
        column += part.width
        # What does not fit becomes infinite or NaN, and is found then.
        with np.errstate(over="ignore", invalid="ignore"):
            if scaling is not None and part.is_wide:
                wide = np.empty((len(X), part.width))
                some.write_to(wide)
                wide = (wide - scaling.centre[here]) * scaling.scale[here]
                np.copyto(X[:, here], wide, casting="unsafe")
                continue
            some.write_to(X[:, here])
            if scaling is not None:
                X[:, here] -= scaling.centre[here].astype(X.dtype)
                X[:, here] *= scaling.scale[here].astype(X.dtype)


def _describe_non_finite(
    model: Parameters,
    parts: tuple[Part, ...],
    start: int,
    X: np.ndarray,
    place: Callable[[int], str],
) -> DataError:
    """Return the error that names the first value that is not finite."""
    row, column = (int(i) for i in np.argwhere(~np.isfinite(X))[0])
    value = _value(parts, start + row, column)
    names = model.feature_names
    where = f"{place(start + row)}: " + (
        f'column "{names[column]}"' if names else f"feature {column}"
    )
    if np.isnan(value):
        return DataError(f"{where} is NaN. Drop the row, or fill the value as in training.")
    if np.isinf(value):
        return DataError(f"{where} is infinite. Drop the row, or fill the value as in training.")
    return DataError(f"{where} is {value:g}, which does not fit {model.dtype}, the model's dtype.")


def _value(parts: tuple[Part, ...], row: int, column: int) -> Any:
    for part in parts:
        if column < part.width:
            return part.row(row)[column]
        column -= part.width
    raise IndexError(column)
