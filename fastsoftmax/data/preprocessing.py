"""The only place that learns of feature columns before training: categories, means, nulls."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Self, final

import numpy as np
import pyarrow as pa
from pyarrow import types

from fastsoftmax.data.columns import Feature
from fastsoftmax.data.decode import filled, items_of, nulls_of, refuse_other_lengths
from fastsoftmax.data.hashed import Collisions, hashes_of
from fastsoftmax.data.in_use import InUse, UseCount
from fastsoftmax.data.label_stats import Discovery
from fastsoftmax.data.layouts import is_vector
from fastsoftmax.data.sparse_columns import (
    EMPTY,
    column_numbers,
    indices_of,
    is_svmlight,
    is_worded,
)
from fastsoftmax.data.values import Where, as_arrow, as_numpy, plain_values
from fastsoftmax.data.vocabulary import NO_TEXTS, TextColumns
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass
from fastsoftmax.labels import Classes, sorted_values


@dataclass(frozen=True)
class NgramPolicy:
    """Which n-grams of a column of texts are features.

    least: rows that one must be in. most: of them. limit: of n-grams that are counted at once.
    """

    least: int = 2
    most: int = 2**20
    limit: int = 2**22


@dataclass(frozen=True)
class NullPolicy:
    """What becomes of values that are no numbers.

    nulls: error, zero, mean or drop. indicators: whether one more feature tells which rows were
    null, of each column that has nulls in training. most: of categories that a column may have.
    texts: columns of texts, and how they become numbers. ngrams: which of theirs are features.
    """

    nulls: str = "error"
    indicators: bool = False
    most: int = 1000
    texts: TextColumns = NO_TEXTS
    ngrams: NgramPolicy = NgramPolicy()

    def must_learn(self, features: Iterable[Feature]) -> bool:
        """Return whether something must be known of the columns before they can be decoded."""
        means = self.nulls == "mean" or (self.indicators and self.nulls != "error")
        columns = [feature.column for feature in features]
        return means or any(
            c.categories is not None or c.text is not None or c.sparse is not None for c in columns
        )


NOTHING = NullPolicy()


@dataclass(frozen=True)
class SurveyedBatch:
    """Rows to learn from: a record batch, which of its rows count, and where they stand."""

    batch: pa.RecordBatch
    trained: np.ndarray
    where: Where


class Survey:
    """What is learnt of each feature column; over parts of the rows, surveys merge by `+`.

    What is found and counted is then that of all rows, and so are means but for rounding.
    """

    def __init__(self, features: tuple[Feature, ...], null_policy: NullPolicy) -> None:
        """Learn of these columns what the policy asks for."""
        self._columns = [_survey_of(feature, null_policy) for feature in features]

    def add(self, rows: SurveyedBatch) -> None:
        """Take in rows."""
        for column in self._columns:
            column.add(rows)

    def __add__(self, other: Survey) -> Survey:
        """Return the survey of the rows of both."""
        merged = Survey((), NOTHING)
        pairs = zip(self._columns, other._columns, strict=True)
        merged._columns = [mine + theirs for mine, theirs in pairs]
        return merged

    def learnt(self) -> tuple[Feature, ...]:
        """Return the features with what was learnt in their columns, or raise DataError."""
        return tuple(column.learnt() for column in self._columns)


class _ColumnSurvey(ABC):
    """What is learnt of a column."""

    def __init__(self, feature: Feature, null_policy: NullPolicy) -> None:
        self.feature, self.null_policy = feature, null_policy
        self.nulls = 0

    def add(self, rows: SurveyedBatch) -> None:
        """Take in rows."""
        refuse_other_lengths(rows.batch, self.feature, rows.where)
        array = rows.batch.column(self.feature.column.stored_in[0])
        if self.feature.column.sparse is not None:
            self.nulls += int(as_numpy(array.is_null())[rows.trained].sum())
        elif array.null_count or is_vector(array.type):
            self.nulls += int(nulls_of(array, self.feature.width)[rows.trained].sum())
        self.look(array, rows)

    def __add__(self, other: Self) -> Self:
        """Return what is learnt of the rows of both."""
        merged = type(self)(self.feature, self.null_policy)
        merged.nulls = self.nulls + other.nulls
        return merged

    @abstractmethod
    def look(self, array: pa.Array, rows: SurveyedBatch) -> None:
        """Take in a column's values."""

    def learnt(self) -> Feature:
        """Return the feature as it will be."""
        indicator = self.null_policy.indicators and self.nulls > 0
        return replace(self.feature, column=replace(self.feature.column, indicator=indicator))


