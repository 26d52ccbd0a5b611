"""The only place for penalties that act on weights beside a row's own step."""

from __future__ import annotations

import numpy as np

from fastsoftmax.optim.l1 import Truncation

ALIKE = 1e-9  # of the largest: penalties that differ by less are one number


class Penalties:
    """The penalties (d,) of each feature's weights.

    Where l2 is the same for all, `l2` is that number and a row's own step shrinks the weights,
    which is exact. Else l2 is 0.0 and they shrink after each stretch of rows, by what these add up
    to; so they do under l1. A kernel that lets them act by itself is given them as `own`: (d,), or
    (0,) where it has none to let act.
    """

    def __init__(self, K: int, l2: np.ndarray, l1: np.ndarray, *, by_kernel: bool = False) -> None:
        """Begin with nothing due; by_kernel: the kernel lets l2 act, where there is no l1."""
        alike = np.ptp(l2) <= ALIKE * l2.max(initial=0.0)
        self.l2 = float(l2.mean()) if alike else 0.0
        self._l1 = Truncation(l1, K) if l1.any() else None
        is_own, inside = not alike, by_kernel and self._l1 is None
        self.own = l2.astype(np.float64) if is_own and inside else np.zeros(0)
        self._between = l2 if is_own and not inside else None

    @property
    def act_between(self) -> bool:
        """Whether weights shrink between calls of a kernel."""
        return self._between is not None or self._l1 is not None

    def shrink(self, W: np.ndarray, step: float) -> None:
        """Let them act on weights (K, d) for steps of so much in all."""
        if self._between is not None:
            W *= np.maximum(0.0, 1.0 - self._between * step).astype(W.dtype)
        if self._l1 is not None:
            self._l1.apply(W, step)

    def restart(self) -> None:
        """Begin anew, with nothing due."""
        if self._l1 is not None:
            self._l1.restart()

    def views(self) -> dict[str, np.ndarray]:
        """Return the arrays that the next step depends on, by name."""
        return {} if self._l1 is None else {"due": self._l1.due, "paid": self._l1.paid}
