"""The only place that speaks LLVM: one vector register of floats as a value in a kernel.

Numba's own loops vectorise when LLVM sees fit; a kernel that must not depend on that says what it
wants with these few words instead. A vector has as many lanes as the widest registers of the level
hold, `lanes(A)` of A's dtype. Arithmetic is exactly what is written, without fast-math flags. With
the JIT off the same words mean NumPy arrays of that many elements.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

from fastsoftmax.kernels.compile import word
from fastsoftmax.kernels.later import cgutils, types, vector_types
from fastsoftmax.kernels.level import LEVEL

VECTOR_BYTES = LEVEL.vector_bytes
I32, I64 = ir.IntType(32), ir.IntType(64)


def llvm_type(vector):
    """Return the LLVM type of a Vector."""
    return vector.llvm


def integer_type(vector):
    """Return the LLVM type of a Vector's bits, as integers of the same width."""
    return ir.VectorType(ir.IntType(vector.dtype.bitwidth), vector.lanes)


def fill(ty, value):
    """Return a constant of an LLVM vector type with `value` in every lane."""
    return ir.Constant(ty, [value] * ty.count)


def spread(builder, scalar, ty):
    """Return `scalar` in every lane of an LLVM vector type."""
    one = builder.insert_element(ir.Constant(ty, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, one, fill(ir.VectorType(I32, ty.count), 0))


def call(builder, name, *operands):
    """Call the LLVM intrinsic `name` on vectors of one type."""
    ty = operands[0].type
    suffix = "f32" if isinstance(ty.element, ir.FloatType) else "f64"
    signature = ir.FunctionType(ty, [ty] * len(operands))
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.v{ty.count}{suffix}"
    )
    return builder.call(function, operands)


def multiply_add(builder, a, b, c):
    """Return a b + c, fused where the CPU can (a call to a library where it cannot is no gain)."""
    return call(builder, "fmuladd", a, b, c)


def element_address(context, builder, array_type, array, i, j):
    """Return the address of array[i, j] as an integer."""
    data = context.make_array(array_type)(context, builder, array)
    strides = cgutils.unpack_tuple(builder, data.strides)
    offset = builder.add(builder.mul(i, strides[0]), builder.mul(j, strides[1]))
    return builder.add(builder.ptrtoint(data.data, I64), offset)


def load_at(builder, address, ty):
    """Load an LLVM vector from `address`, aligned as its elements are."""
    loaded = builder.load(builder.inttoptr(address, ty.as_pointer()))
    loaded.align = 4
    return loaded


def load_masked(builder, address, ty, mask):
    """Load those lanes of an LLVM vector from `address` whose mask bit is set; zeros elsewhere."""
    pointer = builder.inttoptr(address, ty.as_pointer())
    kind = {ir.HalfType: "f16", ir.FloatType: "f32", ir.DoubleType: "f64"}.get(type(ty.element))
    kind = kind or f"i{ty.element.width}"
    signature = ir.FunctionType(ty, [pointer.type, I32, mask.type, ty])
    name = f"llvm.masked.load.v{ty.count}{kind}.p0v{ty.count}{kind}"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    zeros = ir.Constant(ty, None)
    return builder.call(function, [pointer, ir.Constant(I32, 1), mask, zeros])


def store_at(builder, value, address):
    """Store an LLVM vector or scalar at `address`, aligned as its elements are."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 4


def forget(builder):
    """Have what was loaded before loaded again after: LLVM would keep it, and sums on the stack."""
    builder.asm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", [], True)


def number(value):
    """Return an LLVM constant integer."""
    return ir.Constant(I64, value)


class Loop:
    """A counted loop whose variables stay in registers: `for at in range(0, stop, step)`.

    `variables` enter with their first values; `carry` hands on their next ones and ends the loop.
    Loops may be nested.
    """

    def __init__(self, builder, stop, step, first_values):
        entry = builder.block
        self.builder, self.stop, self.step = builder, stop, step
        self.body = builder.append_basic_block("tile")
        self.end = builder.append_basic_block("tile.end")
        builder.branch(self.body)
        builder.position_at_end(self.body)
        self.at = self._variable(number(0), entry)
        self.variables = [self._variable(value, entry) for value in first_values]

    def _variable(self, first, entry):
        phi = self.builder.phi(first.type)
        phi.add_incoming(first, entry)
        return phi

    def carry(self, values):
        """Go round again with these values, or leave the loop."""
        builder = self.builder
        latch = builder.block  # the body, or what follows a loop inside it
        after = builder.add(self.at, number(self.step))
        for phi, value in zip([self.at, *self.variables], [after, *values], strict=True):
            phi.add_incoming(value, latch)
        builder.cbranch(builder.icmp_signed("<", after, self.stop), self.body, self.end)
        builder.position_at_end(self.end)


def of_array(array_type):
    """Return the Vector of an array type's elements."""
    return vector_types.Vector(array_type.dtype)


