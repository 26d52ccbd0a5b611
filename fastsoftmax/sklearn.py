"""SoftmaxClassifier, in scikit-learn's words: the only room that imports sklearn."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from fastsoftmax.errors import (
    DataError,
    MissingExtraError,
    NotConverged,
    OptionError,
    TrainingInterrupted,
)
from fastsoftmax.labels import Classes, exact_labels, given_classes
from fastsoftmax.model.model import Model
from fastsoftmax.model.scoring import log_sum_exp, softmax
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.train import train

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as missing:
    raise MissingExtraError(
        'SoftmaxClassifier needs scikit-learn 1.6 or newer: pip install "fastsoftmax[sklearn]"'
    ) from missing


class SoftmaxClassifier(ClassifierMixin, BaseEstimator):
    """Multinomial logistic regression, as a scikit-learn classifier.

    solver: lbfgs goes to the optimum; sgd takes exact per-sample steps. max_iter: passes over the
    rows. tol: for lbfgs the share of the objective that may be left to gain; for sgd, stop when an
    epoch's progressive log-loss is not lower than the one before by this much. l2: `auto` chooses
    it on held-out rows; scikit-learn's C is 1 / (l2 rows). n_jobs: threads; None and -1 are all
    cores this process may use. random_state: None is seed 0, never random. class_weight:
    a dict or "balanced". warm_start: begin at the last fit's weights. The others are those of
    `fastsoftmax.train`; a step size of None is measured on the data.

    After fit: classes_, coef_ (K, d) and intercept_ (K,), or (1, d) and (1,) for two classes,
    n_iter_, loss_curve_ (progressive log-loss of each epoch), n_features_in_, feature_names_in_,
    and model_, the `fastsoftmax.Model`, to be saved and used without scikit-learn.
    """

    def __init__(
        self,
        *,
        solver: str = "lbfgs",
        max_iter: int = 200,
        learning_rate: float | str | None = None,
        schedule: str | None = None,
        halflife: float | None = None,
        batch_size: int = 1,
        average: bool | str = "auto",
        l2: float | str = "auto",
        fit_intercept: bool = True,
        tol: float | None = None,
        class_weight: dict[Any, float] | str | None = None,
        random_state: Any = None,
        n_jobs: int | None = None,
        warm_start: bool = False,
        verbose: int = 0,
        dtype: str = "float32",
        shuffle: str = "auto",
    ) -> None:
        self.solver = solver
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.halflife = halflife
        self.batch_size = batch_size
        self.average = average
        self.l2 = l2
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.class_weight = class_weight
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.verbose = verbose
        self.dtype = dtype
        self.shuffle = shuffle

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxClassifier:
        """Train max_iter epochs on X (n, d) and y (n,); return self.

        sample_weight (n,) >= 0 is measured in units of its mean positive value; a row of weight 0
        is not trained on. Raises ValueError where scikit-learn's own estimators do.
        """
        X, y = self._checked(X, y, reset=True)
        before = getattr(self, "classes_", None) if self.warm_start else None
        self.classes_, labels = np.unique(y, return_inverse=True)
        again = before is not None and np.array_equal(before, self.classes_)
        self._train(
            X, labels, self._weights(X, y, sample_weight), self.model_ if again else None,
            solver=self.solver,
            tolerance=self.tol if self.solver == "lbfgs" else None,
            epochs=self.max_iter,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            halflife=self.halflife,
            shuffle=self.shuffle,
            seed=self._seed(),
        )  # fmt: skip
        goes_on = self.solver == "lbfgs" or self.tol is not None  # until little is left to gain
        if goes_on and self.model_.record["ended"] == "epochs":
            warnings.warn(
                f"the fit ended by max_iter={self.max_iter} before it had converged: raise"
                " max_iter, or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self._with_losses([epoch["log_loss"] for epoch in self.model_.history])

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> SoftmaxClassifier:
        """Take one step for each row of X (n, d), in order; return self.

        classes: all labels there will be, needed at the first call. Weights are used as they come.
        The step is constant: learning_rate, or 1 / (1 + mean ||x||^2) of the first call's rows.
        """
        begins = not hasattr(self, "classes_")
        if begins and classes is None:
            raise ValueError("classes must be given at the first call of partial_fit")
        X, y = self._checked(X, y, reset=begins)
        known = self.classes_ if classes is None else np.unique(exact_labels(classes))
        _check_known(y, known, None if begins else self.classes_)
        self.classes_ = known
        if not hasattr(self, "_rate"):
            given = None if isinstance(self.learning_rate, str) else self.learning_rate
            self._rate = given or _constant_rate(X)
        self._train(
            X, np.searchsorted(known, y), self._weights(X, y, sample_weight),
            getattr(self, "model_", None),
            classes=range(len(known)),
            weights_as_given=True,
            epochs=1,
            learning_rate=self._rate,
            schedule="constant",
            shuffle="off",
            solver="sgd",
        )  # fmt: skip
        loss = self.model_.history[-1]["log_loss"]
        return self._with_losses([*getattr(self, "loss_curve_", []), loss])

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits (n, K) in float64, or for two classes (n,) the second's lead."""
        z = self._logits(X)
        return z[:, 1] - z[:, 0] if len(self.classes_) == 2 else z

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row (n,)."""
        z = self._logits(X)
        return self.classes_[z.argmax(axis=1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of the predictions for X (n, d), where y (n,) are the classes."""
        return float(super().score(X, exact_labels(y), sample_weight))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities (n, K) in float64, in the order of classes_."""
        return softmax(self._logits(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the probabilities (n, K)."""
        z = self._logits(X)
        return z - log_sum_exp(z)[:, None]

    @property
    def coef_(self) -> np.ndarray:
        """The weights in raw units: (K, d), or (1, d) for two classes."""
        return _folded(self.model_.coef)

    @property
    def intercept_(self) -> np.ndarray:
        """The biases: (K,), or (1,) for two classes."""
        return _folded(self.model_.intercept)

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        y = exact_labels(y)
        _refuse_masked(X, "X")
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), reset=reset)
        check_classification_targets(y)
        return X, y

    def _with_losses(self, losses: list[float]) -> SoftmaxClassifier:
        self.loss_curve_, self.n_iter_ = losses, len(losses)
        return self

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "model_")
        _refuse_masked(X, "X")
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False).astype(np.float64)
        model = self.model_
        if model.conditioning is not None:
            X = model.conditioning.apply(X)
        return X @ model.weights.T.astype(np.float64) + model.bias

    def _weights(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> np.ndarray | None:
        """Return sample_weight times class_weight, or None where there is neither."""
        if sample_weight is None and self.class_weight is None:
            return None
        _refuse_masked(sample_weight, "sample_weight")
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
        return weights * compute_sample_weight(self.class_weight, y)

    def _seed(self) -> int:
        if self.random_state is None:
            return 0
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _threads(self) -> int | None:
        if self.n_jobs is not None and self.n_jobs < -1:
            raise OptionError(f"n_jobs must be None, -1 or >= 1, got {self.n_jobs}")
        return None if self.n_jobs in (None, -1) else self.n_jobs

    def _train(
        self,
        X: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray | None,
        init: Model | None,
        **options: Any,
    ) -> None:
        """Train on class numbers, then let the model speak in the labels themselves."""
        if len(self.classes_) < 2:
            raise DataError(f"y has the one class {self.classes_[0]!r}: two are needed at least.")
        if init is not None:
            init = _with_classes(init, given_classes(range(len(self.classes_))))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotConverged)  # told in scikit-learn's terms
                model = train(
                    X, labels, weight=weights, init=init,
                    report=_Patience(self.tol if options["solver"] == "sgd" else None),
                    batch_size=self.batch_size, average=self.average, l2=self.l2, dtype=self.dtype,
                    fit_intercept=self.fit_intercept, threads=self._threads(),
                    verbose=bool(self.verbose), **options,
                )  # fmt: skip
        except TrainingInterrupted as stop:
            self.model_ = _with_classes(stop.model, _spoken(self.classes_))
            raise
        self.model_ = _with_classes(model, _spoken(self.classes_))


