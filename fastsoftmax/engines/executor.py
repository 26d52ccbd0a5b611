"""The only place that hands tasks to an executor of the caller's: whatever has `submit`."""

from __future__ import annotations

from typing import Any

from fastsoftmax.engines.carrier import Carrier, Promise
from fastsoftmax.engines.tasks import Job, carry_out


class Executor(Carrier):
    """What the caller handed us; it stays the caller's to close."""

    retries = 10  # nothing of ours is begun for one

    def __init__(self, executor: Any) -> None:
        self.size = int(getattr(executor, "_max_workers", 0) or 0) or 2
        self._executor = executor

    def submit(self, task: Job, attempt: int) -> Promise:
        """Have a task carried out; see Carrier."""
        promise: Promise = self._executor.submit(carry_out, task.call, *task.args)
        return promise

    def close(self, *, at_once: bool = False) -> None:
        """Do nothing: it is not ours."""
