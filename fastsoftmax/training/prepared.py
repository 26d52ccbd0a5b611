"""The only place that says what a run works with once it has looked at its first rows."""

from __future__ import annotations

from dataclasses import field

import numpy as np

from fastsoftmax.facts import dataclass
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.optim.moments import Moments
from fastsoftmax.optim.objective import ElasticNet
from fastsoftmax.optim.passes import Drawing
from fastsoftmax.optim.state import array


@dataclass
class Prepared:
    """What `prepare` chose: see there. units (d,) turn an l2 into penalties of features.

    memory: the budget at the time, by which full gradients are preconditioned. drawing: how the
    first pass drew its sample, where it changed the scale. notes: why each option that was chosen
    is what it is.
    """

    scaling: Scaling | None
    moments: Moments | None
    l1: float
    memory: int
    units: np.ndarray = array("d")
    l2: float = 0.0
    drawing: Drawing | None = None
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def penalties(self) -> ElasticNet:
        """The penalties of each feature's weights, in the units of these."""
        l1 = np.full(len(self.units), self.l1)
        return ElasticNet(
            self.l2 * self.units, l1 if self.scaling is None else l1 * np.sqrt(self.units)
        )

    @property
    def squares(self) -> np.ndarray | None:
        """The mean squares (d,) of the features as scaled, where they were measured."""
        if self.moments is None or self.scaling is None:
            return None
        return self.moments.squares(self.scaling)
