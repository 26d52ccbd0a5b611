"""The only place that knows which Arrow types hold features: numbers, and lists of numbers."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from pyarrow import types

FLOATS = {"halffloat": "f2", "float": "f4", "double": "f8"}  # as Arrow calls them


def storage_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which `kind` is stored: a fixed-shape tensor is a fixed-size list."""
    return kind.storage_type if isinstance(kind, pa.FixedShapeTensorType) else kind


def is_vector(kind: pa.DataType) -> bool:
    """Return whether a value of `kind` is a list."""
    stored = storage_type(kind)
    return bool(
        types.is_fixed_size_list(stored) or types.is_list(stored) or types.is_large_list(stored)
    )


def fixed_width(kind: pa.DataType) -> int | None:
    """Return how many numbers a list of `kind` holds, or None where only its values tell."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return math.prod(kind.shape)
    return kind.list_size if types.is_fixed_size_list(kind) else None


def tensor_shape(kind: pa.DataType) -> tuple[tuple[int, ...], tuple[int, ...] | None] | None:
    """Return the shape of a tensor and the order of its axes, None as they lie; None for others."""
    if not isinstance(kind, pa.FixedShapeTensorType):
        return None
    axes = tuple(kind.permutation or ())
    return tuple(kind.shape), None if axes == tuple(range(len(axes))) else axes


def remedy(kind: pa.DataType) -> str:
    """Say how a column that holds no numbers is made one, or what else to do with it."""
    if types.is_temporal(kind):
        whole = "int32" if types.is_date32(kind) or types.is_time32(kind) else "int64"
        return (
            f'Convert it to a number in a unit of your choice (column.cast("{whole}") counts in its'
            " own; subtract an origin near the values), or leave it out (features= lists the"
            " columns to use)."
        )
    if types.is_struct(kind):
        return "Make a column of each of its fields: table.flatten() does."
    if is_vector(kind):
        return (
            "Give lists of plain numbers: one list a row, or a fixed-shape tensor for more axes."
            " Or leave it out (features= lists the columns to use)."
        )
    return (
        "Leave it out (features= lists the columns to use), convert it, or name it in categorical="
        f"{' or, as texts, in text=' if is_text(kind) else ''}."
    )


def item_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of one number of `kind`, itself where it is no list."""
    return storage_type(kind).value_type if is_vector(kind) else kind


def is_plain(kind: pa.DataType) -> bool:
    """Return whether numbers of `kind` lie in memory as NumPy has them."""
    return bool(types.is_integer(kind) or types.is_floating(kind))


def is_code(kind: pa.DataType) -> bool:
    """Return whether values are encoded: as indices into a dictionary, or as runs of them."""
    return bool(types.is_dictionary(kind) or types.is_run_end_encoded(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether `kind` is strings, plain or encoded."""
    if is_code(kind):
        return is_text(kind.value_type)
    return str(kind) in ("string", "large_string", "string_view")


def is_number(kind: pa.DataType) -> bool:
    """Return whether `kind` is a number: plain, boolean, decimal, or these encoded."""
    if is_code(kind):
        return is_number(kind.value_type)
    return is_plain(kind) or bool(types.is_boolean(kind) or types.is_decimal(kind))


def numpy_dtype(kind: pa.DataType) -> np.dtype:
    """Return NumPy's dtype of plain numbers or booleans.

    pyarrow's own way to it, to_pandas_dtype, wants pandas in old versions.
    """
    return np.dtype(FLOATS.get(str(kind), str(kind)))


def decoded_dtype(kind: pa.DataType) -> np.dtype:
    """Return the dtype that numbers of `kind` are decoded to."""
    if is_code(kind):
        return decoded_dtype(kind.value_type)
    if types.is_boolean(kind):
        return np.dtype(np.uint8)
    if types.is_decimal(kind):
        return np.dtype(np.float64)
    return numpy_dtype(kind)