@final
class _Categories(_ColumnSurvey):
    """The values that a column has in rows that are trained on."""

    def __init__(self, feature: Feature, null_policy: NullPolicy) -> None:
        super().__init__(feature, null_policy)
        self._discovery = Discovery()

    def look(self, array: pa.Array, rows: SurveyedBatch) -> None:
        name = self.feature.column.name
        whole = as_numpy(array.is_valid()) & rows.trained
        there = np.flatnonzero(whole)
        if there.size:
            values = plain_values(array.filter(as_arrow(whole)))
            self._discovery(values, f'column "{name}"', lambda row: rows.where(int(there[row])))

    def __add__(self, other: _Categories) -> _Categories:
        merged = super().__add__(other)
        merged._discovery = self._discovery + other._discovery
        return merged

    def learnt(self) -> Feature:
        feature = super().learnt()
        kind, values = self._discovery.values()
        if not values:
            raise DataError(f'column "{feature.column.name}" is null in all rows: leave it out.')
        categories = Classes(kind, sorted_values(kind, values))
        column = replace(feature.column, categories=categories)
        if len(categories) > self.null_policy.most:
            column = replace(column, sparse=InUse(len(values), np.arange(len(values)), 1.0))
        return replace(feature, column=column)


@final
class _Numbers(_ColumnSurvey):
    """The mean of each of a column's numbers that is not null."""

    def __init__(self, feature: Feature, null_policy: NullPolicy) -> None:
        super().__init__(feature, null_policy)
        self._sums = np.zeros(feature.width)
        self._counts = np.zeros(feature.width, np.int64)

    def look(self, array: pa.Array, rows: SurveyedBatch) -> None:
        if self.null_policy.nulls != "mean":
            return
        width = self.feature.width
        values, there = np.zeros((len(array), width)), np.zeros((len(array), width), np.bool_)
        whole = ~as_numpy(array.is_null())
        if types.is_decimal(array.type):  # up to version 21 Arrow drops no nulls among narrow ones
            array = array.cast(pa.float64())
        items = items_of(array) if is_vector(array.type) else plain_values(array.drop_null())
        values[whole] = filled(items, self.feature, 0.0).astype(np.float64).reshape(-1, width)
        there[whole] = as_numpy(items.is_valid()).reshape(-1, width)
        there &= rows.trained[:, None] & np.isfinite(values)
        # One after the other, so that sums do not depend on how a reader cuts its batches.
        values = np.where(there, values, 0.0)
        self._sums = np.add.accumulate(np.vstack([self._sums, values]), axis=0)[-1]
        self._counts += there.sum(axis=0)

    def __add__(self, other: _Numbers) -> _Numbers:
        merged = super().__add__(other)
        merged._sums = self._sums + other._sums
        merged._counts = self._counts + other._counts
        return merged

    def learnt(self) -> Feature:
        feature = super().learnt()
        if self.null_policy.nulls != "mean":
            return feature
        if not self._counts.all():
            j = int(self._counts.argmin())
            raise DataError(
                f'column "{feature.column.feature_names[j]}" is null in all rows, so that it has no'
                " mean: leave it out, or use nulls=zero."
            )
        fill = tuple((self._sums / self._counts).tolist())
        return replace(feature, column=replace(feature.column, fill=fill))


@final
class _Texts(_ColumnSurvey):
    """In how many rows the n-grams of a column of texts are."""

    def __init__(self, feature: Feature, null_policy: NullPolicy) -> None:
        super().__init__(feature, null_policy)
        from fastsoftmax.data.text import NgramCount  # which loads kernels

        assert feature.column.text is not None
        self._count = NgramCount(feature.column.text.recipe, null_policy.ngrams.limit)

    def look(self, array: pa.Array, rows: SurveyedBatch) -> None:
        subject = f'column "{self.feature.column.name}"'
        self._count.add(array, rows.trained, subject, rows.where)

    def __add__(self, other: _Texts) -> _Texts:
        merged = super().__add__(other)
        merged._count = self._count + other._count
        return merged

    def learnt(self) -> Feature:
        feature, policy = super().learnt(), self.null_policy.ngrams
        vocabulary = self._count.vocabulary(policy.least, policy.most)
        if not len(vocabulary):
            raise DataError(
                f'column "{feature.column.name}" has no n-gram that is in min_count={policy.least}'
                " rows: lower min_count=, or leave the column out."
            )
        if self._count.forgotten:
            warnings.warn(
                f'column "{feature.column.name}" has more n-grams than memory= has room to count:'
                f" some that are in {self._count.forgotten} rows or fewer were forgotten. Raise"
                " memory=, or hash them (bits=18).",
                UserWarning,
                stacklevel=2,
            )
        column = replace(feature.column, text=vocabulary)
        numbers = self._count.mean_features(policy.least, policy.most)
        return replace(feature, column=column, numbers=max(1, round(numbers)))


