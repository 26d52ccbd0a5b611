"""The only place that has tasks carried out by a Dask cluster: the one that imports distributed."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastsoftmax.engines.carrier import Carrier, Promise
from fastsoftmax.engines.tasks import Job, Outcome, Worker, carry_out
from fastsoftmax.errors import MissingExtraError, OptionError, WorkerLostError

CONNECTING_SECONDS = 30.0
HANDINGS, WAITING_SECONDS = 6, 0.5  # how often a value is handed over, and the time between


def client_of(address: str) -> Any:
    """Return a client of the scheduler at an address."""
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtraError(
            "workers at an address are those of Dask: pip install 'fastsoftmax[dask]'"
        ) from error
    try:
        return Client(address, set_as_default=False, timeout=CONNECTING_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise OptionError(f"there is no scheduler at {address}: {error}") from error


class _Scattered:
    """A value that was handed to workers, and what stands for it there."""

    def __init__(self, client: Any, value: Any, *, everywhere: bool) -> None:
        self._client, self._value, self._everywhere = client, value, everywhere
        self.hand_over()

    def hand_over(self) -> None:
        """Hand the value over, anew if it was before."""
        for left in reversed(range(HANDINGS)):
            try:
                self.future = self._client.scatter(
                    self._value, broadcast=self._everywhere, hash=False
                )
                return
            except Exception as error:  # whatever it says of a worker that dies meanwhile
                if not left:
                    raise WorkerLostError(
                        f"no worker takes what tasks need ({type(error).__name__}: {error}). Start"
                        " the run again with workers that stay; with checkpoint= it goes on by"
                        " --resume."
                    ) from error
                time.sleep(WAITING_SECONDS)


class Dask(Carrier):
    """The workers of a cluster, through a `distributed.Client`."""

    def __init__(self, client: Any, *, is_own: bool) -> None:
        """is_own: the client is closed with this."""
        if client.asynchronous:
            raise OptionError(
                "workers= takes a Client that waits: one made with asynchronous=False"
            )
        self._client, self._is_own = client, is_own
        self._scattered: set[_Scattered] = set()
        self._homes: dict[int, str] = {}
        self._run, self._serial = uuid.uuid4().hex[:8], itertools.count()

    @property
    def size(self) -> int:  # type: ignore[override]
        """How many tasks at once, of the workers that there are now."""
        return max(sum(self._client.nthreads().values()), 1)

    def submit(self, task: Job, attempt: int) -> Promise:
        """Have a task carried out; see Carrier."""
        args = [each.future if isinstance(each, _Scattered) else each for each in task.args]
        there = self._homes.get(task.home)
        known = {} if there is None or attempt else {"workers": [there]}
        promise: Promise = self._client.submit(
            _carry_out, task.call, *args,
            key=f"{task.name.replace(' ', '-')}-{self._run}{next(self._serial)}",
            pure=False, retries=self.retries, allow_other_workers=bool(known), **known,
        )  # fmt: skip
        return promise

    def keep(self, value: Any, *, everywhere: bool = False) -> Any:
        """Return what stands for a value that was scattered; see Carrier."""
        kept = _Scattered(self._client, value, everywhere=everywhere)
        self._scattered.add(kept)
        return kept

    def let_go(self, kept: Any) -> None:
        """Let workers forget a value."""
        self._scattered.discard(kept)
        kept.future.release()

    def everywhere(self, call: Callable[..., Any], *args: Any) -> list[Outcome]:
        """Return what comes of a call at each worker."""
        found = self._client.run(carry_out, call, *args, on_error="return")
        return [
            replace(outcome, worker=Worker(address, outcome.worker.facts))
            for address, outcome in found.items()
            if isinstance(outcome, Outcome)  # not of one that has gone
        ]

    def note(self, task: Job, outcome: Outcome) -> None:
        """Remember which worker has what a task may have kept."""
        self._homes[task.home] = outcome.worker.name

    def renew(self) -> None:
        """Hand over anew what may have been lost with a worker."""
        for kept in self._scattered:
            kept.hand_over()
        there = self._client.scheduler_info()["workers"]
        self._homes = {home: name for home, name in self._homes.items() if name in there}

    def close(self, *, at_once: bool = False) -> None:
        """Close a client of our own."""
        if self._is_own:
            self._client.close()


def _carry_out(call: Callable[..., Any], *args: Any) -> Outcome:
    """Carry out a task at a worker of the cluster."""
    from distributed import get_worker

    found = carry_out(call, *args)
    return replace(found, worker=Worker(get_worker().address, found.worker.facts))
