"""The only place that says what must be known of a kind of lines to read files of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import pyarrow as pa

from fastsoftmax.errors import DataError
from fastsoftmax.facts import dataclass

Types = dict[str, pa.DataType]


@dataclass(frozen=True)
class TextBlock:
    """Some whole lines of a file: their bytes, and the number of the first one, from 1."""

    data: bytes
    line: int


class Dialect(ABC):
    """How lines become rows."""

    given: Mapping[str, pa.DataType]  # types that are not to be looked for
    quotes_hold_lines = False  # whether a line may end within quotes

    @abstractmethod
    def begin(self, path: str, head: bytes) -> int:
        """Learn from the first lines; return how many bytes of them hold no rows."""

    @abstractmethod
    def cut(self, data: bytes) -> int:
        """Return how many bytes at the begin of `data` are whole rows; 0 where not one is."""

    @abstractmethod
    def types(self, block: TextBlock) -> Types:
        """Return the types of the columns, by a block alone, but for those given."""

    @abstractmethod
    def parse(self, block: TextBlock, schema: pa.Schema) -> pa.Table:
        """Return a block's rows; raise ArrowInvalid where they are not of these types."""

    @abstractmethod
    def complaint(self, path: str, block: TextBlock) -> DataError | None:
        """Return what is wrong with a block that Arrow could not parse, and where; or None."""

    @abstractmethod
    def odd(self, block: TextBlock, name: str, kind: pa.DataType) -> str | None:
        """Say which line holds the first value that is not of a type, and what it is."""


def decoded(path: str, data: bytes, line: int) -> str:
    """Return bytes that begin at a line as text; raise DataError where they are not in UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        at = line + data.count(b"\n", 0, error.start)
        odd = data[max(error.start - 10, 0) : error.start + 10]
        raise DataError(
            f"{path}, line {at}: it is not in UTF-8 ({odd!r}). Write the file in UTF-8, as iconv"
            " does."
        ) from error
