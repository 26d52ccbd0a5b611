"""Executors that do what clusters do: shuffle, delay, and lose tasks."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError, Future


class Chaos:
    """Carries tasks out in a random order, late, and loses some of them."""

    def __init__(self, seed: int, *, loses: float = 0.2, delay: float = 0.002, workers: int = 3):
        self._random, self._loses, self._delay = random.Random(seed), loses, delay
        self._waiting: list = []
        self._changed = threading.Condition()
        self._over = False
        self.lost = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self._changed:
            self._over = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, call, *args):
        """Return a future of call(*args)."""
        future = Future()
        with self._changed:
            self._waiting.append((future, call, args))
            self._changed.notify()
        return future

    def _run(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._over)
                if self._over:
                    return
                place = self._random.randrange(len(self._waiting))
                future, call, args = self._waiting.pop(place)
                loses = self._random.random() < self._loses
                early = self._random.random() < 0.5
                delay = self._random.random() * self._delay
                self.lost += loses
            if not future.set_running_or_notify_cancel():
                continue
            time.sleep(delay)
            if loses and early:
                future.set_exception(CancelledError("a worker left"))
                continue
            result = call(*args)
            if loses:
                future.set_exception(ConnectionError("a worker died with what it had done"))
            else:
                future.set_result(result)
