"""The only place that turns the state of a run into facts and arrays, and back.

A state is a dataclass: all its fields are kept, so that none can be forgotten. Its types say what
a stored one must be like, for a file may be damaged.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

from fastsoftmax.facts import dataclass

State = tuple[dict[str, Any], dict[str, np.ndarray]]  # facts that JSON can hold, arrays by name
T = TypeVar("T")
ARRAY = "array"  # stands among the facts where an array belongs
LARGEST = 2**63  # that a stored number may be


def array(*shape: str, dtype: str = "float64") -> Any:
    """Declare a field that is an array; sizes and dtype are looked up by name when it is loaded."""
    return field(metadata={"shape": shape, "dtype": dtype})


def dump(state: Any) -> State:
    """Return a dataclass as facts and copies of its arrays, by dotted names."""
    arrays: dict[str, np.ndarray] = {}
    return _dumped(state, "", arrays), arrays


def load(kind: type[T], state: State, sizes: Mapping[str, Any]) -> T:
    """Return the dataclass of this kind that was dumped.

    sizes: what the names in the shapes of arrays stand for, and those of dtypes. Raises ValueError
    where anything is missing, is of another type, or is not finite.
    """
    facts, arrays = state
    return _loaded(kind, facts, _Place("", arrays, sizes))


def copies(views: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return copies of arrays, by the same names."""
    return {name: view.copy() for name, view in views.items()}


def fill(views: Mapping[str, np.ndarray], stored: Mapping[str, np.ndarray]) -> None:
    """Copy stored arrays into those of the same names, whose shapes and dtypes they must have."""
    _require(set(views) == set(stored), "its arrays are others")
    for name, view in views.items():
        view[...] = _checked(stored, name, view.shape, view.dtype)


def _dumped(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[name] = value.copy()
        return ARRAY
    if is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, dict):
        return {key: _dumped(each, _joined(name, key), arrays) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_dumped(each, _joined(name, str(i)), arrays) for i, each in enumerate(value)]
    return value


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


@dataclass(frozen=True)
class _Place:
    """Where a value stands in what was stored, and what is known of it."""

    name: str
    arrays: Mapping[str, np.ndarray]
    sizes: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def inside(self, key: str, metadata: Mapping[str, Any] | None = None) -> _Place:
        """Return the place of a part of the value."""
        known = self.metadata if metadata is None else metadata
        return replace(self, name=_joined(self.name, key), metadata=known)


def _loaded(kind: Any, told: Any, at: _Place) -> Any:
    """Return what was told as a value of this kind."""
    origin = get_origin(kind)
    if kind is Any:
        return told
    if origin in (Union, types.UnionType):
        if told is None:
            _require(type(None) in get_args(kind), f"{at.name} is missing")
            return None
        (inner,) = [each for each in get_args(kind) if each is not type(None)]
        return _loaded(inner, told, at)
    if kind is np.ndarray:
        return _loaded_array(told, at)
    if is_dataclass(kind) or is_typeddict(kind):
        return _loaded_fields(kind, told, at)
    if origin is dict:
        _require(isinstance(told, dict), f"{at.name} is no table")
        inner = get_args(kind)[1]
        return {key: _loaded(inner, each, at.inside(key)) for key, each in told.items()}
    if origin in (list, tuple):
        return _loaded_items(kind, told, at)
    return _loaded_plain(kind, told, at)


def _loaded_array(told: Any, at: _Place) -> np.ndarray:
    _require(told == ARRAY, f"{at.name} is no array")
    if not at.metadata:
        return _checked(at.arrays, at.name)
    shape = tuple(at.sizes[size] for size in at.metadata["shape"])
    dtype = at.metadata["dtype"]
    return _checked(at.arrays, at.name, shape, np.dtype(at.sizes.get(dtype, dtype)))


def _checked(
    arrays: Mapping[str, np.ndarray],
    name: str,
    shape: tuple[int, ...] | None = None,
    dtype: np.dtype | None = None,
) -> np.ndarray:
    _require(name in arrays, f"{name} is missing")
    found = arrays[name]
    fits = (shape is None or found.shape == shape) and (dtype is None or found.dtype == dtype)
    _require(fits and bool(np.isfinite(found).all()), f"{name} is not as it should be")
    return found


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _loaded_fields(kind: Any, told: Any, at: _Place) -> Any:
    """Return a dataclass, or a dictionary whose keys have types."""
    _require(isinstance(told, dict), f"{at.name} is no table")
    hints = _hints(kind)
    if is_typeddict(kind):
        known = kind.__required_keys__ <= set(told) <= set(hints)
        metadata: dict[str, Mapping[str, Any]] = {name: {} for name in told}
    else:
        metadata = {f.name: f.metadata for f in fields(kind)}
        known = set(told) == set(metadata)
    _require(known, f"{at.name or 'it'} has other fields than it should")
    found = {
        name: _loaded(hints[name], told[name], at.inside(name, metadata[name])) for name in told
    }
    return found if is_typeddict(kind) else kind(**found)


def _loaded_items(kind: Any, told: Any, at: _Place) -> Any:
    _require(isinstance(told, list), f"{at.name} is no list")
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple and inner[-1] is not Ellipsis:
        _require(len(told) == len(inner), f"{at.name} has another length than it should")
    else:
        inner = (inner[0],) * len(told)
    found = [
        _loaded(each, value, at.inside(str(i)))
        for i, (each, value) in enumerate(zip(inner, told, strict=True))
    ]
    return origin(found)


def _loaded_plain(kind: type, told: Any, at: _Place) -> Any:
    fits = isinstance(told, int | float if kind is float else kind)
    if isinstance(told, bool):
        fits = kind is bool
    elif isinstance(told, int | float):
        fits = fits and abs(told) < LARGEST
    _require(fits, f"{at.name} is {str(told)[:40]!r}, which is no {kind.__name__}")
    return told


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
