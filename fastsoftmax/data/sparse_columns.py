"""The only place that reads columns whose rows tell the few of their numbers that are not 0.

What a row holds is told by the column's type: a list of (index, value), a map, Spark's vectors, a
list of indices, which are counted, or of words; or two columns of lists hold indices and values.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
from pyarrow import types

from fastsoftmax.data import compute as pc
from fastsoftmax.data.encode import Finder, is_label
from fastsoftmax.data.hashed import hashes_of, indices_and_signs
from fastsoftmax.data.in_use import MOST_FEATURES, InUse
from fastsoftmax.data.layouts import is_number, is_text, is_vector, item_type
from fastsoftmax.data.parts import Sparse
from fastsoftmax.data.source import Column
from fastsoftmax.data.values import Where, as_arrow, as_numpy, numbers, plain_values, refuse_null
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass

ACCEPTED = (
    "Sparse columns are lists of (index, value) or of indices, maps from an index or a word to a"
    ' number, lists of words, Spark\'s vectors, or two columns of lists: sparse={"x": ("indices",'
    ' "values")}.'
)
VECTOR = ("type", "size", "indices", "values")  # the fields of Spark's VectorUDT
# Of rows of svmlight files, whose indices begin at 0 or at 1.
PAIR = pa.struct([("svmlight index", pa.int32()), ("value", pa.float64())])
DENSE_VECTOR = 1  # the type of one that tells all of its numbers
BITS = 18  # of the indices that values are hashed to, unless told
EMPTY = InUse(MOST_FEATURES, np.zeros(0, np.int64))  # until it is known


@dataclass(frozen=True)
class SparseRequest:
    """Which columns are sparse: by their names, with those of the lists of indices and values.

    width: how many numbers a row has, by name, "" for all; those not told are learnt. first: what
    svmlight files call the first number, 0 or 1, where that is told. hashed: columns whose values
    are hashed to so many bits.
    """

    columns: tuple[tuple[str, tuple[str, str] | None], ...] = ()
    width: tuple[tuple[str, int], ...] = ()
    first: int | None = None
    hashed: tuple[str, ...] = ()
    bits: int = BITS

    def width_of(self, name: str) -> int | None:
        """Return how many numbers a row of a column has, or None where nobody says."""
        known = dict(self.width)
        return known.get(name, known.get(""))


NO_SPARSE = SparseRequest()


class Numbers(NamedTuple):
    """Rows as a column tells them: ends (rows + 1,) int64 of each among the keys, and values.

    keys: indices (n,) integers, or words; values (n,) floats, or None where keys are counted.
    """

    ends: np.ndarray
    keys: pa.Array
    values: np.ndarray | None


def is_worded(kind: pa.DataType) -> bool:
    """Return whether rows of a type tell words, not indices; raise ValueError for neither."""
    key, _ = _key_and_value(kind)
    if is_text(key):
        return True
    if not types.is_integer(key):
        raise ValueError(f"its indices are {key}, which are no integers")
    return False


def check_type(kind: pa.DataType, values: pa.DataType | None) -> None:
    """Raise ValueError where a column, beside one of values or alone, is of no sparse type."""
    if values is not None:
        if not is_vector(kind) or not types.is_integer(item_type(kind)):
            raise ValueError(f"its indices are of type {kind}: give lists of integers")
        if not is_vector(values) or not is_number(item_type(values)):
            raise ValueError(f"its values are of type {values}: give lists of numbers")
        return
    _, value = _key_and_value(kind)
    if value is not None and not is_number(value):
        raise ValueError(f"its values are {value}, which are no numbers")
    is_worded(kind)


def check_hashed(kind: pa.DataType) -> None:
    """Raise ValueError where what a column holds is nothing that is hashed."""
    if types.is_map(kind) or is_vector(kind) or types.is_struct(kind):
        check_type(kind, None)
    elif not types.is_null(kind) and (not is_label(kind) or types.is_floating(kind)):
        raise ValueError(f"it is of type {kind}, and strings and integers are hashed")


def is_vector_type(kind: pa.DataType) -> bool:
    """Return whether a type is that of Spark's vectors."""
    return types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == set(
        VECTOR
    )


def is_svmlight(kind: pa.DataType) -> bool:
    """Return whether a type is that of the rows of svmlight files."""
    return is_vector(kind) and item_type(kind) == PAIR


def _key_and_value(kind: pa.DataType) -> tuple[pa.DataType, pa.DataType | None]:
    """Return what rows of a type are told by: the type of keys, and of values or None."""
    if types.is_map(kind):
        return kind.key_type, kind.item_type
    if is_vector_type(kind):
        return item_type(kind.field("indices").type), item_type(kind.field("values").type)
    if not is_vector(kind):
        raise ValueError(f"it is of type {kind}. {ACCEPTED}")
    item = item_type(kind)
    if types.is_struct(item):
        if item.num_fields != 2:
            raise ValueError(f"its structs have {item.num_fields} fields, not index and value")
        return item.field(0).type, item.field(1).type
    return item, None


