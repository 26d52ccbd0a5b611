"""The only place for private files: written once, read again, and gone with the process."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fastsoftmax.data.column_names import places_of
from fastsoftmax.errors import SaveError
from fastsoftmax.files import cache_folder


def sink_of(descriptor: int) -> pa.NativeFile:
    """Open a file that may have no name to be written at its end.

    "wb" would cut it, and ext4 has all of a file that was cut written to the disk once it is
    closed: 0.4 s of 800 MB.
    """
    return pa.OSFile(f"/dev/fd/{descriptor}", "ab")


class PrivateFile:
    """A file without a name, so that it is gone when nobody holds it, however a run ends."""

    def __init__(self, what: str) -> None:
        """Make the file; `what` it is for: messages say so. Raises SaveError where none can be."""
        self.what = what
        try:
            folder = cache_folder()
            self._descriptor, name = tempfile.mkstemp(prefix="fastsoftmax-", dir=folder)
            os.unlink(name)
        except OSError as error:
            raise self.failed(error) from error
        weakref.finalize(self, os.close, self._descriptor)

    def __getstate__(self) -> Any:
        """Refuse: its descriptor would be another file's elsewhere."""
        raise TypeError(f"{self.what} are in a private file of this process")

    def open(self) -> pa.NativeFile:
        """Open it anew, to be read from its begin."""
        return pa.OSFile(f"/dev/fd/{self._descriptor}", "rb")

    def sink(self) -> pa.NativeFile:
        """Open it to be written at its end."""
        return sink_of(self._descriptor)

    def failed(self, error: OSError) -> SaveError:
        """Return the error for a file that could not be written."""
        reason = error.strerror or str(error)
        return SaveError(
            f"{self.what} cannot be kept in {cache_folder()} while they are used: {reason}. Set"
            " TMPDIR to a folder with more room."
        )


class PrivateRows:
    """Record batches of one schema in a private file, each read by its number."""

    def __init__(self, what: str, schema: pa.Schema) -> None:
        """Begin the file."""
        self.schema, self.rows = schema, list[int]()
        self._file = PrivateFile(what)
        self._sink = self._file.sink()
        self._writer: Any = pa.ipc.new_file(self._sink, schema)

    def add(self, batch: pa.RecordBatch) -> None:
        """Write a batch."""
        try:
            self._writer.write_batch(batch)
        except OSError as error:
            raise self._file.failed(error) from error
        self.rows.append(batch.num_rows)

    def seal(self) -> None:
        """End the writing."""
        try:
            self._writer.close()
            self._sink.close()
        except OSError as error:
            raise self._file.failed(error) from error

    def read(self, number: int, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield columns of a batch, at most so many rows at a time."""
        fields = places_of(self.schema, names)
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        with self._file.open() as file:
            batch = pa.ipc.open_file(file, options=options).get_batch(number)
        for first in range(0, batch.num_rows, rows):
            yield batch.slice(first, rows)
