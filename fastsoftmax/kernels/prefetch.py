"""The only place that asks for memory before it is needed: the next block's rows, line by line.

Shuffled rows come from memory at a latency that a gather cannot hide: 400 ns a row of 784 floats.
So the cache lines of the next block are listed, and the tiles ask for one of them in each round of
their loops: spread so thinly, they arrive while the products run.
"""

from __future__ import annotations

import numpy as np

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.gather import ADDRESS, COLUMN_STRIDE, ITEM, ROW_STRIDE, WIDTH
from fastsoftmax.kernels.vectors import address_of, list_lines, noinline, prefetch_line

LINE = 64  # bytes


def lines_at_hand(workers: int, count: int) -> np.ndarray:
    """Return lists of cache lines to ask for that hold none yet but their own first line."""
    lines = np.zeros((workers, count), dtype=np.int64)
    for i in range(workers):
        lines[i, 0] = lines[i:].ctypes.data
    return lines


def new_lines(rows: int, d: int, workers: int) -> np.ndarray:
    """Return lists that hold the cache lines of so many rows."""
    return lines_at_hand(workers, rows * (d * np.dtype(np.float64).itemsize // LINE + 2))


@kernel(EXACT)
def plan_prefetch(lines, worker, rows, first, stop, every):
    """List in lines[worker] the cache lines of rows first : stop : every.

    Return the addresses of the list's first and last entries. The last is a line at hand, the
    list's own, for tiles to ask for when the list is done.
    """
    noinline()
    room, count = lines.shape[1] - 1, 0
    for p in range(rows.table.shape[0]):
        at = rows.table[p]
        # A row of a matrix that lies column by column is as many lines as it has features.
        if at[COLUMN_STRIDE] == at[ITEM]:
            for t in range(first, stop, every):
                address = at[ADDRESS] + rows.order[t] * at[ROW_STRIDE]
                line = address // LINE * LINE
                length = (address + at[WIDTH] * at[ITEM] - line + LINE - 1) // LINE
                # Rows of many parts may need more room: those left out are gathered unasked.
                if count + length <= room:
                    list_lines(lines, worker, count, line, length)
                    count += length
    last = address_of(lines, worker, count)
    lines[worker, count] = last
    return address_of(lines, worker, 0), last


@kernel(EXACT)
def prefetch_rows(table, order, first, stop):
    """Ask for the cache lines of rows first : stop of the order."""
    for p in range(table.shape[0]):
        at = table[p]
        start, stride, length = at[ADDRESS], at[ROW_STRIDE], at[WIDTH] * at[ITEM]
        if at[COLUMN_STRIDE] == at[ITEM]:
            for t in range(first, stop):
                address = start + order[t] * stride
                for line in range(0, length, LINE):
                    prefetch_line(address + line)
                # Rows begin anywhere in a line: the last number may lie in one more.
                prefetch_line(address + length - 1)


@kernel(EXACT)
def prefetch_ends(rows, first, stop):
    """Ask for the last cache line of rows first : stop."""
    for p in range(rows.table.shape[0]):
        at = rows.table[p]
        end = at[ADDRESS] + at[WIDTH] * at[ITEM] - 1
        for t in range(first, stop):
            prefetch_line(end + rows.order[t] * at[ROW_STRIDE])
