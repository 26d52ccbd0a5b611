"""The only place that says which classes there are, in which order, and what a label may be.

Classes are sorted: numbers by value, strings by their UTF-8 bytes, False before True. Floats with
integral values are int64 classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsoftmax.errors import DataError

INTEGER_KINDS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
KINDS = (*INTEGER_KINDS, "bool", "string")


@dataclass(frozen=True)
class Classes:
    """K distinct classes in sorted order, and the type their labels have.

    kind: one of KINDS. values: Python ints, bools or strings, sorted, distinct.
    """

    kind: str
    values: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.values)

    def array(self) -> np.ndarray:
        """Return the classes (K,) as an array of their own dtype (strings as unicode)."""
        if self.kind == "string":
            return np.array(self.values, dtype=np.str_)
        return np.array(self.values, dtype=self.kind)


def sort_classes(kind: str, values: Iterable[Any]) -> Classes:
    """Return the distinct `values` as Classes, in the order promised above.

    Raises DataError when fewer than two are left: one class leaves nothing to learn.
    """
    distinct = sorted(set(values), key=(lambda s: s.encode()) if kind == "string" else None)
    if len(distinct) < 2:
        found = f"the one class {distinct[0]!r}" if distinct else "no class at all"
        raise DataError(f"the labels hold {found}; training needs at least two classes.")
    return Classes(kind, tuple(distinct))


def given_classes(values: Sequence[Any]) -> Classes:
    """Return Classes from what a user listed: ints, bools, strings or integral floats."""
    listed = [v.item() if isinstance(v, np.generic) else v for v in values]
    if all(isinstance(v, bool) for v in listed):
        return sort_classes("bool", listed)
    if all(isinstance(v, str) for v in listed):
        return sort_classes("string", listed)
    if all(isinstance(v, int | float) and v == int(v) for v in listed):
        return sort_classes("int64", [int(v) for v in listed])
    raise DataError(
        f"classes must be all integers, all strings or all booleans, got {list(values)[:5]!r}."
    )
