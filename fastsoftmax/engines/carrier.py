"""The interface of whoever carries tasks out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from fastsoftmax.engines.tasks import Job, Outcome


class Promise(Protocol):
    """What becomes an Outcome: a future of whatever kind."""

    def add_done_callback(self, fn: Callable[[Any], Any], /) -> Any:
        """Call fn with this once it is done, whatever came of it."""

    def result(self) -> Any:
        """Return the outcome, or raise what the engine says went wrong."""

    def cancel(self) -> Any:
        """Let it not be carried out, where nobody has begun."""


class Carrier(ABC):
    """Carries out tasks, each at some worker.

    size: how many at once. retries: how often a task is carried out again that was lost.
    """

    size: int
    retries = 5

    @abstractmethod
    def submit(self, task: Job, attempt: int) -> Promise:
        """Have a task carried out; attempt: how often it was lost before."""

    def keep(self, value: Any) -> Any:
        """Return what stands for a value in the arguments of tasks, which is handed over once."""
        return value

    def let_go(self, kept: Any) -> None:
        """Forget what `keep` returned."""

    def everywhere(self, call: Callable[..., Any], *args: Any) -> list[Outcome] | None:
        """Return what comes of a call at each worker; None where they cannot be told apart."""
        return None

    def note(self, task: Job, outcome: Outcome) -> None:
        """Remember who carried a task out."""

    def renew(self) -> None:
        """Hand over anew what workers may have lost."""

    @abstractmethod
    def close(self, *, at_once: bool = False) -> None:
        """Send workers of our own home; at_once: what they are at does not matter any more."""


def lost(promise: Promise) -> tuple[Outcome | None, BaseException | None]:
    """Return the outcome of a promise that is done, or what the engine says became of it."""
    try:
        found = promise.result()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a cancelled one is no Exception everywhere
        return None, error
    return found, None
