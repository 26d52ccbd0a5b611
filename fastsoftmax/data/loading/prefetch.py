"""The only place that reads in threads: they make items while the caller uses the ones before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
ALIVE = 2  # items at once of one maker: one in use, one being made
ANY = 2**62  # items at once, where they take no memory of their own
WAITING = 2  # items of one job that wait for their turn


class Prefetcher(Generic[Item]):
    """Items made ahead by a thread, two alive at once: one in use, one being made."""

    def __init__(
        self, items: Generator[Item, None, None], stopped: threading.Event, alive: int = ALIVE
    ) -> None:
        """alive: items at once, where two are not all that may be."""
        self._changed = threading.Condition()
        self._made: deque[Item] = deque()
        self._free, self._ended = alive, False
        self._error: BaseException | None = None
        self._stopped = stopped
        # A daemon does not hold up the interpreter's end, whatever a file system does.
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def items(self) -> Iterator[Item]:
        """Yield the items as they are made; raise what stopped the thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._made or self._ended)
                if not self._made:
                    break
                made = self._made.popleft()
            yield made
            del made  # its memory is free before the next one is asked for
            self._let_go()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._let_go()
        self._thread.join(timeout=2.0)

    def _let_go(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    def _run(self, items: Generator[Item, None, None]) -> None:
        try:
            self._make(items)
        except BaseException as error:
            self._error = error
        finally:
            items.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _make(self, items: Iterator[Item]) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._free)
                self._free -= 1
            if self._stopped.is_set():
                return
            item = next(items, None)
            if item is None or self._stopped.is_set():
                return
            with self._changed:
                self._made.append(item)
                self._changed.notify_all()
            del item


class OrderedPool(Generic[Item]):
    """Threads that work on numbered jobs side by side; what they make comes out in order of jobs.

    work: makes the items of the jobs that it takes from the iterator it is given, one job after
    the other, and asks for the next when one is done. Each thread runs it once. At most
    `threads` + 1 jobs are begun and not used up, with `waiting` items of each.
    """

    def __init__(
        self,
        work: Callable[[Iterator[int]], Generator[Item, None, None]],
        jobs: Sequence[int],
        threads: int,
        waiting: int = WAITING,
    ) -> None:
        self._work, self._jobs, self._most = work, jobs, threads + 1
        self._most_waiting = waiting
        self._changed = threading.Condition()
        self._waiting: dict[int, deque[Item]] = {}
        self._done: set[int] = set()  # begun, and no item to come
        self._begun = self._used = 0
        self._stopped = False
        self._errors: dict[int, BaseException] = {}  # by the job that they end
        count = min(threads, len(jobs))
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def items(self) -> Generator[Item, None, None]:
        """Yield the items in the order of their jobs; raise what stopped a thread, in its place."""
        try:
            while self._used < len(self._jobs):
                item = self._next()
                if item is None:
                    self._used_up()
                    continue
                yield item
                del item  # its memory is free before the next one is asked for
        finally:
            self.stop()

    def stop(self) -> None:
        """End the threads."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=2.0)

    def _next(self) -> Item | None:
        """Return the next item of the first job that is not used up, or None at its end."""
        with self._changed:
            mine = self._used
            self._changed.wait_for(lambda: self._waiting.get(mine) or mine in self._done)
            if not self._waiting.get(mine):
                if mine in self._errors:
                    raise self._errors[mine]
                return None
            item = self._waiting[mine].popleft()
            self._changed.notify_all()
            return item

    def _used_up(self) -> None:
        with self._changed:
            del self._waiting[self._used]
            self._done.remove(self._used)
            self._used += 1
            self._changed.notify_all()

    def _run(self) -> None:
        mine: list[int] = []  # the place of the job in hand, once there is one
        items = self._work(self._take(mine))
        try:
            for item in items:
                self._hand_in(mine[0], item)
                del item
                if self._stopped:
                    return
        except BaseException as error:
            with self._changed:
                place = mine[0] if mine else self._begun  # before its first job: as the next one's
                self._errors[place] = error
                self._done.add(place)
                self._changed.notify_all()
        finally:
            items.close()

    def _take(self, mine: list[int]) -> Iterator[int]:
        """Yield one job after the other, the one before being done."""
        while True:
            with self._changed:
                self._done.update(mine)
                mine.clear()
                self._changed.notify_all()
                self._changed.wait_for(self._may_go_on)
                if self._stopped or self._errors or self._begun == len(self._jobs):
                    return
                mine.append(self._begun)
                self._waiting[self._begun] = deque()
                self._begun += 1
            yield self._jobs[mine[0]]

    def _may_go_on(self) -> bool:
        over = self._stopped or self._errors or self._begun == len(self._jobs)
        return bool(over) or self._begun - self._used < self._most

    def _hand_in(self, job: int, item: Item) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or len(self._waiting[job]) < self._most_waiting
            )
            if not self._stopped:
                self._waiting[job].append(item)
                self._changed.notify_all()
