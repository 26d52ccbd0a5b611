"""The only place that turns paths, globs and folders into a list of files."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsoftmax.data.formats.hugging_face import is_saved, saved_files
from fastsoftmax.data.formats.remote import Remote, expand, is_uri
from fastsoftmax.data.formats.spool import STDIN, spooled
from fastsoftmax.errors import DataError


def is_path(data: Any) -> bool:
    """Return whether `data` names files: a path, or a list of paths."""
    if isinstance(data, list | tuple):
        return all(isinstance(item, str | os.PathLike) for item in data)
    return isinstance(data, str | os.PathLike)


def find_files(paths: Any) -> list[str]:
    """Return the files that a path, a glob, a folder or a list of these names, or raise DataError.

    A list keeps its order; what a glob or a folder holds is sorted.
    """
    listed: Sequence[Any] = paths if isinstance(paths, list | tuple) else [paths]
    files = [file for path in listed for file in _expand(_plain(path))]
    if not files:
        raise DataError("no files were given; name at least one.")
    return files


def _plain(path: Any) -> str:
    return path if isinstance(path, str) else os.fspath(path)


def _expand(path: str) -> list[str]:
    if isinstance(path, Remote):
        return [path]
    if path == STDIN:
        return [spooled()]
    if not is_uri(path):
        return _expand_local(path)
    found = expand(path)
    return _expand_local(found) if isinstance(found, str) else found


def _expand_local(path: str) -> list[str]:
    """Return the files that a path, a glob or a folder of this machine names."""
    if os.path.isdir(path):
        return _in_folder(path)
    if os.path.exists(path):
        return [path]
    if glob.has_magic(path):
        return _in_glob(path)
    raise DataError(f"{path}: there is no such file.")


def _in_glob(pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise DataError(f"{pattern}: no file matches.")
    folders = [path for path in found if os.path.isdir(path)]
    if len(folders) < len(found):  # the folders that `**` meets come apart into files already found
        return [path for path in found if path not in set(folders)]
    return [file for folder in folders for file in _in_folder(folder)]


def _in_folder(folder: str) -> list[str]:
    """Return the files at any depth, but for hidden ones and those that begin with `_`."""
    if is_saved(folder):
        return saved_files(folder)
    try:
        files = [
            str(path)
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
            and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        ]
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{folder}: the folder cannot be read: {reason}.") from error
    if not files:
        raise DataError(f"{folder}: the folder holds no files.")
    return files
