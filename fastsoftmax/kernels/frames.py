"""The only place that hands arguments to machine code: what kinds they are of, and a frame of them.

A frame is words of eight bytes: a number as it is, an array as the address of its Python object.
NumPy's C interface fixes where that object has its address, lengths and strides, so that machine
code reads them itself: to ask for an array's address in Python takes longer than all of a call.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

# A kind is a word for a number, "array" with dtype, dimensions and layout for an array, and a tuple
# of its name and its members' kinds for a tuple.
Kind = Any
NONE = "none"
# Numbers by their types, and how each is packed.
NUMBERS: dict[type, str] = {
    int: "int64",
    float: "float64",
    bool: "bool",
    np.bool_: "bool",
    **{np.dtype(name).type: name for name in ("int32", "int64", "uint64", "float32", "float64")},
}
PACKED = {
    "int32": "i4x",
    "int64": "q",
    "uint64": "Q",
    "float32": "f4x",
    "float64": "d",
    "bool": "?7x",
}
ADDRESS = "Q"
# Before NumPy's own fields an object has those of Python; how long they are is told at each call.
HEADER = object.__basicsize__
# Of an array's flags: C and F layout, alignment, and whether it may be written.
C, F, ALIGNED, WRITEABLE = 1, 2, 256, 1024

_arrays: dict[tuple[np.dtype, int, int], str] = {}
_tuples: dict[type, tuple[str, bool]] = {}


class ArrayKind(NamedTuple):
    """What the kind of an array says."""

    dtype: str
    ndim: int
    layout: str
    is_aligned: bool
    is_writeable: bool


def read_array(kind: str) -> ArrayKind:
    """Return what the kind of an array says."""
    _, dtype, ndim, layout, *odd = kind.split()
    return ArrayKind(dtype, int(ndim), layout, "unaligned" not in odd, "readonly" not in odd)


def kinds_of(arguments: tuple[Any, ...], words: list[Any]) -> tuple[Kind, ...]:
    """Return the kinds of arguments, and add their words."""
    kinds = []
    for argument in arguments:
        own = type(argument)
        if own is np.ndarray:
            words.append(id(argument))
            facts = (argument.dtype, argument.ndim, argument.flags.num)
            kinds.append(_arrays.get(facts) or _array_kind(*facts))
        elif own in NUMBERS:
            words.append(argument)
            kinds.append(NUMBERS[own])
        elif argument is None:
            kinds.append(NONE)
        else:
            kinds.append(_other_kind(argument, own, words))
    return tuple(kinds)


def _array_kind(dtype: np.dtype, ndim: int, flags: int) -> str:
    layout = "C" if flags & C else "F" if flags & F else "A"
    odd = ("" if flags & ALIGNED else " unaligned") + ("" if flags & WRITEABLE else " readonly")
    kind = _arrays[dtype, ndim, flags] = f"array {dtype.str} {ndim} {layout}{odd}"
    return kind


def _other_kind(argument: Any, own: type, words: list[Any]) -> Kind:
    if isinstance(argument, tuple):
        return _tuple_kind(argument, own, words)
    if isinstance(argument, np.ndarray):  # of a class derived from it
        words.append(id(argument))
        return _array_kind(argument.dtype, argument.ndim, argument.flags.num)
    raise TypeError(f"a kernel takes arrays, numbers and tuples of them, got {own.__name__}")


def _tuple_kind(argument: Any, own: type, words: list[Any]) -> Kind:
    if own not in _tuples:
        name = f"{own.__module__}:{own.__qualname__}"
        _tuples[own] = name, hasattr(argument, "__dict__")
    name, has_room = _tuples[own]
    if not has_room:
        return (name, *kinds_of(argument, words))
    # Its members are what they were: to ask each again takes longer than the rest of a call.
    if "frame" not in argument.__dict__:
        inner: list[Any] = []
        argument.frame = (name, *kinds_of(argument, inner)), inner
    kind, inner = argument.frame
    words += inner
    return kind


def packing(kinds: tuple[Kind, ...]) -> struct.Struct:
    """Return what packs the words of arguments of these kinds, HEADER before them."""
    return struct.Struct("=" + ADDRESS + "".join(_packed(kind) for kind in kinds))


def _packed(kind: Kind) -> str:
    if isinstance(kind, tuple):
        return "".join(_packed(member) for member in kind[1:])
    if kind == NONE:
        return ""
    return PACKED.get(kind, ADDRESS)


class Results:
    """What a kernel returns: nothing, a number, or a tuple of numbers, of these kinds."""

    def __init__(self, kinds: str | list[str]) -> None:
        self.is_tuple = isinstance(kinds, list)
        self._names: list[str] = [kinds] if isinstance(kinds, str) else kinds
        names = [name for name in self._names if name != NONE]
        self._struct = struct.Struct("=" + "".join(PACKED[name] for name in names))
        self.size = self._struct.size

    def read(self, memory: Any) -> Any:
        """Return what machine code has left in memory."""
        values = self._struct.unpack_from(memory)
        return values if self.is_tuple else values[0]
