"""The only place that says which classes there are, in which order, and what a label may be.

Classes are sorted: numbers by value, strings by their UTF-8 bytes, False before True. Floats with
integral values are int64 classes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from reprlib import repr as brief
from typing import Any, Protocol

import numpy as np

from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.facts import dataclass

INTEGER_KINDS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
KINDS = (*INTEGER_KINDS, "bool", "string")
LONGEST_FIXED = 256  # letters of a class's name that NumPy holds as unicode


class LabelCounts(Protocol):
    """What is known of the labels: mass (K,), the sum of the weights of each class."""

    @property
    def mass(self) -> np.ndarray:
        """The sums."""


@dataclass(frozen=True)
class Classes:
    """K distinct classes in sorted order, and the type their labels have.

    kind: one of KINDS. values: Python ints, bools or strings, sorted, distinct: a tuple, or Words.
    """

    kind: str
    values: Sequence[Any]

    def __len__(self) -> int:
        return len(self.values)

    def in_kind(self, kind: str | None) -> Classes:
        """Return integer classes as of another integer type, where that holds them all."""
        if kind not in INTEGER_KINDS or self.kind not in INTEGER_KINDS:
            return self
        fits = np.iinfo(kind).min <= min(self.values) and max(self.values) <= np.iinfo(kind).max
        return replace(self, kind=kind) if fits else self

    def array(self) -> np.ndarray:
        """Return the classes (K,) as an array of their own dtype: strings as unicode.

        Strings are objects where NumPy would strip null bytes from the end of one, or where one is
        so long that NumPy, which gives all the same room, would waste memory without bound.
        """
        if self.kind != "string":
            return np.array(self.values, dtype=self.kind)
        fits = all(len(s) <= LONGEST_FIXED and not s.endswith("\0") for s in self.values)
        return np.array(self.values, dtype=np.str_ if fits else np.object_)


def sorted_values(kind: str, values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the distinct `values` in the order promised above."""
    return tuple(sorted(set(values), key=(lambda s: s.encode()) if kind == "string" else None))


def sort_classes(kind: str, values: Iterable[Any]) -> Classes:
    """Return the distinct `values` as Classes, in the order promised above.

    Raises DataError when fewer than two are left: one class leaves nothing to learn.
    """
    distinct = sorted_values(kind, values)
    if len(distinct) < 2:
        found = f"the one class {distinct[0]!r}" if distinct else "no class at all"
        raise DataError(f"the labels hold {found}; training needs at least two classes.")
    return Classes(kind, distinct)


def given_classes(values: Sequence[Any]) -> Classes:
    """Return Classes from what a user listed: ints, bools, strings or integral floats."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise DataError(f"classes is a list of labels, got {brief(values)}; put it in a list.")
    listed = [_plain(v) for v in values]
    if all(isinstance(v, bool) for v in listed):
        return sort_classes("bool", listed)
    if all(isinstance(v, str) for v in listed):
        try:
            return sort_classes("string", listed)
        except UnicodeEncodeError as error:
            raise DataError(f"classes must be text in UTF-8, got {error.object!r}.") from None
    if all(isinstance(v, int | float) and _is_whole(v) for v in listed):
        whole = [int(v) for v in listed]
        return sort_classes(integer_kind(whole, "classes"), whole)
    raise DataError(
        f"classes must be all integers, all strings or all booleans, got {brief(listed[:5])}."
    )


def exact_labels(values: Any) -> Any:
    """Return labels as an array that holds integers exactly, or as they are where they are none.

    Nullable integers of pandas and lists of Python's own would become floats on the way through
    NumPy where they are beyond 2^53.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise DataError("some labels are masked, that is null: leave their rows out.")
    if getattr(values, "ndim", 1) == 2 and hasattr(values, "iloc") and values.shape[1] == 1:
        column = exact_labels(values.iloc[:, 0])
        return column[:, None] if isinstance(column, np.ndarray) else values
    stored = getattr(getattr(values, "dtype", None), "numpy_dtype", None)  # of a nullable column
    if isinstance(stored, np.dtype) and stored.kind in "iub" and not _has_nulls(values):
        return values.to_numpy(dtype=stored)
    if getattr(values, "dtype", None) == np.object_ or isinstance(values, list | tuple):
        listed = values.tolist() if hasattr(values, "tolist") else list(values)
        whole = [isinstance(v, int | np.integer) and not isinstance(v, bool) for v in listed]
        if whole and all(whole):
            return np.array(listed, integer_kind([int(v) for v in listed], "the labels"))
    return values


def _has_nulls(values: Any) -> bool:
    return bool(values.isna().any()) if hasattr(values, "isna") else False


def _plain(value: Any) -> Any:
    """Return a NumPy or Arrow scalar as Python's own, and others as they are."""
    if isinstance(value, np.generic):
        return value.item()
    return value.as_py() if hasattr(value, "as_py") else value


def _is_whole(value: float) -> bool:
    if isinstance(value, bool):  # True is 1 to Python, but no user means both by one list
        return False
    return isinstance(value, int) or (math.isfinite(value) and value == int(value))


def integer_kind(values: Sequence[int], subject: str) -> str:
    """Return the type of integers that holds all `values`, int64 if it does, or raise DataError."""
    low, high = min(values, default=0), max(values, default=0)
    for kind in ("int64", "uint64"):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    odd = low if low < -(2**63) else high
    raise DataError(
        f"{subject}: {brief(odd)} is beyond what 64 bits hold beside the others"
        f" ({brief(low)} to {brief(high)}). Number the classes otherwise, or use strings."
    )


def class_factors(
    chosen: dict[Any, float] | str | None, classes: Classes, scan: LabelCounts | None
) -> np.ndarray | None:
    """Return the factors (K,) of the classes' weights, or None for none.

    chosen: a factor for each of some labels, 1 for the others; or "balanced": all classes then
    weigh the same in sum, the mean of the factors over the rows being 1.
    """
    if chosen is None:
        return None
    if isinstance(chosen, str):
        if scan is None:
            raise OptionError(
                "class_weight=balanced counts the classes before training, which a one-pass reader"
                " does not allow: give a number for each class"
            )
        with np.errstate(divide="ignore"):
            factors = scan.mass.sum() / (len(classes) * scan.mass)
        return np.where(scan.mass > 0, factors, 1.0)
    known = {str(value): k for k, value in enumerate(classes.values)}
    known |= {value: k for k, value in enumerate(classes.values)}
    factors = np.ones(len(classes))
    for label, factor in chosen.items():
        if label not in known:
            near = difflib.get_close_matches(str(label), [str(v) for v in classes.values], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise OptionError(f"class_weight names {label!r}, which is no class{hint}")
        factors[known[label]] = factor
    if scan is not None and not ((factors > 0) & (scan.mass > 0)).any():
        raise OptionError("class_weight leaves no class that has rows with a weight above 0")
    return factors
