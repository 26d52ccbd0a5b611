"""The only place that compares the schemas of further files with the first one's."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from fastsoftmax.data.column_names import require
from fastsoftmax.data.columns import Layout
from fastsoftmax.data.layouts import fixed_width, is_code, is_vector, item_type, tensor_shape
from fastsoftmax.data.packed import packing_of
from fastsoftmax.errors import DataError

MOST_DIFFERENCES = 12  # between files, that are listed


def _same_values(first: pa.DataType, other: pa.DataType) -> bool:
    """Return whether two types hold the same values, whatever their items are called."""
    if is_vector(first) and is_vector(other):
        same_kind = type(first) is type(other) and fixed_width(first) == fixed_width(other)
        same_kind = same_kind and tensor_shape(first) == tensor_shape(other)
        return same_kind and item_type(first) == item_type(other)
    if is_code(first) and type(first) is type(other):
        return bool(first.value_type == other.value_type)
    return bool(first == other)


def differences(first: pa.Schema, other: pa.Schema, layout: Layout, origin: str) -> list[str]:
    """Return what differs in `other` from the first file among the columns in use, a sentence each:
    a column that is missing, or of another type there."""
    names = layout.names(labelled=True)
    if packing_of(other, origin) != layout.packing:
        return [f"{origin}: it is packed otherwise than the first file. Pack them alike."]
    found = []
    for name in names:
        try:
            kind, wanted = require(other, name, origin), first.field(name).type
        except DataError as missing:
            found.append(str(missing))
            continue
        if not _same_values(wanted, kind):
            found.append(
                f'{origin}: column "{name}" is of type {kind}, but {wanted} in the first file. '
                "Write all files with one schema."
            )
    return found


def check_same(first: pa.Schema, others: Sequence[tuple[str, pa.Schema]], layout: Layout) -> None:
    """Raise DataError that lists how further files differ from the first in the columns in use."""
    found = [text for origin, other in others for text in differences(first, other, layout, origin)]
    if len(found) == 1:
        raise DataError(found[0])
    if found:
        shown = " ".join(found[:MOST_DIFFERENCES])
        more = len(found) - MOST_DIFFERENCES
        rest = f" And {more} more." if more > 0 else ""
        raise DataError(f"the files differ in {len(found)} places. {shown}{rest}")
