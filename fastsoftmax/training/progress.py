"""The only place for what a run tells of itself: where it stands."""

from __future__ import annotations

from dataclasses import field
from typing import TypedDict

from fastsoftmax.facts import dataclass


class _EveryEpoch(TypedDict):
    epoch: int
    rows: int
    log_loss: float
    accuracy: float
    learning_rate: float


class EpochFacts(_EveryEpoch, total=False):
    """What a model's history keeps of an epoch: rows and losses, no clock."""

    gain: float
    gain_error: float
    validation_log_loss: float
    validation_accuracy: float
    mixing: float


@dataclass(frozen=True)
class Progress:
    """Where a run stands; losses in nats, each taken before the row's own step."""

    epoch: int  # from 1
    epochs: int | None  # planned; None where the run ends when another is worth little
    rows: int  # trained on in this epoch
    rows_per_epoch: int | None  # None for a one-pass reader
    rows_seen: int  # in the whole run
    seconds: float  # of training, compiling excluded, those before it was resumed included
    log_loss: float
    accuracy: float
    learning_rate: float  # of the next row
    validation_log_loss: float | None = None
    validation_accuracy: float | None = None
    finished: bool = False  # the epoch is done
    gain: float | None = None  # nats that another epoch, or all further passes, may be worth
    gain_error: float | None = None  # the standard error of that, at most
    solver: str = "sgd"
    shards: tuple[int, int] | None = None  # of a pass, that are done, and how many there are
    treated: dict[str, int] = field(default_factory=dict)  # nulls filled, categories unknown, ...
    ended: str | None = None  # why the run ended, once it has

    def facts(self) -> EpochFacts:
        """Return what the model's history keeps of an epoch: rows and losses, no clock."""
        facts: EpochFacts = {
            "epoch": self.epoch,
            "rows": self.rows,
            "log_loss": self.log_loss,
            "accuracy": self.accuracy,
            "learning_rate": self.learning_rate,
        }
        if self.gain is not None:
            facts["gain"] = self.gain
        if self.gain_error is not None:
            facts["gain_error"] = self.gain_error
        if self.validation_log_loss is not None and self.validation_accuracy is not None:
            facts["validation_log_loss"] = self.validation_log_loss
            facts["validation_accuracy"] = self.validation_accuracy
        return facts

    @property
    def name(self) -> str:
        """What the epoch is called: a pass, where full gradients are taken."""
        kind = "epoch" if self.solver == "sgd" else "pass"
        return (
            f"{kind} {self.epoch}" if self.epochs is None else f"{kind} {self.epoch}/{self.epochs}"
        )

    def __str__(self) -> str:
        line = f"{self.name}: log-loss {self.log_loss:.4f}, accuracy "
        line += f"{self.accuracy:.4f}"
        if self.validation_log_loss is not None:
            line += f"; validation {self.validation_log_loss:.4f}, {self.validation_accuracy:.4f}"
        return line
