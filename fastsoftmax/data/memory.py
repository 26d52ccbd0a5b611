"""The only place for nameless rows in memory, used where they lie: as a Source, and NumPy's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data.encode import Encoder, Given, GivenLabels
from fastsoftmax.data.label_stats import HeldOut, Labelled, LabelSums, label_sums, scan_rows
from fastsoftmax.data.parts import Dense, Part
from fastsoftmax.data.source import Chunk, LabelStats, Source
from fastsoftmax.data.values import Where, as_arrow
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes, integer_kind

ACCEPTED = (
    "Give a path, a list of paths, an Arrow table, record batches or reader, a data frame, a"
    " NumPy matrix, or a function that returns a fresh reader."
)


class RowsInMemory(Source):
    """Rows without names, as a part that has them all, with arrays of labels and weights beside it:
    one piece, or as many as it was cut into.
    """

    in_memory = True

    def __init__(self, rows: int, labels: GivenLabels) -> None:
        """Check that there are rows, and a label for each."""
        self._labels = labels
        self.label_kind = labels.kind(pa.schema([]))
        self.pieces: tuple[int, ...] = (rows,)
        self._whole: tuple[Classes, Chunk] | None = None
        if not rows:
            raise DataError("the matrix has no rows.")
        labels.check_rows(rows)

    @property
    @abstractmethod
    def part(self) -> Part:
        """All rows."""

    def scan_labels(
        self, classes: Classes | None = None, held_out: HeldOut | None = None
    ) -> LabelStats:
        """Read the labels and weights once; see Source."""
        self._labels.require_target("the matrix")
        labels, weights = self._labels.all()
        return scan_rows(
            [Labelled(0, 0, labels, weights, self._where)], self._labels, classes, held_out
        )

    def chunks(
        self, classes: Classes | None, order: Iterable[int] | None = None
    ) -> Generator[Chunk, None, None]:
        """Yield the pieces, where they lie; see Source."""
        encoder = None
        if classes is not None and self._labels.target is not None:
            encoder = Encoder(classes)
        part = self.part
        for piece in range(len(self.pieces)) if order is None else order:
            at, weights = None, None
            first, rows, where = self._span(int(piece))
            if encoder is not None:
                at, weights = self._labels.encoded(
                    encoder, self._labels.between(first, rows), where
                )
                weights = self.counted(weights)
            yield Chunk((part[first : first + rows],), at, weights, int(piece), 0)

    def whole(self, classes: Classes) -> Chunk | None:
        """Return all rows as one chunk, where they lie; see Source."""
        if not self.resident:
            return None
        known = self._whole
        if known is None or known[0] != classes:
            labels, weights = self._labels.encoded(
                Encoder(classes), self._labels.all(), self._where
            )
            whole = Chunk((self.part,), labels, self.counted(weights), 0, 0)
            known = self._whole = classes, whole
        return known[1]

    def __getstate__(self) -> dict[str, Any]:
        """Return what others need of it; what the labels encode to they find themselves."""
        return {**self.__dict__, "_whole": None}

    def cut(self, most: int) -> None:
        """Have pieces of at most so many rows from now on; see Source."""
        self.pieces = runs_of_rows(sum(self.pieces), most)
        self.number_anew()

    def count_labels(
        self,
        pieces: Iterable[int],
        classes: Classes | None = None,
        held_out: HeldOut | None = None,
    ) -> LabelSums:
        """Return the sums over the labels and weights of some pieces; see Source."""
        self._labels.require_target("the matrix")
        labels = self._labels
        spans = ((piece, *self._span(piece)) for piece in pieces)
        labelled = (
            Labelled(piece, first, *labels.between(first, rows), where)
            for piece, first, rows, where in spans
        )
        return label_sums(labelled, labels, classes, held_out)

    def place(self, piece: int, row: int) -> str:
        """Say which row of the matrix it is."""
        return self._where(self.number(piece, row))

    def fingerprint(self) -> list[dict[str, Any]]:
        """Return nothing: there are no files."""
        return []

    def _where(self, row: int) -> str:
        return f"row {row}"

    def _span(self, piece: int) -> tuple[int, int, Where]:
        """Return the number of a piece's first row, its rows, and what says where one is."""
        return self.number(piece, 0), self.pieces[piece], lambda row: self.place(piece, row)


class MatrixSource(RowsInMemory):
    """A NumPy matrix."""

    columns = None

    def __init__(self, matrix: np.ndarray, labels: GivenLabels) -> None:
        """Use `matrix`, as `feature_matrix` returned it; labels and weights are arrays beside."""
        super().__init__(len(matrix), labels)
        self._part = Dense(matrix)
        self.resident = self._part.is_row_major
        self.n_features = matrix.shape[1]
        self.row_bytes = matrix.shape[1] * matrix.dtype.itemsize

    @property
    def part(self) -> Dense:
        """All rows, where they lie."""
        return self._part


