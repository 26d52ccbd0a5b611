"""The only place that says what a model remembers of its run.

Nothing in it depends on the clock, the machine or paths: the same run is the same record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastsoftmax.version import versions


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run can say, once it is over, of how its model came about.

    options: those that shape the model, with the values that they had in the end. reasons: why
        those that were chosen are what they are.
    deviations: standard deviations (d,) of the features, or None where they were not measured.
    window, buckets: rows that were shuffled together, and how many buckets they were dealt into.
    target, weight: a column's name, or an array, which has no name to be remembered by.
    rows: those of an epoch. mass (K,): their weight by class.
    data: the files. origin: what is known of the models that this one goes on from.
    """

    options: dict[str, Any]
    reasons: dict[str, str]
    deviations: np.ndarray | None
    window: int | None
    buckets: int | None
    target: Any
    weight: Any
    rows: int
    mass: np.ndarray
    data: list[dict[str, Any]]
    origin: dict[str, Any]


def record_of(facts: RunFacts) -> dict[str, Any]:
    """Return the record of a run, as JSON can hold it."""
    total = float(facts.mass.sum())
    deviations = facts.deviations
    return {
        "options": facts.options,
        "reasons": facts.reasons,
        "deviations": None if deviations is None else [float(s) for s in deviations],
        "window": facts.window,
        "buckets": facts.buckets or None,
        "target": _column_name(facts.target),
        "weight": _column_name(facts.weight),
        "rows": facts.rows,
        "prior": [float(mass) / total for mass in facts.mass],
        "data": facts.data,
        **facts.origin,
        "versions": versions(),
    }


def _column_name(given: Any) -> str | None:
    return given if isinstance(given, str) else None
