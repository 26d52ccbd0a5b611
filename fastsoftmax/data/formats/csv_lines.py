"""The only place that knows how CSV and TSV are written: heads, delimiters, quotes and nulls."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from fastsoftmax.data.formats.lines import Dialect, TextBlock, Types
from fastsoftmax.errors import DataError

DELIMITERS = ",;\t|"
# Without quotes around them; with quotes they are text. NaN is a number, and an error where it is
# used, as everywhere.
NULLS = ["", "NA", "N/A", "#N/A", "NULL", "null"]
BOOLS = {"true", "True", "TRUE", "false", "False", "FALSE"}


class CsvLines(Dialect):
    """Rows of fields with a line of heads; the delimiter is that which the heads have most."""

    def __init__(self, given: Mapping[str, pa.DataType], delimiter: str | None = None) -> None:
        """given: types of columns; delimiter: where the file's name says it."""
        self.given, self._delimiter = given, delimiter
        self.names: list[str] = []
        self._comma = ","

    def begin(self, path: str, head: bytes) -> int:
        """Read the line of heads."""
        end = self._first_row(head)
        text = head[:end].decode("utf-8", "replace")
        self._comma = self._delimiter or max(DELIMITERS, key=text.count)
        self.names = next(csv.reader(io.StringIO(text), delimiter=self._comma), [])
        if self.names and all(map(_is_number, self.names)):
            raise DataError(
                f"{path}: its first line holds numbers, {text.strip()[:60]!r}, and no names of"
                " columns. Write a line of names before it."
            )
        return end

    def _first_row(self, head: bytes) -> int:
        end = head.find(b"\n") + 1
        while end and head.count(b'"', 0, end) % 2:
            end = head.find(b"\n", end) + 1
        return end or len(head)

    def cut(self, data: bytes) -> int:
        """Return where the last row ends: at the last end of a line outside of quotes."""
        if b'"' not in data:
            return data.rfind(b"\n") + 1
        signs = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(signs == ord("\n"))
        quotes = np.searchsorted(np.flatnonzero(signs == ord('"')), ends)
        whole = ends[quotes % 2 == 0]
        return int(whole[-1]) + 1 if len(whole) else 0

    def types(self, block: TextBlock) -> Types:
        """Return what Arrow infers of a block."""
        table = self._read(block, self.given)
        return {field.name: field.type for field in table.schema}

    def parse(self, block: TextBlock, schema: pa.Schema) -> pa.Table:
        """Return a block's rows."""
        return self._read(block, {field.name: field.type for field in schema})

    def _read(self, block: TextBlock, types: Mapping[str, pa.DataType]) -> pa.Table:
        return pyarrow.csv.read_csv(
            pa.BufferReader(block.data),
            pyarrow.csv.ReadOptions(
                column_names=self.names, use_threads=False, block_size=len(block.data) + 1
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self._comma, newlines_in_values=b'"' in block.data
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict(types), null_values=NULLS, strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )  # fmt: skip

    def _rows(self, block: TextBlock) -> Any:
        text = block.data.decode("utf-8", "replace")
        return csv.reader(io.StringIO(text, ""), delimiter=self._comma)

    def complaint(self, path: str, block: TextBlock) -> DataError | None:
        """Return the first row of too many or too few fields, or a value not of the type given."""
        kinds = [self.given.get(name) for name in self.names]
        rows = self._rows(block)
        for fields in rows:
            line = block.line + rows.line_num - 1
            if fields and len(fields) != len(self.names):
                return DataError(
                    f"{path}, line {line}: it has {len(fields)} fields, and the line of heads"
                    f" {len(self.names)}. Correct it, or leave it out."
                )
            for name, kind, value in zip(self.names, kinds, fields, strict=False):
                if kind is not None and not _is_of(value, kind):
                    return DataError(
                        f'{path}, line {line}: column "{name}" holds {value!r:.80}, which is no'
                        f" {kind}. Correct it, or give the column another type (types=)."
                    )
        return None

    def odd(self, block: TextBlock, name: str, kind: pa.DataType) -> str | None:
        """Say which line holds the first value that is not of a type."""
        rows, at = self._rows(block), self.names.index(name)
        for fields in rows:
            if len(fields) > at and not _is_of(fields[at], kind):
                return f"line {block.line + rows.line_num - 1} holds {fields[at]!r:.80}"
        return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_of(text: str, kind: pa.DataType) -> bool:
    """Return whether a field is a null, or a value of a type; others than plain ones are."""
    if text in NULLS:
        return True
    if pa.types.is_integer(kind):
        return text.strip().lstrip("+-").isdigit()
    if pa.types.is_floating(kind):
        return _is_number(text) and "_" not in text
    return text in BOOLS or text in ("0", "1") if pa.types.is_boolean(kind) else True
