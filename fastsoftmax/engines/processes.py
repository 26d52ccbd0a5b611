"""The only place where processes that we begin carry tasks out: one that dies is begun again.

They begin anew, not as copies of this one, which has threads and locks that a copy would lack or
hold for ever; and they never run the caller's script.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from fastsoftmax.engines.carrier import Carrier, Promise
from fastsoftmax.engines.mapped import SMALL, Mapped
from fastsoftmax.engines.tasks import Job, Outcome
from fastsoftmax.facts import dataclass

START = (
    "import sys; sys.path[:] = {path!r}\nfrom fastsoftmax.engines.worker import serve\nserve({fd})"
)
PATIENCE = 2.0  # seconds that a process has to end by itself


class Processes(Carrier):
    """So many processes of this machine, each minded by a thread of this one."""

    def __init__(self, size: int) -> None:
        self.size, self._queue = size, _Queue()
        self._minders = [_Minder(number, self._queue) for number in range(size)]

    def submit(self, task: Job, attempt: int) -> Promise:
        """Have a task carried out; see Carrier."""
        job = _Queued(task, Future())
        self._queue.add(job)
        return job.promise

    def keep(self, value: Any) -> Any:
        """Return what a task finds in memory that all processes map; see Carrier."""
        mapped = Mapped(value)
        if mapped.nbytes >= SMALL:
            return mapped
        mapped.close()
        return value

    def let_go(self, kept: Any) -> None:
        """Give the memory back."""
        if isinstance(kept, Mapped):
            kept.close()

    def close(self, *, at_once: bool = False) -> None:
        """End the processes."""
        self._queue.end()
        for minder in self._minders:
            minder.end(at_once=at_once)


@dataclass
class _Queued:
    task: Job
    promise: Future[Outcome]


class _Queue:
    """Jobs that wait, and which worker has done those of each home before."""

    def __init__(self) -> None:
        self._waiting: list[_Queued] = []
        self._changed = threading.Condition()
        self._owners: dict[int, int] = {}
        self.is_over = False

    def add(self, job: _Queued) -> None:
        """Let a job wait for a worker."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify_all()

    def end(self) -> None:
        """Let nobody take a job any more."""
        with self._changed:
            self.is_over = True
            self._changed.notify_all()

    def take(self, worker: int) -> _Queued | None:
        """Return the next job that suits a worker; None when all is over."""
        with self._changed:
            while not self.is_over:
                job = self._suitable(worker)
                if job is not None:
                    self._waiting.remove(job)
                    self._owners[job.task.home] = worker
                    return job
                self._changed.wait()
            return None

    def _suitable(self, worker: int) -> _Queued | None:
        """Return a job of its own, or of nobody, or one of several that wait for another."""
        free: _Queued | None = None
        counts: dict[int, int] = {}
        for job in self._waiting:
            owner = self._owners.get(job.task.home, worker)
            if owner == worker:
                return job
            counts[owner] = counts.get(owner, 0) + 1
            if counts[owner] > 1:
                free = job
        return free

    def disown(self, worker: int) -> None:
        """Forget what a worker had done: it is another process now."""
        with self._changed:
            self._owners = {home: who for home, who in self._owners.items() if who != worker}


class _Minder:
    """A thread that hands jobs to a process, and begins another one where that dies."""

    def __init__(self, number: int, queue: _Queue) -> None:
        self._number, self._queue = number, queue
        self._lock = threading.Lock()
        self._begin()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self, *, at_once: bool) -> None:
        """End the thread and its process."""
        with self._lock:
            if at_once:
                self._process.kill()
        if not at_once:
            self._thread.join(PATIENCE)
            self._connection.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        self._process.kill()
        self._process.wait()
        self._thread.join(PATIENCE)

    def _begin(self) -> None:
        with self._lock:
            self._connection: Connection
            self._connection, theirs = Pipe()
            code = START.format(path=sys.path, fd=theirs.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
            theirs.close()

    def _run(self) -> None:
        while (job := self._queue.take(self._number)) is not None:
            if not job.promise.set_running_or_notify_cancel():
                continue
            try:
                self._connection.send((job.task.call, job.task.args))
                outcome = self._connection.recv()
            except (EOFError, OSError):
                self._again(job)
            except Exception as error:  # it cannot be pickled
                job.promise.set_exception(error)
            else:
                job.promise.set_result(outcome)

    def _again(self, job: _Queued) -> None:
        """Begin another process in the place of one that died."""
        self._connection.close()
        self._process.kill()
        code = self._process.wait()
        if not self._queue.is_over:
            self._queue.disown(self._number)
            self._begin()
        job.promise.set_exception(ChildProcessError(f"worker {self._number} ended with {code}"))
