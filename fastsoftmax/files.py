"""The only place that writes a file so that a crash cannot lose it.

It also says where private files go, which die with the run.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from fastsoftmax.errors import OptionError, SaveError


def require_path(path: object) -> None:
    """Raise OptionError where a path is of no type that names a file."""
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f"a file is named by a string or a path, got {path!r:.100}")


def write_file(path: str | os.PathLike[str], pieces: Iterable[bytes | memoryview]) -> None:
    """Write `pieces` to `path`, as a whole or not at all; raise SaveError if that fails."""
    with replacement(path) as partial, reporting(path), open(partial, "wb") as file:
        for piece in pieces:
            file.write(piece)


@contextlib.contextmanager
def replacement(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the name of an empty file in the folder of `path`, to be written inside the `with`.

    At its end that file is on the disk for good and stands at `path`. If the block raises, it is
    removed, and what stood at `path` before is untouched.
    """
    if "\0" in str(path):
        raise SaveError(f"no file has a name with a null character in it, as {path!r:.100} has.")
    target = Path(
        os.path.realpath(path)
    )  # a symbolic link stays, the file it points at is replaced
    # Readers of folders skip names that begin with a dot.
    partial = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.partial")
    try:
        with reporting(path):
            _create(partial, like=target)
        yield partial
        with reporting(path):
            _flush(partial)
            os.replace(partial, target)
        with reporting(path, "The new file stands there whole, but a power cut might undo that."):
            _flush(target.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def reporting(
    path: str | os.PathLike[str], state: str = "What stood there is untouched."
) -> Iterator[None]:
    """Turn an operating system's error into a SaveError that names `path`, and what is there."""
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise SaveError(f"{os.fspath(path)} could not be written: {reason}. {state}") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise OptionError if `path` cannot become a file, so that it is known before the work."""
    target = _target(path)
    if target.is_dir():
        raise OptionError(f"the output {os.fspath(path)} is a folder; give the name of a file")
    if target.exists() and not target.is_file():
        raise OptionError(f"the output {os.fspath(path)} is not a regular file; give another name")
    if target.exists() and not os.access(target, os.W_OK):
        raise OptionError(f"the output {os.fspath(path)} is write-protected; give another name")
    if not target.parent.is_dir():
        raise OptionError(
            f"the output folder {target.parent} does not exist; make it, or give another"
        )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OptionError(f"the output folder {target.parent} is not writable; give another")


def _target(path: str | os.PathLike[str]) -> Path:
    """Return the file that is meant by `path`; raise OptionError where no file can be called so."""
    try:
        target = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            target.lstat()
    except (OSError, ValueError) as error:  # too long a name, a null byte, a folder that is closed
        reason = getattr(error, "strerror", None) or error
        raise OptionError(
            f"the output {os.fspath(path)} cannot be a file: {reason}; give another name"
        ) from None
    return target


def _create(partial: Path, like: Path) -> None:
    if like.exists() and not like.is_file():
        raise OSError("it exists and is not a regular file")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    if like.exists():
        os.chmod(partial, stat.S_IMODE(like.stat().st_mode))


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot flush a folder, and say so
            raise
    finally:
        os.close(descriptor)


def check_output(path: str | os.PathLike[str], inputs: Iterable[str]) -> None:
    """Raise OptionError if `path` cannot be written, or is one of the inputs or lies in one."""
    check_writable(path)
    for name in (name for given in inputs for name in _named(given)):
        if os.path.isdir(name) and _lies_in(path, name):
            raise OptionError(
                f"the output {os.fspath(path)} lies in the input folder {name}, where it would "
                "be read as data the next time; give another folder"
            )
        if any(_is_same(path, file) for file in _files_of(name, path)):
            raise OptionError(f"the output {os.fspath(path)} is also an input; give another name")


def _named(given: str) -> list[str]:
    """Return the files and folders that an input names: itself, or what its pattern matches."""
    if given.startswith("file://"):
        given = unquote(given.removeprefix("file://"))
    found = [] if os.path.exists(given) else glob.glob(given, recursive=True)
    return found or [given]


def _files_of(name: str, output: str | os.PathLike[str]) -> Iterator[str]:
    """Yield an input, and what is in it where the output may be linked to that."""
    yield name
    if os.path.isdir(name) and os.path.exists(output):
        for folder, _, files in os.walk(name):
            yield from (os.path.join(folder, file) for file in files)


def _is_same(path: str | os.PathLike[str], other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them does not exist
        return os.path.realpath(path) == os.path.realpath(other)


def _lies_in(path: str | os.PathLike[str], folder: str) -> bool:
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(path)).parents


def cache_folder() -> Path:
    """Return where a private file goes: TMPDIR, or what is meant for large temporary files."""
    if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK):
        return Path("/var/tmp")
    return Path(tempfile.gettempdir())
