"""The only place that reads columns out of folders' names, as Hive writes them: `year=2024/`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

import pyarrow as pa

from fastsoftmax.data.columns import PARTITION
from fastsoftmax.errors import DataError
from fastsoftmax.labels import INTEGER_KINDS

NULL = "__HIVE_DEFAULT_PARTITION__"
WHOLE = re.compile(r"-?[0-9]{1,18}")
NUMBER = "number"  # what a column is known as that is a feature, and no category


def keys_of(path: str) -> dict[str, str | None]:
    """Return the keys and values in the folders of a path; a value that stands for null is None."""
    pairs = (folder.partition("=") for folder in path.split("/")[:-1] if "=" in folder)
    found = {unquote(key): unquote(value) for key, _, value in pairs if key}
    return {key: None if value == NULL else value for key, value in found.items()}


class Partitions:
    """The columns in the names of some files' folders: whole numbers if all are, else strings.

    What was learnt in training wins: `known` has the type that a column had there, since one folder
    alone does not tell it.
    """

    def __init__(self, paths: Sequence[str], known: Mapping[str, str]) -> None:
        """Read the names of the folders; known: of a column, NUMBER or its kind of labels."""
        self._keys, self._paths, self._known = [keys_of(path) for path in paths], paths, known
        self._kinds: dict[str, pa.DataType] = {}
        for name in dict.fromkeys(key for keys in self._keys for key in keys):
            values = {keys[name] for keys in self._keys if keys.get(name) is not None}
            whole = _are_distinct_numbers(values)
            if name in known:
                whole = known[name] in (NUMBER, "float64", *INTEGER_KINDS)
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
        """Return a partition column of so many rows of file `number`.

        A value that is no whole number, where the others were in training, stays text: it is none
        of the categories. As a number it raises DataError.
        """
        value, kind = self._keys[number].get(name), self._kinds[name]
        if value is None:
            return pa.nulls(rows, kind)
        if kind == pa.int64() and not WHOLE.fullmatch(value):
            if self._known.get(name) == NUMBER:
                raise DataError(
                    f"{self._paths[number]}: the folder says {name}={value}, which is no whole"
                    " number, as it was in training. Leave the file out, or rename the folder."
                )
            kind = pa.string()
        return pa.repeat(pa.scalar(int(value) if kind == pa.int64() else value, kind), rows)


def _are_distinct_numbers(values: set[str | None]) -> bool:
    """Return whether all are whole numbers, no two of them the same one, as 1 and 01 are."""
    texts = [str(value) for value in values]
    whole = bool(texts) and all(WHOLE.fullmatch(text) for text in texts)
    return whole and len(set(map(int, texts))) == len(texts)
