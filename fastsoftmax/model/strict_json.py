"""The only place that reads JSON nobody vouches for: strictly, and within bounds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

# A bracket costs a reader a hundred bytes and a microsecond; a million columns need two million.
MOST_BRACKETS = 5_000_000
DEEPEST = 32  # objects and lists within each other; we write fewer than ten
MOST_DIGITS = 300  # of a number: more could not become a float


class MalformedError(Exception):
    """How what was read differs from what was expected."""


def parse_json(text: str | bytes) -> Any:
    """Return what JSON text says, UTF-8 if it is bytes, where it can be said again.

    Raises ValueError for NaN and infinities, numbers of hundreds of digits, twice the same key,
    and nesting that would exhaust the stack of whoever walks through it.
    """
    if isinstance(text, bytes):
        text = text.decode()
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        raise ValueError("it has too many lists and objects")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_distinct,
            parse_constant=_refuse_constant,
            parse_float=_number,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value)
    return value


def require(holds: bool, otherwise: str) -> None:
    """Raise MalformedError, with that sentence, where something does not hold."""
    if not holds:
        raise MalformedError(otherwise)


def object_of(told: object, keys: set[str], otherwise: str) -> dict[str, Any]:
    """Return what was told, where it is an object of these keys; else raise MalformedError."""
    if not isinstance(told, dict) or set(told) != keys:
        raise MalformedError(otherwise)
    return told


def list_of(told: object, fits: Callable[[Any], bool], otherwise: str) -> list[Any]:
    """Return what was told, where it is a list of what fits; else raise MalformedError."""
    if not isinstance(told, list) or not all(map(fits, told)):
        raise MalformedError(otherwise)
    return told


def is_text(value: object) -> bool:
    """Return whether a value is text that UTF-8 can hold."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def is_finite(value: object) -> bool:
    """Return whether a value is a number that is finite."""
    return is_number(value) and math.isfinite(value)  # type: ignore[arg-type]


def is_number(value: object) -> bool:
    """Return whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands there twice")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float:
    if len(text) > MOST_DIGITS:
        raise ValueError("a number has too many digits")
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError("a number has too many digits")
    return int(text)


def _check_depth(value: Any) -> None:
    held = [value]
    for _ in range(DEEPEST):
        held = [inner for outer in held for inner in _items(outer) if _items(inner)]
        if not held:
            return
    raise ValueError("it is nested too deeply")


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
