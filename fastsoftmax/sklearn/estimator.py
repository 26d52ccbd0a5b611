"""The only place for SoftmaxClassifier: a model that fits and predicts in scikit-learn's words."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_sample_weight

from fastsoftmax.errors import (
    DataError,
    NotConverged,
    OptionError,
    TrainingInterrupted,
)
from fastsoftmax.labels import Classes, given_classes
from fastsoftmax.model.model import Model
from fastsoftmax.options import TrainOptions, is_count
from fastsoftmax.sklearn.answers import Answers, coef_of_all, folded
from fastsoftmax.sklearn.conventions import Conventions, FitTasks, with_callbacks
from fastsoftmax.sklearn.given import (
    distinct_labels,
    labelled_rows,
    numbers_of,
    refuse_balanced,
    refuse_masked,
    refuse_texts,
    row_weights,
    takes_texts,
    text_options,
    told_as_ours,
)
from fastsoftmax.training.progress import Progress
from fastsoftmax.training.train import train


class SoftmaxClassifier(Conventions, Answers, BaseEstimator):
    """Multinomial logistic regression, as a scikit-learn classifier.

    solver: lbfgs goes to the optimum; sgd takes exact per-sample steps; auto is lbfgs, but for
    texts, where tol is None, the default run of `fastsoftmax.train`, which chooses its epochs.
    max_iter: passes over the rows. tol: for lbfgs the share of the objective that may be left to
    gain; for sgd, stop when an epoch's progressive log-loss is not lower than the one before by
    this much. l2: `auto` chooses it on held-out rows; scikit-learn's C is 1 / (l2 rows). n_jobs:
    threads; None and -1 are all cores this process may use. random_state: None is seed 0, never
    random. class_weight: a dict or "balanced". warm_start: begin at the last fit's weights. The
    others are those of `fastsoftmax.train`; a step size of None is measured on the data.

    text: True where X is texts, one by one: a list, an array (n,) or a series of strings. Or a list
    of the columns that are texts, of an Arrow table or a data frame, whose other columns are
    numbers; columns are known by their names. ngrams to tf: what becomes of texts, as in `train`.

    After fit: classes_, coef_ (K, d) and intercept_ (K,), or (1, d) and (1,) for two classes,
    n_iter_, loss_curve_ (progressive log-loss of each epoch), n_features_in_, feature_names_in_,
    and model_, the `fastsoftmax.Model`, to be saved and used without scikit-learn. As a transformer
    it gives log-probabilities. From scikit-learn 1.9 on it takes callbacks (`set_callbacks`).
    """

    def __init__(
        self,
        *,
        solver: str = "auto",
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
        text: bool | list[str] | None = None,
        ngrams: str | int | None = "1-2",
        chars: str | int | None = None,
        bits: int | None = None,
        min_count: int = 2,
        max_features: int = 2**20,
        lower: bool = True,
        normalize: str | None = None,
        norm: str | None = "l2",
        tf: str = "count",
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
        self.text = text
        self.ngrams = ngrams
        self.chars = chars
        self.bits = bits
        self.min_count = min_count
        self.max_features = max_features
        self.lower = lower
        self.normalize = normalize
        self.norm = norm
        self.tf = tf

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxClassifier:
        """Train max_iter epochs on X (n, d) and y (n,); return self.

        sample_weight (n,) >= 0 is measured in units of its mean positive value; a row of weight 0
        is not trained on. Raises ValueError where scikit-learn's own estimators do.
        """
        X, y = labelled_rows(self, X, y, reset=True)
        before = getattr(self, "classes_", None) if self.warm_start else None
        with told_as_ours():
            self.classes_, labels = np.unique(y, return_inverse=True)
        again = before is not None and np.array_equal(before, self.classes_)
        weights = self._weights(X, y, sample_weight)
        if weights is not None and not weights.any():
            raise DataError("the weights of all rows are zero: no row is left to learn from.")
        tasks, ending = FitTasks(self, X, y), self._ending()
        self._train(
            X, labels, weights, self.model_ if again else None,
            callbacks=[tasks],
            **ending,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            halflife=self.halflife,
            shuffle=self.shuffle,
            seed=_seed_of(self.random_state),
        )  # fmt: skip
        goes_on = _is(ending["solver"], "lbfgs") or self.tol is not None  # until little is left
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
        refuse_balanced(self.class_weight)
        refuse_texts(self)
        begins = not hasattr(self, "model_")
        if begins and classes is None:
            raise OptionError("classes must be given at the first call of partial_fit")
        X, y = labelled_rows(self, X, y, reset=begins)
        known = self.classes_ if classes is None else distinct_labels(classes, "classes")
        labels = numbers_of(y, known, None if begins else self.classes_)
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

    def _ending(self) -> dict[str, Any]:
        """Return the options that say by which steps a fit goes how far."""
        is_open = _is(self.solver, "auto")
        if is_open and self.tol is None and takes_texts(self):
            return {"solver": "sgd", "tolerance": None, "epochs": "auto"}
        solver = "lbfgs" if is_open else self.solver
        tolerance = self.tol if _is(solver, "lbfgs") else None
        return {"solver": solver, "tolerance": tolerance, "epochs": self.max_iter}

    def _step_size(self, X: np.ndarray) -> Any:
        """Return the step that is given, or else the one measured on the rows of the first call."""
        if self.learning_rate is not None and not _is(self.learning_rate, "auto"):
            return self.learning_rate
        if not hasattr(self, "_rate"):
            self._rate = _constant_rate(X)
        return self._rate

    def _with_losses(self, losses: list[float]) -> SoftmaxClassifier:
        self.loss_curve_, self.n_iter_ = losses, len(losses)
        return self

    def _weights(self, X: np.ndarray, y: np.ndarray, sample_weight: Any) -> np.ndarray | None:
        """Return sample_weight times class_weight, or None where there is neither."""
        if sample_weight is None and self.class_weight is None:
            return None
        refuse_masked(sample_weight, "sample_weight")
        with told_as_ours():
            weights = row_weights(sample_weight, X)
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
                    report=_Patience(self.tol if _is(options["solver"], "sgd") else None),
                    batch_size=self.batch_size, average=self.average, l2=self.l2, dtype=self.dtype,
                    fit_intercept=self.fit_intercept, threads=_threads_of(self.n_jobs),
                    verbose=bool(self.verbose), **text_options(self), **options,
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
    coef = coef_of_all(model, width) if is_matrix else model.coef
    fitted.coef_, fitted.intercept_ = folded(coef), folded(model.intercept)
    fitted.n_features_in_ = width
    fitted.n_iter_ = np.array([max(len(model.history), 1)], np.int32)
    # A frame's columns are then checked; vectors come as matrices, whose columns have no names.
    if model.columns is not None and all(
        column.width is None and column.sparse is None for column in model.columns
    ):
        fitted.feature_names_in_ = np.array(model.feature_names, dtype=object)
    return fitted


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


def _seed_of(random_state: Any) -> int:
    if random_state is None:
        return 0
    if isinstance(random_state, int | np.integer):
        return int(random_state)  # as options check it
    with told_as_ours():
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


def _is(given: Any, word: str) -> bool:
    """Return whether a parameter is this word: of an array, `==` would say something else."""
    return isinstance(given, str) and given == word
