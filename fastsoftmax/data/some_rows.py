"""The only place that takes some of the rows of files, to try on them what will be done to all."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa

from fastsoftmax.data.formats.files import FileBatches
from fastsoftmax.data.open import open_batches
from fastsoftmax.errors import OptionError

MANY_PIECES = 32  # of which some are taken; of fewer the first rows are, in memory
READ_ROWS = 2**13


def some_rows(data: Any, types: Any, size: int) -> tuple[Any, int]:
    """Return about so many rows of files, from all over them where there are many pieces."""
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
    return _first_rows(batches, size), size


def _first_rows(batches: FileBatches, size: int) -> pa.Table:
    names, found, left = batches.schema.names, [], size
    with closing(batches.read(names, None, READ_ROWS)) as read:
        for batch in read:
            found.append(batch.rows.select(names).slice(0, left))
            left -= found[-1].num_rows
            if not left:
                break
    return pa.Table.from_batches(found)
