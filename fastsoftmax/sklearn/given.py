"""The only place that checks what an estimator is given: rows, texts, labels and weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data

from fastsoftmax.data.given_texts import (
    NAME,
    holds_strings,
    table_of_columns,
    table_of_texts,
)
from fastsoftmax.errors import DataError, FastsoftmaxError, OptionError
from fastsoftmax.labels import exact_labels
from fastsoftmax.options import Texts

ROWS: dict[str, Any] = {"dtype": (np.float64, np.float32), "accept_sparse": "csr"}


def rows_of(estimator: Any, X: Any) -> Any:
    """Return rows as a matrix, dense or CSR, or as a table where the estimator takes texts."""
    with told_as_ours(X):
        refuse_masked(X, "X")
        if takes_texts(estimator):
            return _table(estimator, X)
        return validate_data(estimator, X, reset=False, **ROWS)


def labelled_rows(estimator: Any, X: Any, y: Any, *, reset: bool) -> tuple[Any, np.ndarray]:
    """Return rows as above, and their labels; reset: have the estimator remember their columns."""
    with told_as_ours(X):
        refuse_masked(X, "X")
        y = exact_labels(y)
        if takes_texts(estimator):
            X, y = _table(estimator, X), validate_data(estimator, y=y, reset=reset)
            _remember(estimator, X)
        else:
            X, y = validate_data(estimator, X, y, reset=reset, **ROWS)
        check_classification_targets(y)
    return X, y


def takes_texts(estimator: Any) -> bool:
    """Return whether rows are texts, or have columns of them."""
    return estimator.text is not None and estimator.text is not False


def text_options(estimator: Any) -> dict[str, Any]:
    """Return the options of `train` that say which columns are texts, and what becomes of them."""
    named = [NAME] if estimator.text is True else estimator.text or None
    told = {field.name: getattr(estimator, field.name) for field in fields(Texts)
            if field.name not in ("text", "hashed")}  # fmt: skip
    return {"text": named, **told}


def refuse_texts(estimator: Any) -> None:
    """Raise OptionError where texts come batch by batch."""
    if takes_texts(estimator):
        raise OptionError(
            "partial_fit takes no texts, whose n-grams are learnt of all rows: use fit; or hash"
            " them by scikit-learn's HashingVectorizer, and give its matrices"
        )


def _table(estimator: Any, X: Any) -> Any:
    return table_of_texts(X) if estimator.text is True else table_of_columns(X)


def _remember(estimator: Any, table: Any) -> None:
    """Have the estimator know the columns of its rows; texts that come one by one are in none."""
    vars(estimator).pop("n_features_in_", None)
    if estimator.text is not True:
        estimator.n_features_in_ = len(table.column_names)
        estimator.feature_names_in_ = np.array(table.column_names, dtype=object)


def refuse_masked(values: Any, name: str) -> None:
    """Raise DataError for masked values: scikit-learn would use what lies below the mask."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise DataError(f"{name} has masked values; fill them, or leave their rows out.")


class _TypeError(DataError, TypeError):
    """A value is of a type that no label or feature has: scikit-learn wants a TypeError then."""


@contextlib.contextmanager
def told_as_ours(X: Any = None) -> Iterator[None]:
    """Raise what scikit-learn and NumPy say of values that are given as a DataError.

    X: rows that are given, of which strings may be what is wrong.
    """
    try:
        # To look for NaN scikit-learn sums all values up, and large ones overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            yield
    except (FastsoftmaxError, NotFittedError, MemoryError, Warning):
        raise
    except TypeError as error:
        raise _TypeError(f"{error}{holds_strings(X)}") from error
    except Exception as error:
        raise DataError(f"{error}{holds_strings(X)}") from error


def row_weights(sample_weight: Any, X: np.ndarray) -> np.ndarray:
    """Return weights (n,) in float64; all may be 0, which scikit-learn refuses by now."""
    if sample_weight is not None and not np.isscalar(sample_weight):
        weights = np.asarray(sample_weight, dtype=np.float64)
        if weights.shape == (X.shape[0],) and not weights.any():
            return weights
    return _check_sample_weight(sample_weight, X, dtype=np.float64)


def refuse_balanced(class_weight: Any) -> None:
    """Raise OptionError for weights that nobody knows before all labels are seen."""
    if isinstance(class_weight, str):
        raise OptionError(
            f"class_weight={class_weight!r} needs all rows at once, and partial_fit sees"
            " one batch at a time: take the weights of sklearn.utils.class_weight."
            "compute_class_weight('balanced', classes=classes, y=y), y being all labels, and"
            " give them as a dictionary"
        )


def distinct_labels(classes: Any, what: str) -> np.ndarray:
    """Return the distinct labels, sorted; raise DataError where they are of no one kind."""
    try:
        found = np.unique(np.asarray(exact_labels(classes)))
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"{what} must be labels of one kind, got {classes!r:.200}.") from error
    with told_as_ours():
        check_classification_targets(found)
    return found


def numbers_of(y: np.ndarray, known: np.ndarray, before: np.ndarray | None) -> np.ndarray:
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
