"""The only place that takes some of the rows of files, to try on them what will be done to all."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data.formats.files import FileBatches
from fastsoftmax.data.open import open_batches
from fastsoftmax.errors import OptionError

MANY_PIECES = 32  # of which some are taken; of fewer some rows of each batch are, in memory
READ_ROWS = 2**13


def some_rows(data: Any, types: Any, size: int) -> tuple[Any, int]:
    """Return about so many rows of files, from all over them."""
    batches = open_batches(data, dict(types or {}))
    if not isinstance(batches, FileBatches):
        raise OptionError("only runs over files are foreseen: give paths")
    total, count = sum(batches.pieces), len(batches.pieces)
    if size >= total:
        return data, total
    if count >= MANY_PIECES:
        wanted = max(1, round(count * size / total))
        chosen = np.unique(np.linspace(0, count - 1, wanted).astype(int)).tolist()
        batches.keep_only(chosen)
        return batches, sum(batches.pieces)
    return _spread_rows(batches, size / total), size


def _spread_rows(batches: FileBatches, share: float) -> pa.Table:
    """Return copies of the first rows of each batch, for else whole batches would be held."""
    sink, owed = pa.BufferOutputStream(), 0.0
    with (
        closing(batches.read(batches.schema.names, None, READ_ROWS)) as read,
        pa.ipc.new_stream(sink, batches.schema) as written,
    ):
        for batch in read:
            rows = batch.rows.select(batches.schema.names)
            owed += share * rows.num_rows
            written.write_batch(rows.slice(0, int(owed)))
            owed -= int(owed)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
