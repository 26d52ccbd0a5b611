"""The only place that makes a table of columns at once, or a file of a small one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fastsoftmax.data.formats.sink import PIPED


def parquet_bytes(columns: Mapping[str, Sequence[Any]]) -> memoryview:
    """Return the columns, of equal length, as a Parquet file."""
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(columns)), stream, write_page_checksum=True)
    return memoryview(stream.getvalue())


def csv_bytes(columns: Mapping[str, Sequence[Any]]) -> memoryview:
    """Return the columns, of equal length, as CSV with a line of heads."""
    stream = pa.BufferOutputStream()
    pyarrow.csv.write_csv(pa.table(dict(columns)), stream)
    return memoryview(stream.getvalue())


def table_of_columns(
    columns: Mapping[str, Any], kinds: Mapping[str, str] | None = None
) -> pa.Table:
    """Return arrays of equal length as a table; kinds: the types of some, by Arrow's names."""
    kinds = kinds or {}
    arrays = {
        name: pa.array(values.tolist(), pa.type_for_alias(kinds[name]) if name in kinds else None)
        for name, values in columns.items()
    }
    return pa.table(arrays)


def record_batch(columns: Mapping[str, Any]) -> pa.RecordBatch:
    """Return arrays of equal length as a record batch."""
    return table_of_columns(columns).combine_chunks().to_batches()[0]


def table_bytes(table: pa.Table, kind: str) -> memoryview:
    """Return a table as a file: parquet, arrow, csv or jsonl."""
    stream = pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(table, stream, write_page_checksum=True)
    elif kind == "arrow":
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)
    else:
        encoder = PIPED[kind](table.schema)
        stream.write(encoder.begin() + encoder.encode(table) + encoder.end())
    return memoryview(stream.getvalue())
