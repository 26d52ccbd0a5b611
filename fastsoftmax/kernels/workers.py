"""Long-lived threads that run one kernel together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fastsoftmax.kernels.barrier import new_barrier


class Team:
    """`size` workers, the caller being the first: `run` calls a kernel once on each.

    Used as a context manager; the threads end with it. Kernels hold no lock, so the workers run at
    the same time and meet at `barrier`.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = new_barrier()
        self._job: Callable[[int], Any] | None = None
        self._failures: list[BaseException] = []
        self._start = [threading.Semaphore(0) for _ in range(size - 1)]
        self._done = threading.Semaphore(0)
        self._threads = [
            threading.Thread(target=self._work, args=(i,), name=f"fastsoftmax-{i}", daemon=True)
            for i in range(1, size)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        self._job = None
        for start in self._start:
            start.release()
        for thread in self._threads:
            thread.join()

    def _work(self, worker: int) -> None:
        while True:
            self._start[worker - 1].acquire()
            if self._job is None:
                return
            try:
                self._job(worker)
            except BaseException as failure:
                self._failures.append(failure)
            self._done.release()

    def run(self, job: Callable[[int], Any]) -> Any:
        """Call job(worker) for worker = 0 .. size - 1, all at once; return what worker 0 returned."""
        self._job = job
        for start in self._start:
            start.release()
        outcome = job(0)
        for _ in self._start:
            self._done.acquire()
        if self._failures:
            raise self._failures.pop()
        return outcome