def runs_of_rows(rows: int, most: int) -> tuple[int, ...]:
    """Return the sizes of the runs that rows are cut into, of at most so many each."""
    return tuple(min(most, rows - first) for first in range(0, rows, most))


def feature_matrix(data: Any) -> np.ndarray:
    """Return `data` as a matrix of numbers in this machine's byte order, or raise DataError."""
    if isinstance(data, np.ma.MaskedArray):
        raise DataError("the matrix is masked; fill the masked values (X.filled(...)) first.")
    try:
        matrix = np.asarray(data)
    except MemoryError:
        raise
    except Exception as error:  # what makes an array of itself may raise anything
        raise DataError(f"no matrix can be made of the data: {error}") from error
    if matrix.ndim == 0:
        raise DataError(
            f"the data are a {type(data).__name__}, of which no rows can be read. {ACCEPTED}"
        )
    if matrix.ndim != 2:
        raise DataError(
            f"the matrix must have two dimensions (rows, features), got the shape {matrix.shape}."
        )
    if matrix.dtype.kind not in "biuf":
        raise DataError(
            f"the matrix has dtype {matrix.dtype}; it must hold numbers ({_conversion(matrix)})."
        )
    return _readable(matrix)


def _conversion(matrix: np.ndarray) -> str:
    if matrix.dtype.kind in "mM":  # a count of units since an origin: the user should choose both
        return 'X.astype("int64") gives the number of units of a time, or of those since 1970'
    return "X.astype(float) converts"


def _readable(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix itself, or a copy where its numbers are of a kind that few can read."""
    if matrix.dtype == np.bool_:
        return matrix.view(np.uint8)
    if matrix.dtype.itemsize > 8:  # long double
        return matrix.astype(np.float64)
    return matrix.astype(matrix.dtype.newbyteorder("="), copy=False)


def beside(values: Any, name: str) -> Given:
    """Return labels or weights that were given as an array beside the data, or raise DataError."""
    try:
        return Given(name, _arrow_array(values))
    except MemoryError:
        raise
    except Exception as error:  # what makes an array of itself may raise anything
        raise DataError(
            f"the {name} is neither the name of a column nor an array of one type: {error}. Give a"
            " name, or an array with a value for each row."
        ) from error


def _arrow_array(values: Any) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if hasattr(values, "__array__") and getattr(values, "dtype", None) == np.object_:
        return _of_numpy(np.asarray(values))  # pandas would export integers as int64 alone
    if isinstance(values, pa.ChunkedArray) or hasattr(values, "__arrow_c_stream__"):
        return _joined(pa.chunked_array(values))
    if hasattr(values, "__arrow_c_array__"):
        return pa.array(values)
    if isinstance(values, np.ma.MaskedArray):
        return _of_masked(values)
    if hasattr(values, "__array__"):
        return _of_numpy(np.asarray(values))
    return _of_objects(values)


def _of_masked(array: np.ma.MaskedArray) -> pa.Array:
    """Return masked values as nulls."""
    if array.ndim != 1:
        raise ValueError(f"it has the shape {array.shape}")
    whole = _of_numpy(np.asarray(array.data))
    missing = np.ma.getmaskarray(array)
    return whole.take(pa.array(np.where(missing, 0, np.arange(len(array))), mask=missing))


def _of_numpy(array: np.ndarray) -> pa.Array:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"it has the shape {array.shape}")
    if array.dtype.kind in "biuf":
        return as_arrow(array if array.dtype == np.bool_ else _readable(array))
    if array.dtype == np.object_:
        return _of_objects(array.tolist(), nan_is_null=True)
    return pa.array(array)


def _of_objects(values: Any, *, nan_is_null: bool = False) -> pa.Array:
    """Return Python objects as an Arrow array: integers of more than 63 bits as uint64."""
    values = list(values)
    try:
        return pa.array(values, from_pandas=nan_is_null)
    except (pa.ArrowException, OverflowError):
        whole = [value for value in values if value is not None]
        if not all(isinstance(value, int | np.integer) for value in whole):
            raise
        kind = integer_kind([int(value) for value in whole], "the array")
        return pa.array(values, pa.type_for_alias(kind))


def _joined(chunks: pa.ChunkedArray) -> pa.Array:
    if chunks.num_chunks == 1:
        return chunks.chunk(0)
    return pa.concat_arrays(chunks.chunks) if chunks.num_chunks else pa.array([], chunks.type)
