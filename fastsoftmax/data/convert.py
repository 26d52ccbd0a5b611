"""The only place that rewrites data of any kind as Parquet, column by column as they are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fastsoftmax.data.column_names import require
from fastsoftmax.data.formats.batches import Batches
from fastsoftmax.data.formats.sink import IPC, PARQUET, ArrowWriter
from fastsoftmax.data.open import open_batches
from fastsoftmax.data.values import plain_values
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.facts import dataclass
from fastsoftmax.files import replacement, reporting, require_path

READ_ROWS = 2**13
GROUP_BYTES, GROUP_ROWS = 2**25, 2**17  # of a row group


@dataclass(frozen=True)
class Converted:
    """What was written: rows, columns, and the bytes of the file."""

    rows: int
    columns: int
    bytes: int


def convert(
    data: Any, output: str | os.PathLike[str], *, types: Mapping[str, str] | None = None
) -> Converted:
    """Write the rows of `data` to a Parquet file, batch by batch; return how much that is.

    data: whatever `train` takes but a matrix. output: ends in .parquet, or in .arrow or .feather
    for Arrow IPC. types: of columns of CSV and JSON lines: string, int64, float64 or bool; by
    default what all their values are.
    """
    require_path(output)
    suffix = Path(output).suffix.lower()
    if suffix not in (*PARQUET, *IPC):
        listed = ", ".join((*PARQUET, *IPC))
        raise OptionError(f"the output {os.fspath(output)} must end in one of {listed}")
    batches = open_batches(data, dict(types or {}))
    if batches is None:
        raise DataError("a matrix has no names of columns: give a table, or use pack.")
    for name in batches.schema.names:
        require(batches.schema, name, batches.origin)
    with replacement(output) as partial, reporting(output):
        writer = ArrowWriter(partial, as_ipc=suffix in IPC)
        try:
            rows = 0
            for group in _groups(batches):
                writer.write(group)
                rows += group.num_rows
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"{os.fspath(output)} cannot hold these columns: {error}.") from error
        finally:
            writer.close()
        if not rows:
            raise DataError(f"{batches.origin}: there are no rows.")
    return Converted(rows, len(batches.schema), Path(output).stat().st_size)


def _groups(batches: Batches) -> Iterator[pa.Table]:
    """Yield the rows in groups that read well."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in _plain(batches):
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _plain(batches: Batches) -> Iterator[pa.RecordBatch]:
    """Yield record batches of one schema, in source order, without dictionaries or views."""
    names, schema = batches.schema.names, None
    for batch in batches.read(names, None, READ_ROWS):
        if not batch.rows.num_rows:
            continue
        columns = [plain_values(batch.rows.column(name)) for name in names]
        plain = pa.RecordBatch.from_arrays(columns, names)
        schema = plain.schema if schema is None else schema
        if not plain.schema.equals(schema):
            raise DataError(
                f"{batches.place(batch.piece, batch.start)}: the columns are of other types from"
                f" here on ({_difference(schema, plain.schema)}). Convert files that differ apart,"
                " or give types."
            )
        yield plain


def _difference(first: pa.Schema, other: pa.Schema) -> str:
    pairs = zip(first, other, strict=True)
    return next(f'"{a.name}" was {a.type}, then {b.type}' for a, b in pairs if a.type != b.type)
