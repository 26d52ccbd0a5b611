"""The only place for SoftmaxClassifier: a model that fits and predicts in scikit-learn's words."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from fastsoftmax.errors import (
    DataError,
    FastsoftmaxError,
    MissingExtraError,
    NotConverged,
    OptionError,
    TrainingInterrupted,
)
from fastsoftmax.labels import Classes, exact_labels, given_classes
from fastsoftmax.model.model import Model
from fastsoftmax.model.scoring import log_sum_exp, softmax
from fastsoftmax.options import TrainOptions, is_count
from fastsoftmax.sklearn.conventions import Conventions, FitTasks, with_callbacks
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.train import train

try:
    from scipy.sparse import issparse
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning, NotFittedError
    from sklearn.linear_model import LogisticRegression
    from sklearn.utils import check_random_state
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as missing:
    raise MissingExtraError(
        'this needs scikit-learn 1.6 or newer: pip install "fastsoftmax[sklearn]"'
    ) from missing

ROWS: dict[str, Any] = {"dtype": (np.float64, np.float32), "accept_sparse": "csr"}
SHORTER = 2.0**-500  # what takes rows whose logits do not fit float64 within it, rounding nothing


class SoftmaxClassifier(Conventions, ClassifierMixin, BaseEstimator):
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
    and model_, the `fastsoftmax.Model`, to be saved and used without scikit-learn. As a transformer
    it gives log-probabilities. From scikit-learn 1.9 on it takes callbacks (`set_callbacks`).
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

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxClassifier:
        """Train max_iter epochs on X (n, d) and y (n,); return self.

        sample_weight (n,) >= 0 is measured in units of its mean positive value; a row of weight 0
        is not trained on. Raises ValueError where scikit-learn's own estimators do.
        """
        X, y = self._checked(X, y, reset=True)
        before = getattr(self, "classes_", None) if self.warm_start else None
        with _told_as_ours():
            self.classes_, labels = np.unique(y, return_inverse=True)
        again = before is not None and np.array_equal(before, self.classes_)
        weights = self._weights(X, y, sample_weight)
        if weights is not None and not weights.any():
            raise DataError("the weights of all rows are zero: no row is left to learn from.")
        tasks = FitTasks(self, X, y)
        self._train(
            X, labels, weights, self.model_ if again else None,
            callbacks=[tasks],
            solver=self.solver,
            tolerance=self.tol if self.solver == "lbfgs" else None,
            epochs=self.max_iter,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            halflife=self.halflife,
            shuffle=self.shuffle,
            seed=_seed_of(self.random_state),
        )  # fmt: skip
        goes_on = self.solver == "lbfgs" or self.tol is not None  # until little is left to gain
        if goes_on and self.model_.record["ended"] == "epochs":
            warnings.warn(
                f"the fit ended by max_iter={self.max_iter} before it had converged: raise"
                " max_iter, or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._with_losses([epoch["log_loss"] for epoch in self.model_.history])
        tasks.close()
        return self

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> SoftmaxClassifier:
        """Take one step for each row of X (n, d), in order; return self.

        classes: all labels there will be, needed at the first call. Weights are used as they come.
        The step is constant: learning_rate, or 1 / (1 + mean ||x||^2) of the first call's rows.
        A row of weight 0 takes no step, and a call of such rows alone leaves all as it is.
        """
        _refuse_balanced(self.class_weight)
        begins = not hasattr(self, "model_")
        if begins and classes is None:
            raise OptionError("classes must be given at the first call of partial_fit")
        X, y = self._checked(X, y, reset=begins)
        known = self.classes_ if classes is None else _distinct(classes, "classes")
        labels = _numbers_of(y, known, None if begins else self.classes_)
        weights = self._weights(X, y, sample_weight)
        counted = None if weights is None else weights > 0
        self.classes_ = known
        if counted is not None and not counted.any():  # no row takes a step
            if begins:
                self.model_ = _untrained(known, X.shape[1], self.dtype)
            return self._with_losses(getattr(self, "loss_curve_", []))
        self._train(
            X, labels, weights, None if begins else self.model_,
            classes=range(len(known)),
            weights_as_given=True,
            epochs=1,
            learning_rate=self._step_size(X if counted is None else X[counted]),
            schedule="constant",
            shuffle="off",
            solver="sgd",
        )  # fmt: skip
        loss = self.model_.history[-1]["log_loss"]
        return self._with_losses([*getattr(self, "loss_curve_", []), loss])

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
        with _told_as_ours():
            return super().score(X, exact_labels(y), sample_weight)

    @property
    def coef_(self) -> np.ndarray:
        """The weights in raw units: (K, d), or (1, d) for two classes."""
        return _folded(_coef_of_all(self.model_, self.n_features_in_))

    @property
    def intercept_(self) -> np.ndarray:
        """The biases: (K,), or (1,) for two classes."""
        return _folded(self.model_.intercept)

    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        with _told_as_ours():
            _refuse_masked(X, "X")
            exact = exact_labels(y)
            X, y = validate_data(self, X, exact, reset=reset, **ROWS)
            check_classification_targets(y)
        return X, y

    def _step_size(self, X: np.ndarray) -> Any:
        """Return the step that is given, or else the one measured on the rows of the first call."""
        if self.learning_rate is not None and self.learning_rate != "auto":
            return self.learning_rate
        if not hasattr(self, "_rate"):
            self._rate = _constant_rate(X)
        return self._rate

    def _with_losses(self, losses: list[float]) -> SoftmaxClassifier:
        self.loss_curve_, self.n_iter_ = losses, len(losses)
        return self

    def _logits(self, X: Any, *, exact: bool = False) -> np.ndarray:
        """Return the logits (n, K) in float64.

        Those of a row that do not fit are of a row so much shorter, which tells the most probable
        class and, their differences being what they are, its probability; exact: raise DataError.
        """
        check_is_fitted(self, "model_")
        _refuse_masked(X, "X")
        with _told_as_ours():
            X = validate_data(self, X, reset=False, **ROWS)
        X, model = X.astype(np.float64), self.model_
        if issparse(X) or model.parameters.is_sparse:
            return _sparse_logits(model, X)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = X if model.conditioning is None else model.conditioning.apply(X)
            z = scaled @ model.weights.T.astype(np.float64) + model.bias
            far = ~np.isfinite(z).all(axis=1)
            if far.any() and not exact:
                z[far] = (X[far] * SHORTER) @ model.coef.T + model.intercept * SHORTER
        return _finite_logits(z)

    def _weights(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> np.ndarray | None:
        """Return sample_weight times class_weight, or None where there is neither."""
        if sample_weight is None and self.class_weight is None:
            return None
        _refuse_masked(sample_weight, "sample_weight")
        with _told_as_ours():
            weights = _row_weights(sample_weight, X)
            return weights * compute_sample_weight(self.class_weight, y)

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
                    fit_intercept=self.fit_intercept, threads=_threads_of(self.n_jobs),
                    verbose=bool(self.verbose), **options,
                )  # fmt: skip
        except TrainingInterrupted as stop:
            self.model_ = _with_classes(stop.model, _spoken(self.classes_))
            raise
        self.model_ = _with_classes(model, _spoken(self.classes_))


def logistic_regression(model: Model) -> LogisticRegression:
    """Return a LogisticRegression that is fitted as the model is, in raw units and float64.

    Of one column of sparse rows it takes all numbers, as a matrix has them.
    """
    fitted, width, columns = LogisticRegression(), model.n_features, model.columns or ()
    alone = columns[0].sparse if len(columns) == 1 else None
    is_matrix = alone is not None and columns[0].categories is None and not columns[0].indicator
    if alone is not None and is_matrix:
        width = alone.width
    fitted.classes_ = model.classes
    coef = _coef_of_all(model, width) if is_matrix else model.coef
    fitted.coef_, fitted.intercept_ = _folded(coef), _folded(model.intercept)
    fitted.n_features_in_ = width
    fitted.n_iter_ = np.array([max(len(model.history), 1)], np.int32)
    # A frame's columns are then checked; vectors come as matrices, whose columns have no names.
    if model.columns is not None and all(
        column.width is None and column.sparse is None for column in model.columns
    ):
        fitted.feature_names_in_ = np.array(model.feature_names, dtype=object)
    return fitted


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


def _coef_of_all(model: Model, width: int) -> np.ndarray:
    """Return the weights (K, width), 0 for the features of sparse rows that no row had."""
    if not model.parameters.is_sparse:
        return model.coef
    coef = np.zeros((len(model.classes_), width))
    coef[:, model.feature_index] = model.coef
    return coef


def _refuse_masked(values: Any, name: str) -> None:
    """Raise DataError for masked values: scikit-learn would use what lies below the mask."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise DataError(f"{name} has masked values; fill them, or leave their rows out.")