def sparse_part(batch: pa.RecordBatch, column: Column, where: Where, unknown: list[int]) -> Sparse:
    """Return a sparse column's rows; `unknown` grows by how many numbers are no feature's."""
    assert column.sparse is not None
    found = indices_of(column, column_numbers(batch, column, where), where)
    ends, index, value = column.sparse.select(found.ends, found.index, found.value)
    unknown.append(len(found.index) - len(index))
    return Sparse(ends, index, value, len(column.sparse))


# How words are found, for as long as the column is used: of a million it takes half a second to
# make, which each chunk would take.
_finders: WeakKeyDictionary[InUse, Finder] = WeakKeyDictionary()


@dataclass(frozen=True)
class Indices:
    """Rows of indices int64, none twice in a row, and values, none of which is 0."""

    ends: np.ndarray
    index: np.ndarray
    value: np.ndarray | None


def indices_of(column: Column, told: Numbers, where: Where) -> Indices:
    """Return the rows that a column tells, checked; words that are not known are left out."""
    assert column.sparse is not None
    subject, ends, values = f'column "{column.name}"', told.ends, told.values
    if column.sparse.is_hashed:
        return _hashed(told, column.sparse.width.bit_length() - 1)
    if column.categories is not None:
        index = _found_words(column, told, subject, where)
        ends, index, values = _kept(ends, index, values, index >= 0)
    else:
        index = as_numpy(told.keys).astype(np.int64) - (column.sparse.base or 0)
        odd = np.flatnonzero((index < 0) | (index >= column.sparse.width))
        if odd.size:
            row = int(np.searchsorted(ends, odd[0], side="right")) - 1
            width, first = column.sparse.width, column.sparse.base or 0
            raise DataError(
                f"{where(row)}: {subject} has the index {index[odd[0]] + first}, where indices are"
                f" from {first} to {width - 1 + first:,}"
            )
    rows = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    if values is None:
        return _counted(ends, rows, index)
    twice = _first_twice(rows, index)
    if twice is not None:
        raise DataError(
            f"{where(int(rows[twice]))}: {subject} has the index"
            f" {index[twice] + (column.sparse.base or 0)} twice in the row:"
            " add up what belongs together."
        )
    return Indices(*_kept(ends, index, values, values != 0))


def _hashed(told: Numbers, bits: int) -> Indices:
    """Return the sums of signed values at the indices that keys are hashed to, in their order."""
    index, values = indices_and_signs(hashes_of(told.keys), bits)
    if told.values is not None:
        values = values * told.values
    rows = np.repeat(np.arange(len(told.ends) - 1), np.diff(told.ends))
    order = np.lexsort((index, rows))
    index, values, rows = index[order], values[order], rows[order]
    begins = np.flatnonzero(np.append(True, (np.diff(index) != 0) | (np.diff(rows) != 0)))
    if not len(index):
        return Indices(told.ends, index, values)
    own = np.bincount(rows[begins], minlength=len(told.ends) - 1)
    ends = np.concatenate([[0], np.cumsum(own)])
    return Indices(*_kept(ends, index[begins], *_nonzero(np.add.reduceat(values, begins))))


