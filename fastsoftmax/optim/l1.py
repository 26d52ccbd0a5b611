"""The only place for L1 penalties between steps: each weight pays what is due, and stops at 0.

Tsuruoka, Tsujii and Ananiadou, Stochastic Gradient Descent Training for L1-regularized Log-linear
Models with Cumulative Penalty, ACL 2009.
"""

from __future__ import annotations

import numpy as np


class Truncation:
    """L1 by cumulative penalties."""

    def __init__(self, l1: np.ndarray, K: int) -> None:
        """Begin with nothing due; l1 (d,): the penalty of each feature's weights."""
        self._l1 = l1
        self.due = np.zeros(1)  # the sum of step sizes so far, that l1 is multiplied by
        self.paid = np.zeros((K, len(l1)))  # what each weight received, with its sign

    def restart(self) -> None:
        """Begin anew, with nothing due."""
        self.due[:] = 0.0
        self.paid[:] = 0

    def apply(self, W: np.ndarray, step: float) -> None:
        """Bring weights (K, d) nearer 0 by what steps of so much in all make due."""
        self.due += step
        due = self.due * self._l1
        before = W.astype(np.float64)
        above = np.maximum(before - (due + self.paid), 0.0)
        below = np.minimum(before + (due - self.paid), 0.0)
        W[:] = np.where(before > 0, above, np.where(before < 0, below, 0.0))
        self.paid += W - before
