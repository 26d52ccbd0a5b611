"""The only place that tells the kinds of data apart and opens each as a Source."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data import compute as pc
from fastsoftmax.data.column_choice import ColumnRequest, check_width, choose_columns
from fastsoftmax.data.encode import Given, GivenLabels
from fastsoftmax.data.formats.batch_lists import (
    is_batch_list,
    is_lazy_frame,
    reader_of_items,
    table_of,
)
from fastsoftmax.data.formats.batches import Batches
from fastsoftmax.data.formats.discover import find_files, is_path
from fastsoftmax.data.formats.partitions import NUMBER
from fastsoftmax.data.formats.remote import Remote
from fastsoftmax.data.formats.streams import ReaderBatches, StreamBatches, TableBatches, reader_of
from fastsoftmax.data.memory import MatrixSource, beside, feature_matrix
from fastsoftmax.data.preprocessing import NOTHING, NullPolicy
from fastsoftmax.data.source import Column, Source
from fastsoftmax.data.sparse_columns import NO_SPARSE, SparseRequest
from fastsoftmax.data.sparse_memory import (
    SparseMatrixSource,
    in_use_of,
    is_sparse_matrix,
    sparse_rows,
)
from fastsoftmax.data.table import TableSource
from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass

if TYPE_CHECKING:
    from fastsoftmax.data.formats.files import DataFile, FileBatches

PEEKED_SHARE = 8  # of the memory: a reader's rows without a list that tells its length


@dataclass(frozen=True)
class ReadingRequest:
    """What was asked of columns beside their names.

    types: of columns of files of lines, as TYPES of the options calls them. sparse: those of which
    most numbers are 0.
    """

    types: Mapping[str, str] | None = None
    sparse: SparseRequest = NO_SPARSE


PLAIN_COLUMNS = ReadingRequest()


def open_source(
    data: Any,
    target: Any = None,
    *,
    weight: Any = None,
    features: Sequence[str] | None = None,
    like: tuple[Column, ...] | None = None,
    like_width: int | None = None,
    label_kind: str | None = None,
    keep: Sequence[str] = (),
    categorical: Sequence[str] | None = None,
    null_policy: NullPolicy = NOTHING,
    memory: int = 10**9,
    asked: ReadingRequest = PLAIN_COLUMNS,
) -> Source:
    """Open `data` of any accepted kind, or raise DataError with what is wrong and what to do.

    target, weight: the name of a column, or an array beside data in memory; None for none.
    features: names of columns; None for all others. like: the columns of the model that the rows
    are for, or None; like_width: how many features it has, where its columns have no names;
    label_kind: the kind of its classes.
    keep: columns handed on untouched. categorical: columns whose values are categories.
    null_policy: what becomes of nulls and of texts; `learn` must be called before rows are read
    where that, or the categories, are not known from a model. memory: bytes; each reading thread
    takes a part.
    asked: what else was asked of columns.
    """
    target, weight = _given(target, "target"), _given(weight, "weight")
    request = ColumnRequest(
        _column(target),
        _column(weight),
        names_of(features, "features"),
        like,
        like_width,
        names_of(keep, "keep") or (),
        names_of(categorical, "categorical") or (),
        null_policy.nulls,
        texts=null_policy.texts,
        sparse=asked.sparse,
    )
    batches = open_batches(
        data, {**_known_kinds(like, request.target, label_kind), **(asked.types or {})}
    )
    if batches is None and is_sparse_matrix(data):
        _refuse_names(request, "a sparse matrix")
        rows = sparse_rows(data)
        in_use = in_use_of(like, like_width, rows.width)
        return SparseMatrixSource(rows, GivenLabels(target, weight), in_use)
    if batches is None:
        return _open_matrix(data, target, weight, request)
    if is_path(data) and not batches.nameless:
        _refuse_array_beside_files(target, weight)
    return _open_table(batches, target, weight, request, memory, null_policy)


def _given(value: Any, name: str) -> Given | None:
    value = column_name(value)
    if value is None or isinstance(value, str):
        return None if value is None else Given(value)
    return beside(value, name)


def column_name(given: Any) -> Any:
    """Return what names a column as text: pandas' numbers are text in Arrow; others as they are."""
    is_number = isinstance(given, int | np.integer) and not isinstance(given, bool)
    return str(given) if is_number else given


def _column(given: Given | None) -> str | None:
    return None if given is None or given.array is not None else given.name


def names_of(names: Sequence[str] | None, option: str) -> tuple[str, ...] | None:
    """Return the columns that an option lists; raise DataError where it is no list of names."""
    if isinstance(names, str):
        raise DataError(f'{option}= is a list of columns, as ["{names}"], got {names!r}.')
    if names is None:
        return None
    listed = tuple(map(column_name, names)) if isinstance(names, Iterable) else (names,)
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in listed):
        raise DataError(f"{option}= is a list of columns, each a string, got {brief(names)}.")
    return listed


