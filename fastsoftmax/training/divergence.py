"""The only place that says when steps lead astray, and what to try instead."""

from __future__ import annotations

import math

from fastsoftmax.errors import DivergedError
from fastsoftmax.optim.tally import RunningLoss

WATCHED_ROWS = 8192  # rows whose mean loss tells whether training diverges
ABSURD = 100.0  # times the loss of guessing
SAFER = 10.0  # by which a step size that led astray is divided


def is_astray(watched: RunningLoss, K: int) -> bool:
    """Return whether the mean loss of the rows watched is far above that of guessing."""
    return watched.means()[0] > ABSURD * math.log(K)


def diverged(loss: str, seen: int, place: str, rate: float, norm: float) -> DivergedError:
    """Return the error that names the rows where it was seen, and a smaller step size.

    norm: the mean squared norm of those rows.
    """
    safe = min(0.5 / (1.0 + norm), rate / SAFER)
    return DivergedError(
        f"the loss is {loss} after {seen:,} rows, at the rows from {place}. The learning rate"
        f" ({rate:.3g}) is too high for these features: try learning_rate={safe:.2g}, or scale the"
        " features."
    )
