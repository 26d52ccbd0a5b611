"""The only place for penalties that act on weights beside a row's own step."""

from __future__ import annotations

import numpy as np

from fastsoftmax.optim.l1 import Truncation

SHRINK_ROWS = 1024  # after which weights shrink where features have penalties of their own
# As many where little is due. Windows are whole multiples: where they are cut changes nothing.
MOST_SHRINK_ROWS = 4096
SMALL = 1 / 256  # of a weight, that may be due
ALIKE = 1e-9  # of the largest: penalties that differ by less are one number


class Penalties:
    """The penalties (d,) of each feature's weights.

    Where l2 is the same for all, `l2` is that number and a row's own step shrinks the weights,
    which is exact. Else l2 is 0.0 and they shrink after each call of a kernel, by what its rows add
    up to; so they do under l1.
    """

    def __init__(self, K: int, l2: np.ndarray, l1: np.ndarray) -> None:
        """Begin with nothing due."""
        alike = np.ptp(l2) <= ALIKE * l2.max(initial=0.0)
        self.l2 = float(l2.mean()) if alike else 0.0
        self._own, self._highest = None if alike else l2, float(l2.max(initial=0.0))
        self._l1 = Truncation(l1, K) if l1.any() else None

    @property
    def act_between(self) -> bool:
        """Whether weights shrink between calls of a kernel."""
        return self._own is not None or self._l1 is not None

    def rows_between(self, step: float) -> int:
        """Return after how many rows weights shrink, of MOST_SHRINK_ROWS with no step above `step`.

        All of them where even then next to nothing is due: a call of a kernel takes as long as a
        hundred rows of few features.
        """
        is_little = MOST_SHRINK_ROWS * step * self._highest <= SMALL
        return MOST_SHRINK_ROWS if is_little and self._l1 is None else SHRINK_ROWS

    def shrink(self, W: np.ndarray, step: float) -> None:
        """Let them act on weights (K, d) for steps of so much in all."""
        if self._own is not None:
            W *= np.maximum(0.0, 1.0 - self._own * step).astype(W.dtype)
        if self._l1 is not None:
            self._l1.apply(W, step)

    def restart(self) -> None:
        """Begin anew, with nothing due."""
        if self._l1 is not None:
            self._l1.restart()

    def views(self) -> dict[str, np.ndarray]:
        """Return the arrays that the next step depends on, by name."""
        return {} if self._l1 is None else {"due": self._l1.due, "paid": self._l1.paid}