def _known_kinds(
    like: tuple[Column, ...] | None, target: str | None, label_kind: str | None
) -> dict[str, str]:
    """Return what is known from training of columns that may stand in folders' names."""
    known = {} if target is None or label_kind is None else {target: label_kind}
    for column in like or ():
        if column.text is not None:
            known[column.name] = "string"
        elif column.width is None:
            known[column.name] = NUMBER if column.categories is None else column.categories.kind
    return known


def in_one_place(data: Any) -> Any:
    """Return a frame as a table, whose rows can be dealt to shards; other data as they are."""
    is_stream = hasattr(data, "__arrow_c_stream__") and not is_path(data)
    if not is_stream or isinstance(data, pa.Table | pa.RecordBatchReader) or _is_dataset(data):
        return data
    return reader_of(data, "the data").read_all()


def open_batches(data: Any, known: dict[str, str]) -> Batches | None:
    """Return what yields the data's record batches, or None for a matrix.

    known: of columns in the names of folders and in files of lines, what they are.
    """
    if isinstance(data, Batches):
        return data
    if is_path(data):
        return open_files(find_files(data), known)
    if isinstance(data, pa.Table | pa.RecordBatch):
        return TableBatches(data if isinstance(data, pa.Table) else pa.Table.from_batches([data]))
    if isinstance(data, pa.RecordBatchReader):
        return ReaderBatches(data)
    if _is_dataset(data):
        return _of_dataset(data)
    if hasattr(data, "__arrow_c_stream__"):
        return StreamBatches(lambda: data)
    if hasattr(data, "__arrow_c_array__"):
        return TableBatches(table_of([data]))
    if is_batch_list(data):
        return TableBatches(table_of(data))
    return _asked_for(data)


def _require_no_arguments(data: Callable[..., Any]) -> None:
    """Raise DataError for a function that cannot be called as it is, where that can be told."""
    try:
        signature = inspect.signature(data)
    except (TypeError, ValueError):  # of some functions in C nobody knows
        return
    try:
        signature.bind()
    except TypeError as error:
        raise DataError(
            f"the data are a function that cannot be called without arguments ({error}); give one"
            " that returns a fresh reader at each call, or call it."
        ) from None


def _asked_for(data: Any) -> Batches | None:
    """Return what yields the batches of data that are asked for them, or None for a matrix."""
    _refuse_open_file(data)
    if is_lazy_frame(data):
        return StreamBatches(lambda: data, "the lazy frame")
    if isinstance(data, Iterator):
        return ReaderBatches(reader_of_items(data, "the generator"), "the generator")
    if callable(data):
        _require_no_arguments(data)
        return StreamBatches(data)
    is_array = hasattr(data, "__array__") or is_sparse_matrix(data)
    if isinstance(data, list | tuple | dict) or is_array:
        return None
    return StreamBatches(lambda: iter(data)) if isinstance(data, Iterable) else None


def _refuse_open_file(data: Any) -> None:
    if isinstance(data, bytes | bytearray) or (hasattr(data, "read") and not callable(data)):
        raise DataError(
            f"the data are a {type(data).__name__}: an open file or bytes are not read. Give the"
            " path of the file, or a table (pyarrow.parquet.read_table reads one from bytes)."
        )


def open_files(paths: Sequence[str], known: dict[str, str] | None = None) -> FileBatches:
    """Return files as record batches, the format of each told by its first bytes.

    known: of columns in folders' names what they were in training.
    """
    from fastsoftmax.data.formats.files import FileBatches

    files = [_data_file(path, known or {}) for path in paths]
    if any(file.is_text for file in files):
        from fastsoftmax.data.formats.lines import agree

        agree(files)
    return FileBatches(files, known or {})


def _data_file(path: str, known: Mapping[str, str]) -> DataFile:
    """Return a file of the format that its first bytes tell; what reads others is not loaded."""
    from fastsoftmax.data.formats import parquet

    start = _first_bytes(path)
    if start.startswith(parquet.MAGIC):
        return parquet.ParquetPath(path)
    if start.startswith(parquet.ENCRYPTED):
        raise DataError(
            f"{path}: the file is encrypted, which is not read. Write it anew without"
            " encryption, or give a function that returns a reader which decrypts it."
        )
    from fastsoftmax.data.formats import arrays, ipc, ipc_stream
    from fastsoftmax.data.formats.recognise import text_file

    formats: dict[bytes, Callable[[str], DataFile]] = {
        ipc.MAGIC: ipc.IpcPath,
        ipc_stream.MAGIC: ipc_stream.IpcStreamPath,
        arrays.NPY: arrays.NpyPath,
        arrays.NPZ: arrays.NpzPath,
    }
    for magic, kind in formats.items():
        if start.startswith(magic):
            return kind(path)
    text = text_file(path, start, known)
    if text is None:
        raise DataError(
            f"{path}: it is neither Parquet, Arrow IPC, CSV, JSON lines nor NumPy's, by its"
            " first bytes and its name. Convert it, or leave it out."
        )
    return text


