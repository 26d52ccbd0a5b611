"""The only place for what a run tells of itself: sums over rows, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Progress:
    """Where a run stands; losses in nats, each taken before the row's own step."""

    epoch: int  # from 1
    epochs: int
    rows: int  # trained on in this epoch
    rows_per_epoch: int | None  # None for a one-pass reader
    rows_seen: int  # in the whole run
    seconds: float  # since training began, compiling excluded
    log_loss: float
    accuracy: float
    learning_rate: float  # of the next row
    validation_log_loss: float | None = None
    validation_accuracy: float | None = None
    finished: bool = False  # the epoch is done
    treated: dict[str, int] = field(default_factory=dict)  # nulls filled, categories unknown, ...

    def facts(self) -> dict[str, Any]:
        """Return what the model's history keeps of an epoch: rows and losses, no clock."""
        facts: dict[str, Any] = {
            "epoch": self.epoch,
            "rows": self.rows,
            "log_loss": self.log_loss,
            "accuracy": self.accuracy,
            "learning_rate": self.learning_rate,
        }
        if self.validation_log_loss is not None:
            facts["validation_log_loss"] = self.validation_log_loss
            facts["validation_accuracy"] = self.validation_accuracy
        return facts

    def __str__(self) -> str:
        line = f"epoch {self.epoch}/{self.epochs}: log-loss {self.log_loss:.4f}, accuracy "
        line += f"{self.accuracy:.4f}"
        if self.validation_log_loss is not None:
            line += f"; validation {self.validation_log_loss:.4f}, {self.validation_accuracy:.4f}"
        return line


@dataclass
class Sums:
    """Weighted loss, hits and weight of some rows; rows of weight 0 are not counted."""

    loss: float = 0.0
    hits: float = 0.0
    weight: float = 0.0
    rows: int = 0

    @classmethod
    def of(cls, tally: Any, weight: np.ndarray) -> Sums:
        """Return the facts of rows of these weights."""
        return cls(tally.loss, tally.hits, float(weight.sum()), int(np.count_nonzero(weight)))

    def add(self, other: Sums) -> None:
        """Add the facts of other rows."""
        self.loss += other.loss
        self.hits += other.hits
        self.weight += other.weight
        self.rows += other.rows

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy."""
        weight = self.weight or 1.0
        return self.loss / weight, self.hits / weight
