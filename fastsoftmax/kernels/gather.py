"""The only place that knows dtypes and layouts: rows of any kind become a block of floats.

A part (some columns of one dtype) is described by numbers, one row of a table each, so that one
compilation serves every dtype and layout. The arrays must outlive the calls that use their table.

Features may be conditioned on the way: x' = (x - centre) scale, in the wider of the part's and the
block's precision, so that a timestamp of 1.7e9 loses no digits and 1e300 does not overflow.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir

from fastsoftmax.kernels.compile import EXACT, kernel, word
from fastsoftmax.kernels.later import types
from fastsoftmax.kernels.level import LEVEL
from fastsoftmax.kernels.parts import PartLike, Stored
from fastsoftmax.kernels.vectors import (
    I32,
    I64,
    VECTOR_BYTES,
    Loop,
    element_address,
    fill,
    lanes,
    llvm_type,
    load_masked,
    multiply_add,
    noinline,
    number,
    of_array,
    splat,
    spread,
    store_at,
    total,
)

KINDS = tuple(
    np.dtype(name) for name in ("f4", "f8", "f2", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
)
CODES = len(KINDS)  # the kind of int32 codes of categories, each of which is a feature
HALF = np.dtype("f2")
WIDENS_HALVES = not {"f16c", "neon"}.isdisjoint(LEVEL.features)
# Numbers with more digits than a float32 are conditioned before they are rounded, others after.
WIDE = tuple(KINDS.index(np.dtype(name)) for name in ("f8", "u4", "i4", "u8", "i8"))
# FIRST: the feature, of those that a code stands for, that COLUMN is. CENTRE, SCALE: where those of
# the part's first column lie, float64 for WIDE kinds, else of the block's dtype; STEP: the bytes
# from one of them to the next, 0 where nothing is conditioned.
ADDRESS, ROW_STRIDE, COLUMN_STRIDE, KIND, WIDTH, COLUMN, ITEM, FIRST, CENTRE, SCALE, STEP = range(
    11
)
FIELDS = STEP + 1
CHECKS = 4  # sums that tell whether numbers were finite, which take turns
# What WIDE kinds are conditioned with where nothing is: a vector of each.
_NO_CENTRE, _NO_SCALE = np.zeros(64), np.ones(64)


class Affine:
    """What features are conditioned with: x' = (x - centre) scale, each (d,) float64."""

    def __init__(self, centre: np.ndarray, scale: np.ndarray, dtype: np.dtype[Any]) -> None:
        """Keep both in float64 and in `dtype`, as long as tables point to them."""
        self.centre, self.scale = (
            np.ascontiguousarray(values, dtype=np.float64) for values in (centre, scale)
        )
        with np.errstate(over="ignore"):  # of columns that are WIDE
            self.near = (self.centre.astype(dtype), self.scale.astype(dtype))

    def entries(self, kind: int, column: int) -> tuple[int, int, int]:
        """Return CENTRE, SCALE and STEP of a part of this kind whose first column is `column`."""
        arrays = (self.centre, self.scale) if kind in WIDE else self.near
        step = arrays[0].itemsize
        first, second = (array.ctypes.data + step * column for array in arrays)
        return first, second, step


def part_table(
    parts: Iterable[PartLike],
    first: int = 0,
    stop: int | None = None,
    affine: Affine | None = None,
) -> np.ndarray:
    """Describe parts, side by side, as a table (parts, FIELDS) int64 for `gather`.

    first, stop: only these of the columns. affine: what they are conditioned with; it must outlive
    the table's use, as the parts' arrays must.
    """
    table, column = [], 0
    for stored in (part.stored for part in parts):
        if not isinstance(stored, Stored):
            raise TypeError("sparse rows are listed, not gathered: see kernels/lists.py")
        width = stored.width
        low, high = max(first - column, 0), width
        if stop is not None:
            high = min(high, stop - column)
        if low < high:
            entries = _part(stored, low, high, column)
            neutral = (_NO_CENTRE.ctypes.data, _NO_SCALE.ctypes.data, 0)
            told = neutral if affine is None else affine.entries(entries[KIND], column + low)
            table.append((*entries, *told))
        column += width
    return np.array(table, dtype=np.int64).reshape(-1, FIELDS)


