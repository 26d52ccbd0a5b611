"""The only place that says in lines where a run stands, and how it went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastsoftmax.cli.console import Console
from fastsoftmax.evaluation.formatting import counted, duration, quality, treated_facts

if TYPE_CHECKING:
    from fastsoftmax.training.progress import Progress


class Teller:
    """Tells of a run as it goes: a live line on a terminal, else a line an epoch."""

    def __init__(self, console: Console, silent: bool) -> None:
        self.console = console
        self.silent = silent
        self.last: Progress | None = None

    def __call__(self, progress: Progress) -> bool:
        """Say where the run stands; return whether it is to stop."""
        self.last = progress
        if not self.silent:
            self._tell(progress)
        return self.console.signal != 0

    def _tell(self, progress: Progress) -> None:
        if self.console.is_live:
            as_line = epoch_line if progress.finished else live_line
            self.console.show(as_line(progress))
        elif progress.finished:
            self.console.say(epoch_line(progress))


def epoch_line(progress: Progress) -> str:
    """Return what is to be said about an epoch that is done."""
    line = (
        f"{progress.name}: {progress.rows:,} rows, "
        f"{_speed(progress)}, {quality(progress.log_loss, progress.accuracy)}"
    )
    validated = _validated(progress)
    return line if validated is None else f"{line}; validation {validated}"


def live_line(progress: Progress) -> str:
    """Return where a run stands, and when it will end."""
    line = progress.name
    if progress.rows_per_epoch:
        line += f" {progress.rows / progress.rows_per_epoch:4.0%}"
    if progress.shards is not None:
        line += " ({} of {} shards)".format(*progress.shards)
    line += f", {_speed(progress)}"
    if progress.log_loss == progress.log_loss:  # before a first pass is done nobody knows
        line += f", {quality(progress.log_loss, progress.accuracy)}"
    left = _seconds_left(progress)
    return line if left is None else f"{line}, ETA {duration(left)}"


def training_summary(progress: Progress, seconds: float) -> list[tuple[str, object]]:
    """Return the closing facts of a run whose last epoch is `progress`."""
    taken = "(progressive, last epoch)" if progress.solver == "sgd" else "(at the last weights)"
    facts: list[tuple[str, object]] = [
        ("rows", f"{progress.rows_seen:,} in {_taken(progress)}"),
        ("time", f"{duration(seconds)}, {duration(progress.seconds)} of it training"),
        ("speed", _speed(progress)),
        ("training", f"{quality(progress.log_loss, progress.accuracy)} {taken}"),
    ]
    validated = _validated(progress)
    if validated is not None:
        facts.append(("validation", validated))
    return [*facts, *treated_facts(progress.treated)]


def _validated(progress: Progress) -> str | None:
    loss, accuracy = progress.validation_log_loss, progress.validation_accuracy
    return None if loss is None or accuracy is None else quality(loss, accuracy)


def _taken(progress: Progress) -> str:
    if progress.epochs is None:
        return counted(progress.epoch, "epoch")
    return f"{progress.epoch} of {counted(progress.epochs, 'epoch')}"


def _speed(progress: Progress) -> str:
    return f"{progress.rows_seen / max(progress.seconds, 1e-9):,.0f} rows/s"


def _seconds_left(progress: Progress) -> float | None:
    if not progress.rows_per_epoch or not progress.rows_seen or progress.epochs is None:
        return None
    planned = progress.rows_per_epoch * progress.epochs
    return max(0.0, progress.seconds * (planned / progress.rows_seen - 1))
