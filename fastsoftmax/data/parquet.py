"""The only place that reads Parquet: row group by row group, page checksums always verified."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from fastsoftmax.data.files import DataFile, OpenFile, first_line, opened, tail
from fastsoftmax.errors import DataError

MAGIC = b"PAR1"
# Bytes read at a time, over all columns: a row group is read page by page, not column by column.
READ_AHEAD, LEAST_READ = 2**20, 2**12
PAGE_BYTES = 2**20  # of a page, as most writers cut them; one of each column is held while reading


class ParquetPath(DataFile):
    """A Parquet file by its path."""

    piece_name = "row group"

    def open(self) -> OpenFile:
        """Open the file, or raise DataError where it is damaged."""
        try:
            return _OpenParquet(self.path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.path}: it is not a whole Parquet file ({first_line(error)}). "
                "Write it again, or leave it out."
            ) from error

    def footer(self) -> bytes:
        """Return the file's metadata."""
        length = int.from_bytes(tail(self.path, 8, 4), "little")
        return tail(self.path, length + 8, 8)


class _OpenParquet(OpenFile):
    def __init__(self, path: str) -> None:
        with opened(path) as file:
            metadata = pq.read_metadata(file)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        self.pieces = tuple(group.num_rows for group in groups)
        columns = max(metadata.num_columns, 1)
        largest = max((group.total_byte_size for group in groups), default=0)
        self.column_bytes = min(largest // columns, PAGE_BYTES)
        self._file = pq.ParquetFile(
            opened(path),
            metadata=metadata,
            memory_map=False,  # a mapped file that is truncated meanwhile kills the process
            buffer_size=max(READ_AHEAD // columns, LEAST_READ),
            pre_buffer=False,  # nor at once
            page_checksum_verification=True,
        )
        self.schema = self._file.schema_arrow

    def read(self, piece: int, names: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group."""
        return self._file.iter_batches(
            batch_rows, row_groups=[piece], columns=list(names), use_threads=False
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)
