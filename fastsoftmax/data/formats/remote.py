"""The only place that reaches files by URI, through Arrow's file systems."""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import pyarrow as pa

from fastsoftmax.errors import DataError


class Remote(str):
    """A file by URI. As text it is what messages show: without options, user or password."""

    system: Any  # a pyarrow.fs.FileSystem
    inner: str  # the path in it

    @classmethod
    def of(cls, scheme: str, system: Any, inner: str) -> Remote:
        """Return the file at the path `inner` of a file system."""
        remote = cls(f"{scheme}://{inner}")
        remote.system, remote.inner = system, inner
        return remote

    def open(self) -> pa.NativeFile:
        """Open the file, or raise OSError."""
        return self.system.open_input_file(self.inner)

    def stat(self) -> tuple[int, int]:
        """Return size and time of the last change (ns), or raise OSError."""
        info = self.system.get_file_info(self.inner)
        if not info.is_file:
            raise OSError(2, "No such file")
        return info.size, info.mtime_ns or 0


def is_uri(path: str) -> bool:
    """Return whether a path is a URI: a scheme and ://."""
    return re.match(r"[a-z][a-z0-9+.-]+://", path) is not None


def expand(uri: str) -> list[str] | str:
    """Return the files that a URI, one of a folder or one with a pattern names, sorted.

    For file:// return the path on this machine. Raises DataError where there are none.
    """
    from pyarrow import fs

    scheme = uri.split("://", 1)[0]
    shown = f"{scheme}://{uri.split('://', 1)[1].split('?')[0].rpartition('@')[2]}"
    try:
        # A pattern must not be read as the beginning of the options.
        system, path = fs.FileSystem.from_uri(uri.replace("*", "%2A").replace("[", "%5B"))
        if isinstance(system, fs.LocalFileSystem):
            return str(path)
        return _listed(system, path, scheme, shown)
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise DataError(f"{shown}: it cannot be reached ({reason}).") from error


def _listed(system: Any, path: str, scheme: str, shown: str) -> list[str]:
    from pyarrow import fs

    if "*" in path or "[" in path:
        folder = re.split(r"[*\[]", path, maxsplit=1)[0].rpartition("/")[0]
        found = _files_in(system, folder)
        found = [name for name in found if fnmatch.fnmatchcase(name, path)]
    elif system.get_file_info(path).type == fs.FileType.File:
        found = [path]
    else:
        found = [name for name in _files_in(system, path) if not _is_hidden(name[len(path) :])]
    if not found:
        raise DataError(f"{shown}: there is no such file.")
    return [Remote.of(scheme, system, name) for name in sorted(found)]


def _files_in(system: Any, folder: str) -> list[str]:
    from pyarrow import fs

    selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
    return [info.path for info in system.get_file_info(selector) if info.is_file]


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))
