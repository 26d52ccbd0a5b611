"""The only place for what a model is: its weights and all that is needed to use them."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import numpy as np

from fastsoftmax.data.source import Column
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes
from fastsoftmax.model.scaling import Scaling


@dataclass(frozen=True, eq=False)
class Parameters:
    """Weights W (K, d) and biases b (K,) of p = softmax(W x + b), and what says what they mean.

    columns: None where the training data had no names. scaling: what x is brought to before W
    meets it, or None where it is used as it comes. history, record: as `Model` has them.
    """

    weights: np.ndarray
    bias: np.ndarray
    classes: Classes
    columns: tuple[Column, ...] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    scaling: Scaling | None = None

    def raw(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (K, d) and biases (K,) for features as they come, float64."""
        if self.scaling is None:
            return self.weights.astype(np.float64), self.bias.astype(np.float64)
        return self.scaling.raw(self.weights, self.bias)

    @property
    def coef(self) -> np.ndarray:
        """The weights (K, d) in raw units, float64."""
        return self.raw()[0]

    @property
    def intercept(self) -> np.ndarray:
        """The biases (K,) in raw units, float64."""
        return self.raw()[1]

    @property
    def n_features(self) -> int:
        """How many numbers a row has."""
        return int(self.weights.shape[1])

    @property
    def is_sparse(self) -> bool:
        """Whether some of the columns are rows of which most numbers are 0."""
        columns = self.columns or ()
        return any(each.sparse is not None or each.text is not None for each in columns)

    @property
    def has_texts(self) -> bool:
        """Whether some of the columns are texts."""
        return any(column.text is not None for column in self.columns or ())

    @property
    def feature_index(self) -> np.ndarray:
        """Which of the numbers of its column each feature (d,) is, int64; one more for nulls."""
        if self.columns is None:
            return np.arange(self.n_features)
        return np.concatenate([_numbers_of(column) for column in self.columns])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the weights, in which predictions are computed."""
        return self.weights.dtype

    @property
    def nulls(self) -> str:
        """What becomes of a row's nulls: error, zero, mean or drop, as in training."""
        return str(self.record.get("options", {}).get("nulls", "error"))

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """The files that it was trained on, and the models before it: names and digests."""
        known = [*self.record.get("ledger", []), *self.record.get("data", [])]
        return [entry for entry in known if "pieces" in entry]

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The d names of the features, or None where the training data had none."""
        if self.columns is None:
            return None
        return tuple(name for column in self.columns for name in column.feature_names)

    @property
    def deviations(self) -> np.ndarray | None:
        """The standard deviations (d,) of the features in training, or None where not known."""
        known = self.record.get("deviations")
        return None if known is None else np.array(known, dtype=np.float64)


def _numbers_of(column: Column) -> np.ndarray:
    """Return which numbers of a column's rows are its features."""
    if column.sparse is None:
        return np.arange(column.n_features)
    nulls = [column.sparse.width] if column.indicator else []
    return np.append(column.sparse.index, np.array(nulls, np.int64))
