"""The only place that says what the state of a run is, and checks one that was stored."""

from __future__ import annotations

from typing import Any

import numpy as np

State = tuple[dict[str, Any], dict[str, np.ndarray]]  # facts that JSON can hold, arrays by name
KINDS: tuple[Any, ...] = (bool, int, float, str, list | tuple, dict)


def array_of(
    arrays: dict[str, np.ndarray], name: str, like: np.ndarray | tuple[int, ...]
) -> np.ndarray:
    """Return an array of a state.

    Raises ValueError where its shape or dtype is not that of `like`, or where its numbers are not
    finite; a shape stands for float64.
    """
    array = arrays[name]
    shape, dtype = (like, np.float64) if isinstance(like, tuple) else (like.shape, like.dtype)
    if array.shape != shape or array.dtype != dtype or not np.isfinite(array).all():
        raise ValueError(f"{name} is not as it should be")
    return array


def check_alike(facts: Any, like: Any) -> None:
    """Raise ValueError where facts of a state, as JSON gave them, have other types than `like`.

    A tuple stands for a list of that length, a list for any number of its first, None for anything.
    """
    if like is None:
        return
    kind = next(kind for kind in KINDS if isinstance(like, kind))
    fits = isinstance(facts, int | float if kind is float else kind)
    if isinstance(facts, int | float):
        fits = fits and abs(facts) < 2**63
    if not fits or (isinstance(facts, bool) and kind is not bool):
        raise ValueError(f"{str(facts)[:40]!r} is not of the type of {str(like)[:40]!r}")
    if isinstance(like, dict):
        for name, value in like.items():
            check_alike(facts[name], value)
    elif isinstance(like, tuple):
        for one, other in zip(facts, like, strict=True):
            check_alike(one, other)
    elif isinstance(like, list) and like:
        for one in facts:
            check_alike(one, like[0])


def copies(views: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return copies of arrays, by the same names."""
    return {name: view.copy() for name, view in views.items()}


def fill(views: dict[str, np.ndarray], stored: dict[str, np.ndarray]) -> None:
    """Copy stored arrays into those of the same names; raise ValueError as `array_of` does."""
    for name, view in views.items():
        view[...] = array_of(stored, name, view)
