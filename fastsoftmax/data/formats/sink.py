"""The only place that writes results, row by row, into files of all formats and into pipes."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastsoftmax.data.formats.encoding import ArrowStream, CsvRows, Encoding, JsonRows
from fastsoftmax.data.values import plain_values
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.files import replacement, reporting
from fastsoftmax.labels import Classes

STDOUT = "-"
PARQUET = (".parquet", ".pq")
IPC = (".arrow", ".feather")
ENDINGS = {".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow",
           ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}  # fmt: skip
PIPED: dict[str, type[Encoding]] = {"csv": CsvRows, "jsonl": JsonRows, "arrow": ArrowStream}
# A row group is as many rows as fill this, so that readers neither crawl nor need much memory.
GROUP_BYTES = 2**25
GROUP_ROWS = 2**17


def format_of(path: str | os.PathLike[str], given: str | None = None) -> str:
    """Return the format of a file: the one given, or what its name ends in; of `-` CSV.

    Raises OptionError for those that there are not, or that no pipe can carry.
    """
    formats = list(dict.fromkeys(ENDINGS.values()))
    if given is not None and given not in formats:
        raise OptionError(f"format must be one of {', '.join(formats)}, got {given}")
    if os.fspath(path) == STDOUT:
        if given == "parquet":
            raise OptionError("format parquet needs a file: nothing can read it from a pipe")
        return given or "csv"
    suffix = Path(path).suffix.lower()
    if given is None and suffix not in ENDINGS:
        listed = ", ".join(ENDINGS)
        raise OptionError(
            f"the output {os.fspath(path)} must end in one of {listed}, got {suffix or 'no ending'}"
            ", or format must say which it is"
        )
    return given or ENDINGS[suffix]


@contextlib.contextmanager
def open_sink(
    path: str | os.PathLike[str],
    classes: Classes,
    *,
    proba: bool = False,
    top_n: int | None = None,
    format: str | None = None,  # noqa: A002
    pipe: BinaryIO | None = None,
) -> Iterator[Sink]:
    """Give a Sink whose rows stand at `path` when the `with` ends well, and nowhere if it does not.

    proba: write all probabilities. top_n: write the n most probable classes too. format: parquet,
    arrow, csv or jsonl, by default what the name ends in. pipe: where rows go whose path is `-`;
    what was written to it cannot be taken back.
    """
    kind = format_of(path, format)
    if top_n is not None and not 1 <= top_n <= len(classes):
        raise OptionError(f"top_k must be in 1..{len(classes)}, the number of classes, got {top_n}")
    with contextlib.ExitStack() as stack:
        if pipe is not None:
            writer: Writer = EncodedWriter(PIPED[kind], pipe)
        else:
            partial = stack.enter_context(replacement(path))
            if kind in ("csv", "jsonl"):
                with reporting(path):
                    file = stack.enter_context(open(partial, "wb"))
                writer = EncodedWriter(PIPED[kind], file)
            else:
                writer = ArrowWriter(partial, as_ipc=kind == "arrow")
        sink = Sink(writer, os.fspath(path), classes, proba, top_n, is_flat=kind == "csv")
        try:
            yield sink
            sink.flush()
        finally:
            sink.close()


class Writer(ABC):
    """Where groups of rows go."""

    @abstractmethod
    def write(self, group: pa.Table) -> None:
        """Write a group of rows, all of one schema."""

    @abstractmethod
    def close(self) -> None:
        """Write what stands after the last row."""


class ArrowWriter(Writer):
    """Writes a Parquet or an Arrow IPC file by Arrow's own writers."""

    def __init__(self, partial: Path, *, as_ipc: bool) -> None:
        """Begin a file; its schema is known with the first rows."""
        self.partial, self.as_ipc = partial, as_ipc
        self._writer: Any = None

    def write(self, group: pa.Table) -> None:
        if self._writer is None and self.as_ipc:
            self._writer = pa.ipc.new_file(str(self.partial), group.schema)
        elif self._writer is None:
            self._writer = _open_parquet(self.partial, group.schema)
        self._writer.write_table(group)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class EncodedWriter(Writer):
    """Writes bytes from front to back: to a file, or to a pipe that somebody reads meanwhile."""

    def __init__(self, encoding: type[Encoding], file: BinaryIO) -> None:
        """Write to `file`, which stays open."""
        self.encoding, self.file = encoding, file
        self._encoder: Encoding | None = None

    def write(self, group: pa.Table) -> None:
        if self._encoder is None:
            self._encoder = self.encoding(group.schema)
            self.file.write(self._encoder.begin())
        self.file.write(self._encoder.encode(group))

    def close(self) -> None:
        if self._encoder is not None:
            self.file.write(self._encoder.end())
            self.file.flush()


