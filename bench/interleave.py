"""The only place that times cases against each other: in turn, round after round, by their medians.

A machine that is shared grows faster and slower by the minute. Cases that take turns meet the same
minutes, so their ratios hold even where their times do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def median_seconds(
    benchmark: Any, cases: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, float]:
    """Run each case once unmeasured, then all of them in turn; return their median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case()

    def one_round() -> None:
        for name, case in cases.items():
            started = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - started)

    benchmark.pedantic(one_round, rounds=rounds, iterations=1)
    return {name: statistics.median(times) for name, times in seconds.items()}
