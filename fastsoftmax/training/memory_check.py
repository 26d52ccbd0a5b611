"""The only place that foresees what a run's weights take in memory, and refuses what cannot fit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastsoftmax.errors import OptionError
from fastsoftmax.optim.feature_weights import numbers_of_a_feature
from fastsoftmax.optim.lbfgs import VECTOR_BYTES
from fastsoftmax.optim.rules.choice import choose_rule
from fastsoftmax.optim.rules.rule import Task
from fastsoftmax.options import TrainOptions

COPIES = 2  # of weights, once they are learnt: the model's, and one that it is made of
MEMINFO = Path("/proc/meminfo")
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def bytes_per_weight(K: int, d: int, options: TrainOptions, nonzeros: float | None = None) -> int:
    """Return the bytes that training holds for each weight; nonzeros: see Task."""
    itemsize = np.dtype(options.steps.dtype).itemsize
    if options.stopping.solver == "lbfgs":
        return itemsize + VECTOR_BYTES
    average = itemsize + 8 if options.steps.average else 0
    rule = choose_rule(Task(K, d, options.steps, nonzeros))
    return itemsize * rule.numbers + average


def available_bytes() -> int | None:
    """Return the memory that this process may still take; None where nobody says."""
    found = []
    try:
        lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        try:
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        except (OSError, ValueError):
            return None
    for name in LIMITS:
        try:
            found.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # there is no limit, or none of this kind
            continue
    return min(found)


def refuse_what_does_not_fit(
    K: int, d: int, settings: Sequence[TrainOptions], nonzeros: float | None = None
) -> None:
    """Raise OptionError where weights (K, d) of these settings cannot fit the memory there is.

    nonzeros: of a row, where rows are sparse, and weights are most of what a run holds: then those
    that steps need must fit the memory that the run was given, too.
    """
    for options in settings:
        if nonzeros is not None and options.stopping.solver == "sgd":
            _refuse_more_than_given(K, d, options, nonzeros)
    each = sum(bytes_per_weight(K, d, options, nonzeros) for options in settings)
    needed, available = each * K * d, available_bytes()
    if available is None or needed <= available:
        return
    raise OptionError(
        f"{K:,} classes and {d:,} features make {K * d:,} weights, which take"
        f" {needed / 1e9:,.1f} GB to train, and {available / 1e9:,.1f} GB are free: so many"
        f" classes fit with {available // (each * K):,} features, so many features"
        f" with {available // (each * d):,} classes. Leave features out, or take"
        " dtype=float32 and average=False."
    )


def _refuse_more_than_given(K: int, d: int, options: TrainOptions, nonzeros: float) -> None:
    dtype = np.dtype(options.steps.dtype)
    needed = bytes_per_weight(K, d, options, nonzeros) * numbers_of_a_feature(K, dtype) * d
    needed += COPIES * dtype.itemsize * K * d
    given = options.reading.memory_bytes
    if needed > given:
        raise OptionError(
            f"{K:,} classes and {d:,} features that rows have make {K * d:,} weights, which take"
            f" {needed / 1e9:,.2f} GB to train, more than memory={given / 1e9:,.2f}GB: give"
            f" memory={needed * 1.3 / 1e9:,.1f}GB, or take fewer features (of texts max_features=,"
            f" min_count= or bits=){', or average=False' if options.steps.average else ''}."
        )
