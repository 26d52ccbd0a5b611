"""The only place that looks at columns of files without training: at a sample, and at all rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastsoftmax.data.column_names import named_once
from fastsoftmax.data.formats.discover import find_files
from fastsoftmax.data.formats.files import FileBatches
from fastsoftmax.data.layouts import is_number, is_vector, item_type
from fastsoftmax.data.open import open_files
from fastsoftmax.data.packed import packing_of
from fastsoftmax.data.values import as_numpy, plain_values
from fastsoftmax.facts import dataclass

BATCH_ROWS = 2**14
SAMPLE_ROWS, SAMPLE_PIECES = 2**16, 64
MOST_DISTINCT = 10_000  # values of a column that are told apart as categories
MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio, which spreads bits


@dataclass(frozen=True)
class Glance:
    """A column's values in some rows.

    numbers: (n,) float64 with NaN for nulls, or (n, width) of a vector; None of text. codes: (n,)
    of whole numbers, truths and text of few values: which of them it is, -1 for nulls; else None.
    is_key: whether the type is one of which keys are.
    """

    numbers: np.ndarray | None
    codes: np.ndarray | None
    is_key: bool


@dataclass(frozen=True)
class Whole:
    """What all rows of a column are like: how many are null or NaN, and a digest of the values.

    only: the one value that all others are, where there is just one.
    """

    nulls: int
    digest: str
    only: Any
    is_constant: bool


class GlancedColumns:
    """The scalar columns and vectors of files, by name, as they are read batch by batch."""

    def __init__(self, data: Any) -> None:
        """Open the files."""
        self.files: FileBatches = open_files(find_files(data))
        schema = self.files.schema
        self._packing = packing_of(schema, self.files.origin)
        listed = [f.name for f in schema if _is_told(f.type)]
        self._own = named_once(schema, listed)
        self.names = list(self._own)
        if self._packing is not None:
            self._own = [name for name in self._own if name != self._packing.name]
            self.names = [*(c.name for c in self._packing.columns), *self._own]
        self.rows = sum(self.files.pieces)

    def read(self, order: Sequence[int] | None = None) -> Iterator[dict[str, pa.Array]]:
        """Yield the columns of the pieces in `order`, some rows at a time."""
        packing = self._packing
        names = self._own if packing is None else [packing.name, *self._own]
        for batch in self.files.read(names, order, BATCH_ROWS):
            found = {}
            if packing is not None:
                rows, at = packing.rows(batch.rows, None, str), 0
                for column in packing.columns:
                    values = np.ascontiguousarray(rows[:, at : at + column.n_features])
                    at += column.n_features
                    flat = pa.array(values.ravel())
                    found[column.name] = (
                        flat if column.width is None
                        else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
                    )  # fmt: skip
            for name in self._own:
                found[name] = plain_values(batch.rows.column(name))
            yield found

    def sample(self) -> dict[str, Glance]:
        """Return columns of some rows from all over the files."""
        pieces = self.files.pieces
        chosen = np.unique(np.linspace(0, len(pieces) - 1, min(len(pieces), SAMPLE_PIECES)))
        order = [int(piece) for piece in chosen]
        step = max(1, sum(pieces[piece] for piece in order) // SAMPLE_ROWS)
        kept: dict[str, list[pa.Array]] = {name: [] for name in self.names}
        for columns in self.read(order):
            for name, values in columns.items():
                some = pa.array(np.arange(0, len(values), step))
                kept[name].append(values.take(some))
        return {name: _glance(_joined(parts)) for name, parts in kept.items()}

    def whole(self) -> dict[str, Whole]:
        """Return what all rows are like, column by column."""
        found = {name: _Sums() for name in self.names}
        for columns in self.read():
            for name, values in columns.items():
                found[name].add(values)
        return {name: sums.whole() for name, sums in found.items()}

    def row_hashes(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield a hash (rows,) of each row's values in these columns, as uint64."""
        for columns in self.read():
            rows = len(next(iter(columns.values())))
            hashes = np.zeros(rows, np.uint64)
            for name in names:
                with np.errstate(over="ignore"):
                    hashes = (hashes ^ _bits(columns[name])) * MIX
                    hashes ^= hashes >> np.uint64(29)
            yield hashes


