"""The only place that looks columns up by their names, and says which name may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import pyarrow as pa

from fastsoftmax.errors import DataError


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the name that looks most like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else "."


def require(schema: pa.Schema, name: str, origin: str) -> pa.DataType:
    """Return the type of the one column called `name`, or raise DataError."""
    count = schema.names.count(name)
    if count == 0:
        raise DataError(f'{origin}: there is no column "{name}"{nearest(name, schema.names)}')
    if count > 1:
        raise DataError(f'{origin}: {count} columns are called "{name}"; rename all but one.')
    return schema.field(schema.names.index(name)).type


def refuse_missing(schema: pa.Schema, names: Sequence[str], origin: str) -> None:
    """Raise DataError that lists the `names` which are no columns."""
    missing = [name for name in names if name not in schema.names]
    if len(missing) == 1:
        require(schema, missing[0], origin)
    if missing:
        shown = ", ".join(f'"{name}"' for name in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        hint = nearest(missing[0], schema.names)
        raise DataError(f"{origin}: there are no columns {shown}{more}{hint}")
