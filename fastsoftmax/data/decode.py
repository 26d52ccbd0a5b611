"""The only place that turns record batches into feature arrays, uncopied where Arrow allows."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import numpy as np
import pyarrow as pa
from pyarrow import types

from fastsoftmax.data import compute as pc
from fastsoftmax.data.columns import Feature
from fastsoftmax.data.encode import Finder
from fastsoftmax.data.layouts import decoded_dtype, fixed_width, is_plain, is_vector
from fastsoftmax.data.parts import Codes, Dense, Part, Sparse
from fastsoftmax.data.sparse_columns import sparse_part
from fastsoftmax.data.values import Where, as_numpy, numbers, plain_values, refuse_null
from fastsoftmax.errors import DataError

Runs = list[list[Feature]]
LEAST_APART = 2**14  # bytes of a column that is not copied beside others
TreatedCounts = Counter[str]  # what was done to values that were not there, and how often


def nulls_of(array: pa.Array, width: int = 1) -> np.ndarray:
    """Return which rows of a column are null, wholly or in part: (rows,) bool."""
    missing = as_numpy(pc.is_null(array))
    if is_vector(array.type) and array.null_count < len(array):
        inner = as_numpy(pc.is_null(items_of(array)))
        missing[~missing] = inner.reshape(-1, width).any(axis=1)
    return missing


def filled(array: pa.Array, feature: Feature, fill: float) -> np.ndarray:
    """Return numbers (n,) in the feature's dtype, nulls replaced."""
    if not array.null_count:
        return numbers(array).astype(feature.dtype, copy=False)
    missing = as_numpy(pc.is_null(array))
    if types.is_float16(array.type):  # Arrow 16 fills no nulls among these
        array = array.cast(pa.float32())
    if types.is_decimal(array.type):  # a narrow one has no room for Arrow's zero
        array = array.cast(pa.float64())
    zero = pa.scalar(False if types.is_boolean(array.type) else 0, array.type)
    values = numbers(pc.fill_null(array, zero)).astype(feature.dtype)
    values[missing] = fill
    return values


def _scalars(batch: pa.RecordBatch, run: list[Feature], where: Where) -> np.ndarray:
    """Return columns of one type side by side, an F-ordered array (rows, columns)."""
    arrays = [plain_values(batch.column(feature.column.name)) for feature in run]
    for feature, array in zip(run, arrays, strict=True):
        if feature.column.fill is None:
            refuse_null(array, f'column "{feature.column.name}"', where)
    values = (
        filled(array, feature, (feature.column.fill or (0.0,))[0])
        for feature, array in zip(run, arrays, strict=True)
    )
    if len(run) == 1:
        return next(values)[:, None]
    side_by_side = np.empty((batch.num_rows, len(run)), run[0].dtype, order="F")
    for j, column in enumerate(values):
        side_by_side[:, j] = column
    return side_by_side


def refuse_other_lengths(batch: pa.RecordBatch, feature: Feature, where: Where) -> None:
    """Raise DataError that names the first list of another length than the feature's."""
    name, width = feature.column.name, feature.width
    if feature.column.sparse is not None:
        return
    if not is_vector(feature.kind) or fixed_width(feature.kind) is not None:
        return
    array = batch.column(name)
    lengths = np.diff(as_numpy(array.offsets))
    odd = np.flatnonzero((lengths != width) & ~as_numpy(pc.is_null(array)))
    if odd.size:
        raise DataError(
            f'{where(int(odd[0]))}: column "{name}" holds a list of {lengths[odd[0]]} numbers, '
            f"but of {width} in the first list. All need the same length."
        )


def items_of(array: pa.Array) -> pa.Array:
    """Return the items of lists that are no nulls, one list after the other."""
    # `flatten` heeds a slice's offset, where `values` does not; it drops null rows.
    stored = array.storage if isinstance(array, pa.ExtensionArray) else array
    return plain_values(stored.flatten())


