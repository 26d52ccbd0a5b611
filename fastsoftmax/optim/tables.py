"""The only place that describes rows to the kernels: tables of where their numbers lie."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from fastsoftmax.data.parts import Part
from fastsoftmax.kernels.gather import Affine
from fastsoftmax.model.scaling import Scaling


def affine_of(scaling: Scaling | None, dtype: np.dtype) -> Affine | None:
    """Return what part tables point to for features that are scaled."""
    return None if scaling is None else Affine(scaling.centre, scaling.scale, dtype)


class PartTables:
    """The tables of the rows in use, made anew only for other rows."""

    def __init__(self, make: Callable[[tuple[Part, ...], Affine | None], list[Any]]) -> None:
        """make: returns the tables of parts, with features scaled or not."""
        self._make = make
        self.affine: Affine | None = None
        self._tables: list[Any] = []
        # Weak, since a window's memory is needed for the next one.
        self._rows: Callable[[], Part | None] = lambda: None

    def scale(self, affine: Affine | None) -> None:
        """Have the features of all rows to come scaled."""
        self.affine, self._tables = affine, []

    def of(self, parts: tuple[Part, ...]) -> list[Any]:
        """Return the tables of these parts."""
        if self._rows() is not parts[0] or not self._tables:
            self._rows = weakref.ref(parts[0])
            self._tables = self._make(parts, self.affine)
        return self._tables
