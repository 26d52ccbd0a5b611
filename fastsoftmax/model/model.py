"""The only place for the face of a model: what users construct, ask, save and load."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import numpy as np

from fastsoftmax.data.source import Column
from fastsoftmax.errors import OptionError
from fastsoftmax.labels import Classes
from fastsoftmax.model import file, ranking, scoring, shard_scoring
from fastsoftmax.model.parameters import Parameters
from fastsoftmax.model.scaling import Scaling
from fastsoftmax.options import Sharding


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

    @classmethod
    def of(cls, parameters: Parameters) -> Model:
        """Return the model of these parameters, which are not copied."""
        return cls(
            parameters.weights,
            parameters.bias,
            parameters.classes,
            parameters.columns,
            parameters.history,
            parameters.record,
            parameters.scaling,
        )

    @property
    def parameters(self) -> Parameters:
        """What the model is now, as a value; nothing is copied."""
        return Parameters(
            self.weights,
            self.bias,
            self.classes_,
            self.columns,
            self.history,
            self.record,
            self.conditioning,
        )

    @property
    def coef(self) -> np.ndarray:
        """The weights (K, d) in raw units, float64."""
        return self.parameters.coef

    @property
    def intercept(self) -> np.ndarray:
        """The biases (K,) in raw units, float64."""
        return self.parameters.intercept

    @property
    def classes(self) -> np.ndarray:
        """The classes (K,) in the labels' own type, in the order of the rows of `coef`."""
        return self.classes_.array()

    @property
    def n_features(self) -> int:
        """How many numbers a row has."""
        return self.parameters.n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the weights, in which predictions are computed."""
        return self.weights.dtype

    @property
    def nulls(self) -> str:
        """What becomes of a row's nulls: error, zero, mean or drop, as in training."""
        return self.parameters.nulls

    @property
    def ledger(self) -> list[dict[str, Any]]:
        """The files that it was trained on, and the models before it: names and digests."""
        return self.parameters.ledger

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The d names of the features, or None where the training data had none."""
        return self.parameters.feature_names

    @property
    def feature_index(self) -> np.ndarray:
        """Which of the numbers of its column each feature (d,) is, int64; of sparse columns those
        alone are features that were not 0 in all rows.
        """
        return self.parameters.feature_index

    @property
    def deviations(self) -> np.ndarray | None:
        """The standard deviations (d,) of the features in training, or None where not known."""
        return self.parameters.deviations

    def top_features(self, n: int = 5) -> dict[Any, list[tuple[str | int, float]]]:
        """Return for each class the n features of largest weight, largest first, with that weight.

        Features go by name, or by index where they have none. Weights are per standard deviation
        of the feature where `deviations` are known, else per unit of it; those of 0 are left out.
        """
        return ranking.top_features(self.parameters, n)

    def predict(
        self, data: Any, *, shards: int | str | None = None, workers: Any = None
    ) -> np.ndarray:
        """Return the most probable class of each row (n,), in the labels' own type.

        shards, workers: score parts of the rows at once, as in `train`; here and below.
        """
        if shards is None and workers is None:
            return scoring.predict(self.parameters, data)
        return self._in_shards(data, shard_scoring.PREDICT, shards, workers)

    def predict_proba(
        self, data: Any, *, shards: int | str | None = None, workers: Any = None
    ) -> np.ndarray:
        """Return the probabilities (n, K), in the order of `classes`."""
        if shards is None and workers is None:
            return scoring.probabilities(self.parameters, data)
        return self._in_shards(data, shard_scoring.PROBA, shards, workers)

    def predict_log_proba(
        self, data: Any, *, shards: int | str | None = None, workers: Any = None
    ) -> np.ndarray:
        """Return the logarithms of the probabilities (n, K)."""
        if shards is None and workers is None:
            return scoring.log_probabilities(self.parameters, data)
        return self._in_shards(data, shard_scoring.LOG_PROBA, shards, workers)

    def decision_function(
        self, data: Any, *, shards: int | str | None = None, workers: Any = None
    ) -> np.ndarray:
        """Return the logits z = W x + b (n, K)."""
        if shards is None and workers is None:
            return scoring.decision(self.parameters, data)
        return self._in_shards(data, shard_scoring.DECISION, shards, workers)

    def _in_shards(self, data: Any, kind: str, shards: int | str | None, workers: Any) -> Any:
        sharding = Sharding(shards=shards, workers=workers)
        return shard_scoring.predicted(self.parameters, data, kind, sharding)

    def to_sklearn(self) -> Any:
        """Return a fitted scikit-learn LogisticRegression that takes the d features as numbers.

        One column for each of `feature_names`: nulls and categories are the caller's to encode. Of
        a sparse matrix it takes all columns.
        """
        # The one room that may import scikit-learn stands above this one, and is asked by its name.
        return import_module("fastsoftmax.sklearn").logistic_regression(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to `path`, as a whole or not at all; raise SaveError if that fails."""
        file.save_model(self.parameters, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read a model from `path`; raise ModelFileError if it is not one, or a damaged one."""
        return cls.of(file.load_model(path))

    def __repr__(self) -> str:
        """Say what the model separates, from what."""
        count = len(self.history)
        epochs = f", {count} epoch{'s' if count > 1 else ''}" if count else ""
        sizes = f"{len(self.classes_)} classes, {self.n_features} features"
        return f"<Model: {sizes}, {self.dtype}{epochs}>"


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model from `path`; raise ModelFileError if it is not one, or a damaged one."""
    return Model.load(path)


def require_model(value: object, name: str = "model") -> None:
    """Raise OptionError where what is given for a model is none."""
    if not isinstance(value, Model):
        raise OptionError(
            f"{name} must be a Model, as train returns it or load reads it, got {value!r:.100}"
        )


def _read_only(array: np.ndarray) -> np.ndarray:
    # Weights of sparse rows lie feature by feature, in which way they are used.
    view = (array if array.flags.f_contiguous else np.ascontiguousarray(array)).view()
    view.flags.writeable = False
    return view
