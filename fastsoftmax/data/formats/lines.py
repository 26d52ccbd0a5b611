"""The only place that reads files of lines: block by block once, and then from a private file.

A first pass parses blocks of whole lines, in threads, and learns how many rows there are and of
which types. Where a value is not of the type that those before it had, the types of all the rest
are looked at, and the pass begins again. Every later pass reads what was parsed.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from fastsoftmax.data.columns import NOTE
from fastsoftmax.data.formats.dialect import Dialect, TextBlock, Types
from fastsoftmax.data.formats.files import DataFile, OpenFile, first_line, opened
from fastsoftmax.data.formats.odd_values import OddValues
from fastsoftmax.data.formats.private import PrivateRows
from fastsoftmax.errors import DataError
from fastsoftmax.options import MOST_READERS, available_threads

BLOCK_BYTES = 2**22  # of text that are parsed at once
MOST_BYTES = 2**28  # of a line
SAMPLES, SAMPLE_BYTES = 8, 2**16  # places of a plain file that tell types before it is read
HEAD_BYTES = 2**12  # that tell a file from others
DIGESTED_BYTES = 2**12  # of each end of a block
CODECS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def _without_mark(head: bytes) -> bytes:
    """Return the begin of a file without the mark that some write before UTF-8."""
    return head.removeprefix(b"\xef\xbb\xbf")


def widest(first: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type that holds the values of both: of numbers and text, text."""
    if first == other or pa.types.is_null(other):
        return first
    if pa.types.is_null(first):
        return other
    if {first, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(first) and pa.types.is_list(other):
        return pa.list_(widest(first.value_type, other.value_type))
    return pa.string()


def _unite(known: Types, more: Types) -> Types:
    names = dict.fromkeys([*known, *more])
    nothing = pa.null()
    return {n: widest(known.get(n, nothing), more.get(n, nothing)) for n in names}


class TextPath(DataFile):
    """A file of lines by its path: a block of lines is a piece."""

    piece_name = "block"
    is_text = True

    def __init__(self, path: str, dialect: Dialect, codec: str | None) -> None:
        """Note the size and age of the file; dialect: of its lines; codec: it is compressed by."""
        super().__init__(path)
        self._dialect, self._codec = dialect, codec
        self._lock = threading.Lock()
        self._rows: PrivateRows | None = None
        self._lines: list[TextBlock] = []  # of each piece, without its bytes
        self._digests: list[str] = []
        self._dense: list[bool] = []  # whether each line of a piece is a row
        self._notes: dict[str, str] = {}  # of columns, which value made them text
        self.casts: Types = {}  # what further files of the data set ask of columns

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to read the file, which it converts for itself."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_rows")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _rows=None)
        self._lines, self._digests, self._dense = [], [], []

    def __copy__(self) -> TextPath:
        """Return another face of the same rows."""
        other = TextPath.__new__(TextPath)
        other.__dict__.update(self.__dict__, casts={})
        return other

    def open(self) -> OpenFile:
        """Return the rows; the first time, read the file and learn its types."""
        with self._lock:
            if self._rows is None:
                try:
                    self._rows = self._convert()
                except (pa.ArrowException, OSError) as error:
                    if isinstance(error, DataError):
                        raise
                    raise DataError(
                        f"{self.path}: it cannot be read ({first_line(error)}). Write it again, or"
                        " leave it out."
                    ) from error
        return _OpenText(
            self._rows, self._digests, _noted(self._rows.schema, self._notes), self.casts
        )

    def would_have(self, types: Mapping[str, pa.DataType]) -> bool:
        """Return whether the rows, once they are read, are those that such given types ask for."""
        given, kinds = self._dialect.given, {f.name: f.type for f in self.open().schema}
        return given.items() <= types.items() <= kinds.items()

    def footer(self) -> bytes:
        """Return the first bytes."""
        with opened(self.path) as file:
            return bytes(file.read(HEAD_BYTES))

    def place(self, piece: int, row: int) -> str:
        """Say at which line a row stands."""
        line = self._lines[piece].line + row
        return f"{self.path}, {'' if self._dense[piece] else 'about '}line {line}"

    def _convert(self) -> PrivateRows:
        types, notes = self._sampled_types(), self._notes
        tried: list[Types] = []
        while True:
            found = self._parsed(types, notes)
            if isinstance(found, PrivateRows):
                return found
            if found in tried:  # no type holds the values of some column
                raise self._of_many_kinds(notes)
            tried.append(found)
            types = found

    def _parsed(self, types: Types, notes: dict[str, str]) -> PrivateRows | Types:
        """Return all rows, or the types that they turn out to have."""
        rows: PrivateRows | None = None
        self._lines, self._digests, self._dense = [], [], []
        for block, table in self._in_threads(self._blocks(), types):
            if isinstance(table, dict):
                return self._looked_ahead(block, types, notes)
            if rows is None:
                types = {field.name: field.type for field in table.schema}
                rows = PrivateRows(f"the rows of {self.path}", table.schema)
                odd = OddValues(self._dialect, table, notes)
            odd.look(block, table)
            for batch in table.combine_chunks().to_batches():
                rows.add(batch)
                self._note_piece(block, batch.num_rows)
        if rows is None:
            raise DataError(f"{self.path}: there are no rows.")
        rows.seal()
        return rows

    def _of_many_kinds(self, notes: Mapping[str, str]) -> DataError:
        """Return the error for a column whose values no one type holds."""
        complaints = (self._dialect.complaint(self.path, block) for block in self._blocks())
        odd = "; ".join(f'column "{name}": {note}' for name, note in notes.items())
        return next(filter(None, complaints), None) or DataError(
            f"{self.path}: a column holds values of more than one kind ({odd}). Write all values of"
            " a column alike."
        )

    def _note_piece(self, block: TextBlock, rows: int) -> None:
        data = block.data
        ends = data[:DIGESTED_BYTES] + data[len(data) // 2 :][:DIGESTED_BYTES]
        digest = hashlib.sha256(ends + data[-DIGESTED_BYTES:] + repr(len(data)).encode())
        self._lines.append(TextBlock(b"", block.line))
        self._digests.append(digest.hexdigest()[:16])
        self._dense.append(data.count(b"\n") + (not data.endswith(b"\n")) == rows)

    def _in_threads(
        self, blocks: Iterator[TextBlock], types: Types
    ) -> Iterator[tuple[TextBlock, pa.Table | Types]]:
        """Yield each block and its rows, in order; or in their place the types they turn out to be.

        The first block says which columns there are, and of which types, if nothing else does.
        """
        first = next(blocks, None)
        if first is None:
            return
        types = _unite(types, self._types_of(first))
        schema = pa.schema(list(types.items()))
        threads = min(available_threads(), MOST_READERS)
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[tuple[TextBlock, Future[Any]]] = deque()
            try:
                waiting.append((first, pool.submit(self._parse, first, schema)))
                for block in blocks:
                    waiting.append((block, pool.submit(self._parse, block, schema)))
                    if len(waiting) > threads + 1:
                        done, job = waiting.popleft()
                        yield done, job.result()
                while waiting:
                    done, job = waiting.popleft()
                    yield done, job.result()
            finally:
                for _, job in waiting:
                    job.cancel()

    def _parse(self, block: TextBlock, schema: pa.Schema) -> pa.Table | Types:
        """Return a block's rows, or the types that it has where it has others than these."""
        try:
            return self._dialect.parse(block, schema)
        except pa.ArrowInvalid:
            return self._types_of(block)

    def _types_of(self, block: TextBlock) -> Types:
        """Return the types of a block; raise DataError where it cannot be parsed."""
        complaint = None
        try:
            found = self._dialect.types(block)
        except pa.ArrowInvalid as error:
            complaint = self._dialect.complaint(self.path, block)
            if complaint is None:
                raise DataError(
                    f"{self.path}, lines from {block.line} on: they cannot be parsed"
                    f" ({first_line(error)}). Correct them, or leave them out."
                ) from error
        if complaint is not None:
            raise complaint
        return found

    def _looked_ahead(self, block: TextBlock, types: Types, notes: dict[str, str]) -> Types:
        """Return the types of all rows, from a block on that has others than those before."""
        first = self._types_of(next(self._blocks()))
        known = _unite(types, first)
        # What was parsed ahead is to be looked at too: the blocks come again from the first one.
        for each in self._blocks():
            if each.line < block.line:
                continue
            wider = _unite(known, self._types_of(each))
            for name, kind in wider.items():
                old = known.get(name, pa.null())
                is_new = old != kind and pa.types.is_string(kind) and not pa.types.is_null(old)
                if is_new and name not in notes and (odd := self._dialect.odd(each, name, old)):
                    notes[name] = odd
            known = wider
        return known

    def _sampled_types(self) -> Types:
        """Return types from a few places of a plain file, which spare it most second passes."""
        known: Types = {}
        if self._codec is not None or self.size < 2 * BLOCK_BYTES:
            return known
        with opened(self.path) as file:
            self._dialect.begin(self.path, _without_mark(bytes(file.read(BLOCK_BYTES))))
            for i in range(1, SAMPLES + 1):
                data = bytes(file.read_at(SAMPLE_BYTES, i * (self.size - SAMPLE_BYTES) // SAMPLES))
                lines = data[data.find(b"\n") + 1 : data.rfind(b"\n") + 1]
                try:
                    found = self._dialect.types(TextBlock(lines, 0))
                except (pa.ArrowInvalid, DataError):
                    continue
                if self._dialect.quotes_hold_lines and b'"' in lines:
                    # What begins within a value may look as if other columns held text.
                    found = {n: kind for n, kind in found.items() if not pa.types.is_string(kind)}
                known = _unite(known, found)
        return known

    def _blocks(self) -> Iterator[TextBlock]:
        """Yield the file's rows in blocks of whole lines."""
        with opened(self.path) as plain:
            file = plain if self._codec is None else pa.CompressedInputStream(plain, self._codec)
            data = _without_mark(bytes(file.read(BLOCK_BYTES)))
            if not data.strip():
                raise DataError(f"{self.path}: the file is empty.")
            start = self._dialect.begin(self.path, data)
            line, data = 1 + data.count(b"\n", 0, start), data[start:]
            while True:
                more = bytes(file.read(BLOCK_BYTES))
                stop = self._dialect.cut(data) if more else len(data)
                if stop:
                    block = TextBlock(data[:stop], line)
                    if block.data.strip():
                        yield block
                    line += data.count(b"\n", 0, stop)
                elif len(data) > MOST_BYTES:
                    raise DataError(
                        f"{self.path}, line {line}: the row that begins there has no end within"
                        f" {MOST_BYTES:,} bytes. Look for a quote that is not closed."
                    )
                data = data[stop:] + more
                if not more and not data:
                    return


class _OpenText(OpenFile):
    """The rows of a text file, from where they are kept."""

    def __init__(
        self, rows: PrivateRows, digests: list[str], schema: pa.Schema, casts: Types
    ) -> None:
        self._rows, self._digests, self._casts = rows, digests, casts
        self.pieces = tuple(rows.rows)
        fields = [f.with_type(casts[f.name]) if f.name in casts else f for f in schema]
        self.schema = pa.schema(fields)

    def read(self, piece: int, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a block."""
        for batch in self._rows.read(piece, names, batch_rows):
            columns = [
                c.cast(self._casts[name]) if name in self._casts else c
                for name, c in zip(batch.schema.names, batch.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, batch.schema.names)

    def digests(self) -> list[str]:
        """Return a digest of the length and of some bytes of each block."""
        return self._digests

    def close(self) -> None:
        """Keep the rows: they are there as long as their file is in use."""


def _noted(schema: pa.Schema, notes: Mapping[str, str]) -> pa.Schema:
    """Return the schema with a note at each column that other values made text."""
    return pa.schema(
        [f.with_metadata({NOTE: notes[f.name]}) if f.name in notes else f for f in schema]
    )


def agree(files: Sequence[DataFile]) -> None:
    """Let columns that are whole numbers in some text files and others in others be of one type."""
    texts = [file for file in files if isinstance(file, TextPath)]
    if len(texts) < 2:
        return
    schemas = [text.open().schema for text in texts]
    known: Types = {}
    for schema in schemas:
        known = _unite(known, {field.name: field.type for field in schema})
    for text, schema in zip(texts, schemas, strict=True):
        for field in schema:
            kind = known[field.name]
            loses = pa.types.is_string(kind) and not pa.types.is_null(field.type)
            if kind != field.type and not loses:
                text.casts[field.name] = kind
