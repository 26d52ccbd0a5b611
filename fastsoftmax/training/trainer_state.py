"""The only place that says what the rest of a run depends on, beside its options and data."""

from __future__ import annotations

from dataclasses import field, fields

from fastsoftmax.facts import dataclass
from fastsoftmax.optim.optimizer import OptimizerState
from fastsoftmax.training.learner_state import LearnerState
from fastsoftmax.training.progress import Progress


@dataclass
class Place:
    """Where a run stands: in a phase (steps, finish or done), and there in an epoch and window, at
    the row of its order that comes next.
    """

    phase: str = "steps"
    epoch: int = 0
    window: int = 0
    row: int = 0

    @property
    def is_inside(self) -> bool:
        """Whether an epoch has begun and not ended."""
        return self.window > 0 or self.row > 0

    def enter(self, window: int) -> None:
        """Stand at the first row of a window of the epoch."""
        self.window, self.row = window, 0

    def enter_epoch(self, epoch: int) -> None:
        """Stand at the first row of an epoch."""
        self.epoch, self.window, self.row = epoch, 0, 0

    def leave(self, phase: str) -> None:
        """Go on to the next phase, if this is the one."""
        if self.phase == phase:
            self.phase = {"steps": "finish"}.get(phase, "done")


@dataclass
class GoodState:
    """Where to go back to when steps lead astray: the rows visited, and the learner as it was."""

    visited: int
    learner: LearnerState


@dataclass
class TrainerState:
    """visited: rows, in all epochs. halving: those at which the worse learners are given up next.

    plan: kind, window, buckets and first of the order of rows. spent: seconds of training. last: of
    an epoch or pass that is done. dropped: learners that were given up, and why. mixing: the sums
    so far of the epoch's. learners: filled when the state is kept.
    """

    plan: tuple[str, int, int, int]
    halving: int
    place: Place = field(default_factory=Place)
    visited: int = 0
    retreats: int = 0
    warned_of_loss: bool = False
    warned_of_mixing: bool = False
    spent: float = 0.0
    last: Progress | None = None
    dropped: list[tuple[int, str]] = field(default_factory=list)
    mixing: tuple[int, float] | None = None
    optimizer: OptimizerState | None = None
    good: GoodState | None = None
    learners: list[LearnerState] = field(default_factory=list)

    def visit(self, rows: int) -> None:
        """Note that the next rows of the window took their steps."""
        self.place.row += rows
        self.visited += rows

    def become(self, other: TrainerState) -> None:
        """Take over all of another state; who holds this one holds that."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))
