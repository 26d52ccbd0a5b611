"""The only place that rewrites data into the layout that reads fastest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastsoftmax.data.formats.sink import IPC, PARQUET
from fastsoftmax.data.memory import beside
from fastsoftmax.data.open import column_name, names_of, open_source
from fastsoftmax.data.packed import DTYPES, NAME, Packing
from fastsoftmax.data.source import Chunk, Column, Source
from fastsoftmax.data.values import without_views
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.facts import dataclass
from fastsoftmax.files import replacement, reporting, require_path
from fastsoftmax.kernels.transpose import copy_matrix

GROUP_BYTES = 2**25  # of a row group's features
LEAST_ROWS, MOST_ROWS = 1024, 2**17  # of a row group


@dataclass(frozen=True)
class Packed:
    """What was written.

    rows, features, dtype: of the file. scaled: whether features are stored as steps of a scale of
    their own. bytes: of the file. lost: the largest difference of a feature from what it was;
    lost_relative: the largest relative to it; 0 where nothing was lost. worst: the feature where it
    was largest.
    """

    rows: int
    features: int
    dtype: str
    scaled: bool
    bytes: int
    lost: float
    lost_relative: float
    worst: str | None


def pack(
    data: Any,
    output: str | os.PathLike[str],
    target: Any = None,
    *,
    features: Sequence[str] | None = None,
    weight: str | None = None,
    keep: Sequence[str] = (),
    dtype: str | None = None,
    memory: int = 10**9,
) -> Packed:
    """Write the rows of `data` to `output` so that they read fastest; return what was done.

    output: ends in .parquet, or in .arrow or .feather for Arrow IPC. target: the column of classes,
    or an array of them. features: the columns to pack; default all but those written beside them.
    weight, keep: columns to write beside them, as they are. dtype: of the numbers; default the
    narrowest that loses nothing. uint8 stores floats as 256 steps between each feature's extremes.

    Raises DataError at a null, at NaN or an infinity that dtype cannot hold, and where a number
    overflows it.
    """
    require_path(output)
    suffix = Path(output).suffix.lower()
    if suffix not in (*PARQUET, *IPC):
        listed = ", ".join((*PARQUET, *IPC))
        raise OptionError(f"the output {os.fspath(output)} must end in one of {listed}")
    if dtype is not None and (not isinstance(dtype, str) or dtype not in DTYPES):
        raise OptionError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    target, weight, keep = column_name(target), column_name(weight), names_of(keep, "keep") or ()
    named = [name for name in (target, weight) if isinstance(name, str)]
    source = open_source(
        data,
        None if isinstance(target, str) else target,
        features=features,
        keep=(*named, *(name for name in keep if name not in named)),
        memory=memory,
    )
    with closing(source):
        if source.nonzeros is not None:
            raise DataError(
                "sparse rows cannot be packed: their zeros are left out as they are. Train on them"
                " as they stand, or give dense ones (X.toarray())."
            )
        stored = _common_dtype(source) if dtype is None else np.dtype(dtype)
        packing = _packing(source, stored, target if isinstance(target, str) else None)
        writer = _Writer(source, packing, target)
        with replacement(output) as partial, reporting(output):
            try:
                rows = writer.write(str(partial), suffix in IPC)
            except pa.ArrowException as error:
                raise DataError(
                    f"{os.fspath(output)} cannot hold these columns: {error}. Leave them out of"
                    " keep=, or cast them."
                ) from error
        size = Path(output).stat().st_size
    worst = None if writer.lost == 0 else _feature_name(packing, writer.worst)
    return Packed(
        rows, packing.n_features, packing.dtype.name, packing.scale is not None, size,
        writer.lost, writer.lost_relative, worst,
    )  # fmt: skip


def _feature_name(packing: Packing, j: int) -> str:
    return [name for column in packing.columns for name in column.feature_names][j]


def _blocks(source: Source) -> Iterator[tuple[Chunk, list[np.ndarray]]]:
    """Yield chunks, and their features (rows, some), side by side, each in its own dtype."""
    for chunk in source.chunks(None):
        yield chunk, [part.by_row(copy_matrix).matrix() for part in chunk.parts]


def _common_dtype(source: Source) -> np.dtype:
    """Return the narrowest dtype that holds all parts' numbers, or float64 where none does."""
    with closing(source.chunks(None)) as chunks:
        parts = next(chunks).parts
    common = np.result_type(*(part.dtype for part in parts))
    return common if common.name in DTYPES else np.dtype(np.float64)


