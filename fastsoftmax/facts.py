"""The only place that makes classes of named facts: dataclasses that take a third of the time.

`dataclasses` writes and compiles the source of up to six methods of each class, a millisecond for
each when a command starts, of which there are a hundred. Here it writes `__init__` alone; the other
methods are the same functions for all classes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, eq=True, kw_only=False):
        """Make a class a dataclass, as that of the standard library does."""

        def made(cls):
            dataclasses.dataclass(cls, eq=False, repr=False, match_args=False, kw_only=kw_only)
            own, methods = vars(cls), {"__repr__": _shown}
            if eq:
                methods |= {"__eq__": _is_same, "__hash__": _hashed if frozen else None}
            if frozen:
                methods |= {"__setattr__": _set_once, "__delattr__": _refuse_to_delete}
            for name, method in methods.items():
                if own.get(name) is None:
                    setattr(cls, name, method)
            return cls

        return made if cls is None else made(cls)


def _shown(self: Any) -> str:
    names = [field.name for field in dataclasses.fields(self) if field.repr]
    told = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
    return f"{type(self).__qualname__}({told})"


def _compared(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, each.name) for each in dataclasses.fields(self) if each.compare)


def _is_same(self: Any, other: object) -> Any:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hashed(self: Any) -> int:
    return hash(_compared(self))


def _set_once(self: Any, name: str, value: Any) -> None:
    """Let `__init__` set each field, and nobody after it."""
    if name in self.__dict__ or name not in self.__dataclass_fields__:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    self.__dict__[name] = value


def _refuse_to_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
