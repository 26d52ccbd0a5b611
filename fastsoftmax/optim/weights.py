"""The only place that owns weights: their layout and padding, and their mean over steps.

The rest of the house says get, set, zero and mean, in (K, d) and (K,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, final

import numpy as np

from fastsoftmax.kernels.operands import new_average, new_coefficients


class Weights(ABC):
    """W of K classes and d features, and b, as the kernels of a rule take them: `arrays`.

    sums: what kernels add W and b to at each step, where somebody must move them on in time.
    """

    K: int
    d: int
    dtype: np.dtype
    arrays: Any
    sums: list[Any]
    unsettled_rows: int = 0

    @abstractmethod
    def get(self) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of W (K, d) and b (K,) as they are now."""

    @abstractmethod
    def set(self, W: np.ndarray, b: np.ndarray) -> None:
        """Begin at W (K, d) and b (K,)."""

    @abstractmethod
    def change(self, act: Callable[[np.ndarray], None]) -> None:
        """Let something act on W (K, d) in place."""

    @abstractmethod
    def zero(self) -> None:
        """Begin at zeros, with nothing averaged."""

    @property
    @abstractmethod
    def is_averaged(self) -> bool:
        """Whether `mean` is that of some steps."""

    @property
    @abstractmethod
    def is_averaging(self) -> bool:
        """Whether steps to come count for the mean."""

    @property
    @abstractmethod
    def averaged_steps(self) -> float:
        """How many steps `mean` is of."""

    @abstractmethod
    def add_to_average(self, W: np.ndarray, b: np.ndarray, steps: float) -> None:
        """Count steps that were taken elsewhere in the mean: the sums of W (K, d) and b (K,)."""

    @abstractmethod
    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Return W (K, d) and b (K,): their mean over steps, as they are where there is none."""

    @abstractmethod
    def measured(self) -> Any:
        """Return the mean as kernels take it."""

    @abstractmethod
    def count(self, rows: int, steps: int) -> None:
        """Note that kernels added W to their sums at so many steps, on so many rows."""

    @abstractmethod
    def settle(self) -> None:
        """Have the mean be that of all steps so far."""

    @abstractmethod
    def drop_unsettled(self) -> None:
        """Forget the steps since the last settling."""

    @abstractmethod
    def restart_average(self) -> None:
        """Forget the steps averaged so far."""

    def average_steps(self, *, counts: bool) -> None:
        """Let steps to come count for the mean, or not, where that saves anything.

        To be called when nothing is averaged; after it `mean` may be the weights as they are.
        """

    def expect(self, names: Collection[str]) -> None:
        """Have `views` be those of these names, where they are not always the same."""

    @abstractmethod
    def views(self) -> dict[str, np.ndarray]:
        """Return the arrays that the next step depends on, by name; averages are settled."""


@final
class RowMajor(Weights):
    """W of K classes and d features, and b, as kernels take them: rows of whole vectors.

    arrays: W (K, width) and b (1, width). sums: what kernels add W and b to at each step, in the
    weights' dtype, one for each worker's features; None where nothing is averaged. These sums are
    short: `settle` moves them into float64 ones before they lose digits.
    """

    def __init__(
        self,
        K: int,
        d: int,
        dtype: np.dtype,
        *,
        columns: Sequence[tuple[int, int]] = (),
        block_rows: int = 0,
    ) -> None:
        """columns: each worker's features where steps are averaged, in blocks of so many rows."""
        self.K, self.d, self.dtype = K, d, dtype
        self.arrays = new_coefficients(K, d, dtype)
        self._short: list[Any] = [new_average(K, d, dtype, block_rows) for _ in columns]
        self.sums = self._short
        self._columns = columns
        self._total_W, self._total_b = np.zeros((K, d)), np.zeros(K)
        self._counted = np.zeros(1)  # steps in the totals; others are in the kernels' sums
        self.unsettled_rows, self._unsettled_steps = 0, 0

    def get(self) -> tuple[np.ndarray, np.ndarray]:
        """Return copies of W (K, d) and b (K,) as they are now."""
        return self.arrays.W[:, : self.d].copy(), self.arrays.b[0, : self.K].copy()

    def set(self, W: np.ndarray, b: np.ndarray) -> None:
        """Begin at W (K, d) and b (K,)."""
        self.arrays.W[:, : self.d] = W
        self.arrays.b[0, : self.K] = b

    def change(self, act: Callable[[np.ndarray], None]) -> None:
        """Let something act on W (K, d) in place."""
        act(self.arrays.W[:, : self.d])

    def zero(self) -> None:
        """Begin at zeros, with nothing averaged."""
        self.arrays.W[:] = 0
        self.arrays.b[0, : self.K] = 0
        self.restart_average()

    @property
    def is_averaged(self) -> bool:
        """Whether `mean` is that of some steps."""
        return bool(self._counted[0] > 0)

    @property
    def is_averaging(self) -> bool:
        """Whether steps to come count for the mean."""
        return bool(self.sums)

    @property
    def averaged_steps(self) -> float:
        """How many steps `mean` is of."""
        return float(self._counted[0])

    def add_to_average(self, W: np.ndarray, b: np.ndarray, steps: float) -> None:
        """Count steps that were taken elsewhere in the mean; see Weights."""
        self._total_W += W
        self._total_b += b
        self._counted += steps

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Return W (K, d) and b (K,), their mean over steps where there is one, else as they are.

        Of the steps, those before `settle` was last called: after an interrupt nobody knows how
        many more there were.
        """
        if not self.is_averaged:
            return self.get()
        totals = (self._total_W, self._total_b)
        W, b = (total / float(self._counted[0]) for total in totals)
        return W.astype(self.dtype), b.astype(self.dtype)

    def measured(self) -> Any:
        """Return the mean as kernels take it."""
        if not self.is_averaged:
            return self.arrays
        shown = new_coefficients(self.K, self.d, self.dtype)
        shown.W[:, : self.d], shown.b[0, : self.K] = self.mean()
        return shown

    def count(self, rows: int, steps: int) -> None:
        """Note that kernels added W to their sums at so many steps, on so many rows."""
        self.unsettled_rows += rows
        self._unsettled_steps += steps

    def settle(self) -> None:
        """Move the kernels' short sums into float64 ones, before they lose digits."""
        if not self.unsettled_rows:
            return
        self._total_b += self._short[0].b[0, : self.K]
        for short, (first, stop) in zip(self._short, self._columns, strict=True):
            self._total_W[:, first:stop] += short.W[:, first:stop]
        self._counted += self._unsettled_steps
        self.drop_unsettled()

    def drop_unsettled(self) -> None:
        """Empty the kernels' short sums."""
        self.unsettled_rows, self._unsettled_steps = 0, 0
        for short in self._short:
            short.W[:] = 0
            short.b[0, : self.K] = 0

    def average_steps(self, *, counts: bool) -> None:
        """Have kernels add to the sums, or leave them alone; see Weights."""
        self.sums = self._short if counts else []

    def restart_average(self) -> None:
        """Forget the steps averaged so far."""
        self.drop_unsettled()
        if self.is_averaged:
            self._total_W[:], self._total_b[:] = 0, 0
        self._counted[:] = 0

    def views(self) -> dict[str, np.ndarray]:
        """Return the arrays that the next step depends on, by name; averages are settled."""
        return {
            "W": self.arrays.W[:, : self.d],
            "b": self.arrays.b[0, : self.K],
            "total_W": self._total_W,
            "total_b": self._total_b,
            "counted": self._counted,
        }
