"""The only place that knows the packed layout: a row's features as the bytes of one value.

One column, `binary(d * itemsize)` without nulls, holds the features of a row one after the other,
as NumPy has them; it is read without decoding. The schema's metadata tell what they are.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data.source import Column
from fastsoftmax.data.values import Where, refuse_null
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass

KEY, VERSION = b"fastsoftmax", 1
NAME = "features"
DTYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float16", "float32", "float64"),
)


@dataclass(frozen=True)
class Packing:
    """What a packed column holds.

    name: the column's. columns: those it was made of, in order. dtype: of the numbers. scale,
    offset: None, or for each number what it is multiplied by and what is added then, to give the
    feature.
    target: the column of classes, where it was known.
    """

    name: str
    columns: tuple[Column, ...]
    dtype: np.dtype
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    target: str | None = None

    @property
    def n_features(self) -> int:
        """How many numbers a row has."""
        return sum(column.n_features for column in self.columns)

    @property
    def kind(self) -> pa.DataType:
        """The Arrow type of the column."""
        return pa.binary(self.n_features * self.dtype.itemsize)

    def metadata(self) -> dict[bytes, bytes]:
        """Return the schema metadata that `packing_of` reads."""
        told = {
            "version": VERSION,
            "name": self.name,
            "columns": [[column.name, column.width] for column in self.columns],
            "dtype": self.dtype.name,
            "scale": self.scale,
            "offset": self.offset,
            "target": self.target,
        }
        return {KEY: json.dumps(told).encode()}

    def unpacked(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of a file as if the columns were still apart."""
        number = pa.from_numpy_dtype(np.dtype(np.float32) if self.scale else self.dtype)
        kinds = [number if c.width is None else pa.list_(number, c.width) for c in self.columns]
        named = zip(self.columns, kinds, strict=True)
        apart = [pa.field(column.name, kind, nullable=False) for column, kind in named]
        others = [field for field in schema if field.name != self.name]
        return pa.schema([*apart, *others])

    def positions(self, columns: tuple[Column, ...]) -> np.ndarray | None:
        """Return where the numbers of these columns stand in a row; None for all in order."""
        if [(c.name, c.width) for c in columns] == [(c.name, c.width) for c in self.columns]:
            return None
        starts, at = {}, 0
        for column in self.columns:
            starts[column.name] = at
            at += column.n_features
        return np.concatenate(
            [starts[c.name] + np.arange(c.n_features) for c in columns], dtype=np.int64
        )

    def rows(self, batch: pa.RecordBatch, chosen: np.ndarray | None, where: Where) -> np.ndarray:
        """Return the features (rows, d) of a batch, or those at the positions `chosen`."""
        column = batch.column(self.name)
        refuse_null(column, f'column "{self.name}"', where)
        flat = np.frombuffer(column.buffers()[1], self.dtype)
        width, first = self.n_features, column.offset
        rows = flat[first * width : (first + len(column)) * width].reshape(len(column), width)
        rows = rows if chosen is None else rows[:, chosen]
        if self.scale is None or self.offset is None:
            return rows
        scale, offset = (np.array(numbers, np.float32) for numbers in (self.scale, self.offset))
        if chosen is not None:
            scale, offset = scale[chosen], offset[chosen]
        return rows * scale + offset


def packing_of(schema: pa.Schema, origin: str) -> Packing | None:
    """Return how the rows of a file are packed, or None where they are not.

    Raises DataError where the metadata contradict themselves or the column.
    """
    told = (schema.metadata or {}).get(KEY)
    if told is None:
        return None
    try:
        packing = _read(json.loads(told))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{origin}: its metadata do not say how it is packed ({error}). Pack the data again."
        ) from error
    if packing.name not in schema.names:
        return None  # a file made of a packed one
    kind = schema.field(packing.name).type
    if kind != packing.kind:
        raise DataError(
            f'{origin}: column "{packing.name}" is of type {kind}, but its metadata tell of'
            f" {packing.n_features} numbers of {packing.dtype}. Pack the data again."
        )
    return packing


def _read(told: Any) -> Packing:
    if told["version"] != VERSION:
        raise ValueError(f"version {told['version']!r} is not {VERSION}")
    if told["dtype"] not in DTYPES:
        raise ValueError(f"dtype {told['dtype']!r} is none of {', '.join(DTYPES)}")
    columns = tuple(Column(_text(name), _width(width)) for name, width in told["columns"])
    if not columns or len({column.name for column in columns}) < len(columns):
        raise ValueError("the columns are none, or some have one name")
    d = sum(column.n_features for column in columns)
    scale, offset = (_numbers(told[key], d) for key in ("scale", "offset"))
    if (scale is None) != (offset is None):
        raise ValueError("scale and offset do not go together")
    target = None if told["target"] is None else _text(told["target"])
    return Packing(_text(told["name"]), columns, np.dtype(told["dtype"]), scale, offset, target)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no name")
    return value


def _width(value: object) -> int | None:
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ValueError(f"{value!r} is no width")
    return value


def _numbers(values: Any, count: int) -> tuple[float, ...] | None:
    if values is None:
        return None
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"there must be {count} finite numbers")
    return numbers
