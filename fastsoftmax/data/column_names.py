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


def _places(schema: pa.Schema, name: str) -> list[int]:
    """Return the columns of a name; Arrow looks them up, where `schema.names` is a list of all."""
    try:
        return list(schema.get_all_field_indices(name))
    except UnicodeEncodeError:  # as the names of files may be, and no column's
        return []


def named_once(schema: pa.Schema, names: Iterable[str]) -> list[str]:
    """Return those of the names that one column has: others cannot be asked for."""
    return [name for name in names if len(_places(schema, name)) == 1]


def places_of(schema: pa.Schema, names: Iterable[str]) -> list[int]:
    """Return the number of each column, the first of its name."""
    return [_places(schema, name)[0] for name in names]


def require(schema: pa.Schema, name: str, origin: str) -> pa.DataType:
    """Return the type of the one column called `name`, or raise DataError."""
    places = _places(schema, name)
    if not places:
        raise DataError(f'{origin}: there is no column "{name}"{nearest(name, schema.names)}')
    if len(places) > 1:
        raise DataError(f'{origin}: {len(places)} columns are called "{name}"; rename all but one.')
    return schema.field(places[0]).type


def refuse_missing(schema: pa.Schema, names: Sequence[str], origin: str) -> None:
    """Raise DataError that lists the `names` which are no columns."""
    there = set(schema.names)
    missing = [name for name in names if name not in there]
    if len(missing) == 1:
        require(schema, missing[0], origin)
    if missing:
        shown = ", ".join(f'"{name}"' for name in missing[:10])
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        hint = nearest(missing[0], schema.names)
        raise DataError(f"{origin}: there are no columns {shown}{more}{hint}")