def _packing(source: Source, dtype: np.dtype, target: str | None) -> Packing:
    columns = source.columns or (Column(NAME, source.n_features),)
    plain = Packing(NAME, columns, dtype, target=target)
    if dtype != np.uint8:
        return plain
    low, high, whole = np.full(source.n_features, np.inf), np.full(source.n_features, -np.inf), True
    for chunk, parts in _blocks(source):
        X = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        _refuse_non_finite(X, chunk, source, plain)
        low, high = np.minimum(low, X.min(axis=0)), np.maximum(high, X.max(axis=0))
        whole = whole and (X.dtype.kind in "ui" or bool((np.floor(X) == X).all()))
    if whole and low.min() >= 0 and high.max() <= 255:
        return plain
    span = high - low
    scale = np.where(span > 0, span / 255, 1.0).astype(np.float32)
    offset = low.astype(np.float32)
    return Packing(
        NAME, columns, dtype, tuple(scale.tolist()), tuple(offset.tolist()), target
    )  # fmt: skip


def _refuse_non_finite(X: np.ndarray, chunk: Chunk, source: Source, packing: Packing) -> None:
    odd = np.argwhere(~np.isfinite(X))
    if len(odd):
        row, j = (int(i) for i in odd[0])
        raise DataError(
            f"{source.place(chunk.piece, chunk.start + row)}: {_feature_name(packing, j)} is"
            f" {X[row, j]}, which {packing.dtype} cannot hold. Use a dtype of floats, or fill it."
        )