class Sink:
    """Predictions on their way into a file, gathered into row groups."""

    def __init__(
        self,
        writer: Writer,
        path: str,
        classes: Classes,
        proba: bool,
        top_n: int | None,
        *,
        is_flat: bool = False,
    ) -> None:
        """Begin a file; its schema is known with the first rows. is_flat: it holds no lists."""
        self.writer = writer
        self.path = path
        self.classes = _label_array(classes)
        self.proba = proba
        self.top_n = top_n
        self.is_flat = is_flat
        self.rows = 0  # written
        self._schema: pa.Schema | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0

    def append(
        self,
        probabilities: np.ndarray,
        kept: pa.RecordBatch | None = None,
        dropped: np.ndarray | None = None,
        best: np.ndarray | None = None,
    ) -> None:
        """Add rows: their probabilities (n, K), and the columns to hand on beside them.

        dropped: which rows have no prediction but nulls, where there may be such rows. best: (n,)
        the first class of the largest probability by number, where it is known.
        """
        best = probabilities.argmax(axis=1) if best is None else best
        columns = self._columns(probabilities, best)
        if dropped is not None:
            columns = {name: _nulled(column, dropped) for name, column in columns.items()}
        batch = _beside(kept, columns, nullable=dropped is not None)
        if self._schema is None:
            self._schema = batch.schema
        elif not batch.schema.equals(self._schema):
            changed = _difference(self._schema, batch.schema)
            raise DataError(f"a kept column changes its type within the data: {changed}.")
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        if self._waiting_rows >= GROUP_ROWS or self._waiting_bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait, as one row group or record batch."""
        if self._schema is None:
            raise DataError("the data hold no rows; there is nothing to predict.")
        if self._waiting:
            group = pa.Table.from_batches(self._waiting, self._schema).combine_chunks()
            try:
                with self._reporting():
                    self.writer.write(group)
            except pa.ArrowException as error:
                raise DataError(f"{self.path} cannot hold these columns: {error}.") from error
            self.rows += group.num_rows
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def close(self) -> None:
        """Finish the file."""
        with self._reporting():
            self.writer.close()

    def _reporting(self) -> contextlib.AbstractContextManager[None]:
        """Return what tells of a disk that failed; of a pipe that nobody reads the caller knows."""
        return contextlib.nullcontext() if self.path == STDOUT else reporting(self.path)

    def _columns(self, p: np.ndarray, best: np.ndarray) -> dict[str, pa.Array]:
        rows = np.arange(len(p))
        columns = {
            "prediction": self.classes.take(pa.array(best)),
            "probability": pa.array(p[rows, best]),
        }
        if self.proba:
            columns |= self._side_by_side("probabilities", "p", pa.array(p.reshape(-1)))
        if self.top_n is not None:
            top = _most_probable(p, self.top_n)
            labels = self.classes.take(pa.array(top.reshape(-1)))
            largest = pa.array(np.take_along_axis(p, top, axis=1).reshape(-1))
            columns |= self._side_by_side(
                "top_predictions", "top_prediction", labels, self.top_n, 1
            )
            columns |= self._side_by_side(
                "top_probabilities", "top_probability", largest, self.top_n, 1
            )
        return columns

    def _side_by_side(
        self, name: str, each: str, items: pa.Array, width: int | None = None, first: int = 0
    ) -> dict[str, pa.Array]:
        """Return a column of lists, or where there are none a column for each place in them."""
        width = width or len(self.classes)
        if not self.is_flat:
            return {name: _lists(items, width)}
        rows = np.arange(len(items) // width) * width
        return {f"{each}_{first + j}": items.take(pa.array(rows + j)) for j in range(width)}


def _open_parquet(partial: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a writer that spends little on probabilities, of which hardly two are alike.

    A dictionary of them took two thirds of the time, zstd half of the rest; the file is the smaller
    for snappy: 223 MB instead of 231 for 5,000,000 rows of 10 classes, and 1.7 s instead of 5.2.
    """
    kinds = {field.name: field.type for field in schema}
    repeating = [name for name, kind in kinds.items() if not _holds_floats(kind)]
    return pq.ParquetWriter(
        str(partial),
        schema,
        compression="snappy",
        use_dictionary=[_leaf(name, kinds[name]) for name in repeating],
        write_statistics=[name for name, kind in kinds.items() if not pa.types.is_nested(kind)],
        write_page_checksum=True,
    )


