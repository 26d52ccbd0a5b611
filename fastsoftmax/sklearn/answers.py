"""The only place for what a fitted estimator answers: classes, probabilities, weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from fastsoftmax.errors import DataError
from fastsoftmax.labels import exact_labels
from fastsoftmax.model.model import Model
from fastsoftmax.model.scoring import log_sum_exp, softmax
from fastsoftmax.sklearn.given import rows_of, takes_texts, told_as_ours

SHORTER = 2.0**-500  # what takes rows whose logits do not fit float64 within it, rounding nothing


class Answers(ClassifierMixin):
    """What a classifier of ours answers once it has `model_` and `classes_`."""

    model_: Model
    classes_: np.ndarray

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits (n, K) in float64, or for two classes (n,) the second's lead."""
        z = self._logits(X, exact=True)
        return z[:, 1] - z[:, 0] if len(self.classes_) == 2 else z

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        z = self._logits(X)
        return self.classes_[z.argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities (n, K) in float64, in the order of classes_."""
        return softmax(self._logits(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the probabilities (n, K)."""
        z = self._logits(X, exact=True)
        return z - log_sum_exp(z)[:, None]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows whose class is predicted."""
        with told_as_ours():
            return super().score(X, exact_labels(y), sample_weight)

    @property
    def coef_(self) -> np.ndarray:
        """The weights in raw units: (K, d), or (1, d) for two classes."""
        return folded(coef_of_all(self.model_, getattr(self, "n_features_in_", 0)))

    @property
    def intercept_(self) -> np.ndarray:
        """The biases: (K,), or (1,) for two classes."""
        return folded(self.model_.intercept)

    def _logits(self, X: Any, *, exact: bool = False) -> np.ndarray:
        """Return the logits (n, K) in float64.

        Those of a row that do not fit are of a row so much shorter, which tells the most probable
        class and, their differences being what they are, its probability; exact: raise DataError.
        """
        check_is_fitted(self, "model_")
        X, model = rows_of(self, X), self.model_
        if takes_texts(self):
            return model.decision_function(X).astype(np.float64)
        X = X.astype(np.float64)
        if issparse(X) or model.parameters.is_sparse:
            return _sparse_logits(model, X)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = X if model.conditioning is None else model.conditioning.apply(X)
            z = scaled @ model.weights.T.astype(np.float64) + model.bias
            far = ~np.isfinite(z).all(axis=1)
            if far.any() and not exact:
                z[far] = (X[far] * SHORTER) @ model.coef.T + model.intercept * SHORTER
        return _finite_logits(z)


def _sparse_logits(model: Model, X: Any) -> np.ndarray:
    """Return the logits (n, K) in float64, where the rows or those of training are sparse."""
    if model.parameters.is_sparse:
        X = X[:, model.feature_index]
    with np.errstate(over="ignore", invalid="ignore"):
        z = np.asarray(X @ model.coef.T + model.intercept)
    return _finite_logits(z)


def _finite_logits(z: np.ndarray) -> np.ndarray:
    """Return logits, or raise DataError where they do not fit float64."""
    lost = ~np.isfinite(z).all(axis=1)
    if lost.any():
        raise DataError(
            f"row {int(lost.argmax())}: the features are so large that their logits do not fit"
            " float64. Check them, or scale them before training."
        )
    return z


def coef_of_all(model: Model, width: int) -> np.ndarray:
    """Return the weights (K, width), 0 for the features of sparse rows that no row had.

    Those of a model of texts are of the n-grams, and of the numbers beside them: (K, d).
    """
    if not model.parameters.is_sparse or model.parameters.has_texts:
        return model.coef
    coef = np.zeros((len(model.classes_), width))
    coef[:, model.feature_index] = model.coef
    return coef


def folded(values: np.ndarray) -> np.ndarray:
    """Return rows for each class, or for two classes the second's minus the first's."""
    return values[1:] - values[:1] if len(values) == 2 else values
