"""The only place that knows how JSON lines are written: an object a row, a key a column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.json

from fastsoftmax.data.formats.dialect import Dialect, TextBlock, Types, decoded
from fastsoftmax.errors import DataError


class JsonLines(Dialect):
    """Objects, one a line; a key that an object lacks is null there."""

    def __init__(self, given: Mapping[str, pa.DataType]) -> None:
        """given: types of columns."""
        self.given = given

    def begin(self, path: str, head: bytes) -> int:
        """Every line holds a row."""
        if head.lstrip()[:1] != b"{":
            raise DataError(
                f"{path}: it begins with {head.lstrip()[:20]!r}, and no object. JSON lines are an"
                " object a line: write the file so."
            )
        return 0

    def cut(self, data: bytes) -> int:
        """Return where the last line ends: no value has an end of a line in it."""
        return data.rfind(b"\n") + 1

    def types(self, block: TextBlock) -> Types:
        """Return what Arrow infers of a block."""
        given = pa.schema(list(self.given.items()))
        try:
            table = self._read(block, given, "infer")
        except pa.ArrowInvalid:
            return self._slowly(block)
        return {field.name: _plain(field.type) for field in table.schema}

    def _slowly(self, block: TextBlock) -> Types:
        """Return the types of a block in which a column's values are not of one type."""
        columns: dict[str, list[Any]] = {}
        try:
            for row in map(json.loads, filter(None, block.data.splitlines())):
                for name, value in row.items():
                    columns.setdefault(name, []).append(value)
        except (ValueError, AttributeError) as error:
            raise pa.ArrowInvalid(str(error)) from error
        found = {}
        for name, values in columns.items():
            try:
                found[name] = self.given.get(name) or _plain(pa.array(values).type)
            except (pa.ArrowException, OverflowError):
                found[name] = pa.string()
        return found

    def parse(self, block: TextBlock, schema: pa.Schema) -> pa.Table:
        """Return a block's rows; a key that is not expected is an error, for it is a new column."""
        table = self._read(block, schema, "error")
        return table.select(schema.names).cast(schema)

    def _read(self, block: TextBlock, schema: pa.Schema, unexpected: str) -> pa.Table:
        try:
            block.data.decode()  # Arrow takes any bytes for text
        except UnicodeDecodeError as error:
            raise pa.ArrowInvalid(str(error)) from error
        return pyarrow.json.read_json(
            pa.BufferReader(block.data),
            pyarrow.json.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
            pyarrow.json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior=unexpected
            ),
        )  # fmt: skip

    def complaint(self, path: str, block: TextBlock) -> DataError | None:
        """Return the first line that is no object, or holds a value that is not of its type."""
        try:
            decoded(path, block.data, block.line)
        except DataError as error:
            return error
        for number, line in enumerate(block.data.split(b"\n"), start=block.line):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                row = json.loads(line, object_pairs_hook=_with_keys_once)
            except ValueError as error:
                return DataError(f"{place}: it is no JSON ({error}). Correct it, or leave it out.")
            if not isinstance(row, dict):
                return DataError(f"{place}: it holds {line[:40]!r}, and no object. Correct it.")
            for name, kind in self.given.items():
                value = row.get(name)
                if not _is_of(value, kind):
                    return DataError(
                        f'{place}: column "{name}" holds {value!r:.80}, which is no {kind}.'
                        " Correct it, or give the column another type (types=)."
                    )
        return self._of_two_kinds(path, block)

    def _of_two_kinds(self, path: str, block: TextBlock) -> DataError | None:
        """Return the first value that is of another kind than those of its column before it."""
        seen: dict[str, tuple[type, int]] = {}
        for number, line in enumerate(block.data.split(b"\n"), start=block.line):
            row = json.loads(line) if line.strip() else {}
            for name, value in row.items():
                kind = float if type(value) is int else type(value)
                if value is None or name in self.given:
                    continue
                before, at = seen.setdefault(name, (kind, number))
                if before is not kind:
                    return DataError(
                        f'{path}, line {number}: column "{name}" holds {value!r:.80}, and'
                        f" {_kind(before)} at line {at}. Write all values of a column alike."
                    )
        return None

    def odd(self, block: TextBlock, name: str, kind: pa.DataType) -> str | None:
        """Say which line holds the first value that is not of a type."""
        for number, line in enumerate(block.data.split(b"\n"), start=block.line):
            value = json.loads(line).get(name) if line.strip() else None
            if not _is_of(value, kind):
                return f"line {number} holds {value!r:.80}"
        return None


def _with_keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; raise ValueError where one of its keys stands twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f'the key "{name}" stands in it twice')
        found[name] = value
    return found


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return a type without names of its own for the items of lists."""
    return pa.list_(_plain(kind.value_type)) if pa.types.is_list(kind) else kind


def _kind(kind: type) -> str:
    return {float: "a number", str: "text", bool: "a truth", list: "a list"}.get(kind, "an object")


def _is_of(value: Any, kind: pa.DataType) -> bool:
    if value is None:
        return True
    if pa.types.is_boolean(kind):
        return isinstance(value, bool)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (pa.types.is_floating(kind) and isinstance(value, float))
    return isinstance(value, str) if pa.types.is_string(kind) else True