def _part(stored: Stored, low: int, high: int, column: int) -> tuple[int, ...]:
    """Return ADDRESS to FIRST of a part whose first column is `column`, of its columns low:high."""
    values = stored.values
    address = values.__array_interface__["data"][0]
    if stored.categories is not None:
        return (address, values.strides[0], 0, CODES, high - low, column + low, 4, low)
    dtype = np.dtype("u1") if values.dtype == np.bool_ else values.dtype
    kind = KINDS.index(dtype.newbyteorder("="))
    address += low * values.strides[1]
    return (address, *values.strides, kind, high - low, column + low, dtype.itemsize, low)


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


def _load_cast(builder, address, kind, ty, mask=None):
    """Return `ty.count` numbers from `address`, cast."""
    return _cast(builder, _load(builder, address, _stored_type(kind, ty.count), mask), kind, ty)


def _conditioned(builder, value, conditions, mask=None):
    """Return (value - centre) scale, in value's precision; conditions: the addresses of both."""
    centre, scale = (_load(builder, place, value.type, mask) for place in conditions)
    return builder.fmul(builder.fsub(value, centre), scale)


def _load_wide(builder, address, kind, ty, conditions, mask=None):
    """Return `ty.count` numbers from `address`, conditioned in float64, and cast."""
    value = _load_cast(builder, address, kind, ir.VectorType(ir.DoubleType(), ty.count), mask)
    return _cast(builder, _conditioned(builder, value, conditions, mask), np.dtype("f8"), ty)


def _load(builder, address, ty, mask):
    if mask is not None:
        return load_masked(builder, address, ty, mask)
    loaded = builder.load(builder.inttoptr(address, ty.as_pointer()))
    loaded.align = 1
    return loaded


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


def _either(builder, predicate, build_true, build_false):
    """Return the value that one of both builds, as `predicate` turns out."""
    with builder.if_else(predicate) as (yes, no):
        with yes:
            first = build_true(), builder.block
        with no:
            second = build_false(), builder.block
    merged = builder.phi(first[0].type)
    for value, block in (first, second):
        merged.add_incoming(value, block)
    return merged


@word(lambda X: KINDS.index(X.dtype))
def own_kind(typing_context, X):
    """Return the number of X's own dtype among KINDS."""

    def build(context, builder, signature, arguments):
        return ir.Constant(I64, KINDS.index(np.dtype(f"f{X.dtype.bitwidth // 8}")))

    return types.int64(X), build


def _memory(X, address, kind, count, centre, scale, step):
    values = _at(address, KINDS[kind], count)
    with np.errstate(over="ignore"):
        if kind in WIDE:
            here = [_at(place, np.dtype("f8"), count if step else 1) for place in (centre, scale)]
            return ((values.astype(np.float64) - here[0]) * here[1]).astype(X.dtype)
        return values.astype(X.dtype)


def _conditioned_memory(X, address, kind, count, centre, scale, step):
    values = _memory(X, address, kind, count, centre, scale, step)
    with np.errstate(invalid="ignore"):
        checked = values * 0
    if step and kind not in WIDE:
        values = (values - _at(centre, X.dtype, count)) * _at(scale, X.dtype, count)
    return values, checked


def _at(address, dtype, count):
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(int(address))
    return np.frombuffer(memory, dtype)


def _copy_twin(X, t, column, address, kind, count, centre, scale, step):
    told = count * lanes(X), centre, scale, step
    values, checked = _conditioned_memory(X, address, kind, *told)
    X[t, column : column + len(values)] = values
    return checked.reshape(count, -1).sum(axis=0)


def _copy_loop(builder, vectors, source, target, ty, stored, conditions):
    """Build the loop that copies vectors; return the sum of 0 x, of which short integers have none.

    conditions: the addresses of what x is conditioned with, and the bytes from one vector of it to
    the next; or nothing.
    """
    places = [source, target, *conditions[:2]]
    steps = [number(stored.itemsize * ty.count), number(VECTOR_BYTES), *conditions[2:] * 2]
    # Each number added to a sum waits for the one before: the sums take turns.
    sums = [] if stored.kind in "iu" and stored.itemsize < 4 else [fill(ty, 0.0)] * CHECKS
    loop = Loop(builder, vectors, 1, [*places, *sums])
    (source, target, *here), sums = loop.variables[: len(places)], loop.variables[len(places) :]
    if KINDS.index(stored) in WIDE:
        value = checked = _load_wide(builder, source, stored, ty, here)
    else:
        value = checked = _load_cast(builder, source, stored, ty)
        value = _conditioned(builder, value, here) if here else value
    store_at(builder, value, target)
    sums = [*sums[1:], *(multiply_add(builder, checked, fill(ty, 0.0), s) for s in sums[:1])]
    moved = [builder.add(*pair) for pair in zip([source, target, *here], steps, strict=True)]
    loop.carry([*moved, *sums])
    return reduce(builder.fadd, sums, fill(ty, 0.0))


