"""The only place with a thread: it makes the next item while the caller uses this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
ALIVE = 2  # items at once: one in use, one being made


class Ahead(Generic[Item]):
    """Items made ahead by a thread, two alive at once: one in use, one being made."""

    def __init__(self, items: Iterator[Item], stopped: threading.Event) -> None:
        self._made: queue.SimpleQueue[Item | BaseException | None] = queue.SimpleQueue()
        self._free = threading.Semaphore(ALIVE)
        self._stopped = stopped
        # A daemon does not hold up the interpreter's end, whatever a file system does.
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)
        self._thread.start()

    def items(self) -> Iterator[Item]:
        """Yield the items as they are made; raise what stopped the thread."""
        while True:
            made = self._made.get()
            if made is None:
                return
            if isinstance(made, BaseException):
                raise made
            yield made
            del made  # its memory is free before the next one is asked for
            self._free.release()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._free.release()
        self._thread.join(timeout=2.0)

    def _run(self, items: Iterator[Item]) -> None:
        try:
            self._make(items)
        except BaseException as error:
            self._made.put(error)
        else:
            self._made.put(None)
        finally:
            items.close()  # type: ignore[attr-defined]

    def _make(self, items: Iterator[Item]) -> None:
        while True:
            self._free.acquire()
            if self._stopped.is_set():
                return
            item = next(items, None)
            if item is None or self._stopped.is_set():
                return
            self._made.put(item)
            del item
