"""The only place that knows how svmlight files are written: a label and pairs, a row a line."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from fastsoftmax.data.formats.dialect import Dialect, TextBlock, Types
from fastsoftmax.data.sparse_columns import PAIR
from fastsoftmax.data.values import as_arrow
from fastsoftmax.errors import DataError

ENDINGS = (".svm", ".svmlight", ".libsvm")
LABEL, NAME = "label", "x"  # what its columns are called
ROW = pa.list_(PAIR)
LARGEST = 2**31 - 1


class SvmlightLines(Dialect):
    """Lines as `3 1:0.5 7:2 # a comment`."""

    def __init__(self) -> None:
        self.given = {}

    def begin(self, path: str, head: bytes) -> int:
        """Every line holds a row."""
        return 0

    def cut(self, data: bytes) -> int:
        """Return where the last line ends."""
        return data.rfind(b"\n") + 1

    def types(self, block: TextBlock) -> Types:
        """Return the type of the labels, whole numbers if all are, and that of all rows."""
        labels = _numbers(block)[0]
        whole = bool((labels == np.floor(labels)).all())
        return {LABEL: pa.int64() if whole else pa.float64(), NAME: ROW}

    def parse(self, block: TextBlock, schema: pa.Schema) -> pa.Table:
        """Return a block's rows."""
        labels, ends, index, value = _numbers(block)
        kind = schema.field(LABEL).type
        if pa.types.is_integer(kind):
            if not (labels == np.floor(labels)).all():
                raise pa.ArrowInvalid("a label is no whole number")
            labels = labels.astype(np.int64)
        pairs = pa.StructArray.from_arrays(
            [as_arrow(index.astype(np.int32)), as_arrow(value)], fields=list(PAIR)
        )
        rows = pa.ListArray.from_arrays(as_arrow(ends.astype(np.int32)), pairs).cast(ROW)
        columns = {LABEL: as_arrow(labels), NAME: rows}
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def complaint(self, path: str, block: TextBlock) -> DataError | None:
        """Return what is wrong with the first line that is no row."""
        for number, line in enumerate(block.data.split(b"\n")):
            odd = _odd_word(line.partition(b"#")[0])
            if odd is not None:
                return DataError(
                    f"{path}, line {block.line + number}: {odd!r} is not what belongs there. A line"
                    " of an svmlight file is a number, the label, and index:value pairs, the"
                    " indices whole numbers from 0 or 1 on."
                )
        return None

    def odd(self, block: TextBlock, name: str, kind: pa.DataType) -> str | None:
        """Return nothing: values of other types are no rows."""
        return None


def _numbers(block: TextBlock) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return labels (rows,), ends (rows + 1,) of the rows' pairs, their indices and values."""
    lines = list(_lines(block.data))
    counts = np.array([line.count(b":") for line in lines], np.int64)
    words = b"\n".join(lines).replace(b":", b" ").split()
    places = np.concatenate([[0], np.cumsum(1 + 2 * counts)])
    if len(words) != places[-1]:
        raise pa.ArrowInvalid("a line has words that are no pairs")
    try:
        numbers = np.array(words, dtype=bytes).astype(np.float64)
    except ValueError as error:
        raise pa.ArrowInvalid(str(error)) from error
    is_label = np.zeros(len(numbers), np.bool_)
    is_label[places[:-1]] = True
    pairs = numbers[~is_label].reshape(-1, 2)
    index = pairs[:, 0]
    if not ((index == np.floor(index)) & (index >= 0) & (index <= LARGEST)).all():
        raise pa.ArrowInvalid("an index is no whole number >= 0")
    ends = np.concatenate([[0], np.cumsum(counts)])
    return numbers[is_label], ends, index.astype(np.int64), np.ascontiguousarray(pairs[:, 1])


def _lines(data: bytes) -> Iterator[bytes]:
    """Yield the lines that hold something beside a comment."""
    for line in data.split(b"\n"):
        plain = line.partition(b"#")[0].strip()
        if plain:
            yield plain


def _odd_word(line: bytes) -> str | None:
    """Return the first word of a line that is not what belongs there, or None."""
    words = line.split()
    for at, word in enumerate(words):
        index, colon, value = word.partition(b":")
        try:
            fits = bool(colon) == (at > 0)
            number = float(value if colon else index)
            fits = fits and (at > 0 or np.isfinite(number))
            fits = fits and (not colon or 0 <= int(index) <= LARGEST)
        except ValueError:
            fits = False
        if not fits:
            return word.decode("utf-8", "replace")[:40]
    return None