class _Patience:
    """Ends a run when the log-loss of an epoch is not lower by `tol` than that before."""

    def __init__(self, tol: float | None) -> None:
        if tol is not None and not isinstance(tol, int | float | np.number):
            raise OptionError(f"tol must be None or a number, got {tol!r:.100}")
        self.tol, self.last = tol, np.inf

    def __call__(self, progress: Progress) -> bool:
        if self.tol is None or not progress.finished:
            return False
        gain, self.last = self.last - progress.log_loss, progress.log_loss
        return gain < self.tol


class _TypeError(DataError, TypeError):
    """A value is of a type that no label or feature has: scikit-learn wants a TypeError then."""


@contextlib.contextmanager
def _told_as_ours() -> Iterator[None]:
    """Raise what scikit-learn and NumPy say of values that are given as a DataError."""
    try:
        # To look for NaN scikit-learn sums all values up, and large ones overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except (FastsoftmaxError, NotFittedError, MemoryError, Warning):
        raise
    except TypeError as error:
        raise _TypeError(str(error)) from error
    except Exception as error:
        raise DataError(str(error)) from error


def _row_weights(sample_weight: Any, X: np.ndarray) -> np.ndarray:
    """Return weights (n,) in float64; all may be 0, which scikit-learn refuses by now."""
    if sample_weight is not None and not np.isscalar(sample_weight):
        weights = np.asarray(sample_weight, dtype=np.float64)
        if weights.shape == (X.shape[0],) and not weights.any():
            return weights
    return _check_sample_weight(sample_weight, X, dtype=np.float64)


