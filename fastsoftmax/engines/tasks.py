"""The only place that says what a task is, and what comes back of one, wherever it was carried out.

What a task raises comes back as a value. So whatever a future raises is the engine's own trouble,
and the task can be carried out again; one that failed would only fail again.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from fastsoftmax.errors import FastsoftmaxError
from fastsoftmax.facts import dataclass
from fastsoftmax.version import versions


@dataclass(frozen=True)
class Job:
    """A task: a call to be carried out by some worker, pure, so that another one gives the same.

    home: a number; tasks of the same one go to the same worker where that is free, which may have
    kept something of use. Arguments that `keep` has returned become what they stand for.
    """

    name: str
    home: int
    call: Callable[..., Any]
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Worker:
    """Who carried a task out: its name, and what its results depend on."""

    name: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Outcome:
    """What came of a task: a value, or the error it raised; who did it, and in how many seconds."""

    value: Any
    error: Exception | None
    worker: Worker
    seconds: float


def carry_out(call: Callable[..., Any], *args: Any) -> Outcome:
    """Carry out a task here; this is what workers run."""
    started = time.perf_counter()
    value, error = None, None
    try:
        value = call(*args)
    except Exception as raised:
        error = _portable(raised)
    return Outcome(value, error, this_worker(), time.perf_counter() - started)


def failed(error: Exception) -> Outcome:
    """Return the outcome of a task that could not even be begun."""
    return Outcome(None, _portable(error), this_worker(), 0.0)


@cache
def this_worker() -> Worker:
    """Return what this process is known by."""
    from fastsoftmax.kernels.level import LEVEL

    facts = {**versions(), "level": f"{LEVEL.processor}{LEVEL.settings}"}
    return Worker(f"{platform.node()}, process {os.getpid()}", tuple(sorted(facts.items())))


def _portable(error: Exception) -> Exception:
    """Return an error as others can read it, who may not have its class."""
    if isinstance(error, FastsoftmaxError | MemoryError | Warning) and len(error.args) <= 1:
        return type(error)(*map(str, error.args))
    return FastsoftmaxError(f"a task failed: {type(error).__name__}: {error}")
