"""The only place that knows the kinds of parts: features of some rows, in one layout.

The features of a row are spread over parts that stand side by side. What a part is made of stays
here: who moves, keeps or counts rows asks the part, and so takes every kind alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, Self, final

import numpy as np

from fastsoftmax.kernels.parts import Nonzeros, Stored, is_row_major

Described = tuple[str, int | None]  # what a part is, in words that JSON holds
Allocate = Callable[[tuple[int, ...], np.dtype[Any]], np.ndarray]
Numbers = np.ndarray | tuple[np.ndarray, ...]  # (rows, width), or as many columns (rows,)
# Copies numbers, or their rows in some order, to a matrix of their dtype whose rows lie together:
# kernels.transpose.copy_matrix. It is given, not imported: who scores rows compiles nothing.
CopyRows = Callable[[np.ndarray, Numbers, np.ndarray | None], None]


class RowBytes(NamedTuple):
    """The bytes of rows, uint8: (rows, n), n of each; or (n,), where there are offsets.

    offsets: (rows + 1,) int64, from 0 on; row t has the bytes from offsets[t] to offsets[t + 1].
    """

    bytes: np.ndarray
    offsets: np.ndarray | None = None


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
    def stored(self) -> Stored | Nonzeros:
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

    @abstractmethod
    def packed(self) -> tuple[RowBytes, ...]:
        """Return the bytes of all rows, each together in memory, uncopied."""

    def numbers(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which features of a row may be other than 0, and what they are."""
        return np.arange(self.width), self.row(row)

    @property
    def marks(self) -> np.ndarray:
        """One number (rows,) of each row, by which another order of the rows is noticed."""
        return np.asarray(self.arrays[0][:, 0])

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
    """Numbers (rows, width) of one dtype and of any strides, or as columns that lie anywhere."""

    def __init__(self, numbers: Numbers) -> None:
        """Keep a matrix (rows, width), or its columns, each (rows,) and contiguous."""
        self._numbers = numbers

    def __repr__(self) -> str:
        return f"Dense({self.rows} x {self.width} {self.dtype})"

    @property
    def columns(self) -> tuple[np.ndarray, ...] | None:
        """The columns (rows,), where they lie anywhere; None for a matrix."""
        return self._numbers if isinstance(self._numbers, tuple) else None

    @cached_property
    def values(self) -> np.ndarray:
        """The numbers (rows, width): columns that lie anywhere are copied side by side."""
        if isinstance(self._numbers, tuple):
            return np.stack(self._numbers).T
        return self._numbers

    @property
    def width(self) -> int:
        """How many features a row has here."""
        return int(self.values.shape[1]) if self.columns is None else len(self.columns)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._first)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the numbers."""
        return self._first.dtype

    @property
    def _first(self) -> np.ndarray:
        """The matrix, or the first column."""
        return self.values if self.columns is None else self.columns[0]

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The numbers."""
        return (self.values,)

    @property
    def marks(self) -> np.ndarray:
        """The first feature of each row."""
        return self.values[:, 0] if self.columns is None else self.columns[0]

    @property
    def nbytes(self) -> int:
        """The bytes of all rows."""
        return self.rows * self.width * self.dtype.itemsize

    @property
    def stored(self) -> Stored:
        """The numbers."""
        return Stored(self.values)

    @property
    def is_row_major(self) -> bool:
        """Whether each row is contiguous."""
        return self.columns is None and is_row_major(self.values)

    @property
    def is_wide(self) -> bool:
        """Whether numbers have more digits than a float32 holds."""
        return self.dtype.itemsize >= 4 and self.dtype != np.float32

    @property
    def described(self) -> Described:
        """The dtype."""
        return self.dtype.name, None

    def __getitem__(self, rows: slice) -> Dense:
        if self.columns is not None:
            return Dense(tuple(column[rows] for column in self.columns))
        return Dense(self.values[rows])

    def room(self, rows: int, allocate: Allocate = np.empty) -> Dense:
        """Return room for so many rows."""
        return Dense(allocate((rows, self.width), self.dtype))

    def fill(
        self, copy: CopyRows, first: int, other: Dense, order: np.ndarray | None = None
    ) -> None:
        """Copy rows of another part to the rows from `first` on."""
        stop = first + (other.rows if order is None else len(order))
        copy(self.values[first:stop], other._numbers, order)

    def write_to(self, out: np.ndarray) -> None:
        """Write the numbers to `out`, cast."""
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, self.values, casting="unsafe")

    def row(self, row: int) -> np.ndarray:
        """Return the numbers of a row."""
        return np.asarray(self.values[row])

    def packed(self) -> tuple[RowBytes, ...]:
        """Return the bytes of the numbers."""
        return (RowBytes(np.ascontiguousarray(self.values).view(np.uint8)),)

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

    def packed(self) -> tuple[RowBytes, ...]:
        """Return the bytes of the codes."""
        return (RowBytes(np.ascontiguousarray(self.values).view(np.uint8)),)


