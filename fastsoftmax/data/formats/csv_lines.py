"""The only place that knows how CSV and TSV are written: heads, delimiters, quotes and nulls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.csv

from fastsoftmax.data.formats.dialect import Dialect, TextBlock, Types, decoded
from fastsoftmax.errors import DataError

DELIMITERS = ",;\t|"
# Without quotes around them; with quotes they are text. NaN is a number, and an error where it is
# used, as everywhere.
NULLS = ["", "NA", "N/A", "#N/A", "NULL", "null"]
BOOLS = {"true", "True", "TRUE", "false", "False", "FALSE"}
UTF16 = (b"\xff\xfe", b"\xfe\xff")


class CsvLines(Dialect):
    """Rows of fields with a line of heads; the delimiter is that which the heads have most."""

    quotes_hold_lines = True

    def __init__(self, given: Mapping[str, pa.DataType], delimiter: str | None = None) -> None:
        """given: types of columns; delimiter: where the file's name says it."""
        self.given, self._delimiter = given, delimiter
        self.names: list[str] = []
        self._comma = ","

    def begin(self, path: str, head: bytes) -> int:
        """Read the line of heads."""
        if head.startswith(UTF16):
            raise DataError(f"{path}: it is in UTF-16. Write it in UTF-8.")
        end = self._first_row(head)
        text, bare = decoded(path, head[:end], 1), re.sub('"[^"]*"', "", head[:end].decode())
        if "\r" in bare.strip():
            raise DataError(
                f"{path}: its lines end in carriage returns alone. Write them with line feeds, as"
                " tr '\\r' '\\n' does."
            )
        self._comma = self._delimiter or max(DELIMITERS, key=bare.count)
        self.names = next(rows_of(text, self._comma), (0, [], True))[1]
        if not self.names:
            raise DataError(f"{path}: its first line is empty. Write a line of names there.")
        if all(map(_is_number, self.names)):
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
        found = {field.name: field.type for field in table.schema}
        if pa.binary() in found.values():
            raise pa.ArrowInvalid("text is not in UTF-8")
        return found

    def parse(self, block: TextBlock, schema: pa.Schema) -> pa.Table:
        """Return a block's rows."""
        return self._read(block, {field.name: field.type for field in schema})

    def _read(self, block: TextBlock, types: Mapping[str, pa.DataType]) -> pa.Table:
        # Arrow takes all that follows a quote that is not closed for one value.
        if block.data.count(b'"') % 2 and self._unclosed(block):
            raise pa.ArrowInvalid("a quote is not closed")
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

    def _unclosed(self, block: TextBlock) -> int | None:
        """Return the line of a quote that nothing closes before the block ends."""
        rows = rows_of(block.data.decode("utf-8", "replace"), self._comma)
        return next((block.line + line for line, _, is_closed in rows if not is_closed), None)

    def complaint(self, path: str, block: TextBlock) -> DataError | None:
        """Return the first row of too many or too few fields, or a value not of the type given."""
        kinds = [self.given.get(name) for name in self.names]
        if (line := self._unclosed(block)) is not None:
            return DataError(f"{path}, line {line}: a quote is opened and never closed. Close it.")
        try:
            text = decoded(path, block.data, block.line)
        except DataError as error:
            return error
        for number, fields, _ in rows_of(text, self._comma):
            place = f"{path}, line {block.line + number}"
            if len(fields) != len(self.names):
                return DataError(
                    f"{place}: it has {len(fields)} fields, and the line of heads"
                    f" {len(self.names)}. Correct it, or leave it out."
                )
            for name, kind, value in zip(self.names, kinds, fields, strict=True):
                if kind is not None and not _is_of(value, kind):
                    return DataError(
                        f'{place}: column "{name}" holds {value!r:.80}, which is no'
                        f" {kind}. Correct it, or give the column another type (types=)."
                    )
        return None

    def odd(self, block: TextBlock, name: str, kind: pa.DataType) -> str | None:
        """Say which line holds the first value that is not of a type."""
        at = self.names.index(name)
        text = block.data.decode("utf-8", "replace")
        for number, fields, _ in rows_of(text, self._comma):
            if len(fields) > at and not _is_of(fields[at], kind):
                return f"line {block.line + number} holds {fields[at]!r:.80}"
        return None


def rows_of(text: str, comma: str) -> Iterator[tuple[int, list[str], bool]]:
    """Yield of each row that is not empty the number of its first line, from 0, its fields, and
    whether all quotes are closed: as Arrow reads them, whatever their length."""
    field = re.compile(rf'(?:"((?:[^"]+|"")*)("|\Z))?([^{comma}\r\n]*)({comma}|\r\n?|\n|\Z)')
    line = at = 0
    fields: list[str] = []
    start, is_closed = 0, True
    while at < len(text) or fields:
        found = field.match(text, at)
        assert found is not None  # the empty field matches anywhere
        quoted, quote, rest, end = found.groups()
        fields.append(rest if quoted is None else quoted.replace('""', '"') + rest)
        is_closed = is_closed and quote != ""
        line, at = line + text.count("\n", at, found.end()), found.end()
        if end != comma:
            if fields != [""] or quoted is not None:
                yield start, fields, is_closed
            fields, start, is_closed = [], line, True


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
