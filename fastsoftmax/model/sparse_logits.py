"""The only place that computes the logits of sparse rows for a trained model.

Like those of other rows they are NumPy's work alone, in blocks of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from fastsoftmax.data.parts import Part, Sparse
from fastsoftmax.errors import DataError
from fastsoftmax.model.parameters import Parameters

BLOCK_BYTES = 2**22  # of products, or of dense rows


def sparse_logits_of(
    model: Parameters, parts: tuple[Part, ...], place: Callable[[int], str]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield first row and logits of each block of rows, some parts of which are sparse."""
    rows, (K, d) = parts[0].rows, model.weights.shape
    by_feature = np.ascontiguousarray(model.weights.T)
    step = _block_rows(parts, K * model.dtype.itemsize)
    for start in range(0, max(rows, 1), step):
        count = min(step, rows - start)
        z = np.tile(model.bias, (count, 1))
        column = 0
        for part in parts:
            some = part[start : start + count]
            with np.errstate(over="ignore", invalid="ignore"):
                if isinstance(some, Sparse):
                    odd = _add_sparse(z, some, model, by_feature, column)
                else:
                    odd = _add_dense(z, some, model, by_feature, column)
            if odd is not None:
                raise _not_finite(model, some, *odd, column, place(start + odd[0]))
            column += part.width
        assert column == d
        refuse_infinite_logits(model, z, partial(later, place, start))
        yield start, z


def later(place: Callable[[int], str], start: int, row: int) -> str:
    """Say where a row stands that is so many rows after another."""
    return place(start + row)


def sparse_part(model: Parameters, matrix: np.ndarray) -> Sparse:
    """Return the rows of a matrix as a model of one sparse column takes them."""
    columns = model.columns or ()
    in_use = columns[0].sparse if len(columns) == 1 else None
    if in_use is None or matrix.ndim != 2 or matrix.shape[1] != in_use.width:
        wanted = f"{in_use.width:,} columns" if in_use is not None else "named columns"
        raise DataError(f"the model takes rows of {wanted}, got an array of {matrix.shape}.")
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"the features must be numbers, got an array of {matrix.dtype}.")
    rows, index = matrix.nonzero()
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(matrix)))])
    value = matrix[rows, index].astype(np.float64)
    return Sparse(*in_use.select(indptr, index, value), len(in_use))


def refuse_infinite_logits(model: Parameters, z: np.ndarray, place: Callable[[int], str]) -> None:
    """Raise DataError at the first row whose logits are no finite numbers."""
    if not np.isfinite(z).all():
        row = int(np.isfinite(z).all(axis=1).argmin())
        raise DataError(
            f"{place(row)}: the features are so large that the logits do not fit {model.dtype}."
            " Check them, or scale them before training."
        )


def _block_rows(parts: tuple[Part, ...], number_bytes: int) -> int:
    """Return how many rows make products of BLOCK_BYTES."""
    sizes = [
        part.nonzeros / max(part.rows, 1) * number_bytes
        if isinstance(part, Sparse)
        else part.width * 8
        for part in parts
    ]
    return max(16, int(BLOCK_BYTES / max(sum(sizes), 1.0)))


def _add_sparse(
    z: np.ndarray, part: Sparse, model: Parameters, by_feature: np.ndarray, column: int
) -> tuple[int, int] | None:
    """Add W x of a sparse part to z; return row and feature of the first that is not finite."""
    ends = part.indptr - part.indptr[0]
    index = part.arrays[1] + np.int64(column)
    x = np.ones(len(index)) if part.value is None else part.arrays[2].astype(np.float64)
    if model.scaling is not None:
        x = x * model.scaling.scale[index]
    x = x.astype(model.dtype)
    if not np.isfinite(x).all():
        at = int(np.isfinite(x).argmin())
        return int(np.searchsorted(ends, at, side="right")) - 1, at - int(ends[0])
    there = np.flatnonzero(np.diff(ends))
    if len(there):
        z[there] += np.add.reduceat(by_feature[index] * x[:, None], ends[there], axis=0)
    return None


def _add_dense(
    z: np.ndarray, part: Part, model: Parameters, by_feature: np.ndarray, column: int
) -> tuple[int, int] | None:
    """Add W x of a part of numbers or codes to z; see `_add_sparse`."""
    X, here = np.empty((part.rows, part.width)), slice(column, column + part.width)
    part.write_to(X)
    if model.scaling is not None:
        X = (X - model.scaling.centre[here]) * model.scaling.scale[here]
    X = X.astype(model.dtype)
    if not np.isfinite(X).all():
        row, feature = (int(i) for i in np.argwhere(~np.isfinite(X))[0])
        return row, feature
    z += X @ by_feature[here]
    return None


def _not_finite(
    model: Parameters, part: Part, row: int, at: int, column: int, place: str
) -> DataError:
    """Return the error that names a value that is not finite, number `at` of what a row has."""
    if isinstance(part, Sparse):
        feature, value = int(part.arrays[1][at]), float(part.arrays[2][at])
    else:
        feature, value = at, float(part.row(row)[at])
    names = model.feature_names
    name = f'column "{names[column + feature]}"' if names else f"feature {column + feature}"
    if np.isfinite(value):
        return DataError(f"{place}: {name} is {value:g}, which does not fit {model.dtype}.")
    said = "NaN" if np.isnan(value) else "infinite"
    return DataError(f"{place}: {name} is {said}. Drop the row, or fill the value as in training.")
