"""The only place that makes bytes of rows for files and pipes that are written from front to back.

Each group of rows becomes bytes of its own: nothing is held, and nothing needs to seek.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from typing import Any

import pyarrow as pa
import pyarrow.csv

from fastsoftmax.errors import DataError

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class Encoding(ABC):
    """How rows of one schema become bytes."""

    def __init__(self, schema: pa.Schema) -> None:
        """Check that columns of these types can be held; raise DataError for those that cannot."""
        self.schema = schema

    @abstractmethod
    def begin(self) -> bytes:
        """Return what stands before the first row."""

    @abstractmethod
    def encode(self, rows: pa.Table) -> bytes:
        """Return rows as bytes."""

    def end(self) -> bytes:
        """Return what stands after the last row."""
        return b""


class CsvRows(Encoding):
    """A line of heads and a line a row; text in double quotes, a null is nothing at all."""

    def __init__(self, schema: pa.Schema) -> None:
        super().__init__(schema)
        for field in schema:
            if pa.types.is_nested(field.type) or isinstance(field.type, pa.BaseExtensionType):
                raise DataError(
                    f'CSV cannot hold column "{field.name}" of type {field.type}: leave it out, or'
                    " write .parquet, .arrow or .jsonl."
                )

    def begin(self) -> bytes:
        return self._written(self.schema.empty_table(), heads=True)

    def encode(self, rows: pa.Table) -> bytes:
        return self._written(rows, heads=False)

    def _written(self, rows: pa.Table, *, heads: bool) -> bytes:
        stream = pa.BufferOutputStream()
        pyarrow.csv.write_csv(rows, stream, pyarrow.csv.WriteOptions(include_header=heads))
        return bytes(stream.getvalue())


class JsonRows(Encoding):
    """A JSON object a row, a line each; dates, times and decimals as text."""

    def begin(self) -> bytes:
        return b""

    def encode(self, rows: pa.Table) -> bytes:
        names = rows.column_names
        columns = [self._values(rows, name) for name in names]
        lines = (json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, default=str)
                 for row in zip(*columns, strict=True))  # fmt: skip
        return "".join(f"{line}\n" for line in lines).encode()

    def _values(self, rows: pa.Table, name: str) -> list[Any]:
        values = rows[name].to_pylist()
        if not all(map(_is_held, values)):
            raise DataError(
                f'JSON cannot hold column "{name}", which has NaN, infinities or bytes: leave it'
                " out, or write .parquet, .arrow or .csv."
            )
        return values


class ArrowStream(Encoding):
    """Arrow's IPC stream, which needs no end of the file to be read."""

    def begin(self) -> bytes:
        return bytes(self.schema.serialize())

    def encode(self, rows: pa.Table) -> bytes:
        return b"".join(bytes(batch.serialize()) for batch in rows.to_batches())

    def end(self) -> bytes:
        return END_OF_STREAM


def _is_held(value: Any) -> bool:
    """Return whether JSON has a form for a value."""
    if isinstance(value, list):
        return all(map(_is_held, value))
    if isinstance(value, dict):
        return all(map(_is_held, value.values()))
    return not isinstance(value, bytes) and (not isinstance(value, float) or math.isfinite(value))
