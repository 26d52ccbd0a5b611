"""The only place that takes plain values out of Arrow arrays: no dictionaries, views or nulls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

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