def _refuse_masked(values: Any, name: str) -> None:
    """Raise DataError for masked values: scikit-learn would use what lies below the mask."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise DataError(f"{name} has masked values; fill them, or leave their rows out.")


class _Patience:
    """Ends a run when the log-loss of an epoch is not lower by `tol` than that before."""

    def __init__(self, tol: float | None) -> None:
        self.tol, self.last = tol, np.inf

    def __call__(self, progress: Progress) -> bool:
        if self.tol is None or not progress.finished:
            return False
        gain, self.last = self.last - progress.log_loss, progress.log_loss
        return gain < self.tol


def _check_known(y: np.ndarray, known: np.ndarray, before: np.ndarray | None) -> None:
    """Raise ValueError where the classes are not those of the first call, or y has others."""
    if before is not None and not np.array_equal(known, before):
        raise ValueError(f"classes {known} are not those of the first call, {before}")
    strangers = np.setdiff1d(y, known)
    if len(strangers):
        raise ValueError(f"y has labels that are not in classes: {strangers[:5]}")


def _constant_rate(X: np.ndarray) -> float:
    """Return 1 / (1 + mean ||x||^2), the step for rows like these."""
    norms = np.einsum("ij,ij->i", X, X, dtype=np.float64)
    return 1.0 / (1.0 + float(norms.mean()))


def _folded(values: np.ndarray) -> np.ndarray:
    """Return rows for each class, or for two classes the second's minus the first's."""
    return values[1:] - values[:1] if len(values) == 2 else values


def _with_classes(model: Model, classes: Classes) -> Model:
    return Model.of(replace(model.parameters, classes=classes))


def _spoken(labels: np.ndarray) -> Classes:
    """Return the labels as Classes, or their numbers where a model file has no type for them."""
    try:
        return given_classes(labels.tolist())
    except DataError:
        return given_classes(range(len(labels)))
