"""The only place that reads stdin: once, into a private file that is then read as any other."""

from __future__ import annotations

import functools
import os
import shutil

import pyarrow as pa

from fastsoftmax.data.formats.private import PrivateFile
from fastsoftmax.data.formats.remote import Remote
from fastsoftmax.errors import DataError

STDIN = "-"
COPIED_BYTES = 2**20  # at a time


class Spooled(Remote):
    """What came from stdin, as a file called `-`."""

    file: PrivateFile
    size: int

    def open(self) -> pa.NativeFile:
        """Open it."""
        return self.file.open()

    def stat(self) -> tuple[int, int]:
        """Return its size; nobody knows when it was written."""
        return self.size, 0


@functools.cache
def spooled() -> Spooled:
    """Return stdin as a file; it is read the first time that is asked for."""
    found = Spooled(STDIN)
    found.file = PrivateFile("the data from stdin")
    try:
        with open(0, "rb", closefd=False) as stdin, found.file.sink() as sink:
            if os.isatty(0):
                raise DataError("- is stdin, and nothing is piped into it: name a file.")
            shutil.copyfileobj(stdin, sink, COPIED_BYTES)
            found.size = sink.tell()
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise found.file.failed(error) from error
    if not found.size:
        raise DataError("-: nothing came from stdin.")
    return found
