"""The only place that describes rows to the kernels: tables of where their numbers lie."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.kernels.gather import Affine, part_table
from fastsoftmax.kernels.lists import ListTables
from fastsoftmax.model.scaling import Scaling


def affine_of(scaling: Scaling | None, dtype: np.dtype) -> Affine | None:
    """Return what part tables point to for features that are scaled."""
    return None if scaling is None else Affine(scaling.centre, scaling.scale, dtype)


class RowTables:
    """The tables of the rows in use where rows are listed, made anew only for other rows."""

    def __init__(self) -> None:
        self.affine: Affine | None = None
        self._tables: list[ListTables] = []
        self._rows: Callable[[], Part | None] = lambda: None

    def scale(self, affine: Affine | None) -> None:
        """Have the features of all rows to come scaled."""
        self.affine, self._tables = affine, []

    def of(self, parts: tuple[Part, ...]) -> list[ListTables]:
        """Return the tables of these parts."""
        if self._rows() is not parts[0] or not self._tables:
            self._rows = weakref.ref(parts[0])
            self._tables = [ListTables(parts, self.affine)]
        return self._tables


class PartTables:
    """The tables of the rows in use, one for each worker, made anew only for other rows."""

    def __init__(self, columns: Sequence[tuple[int, int]]) -> None:
        """columns: the first feature of each worker, and the first after them."""
        self._columns = columns
        self.affine: Affine | None = None
        self._tables: list[np.ndarray] = []
        # Weak, since a window's memory is needed for the next one.
        self._rows: Callable[[], Part | None] = lambda: None

    def scale(self, affine: Affine | None) -> None:
        """Have the features of all rows to come scaled."""
        self.affine, self._tables = affine, []

    def of(self, parts: tuple[Part, ...]) -> list[np.ndarray]:
        """Return the tables of these arrays."""
        if self._rows() is not parts[0] or not self._tables:
            self._rows = weakref.ref(parts[0])
            self._tables = [part_table(parts, *columns, self.affine) for columns in self._columns]
        return self._tables
