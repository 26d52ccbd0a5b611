"""The only place that turns record batches into feature arrays, uncopied where Arrow allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from fastsoftmax.data.columns import Feature
from fastsoftmax.data.layouts import is_plain, is_vector, storage_type
from fastsoftmax.errors import DataError

Where = Callable[[int], str]  # the place of a row, numbered within the batch


def first_null(array: pa.Array) -> int:
    """Return the position of the first null."""
    return int(pc.is_null(array).to_numpy(zero_copy_only=False).argmax())


def refuse_null(array: pa.Array, subject: str, where: Where) -> None:
    """Raise DataError that names the first null, if there is one."""
    if array.null_count:
        raise DataError(
            f"{where(first_null(array))}: {subject} is null. "
            "Use rows without nulls, or fill them (pyarrow.compute.fill_null)."
        )


def plain_values(array: pa.Array) -> pa.Array:
    """Return `array` with a dictionary's values in place of their indices, and no string views."""
    if types.is_dictionary(array.type):
        values = plain_values(array.dictionary)
        return pa.DictionaryArray.from_arrays(array.indices, values).dictionary_decode()
    return _joined_strings(array) if str(array.type) == "string_view" else array


def _joined_strings(views: pa.Array) -> pa.Array:
    """Return string views as strings: few of Arrow's functions take views."""
    try:
        return views.cast(pa.string())
    except pa.ArrowNotImplementedError:  # old versions have the type, but not the cast
        return pa.array(views.to_pylist(), pa.string())


def numbers(array: pa.Array) -> np.ndarray:
    """Return numbers without nulls as an array (n,): booleans as uint8, decimals as float64."""
    if types.is_boolean(array.type):
        return array.to_numpy(zero_copy_only=False).view(np.uint8)
    if types.is_decimal(array.type):
        return array.cast(pa.float64()).to_numpy()
    return array.to_numpy()


def _scalars(batch: pa.RecordBatch, run: list[Feature], where: Where) -> np.ndarray:
    """Return columns of one type side by side, an F-ordered array (rows, columns)."""
    arrays = [plain_values(batch.column(feature.column.name)) for feature in run]
    for feature, array in zip(run, arrays, strict=True):
        refuse_null(array, f'column "{feature.column.name}"', where)
    if len(run) == 1:
        return numbers(arrays[0])[:, None]
    first = numbers(arrays[0][:0])
    side_by_side = np.empty((batch.num_rows, len(run)), first.dtype, order="F")
    for j, array in enumerate(arrays):
        side_by_side[:, j] = numbers(array)
    return side_by_side


def _refuse_other_lengths(array: pa.Array, width: int, name: str, where: Where) -> None:
    lengths = np.diff(array.offsets.to_numpy())
    odd = np.flatnonzero(lengths != width)
    if odd.size:
        raise DataError(
            f'{where(int(odd[0]))}: column "{name}" holds a list of {lengths[odd[0]]} numbers, '
            f"but of {width} in the first row. All rows need the same length."
        )


def _vectors(batch: pa.RecordBatch, feature: Feature, where: Where) -> np.ndarray:
    """Return a column of lists as an array (rows, width)."""
    name, width = feature.column.name, feature.width
    array = batch.column(name)
    refuse_null(array, f'column "{name}"', where)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if not types.is_fixed_size_list(storage_type(feature.kind)):
        _refuse_other_lengths(array, width, name, where)
    # `flatten` heeds a slice's offset, where `values` does not; it drops null rows, refused above.
    items = plain_values(array.flatten())
    refuse_null(items, f'an item of column "{name}"', lambda item: where(item // width))
    return numbers(items).reshape(batch.num_rows, width)


def _runs(features: tuple[Feature, ...]) -> Iterator[list[Feature]]:
    """Yield lists alone, and scalars of one type that stand together."""
    keyed = groupby(
        enumerate(features), lambda at: (str(at[1].kind), is_vector(at[1].kind) and at[0])
    )
    for _, run in keyed:
        yield [feature for _, feature in run]


def _tensor(batch: pa.RecordBatch, run: list[Feature]) -> np.ndarray | None:
    """Return columns side by side in one call of Arrow, or None where it cannot."""
    if len(run) < 8 or not is_plain(run[0].kind):
        return None
    try:
        columns = batch.select([feature.column.name for feature in run])
        return np.asarray(columns.to_tensor(row_major=False))
    except (TypeError, AttributeError, pa.ArrowException):  # pyarrow < 17, or a null to be named
        return None


def features_of(
    batch: pa.RecordBatch, features: tuple[Feature, ...], where: Where
) -> tuple[np.ndarray, ...]:
    """Return the batch's features as arrays (rows, width), side by side.

    Neighbouring scalar columns of one type are one F-ordered array. A null raises DataError.
    """
    parts = []
    for run in _runs(features):
        if is_vector(run[0].kind):
            parts.append(_vectors(batch, run[0], where))
            continue
        tensor = _tensor(batch, run)
        parts.append(_scalars(batch, run, where) if tensor is None else tensor)
    return tuple(parts)
