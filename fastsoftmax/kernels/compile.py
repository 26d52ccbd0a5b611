"""The one decorator: how kernels are compiled, and where the machine code is kept.

Numba keeps machine code under a key that leaves out helpers in other files, flags and globals. So
the code is kept in a folder named by a digest of every kernel source: any change starts afresh.
The files are pickles: whoever can write the folder can run code as the user, so it must be the
user's own, closed to others, and stand where nobody else can put another in its place.
FASTSOFTMAX_CACHE names another folder; `off` keeps nothing.
"""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from numba import config

from fastsoftmax.kernels.target import LevelDispatcher, compile_for_level

# "nnan" and "ninf" stay out: with them LLVM may delete the finite checks that catch divergence.
FAST = frozenset({"reassoc", "contract", "arcp", "nsz"})
# Reassociation would merge exp's two-constant range reduction and lose bits.
EXACT = frozenset({"contract"})


def source_digest() -> str:
    """Return a digest of all kernel sources."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _is_private(folder: Path) -> bool:
    """Return whether only this user can write in `folder`."""
    if not hasattr(os, "getuid"):
        return True
    facts = folder.stat()
    return facts.st_uid == os.getuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_safe_place(parent: Path) -> bool:
    """Return whether nobody else can rename what this user has in `parent`."""
    facts = parent.stat()
    if not hasattr(os, "getuid"):
        return True
    is_open = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not facts.st_mode & stat.S_ISVTX
    return facts.st_uid in (0, os.getuid()) and not is_open


def code_folder() -> Path | None:
    """Return the private folder for these sources' machine code, or None if there can be none."""
    chosen = os.environ.get("FASTSOFTMAX_CACHE")
    if chosen == "off" or config.DISABLE_JIT:
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastsoftmax"
        folder = Path(chosen or base) / source_digest()
        for place in (folder.parent, folder):  # of parents that are missing, mkdir opens the mode
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        safe = _is_safe_place(folder.parent) and _is_private(folder)
        return folder if safe and os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):  # nowhere to write, or no home folder
        return None


class _SafeCache:
    """A function's cache whose damage costs a compilation, not the run."""

    warned = False  # of any function: one warning tells it all

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, target: Any) -> Any:
        try:
            return self._cache.load_overload(signature, target)
        except Exception as damage:
            if not _SafeCache.warned:
                _SafeCache.warned = True
                what = type(damage).__name__
                warnings.warn(
                    f"kept machine code was damaged ({what}) and is compiled again",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._drop()
            return None

    def _drop(self) -> None:
        try:
            self._cache.flush()
        except OSError:
            return

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            self._cache.save_overload(signature, data)
        except OSError:
            return  # a full disk or a folder gone: the code in memory serves this run


def _keep(dispatcher: Any, folder: Path) -> None:
    """Let `dispatcher` keep its machine code in `folder`."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        dispatcher.enable_caching()
        dispatcher._cache = _SafeCache(dispatcher._cache)
    except (OSError, RuntimeError):
        return
    finally:
        config.CACHE_DIR = before


_FOLDER = code_folder()


class _Inner(LevelDispatcher):
    """A kernel that kernels call: the code for a call from Python is made when one comes.

    That code takes every array apart. Made with each of sixty kernels, it was a third of the time
    that a first run compiles.
    """

    outer: Any = None

    def __call__(self, *arguments: Any) -> Any:
        if self.outer is None:
            self.outer = compile_for_level(**_options(self.targetoptions["fastmath"]))(self.py_func)
        return self.outer(*arguments)


def _options(flags: Collection[str]) -> dict[str, Any]:
    # NumPy's error model: a check for 0 at each division is a branch, and keeps loops scalar.
    return {"nogil": True, "error_model": "numpy", "fastmath": set(flags)}


def in_python(compiled: Any) -> Any:
    """Return the Python function of a kernel, for which one call is not worth compiling."""
    return getattr(compiled, "py_func", compiled)


def kernel(flags: frozenset[str] = FAST, *, entry: bool = False) -> Callable[[Any], Any]:
    """Compile a function to machine code that holds no lock and divides as NumPy does.

    entry: it is called from Python, so its machine code is kept between processes.
    """

    def compile_later(function: Any) -> Any:
        if config.DISABLE_JIT:
            return function
        if entry:
            compiled = compile_for_level(**_options(flags))(function)
            if _FOLDER is not None:
                _keep(compiled, _FOLDER)
            return compiled
        bare = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        compiled = compile_for_level(**_options(flags), **bare)(function)
        compiled.__class__ = _Inner
        return compiled

    return compile_later
