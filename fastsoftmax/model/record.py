"""The only place that says what a model remembers of its run.

Nothing in it depends on the clock, the machine or paths: the same run is the same record.
"""

from __future__ import annotations

from reprlib import repr as brief  # what a damaged file says is of any length
from typing import Any

import numpy as np

from fastsoftmax.facts import dataclass
from fastsoftmax.model.strict_json import MalformedError, is_finite, is_number, is_text, require
from fastsoftmax.options import is_count
from fastsoftmax.version import versions

NULLS = ("error", "zero", "mean", "drop")


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run can say, once it is over, of how its model came about.

    options: those that shape the model, with the values that they had in the end. reasons: why
        those that were chosen are what they are.
    deviations: standard deviations (d,) of the features, or None where they were not measured.
    window, buckets: rows that were shuffled together, and how many buckets they were dealt into.
    target, weight: a column's name, or an array, which has no name to be remembered by.
    rows: those of an epoch. mass (K,): their weight by class.
    data: the files. ended: why no more steps were taken. gain, gain_error: nats that the optimum is
        estimated to lie below the objective of the model, and by how much that may be wrong.
    origin: what is known of the models that this one goes on from.
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
    ended: str
    gain: float | None
    gain_error: float | None
    origin: dict[str, Any]
    shards: int = 1


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
        **({"shards": facts.shards} if facts.shards > 1 else {}),
        "target": _column_name(facts.target),
        "weight": _column_name(facts.weight),
        "rows": facts.rows,
        "prior": [float(mass) / total for mass in facts.mass],
        "data": facts.data,
        "ended": facts.ended,
        "gain": facts.gain,
        "gain_error": facts.gain_error,
        **facts.origin,
        "versions": versions(),
    }


def _column_name(given: Any) -> str | None:
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return str(given)  # as pandas' numbers are called in Arrow
    return given if isinstance(given, str) else None


def is_epoch(told: object) -> bool:
    """Return whether it is what a model's history holds of an epoch."""
    if not isinstance(told, dict) or not all(v is None or is_number(v) for v in told.values()):
        return False
    said = {key for key, value in told.items() if value is not None}
    validated = "validation_log_loss" not in said or "validation_accuracy" in said
    return validated and said >= {"epoch", "rows", "log_loss", "accuracy"}


def check_record(told: object, K: int, d: int) -> dict[str, Any]:
    """Return what was told, where a model (K, d) may have that record; else raise MalformedError.

    What a reader of models does not use may be missing, or be more than is known here.
    """
    if not isinstance(told, dict):
        raise MalformedError("its record is malformed")
    _check_settings(told)
    _check_numbers(told, K, d)
    require(_are_rows(told.get("rows")), "its record has malformed rows")
    for key, fits in (("data", _is_entry), ("ledger", _is_entry), ("lineage", _is_parent)):
        listed = told.get(key, [])
        require(isinstance(listed, list) and all(map(fits, listed)), f"its {key} is malformed")
    return told


def _check_settings(told: dict[str, Any]) -> None:
    for key in ("target", "weight"):
        require(isinstance(told.get(key), str | None), f"its record has a malformed {key}")
    for key in ("options", "versions"):
        require(isinstance(told.get(key, {}), dict), f"its record has malformed {key}")
    nulls = told.get("options", {}).get("nulls", "error")
    require(nulls in NULLS, f"its record has an unknown treatment of nulls: {brief(nulls)}")


def _check_numbers(told: dict[str, Any], K: int, d: int) -> None:
    prior = told.get("prior")
    if prior is not None:
        shares = isinstance(prior, list) and all(is_number(p) and 0 <= p <= 1 for p in prior)
        require(shares and len(prior) == K, "its record has malformed class frequencies")
    deviations = told.get("deviations")
    if deviations is not None:
        spreads = isinstance(deviations, list) and all(is_finite(s) and s >= 0 for s in deviations)
        require(spreads and len(deviations) == d, "its record has malformed deviations")
    temperature = told.get("temperature", 1.0)
    require(is_finite(temperature) and temperature > 0, "its record has a malformed temperature")


def _is_entry(told: object) -> bool:
    """Return whether it is what a ledger holds of a file."""
    # A file's name need not be UTF-8.
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        return False
    digests = told.get("pieces", [])
    listed = isinstance(digests, list) and all(map(is_text, digests))
    return listed and is_count(told.get("rows"), 0)


def _is_parent(told: object) -> bool:
    if not isinstance(told, dict) or not is_text(told.get("sha256")):
        return False
    return is_count(told.get("epochs"), 0) and "rows" in told and _are_rows(told["rows"])


def _are_rows(told: object) -> bool:
    """Return whether it is a number of rows, or None where nobody knew."""
    return told is None or is_count(told, 0)
