"""The only place that makes a Source of a SciPy sparse matrix, by what it says of itself."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from fastsoftmax.data.encode import GivenLabels
from fastsoftmax.data.in_use import MOST_FEATURES, InUse, UseCount, all_in_use
from fastsoftmax.data.label_stats import HeldOut
from fastsoftmax.data.memory import RowsInMemory
from fastsoftmax.data.parts import Sparse
from fastsoftmax.data.source import Column
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass

logger = logging.getLogger("fastsoftmax")

NAME = "x"  # of the column that nameless sparse rows are


@dataclass(frozen=True)
class MatrixRows:
    """Rows of a sparse matrix: `width` numbers each, those that are not 0 told by the arrays."""

    indptr: np.ndarray
    index: np.ndarray
    value: np.ndarray
    width: int


def is_sparse_matrix(data: Any) -> bool:
    """Return whether data are a sparse matrix or array as SciPy has them."""
    return hasattr(data, "tocsr") and hasattr(data, "nnz") and hasattr(data, "shape")


def sparse_rows(data: Any) -> MatrixRows:
    """Return the rows of a SciPy sparse matrix, uncopied where it is a plain CSR one."""
    if len(data.shape) != 2:
        raise DataError(
            f"the matrix must have two dimensions (rows, features), got the shape {data.shape}."
        )
    if np.dtype(data.dtype).kind not in "biuf":
        raise DataError(f"the matrix has dtype {data.dtype}; it must hold numbers.")
    if data.shape[1] > MOST_FEATURES:
        raise DataError(f"the matrix has {data.shape[1]:,} columns; {MOST_FEATURES:,} are read.")
    if getattr(data, "format", "csr") != "csr":
        logger.info("the sparse matrix is %s: it is converted to CSR", data.format)
    csr = data.tocsr()
    _check_indices(csr)
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    if not np.all(csr.data):
        csr = csr.copy()
        csr.eliminate_zeros()
    value = csr.data
    if value.dtype not in (np.float32, np.float64):
        is_short = value.dtype.itemsize <= 2
        value = value.astype(np.float32 if is_short else np.float64)
    value = value.astype(value.dtype.newbyteorder("="), copy=False)
    return MatrixRows(csr.indptr.astype(np.int64, copy=False), csr.indices, value, csr.shape[1])


def _check_indices(csr: Any) -> None:
    """Raise DataError where the arrays of a matrix contradict its shape."""
    indptr, index, width = csr.indptr, csr.indices, csr.shape[1]
    fits = len(indptr) == csr.shape[0] + 1 and int(indptr[0]) == 0
    fits = fits and int(indptr[-1]) <= min(len(index), len(csr.data))
    if not fits or (np.diff(indptr) < 0).any():
        raise DataError("the sparse matrix is damaged: its indptr does not fit its other arrays.")
    used = index[: int(indptr[-1])]
    odd = np.flatnonzero((used < 0) | (used >= width))
    if odd.size:
        row = int(np.searchsorted(indptr, odd[0], side="right")) - 1
        raise DataError(
            f"row {row}: the index {used[odd[0]]} is outside the matrix of {width} columns."
        )


class SparseMatrixSource(RowsInMemory):
    """A sparse matrix: one nameless column."""

    resident = True
    columns_are_nameless = True

    def __init__(self, rows: MatrixRows, labels: GivenLabels, in_use: InUse | None) -> None:
        """Use the matrix; in_use: what a model knows of its columns, or None."""
        count = len(rows.indptr) - 1
        super().__init__(count, labels)
        self._raw = rows
        self.nonzeros = max(len(rows.index) / count, 1.0)
        self.row_bytes = int(self.nonzeros * (4 + rows.value.itemsize)) + 8
        self._part: Sparse | None = None
        self._use(all_in_use(rows.width) if in_use is None else in_use)

    def _use(self, in_use: InUse) -> None:
        self._in_use, self._part = in_use, None
        self.columns = (Column(NAME, sparse=in_use),)
        self.n_features = len(in_use)

    def learn(self, held_out: HeldOut | None = None) -> None:
        """Look which columns are in use; see Source."""
        rows = self._raw
        index = rows.index
        if held_out is not None:
            counted = ~held_out(0, len(rows.indptr) - 1)
            index = index[np.repeat(counted, np.diff(rows.indptr))]
        found = UseCount(rows.width)
        found.add(index, len(rows.indptr) - 1)
        if not len(found.in_use()):
            raise DataError("the matrix has no number that is not 0: there is nothing to learn of.")
        self._use(found.in_use())

    @property
    def part(self) -> Sparse:
        """All rows, of the columns that are in use."""
        if self._part is None:
            rows = self._raw
            arrays = self._in_use.select(rows.indptr, rows.index, rows.value)
            self._part = Sparse(*arrays, len(self._in_use))
        return self._part


def in_use_of(like: tuple[Column, ...] | None, like_width: int | None, width: int) -> InUse | None:
    """Return what a model knows of the one nameless sparse column, or None where there is none.

    Raises DataError where it takes other rows.
    """
    if like is None:
        if like_width is not None:
            raise DataError(
                "the model was trained on rows that are not sparse: give X.toarray() instead."
            )
        return None
    if len(like) != 1 or like[0].sparse is None:
        raise DataError(
            f"the model takes {len(like)} named columns, a sparse matrix has none: give a table."
        )
    if like[0].sparse.width != width:
        raise DataError(
            f"the matrix has {width:,} columns, the model takes {like[0].sparse.width:,}."
        )
    return like[0].sparse
