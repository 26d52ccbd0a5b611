"""The only place that keeps machine code: object files, each of one kernel for one kind of call.

They stand in a folder named by a digest of every kernel source: any change starts afresh. Whoever
can write the folder can run code as the user, so it must be the user's own, closed to others, and
stand where nobody else can put another in its place. FASTSOFTMAX_CACHE names another folder; `off`
keeps nothing. A platform wheel brings such a folder along, as trusted as the sources beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from fastsoftmax.kernels.frames import Kind
from fastsoftmax.kernels.level import LEVEL
from fastsoftmax.version import installed

FORMAT = 1  # of the files


class Code(NamedTuple):
    """An object file, and the kinds of what its kernel returns."""

    object_file: bytes
    returns: str | list[str]


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
    if chosen == "off":
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastsoftmax"
        folder = Path(chosen or base) / SOURCES
        for place in (folder.parent, folder):  # of parents that are missing, mkdir opens the mode
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        safe = _is_safe_place(folder.parent) and _is_private(folder)
        return folder if safe and os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):  # nowhere to write, or no home folder
        return None


SOURCES = source_digest()
FOLDER = code_folder()
BUILT = Path(__file__).parent / "built" / SOURCES  # what a platform wheel brings along


def _key(kernel: str, kinds: tuple[Kind, ...]) -> str:
    """Return all that machine code depends on, beside the sources, as text."""
    facts = {
        "format": FORMAT,
        "kernel": kernel,
        "kinds": kinds,
        "processor": LEVEL.processor,
        "settings": LEVEL.settings,
        "numba": installed("numba"),
        "llvmlite": installed("llvmlite"),
    }
    return json.dumps(facts, sort_keys=True)


def _path(folder: Path, kernel: str, key: str) -> Path:
    return folder / f"{kernel}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.code"


def _read(path: Path, key: str) -> Code:
    """Return what a file holds; raise ValueError where that is not what was written."""
    first, object_file = path.read_bytes().split(b"\n", 1)
    facts = json.loads(first)
    if facts["key"] != key or hashlib.sha256(object_file).hexdigest() != facts["digest"]:
        raise ValueError("not the machine code that was kept")
    return Code(object_file, facts["returns"])


def _places(kernel: str, kinds: tuple[Kind, ...]) -> Iterator[Path]:
    """Yield the files in which machine code of a kernel may be."""
    for folder in (FOLDER, BUILT):
        if folder is not None:
            yield _path(folder, kernel, _key(kernel, kinds))


def has(kernel: str, kinds: tuple[Kind, ...]) -> bool:
    """Return whether machine code of a kernel is kept, whole or damaged."""
    return any(path.exists() for path in _places(kernel, kinds))


def find(kernel: str, kinds: tuple[Kind, ...]) -> Code | None:
    """Return the machine code kept of a kernel, or None; damaged code is none, with a warning."""
    for path in _places(kernel, kinds):
        try:
            return _read(path, _key(kernel, kinds))
        except FileNotFoundError:
            continue
        except Exception as damage:
            warn_of_damage(damage)
    return None


_warned = False  # of any kernel: one warning tells it all


def warn_of_damage(damage: Exception) -> None:
    """Warn, once, that kept machine code cannot be used."""
    global _warned
    if not _warned:
        _warned = True
        what = type(damage).__name__
        warnings.warn(
            f"kept machine code was damaged ({what}) and is compiled again",
            RuntimeWarning,
            stacklevel=2,
        )


def keep(kernel: str, kinds: tuple[Kind, ...], code: Code) -> None:
    """Keep machine code for the processes to come, where there is a place for it."""
    if FOLDER is None:
        return
    key = _key(kernel, kinds)
    digest = hashlib.sha256(code.object_file).hexdigest()
    facts = {"key": key, "returns": code.returns, "digest": digest}
    try:
        with tempfile.NamedTemporaryFile(dir=FOLDER, delete=False) as file:
            file.write(json.dumps(facts).encode() + b"\n" + code.object_file)
        os.replace(file.name, _path(FOLDER, kernel, key))
    except OSError:
        return  # a full disk or a folder gone: the code in memory serves this run


def claim() -> int | None:
    """Return a file descriptor that no other process is given until it is closed, or None.

    Where many processes begin at once, one of them is enough to start more that compile.
    """
    if FOLDER is None or fcntl is None:
        return None
    try:
        claimed = os.open(FOLDER / "claim", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another has it, or the disk knows no locks
        os.close(claimed)
        return None
    return claimed