@final
class _SparseIndices(_ColumnSurvey):
    """Which indices rows of a sparse column have."""

    def __init__(self, feature: Feature, null_policy: NullPolicy) -> None:
        super().__init__(feature, null_policy)
        assert feature.column.sparse is not None
        self._count = UseCount(feature.column.sparse.width)

    def look(self, array: pa.Array, rows: SurveyedBatch) -> None:
        column = self.feature.column
        found = indices_of(column, column_numbers(rows.batch, column, rows.where), rows.where)
        counted = np.repeat(rows.trained, np.diff(found.ends))
        self._count.add(found.index[counted], int(rows.trained.sum()))

    def __add__(self, other: _SparseIndices) -> _SparseIndices:
        merged = super().__add__(other)
        merged._count = self._count + other._count
        return merged

    def learnt(self) -> Feature:
        feature, in_use = super().learnt(), self._count.in_use()
        if not len(in_use):
            raise DataError(
                f'column "{feature.column.name}" has no number that is not 0: leave it out.'
            )
        if is_svmlight(feature.kind):
            in_use = self._begun(in_use)
        return replace(feature, column=replace(feature.column, sparse=in_use))

    def _begun(self, in_use: InUse) -> InUse:
        """Return which numbers of svmlight files are features, by where their indices begin."""
        assert self.feature.column.sparse is not None
        told = self.feature.column.sparse.base
        if told is not None:
            return replace(in_use, base=told)
        least = int(in_use.index.min())
        if least > 1:
            raise DataError(
                f"the least index of all rows is {least}, so that nobody knows whether indices"
                " begin at 0 or at 1: give zero_based=True, or False."
            )
        width = self.feature.column.sparse.width
        width -= width < EMPTY.width  # it had room for either
        found = replace(in_use, width=width, index=in_use.index - least, base=least)
        if int(found.index.max()) >= width:
            raise DataError(
                f"an index is {int(in_use.index.max())}, where indices are from {least} to"
                f" {width - 1 + least:,} (width=)."
            )
        return found


@final
class _Hashed(_ColumnSurvey):
    """Which indices the values of a column are hashed to, and how many of them collide."""

    def __init__(self, feature: Feature, null_policy: NullPolicy) -> None:
        super().__init__(feature, null_policy)
        assert feature.column.sparse is not None
        width = feature.column.sparse.width
        self._count, self._collisions = UseCount(width), Collisions(width.bit_length() - 1)

    def look(self, array: pa.Array, rows: SurveyedBatch) -> None:
        column = self.feature.column
        told = column_numbers(rows.batch, column, rows.where)
        found = indices_of(column, told, rows.where)
        counted = np.repeat(rows.trained, np.diff(found.ends))
        self._count.add(found.index[counted], int(rows.trained.sum()))
        hashes = hashes_of(told.keys)
        self._collisions.add(hashes[np.repeat(rows.trained, np.diff(told.ends))])

    def __add__(self, other: _Hashed) -> _Hashed:
        merged = super().__add__(other)
        merged._count = self._count + other._count
        merged._collisions = self._collisions + other._collisions
        return merged

    def learnt(self) -> Feature:
        feature, in_use = super().learnt(), self._count.in_use()
        if not len(in_use):
            raise DataError(
                f'column "{feature.column.name}" has no value in any row: leave it out.'
            )
        in_use = replace(in_use, is_hashed=True, collisions=self._collisions.share)
        return replace(feature, column=replace(feature.column, sparse=in_use))


@final
class _SparseWords(_ColumnSurvey):
    """Which words rows of a sparse column have."""

    def __init__(self, feature: Feature, null_policy: NullPolicy) -> None:
        super().__init__(feature, null_policy)
        self._discovery, self._items, self._rows = Discovery(), 0, 0

    def look(self, array: pa.Array, rows: SurveyedBatch) -> None:
        column = self.feature.column
        told = column_numbers(rows.batch, column, rows.where)
        row_of = np.repeat(np.arange(len(told.ends) - 1), np.diff(told.ends))
        counted = np.flatnonzero(rows.trained[row_of])
        self._items, self._rows = self._items + len(counted), self._rows + int(rows.trained.sum())
        if len(counted):
            words = told.keys.take(as_arrow(counted))
            self._discovery(
                words, f'column "{column.name}"', lambda i: rows.where(int(row_of[counted[i]]))
            )

    def __add__(self, other: _SparseWords) -> _SparseWords:
        merged = super().__add__(other)
        merged._discovery = self._discovery + other._discovery
        merged._items, merged._rows = self._items + other._items, self._rows + other._rows
        return merged

    def learnt(self) -> Feature:
        feature = super().learnt()
        kind, values = self._discovery.values()
        if not values:
            raise DataError(f'column "{feature.column.name}" has no word in any row: leave it out.')
        known = Classes(kind, sorted_values(kind, values))
        mean = max(self._items / max(self._rows, 1), 1.0)
        in_use = InUse(len(values), np.arange(len(values)), mean)
        return replace(feature, column=replace(feature.column, categories=known, sparse=in_use))


def _survey_of(feature: Feature, null_policy: NullPolicy) -> _ColumnSurvey:
    """Return what learns of a column, by what it holds."""
    column = feature.column
    if column.text is not None:
        return _Texts(feature, null_policy)
    if column.sparse is not None and column.sparse.is_hashed:
        return _Hashed(feature, null_policy)
    if column.sparse is not None:
        worded = column.pair is None and is_worded(feature.kind)
        return (_SparseWords if worded else _SparseIndices)(feature, null_policy)
    if column.categories is not None:
        return _Categories(feature, null_policy)
    return _Numbers(feature, null_policy)
