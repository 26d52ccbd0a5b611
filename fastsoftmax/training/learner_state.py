"""The only place that says what the next step of a learner depends on."""

from __future__ import annotations

from dataclasses import field

import numpy as np

from fastsoftmax.facts import dataclass
from fastsoftmax.optim.schedules import Schedule
from fastsoftmax.optim.state import array
from fastsoftmax.optim.tally import RunningLoss
from fastsoftmax.training.divergence import WATCHED_ROWS
from fastsoftmax.training.prepared import Prepared
from fastsoftmax.training.progress import EpochFacts


@dataclass
class FoundWeights:
    """Weights that are not those of the last step; loss: by which they were the best, or 0."""

    loss: float
    W: np.ndarray = array("K", "d", dtype="weights")
    b: np.ndarray = array("K", dtype="weights")

    @property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """W and b."""
        return self.W, self.b


@dataclass
class LearnerState:
    """seen: rows that took a step. epoch_loss: of this epoch; recent_loss: since the worse learners
    were last given up; watched_loss: since divergence was last looked for.

    first_rate: the first step size of this epoch. is_found: full gradients have come to their end.
    is_over: another epoch is worth too little, and ended says why. waited: epochs since the best
    one. found: by full gradients. drift: by which rounds of shards go further than they led. views:
    of what takes the steps, filled when the state is kept.
    """

    history: list[EpochFacts] = field(default_factory=list)
    seen: int = 0
    epoch_loss: RunningLoss = field(default_factory=RunningLoss)
    recent_loss: RunningLoss = field(default_factory=RunningLoss)
    watched_loss: RunningLoss = field(default_factory=RunningLoss)
    first_rate: float | None = None
    is_found: bool = False
    is_over: bool = False
    waited: int = 0
    ended: str | None = None
    best: FoundWeights | None = None
    found: FoundWeights | None = None
    schedule: Schedule | None = None
    prepared: Prepared | None = None
    drift: dict[str, np.ndarray] = field(default_factory=dict)
    views: dict[str, np.ndarray] = field(default_factory=dict)

    def begin_epoch(self) -> None:
        """Start the sums of an epoch."""
        self.epoch_loss, self.first_rate = RunningLoss(), None

    def add(self, these: RunningLoss) -> None:
        """Add the facts of rows that took their steps."""
        self.epoch_loss += these
        self.recent_loss += these

    def watched(self, these: RunningLoss, *, is_due: bool) -> RunningLoss | None:
        """Return the facts of the rows since divergence was last looked for, if it is time."""
        self.watched_loss += these
        if not is_due and self.watched_loss.rows < WATCHED_ROWS:
            return None
        watched, self.watched_loss = self.watched_loss, RunningLoss()
        return watched
