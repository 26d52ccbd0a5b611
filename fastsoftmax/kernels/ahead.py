"""The only place that asks for memory before it is needed: the next block's rows, line by line.

Shuffled rows come from memory at a latency that a gather cannot hide: 400 ns a row of 784 floats.
Asked for a few cache lines at a time while the products run, they arrive for nothing.
"""

from __future__ import annotations

from collections import namedtuple

from llvmlite import ir
from numba import types

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.gather import ADDRESS, COLUMN_STRIDE, ITEM, ROW_STRIDE, WIDTH
from fastsoftmax.kernels.vectors import I32, apart, word

LINE = 64  # bytes

# For each worker: addresses of cache lines (workers, n), and how far it has come (workers, 8).
Ahead = namedtuple("Ahead", "lines cursor")
# cursor: lines asked for, lines there are, how many to ask for at a time.
DONE, STOP, QUOTA = range(3)


@word(lambda address: None)
def prefetch(typing_context, address):
    """Ask for the cache line at `address`."""

    def build(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        signature = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], signature)
        reading, soon, data = (ir.Constant(I32, value) for value in (0, 3, 1))
        builder.call(function, [pointer, reading, soon, data])
        return context.get_dummy_value()

    return types.void(types.int64), build


@kernel(EXACT)
def look_ahead(ahead, rows, first, stop, calls, worker, team):
    """List the cache lines of this worker's share of rows first : stop, to be asked for in `calls`
    portions."""
    apart()
    lines, cursor = ahead.lines[worker], ahead.cursor[worker]
    room, count = lines.shape[0], 0
    for p in range(rows.table.shape[0]):
        at = rows.table[p]
        if at[COLUMN_STRIDE] == at[ITEM]:
            length = (at[WIDTH] * at[ITEM] + LINE - 1) // LINE
            for t in range(first + worker, stop, team):
                if count + length <= room:
                    address = at[ADDRESS] + rows.order[t] * at[ROW_STRIDE]
                    for line in range(length):
                        lines[count + line] = address + line * LINE
                    count += length
    cursor[DONE] = 0
    cursor[STOP] = count
    cursor[QUOTA] = (count + calls - 1) // calls


@kernel(EXACT)
def ask(ahead, worker):
    """Ask for the next portion of this worker's lines."""
    cursor = ahead.cursor[worker]
    start = cursor[DONE]
    stop = min(start + cursor[QUOTA], cursor[STOP])
    for i in range(start, stop):
        prefetch(ahead.lines[worker, i])
    cursor[DONE] = stop
