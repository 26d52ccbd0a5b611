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
from fastsoftmax.kernels.parts import categories_of, part_width
from fastsoftmax.kernels.vectors import (
    FEATURES,
    I32,
    I64,
    VECTOR_BYTES,
    Loop,
    apart,
    element_address,
    fill,
    lanes,
    llvm_type,
    load_masked,
    multiply_add,
    of_array,
    splat,
    spread,
    store_at,
    total,
    word,
)

KINDS = tuple(
    np.dtype(name) for name in ("f4", "f8", "f2", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
)
CODES = len(KINDS)  # the kind of int32 codes of categories, each of which is a feature
HALF = np.dtype("f2")
WIDENS_HALVES = not {"f16c", "neon"}.isdisjoint(FEATURES)
# FIRST: the feature, of those that a code stands for, that COLUMN is.
ADDRESS, ROW_STRIDE, COLUMN_STRIDE, KIND, WIDTH, COLUMN, ITEM, FIRST = range(8)


def part_table(
    parts: tuple[np.ndarray, ...], first: int = 0, stop: int | None = None
) -> np.ndarray:
    """Describe arrays (rows, width), side by side, as a table (parts, 8) int64 for `gather`.

    first, stop: only these of the columns.
    """
    table, column = [], 0
    for part in parts:
        width = part_width(part)
        low, high = max(first - column, 0), width
        if stop is not None:
            high = min(high, stop - column)
        if low < high:
            table.append(_part(part, low, high, column))
        column += width
    return np.array(table, dtype=np.int64).reshape(-1, FIRST + 1)


def _part(part: np.ndarray, low: int, high: int, column: int) -> tuple[int, ...]:
    address = part.__array_interface__["data"][0]
    if categories_of(part.dtype) is not None:
        return (address, part.strides[0], 0, CODES, high - low, column + low, 4, low)
    dtype = np.dtype("u1") if part.dtype == np.bool_ else part.dtype
    kind = KINDS.index(dtype.newbyteorder("="))
    address += low * part.strides[1]
    return (address, *part.strides, kind, high - low, column + low, dtype.itemsize, low)


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


def _arms(builder, kind, build_arm, types_out):
    """Build a switch on `kind`, one arm for each of KINDS; return the merged values of the arms."""
    end = builder.append_basic_block("read.end")
    none = builder.append_basic_block("read.none")
    choice = builder.switch(kind, none)
    values = []
    for code, stored in enumerate(KINDS):
        arm = builder.append_basic_block(f"read.{stored.name}")
        choice.add_case(ir.Constant(I64, code), arm)
        builder.position_at_end(arm)
        values.append((build_arm(stored), builder.block))
        builder.branch(end)
    builder.position_at_end(none)
    builder.unreachable()
    builder.position_at_end(end)
    merged = builder.phi(types_out)
    for value, block in values:
        merged.add_incoming(value, block)
    return merged


@word(lambda X: KINDS.index(X.dtype))
def own_kind(typing_context, X):
    """Return the number of X's own dtype among KINDS."""

    def build(context, builder, signature, arguments):
        return ir.Constant(I64, KINDS.index(np.dtype(f"f{X.dtype.bitwidth // 8}")))

    return types.int64(X), build


def _memory(X, address, kind, count):
    stored = KINDS[kind]
    memory = (ctypes.c_char * (count * stored.itemsize)).from_address(int(address))
    with np.errstate(over="ignore"):
        return np.frombuffer(memory, stored).astype(X.dtype)


def _copy_twin(X, t, column, address, kind, count):
    values = _memory(X, address, kind, count * lanes(X))
    X[t, column : column + len(values)] = values
    with np.errstate(invalid="ignore"):
        return (values * 0).reshape(count, -1).sum(axis=0)


@word(_copy_twin)
def copy_vectors(typing_context, X, t, column, address, kind, count):
    """Copy `count` >= 1 vectors of numbers of KINDS[kind] from `address` to X[t, column:], cast.

    Return 0 in each lane, or NaN where a number was not finite: the sum of 0 x.
    """

    def build(context, builder, signature, arguments):
        array, row, first, source, code, vectors = arguments
        ty = llvm_type(of_array(X))
        target = element_address(context, builder, X, array, row, first)

        def arm(stored):
            size = stored.itemsize * ty.count
            loop = Loop(builder, vectors, 1, [source, target, fill(ty, 0.0)])
            here, there, odds = loop.variables
            value = _load_cast(builder, here, stored, ty)
            store_at(builder, value, there)
            odds = multiply_add(builder, value, fill(ty, 0.0), odds)
            steps = (ir.Constant(I64, size), ir.Constant(I64, VECTOR_BYTES))
            loop.carry([builder.add(here, steps[0]), builder.add(there, steps[1]), odds])
            return odds

        return _arms(builder, code, arm, ty)

    i64 = types.int64
    return of_array(X)(X, i64, i64, i64, i64, i64), build


def _copy_last_twin(X, t, column, address, kind, count):
    values = np.zeros(lanes(X), X.dtype)
    values[:count] = _memory(X, address, kind, count)
    X[t, column : column + len(values)] = values
    with np.errstate(invalid="ignore"):
        return values * 0


@word(_copy_last_twin)
def copy_last(typing_context, X, t, column, address, kind, count):
    """Copy `count` numbers, fewer than a vector holds, as `copy_vectors` does; zeros after them."""

    def build(context, builder, signature, arguments):
        array, row, first, source, code, beyond = arguments
        ty = llvm_type(of_array(X))
        numbers = ir.Constant(ir.VectorType(I64, ty.count), list(range(ty.count)))
        mask = builder.icmp_signed("<", numbers, spread(builder, beyond, numbers.type))

        def arm(stored):
            loaded = load_masked(builder, source, _stored_type(stored, ty.count), mask)
            return _cast(builder, loaded, stored, ty)

        value = _arms(builder, code, arm, ty)
        store_at(builder, value, element_address(context, builder, X, array, row, first))
        return builder.fmul(value, fill(ty, 0.0))

    i64 = types.int64
    return of_array(X)(X, i64, i64, i64, i64, i64), build


@word(lambda X, address, kind: _memory(X, address, kind, 1)[0])
def read_one(typing_context, X, address, kind):
    """Return one number of X's dtype from a number of KINDS[kind] at `address`."""

    def build(context, builder, signature, arguments):
        _, source, code = arguments
        ty = ir.VectorType(llvm_type(of_array(X)).element, 1)
        value = _arms(builder, code, lambda stored: _load_cast(builder, source, stored, ty), ty)
        return builder.extract_element(value, ir.Constant(I32, 0))

    return X.dtype(X, types.int64, types.int64), build


@word(lambda address: ctypes.c_int32.from_address(int(address)).value)
def code_at(typing_context, address):
    """Return the int32 at `address`."""

    def build(context, builder, signature, arguments):
        loaded = builder.load(builder.inttoptr(arguments[0], I32.as_pointer()))
        loaded.align = 1
        return builder.sext(loaded, I64)

    return types.int64(address), build


@kernel(EXACT)
def _gather_codes(X, start, stop, rows, first, at):
    """Gather codes: a one where each code's feature is, zeros elsewhere."""
    column, width = at[COLUMN], at[WIDTH]
    zero, one = X.dtype.type(0), X.dtype.type(1)
    for t in range(start, stop):
        for j in range(column, column + width):
            X[t, j] = zero
        j = code_at(at[ADDRESS] + rows[first + t] * at[ROW_STRIDE]) - at[FIRST]
        if 0 <= j < width:
            X[t, column + j] = one


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
    vectors = width // lanes(X)
    whole = vectors * lanes(X)
    rest = width - whole
    # The zeros after the last numbers of a part must not fall on another row.
    alone = column + whole + lanes(X) <= X.shape[1]
    for t in range(start, stop):
        address = at[ADDRESS] + rows[first + t] * at[ROW_STRIDE]
        if vectors > 0:
            odds = odds + copy_vectors(X, t, column, address, kind, vectors)
        if rest > 0 and alone:
            end = address + whole * item
            odds = odds + copy_last(X, t, column + whole, end, kind, rest)
        elif rest > 0:
            for j in range(whole, width):
                x = read_one(X, address + j * item, kind)
                X[t, column + j] = x
                odd += x * zero
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
        if at[KIND] == CODES:
            _gather_codes(X, start, stop, rows, first, at)
        elif at[COLUMN_STRIDE] == at[ITEM]:
            odd += _gather_rows(X, start, stop, rows, first, at)
        else:
            odd += _gather_columns(X, start, stop, rows, first, at)
    return odd == 0
