"""The only place that has tasks carried out: results in order, and again what was lost."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastsoftmax.engines.carrier import Carrier, Promise, lost
from fastsoftmax.engines.tasks import Job, Outcome, this_worker
from fastsoftmax.errors import OptionError, WorkerLostError
from fastsoftmax.facts import dataclass

logger = logging.getLogger("fastsoftmax")

LOOK_SECONDS = 0.1  # between two looks at whether the caller wants to stop
Watch = Callable[[int], None]  # is told how many tasks are done; what it raises ends them all


@dataclass
class Times:
    """Seconds: of tasks at all workers together, and those that whoever asked for them waited."""

    tasks: float = 0.0
    waiting: float = 0.0
    count: int = 0


class Engine:
    """Workers, and the one way to have tasks carried out by them."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier, self.times = carrier, Times()
        self._own = this_worker()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.carrier.close(at_once=kind is not None)

    def greet(self) -> None:
        """Raise OptionError where a worker computes by other versions, as far as they are known."""
        outcomes = self.carrier.everywhere(this_worker) or []
        self._refuse_strangers(outcomes)

    def results(
        self, tasks: Sequence[Job], watch: Watch | None = None, ahead: int | None = None
    ) -> Iterator[Any]:
        """Yield what tasks return, in their order, each as soon as it and those before are done.

        ahead: how many tasks may be begun beyond the one whose turn it is. Raises what a task
        raises, of several the first one's, and WorkerLostError where a task is lost too often.
        """
        course = _Course(self.carrier, tasks)
        try:
            for first in range(len(tasks)):
                course.begin(len(tasks) if ahead is None else first + 1 + ahead)
                started = time.perf_counter()
                outcome = course.take(first, watch)
                self.times.waiting += time.perf_counter() - started
                self._refuse_strangers([outcome])
                if outcome.error is not None:
                    raise outcome.error
                self.times.tasks += outcome.seconds
                self.times.count += 1
                yield outcome.value
        finally:
            course.end()

    def _refuse_strangers(self, outcomes: Sequence[Outcome]) -> None:
        """Raise OptionError where workers compute by other versions than this process."""
        strange = [o.worker for o in outcomes if o.worker.facts != self._own.facts]
        if not strange:
            return
        names = list(dict(self._own.facts))
        lines = [("", *names)]
        lines += [(who, *dict(facts).values()) for who, facts in _told(self._own, strange)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = "\n".join(
            "  ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        raise OptionError(
            "workers have other versions than this process, and so would compute other bits."
            " Install the same everywhere; of levels, FASTSOFTMAX_LEVEL chooses one that all have."
            f"\n{table}"
        )


def _told(own: Any, strange: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    yield "this process", own.facts
    for worker in strange:
        yield worker.name, worker.facts


class _Course:
    """Tasks on their way."""

    def __init__(self, carrier: Carrier, tasks: Sequence[Job]) -> None:
        self._carrier, self._tasks = carrier, tasks
        self._done: queue.SimpleQueue[tuple[int, Promise]] = queue.SimpleQueue()
        self._promises: dict[int, Promise] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._attempts: dict[int, int] = {}
        self._begun = self._finished = 0

    def begin(self, until: int) -> None:
        """Have tasks before number `until` carried out."""
        while self._begun < min(until, len(self._tasks)):
            self._attempts[self._begun] = 0
            self._submit(self._begun)
            self._begun += 1

    def take(self, number: int, watch: Watch | None) -> Outcome:
        """Return the outcome of a task once it is there."""
        while number not in self._outcomes:
            if watch is not None:
                watch(self._finished)
            try:
                which, promise = self._done.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if self._promises.get(which) is promise:
                self._note(which, promise)
        if watch is not None:
            watch(self._finished)
        return self._outcomes.pop(number)

    def end(self) -> None:
        """Let nothing be carried out any more that was not."""
        for promise in self._promises.values():
            promise.cancel()
        self._promises.clear()

    def _submit(self, number: int) -> None:
        task = self._tasks[number]
        try:
            promise = self._carrier.submit(task, self._attempts[number])
        except Exception as error:
            raise _gone(task, error) from error
        self._promises[number] = promise
        promise.add_done_callback(lambda done: self._done.put((number, done)))

    def _note(self, number: int, promise: Promise) -> None:
        """Keep an outcome, or have a task that was lost carried out again."""
        outcome, error = lost(promise)
        del self._promises[number]
        if isinstance(outcome, Outcome):
            self._carrier.note(self._tasks[number], outcome)
            self._outcomes[number] = outcome
            self._finished += 1
            return
        task = self._tasks[number]
        self._attempts[number] += 1
        if self._attempts[number] > self._carrier.retries:
            raise _gone(task, error) from error
        logger.warning("%s was lost (%s) and is done again", task.name, _brief(error))
        self._carrier.renew()
        self._submit(number)


def _gone(task: Job, error: BaseException | None) -> WorkerLostError:
    return WorkerLostError(
        f"the workers were lost with {task.name} ({_brief(error)}). Start the run again with"
        " workers that stay; with checkpoint= it goes on by --resume."
    )


def _brief(error: BaseException | None) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
