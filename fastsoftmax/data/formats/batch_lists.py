"""The only place that makes a reader of what yields batches: lists, generators, lazy frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from fastsoftmax.errors import DataError


def is_arrow(item: Any) -> bool:
    """Return whether an object hands its rows on as Arrow has them."""
    return hasattr(item, "__arrow_c_stream__") or hasattr(item, "__arrow_c_array__")


def is_batch_list(data: Any) -> bool:
    """Return whether `data` is a list of batches, tables or frames."""
    return isinstance(data, list | tuple) and len(data) > 0 and all(map(is_arrow, data))


def is_lazy_frame(data: Any) -> bool:
    """Return whether `data` is a query that polars has not carried out."""
    return type(data).__name__ == "LazyFrame" and hasattr(data, "collect_schema")


def table_of(items: Sequence[Any]) -> pa.Table:
    """Return a list of batches, tables or frames of one schema as one table; nothing is copied."""
    tables = [_table(item, f"item {i} of the list") for i, item in enumerate(items)]
    for i, table in enumerate(tables):
        if not table.schema.equals(tables[0].schema):
            raise DataError(_other_schema(f"item {i} of the list", tables[0].schema, table.schema))
    return pa.concat_tables(tables)


def reader_of_items(items: Iterable[Any], origin: str) -> pa.RecordBatchReader:
    """Return a reader of the batches, tables or frames that an iterable yields, or raise DataError.

    The first one is taken at once: it tells the schema.
    """
    left = iter(items)
    first = next(left, None)
    if first is None:
        raise DataError(f"{origin}: there are no rows.")
    schema = _table(first, f"{origin}, item 0").schema
    batches = _batches(chain([first], left), schema, origin)
    return pa.RecordBatchReader.from_batches(schema, batches)


def reader_of_lazy(frame: Any) -> pa.RecordBatchReader:
    """Return a reader of a lazy frame's rows, which polars collects batch by batch."""
    try:
        schema = _table(frame.clear().collect(), "the lazy frame").schema
    except Exception as error:  # polars has dozens of its own
        raise _not_collected(error) from error
    return pa.RecordBatchReader.from_batches(schema, _batches(_collected(frame), schema, "the lazy"
        " frame"))  # fmt: skip


def _collected(frame: Any) -> Iterator[Any]:
    try:
        if hasattr(frame, "collect_batches"):
            yield from frame.collect_batches(maintain_order=True)
        else:  # an older polars
            yield frame.collect()
    except Exception as error:
        raise _not_collected(error) from error


def _not_collected(error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return DataError(f"the lazy frame cannot be collected ({reason}). Check it with .collect().")


def _batches(items: Iterable[Any], schema: pa.Schema, origin: str) -> Iterator[pa.RecordBatch]:
    for number, item in enumerate(items):
        table = _table(item, f"{origin}, item {number}")
        if not table.schema.equals(schema):
            raise DataError(_other_schema(f"{origin}, item {number}", schema, table.schema))
        yield from table.to_batches()


def _other_schema(what: str, first: pa.Schema, other: pa.Schema) -> str:
    pairs = zip(first, other, strict=False)
    odd = next((f"{b.name}: {b.type}, not {a.name}: {a.type}" for a, b in pairs if a != b), None)
    odd = odd or f"{len(other)} columns, not {len(first)}"
    return f"{what} has other columns than the first one ({odd}). Give all one schema."


def _table(item: Any, what: str) -> pa.Table:
    """Return a batch, table or frame as a table, or raise DataError."""
    if isinstance(item, pa.RecordBatch):
        return pa.Table.from_batches([item])
    if not is_arrow(item):
        raise DataError(
            f"{what} is a {type(item).__name__}. Each must be a RecordBatch, a Table or a frame;"
            " for arrays, pyarrow.record_batch({name: array, ...}) makes one."
        )
    try:
        return item if isinstance(item, pa.Table) else pa.table(item)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"{what} is a {type(item).__name__}, of which no table can be made:"
            f" {error}") from error  # fmt: skip