def _holds_floats(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if not pa.types.is_nested(kind):
        return bool(pa.types.is_floating(kind))
    return any(_holds_floats(kind.field(i).type) for i in range(kind.num_fields))


def _leaf(name: str, kind: pa.DataType) -> str:
    """Return what Parquet calls the column that holds the values of a list, or of no list."""
    return f"{name}.list.element" if pa.types.is_nested(kind) else name


def _label_array(classes: Classes) -> pa.Array:
    kinds = {"bool": pa.bool_(), "string": pa.string()}
    kind = kinds[classes.kind] if classes.kind in kinds else pa.type_for_alias(classes.kind)
    return pa.array(classes.values, type=kind)


def _lists(items: pa.Array, width: int) -> pa.Array:
    """Return items as lists of `width`; declared not null, so that readers need not look."""
    item = pa.field("item", items.type, nullable=False)
    return pa.FixedSizeListArray.from_arrays(items, type=pa.list_(item, width))


def _most_probable(p: np.ndarray, count: int) -> np.ndarray:
    """Return the indices (n, count) of the largest probabilities, of equal ones the first first."""
    left = p.copy()
    rows = np.arange(len(p))
    top = np.empty((len(p), count), np.int64)
    # For the few that are asked for, a pass each is faster than sorting all classes.
    for rank in range(count):
        top[:, rank] = left.argmax(axis=1)
        left[rows, top[:, rank]] = -1
    return top


def _nulled(column: pa.Array, dropped: np.ndarray) -> pa.Array:
    rows = np.where(dropped, 0, np.arange(len(column)))
    return column.take(pa.array(rows, mask=dropped))


def _beside(
    kept: pa.RecordBatch | None, columns: dict[str, pa.Array], *, nullable: bool
) -> pa.RecordBatch:
    fields = [pa.field(name, array.type, nullable=nullable) for name, array in columns.items()]
    arrays = list(columns.values())
    if kept is not None:
        clash = [name for name in kept.schema.names if name in columns]
        if clash:
            raise OptionError(
                f'keep: a column "{clash[0]}" is written already; rename the one in the data'
            )
        # Dictionaries differ between batches, and few readers know views.
        handed_on = [plain_values(column) for column in kept.columns]
        # Only name and type: metadata, such as pandas', describe a table that this is not.
        names = zip(kept.schema.names, handed_on, strict=True)
        fields = [*(pa.field(name, column.type) for name, column in names), *fields]
        arrays = [*handed_on, *arrays]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _difference(want: pa.Schema, got: pa.Schema) -> str:
    pairs = zip(want, got, strict=False)
    changed = (f'"{a.name}" was {a.type}, then {b.type}' for a, b in pairs if not a.equals(b))
    return next(changed, "others are there")
