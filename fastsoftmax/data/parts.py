"""The only place that knows the kinds of parts: features of some rows, in one layout.

The features of a row are spread over parts that stand side by side. What a part is made of stays
here: who moves, keeps or counts rows asks the part, and so takes every kind alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self, final

import numpy as np

from fastsoftmax.kernels.parts import Stored, is_row_major

Described = tuple[str, int | None]  # what a part is, in words that JSON holds
Allocate = Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray]
# Copies a matrix, or its rows in some order, into one of its dtype whose rows lie together, as
# kernels.transpose.copy_matrix does. It is given, not imported: who scores rows compiles nothing.
CopyRows = Callable[[np.ndarray, np.ndarray, np.ndarray | None], None]


class Part(ABC):
    """`width` features of `rows` rows; nothing in them is null."""

    @property
    @abstractmethod
    def width(self) -> int:
        """How many features a row has here."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many rows there are."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds each feature as it is."""

    @property
    @abstractmethod
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays that the part is made of, each as long as there are rows, or longer."""

    @property
    @abstractmethod
    def stored(self) -> Stored:
        """What kernels must know of it."""

    @property
    @abstractmethod
    def is_row_major(self) -> bool:
        """Whether what there is of a row lies together in memory."""

    @property
    @abstractmethod
    def is_wide(self) -> bool:
        """Whether features have more digits than a float32 holds."""

    @property
    @abstractmethod
    def described(self) -> Described:
        """What `part_of` makes the part again of, beside the bytes of its rows."""

    @abstractmethod
    def __getitem__(self, rows: slice) -> Self:
        """Return consecutive rows, where they lie."""

    @abstractmethod
    def room(self, rows: int, allocate: Allocate = np.empty) -> Self:
        """Return a part of this kind with room for so many rows, its content anything yet."""

    @abstractmethod
    def fill(
        self, copy: CopyRows, first: int, other: Self, order: np.ndarray | None = None
    ) -> None:
        """Copy all rows of a part of this kind, or those in `order`, to the rows from `first` on.

        Rows are filled from the first to the last: of some kinds the bytes of a row are its own.
        """

    @abstractmethod
    def write_to(self, out: np.ndarray) -> None:
        """Write the features to `out` (rows, width), cast; what does not fit becomes infinite."""

    @abstractmethod
    def row(self, row: int) -> np.ndarray:
        """Return the features (width,) of a row, as they are."""

    @property
    def nbytes(self) -> int:
        """The bytes of all rows."""
        return sum(array.nbytes for array in self.arrays)

    def take(self, copy: CopyRows, order: np.ndarray | None = None) -> Self:
        """Return a copy of all rows, or of those in `order`, each row together in memory."""
        taken = self.room(self.rows if order is None else len(order))
        taken.fill(copy, 0, self, order)
        return taken

    def by_row(self, copy: CopyRows) -> Self:
        """Return the part where each row lies together in memory: itself, or a copy."""
        return self if self.is_row_major else self.take(copy)

    def matrix(self) -> np.ndarray:
        """Return the features (rows, width), uncopied where they lie so in memory."""
        out = np.empty((self.rows, self.width), self.dtype)
        self.write_to(out)
        return out


@final
class Dense(Part):
    """Numbers (rows, width) of one dtype and of any strides."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"Dense({self.rows} x {self.width} {self.dtype})"

    @property
    def width(self) -> int:
        """How many features a row has here."""
        return int(self.values.shape[1])

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.values)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the numbers."""
        return self.values.dtype

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The numbers."""
        return (self.values,)

    @property
    def stored(self) -> Stored:
        """The numbers."""
        return Stored(self.values)

    @property
    def is_row_major(self) -> bool:
        """Whether each row is contiguous."""
        return is_row_major(self.values)

    @property
    def is_wide(self) -> bool:
        """Whether numbers have more digits than a float32 holds."""
        return self.dtype.itemsize >= 4 and self.dtype != np.float32

    @property
    def described(self) -> Described:
        """The dtype."""
        return self.dtype.name, None

    def __getitem__(self, rows: slice) -> Dense:
        return Dense(self.values[rows])

    def room(self, rows: int, allocate: Allocate = np.empty) -> Dense:
        """Return room for so many rows."""
        return Dense(allocate((rows, self.width), self.dtype))

    def fill(
        self, copy: CopyRows, first: int, other: Dense, order: np.ndarray | None = None
    ) -> None:
        """Copy rows of another part to the rows from `first` on."""
        stop = first + (other.rows if order is None else len(order))
        copy(self.values[first:stop], other.values, order)

    def write_to(self, out: np.ndarray) -> None:
        """Write the numbers to `out`, cast."""
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, self.values, casting="unsafe")

    def row(self, row: int) -> np.ndarray:
        """Return the numbers of a row."""
        return np.asarray(self.values[row])

    def matrix(self) -> np.ndarray:
        """Return the numbers."""
        return self.values


@final
class Codes(Part):
    """A code for each row, which stands for one of `categories` features.

    That feature is 1 and the others are 0; a code of -1 makes all 0.
    """

    def __init__(self, values: np.ndarray, categories: int) -> None:
        """Keep codes (rows, 1) int32."""
        self.values, self.categories = values, categories

    def __repr__(self) -> str:
        return f"Codes({self.rows} of {self.categories})"

    @property
    def width(self) -> int:
        """How many features the codes stand for."""
        return self.categories

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.values)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of zeros and ones."""
        return np.dtype(np.uint8)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The codes."""
        return (self.values,)

    @property
    def stored(self) -> Stored:
        """The codes, and how many features they stand for."""
        return Stored(self.values, self.categories)

    @property
    def is_row_major(self) -> bool:
        """A code is a whole row."""
        return True

    @property
    def is_wide(self) -> bool:
        """Zeros and ones have one digit."""
        return False

    @property
    def described(self) -> Described:
        """The dtype of the codes, and how many features they stand for."""
        return self.values.dtype.name, self.categories

    def __getitem__(self, rows: slice) -> Codes:
        return Codes(self.values[rows], self.categories)

    def room(self, rows: int, allocate: Allocate = np.empty) -> Codes:
        """Return room for so many rows."""
        return Codes(allocate((rows, 1), self.values.dtype), self.categories)

    def fill(
        self, copy: CopyRows, first: int, other: Codes, order: np.ndarray | None = None
    ) -> None:
        """Copy rows of another part to the rows from `first` on."""
        stop = first + (other.rows if order is None else len(order))
        copy(self.values[first:stop], other.values, order)

    def write_to(self, out: np.ndarray) -> None:
        """Write a one where each code's feature is, zeros elsewhere."""
        out[:] = self.values == np.arange(self.categories)

    def row(self, row: int) -> np.ndarray:
        """Return zeros, and a one where the code's feature is."""
        return (self.values[row] == np.arange(self.categories)).astype(self.dtype)


def part_of(described: Described, rows: np.ndarray) -> Part:
    """Return the part that is so described, of the bytes (rows, bytes of a row), uncopied."""
    name, categories = described
    values = rows.view(np.dtype(name))
    return Dense(values) if categories is None else Codes(values, categories)
