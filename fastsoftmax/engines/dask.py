"""The only place that has tasks carried out by a Dask cluster: the one that imports distributed."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastsoftmax.engines.carrier import Carrier, Promise
from fastsoftmax.engines.tasks import Job, Outcome, Worker, carry_out
from fastsoftmax.errors import MissingExtraError, OptionError

CONNECTING_SECONDS = 30.0
ASKING_SECONDS = 5.0  # that workers have to answer what all are asked, which is no work
REACHING_SECONDS = 1.0  # that a worker has to be reached from here


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


class _HandedOver:
    """A value that tasks need, and what stands for it at the workers.

    It comes of a task of its own: a worker that is lost with it is made good by the scheduler, and
    workers fetch it from each other. `Client.scatter` may wait for ever for a worker that dies.
    """

    def __init__(self, client: Any, value: Any) -> None:
        self._client, self._value = client, value
        self.hand_over()

    def hand_over(self) -> None:
        """Hand the value over, anew if it was before."""
        import dask

        # That so much is sent is what is wanted here.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}):
            self.future = self._client.submit(
                _same, self._value, key=f"fastsoftmax-state-{uuid.uuid4().hex}", pure=False
            )


def _same(value: Any) -> Any:
    return value


class _Fetched:
    """A future whose result is fetched from the worker that has it, not by way of the scheduler.

    Results of 80 MB from two workers come in half the time. What a worker does not give, because it
    died, the client asks the scheduler for.
    """

    def __init__(self, client: Any, future: Any) -> None:
        self._client, self._future = client, future

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call fn with this once it is done; see Promise."""
        self._future.add_done_callback(lambda _: fn(self))

    def result(self) -> Any:
        """Return the outcome; see Promise."""
        if self._future.status != "finished":
            return self._future.result()
        return self._client.gather(self._future, direct=True)

    def cancel(self) -> None:
        """Let it not be carried out; see Promise."""
        self._future.cancel()


def _reaches_workers(client: Any) -> bool:
    """Return whether workers can be reached from here, and the client was not told what to do."""
    from distributed.comm import connect

    async def try_one(address: str) -> None:
        comm = await connect(address, timeout=REACHING_SECONDS, **client.connection_args)
        await comm.close()

    workers = client.scheduler_info()["workers"]
    if client.direct_to_workers is not None or not workers:
        return False
    try:
        client.sync(try_one, next(iter(workers)))
    except (OSError, TimeoutError):  # the scheduler alone lets itself be reached from outside
        return False
    return True


class Dask(Carrier):
    """The workers of a cluster, through a `distributed.Client`."""

    def __init__(self, client: Any, *, is_own: bool) -> None:
        """is_own: the client is closed with this."""
        if client.asynchronous:
            raise OptionError(
                "workers= takes a Client that waits: one made with asynchronous=False"
            )
        self._client, self._is_own = client, is_own
        self._kept: set[_HandedOver] = set()
        self._homes: dict[int, str] = {}
        self._run, self._serial = uuid.uuid4().hex[:8], itertools.count()
        self._fetches = _reaches_workers(client)

    @property
    def size(self) -> int:  # type: ignore[override]
        """How many tasks at once, of the workers that there are now."""
        return max(sum(self._client.nthreads().values()), 1)

    def submit(self, task: Job, attempt: int) -> Promise:
        """Have a task carried out; see Carrier."""
        args = [each.future if isinstance(each, _HandedOver) else each for each in task.args]
        there = self._homes.get(task.home)
        known = {} if there is None or attempt else {"workers": [there]}
        future = self._client.submit(
            _carry_out, task.call, *args,
            key=f"{task.name.replace(' ', '-')}-{self._run}{next(self._serial)}",
            pure=False, retries=self.retries, allow_other_workers=bool(known), **known,
        )  # fmt: skip
        promise: Promise = _Fetched(self._client, future) if self._fetches else future
        return promise

    def keep(self, value: Any) -> Any:
        """Return what stands for a value that was handed over; see Carrier."""
        kept = _HandedOver(self._client, value)
        self._kept.add(kept)
        return kept

    def let_go(self, kept: Any) -> None:
        """Let workers forget a value."""
        self._kept.discard(kept)
        kept.future.release()

    def everywhere(self, call: Callable[..., Any], *args: Any) -> list[Outcome]:
        """Return what comes of a call at each worker that answers in time."""
        client = self._client
        try:
            found = client.sync(
                client.run, carry_out, call, *args,
                on_error="return", callback_timeout=ASKING_SECONDS,
            )  # fmt: skip
        except TimeoutError:  # one died while it was asked
            return []
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
        for kept in self._kept:
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