@word(lambda: None)
def noinline(typing_context):
    """Keep the function that says this out of its callers: inlining large ones only costs time."""

    def build(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), build


def prefetch_at(builder, address):
    """Ask for the cache line at `address`, to be read soon."""
    pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
    signature = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], signature)
    builder.call(function, [pointer, *(ir.Constant(I32, value) for value in (0, 3, 1))])


@word(lambda arrays: arrays)
def by_address(typing_context, arrays):
    """Return a named tuple of arrays by its address, and all arrays without an owner.

    An array is nine numbers, and a call hands on each through memory: a sixth of the time of small
    blocks. Its users are counted by an atomic instruction, twice for each call: a fifth. The caller
    keeps the arrays alive. What is not a tuple comes back as it is.
    """
    is_named = isinstance(arrays, types.BaseNamedTuple)

    def build(context, builder, signature, arguments):
        value = vector_types.without_owner(context, builder, arrays, arguments[0])
        return cgutils.alloca_once_value(builder, value) if is_named else value

    return (vector_types.ByAddress(arrays) if is_named else arrays)(arrays), build


@word(lambda address: None)
def prefetch_line(typing_context, address):
    """Ask for the cache line at `address`."""

    def build(context, builder, signature, arguments):
        prefetch_at(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), build


def _list_lines(A, i, j, address, count):
    A[i, j : j + count] = address + 64 * np.arange(count)


@word(_list_lines)
def list_lines(typing_context, A, i, j, address, count):
    """Set A[i, j + c] = address + 64 c, c < count, count >= 1: addresses of cache lines."""

    def build(context, builder, signature, arguments):
        array, row, column, start, lines = arguments
        at = element_address(context, builder, A, array, row, column)
        loop = Loop(builder, lines, 1, [at, start])
        place, line = loop.variables
        builder.store(line, builder.inttoptr(place, I64.as_pointer()))
        loop.carry([builder.add(place, number(8)), builder.add(line, number(64))])
        return context.get_dummy_value()

    i64 = types.int64
    return types.void(A, i64, i64, i64, i64), build


def _address_of(A, i, j):
    return A.__array_interface__["data"][0] + int(np.dot((i, j), A.strides))


@word(_address_of)
def address_of(typing_context, A, i, j):
    """Return the address of A[i, j]."""

    def build(context, builder, signature, arguments):
        return element_address(context, builder, A, *arguments)

    return types.int64(A, types.int64, types.int64), build


def _lanes(A):
    return VECTOR_BYTES // A.dtype.itemsize


@word(_lanes)
def lanes(typing_context, A):
    """Return how many elements of A's dtype a vector holds."""

    def build(context, builder, signature, arguments):
        return ir.Constant(I64, of_array(A).lanes)

    return types.int64(A), build


def _load(A, i, j):
    return A[i, j : j + _lanes(A)].copy()


@word(_load)
def load(typing_context, A, i, j):
    """Return the vector that begins at A[i, j]."""

    def build(context, builder, signature, arguments):
        address = element_address(context, builder, A, *arguments)
        return load_at(builder, address, llvm_type(signature.return_type))

    return of_array(A)(A, types.int64, types.int64), build


def _store(A, i, j, x):
    A[i, j : j + len(x)] = x


@word(_store)
def store(typing_context, A, i, j, x):
    """Write the vector x to A from A[i, j] on."""

    def build(context, builder, signature, arguments):
        address = element_address(context, builder, A, *arguments[:3])
        store_at(builder, arguments[3], address)
        return context.get_dummy_value()

    return types.void(A, types.int64, types.int64, x), build


def _same_lanes(A):
    return len(A) if A.ndim == 1 else _lanes(A)  # a vector, or an array of which it is one


def _splat(A, value):
    return np.full(_same_lanes(A), value, A.dtype)


@word(_splat)
def splat(typing_context, A, value):
    """Return a vector of A's dtype, or one like the vector A, with `value` in every lane."""
    vector = A if isinstance(A, vector_types.Vector) else of_array(A)

    def build(context, builder, signature, arguments):
        scalar = context.cast(builder, arguments[1], value, vector.dtype)
        return spread(builder, scalar, llvm_type(vector))

    return vector(A, value), build


def _one_hot(A, first, k):
    return (np.arange(first, first + _same_lanes(A)) == k).astype(A.dtype)