def _is_told(kind: pa.DataType) -> bool:
    """Return whether a column is of a type that is looked at: numbers, vectors of them, text."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = pa.types.is_string(value) or pa.types.is_large_string(value)
    return bool(texts) or is_number(item_type(kind)) or bool(pa.types.is_null(kind))


def _joined(parts: list[pa.Array]) -> pa.Array:
    kind = next((part.type for part in parts if not pa.types.is_null(part.type)), pa.null())
    return pa.concat_arrays([part.cast(kind) for part in parts])


def as_floats(values: pa.Array) -> np.ndarray:
    """Return numbers as float64, nulls as NaN: (rows,), or (rows, width) of vectors."""
    if is_vector(values.type):
        plain = values.storage if isinstance(values, pa.ExtensionArray) else values
        items = as_floats(plain.flatten())
        missing, rows = values.null_count, len(values)
        there = rows - missing
        matrix = items.reshape(there, -1) if there and len(items) % there == 0 else items[:, None]
        if not missing:
            return matrix
        whole = np.full((rows, matrix.shape[1]), np.nan)
        if len(matrix) == there:
            whole[as_numpy(values.is_valid()).astype(bool)] = matrix
        return whole
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan)
    return as_numpy(pc.fill_null(values.cast(pa.float64(), safe=False), np.nan))


def is_text(values: pa.Array) -> bool:
    """Return whether values are text."""
    return bool(pa.types.is_string(values.type) or pa.types.is_large_string(values.type))


def _glance(values: pa.Array) -> Glance:
    if is_text(values):
        return Glance(None, _codes(values), True)
    numbers = as_floats(values)
    whole = pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)
    is_key = bool(pa.types.is_integer(values.type))
    return Glance(numbers, _codes(values) if whole else None, is_key)


def _codes(values: pa.Array) -> np.ndarray | None:
    """Return which of its values each is, -1 for null; None where there are many."""
    coded = values.dictionary_encode()
    if len(coded.dictionary) > MOST_DISTINCT and len(coded.dictionary) < len(values) // 2:
        return None
    return as_numpy(pc.fill_null(coded.indices, -1)).astype(np.int64)


def _bits(values: pa.Array) -> np.ndarray:
    """Return a word (rows,) uint64 of each value: of equal ones the same, whatever their type."""
    if is_text(values):
        coded = values.dictionary_encode()
        texts = coded.dictionary.to_pylist()
        known = np.array([_word(text) for text in texts] + [0], np.uint64)
        return known[as_numpy(pc.fill_null(coded.indices, len(texts)))]
    numbers = as_floats(values) + 0.0  # there is one zero
    words = np.ascontiguousarray(numbers).view(np.uint64)
    if words.ndim == 1:
        return words
    found = np.zeros(len(words), np.uint64)
    for column in words.T:
        found = (found ^ column) * MIX
        found ^= found >> np.uint64(31)
    return found


def _word(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class _Sums:
    """What the rows of a column so far are like."""

    def __init__(self) -> None:
        self._digest, self._nulls = hashlib.sha256(), 0
        self._first: Any = None
        self._is_constant = True

    def add(self, values: pa.Array) -> None:
        """Take in rows."""
        words = _bits(values)
        self._digest.update(words.tobytes())
        if is_text(values):
            self._nulls += values.null_count
        else:
            numbers = as_floats(values)
            missing = np.isnan(numbers)
            self._nulls += int((missing if missing.ndim == 1 else missing.all(axis=1)).sum())
        if self._is_constant and values.null_count < len(values):
            there = pc.drop_null(values)
            first = there[0]
            self._first = first if self._first is None else self._first
            if is_vector(values.type):
                self._is_constant = len(np.unique(words)) == 1
            else:
                self._is_constant = first == self._first and len(pc.unique(there)) == 1

    def whole(self) -> Whole:
        """Return what was found."""
        only = None if self._first is None else self._first.as_py()
        return Whole(self._nulls, self._digest.hexdigest(), only, self._is_constant)