@final
class Sparse(Part):
    """Rows of many features, of which all but a few are 0: those few, row after row.

    Row t has the numbers indptr[t] : indptr[t + 1] of `index`, the features they are of, and of
    `value`, what they are; None stands for ones. indptr begins anywhere, so that some of the rows
    are a slice of it beside the same other arrays. The order within a row is as it came; no feature
    is there twice, and no value is 0.
    """

    def __init__(
        self, indptr: np.ndarray, index: np.ndarray, value: np.ndarray | None, width: int
    ) -> None:
        """Keep indptr (rows + 1,) int64, index int32 and value float32 or float64, uncopied."""
        self.indptr, self.index, self.value = indptr, index, value
        self._width = width
        self._allocate: Allocate = np.empty

    def __repr__(self) -> str:
        return f"Sparse({self.rows} x {self.width} {self.dtype})"

    @property
    def width(self) -> int:
        """How many features there are."""
        return self._width

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.indptr) - 1

    @property
    def nonzeros(self) -> int:
        """How many numbers of all rows are not 0."""
        return int(self.indptr[-1] - self.indptr[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the values."""
        return np.dtype(np.uint8) if self.value is None else self.value.dtype

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """indptr, and the index and value of its rows."""
        own = slice(int(self.indptr[0]), int(self.indptr[-1]))
        if self.value is None:
            return self.indptr, self.index[own]
        return self.indptr, self.index[own], self.value[own]

    @property
    def stored(self) -> Nonzeros:
        """The arrays, and how many features there are."""
        return Nonzeros(self.indptr, self.index, self.value, self.width)

    @property
    def is_row_major(self) -> bool:
        """The numbers of a row follow one another."""
        return True

    @property
    def is_wide(self) -> bool:
        """Values are scaled before they are rounded, of whatever dtype they are."""
        return False

    @property
    def described(self) -> Described:
        """The dtype of the values, if there are any, and how many features there are."""
        return "sparse" if self.value is None else f"sparse {self.dtype.name}", self.width

    @property
    def marks(self) -> np.ndarray:
        """How many numbers each row has."""
        return np.diff(self.indptr)

    def __getitem__(self, rows: slice) -> Sparse:
        first, stop, step = rows.indices(self.rows)
        if step != 1:
            return self._taken(np.arange(first, stop, step))
        return Sparse(self.indptr[first : max(first, stop) + 1], self.index, self.value, self.width)

    def room(self, rows: int, allocate: Allocate = np.empty) -> Sparse:
        """Return room for so many rows, which grows where they have more numbers than these."""
        numbers = -(-self.nonzeros * rows // max(self.rows, 1))
        indptr = allocate((rows + 1,), np.dtype(np.int64))
        indptr[:1] = 0
        index = allocate((numbers,), self.index.dtype)
        value = None if self.value is None else allocate((numbers,), self.value.dtype)
        room = Sparse(indptr, index, value, self.width)
        room._allocate = allocate
        return room

    def fill(
        self, copy: CopyRows, first: int, other: Sparse, order: np.ndarray | None = None
    ) -> None:
        """Copy rows of another part to the rows from `first` on, those before being filled."""
        starts, stops = other.indptr[:-1], other.indptr[1:]
        if order is not None:
            starts, stops = starts[order], stops[order]
        begin, ends = int(self.indptr[first]), np.cumsum(stops - starts)
        ends += begin
        end = int(ends[-1]) if len(ends) else begin
        self._grow(begin, end)
        self.indptr[first + 1 : first + 1 + len(ends)] = ends
        taken: slice | np.ndarray = slice(int(other.indptr[0]), int(other.indptr[-1]))
        if order is not None:
            away = np.repeat(starts - (ends - (stops - starts)), stops - starts)
            taken = away + np.arange(begin, end)
        self.index[begin:end] = other.index[taken]
        if self.value is not None and other.value is not None:
            self.value[begin:end] = other.value[taken]

    def write_to(self, out: np.ndarray) -> None:
        """Write zeros to `out`, and the values where they are."""
        out[:] = 0
        own = slice(int(self.indptr[0]), int(self.indptr[-1]))
        rows = np.repeat(np.arange(self.rows), np.diff(self.indptr))
        with np.errstate(over="ignore", invalid="ignore"):
            out[rows, self.index[own]] = 1 if self.value is None else self.value[own]

    def row(self, row: int) -> np.ndarray:
        """Return zeros, and the values of a row where they are."""
        features = np.zeros(self.width, self.dtype)
        there, values = self.numbers(row)
        features[there] = values
        return features

    def numbers(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return which features of a row are not 0, and what they are."""
        own = slice(int(self.indptr[row]), int(self.indptr[row + 1]))
        there = self.index[own]
        return there, np.ones(len(there), np.uint8) if self.value is None else self.value[own]

    def packed(self) -> tuple[RowBytes, ...]:
        """Return the bytes of index and value."""
        return tuple(
            RowBytes(array.view(np.uint8), (self.indptr - self.indptr[0]) * array.itemsize)
            for array in self.arrays[1:]
        )

    def _taken(self, order: np.ndarray) -> Sparse:
        taken = self.room(len(order))
        taken.fill(_copies_nothing, 0, self, order)
        return taken

    def _grow(self, filled: int, needed: int) -> None:
        """Make room for so many numbers, of which those before `filled` stay."""
        if needed <= len(self.index):
            return
        room = max(needed, 3 * len(self.index) // 2)
        self.index = self._grown(self.index, filled, room)
        self.value = None if self.value is None else self._grown(self.value, filled, room)

    def _grown(self, array: np.ndarray, filled: int, room: int) -> np.ndarray:
        grown = self._allocate((room,), array.dtype)
        grown[:filled] = array[:filled]
        return grown


def _copies_nothing(out: np.ndarray, numbers: Numbers, order: np.ndarray | None) -> None:
    """Stand for what copies numbers where there is none."""


def packed_count(described: Described) -> int:
    """Return how many RowBytes a part that is so described is packed into."""
    return 2 if described[0].startswith("sparse ") else 1


def part_of(described: Described, rows: tuple[RowBytes, ...]) -> Part:
    """Return the part that is so described, of the bytes of its rows, uncopied."""
    name, width = described
    kind, _, values = name.partition(" ")
    if kind == "sparse" and width is not None:
        offsets = rows[0].offsets
        assert offsets is not None  # packed so
        indptr = offsets // np.dtype(np.int32).itemsize
        value = rows[1].bytes.view(np.dtype(values)) if values else None
        return Sparse(indptr, rows[0].bytes.view(np.int32), value, width)
    numbers = rows[0].bytes.view(np.dtype(name))
    return Dense(numbers) if width is None else Codes(numbers, width)