def _first_bytes(path: str) -> bytes:
    try:
        if isinstance(path, Remote):
            with path.open() as remote:
                return bytes(remote.read(8))
        with Path(path).open("rb") as file:
            return file.read(8)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path}: the file cannot be opened: {reason}.") from error


def _is_dataset(data: Any) -> bool:
    # Whoever holds a Dataset has imported its module; nobody else should pay seconds for it.
    module = sys.modules.get("pyarrow.dataset")
    return module is not None and isinstance(data, module.Dataset)


def _of_dataset(dataset: Any) -> Batches:
    """Return a dataset's files one by one where they hold all it has, else its stream.

    Arrow's own union of schemas casts numbers and fills missing columns without a word.
    """
    if _is_just_files(dataset):
        batches = open_files(dataset.files)
        if batches.schema.equals(dataset.schema):
            return batches
    return StreamBatches(lambda: dataset.scanner(use_threads=False).to_reader(), "the dataset")


def _is_just_files(dataset: Any) -> bool:
    """Return whether a dataset is local files that can be read here, unfiltered, unpartitioned."""
    import pyarrow.dataset
    import pyarrow.fs

    if dataset._scan_options or not isinstance(dataset, pyarrow.dataset.FileSystemDataset):
        return False
    readable = pyarrow.dataset.ParquetFileFormat | pyarrow.dataset.IpcFileFormat
    return (
        isinstance(dataset.filesystem, pyarrow.fs.LocalFileSystem)
        and isinstance(dataset.format, readable)
        and all(str(part.partition_expression) == "true" for part in dataset.get_fragments())
    )


def _open_table(
    batches: Batches,
    target: Given | None,
    weight: Given | None,
    request: ColumnRequest,
    memory: int,
    null_policy: NullPolicy,
) -> Source:
    if not any(batches.pieces or (1,)):
        raise DataError(f"{batches.origin}: there are no rows.")
    layout = choose_columns(
        batches.schema, request, lambda name: _first_length(batches, name, memory), batches.origin
    )
    batches.check_schemas(layout)
    return TableSource(batches, layout, GivenLabels(target, weight), memory, null_policy)


def _first_length(batches: Batches, name: str, memory: int) -> int | None:
    """Return the length of the first list in a column, or None where all rows are null.

    Raises DataError where a reader's rows, which must be kept meanwhile, exceed their share of the
    memory before there is a list.
    """
    rows = held = 0
    with closing(batches.peek(name)) as peeked:
        for batch in peeked:
            column = batch.column(name)
            if column.null_count < len(column):
                return len(column[pc.index(pc.is_valid(column), True).as_py()])
            rows, held = rows + batch.num_rows, held + batch.nbytes
            if batches.one_pass and held > memory // PEEKED_SHARE:
                raise DataError(
                    f'{batches.origin}: column "{name}" is null in the first {rows:,} rows, so that'
                    " nobody knows how long its lists are. Declare a fixed size, or give data that"
                    " can be read again."
                )
    if not rows:
        raise DataError(f"{batches.origin}: there are no rows.")
    return None


def _refuse_array_beside_files(target: Given | None, weight: Given | None) -> None:
    for given in (target, weight):
        if given is not None and given.array is not None:
            raise DataError(f"the {given.name} of files is the name of a column, not an array.")


def _open_matrix(
    data: Any, target: Given | None, weight: Given | None, request: ColumnRequest
) -> Source:
    matrix = feature_matrix(data)
    _refuse_names(request, "a matrix")
    check_width(matrix.shape[1], request, "the matrix")
    return MatrixSource(matrix, GivenLabels(target, weight))


def _refuse_names(request: ColumnRequest, what: str) -> None:
    """Raise DataError where columns are named of data whose columns have no names."""
    for name in (
        request.target,
        request.weight,
        *(request.features or ()),
        *request.keep,
        *request.categorical,
        *request.texts.names,
    ):
        if name is not None:
            raise DataError(
                f'{what} has no column "{name}": its columns have no names. Give the target and '
                "the weight as arrays, or use a table."
            )
