"""The only place that tells apart what `workers` may be, and makes an engine of it."""

from __future__ import annotations

from typing import Any

from fastsoftmax.engines.carrier import Carrier
from fastsoftmax.engines.engine import Engine
from fastsoftmax.options import check_workers


def engine_of(workers: Any, most: int, threads: int) -> Engine:
    """Return an engine of these workers: of no more than `most`, where they are begun for it.

    Where no workers are given, they are threads of this process, up to `threads`.
    """
    check_workers(workers)
    return Engine(_carrier(workers, most, threads))


def _carrier(workers: Any, most: int, threads: int) -> Carrier:
    if workers is None:
        from fastsoftmax.engines.threads import Threads

        return Threads(max(1, min(most, threads)))
    if isinstance(workers, int):
        from fastsoftmax.engines.processes import Processes

        return Processes(min(most, workers))
    if isinstance(workers, str) or hasattr(workers, "scatter"):
        from fastsoftmax.engines.dask import Dask, client_of

        is_own = isinstance(workers, str)
        return Dask(client_of(workers) if is_own else workers, is_own=is_own)
    from fastsoftmax.engines.executor import Executor

    return Executor(workers)