def _vectors(batch: pa.RecordBatch, feature: Feature, where: Where) -> np.ndarray:
    """Return a column of lists as an array (rows, width)."""
    name, width, fill = feature.column.name, feature.width, feature.column.fill
    array = batch.column(name)
    if fill is None:
        refuse_null(array, f'column "{name}"', where)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    refuse_other_lengths(batch, feature, where)
    items = items_of(array)
    if fill is None:
        refuse_null(items, f'an item of column "{name}"', lambda item: where(item // width))
    values = filled(items, feature, 0.0).reshape(-1, width)
    if fill is None or not (array.null_count or items.null_count):
        return values
    there = as_numpy(pc.is_valid(array))
    rows = np.tile(np.array(fill).astype(feature.dtype), (batch.num_rows, 1))
    missing = as_numpy(pc.is_null(items)).reshape(-1, width)
    rows[there] = np.where(missing, rows[there], values)
    return rows


def _codes(batch: pa.RecordBatch, feature: Feature, where: Where, treated: TreatedCounts) -> Codes:
    """Return a column of categories as codes, -1 for what was not there in training."""
    name, known = feature.column.name, feature.column.categories
    assert known is not None
    array = plain_values(batch.column(name))
    codes = np.full((batch.num_rows, 1), -1, feature.dtype)
    there = np.flatnonzero(as_numpy(pc.is_valid(array)))
    if feature.column.fill is None:
        refuse_null(array, f'column "{name}"', where)
    found = np.full(there.size, -1, feature.dtype)
    # A folder's name may be text where all were numbers in training.
    is_stray = types.is_string(array.type) and types.is_integer(feature.kind)
    if there.size and not is_stray:
        find = Finder(known)
        found = find(array.drop_null(), f'column "{name}"', lambda row: where(int(there[row])))
    codes[there, 0] = found
    treated[f'unknown in "{name}"'] += int(np.count_nonzero(found < 0))
    return Codes(codes, len(known))


def _text(batch: pa.RecordBatch, feature: Feature, where: Where) -> Sparse:
    """Return a column of texts as their n-grams; a null is an empty text."""
    name = feature.column.name
    array, subject = batch.column(name), f'column "{name}"'
    if feature.column.fill is None:
        refuse_null(array, subject, where)
    return feature.encoder(array, subject, where)


def runs_of(features: tuple[Feature, ...]) -> Runs:
    """Return the features in runs: scalars of one type that stand together, and others alone."""
    keyed = groupby(enumerate(features), lambda at: at[0] if _stands_alone(at[1]) else _key(at[1]))
    return [[feature for _, feature in run] for _, run in keyed]


def _stands_alone(feature: Feature) -> bool:
    column = feature.column
    alone = column.width is not None or column.categories is not None or column.text is not None
    return alone or column.indicator or column.sparse is not None


def _key(feature: Feature) -> str:
    return f"{feature.kind} {feature.dtype}"


def _plain_columns(batch: pa.RecordBatch, run: list[Feature]) -> Dense | None:
    """Return columns where they lie, or side by side in one call of Arrow; None where neither can.

    Each that stays where it lies costs some 10 us; a batch of which this is a part would stay too.
    """
    if len(run) < 8 or not is_plain(run[0].kind) or run[0].dtype != decoded_dtype(run[0].kind):
        return None
    names = [feature.column.name for feature in run]
    own = batch.num_rows * run[0].dtype.itemsize
    if own >= LEAST_APART and _held_of(batch.column(names[0])) < 2 * own:
        columns = [batch.column(name) for name in names]
        has_nulls = any(column.null_count for column in columns)
        return None if has_nulls else Dense(tuple(map(as_numpy, columns)))
    try:
        return Dense(np.asarray(batch.select(names).to_tensor(row_major=False)))
    except pa.ArrowException:  # there are nulls
        return None


def _held_of(array: pa.Array) -> int:
    """Return the bytes of the values that stay in memory for an array of numbers."""
    values = array.buffers()[1]
    return 0 if values is None else int(values.size)


def features_of(
    batch: pa.RecordBatch, runs: Runs, where: Where, treated: TreatedCounts
) -> tuple[Part, ...]:
    """Return the batch's features, in their runs, as parts, side by side.

    Neighbouring scalar columns of one type are one part. A null for which there is no
    fill raises DataError. What was filled or not known is counted in `treated`.
    """
    parts: list[Part] = []
    for run in runs:
        first = run[0].column
        if first.text is not None:
            parts.append(_text(batch, run[0], where))
        elif first.sparse is not None:
            unknown: list[int] = []
            parts.append(sparse_part(batch, first, where, unknown))
            treated[f'unknown in "{first.name}"'] += unknown[0]
        elif first.categories is not None:
            parts.append(_codes(batch, run[0], where, treated))
        elif first.width is not None:
            parts.append(Dense(_vectors(batch, run[0], where)))
        else:
            plain = _plain_columns(batch, run)
            parts.append(Dense(_scalars(batch, run, where)) if plain is None else plain)
        for feature in run:
            if feature.column.fill is not None and feature.column.sparse is None:
                _count_nulls(batch, feature, treated)
        if first.indicator:
            array = batch.column(first.stored_in[0])
            parts.append(Dense(nulls_of(array, run[0].width).view(np.uint8)[:, None]))
    return tuple(parts)


def _count_nulls(batch: pa.RecordBatch, feature: Feature, treated: TreatedCounts) -> None:
    array = batch.column(feature.column.name)
    count = array.null_count
    if feature.column.width is not None and count < len(array):
        count += items_of(array).null_count
    if count:
        treated[f'nulls in "{feature.column.name}"'] += count


def rows_with_nulls(
    batch: pa.RecordBatch, features: tuple[Feature, ...], where: Where
) -> np.ndarray:
    """Return which rows have a null among their features: (rows,) bool."""
    missing = np.zeros(batch.num_rows, np.bool_)
    for feature in features:
        refuse_other_lengths(batch, feature, where)
        if feature.column.sparse is not None:
            for name in feature.column.stored_in:
                missing |= as_numpy(pc.is_null(batch.column(name)))
            continue
        array = batch.column(feature.column.name)
        if array.null_count or feature.column.width is not None:
            missing |= nulls_of(array, feature.width)
    return missing
