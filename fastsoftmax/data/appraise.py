"""The only place that says what reading data costs: ranges, speed, what packing would buy."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data import compute as pc
from fastsoftmax.data.column_names import named_once
from fastsoftmax.data.formats.discover import find_files
from fastsoftmax.data.layouts import is_number, is_vector, item_type
from fastsoftmax.data.open import open_files, open_source
from fastsoftmax.data.pack import pack
from fastsoftmax.data.packed import packing_of
from fastsoftmax.data.parts import Part
from fastsoftmax.data.preprocessing import NullPolicy
from fastsoftmax.data.source import Source
from fastsoftmax.data.values import as_numpy, plain_values
from fastsoftmax.facts import dataclass

BATCH_ROWS = 2**14
TIMED_SECONDS = 1.0  # of reading, or until the data end
SAMPLE_ROWS = 20_000  # that are packed, to see how fast they read then


@dataclass(frozen=True)
class Range:
    """What a column of numbers holds; lowest and highest are None where nothing finite is there."""

    name: str
    lowest: float | None
    highest: float | None
    nulls: int
    not_finite: int


@dataclass(frozen=True)
class Appraisal:
    """What training on files would read.

    layout: packed, lists, columns or mixed. features: numbers a row. row_bytes: of a row's features
    as decoded. bytes: of the files. packed_bytes: the same features packed. rows_per_second: of one
    thread that decodes, measured on the first rows; packed_rows_per_second: of them once packed.
    """

    layout: str
    features: int
    row_bytes: int
    bytes: int
    packed_bytes: int
    rows_per_second: float
    packed_rows_per_second: float | None


def numeric_columns(data: Any, left_out: str | None) -> list[str]:
    """Return the names of the columns that could be features, but for one."""
    schema = open_files(find_files(data)).schema
    packing = packing_of(schema, "the data")
    schema = schema if packing is None else packing.unpacked(schema)
    numbers = [f.name for f in schema if is_number(item_type(f.type)) and f.name != left_out]
    return named_once(schema, numbers)


def open_appraised(data: Any, names: list[str]) -> Source:
    """Open the columns of numbers so that nulls are counted, not refused."""
    return open_source(data, features=names, null_policy=NullPolicy("zero"))


def appraise(data: Any, names: list[str]) -> Appraisal:
    """Return the Appraisal of files, of which the columns `names` would be features."""
    paths = find_files(data)
    files = open_files(paths)
    kinds = {field.name: field.type for field in files.schema}
    wide = [is_vector(kinds[name]) for name in names if name in kinds]
    layout = "packed" if not wide else "lists" if all(wide) else "mixed" if any(wide) else "columns"
    with closing(open_appraised(data, names)) as source:
        size, speed = files.size, _rows_per_second(source)
        return Appraisal(
            layout, source.n_features, source.row_bytes, size, source.decoded_bytes or 0, speed,
            None if layout == "packed" else _packed_speed(source),
        )  # fmt: skip


def _rows_per_second(source: Source) -> float:
    started, rows = time.perf_counter(), 0
    with closing(source.chunks(None)) as chunks:
        for chunk in chunks:
            rows += chunk.rows
            _touch(chunk.parts)
            if time.perf_counter() - started > TIMED_SECONDS:
                break
    return rows / (time.perf_counter() - started)


def _touch(parts: tuple[Part, ...]) -> None:
    """Read what may only have been pointed at."""
    for array in (array for part in parts for array in part.arrays):
        np.add.reduce(array.reshape(len(array), -1)[:, :1].astype(np.float64), axis=None)


def _packed_speed(source: Source) -> float:
    """Pack the first rows into a temporary file, and return how fast these read."""
    rows = next(source.chunks(None)).parts
    common = np.result_type(*(part.dtype for part in rows))
    sample = np.concatenate([part[:SAMPLE_ROWS].matrix().astype(common) for part in rows], axis=1)
    sample = np.where(np.isfinite(sample), sample, 0).astype(common)
    repeats = max(1, SAMPLE_ROWS // len(sample))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.parquet"
        pack(np.tile(sample, (repeats, 1)), path)
        with closing(open_source(path)) as packed:
            return _rows_per_second(packed)


def ranges(data: Any, names: list[str]) -> list[Range]:
    """Return the Range of each column, in one pass over the data."""
    files = open_files(find_files(data))
    packing = packing_of(files.schema, files.origin)
    found = {name: _Extremes() for name in names}
    read = names if packing is None else [packing.name]
    for batch in files.read(read, None, BATCH_ROWS):
        if packing is None:
            for name in names:
                found[name].add(batch.rows.column(name))
            continue
        rows, at = packing.rows(batch.rows, None, str), 0
        for column in packing.columns:
            values = rows[:, at : at + column.n_features]
            at += column.n_features
            if column.name in found:
                found[column.name].add(pa.array(values.ravel()))
    return [found[name].range(name) for name in names]


class _Extremes:
    """The extremes of a column so far."""

    def __init__(self) -> None:
        self.lowest, self.highest = np.inf, -np.inf
        self.nulls = self.not_finite = 0

    def add(self, array: pa.Array) -> None:
        """Take in values; a null list counts as one."""
        self.nulls += array.null_count
        while is_vector(array.type):
            array = (array.storage if isinstance(array, pa.ExtensionArray) else array).flatten()
            self.nulls += array.null_count
        array = plain_values(array)
        values = as_numpy(pc.drop_null(array).cast(pa.float64(), safe=False))
        finite = values[np.isfinite(values)]
        self.not_finite += values.size - finite.size
        if finite.size:
            self.lowest = min(self.lowest, float(finite.min()))
            self.highest = max(self.highest, float(finite.max()))

    def range(self, name: str) -> Range:
        """Return what was found."""
        there = self.lowest <= self.highest
        low, high = (self.lowest, self.highest) if there else (None, None)
        return Range(name, low, high, self.nulls, self.not_finite)
