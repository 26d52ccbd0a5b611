"""The only place that keeps the state of a run in a folder, so that a crash cannot lose it.

Two files take turns, each written whole or not at all: while one is written the other is there. A
lock on the folder dies with its process. Source of what a lasting write takes: see `files`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastsoftmax.errors import DivergedError, ModelFileError, OptionError, SaveError
from fastsoftmax.files import write_file
from fastsoftmax.model.safetensors import decode_tensors, encode_tensors
from fastsoftmax.model.strict_json import parse_json
from fastsoftmax.optim.state import State
from fastsoftmax.options import UNITS_OF_TIME, is_count

logger = logging.getLogger("fastsoftmax")

FORMAT, VERSION = "fastsoftmax-checkpoint", "2"
NAMES = ("checkpoint-a.safetensors", "checkpoint-b.safetensors")
LOCK = "lock"
# When a file was last changed. A copy of the data, as on a machine that takes over, has another
# time: that is told, not refused.
MODIFIED = "modified"


class Checkpoints:
    """The checkpoints of one run in a folder, locked as long as it lasts.

    identity: all that shapes the model; a checkpoint of another one is refused.
    """

    def __init__(self, folder: str, every: str | int, identity: dict[str, Any]) -> None:
        """Lock the folder, which is made where it is missing."""
        self._folder, self._identity = Path(folder), json.loads(_as_json(identity))
        self._seconds, self._rows = interval(every)
        self._serial = 0
        self._last_time, self._last_rows = time.monotonic(), 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OptionError(
                f"the checkpoint folder {folder} cannot be used: {error.strerror or error}; give"
                " another"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise OptionError(
                f"the checkpoint folder {folder} is in use by another run; wait, or give another"
            ) from None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it is closed, whatever that says
            os.close(self._lock)

    def load(self, *, resume: bool) -> State | None:
        """Return the newest whole state, or None where the folder has none.

        Raises OptionError where it is another run's, or is there and is not to be resumed.
        """
        there = [self._folder / name for name in NAMES if (self._folder / name).exists()]
        if not resume:
            if there:
                raise OptionError(
                    f"{self._folder} holds checkpoints of a run: go on with it by resume, or give"
                    " another folder"
                )
            return None
        found = [one for one in map(self._read, there) if one is not None]
        if not found:
            if there:
                raise OptionError(
                    f"no checkpoint in {self._folder} is whole; remove them to start anew"
                )
            logger.warning("%s has no checkpoint: the run starts anew", self._folder)
            return None
        text, arrays = max(found, key=lambda one: one[0]["serial"])
        self._check(text["identity"])
        self._serial = text["serial"]
        self._last_rows = text["state"]["visited"]
        return text["state"], {name: array.copy() for name, array in arrays.items()}

    def is_due(self, rows: int) -> bool:
        """Whether it is time for another one, now that so many rows were visited in all."""
        if self._rows is not None:
            return rows - self._last_rows >= self._rows
        return time.monotonic() - self._last_time >= (self._seconds or 0.0)

    def keep(self, state: Callable[[], State]) -> None:
        """Write a state; where that fails, warn, and try again when the next is due."""
        facts, arrays = state()
        self._last_time, self._last_rows = time.monotonic(), facts["visited"]
        text = {"identity": self._identity, "serial": self._serial + 1, "state": facts}
        try:
            metadata = {"format": FORMAT, "format_version": VERSION, "run": _as_json(text)}
        except ValueError as error:  # JSON has no such numbers
            raise DivergedError("the losses of the run are no longer finite.") from error
        path = self._folder / NAMES[(self._serial + 1) % 2]
        try:
            write_file(path, encode_tensors(arrays, metadata))
        except SaveError as error:
            warnings.warn(
                f"no checkpoint could be kept: {error} The run goes on, and tries again later.",
                UserWarning,
                stacklevel=2,
            )
            return
        self._serial += 1

    def _read(self, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Return what a file holds; None, with a warning, where it is damaged."""
        try:
            arrays, metadata = decode_tensors(path, "checkpoint", insists=True)
            if metadata.get("format") != FORMAT:
                raise ModelFileError(f"{path} is not a checkpoint.")
            if metadata.get("format_version") != VERSION:
                raise OptionError(f"{path} is of another version of checkpoints: start anew")
            text = parse_json(metadata["run"])
            _require_sound(text)
        except OptionError:
            raise
        except (ModelFileError, ValueError, KeyError, TypeError) as error:
            warnings.warn(
                f"a checkpoint is damaged, the one before it is taken if there is one: {error}",
                UserWarning,
                stacklevel=2,
            )
            return None
        return text, arrays

    def _check(self, other: dict[str, Any]) -> None:
        """Raise OptionError with what differs between a checkpoint's run and this one."""
        mine, theirs = dict(_flat("", self._identity)), dict(_flat("", other))
        names = [n for n in sorted({*mine, *theirs}) if mine.get(n) != theirs.get(n)]
        differing = [
            f"{name} was {_brief(theirs.get(name))}, is {_brief(mine.get(name))}"
            for name in names
            if not name.endswith(f".{MODIFIED}")
        ]
        if differing:
            raise OptionError(
                f"the checkpoint in {self._folder} is of another run: {'; '.join(differing[:20])}."
                " Give the options and data of that run, or another folder"
            )
        for name in names:
            file = mine.get(f"{name.removesuffix(MODIFIED)}name")
            logger.warning(
                "%s was written again since the checkpoint. Its size and footer are as they"
                " were, so the run goes on: if its rows are others, start anew.",
                file,
            )


def _require_sound(text: Any) -> None:
    """Raise ValueError where what is needed before the state is taken over is not there."""
    if not isinstance(text, dict) or set(text) != {"identity", "serial", "state"}:
        raise ValueError("it has other parts than a checkpoint")
    kind, *numbers = text["state"]["plan"]
    if len(numbers) != 3:
        raise ValueError("it tells of no order of rows")
    counts = (text["serial"], text["state"]["visited"], *numbers)
    if not isinstance(kind, str) or not all(is_count(count, 0) for count in counts):
        raise ValueError("it tells of no order of rows")


def interval(every: str | int) -> tuple[float | None, int | None]:
    """Return the seconds, or the rows, that lie between checkpoints: 30s, 5m, 1h or 20000."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(every))
    assert match is not None  # options have checked it
    if match[2]:
        return float(match[1]) * UNITS_OF_TIME[match[2]], None
    return None, int(every)


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    """Return the leaves of nested dictionaries, by dotted names."""
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [
        leaf
        for key, each in value.items()
        for leaf in _flat(f"{prefix}.{key}" if prefix else key, each)
    ]


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
