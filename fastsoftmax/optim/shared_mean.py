"""The only place for the weighted mean of arrays that several shards have found, each its own."""

from __future__ import annotations

import numpy as np

from fastsoftmax.facts import dataclass

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class SharedMean:
    """Arrays by name: those of one shard, or the sums of those of several times their weights.

    What is one shard's stays in the precision that it has, which is half the bytes to hand over.
    """

    values: Arrays
    weight: float
    is_sum: bool = False

    def __add__(self, other: SharedMean) -> SharedMean:
        """Return the sums over the shards of both."""
        values = self._summed()
        for name, found in other.values.items():
            if other.is_sum:
                values[name] += found
            else:
                values[name] += np.multiply(found, other.weight, dtype=np.float64)
        return SharedMean(values, self.weight + other.weight, is_sum=True)

    def mean(self) -> Arrays:
        """Return the mean of each array."""
        if not self.is_sum:
            return self.values
        # Where nobody counts, all are where they began.
        return {name: found / (self.weight or 1.0) for name, found in self.values.items()}

    def sums(self) -> Arrays:
        """Return the sum of each array times the weights, float64."""
        return self.values if self.is_sum else self._summed()

    def _summed(self) -> Arrays:
        """Return sums that more may be added to in place."""
        if self.is_sum:  # they are of no other use to anyone: merging is their last
            return self.values
        scaled = np.multiply
        return {
            name: scaled(found, self.weight, dtype=np.float64)
            for name, found in self.values.items()
        }
