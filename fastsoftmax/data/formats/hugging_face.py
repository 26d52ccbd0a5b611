"""The only place that knows the folders of Hugging Face's datasets: which files hold their rows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fastsoftmax.errors import DataError

STATE, SPLITS, INFO = "state.json", "dataset_dict.json", "dataset_info.json"


def is_saved(folder: str) -> bool:
    """Return whether a folder is one that `save_to_disk` wrote, or a cached data set."""
    return any(os.path.exists(os.path.join(folder, name)) for name in (STATE, SPLITS, INFO))


def saved_files(folder: str) -> list[str]:
    """Return the files of rows of such a folder, in their order, or raise DataError."""
    if os.path.exists(os.path.join(folder, SPLITS)):
        splits = _read(folder, SPLITS).get("splits", [])
        raise DataError(
            f"{folder}: it holds the splits {', '.join(map(str, splits))}. Name one, as"
            f" {os.path.join(folder, str(next(iter(splits), 'train')))}."
        )
    if not os.path.exists(os.path.join(folder, STATE)):  # of the cache, which lists none
        return _found(folder)
    state = _read(folder, STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(
            f"{folder}: its rows are a selection of what its files hold. Call flatten_indices()"
            " before save_to_disk()."
        )
    try:
        names = [os.path.basename(each["filename"]) for each in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder}: {STATE} does not list its files. Save it again.") from error
    return [os.path.join(folder, name) for name in names] or _found(folder)


def _found(folder: str) -> list[str]:
    files = sorted(str(path) for path in Path(folder).glob("*.arrow"))
    if not files:
        raise DataError(f"{folder}: the folder holds no files of rows.")
    return files


def _read(folder: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(folder, name).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: {name} cannot be read ({error}). Save it again.") from error
    if not isinstance(found, dict):
        raise DataError(f"{folder}: {name} holds no object. Save it again.")
    return found