@word(_copy_twin)
def copy_vectors(typing_context, X, t, column, address, kind, count, centre, scale, step):
    """Copy `count` >= 1 vectors of numbers of KINDS[kind] from `address` to X[t, column:].

    They are cast and, where step is not 0, conditioned. Return 0 in each lane, or NaN where a
    number was not finite: the sum of 0 x.
    """

    def build(context, builder, signature, arguments):
        array, row, first, source, code, vectors, centre, scale, stride = arguments
        ty = llvm_type(of_array(X))
        target = element_address(context, builder, X, array, row, first)
        conditions = (centre, scale, builder.mul(stride, number(ty.count)))

        def arm(stored):
            def copied(*conditions):
                return _copy_loop(builder, vectors, source, target, ty, stored, conditions)

            if KINDS.index(stored) in WIDE:
                return copied(*conditions)
            is_conditioned = builder.icmp_signed(">", stride, number(0))
            return _either(builder, is_conditioned, lambda: copied(*conditions), copied)

        return _arms(builder, code, arm, ty)

    i64 = types.int64
    return of_array(X)(X, *[i64] * 8), build


def _copy_last_twin(X, t, column, address, kind, count, centre, scale, step):
    told = (address, kind, count, centre, scale, step)
    padding = (0, lanes(X) - count)
    values, checked = (np.pad(each, padding) for each in _conditioned_memory(X, *told))
    X[t, column : column + len(values)] = values
    return checked


@word(_copy_last_twin)
def copy_last(typing_context, X, t, column, address, kind, count, centre, scale, step):
    """Copy `count` numbers, fewer than a vector holds, as `copy_vectors` does; zeros after them."""

    def build(context, builder, signature, arguments):
        array, row, first, source, code, beyond, centre, scale, stride = arguments
        ty = llvm_type(of_array(X))
        target = element_address(context, builder, X, array, row, first)
        numbers = ir.Constant(ir.VectorType(I64, ty.count), list(range(ty.count)))
        mask = builder.icmp_signed("<", numbers, spread(builder, beyond, numbers.type))
        conditions = (centre, scale)

        def arm(stored):
            if KINDS.index(stored) in WIDE:
                return _load_wide(builder, source, stored, ty, conditions, mask)
            return _load_cast(builder, source, stored, ty, mask)

        checked = _arms(builder, code, arm, ty)
        near = builder.icmp_signed(">", stride, number(0))
        for wide in WIDE:
            near = builder.and_(near, builder.icmp_signed("!=", code, number(wide)))
        value = _either(
            builder, near, lambda: _conditioned(builder, checked, conditions, mask), lambda: checked
        )
        store_at(builder, value, target)
        return builder.fmul(checked, fill(ty, 0.0))

    i64 = types.int64
    return of_array(X)(X, *[i64] * 8), build


@word(lambda X, address, kind, centre, scale: _memory(X, address, kind, 1, centre, scale, 8)[0])
def read_one(typing_context, X, address, kind, centre, scale):
    """Return one number of X's dtype from a number of KINDS[kind] at `address`.

    Those of WIDE kinds are conditioned with the float64 numbers at `centre` and `scale`.
    """

    def build(context, builder, signature, arguments):
        _, source, code, *conditions = arguments
        ty = ir.VectorType(llvm_type(of_array(X)).element, 1)

        def arm(stored):
            if KINDS.index(stored) in WIDE:
                return _load_wide(builder, source, stored, ty, conditions)
            return _load_cast(builder, source, stored, ty)

        value = _arms(builder, code, arm, ty)
        return builder.extract_element(value, ir.Constant(I32, 0))

    return X.dtype(X, *[types.int64] * 4), build


@word(lambda X, address: _at(address, X.dtype, 1)[0])
def item_of(typing_context, X, address):
    """Return the number of X's dtype at `address`."""

    def build(context, builder, signature, arguments):
        scalar = llvm_type(of_array(X)).element
        loaded = builder.load(builder.inttoptr(arguments[1], scalar.as_pointer()))
        loaded.align = 4
        return loaded

    return X.dtype(X, types.int64), build


@word(lambda address: ctypes.c_int32.from_address(int(address)).value)
def code_at(typing_context, address):
    """Return the int32 at `address`."""

    def build(context, builder, signature, arguments):
        loaded = builder.load(builder.inttoptr(arguments[0], I32.as_pointer()))
        loaded.align = 1
        return builder.sext(loaded, I64)

    return types.int64(address), build