def _nonzero(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values, values != 0


def _kept(
    ends: np.ndarray, index: np.ndarray, values: np.ndarray | None, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    if kept.all():
        return ends, index, values
    before = np.concatenate([[0], np.cumsum(kept)])
    return before[ends], index[kept], None if values is None else values[kept]


def _first_twice(rows: np.ndarray, index: np.ndarray) -> int | None:
    """Return where an index is that its row has before, or None."""
    if not len(index) or ((np.diff(index) > 0) | (np.diff(rows) > 0)).all():  # as mostly
        return None
    order = np.lexsort((index, rows))
    same = (np.diff(index[order]) == 0) & (np.diff(rows[order]) == 0)
    return int(order[1:][same].min()) if same.any() else None


def _counted(ends: np.ndarray, rows: np.ndarray, index: np.ndarray) -> Indices:
    """Return how often each row has each index, in the order in which a row first has them."""
    if _first_twice(rows, index) is None:
        return Indices(ends, index, None)
    order = np.lexsort((index, rows))  # stable: of equal ones the first comes first
    begins = np.concatenate([[True], (np.diff(index[order]) != 0) | (np.diff(rows[order]) != 0)])
    counts = np.diff(np.append(np.flatnonzero(begins), len(order)))
    firsts = order[begins]
    again = np.argsort(firsts, kind="stable")
    firsts, counts = firsts[again], counts[again]
    own = np.bincount(rows[firsts], minlength=len(ends) - 1)
    return Indices(np.concatenate([[0], np.cumsum(own)]), index[firsts], counts.astype(np.float32))


def _found_words(column: Column, told: Numbers, subject: str, where: Where) -> np.ndarray:
    ends, known = told.ends, column.categories
    assert known is not None
    assert column.sparse is not None
    finder = _finders.get(column.sparse)
    if finder is None:
        finder = _finders[column.sparse] = Finder(known)

    def place(item: int) -> str:
        return where(int(np.searchsorted(ends, item, side="right")) - 1)

    return finder(told.keys, subject, place).astype(np.int64)


def column_numbers(batch: pa.RecordBatch, column: Column, where: Where) -> Numbers:
    """Return what the rows of a sparse column tell; a null is a row of zeros, if that may be."""
    subject, fills = f'column "{column.name}"', column.fill is not None
    if column.pair is not None:
        return _paired(batch, column.pair, subject, where, fills)
    array = batch.column(column.name)
    if not fills:
        refuse_null(array, subject, where)
    if is_vector_type(array.type):
        return _vectors(array, subject, where)
    if not (is_vector(array.type) or types.is_map(array.type)):  # one word a row
        array = plain_values(array)
        there = as_numpy(pc.is_valid(array))
        return Numbers(np.concatenate([[0], np.cumsum(there)]), array.drop_null(), None)
    ends, items = _lists(array)
    if not types.is_struct(items.type):
        keys = plain_values(items)
        _refuse_null_items(keys, ends, subject, where)
        return Numbers(ends, keys, None)
    keys, values = (plain_values(each) for each in items.flatten())
    for each in (keys, values):
        _refuse_null_items(each, ends, subject, where)
    return Numbers(ends, keys, _floats(values))


def _lists(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Return the ends of lists, from 0 on, and the items of those that are no nulls."""
    # `flatten` heeds a slice and drops what null lists own, where `values` does neither.
    stored = array.storage if isinstance(array, pa.ExtensionArray) else array
    if types.is_map(stored.type):
        stored = _as_lists(stored)
    if types.is_fixed_size_list(stored.type):
        lengths = np.full(len(stored), stored.type.list_size, np.int64)
    else:
        offsets = as_numpy(stored.offsets).astype(np.int64)
        lengths = offsets[1:] - offsets[:-1]
    if stored.null_count:
        lengths = np.where(as_numpy(pc.is_valid(stored)), lengths, 0)
    items = stored.flatten()
    return np.concatenate([[0], np.cumsum(lengths)]), items


def _as_lists(maps: pa.Array) -> pa.Array:
    """Return maps as lists of structs, uncopied: Arrow flattens none but lists."""
    pairs = pa.StructArray.from_arrays([maps.keys, maps.items], ["key", "value"])
    return pa.ListArray.from_buffers(
        pa.list_(pairs.type), len(maps), maps.buffers()[:2], maps.null_count, maps.offset, [pairs]
    )


def _refuse_null_items(items: pa.Array, ends: np.ndarray, subject: str, where: Where) -> None:
    refuse_null(
        items,
        f"an item of {subject}",
        lambda item: where(int(np.searchsorted(ends, item, side="right")) - 1),
    )


def _floats(values: pa.Array) -> np.ndarray:
    """Return values as float32, or as float64 where a float32 has too few digits."""
    found = numbers(values)
    is_short = found.dtype == np.float32 or found.dtype.itemsize <= 2
    return found.astype(np.float32 if is_short else np.float64, copy=False)


def _paired(
    batch: pa.RecordBatch, pair: tuple[str, str], subject: str, where: Where, fills: bool
) -> Numbers:
    arrays = [batch.column(name) for name in pair]
    for name, array in zip(pair, arrays, strict=True):
        if not fills:
            refuse_null(array, f'column "{name}"', where)
    (ends, keys), (others, values) = (_lists(array) for array in arrays)
    odd = np.flatnonzero(np.diff(ends) != np.diff(others))
    if odd.size:
        row = int(odd[0])
        counts = (int(each[row + 1] - each[row]) for each in (ends, others))
        told = " and ".join(f'"{name}" {count}' for name, count in zip(pair, counts, strict=True))
        raise DataError(
            f"{where(row)}: the lists of {subject} are of unlike lengths: {told} items."
        )
    keys, values = plain_values(keys), plain_values(values)
    for each in (keys, values):
        _refuse_null_items(each, ends, subject, where)
    return Numbers(ends, keys, _floats(values))


def _vectors(array: pa.Array, subject: str, where: Where) -> Numbers:
    """Return what Spark's vectors tell: some by their indices, some by all of their numbers."""
    fields = dict(zip([field.name for field in array.type], array.flatten(), strict=True))
    missing = np.zeros(len(array), np.bool_) if not array.null_count else as_numpy(array.is_null())
    kinds = as_numpy(pc.fill_null(fields["type"], 0))
    dense = (kinds == DENSE_VECTOR) & ~missing
    ends, values = _lists(fields["values"])
    told, keys = _lists(fields["indices"])
    own, given = np.diff(ends), np.diff(told)
    odd = np.flatnonzero(~dense & (own != given))
    if odd.size:
        row = int(odd[0])
        raise DataError(
            f"{where(row)}: {subject} is a vector of {given[row]} indices and {own[row]} values."
        )
    floats = _floats(plain_values(values))
    _refuse_null_items(values, ends, subject, where)
    index = np.arange(len(floats)) - np.repeat(ends[:-1], own)  # of those that tell all
    sparse_rows = np.repeat(~dense, own)
    index[sparse_rows] = as_numpy(plain_values(keys))[np.repeat(~dense, given)]
    return Numbers(ends, as_arrow(index), floats)
