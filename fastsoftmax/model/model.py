"""The only place for what a model is: its weights and all that is needed to use them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastsoftmax.data.source import Column
from fastsoftmax.labels import Classes
from fastsoftmax.model.scaling import Scaling


class Model:
    """Softmax regression that has been trained: z = W x + b, p = softmax(z).

    weights (K, d), bias (K,): what was trained, in its own dtype; read-only. conditioning: what the
        features are brought to before W meets them, or None where they are used as they come.
    classes_: the K classes in order. columns: the feature columns, or None where the training data
        had no names; features are then matched by position.
    history: a dict for each epoch: epoch, rows, log_loss, accuracy, learning_rate and, with
        validation, validation_log_loss and validation_accuracy.
    unaveraged: where training averaged the weights over steps, the model of the last step instead,
        for as long as this one is in memory; it is not saved with it.
    record: how it came about: options, target, weight, data, rows, prior, versions, deviations of
        the features, temperature; where it began at another model: the lineage, and the ledger of
        the data that those before it were trained on.
    """

    def __init__(
        self,
        weights: np.ndarray,
        bias: np.ndarray,
        classes: Classes,
        columns: tuple[Column, ...] | None = None,
        history: list[dict[str, Any]] | None = None,
        record: dict[str, Any] | None = None,
        conditioning: Scaling | None = None,
    ) -> None:
        """Take over the arrays; they are not copied."""
        self.weights = _read_only(weights)
        self.bias = _read_only(bias)
        self.classes_ = classes
        self.columns = columns
        self.history = [] if history is None else history
        self.record = {} if record is None else record
        self.conditioning = conditioning
        self.unaveraged: Model | None = None

    @property
    def coef(self) -> np.ndarray:
        """The weights (K, d) in raw units, float64."""
        return self._raw()[0]

    @property
    def intercept(self) -> np.ndarray:
        """The biases (K,) in raw units, float64."""
        return self._raw()[1]

    def _raw(self) -> tuple[np.ndarray, np.ndarray]:
        if self.conditioning is None:
            return self.weights.astype(np.float64), self.bias.astype(np.float64)
        return self.conditioning.raw(self.weights, self.bias)

    @property
    def classes(self) -> np.ndarray:
        """The classes (K,) in the labels' own type, in the order of the rows of `coef`."""
        return self.classes_.array()

    @property
    def n_features(self) -> int:
        """How many numbers a row has."""
        return int(self.weights.shape[1])

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

    def top_features(self, n: int = 5) -> dict[Any, list[tuple[str | int, float]]]:
        """Return for each class the n features of largest weight, largest first, with that weight.

        Features go by name, or by index where they have none. Weights are per standard deviation
        of the feature where `deviations` are known, else per unit of it; those of 0 are left out.
        """
        from fastsoftmax.model import ranking

        return ranking.top_features(self, n)

    def predict(self, data: Any) -> np.ndarray:
        """Return the most probable class of each row (n,), in the labels' own type."""
        from fastsoftmax.model import scoring

        return scoring.predict(self, data)

    def predict_proba(self, data: Any) -> np.ndarray:
        """Return the probabilities (n, K), in the order of `classes`."""
        from fastsoftmax.model import scoring

        return scoring.probabilities(self, data)

    def predict_log_proba(self, data: Any) -> np.ndarray:
        """Return the logarithms of the probabilities (n, K)."""
        from fastsoftmax.model import scoring

        return scoring.log_probabilities(self, data)

    def decision_function(self, data: Any) -> np.ndarray:
        """Return the logits z = W x + b (n, K)."""
        from fastsoftmax.model import scoring

        return scoring.decision(self, data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to `path`, as a whole or not at all; raise SaveError if that fails."""
        from fastsoftmax.model import file

        file.save_model(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read a model from `path`; raise ModelFileError if it is not one, or a damaged one."""
        from fastsoftmax.model import file

        return file.load_model(path)

    def __repr__(self) -> str:
        """Say what the model separates, from what."""
        epochs = f", {len(self.history)} epochs" if self.history else ""
        sizes = f"{len(self.classes_)} classes, {self.n_features} features"
        return f"<Model: {sizes}, {self.dtype}{epochs}>"


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model from `path`; raise ModelFileError if it is not one, or a damaged one."""
    return Model.load(path)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
