"""The only place that knows dtypes and layouts: rows of any kind become a block of floats.

A part (some columns of one dtype) is described by numbers, one row of a table each, so that one
compilation serves every dtype and layout. The arrays must outlive the calls that use their table.

Features may be conditioned on the way: x' = (x - centre) scale, in the wider of the part's and the
block's precision, so that a timestamp of 1.7e9 loses no digits and 1e300 does not overflow.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
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
    load_at,
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
CONDITIONED = 4  # rows, with one load of what they are conditioned with
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


def _load_cast(builder, address, kind, ty, conditions, mask=None):
    """Return `ty.count` numbers from `address`, cast; those of WIDE kinds conditioned."""
    value = _load(builder, address, _stored_type(kind, ty.count), mask)
    if KINDS.index(kind) not in WIDE:
        return _cast(builder, value, kind, ty)
    doubles = ir.VectorType(ir.DoubleType(), ty.count)
    centre, scale = (_load(builder, place, doubles, mask) for place in conditions)
    value = _cast(builder, value, kind, doubles)
    value = builder.fmul(builder.fsub(value, centre), scale)
    return _cast(builder, value, np.dtype("f8"), ty)


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
            values = (values.astype(np.float64) - here[0]) * here[1]
        return values.astype(X.dtype)


def _at(address, dtype, count):
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(int(address))
    return np.frombuffer(memory, dtype)


def _copy_twin(X, t, column, address, kind, count, centre, scale, step):
    values = _memory(X, address, kind, count * lanes(X), centre, scale, step)
    X[t, column : column + len(values)] = values
    with np.errstate(invalid="ignore"):
        return (values * 0).reshape(count, -1).sum(axis=0)


@word(_copy_twin)
def copy_vectors(typing_context, X, t, column, address, kind, count, centre, scale, step):
    """Copy `count` >= 1 vectors of numbers of KINDS[kind] from `address` to X[t, column:], cast.

    Those of WIDE kinds are conditioned. Return 0 in each lane, or NaN where a number was not
    finite: the sum of 0 x.
    """

    def build(context, builder, signature, arguments):
        array, row, first, source, code, vectors, *conditions, stride = arguments
        ty = llvm_type(of_array(X))
        target = element_address(context, builder, X, array, row, first)

        def arm(stored):
            size = stored.itemsize * ty.count
            wide = KINDS.index(stored) in WIDE
            loop = Loop(
                builder, vectors, 1, [fill(ty, 0.0), source, target, *(conditions if wide else ())]
            )
            odds, *places = loop.variables
            value = _load_cast(builder, places[0], stored, ty, places[2:])
            store_at(builder, value, places[1])
            odds = multiply_add(builder, value, fill(ty, 0.0), odds)
            further = builder.mul(stride, ir.Constant(I64, ty.count))
            steps = [ir.Constant(I64, size), ir.Constant(I64, VECTOR_BYTES), further, further]
            moved = [builder.add(*pair) for pair in zip(places, steps, strict=False)]
            loop.carry([odds, *moved])
            return odds

        return _arms(builder, code, arm, ty)

    i64 = types.int64
    return of_array(X)(X, *[i64] * 8), build


def _copy_last_twin(X, t, column, address, kind, count, centre, scale, step):
    values = np.zeros(lanes(X), X.dtype)
    values[:count] = _memory(X, address, kind, count, centre, scale, step)
    X[t, column : column + len(values)] = values
    with np.errstate(invalid="ignore"):
        return values * 0


@word(_copy_last_twin)
def copy_last(typing_context, X, t, column, address, kind, count, centre, scale, step):
    """Copy `count` numbers, fewer than a vector holds, as `copy_vectors` does; zeros after them."""

    def build(context, builder, signature, arguments):
        array, row, first, source, code, beyond, *conditions, _ = arguments
        ty = llvm_type(of_array(X))
        numbers = ir.Constant(ir.VectorType(I64, ty.count), list(range(ty.count)))
        mask = builder.icmp_signed("<", numbers, spread(builder, beyond, numbers.type))

        def arm(stored):
            return _load_cast(builder, source, stored, ty, conditions, mask)

        value = _arms(builder, code, arm, ty)
        store_at(builder, value, element_address(context, builder, X, array, row, first))
        return builder.fmul(value, fill(ty, 0.0))

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
            return _load_cast(builder, source, stored, ty, conditions)

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


def _condition_tile(rows):
    """Make `tile(X, t, column, vectors, centre, scale)`, which sets x = (x - centre) scale in so
    many vectors, from X[t, column] on, of `rows` rows.

    centre, scale: the addresses of those of the first column, in X's precision. They are loaded
    once for all rows.
    """

    def twin(X, t, column, vectors, centre, scale):
        count = vectors * lanes(X)
        centre, scale = (_at(place, X.dtype, count) for place in (centre, scale))
        values = X[t : t + rows, column : column + count]
        values[:] = (values - centre) * scale

    @word(twin)
    def tile(typing_context, X, t, column, vectors, centre, scale):
        def build(context, builder, signature, arguments):
            array, row, first, count, *conditions = arguments
            ty = llvm_type(of_array(X))
            targets = [
                element_address(context, builder, X, array, builder.add(row, number(r)), first)
                for r in range(rows)
            ]
            loop = Loop(builder, builder.mul(count, number(VECTOR_BYTES)), VECTOR_BYTES, [])
            less, times = (load_at(builder, builder.add(c, loop.at), ty) for c in conditions)
            for target in targets:
                at = builder.add(target, loop.at)
                x = load_at(builder, at, ty)
                store_at(builder, builder.fmul(builder.fsub(x, less), times), at)
            loop.carry([])
            return context.get_dummy_value()

        return types.void(X, *[types.int64] * 5), build

    return tile


_condition_row, _condition_rows = _condition_tile(1), _condition_tile(CONDITIONED)


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


@kernel(EXACT)
def _condition(X, start, stop, at):
    """Set x = (x - centre) scale in the columns of a part, in rows start : stop and in X's
    precision."""
    column, width = at[COLUMN], at[WIDTH]
    centre, scale, step = at[CENTRE], at[SCALE], at[STEP]
    vectors = width // lanes(X)
    t = start
    if vectors > 0:
        while t + CONDITIONED <= stop:
            _condition_rows(X, t, column, vectors, centre, scale)
            t += CONDITIONED
        while t < stop:
            _condition_row(X, t, column, vectors, centre, scale)
            t += 1
    for j in range(vectors * lanes(X), width):
        less, times = item_of(X, centre + j * step), item_of(X, scale + j * step)
        for t in range(start, stop):
            X[t, column + j] = (X[t, column + j] - less) * times


@kernel(EXACT)
def _gather_codes(X, start, stop, rows, first, at):
    """Gather codes: a one where each code's feature is, zeros elsewhere."""
    column, width = at[COLUMN], at[WIDTH]
    zero, one = X.dtype.type(0), X.dtype.type(1)
    for t in range(start, stop):
        for j in range(column, column + width):
            X[t, j] = zero
        # A code outside this worker's features is one in another's, or none at all.
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
        centre, scale = at[CENTRE] + j * at[STEP], at[SCALE] + j * at[STEP]
        for t in range(start, stop):
            x = read_one(X, base + rows[first + t] * at[ROW_STRIDE], kind, centre, scale)
            X[t, column + j] = x
            odd += x * zero
    return odd