@word(_one_hot)
def one_hot(typing_context, A, first, k):
    """Return 1 in the lane of k, 0 in the others, where lane 0 is number `first`; as `splat`."""
    vector = A if isinstance(A, vector_types.Vector) else of_array(A)

    def build(context, builder, signature, arguments):
        _, start, place = arguments
        bits = ir.VectorType(I32, vector.lanes)
        lane = builder.trunc(builder.sub(place, start), I32)
        numbers = ir.Constant(bits, list(range(vector.lanes)))
        hit = builder.icmp_signed("==", numbers, spread(builder, lane, bits))
        return builder.uitofp(hit, llvm_type(vector))

    return vector(A, types.int64, types.int64), build


def _fma(a, b, c):
    return a * b + c


@word(_fma)
def fma(typing_context, a, b, c):
    """Return a b + c."""

    def build(context, builder, signature, arguments):
        return multiply_add(builder, *arguments)

    return a(a, b, c), build


def larger(builder, a, b):
    """Return a where a > b, else b: one instruction on x86, where LLVM's maximum is five."""
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@word(lambda a, b: np.where(a > b, a, b))
def maximum(typing_context, a, b):
    """Return the larger of a and b in each lane; where either is NaN, b."""

    def build(context, builder, signature, arguments):
        return larger(builder, *arguments)

    return a(a, b), build


def _zero_below(x, limit, v):
    return np.where(x < limit, v.dtype.type(0), v)


@word(_zero_below)
def zero_below(typing_context, x, limit, v):
    """Return v, with 0 where x is below limit."""

    def build(context, builder, signature, arguments):
        below = builder.fcmp_ordered("<", arguments[0], arguments[1])
        return builder.select(below, fill(arguments[2].type, 0.0), arguments[2])

    return v(x, limit, v), build


MANTISSA = {32: 23, 64: 52}


def _scale(p, t):
    bits = np.dtype(f"i{p.itemsize}")
    shifted = np.left_shift(t.view(bits), MANTISSA[p.itemsize * 8])
    with np.errstate(over="ignore"):
        return (p.view(bits) + shifted).view(p.dtype)


@word(_scale)
def scale(typing_context, p, t):
    """Return p 2^n, where n stands in the low bits of t (as after adding 1.5 2^mantissa to it)."""

    def build(context, builder, signature, arguments):
        ty = integer_type(p)
        n = builder.bitcast(arguments[1], ty)
        shifted = builder.shl(n, fill(ty, MANTISSA[p.dtype.bitwidth]))
        return builder.bitcast(
            builder.add(builder.bitcast(arguments[0], ty), shifted), llvm_type(p)
        )

    return p(p, t), build


def _first_equal(x, value):
    hits = np.flatnonzero(x == value)
    return int(hits[0]) if len(hits) else len(x)


@word(_first_equal)
def first_equal(typing_context, x, value):
    """Return the first lane of x that equals `value`, or the number of lanes if none does."""

    def build(context, builder, signature, arguments):
        ty = arguments[0].type
        hits = builder.fcmp_ordered("==", arguments[0], spread(builder, arguments[1], ty))
        mask = builder.zext(builder.bitcast(hits, ir.IntType(ty.count)), I64)
        beyond = builder.or_(mask, ir.Constant(I64, 1 << ty.count))
        return builder.cttz(beyond, ir.Constant(ir.IntType(1), 1))

    return types.int64(x, x.dtype), build


def fold(builder, x, combine):
    """Reduce the lanes of x to one scalar, halves first, in a fixed order."""
    count = x.type.count
    while count > 1:
        count //= 2
        halves = [
            ir.Constant(ir.VectorType(I32, count), [first + i for i in range(count)])
            for first in (0, count)
        ]
        low, high = (builder.shuffle_vector(x, x, half) for half in halves)
        x = combine(low, high)
    return builder.extract_element(x, ir.Constant(I32, 0))


def _total(x):
    while len(x) > 1:
        x = x[: len(x) // 2] + x[len(x) // 2 :]
    return x[0]


@word(_total)
def total(typing_context, x):
    """Return the sum of the lanes, halves first."""

    def build(context, builder, signature, arguments):
        return fold(builder, arguments[0], builder.fadd)

    return x.dtype(x), build


@word(lambda x: x[0])
def first_lane(typing_context, x):
    """Return lane 0 of x."""

    def build(context, builder, signature, arguments):
        return builder.extract_element(arguments[0], ir.Constant(I32, 0))

    return x.dtype(x), build


@word(np.nanmax)
def largest(typing_context, x):
    """Return the largest lane. A NaN may go unseen: it shows in the sum of exponentials."""

    def build(context, builder, signature, arguments):
        return fold(builder, arguments[0], lambda low, high: larger(builder, low, high))

    return x.dtype(x), build
