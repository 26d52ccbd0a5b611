"""The only place that makes tables of texts that are given in memory, one by one or as columns."""

from __future__ import annotations

from reprlib import repr as brief
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data.layouts import is_text
from fastsoftmax.errors import DataError

NAME = "text"  # of the column of texts that come one by one
STRINGS = ("object", "str", "large_str", "utf8")  # what types of strings begin with, in lower case


def table_of_texts(texts: Any) -> pa.Table:
    """Return a list, array or series of strings as a table of one column; None is a null."""
    if isinstance(texts, str | bytes):
        raise DataError("X is one text: give a list of texts, as [text].")
    names = _names_of(texts)
    if names:
        raise DataError(
            "X has columns, and text=True is for texts that come one by one: name those that are"
            f' texts, as text=["{names[0]}"].'
        )
    if not isinstance(texts, pa.Array | pa.ChunkedArray):
        return pa.table({NAME: pa.array(_listed(texts), pa.large_string())})
    if not is_text(texts.type) and not pa.types.is_null(texts.type):
        raise DataError(f"X is of type {texts.type}: text=True is for strings.")
    return pa.table({NAME: texts})


def table_of_columns(frame: Any) -> pa.Table:
    """Return a table or frame as an Arrow table."""
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    if not _names_of(frame):
        raise DataError(
            f"X is a {type(frame).__name__}, whose columns have no names, and text= names some:"
            " give an Arrow table or a data frame, or text=True for a list of texts."
        )
    if hasattr(frame, "iloc"):  # of pandas, whose index is no column
        return pa.Table.from_pandas(frame, preserve_index=False)
    return pa.table(frame)


def holds_strings(X: Any) -> str:
    """Return what to say of rows that hold strings where numbers are wanted; "" of others."""
    names = _names_of(X)
    if names is None:
        has_items = isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.ndim > 0)
        first = next(iter(X), None) if has_items else None
        return " Texts that come one by one need text=True." if isinstance(first, str) else ""
    kinds = X.schema.types if hasattr(X, "schema") and hasattr(X.schema, "types") else X.dtypes
    texts = [
        name
        for name, kind in zip(names, kinds, strict=False)
        if str(kind).lower().startswith(STRINGS)
    ]
    return f' Columns of texts are named, as text=["{texts[0]}"].' if texts else ""


def _names_of(frame: Any) -> list[str] | None:
    """Return the names of a table's columns, or None of what has none."""
    found = getattr(frame, "column_names", None)  # Arrow's
    found = getattr(frame, "columns", None) if found is None else found
    return None if found is None or callable(found) else [str(name) for name in found]


def _listed(texts: Any) -> list[str | None]:
    """Return texts, or raise DataError at the first item that is none."""
    shape = getattr(texts, "shape", None)
    if (shape is None and not isinstance(texts, list | tuple)) or len(shape or (0,)) != 1:
        what = f"a {type(texts).__name__}" if shape is None else f"an array of shape {shape}"
        raise DataError(
            f"X is {what}: text=True is for a list, an array (n,) or a series of texts."
        )
    listed = texts.tolist() if hasattr(texts, "tolist") else list(texts)
    for row, text in enumerate(listed):
        if isinstance(text, str):
            continue
        if not _is_missing(text):
            raise DataError(f"row {row}: X has {brief(text)}: text=True is for strings.")
        listed[row] = None
    return listed


def _is_missing(value: Any) -> bool:
    """Return whether a value is what frames have in place of one: None, NaN or NA."""
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or type(value).__name__ == "NAType"
