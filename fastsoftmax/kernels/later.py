"""The only place that puts imports off: of the compiler, until a kernel is compiled.

To import numba takes longer than many a run. Kernels say what they need of it by these names, and
who only calls kernels whose machine code is kept never loads it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


class Later:
    """A module that is imported when the first of its names is asked for."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._module), name)


types, cgutils = Later("numba.types"), Later("numba.core.cgutils")
vector_types = Later("fastsoftmax.kernels.vector_types")

# Functions whose meaning depends on the types of their arguments, and what says how; in the order
# in which they were declared. The compiler is told of them when it is loaded.
CHOSEN_BY_TYPE: list[tuple[Callable[..., Any], Callable[..., Any]]] = []


def chosen_by_type(function: Callable[..., Any]) -> Callable[[Any], Any]:
    """Have kernels that call `function` call what `typed` returns for the arguments' types."""

    def declare(typed: Any) -> Any:
        CHOSEN_BY_TYPE.append((function, typed))
        return typed

    return declare
