"""The only place that looks for the value that made a column of numbers one of text."""

from __future__ import annotations

import pyarrow as pa

from fastsoftmax.data import compute
from fastsoftmax.data.formats.dialect import Dialect, TextBlock

FIRST_VALUES = 64  # of a column, that tell whether it was meant to be of numbers
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"


class OddValues:
    """Columns of text whose first values are mostly numbers, and the first value that is none."""

    def __init__(self, dialect: Dialect, first: pa.Table, notes: dict[str, str]) -> None:
        """Note in `notes`, by column, which value it is; first: rows that tell where to look."""
        self._dialect, self._notes = dialect, notes
        self._names = [
            field.name
            for field in first.schema
            if pa.types.is_string(field.type)
            and field.name not in dialect.given
            and _seems_number(first.column(field.name))
        ]

    def look(self, block: TextBlock, table: pa.Table) -> None:
        """Look at the rows of a block."""
        for name in [name for name in self._names if name not in self._notes]:
            if not compute.all(_is_number(table.column(name))).as_py():
                note = self._dialect.odd(block, name, pa.float64())
                if note is not None:
                    self._notes[name] = note


def _is_number(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return compute.match_substring_regex(column, NUMBER)


def _seems_number(column: pa.ChunkedArray) -> bool:
    shown = column.drop_null().slice(0, FIRST_VALUES)
    matches = compute.sum(_is_number(shown)).as_py() or 0
    return matches > 0 and 2 * matches >= len(shown)
