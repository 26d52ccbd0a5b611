"""The only place that knows how categories that are many lie in a model file: words as one blob.

JSON of a million words takes seconds to read, and strings half a second to make. Few categories,
and classes, lie in the JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastsoftmax.data.source import Column
from fastsoftmax.data.word_list import Words, are_ascending, blob_of
from fastsoftmax.labels import INTEGER_KINDS, Classes
from fastsoftmax.model.strict_json import MalformedError, require

MALFORMED = "the categories of a sparse column are malformed"
CONTINUES, MASK = 0x80, 0xC0  # of a byte that goes on with a character


def category_tensors(columns: Iterable[Column]) -> dict[str, np.ndarray]:
    """Return the categories of those columns that are sparse, by the columns' numbers."""
    found = {}
    for number, column in enumerate(columns):
        if column.sparse is None or column.categories is None:
            continue
        kind, values = column.categories.kind, column.categories.values
        if kind in INTEGER_KINDS:
            found[f"categories.{number}.values"] = np.array(values, kind)
            continue
        found[f"categories.{number}.names"], found[f"categories.{number}.offsets"] = blob_of(values)
    return found


def read_categories(kind: Any, tensors: dict[str, np.ndarray], number: int) -> Classes:
    """Return the categories of column `number`, which is sparse; take them out of `tensors`.

    kind: as the file tells it.
    """
    keys = ("names", "offsets") if kind == "string" else ("values",)
    arrays = [tensors.pop(f"categories.{number}.{key}", None) for key in keys]
    if any(array is None or array.ndim != 1 for array in arrays):
        raise MalformedError(MALFORMED)
    return Classes(kind, _words(*arrays) if kind == "string" else _numbers(kind, *arrays))


def _numbers(kind: Any, values: Any) -> tuple[int, ...]:
    require(kind in INTEGER_KINDS and values.dtype == np.dtype(kind), MALFORMED)
    require(len(values) > 0 and bool((values[1:] > values[:-1]).all()), MALFORMED)
    return tuple(values.tolist())


def _words(names: Any, offsets: Any) -> Words:
    """Return the words that lie one after the other; refuse what is no UTF-8."""
    require(names.dtype == np.uint8 and offsets.dtype == np.int64, MALFORMED)
    whole = len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(names)
    require(bool(whole and (np.diff(offsets) >= 0).all()), MALFORMED)
    begins = (names & MASK) != CONTINUES
    require(bool(begins[offsets[offsets < len(names)]].all()), MALFORMED)
    try:
        names.tobytes().decode()
    except UnicodeDecodeError:
        raise MalformedError(MALFORMED) from None
    require(are_ascending(names, offsets), MALFORMED)  # as code points are, then
    return Words(names, offsets)
