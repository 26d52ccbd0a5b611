"""The one decorator: a kernel is a function that is machine code as soon as it is called.

What is called from Python is kept, one object file for each kind of call, and loaded by the
processes that come after: they never import the compiler.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, update_wrapper
from threading import RLock, local
from typing import Any, NamedTuple

from fastsoftmax.kernels import code
from fastsoftmax.kernels.frames import Kind, kinds_of
from fastsoftmax.kernels.loading import Loaded

# "nnan" and "ninf" stay out: with them LLVM may delete the finite checks that catch divergence.
FAST = frozenset({"reassoc", "contract", "arcp", "nsz"})
# Reassociation would merge exp's two-constant range reduction and lose bits.
EXACT = frozenset({"contract"})

IN_PYTHON = bool(int(os.environ.get("NUMBA_DISABLE_JIT") or 0))  # numba's own switch

compiled: list[str] = []  # the kernels that this process has compiled
# Each is called before a kernel is compiled here: others may be about to do so.
helpers: list[Callable[[Call], None]] = []
# What a kernel that is foreseen is taken to return, of no rows: their loss, hits, and no oddity.
FORESEEN = (0.0, 0.0, True)
logger = logging.getLogger("fastsoftmax.compiling")
_lock = RLock()
_foresight = local()  # calls: those foreseen by this thread, while it does so


class Call(NamedTuple):
    """A kernel, and for which kinds of arguments it is called."""

    kernel: Kernel
    kinds: tuple[Kind, ...]


class Kernel:
    """A function for the compiler: machine code where it is called, a part of it in other kernels.

    py_func: the function in Python. flags: of floating-point arithmetic. is_kept: whether its
    machine code is, between processes.
    """

    def __init__(self, function: Callable[..., Any], flags: frozenset[str], is_kept: bool) -> None:
        self.py_func, self.flags, self.is_kept = function, flags, is_kept
        self._loaded: dict[tuple[Kind, ...], Loaded] = {}
        update_wrapper(self, function)

    @property
    def _numba_type_(self) -> Any:
        """What the compiler takes this for where another kernel calls it."""
        return self._callee._numba_type_

    @cached_property
    def _callee(self) -> Any:
        from fastsoftmax.kernels.target import as_callee

        return as_callee(self.py_func, self.flags)

    @property
    def name(self) -> str:
        """What its machine code is kept as."""
        return f"{self.py_func.__module__.rpartition('.')[2]}.{self.py_func.__qualname__}"

    @property
    def signatures(self) -> list[tuple[Kind, ...]]:
        """For which kinds of arguments it is machine code in this process."""
        return list(self._loaded)

    def inspect_asm(self) -> dict[tuple[Kind, ...], str]:
        """Compile anew what has been called, and return its assembly."""
        from fastsoftmax.kernels.target import assembly

        return {kinds: assembly(self.py_func, self.flags, kinds) for kinds in self._loaded}

    def __call__(self, *arguments: Any) -> Any:
        """Call it from Python; without the interpreter's lock while it runs."""
        words: list[Any] = []
        kinds = kinds_of(arguments, words)
        loaded = self._loaded.get(kinds)
        return (loaded or self._load(kinds))(words)

    def _load(self, kinds: tuple[Kind, ...]) -> Callable[[list[Any]], Any]:
        """Return the machine code for arguments of these kinds: that which is kept, or new."""
        calls = getattr(_foresight, "calls", None)
        if calls is not None:
            calls.append(Call(self, kinds))
            return lambda words: FORESEEN
        return self.ready(kinds)

    def ready(self, kinds: tuple[Kind, ...]) -> Loaded:
        """Have machine code for arguments of these kinds; return it."""
        if not (self.is_kept and code.has(self.name, kinds)):
            for help_with in tuple(helpers):
                help_with(Call(self, kinds))
        with _lock:
            if kinds not in self._loaded:
                self._loaded[kinds] = self._kept(kinds) or self._new(kinds)
            return self._loaded[kinds]

    def _kept(self, kinds: tuple[Kind, ...]) -> Loaded | None:
        found = code.find(self.name, kinds) if self.is_kept else None
        try:
            return None if found is None else Loaded(found.object_file, kinds, found.returns)
        except Exception as damage:  # whole, but not for this loader
            code.warn_of_damage(damage)
            return None

    def _new(self, kinds: tuple[Kind, ...]) -> Loaded:
        announce([call := Call(self, kinds)])
        new = self.compile(kinds)
        count(call)
        return Loaded(new.object_file, kinds, new.returns)

    def compile(self, kinds: tuple[Kind, ...]) -> code.Code:
        """Return new machine code for arguments of these kinds, and keep it."""
        from fastsoftmax.kernels.target import object_code

        compiled.append(self.name)
        new = code.Code(*object_code(self.py_func, self.flags, kinds))
        if self.is_kept:
            code.keep(self.name, kinds, new)
        return new


@contextmanager
def foreseeing() -> Iterator[list[Call]]:
    """Give a list to which the kernels are added that this thread calls and that are no machine
    code yet in this process; they do nothing.
    """
    before, _foresight.calls = getattr(_foresight, "calls", None), []
    try:
        yield _foresight.calls
    finally:
        _foresight.calls = before


def are_missing(calls: Iterable[Call]) -> list[Call]:
    """Return those of some calls, each once, that must be compiled first."""
    return [
        call for call in dict.fromkeys(calls)
        if call.kernel.is_kept and not code.has(call.kernel.name, call.kinds)
    ]  # fmt: skip


_announced: set[Call] = set()
_counted: set[Call] = set()


def announce(calls: Iterable[Call]) -> None:
    """Tell the logger that kernels will be compiled, where it does not know."""
    with _lock:
        if not _announced.issuperset(calls := set(calls)):
            _announced.update(calls)
            _tell()


def count(call: Call) -> None:
    """Tell the logger that a kernel is compiled."""
    with _lock:
        if call not in _counted:
            _counted.add(call)
            _tell()


def _tell() -> None:
    done, all_of_them = len(_counted), len(_announced)
    level = logging.INFO if done in (0, all_of_them) else logging.DEBUG
    logger.log(level, "compiling, once: %d of %d", done, all_of_them)


def in_python(compiled: Any) -> Any:
    """Return the Python function of a kernel, for which one call is not worth compiling."""
    return getattr(compiled, "py_func", compiled)


def kernel(flags: frozenset[str] = FAST, *, entry: bool = False) -> Callable[[Any], Any]:
    """Compile a function to machine code that holds no lock and divides as NumPy does.

    entry: it is called from Python, so its machine code is kept between processes.
    """

    def compile_later(function: Any) -> Any:
        return function if IN_PYTHON else Kernel(function, flags, is_kept=entry)

    return compile_later


class Word:
    """A function that is a few instructions: `typed` returns its signature and what builds them."""

    def __init__(self, typed: Callable[..., Any]) -> None:
        self._typed = typed
        self.__doc__ = typed.__doc__

    @cached_property
    def _numba_type_(self) -> Any:
        """What the compiler takes this for."""
        from fastsoftmax.kernels.target import as_intrinsic

        return as_intrinsic(self._typed)


def word(twin: Callable[..., Any]) -> Callable[[Any], Any]:
    """Make a word of what kernels are written in, or its plain twin where they run in Python."""
    return lambda typed: twin if IN_PYTHON else Word(typed)
