"""The only place that reads NumPy's files, .npy and .npz: in slices, never mapped or whole.

Their header is a literal that NumPy parses; arrays of Python objects, which would need more, are
refused.
"""

from __future__ import annotations

import hashlib
import io
import math
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data.formats.files import DataFile, OpenFile, first_line, opened, sample
from fastsoftmax.data.formats.private import PrivateFile
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass

NPY, NPZ = b"\x93NUMPY", b"PK\x03\x04"
NAME = "X"  # of the array in a .npy file
HEADER_BYTES = 2**14  # of an array, at most
PIECE_BYTES, MOST_ROWS = 2**22, 2**16  # of what is read at once
LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip: the lengths of the name and of what is beside it
COPIED_BYTES = 2**20


@dataclass(frozen=True)
class StoredArray:
    """An array of n rows in a file, of which some rows are read at a time."""

    name: str
    open: Callable[[], pa.NativeFile]
    first: int  # byte
    dtype: np.dtype
    rows: int
    width: int | None  # numbers a row; None for one
    by_column: bool

    @property
    def row_bytes(self) -> int:
        """The bytes of a row."""
        return int(self.dtype.itemsize) * (self.width or 1)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows start to stop, (rows,) or (rows, width)."""
        size, width = self.dtype.itemsize, self.width or 1
        with self.open() as file:
            if not self.by_column:
                first = self.first + start * size * width
                raws = [file.read_at((stop - start) * size * width, first)]
            else:
                firsts = (self.first + (j * self.rows + start) * size for j in range(width))
                raws = [file.read_at((stop - start) * size, first) for first in firsts]
        if sum(map(len, raws)) != (stop - start) * size * width:
            raise OSError(f"array {self.name} ends before its last row")
        found = np.concatenate([np.frombuffer(raw, self.dtype) for raw in raws])
        shape = (width, stop - start) if self.by_column else (stop - start, width)
        found = found.reshape(shape)
        found = found.T if self.by_column else found
        return found[:, 0] if self.width is None else found


def stored_array(name: str, open_file: Callable[[], pa.NativeFile], first: int) -> StoredArray:
    """Return the array whose header begins at a byte of a file; raise ValueError for others."""
    with open_file() as file:
        head = io.BytesIO(bytes(file.read_at(HEADER_BYTES, first)))
    version = np.lib.format.read_magic(head)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"its format has the version {version}")
    shape, by_column, dtype = readers[version](head)
    if dtype.kind not in "biufUS" or not shape:
        what = "Python objects" if dtype.hasobject else f"values of type {dtype}"
        raise ValueError(f"array {name} of shape {shape} holds {what}, which are not read")
    if len(shape) > 2 and by_column:
        raise ValueError(f"array {name} of shape {shape} is in Fortran order")
    width = None if len(shape) == 1 else math.prod(shape[1:])
    if width == 0:
        raise ValueError(f"array {name} of shape {shape} has rows of no numbers")
    return StoredArray(name, open_file, first + head.tell(), dtype, shape[0], width, by_column)


class NpyPath(DataFile):
    """A .npy file by its path: one column, `X`, whose rows may be vectors."""

    piece_name = "slice"
    nameless = True
    _arrays: tuple[StoredArray, ...] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to look for the arrays itself."""
        return {**self.__dict__, "_arrays": None}

    def open(self) -> OpenFile:
        """Open the file, or raise DataError where it cannot be read."""
        try:
            if self._arrays is None:
                self._arrays = tuple(self._found())
            return _OpenArrays(self._arrays)
        except (ValueError, OSError, zipfile.BadZipFile, pa.ArrowException) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{self.path}: it is not a file of NumPy's that can be read ({first_line(error)})."
                " Write it again, or leave it out."
            ) from error

    def _found(self) -> Iterator[StoredArray]:
        yield stored_array(NAME, lambda: opened(self.path), 0)

    def footer(self) -> bytes:
        """Return the first bytes."""
        with opened(self.path) as file:
            return bytes(file.read(HEADER_BYTES))

    def place(self, piece: int, row: int) -> str:
        """Say which row it is."""
        assert self._arrays is not None  # it was opened before there was a piece
        return f"{self.path}, row {piece * _piece_rows(self._arrays) + row}"


