"""The only place that turns Arrow labels into class indices, and weights into floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import types

from fastsoftmax.data.layouts import is_code, is_number, numpy_dtype
from fastsoftmax.data.lookup import Known
from fastsoftmax.data.values import (
    Where,
    as_arrow,
    as_numpy,
    numbers,
    plain_values,
    refuse_null,
    words_as_arrow,
)
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import INTEGER_KINDS, Classes

SUITABLE = "Labels are integers, floats without a fraction, booleans or strings."


@dataclass(frozen=True)
class Given:
    """A label or weight for each row: a column of the data, or an array beside them."""

    name: str
    array: pa.Array | None = None

    @property
    def subject(self) -> str:
        """What a message calls it."""
        return f'column "{self.name}"' if self.array is None else f"the {self.name}"

    def of(self, batch: pa.RecordBatch, start: int) -> pa.Array:
        """Return its values for the rows of `batch`, of which the first is number `start`."""
        if self.array is None:
            return batch.column(self.name)
        self.check_rows(max(start + batch.num_rows, len(self.array)))
        return self.array.slice(start, batch.num_rows)

    def check_rows(self, rows: int) -> None:
        """Raise DataError when an array beside the data has another length than they."""
        if self.array is not None and len(self.array) != rows:
            raise DataError(
                f"the {self.name} has {len(self.array)} values, but the data have {rows} rows; "
                "there must be one for each row."
            )


def is_label(kind: pa.DataType) -> bool:
    """Return whether labels can be of an Arrow type."""
    try:
        kind_of(kind, "")
    except DataError:
        return False
    return True


def kind_of(labels: pa.DataType, subject: str) -> str:
    """Return the kind of classes that labels of this type are, one of labels.KINDS."""
    if is_code(labels):
        return kind_of(labels.value_type, subject)
    if types.is_integer(labels):
        return str(labels)
    if types.is_floating(labels):
        return "int64"
    if types.is_boolean(labels):
        return "bool"
    if str(labels) in ("string", "large_string", "string_view"):
        return "string"
    if "binary" in str(labels):
        raise DataError(f"{subject} holds bytes: cast it to strings. {SUITABLE}")
    hint = "Cast whole numbers to int64. " if types.is_decimal(labels) else ""
    raise DataError(f"{subject} is of type {labels}, which is no label. {hint}{SUITABLE}")


def _whole(labels: pa.Array, subject: str, where: Where) -> pa.Array:
    """Return float labels as int64, or raise DataError at the first that is no whole number."""
    values = as_numpy(labels).astype(np.float64)
    odd = np.flatnonzero(~((values == np.floor(values)) & (np.abs(values) < 2.0**63)))
    if odd.size:
        value = values[odd[0]]
        is_far = value == np.floor(value) and np.isfinite(value)
        fault = "beyond what an int64 holds: use integers" if is_far else "no whole number"
        raise DataError(f"{where(int(odd[0]))}: {subject} is {value}, {fault}. {SUITABLE}")
    return as_arrow(values.astype(np.int64))


def plain_labels(labels: pa.Array, subject: str, where: Where) -> pa.Array:
    """Return labels as integers, booleans or strings without nulls, or raise DataError."""
    kind_of(labels.type, subject)
    labels = plain_values(labels)
    refuse_null(labels, subject, where)
    return _whole(labels, subject, where) if types.is_floating(labels.type) else labels


def _sample(values: Sequence[Any]) -> str:
    shown = ", ".join(repr(value) for value in values[:5])
    return f"{shown}, ..." if len(values) > 5 else shown


def _family(kind: str) -> str:
    return "integer" if kind in INTEGER_KINDS else kind


def _held(classes: Classes, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Return those classes that a type can hold, as it holds them, and their numbers, int32."""
    count = len(classes)
    if types.is_integer(kind):
        limits, values = np.iinfo(numpy_dtype(kind)), np.array(classes.values, classes.kind)
        # Compared as Python's, which know no sign.
        fits = [limits.min <= value <= limits.max for value in (values.min(), values.max())]
        at = np.arange(count) if all(fits) else _within(classes.values, limits)
        return as_arrow(values[at].astype(numpy_dtype(kind))), at.astype(np.int32)
    if types.is_boolean(kind):
        held = as_arrow(np.array(classes.values, np.bool_))
    else:
        held = words_as_arrow(classes.values, kind)
    return held, np.arange(count, dtype=np.int32)


def _within(values: Sequence[int], limits: np.iinfo[Any]) -> np.ndarray:
    found = [k for k, value in enumerate(values) if limits.min <= value <= limits.max]
    return np.array(found, np.int64)


