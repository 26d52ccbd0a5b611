"""The only place for register tiles: the innermost loops of the matrix products.

A tile keeps its sums in registers while one loop runs: over the features for dot products, over the
rows of a block for updates. The loops are built instruction by instruction because LLVM, left to
vectorise plain loops, does not keep a tile of W in registers across the rows of a block.

Each round of a loop also asks for one cache line of the rows to come (see `prefetch`): `cursor` is
the address of an entry in a list of line addresses, `last` that of its last entry, which is asked
for again and again once the list is done. A tile returns its cursor.
"""

from __future__ import annotations

import ctypes

import numpy as np
from llvmlite import ir

from fastsoftmax.kernels.compile import word
from fastsoftmax.kernels.later import cgutils, types
from fastsoftmax.kernels.sizes import (
    COEFFICIENTS_ROW,
    GRAM_TILE,
    MANY,
    PANEL_ROW,
    SWEEP_ROWS,
)
from fastsoftmax.kernels.vectors import (
    I32,
    I64,
    VECTOR_BYTES,
    Loop,
    element_address,
    fill,
    forget,
    llvm_type,
    load_at,
    multiply_add,
    number,
    of_array,
    prefetch_at,
    spread,
    store_at,
)

LINE = 64  # bytes of a cache line


def _lane_sums(builder, vectors):
    """Return one vector whose lane i is the sum of the lanes of vectors[i], by a tree of merges.

    Merging costs three instructions a vector; summing each on its own costs a dozen.
    """
    count = vectors[0].type.count
    vectors = [*vectors, *[fill(vectors[0].type, 0.0)] * (count - len(vectors))]
    mask_type = ir.VectorType(I32, count)
    width = 1  # lane l of a vector holds a part of sum number l % width
    while width < count:
        groups = [(lane // (2 * width)) * 2 * width + lane % width for lane in range(count)]
        side = [count if lane % (2 * width) >= width else 0 for lane in range(count)]
        low = ir.Constant(mask_type, [g + s for g, s in zip(groups, side, strict=True)])
        high = ir.Constant(mask_type, [g + s + width for g, s in zip(groups, side, strict=True)])
        vectors = [
            builder.fadd(builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high))
            for a, b in zip(vectors[0::2], vectors[1::2], strict=True)
        ]
        width *= 2
    return vectors[0]


def _prefetch_next(builder, cursor, last):
    """Ask for the line that `cursor` points at; return the next cursor."""
    prefetch_at(builder, builder.load(builder.inttoptr(cursor, I64.as_pointer())))
    # A select, not a branch: once the list is done, its last line is asked for again.
    onward = builder.add(cursor, number(8))
    return builder.select(builder.icmp_unsigned("<", onward, last), onward, last)


def _multiply(builder, left, right, sums):
    """Add left[i] right[j] to sums[i * len(right) + j], for vectors that are still to be loaded.

    The fewer ones are loaded first and kept, the others one by one: both at hand are too many.
    """
    keep_left = len(left) < len(right)
    kept, passing = (left, right) if keep_left else (right, left)
    kept = [load() for load in kept]
    for p, load in enumerate(passing):
        value = load()
        for k, other in enumerate(kept):
            place = k * len(right) + p if keep_left else p * len(right) + k
            sums[place] = multiply_add(builder, other, value, sums[place])


def _broadcast(builder, at, offset, ty):
    """Return the number at address `at` + offset in every lane."""
    place = builder.inttoptr(builder.add(at, number(offset)), ty.element.as_pointer())
    return spread(builder, builder.load(place), ty)


def _addresses(context, builder, array_type, array, row, column, count):
    """Return the addresses of array[row + i, column] for i in range(count)."""
    return [
        element_address(context, builder, array_type, array, builder.add(row, number(i)), column)
        for i in range(count)
    ]


def _row_stride(context, builder, array_type, array):
    """Return how many bytes lie between the rows of an array."""
    strides = context.make_array(array_type)(context, builder, array).strides
    return cgutils.unpack_tuple(builder, strides)[0]


def _panel_rows(context, builder, array_type, array, row, count):
    """Return the addresses of the rows row + i of a panel, i < count."""
    first = element_address(context, builder, array_type, array, row, number(0))
    size = array_type.dtype.bitwidth // 8
    return [builder.add(first, number(PANEL_ROW * size * i)) for i in range(count)]


def _store_sums(context, builder, array_type, array, vectors, places, fresh):
    """Set array[place] to the sum of the lanes of each vector, or add it where `fresh` is 0."""
    ty = vectors[0].type
    fresh = builder.icmp_signed("!=", fresh, number(0))
    for begin in range(0, len(vectors), ty.count):
        merged = _lane_sums(builder, vectors[begin : begin + ty.count])
        for lane, (i, j) in enumerate(places[begin : begin + ty.count]):
            at = element_address(context, builder, array_type, array, i, j)
            value = builder.extract_element(merged, ir.Constant(I32, lane))
            before = builder.load(builder.inttoptr(at, ty.element.as_pointer()))
            before = builder.select(fresh, ir.Constant(ty.element, 0.0), before)
            store_at(builder, builder.fadd(before, value), at)


def dot_tile(rows, classes):
    """Make `tile(Z, t, k, A, count, B, start, stop, fresh, cursor, last)`, which sets

    Z[t + r, k + c] = sum_j A[t + r, j] B[k + c, j], over start <= j < stop (a whole number of
    vectors), for c < classes and the rows r < count, `rows` at a time (count > 0, rounded up);
    or adds it to Z where `fresh` is 0. One call for all rows: calls cost as much as 256 features.
    """

    def twin(Z, t, k, A, count, B, start, stop, fresh, cursor, last):
        panel, count = slice(start, stop), -(-count // rows) * rows
        sums = A[t : t + count, panel] @ B[k : k + classes, panel].T
        out = Z[t : t + count, k : k + classes]
        out[:] = sums if fresh else out + sums
        return cursor

    @word(twin)
    def tile(typing_context, Z, t, k, A, count, B, start, stop, fresh, cursor, last):
        def build(context, builder, signature, arguments):
            z, row, column, a, stop_row, b, first, beyond, new, line, end = arguments
            vector = of_array(Z)
            ty, size = llvm_type(vector), vector.dtype.bitwidth // 8
            b_at = _addresses(context, builder, B, b, column, first, classes)
            # Loops count in bytes: the counter is the offset in all rows, no index to scale.
            length = builder.mul(builder.sub(beyond, first), number(size))
            strip = Loop(builder, stop_row, rows, [line])
            a_at = _addresses(context, builder, A, a, builder.add(row, strip.at), first, rows)
            start_sums = [fill(ty, 0.0)] * (rows * classes)
            loop = Loop(builder, length, VECTOR_BYTES, [*strip.variables, *start_sums])
            line, *sums = loop.variables
            line = _prefetch_next(builder, line, end)
            _multiply(
                builder,
                [lambda at=at: load_at(builder, builder.add(at, loop.at), ty) for at in a_at],
                [lambda at=at: load_at(builder, builder.add(at, loop.at), ty) for at in b_at],
                sums,
            )
            loop.carry([line, *sums])
            places = [
                (builder.add(builder.add(row, strip.at), number(r)), builder.add(column, number(c)))
                for r in range(rows)
                for c in range(classes)
            ]
            _store_sums(context, builder, Z, z, sums, places, new)
            strip.carry([line])
            return line

        i64 = types.int64
        return i64(Z, i64, i64, A, i64, B, i64, i64, i64, i64, i64), build

    return tile


def triangle_tile():
    """Make `tile(G, t, X, start, stop, cursor, last)`, for the pairs of GRAM_TILE rows:

    G[t + r, t + c] = sum_j X[t + r, j] X[t + c, j], r < c, over start <= j < stop; added to what is
    in G unless start is 0.
    """

    def twin(G, t, X, start, stop, cursor, last):
        block = X[t : t + GRAM_TILE, start:stop]
        _add_products(G, t, block, start)
        return cursor

    @word(twin)
    def tile(typing_context, G, t, X, start, stop, cursor, last):
        def build(context, builder, signature, arguments):
            g, row, x, first, beyond, line, last_line = arguments
            x_at = _addresses(context, builder, X, x, row, first, GRAM_TILE)
            length = builder.sub(beyond, first)
            lines = (line, last_line)
            fresh = builder.zext(builder.icmp_signed("==", first, number(0)), I64)
            return _triangle(context, builder, G, g, row, fresh, length, x_at, None, lines)

        i64 = types.int64
        return i64(G, i64, X, i64, i64, i64, i64), build

    return tile


def copying_tile():
    """Make `tile(G, X, at, t, start, stop)`, which does as a triangle tile and copies the rows:

    row t + r begins in memory at at[t + r, 0]; its columns start : stop are copied to X[t + r], X
    being a panel, from column 0 on. The copies cost next to nothing here, and a quarter of the
    sweep if made before.
    """

    def twin(G, X, at, t, start, stop):
        size = X.itemsize * stop
        for r in range(t, t + GRAM_TILE):
            memory = (ctypes.c_char * size).from_address(int(at[r, 0]))
            X[r, : stop - start] = np.frombuffer(memory, X.dtype)[start:stop]
        _add_products(G, t, X[t : t + GRAM_TILE, : stop - start], 0)

    @word(twin)
    def tile(typing_context, G, X, at, t, start, stop):
        def build(context, builder, signature, arguments):
            g, x, places, row, first, beyond = arguments
            x_at = _panel_rows(context, builder, X, x, row, GRAM_TILE)
            starts = _addresses(context, builder, at, places, row, number(0), GRAM_TILE)
            offset = builder.mul(first, number(X.dtype.bitwidth // 8))
            source = [
                builder.add(builder.load(builder.inttoptr(start, I64.as_pointer())), offset)
                for start in starts
            ]
            length = builder.sub(beyond, first)
            _triangle(context, builder, G, g, row, number(1), length, source, x_at, None)
            return context.get_dummy_value()

        i64 = types.int64
        return types.void(G, X, at, i64, i64, i64), build

    return tile


PAIRS = [(r, c) for c in range(GRAM_TILE) for r in range(c)]
# Rows at hand while those after them pass by. All eight would not fit beside the sums of 28 pairs.
KEPT = ((0, 1, 2), (3, 4, 5), (6,)) if MANY else ((0, 1, 2),)


def _add_products(G, t, block, start):
    products = block @ block.T
    for r, c in PAIRS:
        G[t + r, t + c] = products[r, c] if start == 0 else G[t + r, t + c] + products[r, c]


def _triangle(context, builder, G, g, row, fresh, length, x_at, copy_at, lines):
    """Build the loop of a triangle tile over `length` features; return the next cursor."""
    vector = of_array(G)
    ty, size = llvm_type(vector), vector.dtype.bitwidth // 8
    length = builder.mul(length, number(size))
    first_line = number(0) if lines is None else lines[0]
    loop = Loop(builder, length, VECTOR_BYTES, [first_line, *[fill(ty, 0.0)] * len(PAIRS)])
    line, *sums = loop.variables
    if lines is not None:
        line = _prefetch_next(builder, line, lines[1])
    for kept in KEPT:
        values: dict[int, ir.Value] = {}
        for c in range(kept[0], GRAM_TILE):
            value = load_at(builder, builder.add(x_at[c], loop.at), ty)
            if copy_at is not None and kept is KEPT[0]:
                store_at(builder, value, builder.add(copy_at[c], loop.at))
            for r, other in values.items():
                place = PAIRS.index((r, c))
                sums[place] = multiply_add(builder, other, value, sums[place])
            if c in kept:
                values[c] = value
        # Else LLVM keeps the rows of one pass for the next, and sums on the stack instead.
        forget(builder)
    loop.carry([line, *sums])
    places = [(builder.add(row, number(r)), builder.add(row, number(c))) for r, c in PAIRS]
    _store_sums(context, builder, G, g, sums, places, fresh)
    return line


def _added(A, rows, columns, values):
    """Add `values` to a panel of A in a plain twin, where A is there."""
    if A is not None:
        A[rows, columns] += values


def update_tile(classes, wide):
    """Make `tile(W, S, k, start, stop, keep, E, X, count, cursor, last)`, which sets

    W[k + c, j] = keep W[k + c, j] + sum_s E[s, k + c] X[s, j], over s < count, for c < classes and
    start <= j < stop, `wide` vectors at a time; count >= 1, stop - start at least that and a
    multiple of it. Where S is not None, what W is after each row s is added to S[k + c, j]: an
    addition a product, on units of their own in some processors, where a second product with other
    coefficients would cost as much as the first. The same features of the classes after these are
    asked for: where W is too large for the caches, 0.85 to 0.92 of the time.
    """

    def twin(W, S, k, start, stop, keep, E, X, count, cursor, last):
        rows, panel = slice(k, k + classes), slice(start, stop)
        out = W[rows, panel]
        out *= keep
        total = np.zeros_like(out)
        for s in range(count):
            out += np.outer(E[s, rows], X[s, panel])
            total += out
        _added(S, rows, panel, total)
        return cursor

    @word(twin)
    def tile(typing_context, W, S, k, start, stop, keep, E, X, count, cursor, last):
        averages = isinstance(S, types.Array)

        def build(context, builder, signature, arguments):
            w, s, row, first, beyond, kept, coefficients, x, rows, line, end = arguments
            vector = of_array(W)
            ty, size = llvm_type(vector), vector.dtype.bitwidth // 8
            offsets = [number(VECTOR_BYTES * v) for v in range(wide)]
            zero = number(0)
            w_rows = _addresses(context, builder, W, w, row, first, classes)
            s_rows = _addresses(context, builder, S, s, row, first, classes) if averages else []
            after = builder.add(row, number(classes))
            coming = _addresses(context, builder, W, w, after, first, classes)
            coming += _addresses(context, builder, S, s, after, first, classes) if averages else []
            x_stride = _row_stride(context, builder, X, x)
            # E may be a Gram matrix, whose rows are as long as a block (see `couple`).
            e_stride = _row_stride(context, builder, E, coefficients)
            x_first = element_address(context, builder, X, x, zero, first)
            e_first = element_address(context, builder, E, coefficients, zero, row)
            scale = spread(builder, context.cast(builder, kept, keep, vector.dtype), ty)
            length = builder.mul(builder.sub(beyond, first), number(size))
            strip = Loop(builder, length, wide * VECTOR_BYTES, [line])
            w_at, s_at = (
                [builder.add(builder.add(at, strip.at), o) for at in starts for o in offsets]
                for starts in (w_rows, s_rows)
            )
            sums = [builder.fmul(scale, load_at(builder, at, ty)) for at in w_at]
            sums += [fill(ty, 0.0)] * len(s_at)
            # Sums are read after the loop over rows: they arrive while it runs.
            for at in s_at:
                prefetch_at(builder, at)
            for at in coming:
                for line in range(0, wide * VECTOR_BYTES, LINE):
                    prefetch_at(builder, builder.add(builder.add(at, strip.at), number(line)))
            x_start = builder.add(x_first, strip.at)
            loop = Loop(builder, rows, 1, [*sums, x_start, e_first, *strip.variables])
            *sums, x_at, e_at, line = loop.variables
            totals = sums[classes * wide :]
            line = _prefetch_next(builder, line, end)
            _multiply(
                builder,
                [lambda c=c: _broadcast(builder, e_at, size * c, ty) for c in range(classes)],
                [lambda o=o: load_at(builder, builder.add(x_at, o), ty) for o in offsets],
                sums,
            )
            totals = [builder.fadd(total, now) for total, now in zip(totals, sums, strict=False)]
            sums[classes * wide :] = totals
            x_at, e_at = builder.add(x_at, x_stride), builder.add(e_at, e_stride)
            loop.carry([*sums, x_at, e_at, line])
            # After the loop its last values are at hand in `sums`.
            for at, value in zip(w_at, sums, strict=False):
                store_at(builder, value, at)
            for at, value in zip(s_at, totals, strict=True):
                store_at(builder, builder.fadd(load_at(builder, at, ty), value), at)
            strip.carry([line])
            return line

        i64 = types.int64
        return i64(W, S, i64, i64, i64, keep, E, X, i64, i64, i64), build

    return tile


def _take_steps(builder, rows, coefficients, new, totals):
    """Add the steps of a sweep's rows to vectors of W, `new`, and to those of its sums, if any.

    coefficients: addresses of those of W and of those of the sums, or None where W itself is added.
    """
    for r, load in enumerate(rows):
        row = load()
        for c, value in enumerate(new):
            offset = VECTOR_BYTES // value.type.count * (COEFFICIENTS_ROW * r + c)
            step = _broadcast(builder, coefficients[0], offset, value.type)
            new[c] = multiply_add(builder, step, row, value)
            if coefficients[1] is not None:
                weight = _broadcast(builder, coefficients[1], offset, value.type)
                totals[c] = multiply_add(builder, weight, row, totals[c])
            elif totals:
                totals[c] = builder.fadd(totals[c], new[c])


def sweep_tile(classes):
    """Make `tile(Z, W, S, k, steps, A, X, width, coming)`, for SWEEP_ROWS rows:

    W[k + c, j] = keep W[k + c, j] + sum_s E[s, k + c] A[s, j] and, with these new weights,
    Z[r, k + c] = sum_j W[k + c, j] X[r, j], over j < width; S as in an update tile. A and X are
    panels, and the rows of E and H COEFFICIENTS_ROW apart; `steps` are keep, E, H and share. Where
    H is not None, what is added to S[k + c, j] is share W[k + c, j] + sum_s H[s, k + c] A[s, j], W
    being that from before.

    One pass over W where an update and a dot product take two: 302 ns a row of 784 features and 10
    classes instead of 336 for blocks of 16 rows, 372 for blocks of 8. Each round also asks for the
    same features of two rows to come: `coming` are their addresses and the bytes of a number.
    """

    def twin(Z, W, S, k, steps, A, X, width, coming):
        keep, E, H, share = steps
        rows, panel = slice(k, k + classes), slice(0, width)
        out = W[rows, panel]
        total = np.zeros_like(out) if H is None else share * out
        out *= keep
        for s in range(SWEEP_ROWS):
            out += np.outer(E[s, rows], A[s, panel])
            total += out if H is None else np.outer(H[s, rows], A[s, panel])
        _added(S, rows, panel, total)
        Z[:SWEEP_ROWS, rows] = X[:SWEEP_ROWS, panel] @ out.T

    @word(twin)
    def tile(typing_context, Z, W, S, k, steps, A, X, width, coming):
        keep, E, H, share = steps
        averages, weighs = (isinstance(sums, types.Array) for sums in (S, H))

        def build(context, builder, signature, arguments):
            z, w, s, column, taken, a, x, beyond, rows = arguments
            kept, e, h, part = cgutils.unpack_tuple(builder, taken)
            *ahead, number_bytes = cgutils.unpack_tuple(builder, rows)
            vector = of_array(W)
            ty, size = llvm_type(vector), vector.dtype.bitwidth // 8
            zero = number(0)
            a_at = _panel_rows(context, builder, A, a, zero, SWEEP_ROWS)
            x_at = _panel_rows(context, builder, X, x, zero, SWEEP_ROWS)
            w_at = _addresses(context, builder, W, w, column, zero, classes)
            s_at = _addresses(context, builder, S, s, column, zero, classes) if averages else []
            e_at = element_address(context, builder, E, e, zero, column)
            h_at = element_address(context, builder, H, h, zero, column) if weighs else None
            scale, share_of = (
                spread(builder, context.cast(builder, value, kind, vector.dtype), ty)
                for value, kind in ((kept, keep), (part, share))
            )
            length = builder.mul(beyond, number(size))
            sums = [fill(ty, 0.0)] * (SWEEP_ROWS * classes)
            loop = Loop(builder, length, VECTOR_BYTES, sums)
            sums = list(loop.variables)
            # Rows to come may be of another dtype than the model: a feature lies elsewhere there.
            offset = builder.lshr(builder.mul(loop.at, number_bytes), number(size.bit_length() - 1))
            for address in ahead:
                prefetch_at(builder, builder.add(address, offset))
            # W is read and written once: updated here, it is still at hand for the margins below.
            old = [load_at(builder, builder.add(at, loop.at), ty) for at in w_at]
            new = [builder.fmul(scale, value) for value in old]
            totals = [fill(ty, 0.0)] * len(s_at)
            if weighs:
                totals = [builder.fmul(share_of, value) for value in old]
            rows = [lambda at=at: load_at(builder, builder.add(at, loop.at), ty) for at in a_at]
            _take_steps(builder, rows, (e_at, h_at), new, totals)
            for at, value in zip(w_at, new, strict=True):
                store_at(builder, value, builder.add(at, loop.at))
            for at, value in zip(s_at, totals, strict=True):
                place = builder.add(at, loop.at)
                store_at(builder, builder.fadd(load_at(builder, place, ty), value), place)
            for r in range(SWEEP_ROWS):
                row = load_at(builder, builder.add(x_at[r], loop.at), ty)
                for c in range(classes):
                    i = r * classes + c
                    sums[i] = multiply_add(builder, row, new[c], sums[i])
            loop.carry(sums)
            places = [
                (number(r), builder.add(column, number(c)))
                for r in range(SWEEP_ROWS)
                for c in range(classes)
            ]
            _store_sums(context, builder, Z, z, sums, places, number(1))
            return context.get_dummy_value()

        i64 = types.int64
        return types.void(Z, W, S, i64, steps, A, X, i64, coming), build

    return tile