class NpzPath(NpyPath):
    """A .npz file by its path: each array is a column of its name."""

    nameless = False

    def _found(self) -> Iterator[StoredArray]:
        with opened(self.path) as file, zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if info.compress_type == zipfile.ZIP_STORED:
                    lengths = LOCAL_HEADER.unpack(
                        file.read_at(LOCAL_HEADER.size, info.header_offset)
                    )
                    first = info.header_offset + LOCAL_HEADER.size + sum(lengths)
                    yield stored_array(name, lambda: opened(self.path), first)
                else:
                    private = PrivateFile(f"array {name} of {self.path}")
                    with archive.open(info) as packed, private.sink() as sink:
                        shutil.copyfileobj(packed, sink, COPIED_BYTES)
                    yield stored_array(name, private.open, 0)


def _piece_rows(arrays: Sequence[StoredArray]) -> int:
    return min(max(PIECE_BYTES // max(sum(a.row_bytes for a in arrays), 1), 1), MOST_ROWS)


class _OpenArrays(OpenFile):
    """Arrays of as many rows each, side by side."""

    def __init__(self, arrays: Sequence[StoredArray]) -> None:
        lengths = {array.name: array.rows for array in arrays}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"its arrays have not as many rows each: {lengths}")
        rows, step = arrays[0].rows, _piece_rows(arrays)
        self._arrays, self._step = {array.name: array for array in arrays}, step
        self.pieces = tuple(min(step, rows - first) for first in range(0, rows, step))
        fields = [pa.field(a.name, _as_arrow(_empty(a)).type, nullable=False) for a in arrays]
        self.schema = pa.schema(fields)

    def read(self, piece: int, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a slice."""
        first, last = piece * self._step, piece * self._step + self.pieces[piece]
        fields = pa.schema([self.schema.field(name) for name in names])
        for start in range(first, last, batch_rows):
            stop = min(start + batch_rows, last)
            columns = [_as_arrow(self._arrays[name].read(start, stop)) for name in names]
            yield pa.RecordBatch.from_arrays(columns, schema=fields)

    def digests(self) -> list[str]:
        """Return a digest of some bytes of each slice of each array."""
        found = []
        for piece, rows in enumerate(self.pieces):
            digest = hashlib.sha256(repr(rows).encode())
            for array in self._arrays.values():
                size = array.dtype.itemsize if array.by_column else array.row_bytes
                with array.open() as file:
                    first = array.first + piece * self._step * size
                    digest.update(sample(file, first, rows * size))
            found.append(digest.hexdigest()[:16])
        return found

    def close(self) -> None:
        """Hold nothing open: each slice opens the file."""


def _empty(array: StoredArray) -> np.ndarray:
    shape = (0,) if array.width is None else (0, array.width)
    return np.empty(shape, array.dtype)


def _as_arrow(values: np.ndarray) -> pa.Array:
    """Return (rows,) or (rows, width) values as an Arrow array."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.kind == "f" and flat.dtype.itemsize > 8:
        flat = flat.astype(np.float64)
    if flat.dtype.kind in "US":
        texts = np.char.decode(flat, "utf-8") if flat.dtype.kind == "S" else flat
        items = pa.array(texts.tolist(), pa.string())
    else:
        items = pa.array(flat.astype(flat.dtype.newbyteorder("="), copy=False))
    if values.ndim == 1:
        return items
    kind = pa.list_(pa.field("item", items.type, nullable=False), values.shape[1])
    return pa.FixedSizeListArray.from_arrays(items, type=kind)
