"""The only place that writes the events of a run to a file, a line of JSON each."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Any

from fastsoftmax.errors import DivergedError, OptionError
from fastsoftmax.training.callbacks import Callback, Event
from fastsoftmax.training.learner import Learner
from fastsoftmax.training.progress import Progress

SPAN_SECONDS = 1.0  # between lines within an epoch
NUMBERS = (
    "epoch", "rows_seen", "seconds", "log_loss", "accuracy", "learning_rate",
    "validation_log_loss", "gain",
)  # fmt: skip


class JsonLog(Callback):
    """Writes each event as it happens, so that others can follow the file.

    The last line says why the run ended: as the record of its model says it, or that it was
    interrupted, diverged or failed.
    """

    def __init__(self, path: str, learners: Sequence[Learner], *, goes_on: bool) -> None:
        """Open the file: anew, or to go on at its end. Raises OptionError where that cannot be."""
        self._path, self._learners = path, learners
        self._last: Progress | None = None
        self._spoke = 0.0
        self._file: IO[str] | None
        try:
            mode = "a" if goes_on else "w"
            self._file = open(path, mode, buffering=1, encoding="utf-8")  # noqa: SIM115
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OptionError(f"log_json {path} cannot be written: {reason}") from None

    def __enter__(self) -> JsonLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and (self._last is None or self._last.ended is None):
            self._say("end", self._last, _reason(kind))
        if self._file is not None:
            self._file.close()

    def on_start(self, event: Event) -> None:
        """Write a line."""
        self._tell("start", event)

    def on_span(self, event: Event) -> None:
        """Write a line, if it is time."""
        if time.monotonic() - self._spoke >= SPAN_SECONDS:
            self._tell("span", event)

    def on_epoch(self, event: Event) -> None:
        """Write a line."""
        self._tell("epoch", event)

    def on_pass(self, event: Event) -> None:
        """Write a line."""
        self._tell("pass", event)

    def on_end(self, event: Event) -> None:
        """Write the last line."""
        self._tell("end", event)

    def _tell(self, name: str, event: Event) -> None:
        several = len(self._learners) > 1 and name not in ("start", "end")
        setting = self._learners.index(event.learner) if several else None
        self._last, self._spoke = event.progress, time.monotonic()
        self._say(name, event.progress, event.progress.ended, setting)

    def _say(
        self, name: str, progress: Progress | None, ended: str | None, setting: int | None = None
    ) -> None:
        line: dict[str, Any] = {
            "event": name,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        line |= {key: _number(getattr(progress, key, None)) for key in NUMBERS}
        if name == "start":  # no row has a loss yet
            line["log_loss"] = line["accuracy"] = None
        if setting is not None:
            line["setting"] = setting
        if name == "end":
            line["ended"] = ended
        try:
            if self._file is not None:
                self._file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            self._file = None
            reason = error.strerror or error
            warnings.warn(
                f"{self._path} could not be written ({reason}): the run goes on without its log",
                UserWarning,
                stacklevel=2,
            )


def _number(value: float | None) -> float | None:
    """Return a number as JSON has it, which has none for NaN and infinities."""
    return value if value is None or math.isfinite(value) else None


def _reason(kind: type[BaseException]) -> str:
    if issubclass(kind, KeyboardInterrupt):
        return "interrupt"
    return "diverged" if issubclass(kind, DivergedError) else "error"
