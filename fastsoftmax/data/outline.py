"""The only place that says what files hold, whether or not they can be trained on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from fastsoftmax.data import compute as pc
from fastsoftmax.data.column_names import require
from fastsoftmax.data.formats.discover import find_files
from fastsoftmax.data.open import open_files
from fastsoftmax.data.values import plain_values
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass

MOST_CLASSES = 100_000  # a column with more distinct values holds no classes
BATCH_ROWS = 2**16


@dataclass(frozen=True)
class Outline:
    """How much there is, and of what: the columns' names and types as the first file has them."""

    files: int
    pieces: int
    rows: int
    columns: tuple[tuple[str, str], ...]


def outline(data: str | list[str]) -> Outline:
    """Return the Outline of a path, a glob, a folder or a list of these."""
    paths = find_files(data)
    files = open_files(paths)
    pieces = files.pieces or ()
    columns = tuple((field.name, str(field.type)) for field in files.schema)
    return Outline(len(paths), len(pieces), sum(pieces), columns)


def count_values(data: str | list[str], name: str) -> list[tuple[Any, int]]:
    """Return each value of a column, sorted, and how many rows have it; nulls last."""
    files = open_files(find_files(data))
    require(files.schema, name, files.origin)
    counts: Counter[Any] = Counter()
    for batch in files.read([name], None, BATCH_ROWS):
        counts.update(_count(batch.rows.column(name), f'{files.origin}: column "{name}"'))
        if len(counts) > MOST_CLASSES:
            raise DataError(
                f'{files.origin}: column "{name}" has more than {MOST_CLASSES:,} distinct values; '
                "they are no classes."
            )
    nulls = counts.pop(None, 0)
    listed = sorted(counts.items(), key=lambda item: _order(item[0]))
    return [*listed, (None, nulls)] if nulls else listed


def _count(values: pa.Array, subject: str) -> dict[Any, int]:
    values = plain_values(values)
    if pa.types.is_nested(values.type) or isinstance(values.type, pa.BaseExtensionType):
        raise DataError(f"{subject} is of type {values.type}, which holds no classes.")
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(values).to_pylist()}


def _order(value: Any) -> Any:
    """Return what sorts values as classes are sorted: strings by their UTF-8 bytes."""
    return value.encode() if isinstance(value, str) else value
