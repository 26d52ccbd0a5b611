"""The only place where workers wait for each other: a spinning barrier of about a microsecond."""

from __future__ import annotations

import os

import numpy as np
from llvmlite import ir

from fastsoftmax.kernels.compile import EXACT, kernel, word
from fastsoftmax.kernels.later import cgutils, types
from fastsoftmax.kernels.vectors import I32, I64, element_address

SPINS = 4000  # about 50 microseconds; then the core is offered to others between looks


@word(getattr(os, "sched_yield", lambda: None))
def yield_core(typing_context):
    """Let another thread have the core."""

    def build(context, builder, signature, arguments):
        yields = ir.FunctionType(I32, [])
        function = cgutils.get_or_insert_function(builder.module, yields, "sched_yield")
        return builder.call(function, [])

    return types.int32(), build


# What a barrier counts: workers arrived, rounds done, stops asked for and work items taken, both in
# two turns.
ARRIVED, ROUND, STOP, QUEUE = 0, 1, 2, 4


def new_barrier() -> np.ndarray:
    """Return a barrier: six counters, each on a cache line of its own."""
    return np.zeros((QUEUE + 2, 16), dtype=np.int64)


def _twin_add(barrier, i, value):
    barrier[i, 0] += value
    return barrier[i, 0] - value


@word(_twin_add)
def atomic_add(typing_context, barrier, i, value):
    """Add `value` to barrier[i, 0] at once; return what it was before."""

    def build(context, builder, signature, arguments):
        array, row, addend = arguments
        address = element_address(context, builder, barrier, array, row, ir.Constant(I64, 0))
        pointer = builder.inttoptr(address, I64.as_pointer())
        return builder.atomic_rmw("add", pointer, addend, "seq_cst")

    return types.int64(barrier, types.int64, types.int64), build


@word(lambda barrier, i: barrier[i, 0])
def atomic_load(typing_context, barrier, i):
    """Return barrier[i, 0] as it is now."""

    def build(context, builder, signature, arguments):
        array, row = arguments
        address = element_address(context, builder, barrier, array, row, ir.Constant(I64, 0))
        pointer = builder.inttoptr(address, I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(barrier, types.int64), build


@kernel(EXACT)
def arrive(barrier, team):
    """Say that this worker has come here; return what `leave` needs to know."""
    round_number = atomic_load(barrier, ROUND)
    if team > 1 and atomic_add(barrier, ARRIVED, 1) == team - 1:
        atomic_add(barrier, ARRIVED, -team)
        atomic_add(barrier, ROUND, 1)
    return round_number


@kernel(EXACT)
def leave(barrier, round_number, team):
    """Return when all `team` workers have arrived."""
    spins = 0
    while team > 1 and atomic_load(barrier, ROUND) == round_number:
        spins += 1
        if spins > SPINS:
            yield_core()


@kernel(EXACT)
def wait(barrier, team):
    """Return when all `team` workers have come here."""
    leave(barrier, arrive(barrier, team), team)


@kernel(EXACT)
def clear(barrier, worker, team):
    """Set what is counted of stops and queues back to 0, once all workers are done with it."""
    wait(barrier, team)
    if worker == 0:
        for counter in range(STOP, QUEUE + 2):
            atomic_add(barrier, counter, -atomic_load(barrier, counter))
    wait(barrier, team)
