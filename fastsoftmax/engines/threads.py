"""The only place where threads of this process carry tasks out: nothing is copied for them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from fastsoftmax.engines.carrier import Carrier, Promise
from fastsoftmax.engines.tasks import Job, carry_out


class Threads(Carrier):
    """So many threads."""

    retries = 0

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="fastsoftmax-shard")

    def submit(self, task: Job, attempt: int) -> Promise:
        """Have a task carried out; see Carrier."""
        return self._pool.submit(carry_out, task.call, *task.args)

    def close(self, *, at_once: bool = False) -> None:
        """End the threads; what they are at goes on to its end."""
        self._pool.shutdown(wait=not at_once, cancel_futures=True)
