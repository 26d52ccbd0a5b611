"""The only place that takes plain values out of Arrow arrays: no dictionaries, views or nulls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import types

from fastsoftmax.data import compute as pc
from fastsoftmax.data.layouts import is_code, numpy_dtype
from fastsoftmax.data.word_list import blob_of
from fastsoftmax.errors import DataError

Where = Callable[[int], str]  # the place of a row, numbered within the batch


def as_numpy(array: pa.Array) -> np.ndarray:
    """Return numbers or booleans without nulls as an array (n,), numbers where they lie.

    pyarrow's own to_numpy imports pandas where it is installed, which takes 0.4 s.
    """
    n, first = len(array), array.offset
    if types.is_boolean(array.type):
        whole = np.frombuffer(array.buffers()[1] or b"", np.uint8)[first // 8 :]
        bits = np.unpackbits(whole, count=first % 8 + n, bitorder="little")
        return bits[first % 8 :].view(np.bool_)
    dtype = numpy_dtype(array.type)
    if n == 0:
        return np.zeros(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, n, first * dtype.itemsize)


def as_arrow(values: np.ndarray) -> pa.Array:
    """Return numbers or booleans (n,) as an Arrow array, numbers where they lie.

    pyarrow.array imports pandas where it is installed, to see whether that made them.
    """
    kind, n = pa.from_numpy_dtype(values.dtype), len(values)
    stored = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else values
    return pa.Array.from_buffers(kind, n, [None, pa.py_buffer(np.ascontiguousarray(stored))])


def words_as_arrow(words: Sequence[str], kind: pa.DataType) -> pa.Array:
    """Return words as an Arrow array of strings, or of large strings."""
    names, offsets = blob_of(words)
    offsets = offsets if types.is_large_string(kind) else offsets.astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(names)]
    return pa.Array.from_buffers(kind, len(words), buffers)


def first_null(array: pa.Array) -> int:
    """Return the position of the first null."""
    return int(as_numpy(pc.is_null(array)).argmax())


def refuse_null(array: pa.Array, subject: str, where: Where) -> None:
    """Raise DataError that names the first null, if there is one."""
    if array.null_count:
        raise DataError(
            f"{where(first_null(array))}: {subject} is null. "
            "Use rows without nulls, or fill them (pyarrow.compute.fill_null)."
        )


def plain_values(array: pa.Array) -> pa.Array:
    """Return `array` with values in place of their indices or runs, and no string views."""
    if types.is_dictionary(array.type):
        values = plain_values(array.dictionary)
        return pa.DictionaryArray.from_arrays(array.indices, values).dictionary_decode()
    if types.is_run_end_encoded(array.type):
        return plain_values(pc.run_end_decode(array))
    return _joined_strings(array) if str(array.type) == "string_view" else array


def without_views(array: pa.Array) -> pa.Array:
    """Return `array`, as strings where it holds views, which not every file can hold."""
    values = array.type.value_type if types.is_dictionary(array.type) else array.type
    return plain_values(array) if str(values) == "string_view" else array


def is_encoded(kind: pa.DataType) -> bool:
    """Return whether `plain_values` makes another type of this one, or of none at all."""
    return is_code(kind) or types.is_null(kind) or str(kind) == "string_view"


def plain_columns(batch: pa.RecordBatch, kinds: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Return a batch whose columns of these names hold plain values; kinds: for those of no type.

    Few of Arrow's functions take dictionaries and views, and a dictionary's own nulls are not
    counted among a column's.
    """
    for name, kind in kinds.items():
        at = batch.schema.get_field_index(name)
        if at >= 0:
            array = plain_values(batch.column(at))
            array = array.cast(kind) if types.is_null(array.type) else array
            batch = batch.set_column(at, name, array)
    return batch


def _joined_strings(views: pa.Array) -> pa.Array:
    """Return string views as strings: few of Arrow's functions take views."""
    try:
        return views.cast(pa.string())
    except pa.ArrowNotImplementedError:  # old versions have the type, but not the cast
        return pa.array(views.to_pylist(), pa.string())


def numbers(array: pa.Array) -> np.ndarray:
    """Return numbers without nulls as an array (n,): booleans as uint8, decimals as float64."""
    if types.is_boolean(array.type):
        return as_numpy(array).view(np.uint8)
    return as_numpy(array.cast(pa.float64()) if types.is_decimal(array.type) else array)
