"""The only place that makes a file of a small table at once, as Parquet or CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq


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
