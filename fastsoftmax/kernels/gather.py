"""The only place that knows dtypes and layouts: rows of any kind become a block of floats.

A part (some columns of one dtype) is described by numbers, one row of a table each, so that one
compilation serves every dtype and layout. The arrays must outlive the calls that use their table.
"""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import ir
from numba import types

from fastsoftmax.kernels.compile import EXACT, kernel
from fastsoftmax.kernels.vectors import (
    FEATURES,
    I32,
    I64,
    apart,
    fill,
    fma,
    lanes,
    llvm_type,
    of_array,
    splat,
    store,
    total,
    word,
)

KINDS = tuple(
    np.dtype(name) for name in ("f4", "f8", "f2", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
)
HALF = np.dtype("f2")
WIDENS_HALVES = not {"f16c", "neon"}.isdisjoint(FEATURES)
ADDRESS, ROW_STRIDE, COLUMN_STRIDE, KIND, WIDTH, COLUMN, ITEM = range(7)


def part_table(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """Describe arrays (rows, width), side by side, as a table (parts, 7) int64 for `gather`."""
    table, column = [], 0
    for part in parts:
        dtype = np.dtype("u1") if part.dtype == np.bool_ else part.dtype
        kind = KINDS.index(dtype.newbyteorder("="))
        address = part.__array_interface__["data"][0]
        table.append((address, *part.strides, kind, part.shape[1], column, dtype.itemsize))
        column += part.shape[1]
    return np.array(table, dtype=np.int64)


def _stored_type(kind, count):
    halves = ir.HalfType() if WIDENS_HALVES else ir.IntType(16)
    if kind.kind == "f":
        scalar = {2: halves, 4: ir.FloatType(), 8: ir.DoubleType()}[kind.itemsize]
    else:
        scalar = ir.IntType(kind.itemsize * 8)
    return ir.VectorType(scalar, count)


def _widen_halves(builder, value):
    """Return float16 bits as floats, by integer arithmetic: for CPUs with no instruction for it.

    Moving exponent and mantissa into place makes numbers 2^112 too small, subnormals included;
    exponents of ones (infinities, NaN) are set anew.
    """
    ty = ir.VectorType(ir.FloatType(), value.type.count)
    integers = ir.VectorType(I32, ty.count)
    bits = builder.zext(value, integers)
    low = builder.shl(builder.and_(bits, fill(integers, 0x7FFF)), fill(integers, 13))
    scaled = builder.fmul(builder.bitcast(low, ty), fill(ty, 2.0**112))
    odd = builder.icmp_unsigned(">=", low, fill(integers, 0x7C00 << 13))
    ones = builder.select(odd, fill(integers, 0x7F800000), fill(integers, 0))
    sign = builder.shl(builder.and_(bits, fill(integers, 0x8000)), fill(integers, 16))
    whole = builder.or_(builder.or_(builder.bitcast(scaled, integers), ones), sign)
    return builder.bitcast(whole, ty)


def _cast(builder, value, kind, ty):
    if kind == HALF and not WIDENS_HALVES:
        value, kind = _widen_halves(builder, value), np.dtype("f4")
    if kind.kind == "u":
        return builder.uitofp(value, ty)
    if kind.kind == "i":
        return builder.sitofp(value, ty)
    size = 4 if isinstance(ty.element, ir.FloatType) else 8
    if kind.itemsize == size:
        return value
    return (builder.fpext if kind.itemsize < size else builder.fptrunc)(value, ty)


def _load_cast(builder, address, kind, ty):
    stored = _stored_type(kind, ty.count)
    loaded = builder.load(builder.inttoptr(address, stored.as_pointer()))
    loaded.align = 1
    return _cast(builder, loaded, kind, ty)


def _memory(address, kind, count):
    memory = (ctypes.c_char * (count * kind.itemsize)).from_address(int(address))
    return np.frombuffer(memory, kind)


def _read_any(builder, address, kind, ty):
    """Load a vector `ty` from numbers of KINDS[kind] at `address`: a switch, one arm a kind.

    One loop with the switch inside compiles in a tenth of the time of a loop for each kind.
    """
    start, end = builder.block, builder.append_basic_block("read.end")
    default = builder.append_basic_block("read.none")
    choice = builder.switch(kind, default)
    arms = []
    for code, stored in enumerate(KINDS):
        arm = builder.append_basic_block(f"read.{stored.name}")
        choice.add_case(ir.Constant(I64, code), arm)
        builder.position_at_end(arm)
        arms.append((_load_cast(builder, address, stored, ty), arm))
        builder.branch(end)
    builder.position_at_end(default)
    builder.unreachable()
    builder.position_at_end(end)
    value = builder.phi(ty)
    for loaded, arm in arms:
        value.add_incoming(loaded, arm)
    return value


def _memory(X, address, kind, count):
    stored = KINDS[kind]
    memory = (ctypes.c_char * (count * stored.itemsize)).from_address(int(address))
    with np.errstate(over="ignore"):
        return np.frombuffer(memory, stored).astype(X.dtype)


@word(lambda X, address, kind: _memory(X, address, kind, lanes(X)))
def read(typing_context, X, address, kind):
    """Return a vector of X's dtype from numbers of KINDS[kind] at `address`."""

    def build(context, builder, signature, arguments):
        return _read_any(builder, *arguments[1:], llvm_type(of_array(X)))

    return of_array(X)(X, types.int64, types.int64), build


@word(lambda X, address, kind: _memory(X, address, kind, 1)[0])
def read_one(typing_context, X, address, kind):
    """Return one number of X's dtype from a number of KINDS[kind] at `address`."""

    def build(context, builder, signature, arguments):
        ty = ir.VectorType(llvm_type(of_array(X)).element, 1)
        value = _read_any(builder, *arguments[1:], ty)
        return builder.extract_element(value, ir.Constant(I32, 0))

    return X.dtype(X, types.int64, types.int64), build


@kernel(EXACT)
def _gather_columns(X, start, stop, rows, first, at):
    """Gather a part whose columns are apart in memory, column by column."""
    column, kind = at[COLUMN], at[KIND]
    zero = X.dtype.type(0)
    odd = zero
    for j in range(at[WIDTH]):
        base = at[ADDRESS] + j * at[COLUMN_STRIDE]
        for t in range(start, stop):
            x = read_one(X, base + rows[first + t] * at[ROW_STRIDE], kind)
            X[t, column + j] = x
            odd += x * zero
    return odd


@kernel(EXACT)
def _gather_rows(X, start, stop, rows, first, at):
    """Gather a part whose rows are contiguous, a vector at a time."""
    column, width, kind, item = at[COLUMN], at[WIDTH], at[KIND], at[ITEM]
    zero = X.dtype.type(0)
    zeros = splat(X, zero)
    odd, odds = zero, zeros
    step = lanes(X)
    whole = width - width % step
    for t in range(start, stop):
        address = at[ADDRESS] + rows[first + t] * at[ROW_STRIDE]
        for j in range(0, whole, step):
            x = read(X, address + j * item, kind)
            store(X, t, column + j, x)
            odds = fma(x, zeros, odds)
        for j in range(whole, width):
            last = read_one(X, address + j * item, kind)
            X[t, column + j] = last
            odd += last * zero
    return odd + total(odds)


@kernel(EXACT)
def gather(X, start, stop, rows, first, table):
    """Copy row rows[first + t] of every part to X[t], cast, for start <= t < stop.

    Return whether all of them are finite after the cast: the sum of 0 x is 0, or NaN.
    """
    apart()
    odd = X.dtype.type(0)
    for p in range(table.shape[0]):
        at = table[p]
        if at[COLUMN_STRIDE] == at[ITEM]:
            odd += _gather_rows(X, start, stop, rows, first, at)
        else:
            odd += _gather_columns(X, start, stop, rows, first, at)
    return odd == 0