def _seed_of(random_state: Any) -> int:
    if random_state is None:
        return 0
    if isinstance(random_state, int | np.integer):
        return int(random_state)  # as options check it
    with _told_as_ours():
        return int(check_random_state(random_state).randint(2**31 - 1))


def _threads_of(n_jobs: Any) -> int | None:
    count = int(n_jobs) if isinstance(n_jobs, np.integer) else n_jobs
    if count is None or (isinstance(count, int) and count == -1):
        return None
    if not is_count(count, 1):
        raise OptionError(f"n_jobs must be None, -1 or >= 1, got {n_jobs!r}")
    return count


def _untrained(labels: np.ndarray, n_features: int, dtype: str) -> Model:
    """Return the model before its first step."""
    K, dtype = len(labels), TrainOptions.of(dtype=dtype).steps.dtype
    weights, bias = np.zeros((K, n_features), dtype), np.zeros(K, dtype)
    return Model(weights, bias, _spoken(labels))


def _refuse_balanced(class_weight: Any) -> None:
    if isinstance(class_weight, str):
        raise OptionError(
            f"class_weight={class_weight!r} needs all rows at once, and partial_fit sees"
            " one batch at a time: take the weights of sklearn.utils.class_weight."
            "compute_class_weight('balanced', classes=classes, y=y), y being all labels, and"
            " give them as a dictionary"
        )


def _distinct(classes: Any, what: str) -> np.ndarray:
    """Return the distinct labels, sorted; raise DataError where they are of no one kind."""
    try:
        found = np.unique(np.asarray(exact_labels(classes)))
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{what} must be labels of one kind, got {classes!r:.200}.") from error
    with _told_as_ours():
        check_classification_targets(found)
    return found


def _numbers_of(y: np.ndarray, known: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """Return where each label of y stands among the classes; raise DataError for those that do not.

    before: the classes of the first call, which stay.
    """
    if before is not None and not _are_same(known, before):
        raise DataError(f"classes {known} are not those of the first call, {before}.")
    at = {label: number for number, label in enumerate(known.tolist())}
    found, inverse = np.unique(y, return_inverse=True)
    strangers = [label for label in found.tolist() if label not in at]
    if strangers:
        raise DataError(
            f"y has labels that are not in classes, as {strangers[:5]}: the classes of the first"
            f" call of partial_fit are {known[:10]}. Name there all that will ever come, or begin"
            " with a new estimator."
        )
    return np.array([at[label] for label in found.tolist()])[inverse]


def _are_same(some: np.ndarray, others: np.ndarray) -> bool:
    return some.tolist() == others.tolist()


def _constant_rate(X: np.ndarray) -> float:
    """Return 1 / (1 + mean ||x||^2), the step for rows like these."""
    with np.errstate(over="ignore"):
        if issparse(X):
            mean = float(np.square(X.data, dtype=np.float64).sum()) / X.shape[0]
        else:
            mean = float(np.einsum("ij,ij->i", X, X, dtype=np.float64).mean())
    if not np.isfinite(mean):
        raise DataError(
            "the features are so large that their squares do not fit float64. Check them, or scale"
            " them, as by scikit-learn's StandardScaler."
        )
    return 1.0 / (1.0 + mean)


def _folded(values: np.ndarray) -> np.ndarray:
    """Return rows for each class, or for two classes the second's minus the first's."""
    return values[1:] - values[:1] if len(values) == 2 else values


def _with_classes(model: Model, classes: Classes) -> Model:
    return Model.of(replace(model.parameters, classes=classes))


def _spoken(labels: np.ndarray) -> Classes:
    """Return the labels as Classes, or their numbers where a model file has no type for them."""
    try:
        spoken = given_classes(labels.tolist())
        spoken.array()  # which has no room for every whole number
    except (DataError, OverflowError):
        return given_classes(range(len(labels)))
    return spoken