class Encoder:
    """Known classes, and how labels of any type become their indices."""

    def __init__(self, classes: Classes) -> None:
        """Encode against `classes`, in their order."""
        self._classes = classes
        self._tables: dict[pa.DataType, tuple[Known, np.ndarray]] = {}

    def __call__(self, labels: pa.Array, subject: str, where: Where) -> np.ndarray:
        """Return class indices (n,) int32; a label of no class raises DataError."""
        plain = plain_labels(labels, subject, where)
        known, positions = self._table(plain.type, subject)
        at = known.find(plain)
        unknown = np.flatnonzero(at < 0)
        if unknown.size:
            self._refuse_unknown(plain, int(unknown[0]), subject, where)
        return at if positions.size == len(self._classes) else positions[at]

    def _table(self, kind: pa.DataType, subject: str) -> tuple[Known, np.ndarray]:
        """Return the classes that the type `kind` can hold, and where they stand in the order."""
        if kind not in self._tables:
            self._refuse_other_family(kind, subject)
            held, positions = _held(self._classes, kind)
            self._tables[kind] = Known(held), positions
        return self._tables[kind]

    def _refuse_other_family(self, kind: pa.DataType, subject: str) -> None:
        has, wants = _family(kind_of(kind, subject)), _family(self._classes.kind)
        if has != wants:
            raise DataError(
                f"{subject} holds {has} labels, but the classes are of kind {wants} "
                f"({_sample(self._classes.values)}); convert one to the other."
            )

    def _refuse_unknown(self, plain: pa.Array, row: int, subject: str, where: Where) -> None:
        raise DataError(
            f"{where(row)}: {subject} is {plain[row].as_py()!r}, none of the "
            f"{len(self._classes)} classes ({_sample(self._classes.values)}). "
            "Leave the row out, or list all classes with classes=."
        )


class Finder(Encoder):
    """Known categories, and how values of any type become their indices; -1 for what is none."""

    def __call__(self, labels: pa.Array, subject: str, where: Where) -> np.ndarray:
        """Return indices (n,) int32 of values without nulls."""
        plain = plain_labels(labels, subject, where)
        known, positions = self._table(plain.type, subject)
        at = known.find(plain)
        if positions.size == len(self._classes):
            return at
        return np.append(positions, np.int32(-1))[at]  # of all positions, -1 is the last


def plain_weights(weights: pa.Array, subject: str) -> pa.Array:
    """Return weights as numbers of a plain type, nulls as they are, or raise DataError."""
    if not is_number(weights.type):
        raise DataError(f"{subject} is of type {weights.type}; weights are numbers >= 0.")
    return plain_values(weights)


def weights_of(weights: pa.Array, subject: str, where: Where) -> np.ndarray:
    """Return weights (n,) float64; one that is null, negative or not finite raises DataError."""
    plain = plain_weights(weights, subject)
    refuse_null(plain, subject, where)
    values = numbers(plain).astype(np.float64, copy=False)
    odd = np.flatnonzero(~((values >= 0) & (values < np.inf)))
    if odd.size:
        raise DataError(
            f"{where(int(odd[0]))}: {subject} is {values[odd[0]]}; weights are finite numbers >= 0."
        )
    return values


@dataclass(frozen=True)
class GivenLabels:
    """The labels and the weights of rows, as far as there are any."""

    target: Given | None
    weight: Given | None

    def require_target(self, origin: str) -> None:
        """Raise DataError where there are no labels."""
        if self.target is None:
            raise DataError(f"{origin}: no target was given, so there are no labels.")

    def check_rows(self, rows: int) -> None:
        """Raise DataError where one is beside the data and has another length than they."""
        for given in (self.target, self.weight):
            if given is not None:
                given.check_rows(rows)

    def kind(self, schema: pa.Schema) -> str | None:
        """Return the kind of classes that the labels are; None where there are none that do."""
        if self.target is None:
            return None
        held = self.target.array
        labels = schema.field(self.target.name).type if held is None else held.type
        return kind_of(labels, self.target.subject) if is_label(labels) else None

    def of(self, batch: pa.RecordBatch, start: int) -> tuple[pa.Array, pa.Array | None]:
        """Return those of the rows of `batch`, of which the first is number `start`."""
        assert self.target is not None  # whoever asks for labels has looked
        weights = None if self.weight is None else self.weight.of(batch, start)
        return self.target.of(batch, start), weights

    def all(self) -> tuple[pa.Array, pa.Array | None]:
        """Return those of all rows, where they are arrays beside the data."""
        assert self.target is not None
        return self.target.array, None if self.weight is None else self.weight.array

    def between(self, first: int, rows: int) -> tuple[pa.Array, pa.Array | None]:
        """Return those of so many rows, where they are arrays beside the data."""
        labels, weights = self.all()
        return labels.slice(first, rows), None if weights is None else weights.slice(first, rows)

    def encoded(
        self, encoder: Encoder, values: tuple[pa.Array, pa.Array | None], where: Where
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the class indices and weights that `values`, as `of` returns them, are."""
        assert self.target is not None
        labels = encoder(values[0], self.target.subject, where)
        if self.weight is None:
            return labels, None
        return labels, weights_of(values[1], self.weight.subject, where)