class _Writer:
    """Rows on their way into a file, row group by row group."""

    def __init__(self, source: Source, packing: Packing, target: Any) -> None:
        self._source, self._packing = source, packing
        # Classes given as an array beside a matrix become a column of their own.
        given = target is not None and not isinstance(target, str)
        self._labels = beside(target, "target").array if given else None
        self.lost = self.lost_relative = 0.0
        self.worst = 0

    def write(self, path: str, as_ipc: bool) -> int:
        """Write all rows; return how many."""
        size = self._packing.n_features * self._packing.dtype.itemsize
        group_rows = min(max(GROUP_BYTES // size, LEAST_ROWS), MOST_ROWS)
        writer: Any = None
        waiting: list[pa.RecordBatch] = []
        total = filled = 0
        try:
            for batch in self._batches(group_rows):
                if writer is None:
                    schema = _schema(batch, self._packing)
                    writer = _open(path, schema, self._packing, as_ipc)
                waiting.append(batch)
                filled += batch.num_rows
                total += batch.num_rows
                if filled >= group_rows:
                    writer.write_table(_joined(waiting, schema))
                    waiting, filled = [], 0
            if waiting:
                writer.write_table(_joined(waiting, schema))
        finally:
            if writer is not None:
                writer.close()
        return total

    def _batches(self, most: int) -> Iterator[pa.RecordBatch]:
        """Yield record batches of packed rows that fill row groups of `most` rows exactly."""
        total = 0
        for chunk, parts in _blocks(self._source):
            stored = self._converted(parts, chunk)
            done = 0
            while done < chunk.rows:
                count = min(chunk.rows - done, most - total % most)
                rows = np.ascontiguousarray(stored[done : done + count])
                buffers = [None, pa.py_buffer(rows)]
                columns = [pa.Array.from_buffers(self._packing.kind, count, buffers)]
                names = [self._packing.name]
                if self._labels is not None:
                    if len(self._labels) < total + count:
                        raise DataError(
                            f"the target has {len(self._labels):,} labels, fewer than the data"
                            " have rows: give one for each."
                        )
                    names.append("label")
                    columns.append(self._labels.slice(total, count))
                if chunk.kept is not None:
                    names += chunk.kept.schema.names
                    columns += map(without_views, chunk.kept.slice(done, count).columns)
                yield pa.RecordBatch.from_arrays(columns, names)
                total, done = total + count, done + count

    def _converted(self, parts: list[np.ndarray], chunk: Chunk) -> np.ndarray:
        """Return the rows as they are stored; note what that loses."""
        if len(parts) == 1:
            return self._stored(parts[0], 0, chunk)
        stored = np.empty((chunk.rows, self._packing.n_features), self._packing.dtype)
        first = 0
        for X in parts:
            last = first + X.shape[1]
            stored[:, first:last] = self._stored(X, first, chunk)
            first = last
        return stored

    def _stored(self, X: np.ndarray, first: int, chunk: Chunk) -> np.ndarray:
        """Return the features from number `first` on as they are stored; note what that loses."""
        packing = self._packing
        if X.dtype == packing.dtype and packing.scale is None:
            return X
        if packing.scale is not None and packing.offset is not None:
            span = slice(first, first + X.shape[1])
            scale, offset = (np.array(n)[span] for n in (packing.scale, packing.offset))
            steps = np.rint((X.astype(np.float64) - offset) / scale)
            stored = np.clip(steps, 0, 255).astype(packing.dtype)
            back = (stored * scale.astype(np.float32) + offset.astype(np.float32)).astype(float)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                stored = X.astype(packing.dtype)
            self._refuse_overflow(X, stored, first, chunk)
            if packing.dtype.kind in "ui":
                return stored  # each number is the same, or was refused
            back = stored.astype(np.float64)
        self._note(X, back, first)
        return stored

    def _refuse_overflow(self, X: np.ndarray, stored: np.ndarray, first: int, chunk: Chunk) -> None:
        integers = stored.dtype.kind in "ui"
        fits = stored == X if integers else np.isfinite(stored) | ~np.isfinite(X)
        if integers and X.dtype.kind == "i" and stored.dtype.kind == "u":
            fits &= X >= 0  # older versions of NumPy compare these as floats
        if fits.all():
            return
        row, j = (int(i) for i in np.argwhere(~fits)[0])
        raise DataError(
            f"{self._source.place(chunk.piece, chunk.start + row)}:"
            f" {_feature_name(self._packing, first + j)} is {X[row, j]}, which {stored.dtype}"
            " cannot hold. Use a wider dtype."
        )

    def _note(self, X: np.ndarray, back: np.ndarray, first: int) -> None:
        lost = np.abs(np.where(np.isfinite(X), _difference(X, back), 0.0))
        largest = float(lost.max(initial=0.0))
        if largest > self.lost:
            self.lost, self.worst = largest, first + int(lost.max(axis=0).argmax())
        there = (X != 0) & np.isfinite(X)
        size = np.abs(X.astype(np.float64))
        relative = np.divide(lost, size, out=np.zeros_like(lost), where=there)
        self.lost_relative = max(self.lost_relative, float(relative.max(initial=0.0)))


def _difference(X: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return X - back in float64, exact also for integers that no float64 holds."""
    if X.dtype.kind not in "ui" or X.dtype.itemsize < 8:
        with np.errstate(invalid="ignore"):
            return X.astype(np.float64) - back
    high, low = X >> X.dtype.type(32), X & X.dtype.type(2**32 - 1)
    return (high.astype(np.float64) * 2.0**32 - back) + low.astype(np.float64)


def _schema(batch: pa.RecordBatch, packing: Packing) -> pa.Schema:
    first = pa.field(packing.name, packing.kind, nullable=False)
    return pa.schema([first, *list(batch.schema)[1:]], metadata=packing.metadata())


def _joined(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    cast = [pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in batches]
    return pa.Table.from_batches(cast, schema).combine_chunks()


def _open(path: str, schema: pa.Schema, packing: Packing, as_ipc: bool) -> Any:
    if as_ipc:
        return pa.ipc.new_file(path, schema)
    others = [name for name in schema.names if name != packing.name]
    return pq.ParquetWriter(
        path,
        schema,
        # Bytes of numbers shrink little, and reading them plain is several times faster.
        compression={name: "zstd" if name in others else "none" for name in schema.names},
        use_dictionary=others or False,
        write_statistics=others or False,
        write_page_checksum=True,
    )