@kernel()
def is_wide(kind):
    """Return whether numbers of this kind are conditioned before they are rounded."""
    wide = False
    for code in WIDE:
        wide |= kind == code
    return wide


@kernel()
def _near_condition(X, centre, scale, conditioned):
    """Return what a number is conditioned with after it was cast; 0 and 1 change nothing."""
    less, times = X.dtype.type(0), X.dtype.type(1)
    if conditioned:
        less, times = item_of(X, centre), item_of(X, scale)
    return less, times


@kernel(EXACT)
def _gather_codes(X, start, stop, rows, first, at, conditioned):
    """Gather codes: a one where each code's feature is, zeros elsewhere, both conditioned."""
    column, width = at[COLUMN], at[WIDTH]
    centre, scale, step = at[CENTRE], at[SCALE], at[STEP]
    zero, one = X.dtype.type(0), X.dtype.type(1)
    for j in range(width):
        less, times = _near_condition(X, centre + j * step, scale + j * step, conditioned)
        for t in range(start, stop):
            X[t, column + j] = (zero - less) * times
    for t in range(start, stop):
        # A code outside this worker's features is one in another's, or none at all.
        j = code_at(at[ADDRESS] + rows[first + t] * at[ROW_STRIDE]) - at[FIRST]
        if 0 <= j < width:
            less, times = _near_condition(X, centre + j * step, scale + j * step, conditioned)
            X[t, column + j] = (one - less) * times


@kernel(EXACT)
def _gather_column(X, start, stop, rows, first, at, j, conditioned):
    """Gather column j of a part, a number at a time; return the sum of 0 x."""
    column, kind = at[COLUMN] + j, at[KIND]
    base = at[ADDRESS] + j * at[COLUMN_STRIDE]
    centre, scale = at[CENTRE] + j * at[STEP], at[SCALE] + j * at[STEP]
    less, times = _near_condition(X, centre, scale, conditioned)
    odd, zero = X.dtype.type(0), X.dtype.type(0)
    for t in range(start, stop):
        x = read_one(X, base + rows[first + t] * at[ROW_STRIDE], kind, centre, scale)
        X[t, column] = (x - less) * times
        odd += x * zero
    return odd


@kernel(EXACT)
def _gather_rows(X, start, stop, rows, first, at, conditioned):
    """Gather a part whose rows are contiguous, a vector at a time."""
    column, width, kind, item = at[COLUMN], at[WIDTH], at[KIND], at[ITEM]
    centre, scale, step = at[CENTRE], at[SCALE], at[STEP]
    odd, odds = X.dtype.type(0), splat(X, X.dtype.type(0))
    vectors = width // lanes(X)
    whole = vectors * lanes(X)
    rest = width - whole
    # The zeros after the last numbers of a part must not fall on another row.
    alone = column + whole + lanes(X) <= X.shape[1]
    for t in range(start, stop):
        address = at[ADDRESS] + rows[first + t] * at[ROW_STRIDE]
        if vectors > 0:
            odds = odds + copy_vectors(X, t, column, address, kind, vectors, centre, scale, step)
        if rest > 0 and alone:
            end = address + whole * item
            odds = odds + copy_last(
                X, t, column + whole, end, kind, rest, centre + whole * step, scale + whole * step,
                step,
            )  # fmt: skip
    if rest > 0 and not alone:
        for j in range(whole, width):
            odd += _gather_column(X, start, stop, rows, first, at, j, conditioned)
    return odd + total(odds)


@kernel(EXACT)
def gather(X, start, stop, rows, first, table):
    """Copy row rows[first + t] of every part to X[t], cast and conditioned, for start <= t < stop.

    Return whether all of them are finite after the cast: the sum of 0 x is 0, or NaN.
    """
    noinline()
    # Summed as 0 x beside the copy: a check of its own would be another pass over the rows.
    odd = X.dtype.type(0)
    for p in range(table.shape[0]):
        at = table[p]
        conditioned = at[STEP] > 0 and not is_wide(at[KIND])
        if at[KIND] == CODES:
            _gather_codes(X, start, stop, rows, first, at, conditioned)
        elif at[COLUMN_STRIDE] == at[ITEM]:
            odd += _gather_rows(X, start, stop, rows, first, at, conditioned)
        else:
            for j in range(at[WIDTH]):
                odd += _gather_column(X, start, stop, rows, first, at, j, conditioned)
    return odd == 0
