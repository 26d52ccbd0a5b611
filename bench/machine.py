"""The limits of this machine, measured: multiply-adds and bytes a second, one core and all.

The kernels here do nothing else, so that a training kernel's speed can be told as a share of what
the processor allows.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import types

from fastsoftmax.kernels.compile import kernel
from fastsoftmax.kernels.vectors import (
    VECTOR_BYTES,
    Loop,
    element_address,
    fill,
    lanes,
    llvm_type,
    load,
    load_at,
    multiply_add,
    number,
    of_array,
    splat,
    store,
    store_at,
    word,
)
from fastsoftmax.kernels.workspace import aligned

CHAINS = 10  # independent sums: the latency of a multiply-add times what starts in a cycle
ROUNDS = 4_000_000
READ_BYTES = 1 << 28  # far more than any cache


class Limits(NamedTuple):
    """FLOP/s by dtype, and bytes read a second, for one core and for all."""

    flops: dict[str, float]
    flops_all: dict[str, float]
    read: float
    read_all: float
    cores: int


@word(None)
def chains(typing_context, A, rounds):
    """Run CHAINS sums of products in registers for `rounds` rounds; add them to A[0]."""

    def build(context, builder, signature, arguments):
        array, count = arguments
        ty = llvm_type(of_array(A))
        zero = number(0)
        at = element_address(context, builder, A, array, zero, zero)
        factor = load_at(builder, at, ty)
        loop = Loop(builder, count, 1, [fill(ty, float(i)) for i in range(CHAINS)])
        loop.carry([multiply_add(builder, factor, factor, value) for value in loop.variables])
        total = fill(ty, 0.0)
        for value in loop.variables:
            total = builder.fadd(total, value)
        store_at(builder, total, at)
        return context.get_dummy_value()

    return types.void(A, types.int64), build


@kernel()
def multiply_adds(A, rounds):
    """Do CHAINS x rounds vector multiply-adds."""
    chains(A, rounds)


@kernel()
def read_all_of(A, out):
    """Add up all of A (rows, 1024), vector by vector."""
    first = second = splat(A, A.dtype.type(0))
    step = lanes(A)
    for i in range(A.shape[0]):
        for j in range(0, A.shape[1], 2 * step):
            first = first + load(A, i, j)
            second = second + load(A, i, j + step)
    store(out, 0, 0, first + second)


def _together(jobs: list[Callable[[], None]]) -> float:
    """Run jobs at once, a thread each; return the seconds until the last is done."""
    threads = [threading.Thread(target=job) for job in jobs]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def peak_flops(dtype: str, cores: int = 1) -> float:
    """Return the multiply-add peak in FLOP/s, counting two for each multiply-add."""
    arrays = [aligned((1, 64), np.dtype(dtype)) for _ in range(cores)]
    multiply_adds(arrays[0], 1)
    seconds = min(
        _together([lambda A=A: multiply_adds(A, ROUNDS) for A in arrays]) for _ in range(5)
    )
    width = VECTOR_BYTES // np.dtype(dtype).itemsize
    return 2 * CHAINS * ROUNDS * width * cores / seconds


def read_rate(cores: int = 1) -> float:
    """Return bytes read from memory a second."""
    rows = READ_BYTES // 4096 // cores
    arrays = [aligned((rows, 1024), np.dtype("f4")) for _ in range(cores)]
    outs = [aligned((1, 64), np.dtype("f4")) for _ in range(cores)]
    for A in arrays:
        A[:] = 1
    read_all_of(arrays[0][:1], outs[0])
    jobs = [lambda A=A, out=out: read_all_of(A, out) for A, out in zip(arrays, outs, strict=True)]
    return rows * 4096 * cores / min(_together(jobs) for _ in range(5))


def limits() -> Limits:
    """Measure all limits (about a second)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    dtypes = ("float32", "float64")
    return Limits(
        {dtype: peak_flops(dtype) for dtype in dtypes},
        {dtype: peak_flops(dtype, cores) for dtype in dtypes},
        read_rate(),
        read_rate(cores),
        cores,
    )


def fingerprint() -> str:
    """Return what this machine and its software are, in a line."""
    import llvmlite
    import numba
    import pyarrow

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return (
        f"{model}, {platform.system()}, Python {platform.python_version()}, "
        f"numpy {np.__version__}, numba {numba.__version__}, llvmlite {llvmlite.__version__}, "
        f"pyarrow {pyarrow.__version__}"
    )


def table(found: Limits) -> str:
    """Return the limits as a Markdown table."""
    lines = ["| limit | one core | all cores |", "|---|---|---|"]
    for dtype in found.flops:
        one, every = found.flops[dtype] / 1e9, found.flops_all[dtype] / 1e9
        lines.append(f"| multiply-adds, {dtype} | {one:.0f} GFLOP/s | {every:.0f} GFLOP/s |")
    one, every = found.read / 1e9, found.read_all / 1e9
    lines.append(f"| memory read | {one:.1f} GB/s | {every:.1f} GB/s |")
    return "\n".join(lines)
