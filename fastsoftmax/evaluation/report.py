"""The only place that says what is told of a model that was judged."""

from __future__ import annotations

import math
from dataclasses import asdict, field
from typing import Any

import numpy as np

from fastsoftmax.evaluation.metrics import Bin, ClassScore
from fastsoftmax.facts import dataclass


@dataclass(frozen=True)
class Report:
    """How well a model predicts, beside what the training class frequencies alone would do.

    rows: those of positive weight; every other number is weighted. log_loss, log_loss_prior:
        means in nats; log_loss_prior is None where the model does not know the frequencies, and
        infinite where a row has a class that training never saw.
    macro_f1: over classes that have rows or predictions. weighted_f1: by the weight of their rows.
    top_k_accuracy: of the rows whose class is among the top_k most probable, of equal ones the
        first; None where top_k is.
    calibration_error: expected |accuracy - confidence|, over the bins of `reliability`.
    per_class: K scores. confusion: (K, K) weights of rows of class i taken for j; None for more
        than 1,000 classes.
    treated: nulls filled, categories unknown, rows dropped.
    """

    rows: int
    log_loss: float
    accuracy: float
    log_loss_prior: float | None
    macro_f1: float
    weighted_f1: float
    top_k: int | None
    top_k_accuracy: float | None
    calibration_error: float
    reliability: tuple[Bin, ...] = field(repr=False)
    per_class: tuple[ClassScore, ...] = field(repr=False)
    confusion: np.ndarray | None = field(repr=False, compare=False)
    treated: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them: infinite losses are None, tables lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        """Say it in one line."""
        prior = ""
        if self.log_loss_prior is not None:
            prior = f" (class frequencies alone: {self.log_loss_prior:.4f})"
        return (
            f"{self.rows:,} rows: log-loss {self.log_loss:.4f}{prior}, "
            f"accuracy {100 * self.accuracy:.2f} %"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
