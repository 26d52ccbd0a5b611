"""The only place that reads columns out of folders' names, as Hive writes them: `year=2024/`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

import pyarrow as pa

from fastsoftmax.data.columns import PARTITION

NULL = "__HIVE_DEFAULT_PARTITION__"


def keys_of(path: str) -> dict[str, str | None]:
    """Return the keys and values in the folders of a path; a value that stands for null is None."""
    pairs = (folder.partition("=") for folder in path.split("/")[:-1] if "=" in folder)
    found = {unquote(key): unquote(value) for key, _, value in pairs if key}
    return {key: None if value == NULL else value for key, value in found.items()}


class Partitions:
    """The columns in the names of some files' folders: whole numbers if all are, else strings."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Read the names of the folders that the files are in."""
        self._keys = [keys_of(path) for path in paths]
        self._kinds: dict[str, pa.DataType] = {}
        for name in dict.fromkeys(key for keys in self._keys for key in keys):
            values = [keys[name] for keys in self._keys if keys.get(name) is not None]
            whole = values and all(re.fullmatch(r"-?\d{1,18}", str(value)) for value in values)
            self._kinds[name] = pa.int64() if whole else pa.string()

    def __contains__(self, name: str) -> bool:
        return name in self._kinds

    def extended(self, schema: pa.Schema, number: int) -> pa.Schema:
        """Return the schema of file `number` with its partition columns; its own win over these."""
        for name in self._keys[number]:
            if name not in schema.names:
                schema = schema.append(pa.field(name, self._kinds[name], metadata=PARTITION))
        return schema

    def column(self, name: str, number: int, rows: int) -> pa.Array:
        """Return a partition column of so many rows of file `number`."""
        value, kind = self._keys[number].get(name), self._kinds[name]
        if value is None:
            return pa.nulls(rows, kind)
        return pa.repeat(pa.scalar(int(value) if kind == pa.int64() else value, kind), rows)