@kernel(EXACT)
def _gather_rows(X, start, stop, rows, first, at, conditioned):
    """Gather a part whose rows are contiguous, a vector at a time, and condition them."""
    column, width, kind, item = at[COLUMN], at[WIDTH], at[KIND], at[ITEM]
    centre, scale, step = at[CENTRE], at[SCALE], at[STEP]
    zero = X.dtype.type(0)
    zeros = splat(X, zero)
    odd, odds = zero, zeros
    vectors = width // lanes(X)
    whole = vectors * lanes(X)
    rest = width - whole
    # The zeros after the last numbers of a part must not fall on another row.
    alone = column + whole + lanes(X) <= X.shape[1]
    done = start
    for t in range(start, stop):
        address = at[ADDRESS] + rows[first + t] * at[ROW_STRIDE]
        if vectors > 0:
            odds = odds + copy_vectors(X, t, column, address, kind, vectors, centre, scale, step)
        if rest > 0 and alone:
            end = address + whole * item
            odds = odds + copy_last(
                X,
                t,
                column + whole,
                end,
                kind,
                rest,
                centre + whole * step,
                scale + whole * step,
                step,
            )
        elif rest > 0:
            for j in range(whole, width):
                x = read_one(X, address + j * item, kind, centre + j * step, scale + j * step)
                X[t, column + j] = x
                odd += x * zero
        # Some rows at a time, which still lie in the nearest cache.
        if conditioned and (t + 1 - done == CONDITIONED or t + 1 == stop):
            _condition(X, done, t + 1, at)
            done = t + 1
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
            _gather_codes(X, start, stop, rows, first, at)
            if conditioned:
                _condition(X, start, stop, at)
        elif at[COLUMN_STRIDE] == at[ITEM]:
            odd += _gather_rows(X, start, stop, rows, first, at, conditioned)
        else:
            odd += _gather_columns(X, start, stop, rows, first, at)
            if conditioned:
                _condition(X, start, stop, at)
    return odd == 0
