"""Every Arrow type and layout is decoded to what a NumPy twin holds; nulls as the policy says."""

from __future__ import annotations

import decimal
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data.columns import Feature
from fastsoftmax.data.decode import (
    features_of,
    items_of,
    nulls_of,
    refuse_other_lengths,
    rows_with_nulls,
    runs_of,
)
from fastsoftmax.data.parts import Codes, Dense
from fastsoftmax.data.source import Column
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes
from tests.tables import DTYPES, as_list, matrix

ROWS, WIDTH = 12, 3
LISTS = ["fixed", "list", "large_list", "tensor"]
GAPS = np.random.default_rng(1).random((ROWS, WIDTH)) < 0.3  # numbers that are null
GAPS[4] = False
ABSENT = np.zeros(ROWS, np.bool_)  # rows whose list is null as a whole
ABSENT[[2, 7]] = True
RED, GREEN = "red", "green"
KNOWN = Classes("string", (GREEN, RED))


def where(row):
    return f"row {row}"


def feature(name, kind, **facts):
    return Feature(Column(name, **facts), kind)


def decoded(columns, **facts):
    """Return the parts of columns by name, and what was done to nulls; facts: by column."""
    batch = pa.record_batch(columns)
    features = tuple(feature(f.name, f.type, **facts.get(f.name, {})) for f in batch.schema)
    treated = Counter()
    return features_of(batch, runs_of(features), where, treated), treated


def one(array, **facts):
    """Return the features (rows, width) of a column alone."""
    parts, _ = decoded({"x": array}, x=facts)
    return np.concatenate([part.matrix() for part in parts], axis=1)


def sliced(array):
    """Return the rows again as the middle of a longer array: Arrow's buffers begin elsewhere."""
    padded = pa.concat_arrays([array[1:4], array, array[:2]])
    return padded.slice(3, len(array))


def expected_dtype(dtype):
    return np.dtype("uint8") if dtype == "bool" else np.dtype(dtype)


def listed(X, layout, gaps=None, absent=None):
    """Return rows of X as lists, of which numbers and whole rows may be null."""
    items = pa.array(X.ravel(), mask=None if gaps is None else gaps.ravel())
    if layout in ("fixed", "tensor"):
        mask = None if absent is None else pa.array(absent)
        fixed = pa.FixedSizeListArray.from_arrays(items, X.shape[1], mask=mask)
        if layout == "fixed":
            return fixed
        kind = pa.fixed_shape_tensor(items.type, [X.shape[1]])
        return pa.ExtensionArray.from_storage(kind, fixed)
    rows = [
        None if absent is not None and absent[t] else items.slice(t * X.shape[1], X.shape[1])
        for t in range(len(X))
    ]
    of = pa.list_ if layout == "list" else pa.large_list
    values = [None if row is None else row.to_pylist() for row in rows]
    return pa.array(values, of(items.type))


# Numbers alone


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_column_of_numbers_keeps_its_dtype(dtype, cut):
    x = matrix(dtype, ROWS, 1)
    array = pa.array(x[:, 0])
    (part,), treated = decoded({"x": sliced(array) if cut else array})
    assert type(part) is Dense
    assert part.dtype == expected_dtype(dtype)
    assert_array_equal(part.values, x)
    assert not treated


def test_long_columns_stay_where_they_lie_unless_a_longer_batch_would_stay_too():
    X = np.asarray(matrix("float32", 15_000, 9), order="F")
    columns = {f"x{j}": pa.array(X[:, j]) for j in range(9)}
    batch = pa.record_batch(columns)
    for rows, stays in ((slice(0, 15_000), True), (slice(5_000, 10_000), False)):
        own = batch.slice(rows.start, rows.stop - rows.start)
        (part,), _ = decoded(dict(zip(columns, own.columns, strict=True)))
        lies = [
            np.shares_memory(numbers, column.to_numpy())
            for numbers, column in zip(part.columns or (), batch.columns, strict=False)
        ]
        assert lies == [True] * 9 * stays
        assert_array_equal(part.matrix(), X[rows])
    columns["x8"] = pa.array(X[:, 8], mask=np.arange(15_000) == 77)
    with pytest.raises(DataError, match=r'^row 77: column "x8" is null'):
        decoded(columns)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_null_without_a_fill_names_its_row(dtype):
    x = matrix(dtype, ROWS, 1)[:, 0]
    array = pa.array(x, mask=np.arange(ROWS) == 9)
    with pytest.raises(DataError, match=r'^row 9: column "x" is null'):
        one(array)
    with pytest.raises(DataError, match=r'^row 9: column "x" is null'):
        one(sliced(array))


@pytest.mark.parametrize("fill", [0.0, 2.0, 2.5])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nulls_are_filled_and_integers_that_take_a_fraction_become_float64(dtype, fill):
    x = matrix(dtype, ROWS, 1)[:, 0]
    array = pa.array(x, mask=GAPS[:, 0])
    integers = expected_dtype(dtype).kind in "ui"
    wanted = np.float64 if integers and fill == 2.5 else expected_dtype(dtype)
    for given in (array, sliced(array)):
        (part,), treated = decoded({"x": given}, x={"fill": (fill,)})
        assert part.dtype == wanted
        assert_array_equal(part.values[:, 0], np.where(GAPS[:, 0], fill, x.astype(np.float64)))
        assert treated == {'nulls in "x"': GAPS[:, 0].sum()}


def test_nan_and_infinities_are_no_nulls():
    x = np.array([np.nan, np.inf, -np.inf, 0.5])
    assert_array_equal(one(pa.array(x))[:, 0], x)
    filled = one(pa.array(x, mask=np.arange(4) == 3), fill=(7.0,))
    assert_array_equal(filled[:, 0], [np.nan, np.inf, -np.inf, 7.0])


@pytest.mark.parametrize("of", [pa.decimal128(9, 2), pa.decimal256(40, 2)], ids=str)
def test_decimals_become_float64(of):
    values = [decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")]
    array = pa.array(values, of)
    got = one(array, fill=(-1.0,))
    assert got.dtype == np.float64
    assert_array_equal(got[:, 0], [1.5, -1.0, -2.25])
    with pytest.raises(DataError, match=r"^row 1: "):
        one(array)


def test_dictionaries_of_numbers_become_their_values():
    plain = pa.array([7, 9, None, 7], pa.int16())
    for indices in (pa.int8(), pa.uint32()):
        array = plain.dictionary_encode().cast(pa.dictionary(indices, pa.int16()))
        got = one(array, fill=(0.0,))
        assert got.dtype == np.int16
        assert_array_equal(got[:, 0], [7, 9, 0, 7])
    values = pa.array([5.5, None])  # a null that stands in the dictionary
    array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), values)
    assert_array_equal(one(array, fill=(2.0,))[:, 0], [5.5, 2.0, 5.5])
    with pytest.raises(DataError, match=r"^row 1: "):
        one(array)


def test_no_rows_are_decoded_to_none():
    for array in (pa.array([], pa.float32()), listed(np.zeros((0, WIDTH)), "list")):
        width = WIDTH if pa.types.is_list(array.type) else None
        assert one(array, width=width).shape == (0, width or 1)


def test_numbers_are_used_where_they_lie():
    x = np.arange(ROWS, dtype=np.float32)
    (part,), _ = decoded({"x": pa.array(x)})
    assert np.shares_memory(part.values, x)
    (part,), _ = decoded({"x": pa.array(x).slice(2, 5)})
    assert np.shares_memory(part.values, x)
    assert_array_equal(part.values[:, 0], x[2:7])


# Columns side by side


@pytest.mark.parametrize("count", [2, 7, 8, 20])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint64", "bool"])
def test_neighbours_of_one_type_are_one_part_column_by_column(dtype, count):
    X = matrix(dtype, ROWS, count)
    columns = {f"x{j}": pa.array(X[:, j]) for j in range(count)}
    for given in (columns, {name: sliced(array) for name, array in columns.items()}):
        (part,), _ = decoded(given)
        assert part.dtype == expected_dtype(dtype)
        assert part.values.strides[0] == part.values.itemsize
        assert_array_equal(part.values, X)


@pytest.mark.parametrize("count", [3, 12])
def test_a_null_among_neighbours_is_named_or_filled(count):
    X = matrix("int32", ROWS, count)
    gaps = np.zeros(X.shape, np.bool_)
    gaps[5, 2] = gaps[8, 1] = True
    columns = {f"x{j}": pa.array(X[:, j], mask=gaps[:, j]) for j in range(count)}
    with pytest.raises(DataError, match=r'^row 8: column "x1" is null'):
        decoded(columns)
    fills = {f"x{j}": {"fill": (float(j),)} for j in range(count)}
    (part,), treated = decoded(columns, **fills)
    assert_array_equal(part.values, np.where(gaps, np.arange(count), X))
    assert treated == {'nulls in "x1"': 1, 'nulls in "x2"': 1}


def test_runs_end_where_the_type_changes_or_a_column_stands_alone():
    number, other = pa.float32(), pa.float64()
    features = (
        feature("a", number),
        feature("b", number),
        feature("c", other),
        feature("d", pa.list_(other, 2), width=2),
        feature("e", pa.string(), categories=KNOWN),
        feature("f", number),
        feature("g", number, fill=(0.0,), indicator=True),
        feature("h", number),
        feature("i", pa.int8(), fill=(0.5,)),
        feature("j", pa.int8()),
    )
    names = ["".join(f.column.name for f in run) for run in runs_of(features)]
    assert names == ["ab", "c", "d", "e", "f", "g", "h", "i", "j"]


def test_parts_stand_in_the_order_of_the_columns():
    X, v = matrix("float32", ROWS, 3), matrix("uint8", ROWS, 2)
    columns = {
        "a": pa.array(X[:, 0]),
        "v": listed(v, "list"),
        "c": pa.array([RED] * ROWS),
        "b": pa.array(X[:, 1]),
        "d": pa.array(X[:, 2]),
    }
    parts, _ = decoded(columns, v={"width": 2}, c={"categories": KNOWN})
    assert [part.width for part in parts] == [1, 2, 2, 2]
    assert_array_equal(parts[0].values[:, 0], X[:, 0])
    assert_array_equal(parts[1].values, v)
    assert_array_equal(parts[2].matrix(), [[0, 1]] * ROWS)
    assert_array_equal(parts[3].values, X[:, 1:])


# Lists


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("layout", LISTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lists_of_numbers_keep_their_dtype(dtype, layout, cut):
    X = matrix(dtype, ROWS, WIDTH)
    array = as_list(X, layout)
    (part,), treated = decoded({"x": sliced(array) if cut else array}, x={"width": WIDTH})
    assert part.dtype == expected_dtype(dtype)
    assert part.is_row_major
    assert_array_equal(part.values, X)
    assert not treated


@pytest.mark.parametrize("layout", LISTS)
def test_lists_of_plain_numbers_are_used_where_they_lie(layout):
    array = as_list(matrix("float32", ROWS, WIDTH), layout)
    (part,), _ = decoded({"x": array}, x={"width": WIDTH})
    storage = array.storage if layout == "tensor" else array
    assert np.shares_memory(part.values, storage.values.to_numpy())


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("layout", LISTS)
@pytest.mark.parametrize("what", ["numbers", "rows", "both"])
def test_nulls_in_lists_are_filled_number_by_number(what, layout, cut):
    X, fill = matrix("float64", ROWS, WIDTH), (10.5, 20.5, 30.5)
    gaps = GAPS if what != "rows" else np.zeros_like(GAPS)
    absent = ABSENT if what != "numbers" else np.zeros_like(ABSENT)
    array = listed(X, layout, gaps, absent)
    given = sliced(array) if cut else array
    (part,), treated = decoded({"x": given}, x={"width": WIDTH, "fill": fill})
    assert_array_equal(part.values, np.where(gaps | absent[:, None], fill, X))
    assert treated == {'nulls in "x"': absent.sum() + gaps[~absent].sum()}


@pytest.mark.parametrize("layout", LISTS)
def test_nulls_in_lists_without_a_fill_name_their_row(layout):
    X, nowhere = matrix("float32", ROWS, WIDTH), np.zeros_like(GAPS)
    with pytest.raises(DataError, match=r'^row 2: column "x" is null'):
        one(listed(X, layout, nowhere, ABSENT), width=WIDTH)
    gaps = nowhere.copy()
    gaps[6, 1] = True
    for given in (listed(X, layout, gaps), sliced(listed(X, layout, gaps))):
        with pytest.raises(DataError, match=r'^row 6: an item of column "x" is null'):
            one(given, width=WIDTH)


@pytest.mark.parametrize("layout", ["fixed", "list"])
def test_lists_that_are_all_null_are_filled_whole(layout):
    array = listed(matrix("int16", ROWS, WIDTH), layout, None, np.ones(ROWS, np.bool_))
    got = one(array, width=WIDTH, fill=(1.0, 2.0, 3.0))
    assert got.dtype == np.int16
    assert_array_equal(got, [[1, 2, 3]] * ROWS)
    assert nulls_of(array, WIDTH).all()


def test_lists_of_halves_decimals_and_dictionaries_become_their_numbers():
    halves = listed(matrix("float16", ROWS, WIDTH), "list", GAPS)
    got = one(halves, width=WIDTH, fill=(0.5, 0.5, 0.5))
    assert got.dtype == np.float16
    assert_array_equal(got, np.where(GAPS, 0.5, matrix("float16", ROWS, WIDTH)))
    money = [decimal.Decimal("0.25"), decimal.Decimal("1.75")]
    array = pa.array([money, money[::-1]], pa.list_(pa.decimal128(9, 2)))
    assert_array_equal(one(array, width=2), [[0.25, 1.75], [1.75, 0.25]])
    items = pa.array([3, 4, 4, 3]).dictionary_encode()
    assert_array_equal(one(pa.FixedSizeListArray.from_arrays(items, 2), width=2), [[3, 4], [4, 3]])


@pytest.mark.parametrize("of", [pa.list_, pa.large_list])
def test_a_list_of_another_length_is_named(of):
    array = pa.array([[1.0, 2.0], None, [3.0], [4.0, 5.0]], of(pa.float64()))
    for given, row in ((array, 2), (array.slice(1), 1)):
        with pytest.raises(DataError, match=rf"^row {row}: .* a list of 1 numbers, but of 2"):
            one(given, width=2, fill=(0.0, 0.0))
        batch = pa.record_batch({"x": given})
        with pytest.raises(DataError, match=rf"^row {row}: "):
            rows_with_nulls(batch, (feature("x", given.type, width=2),), where)


def test_lists_of_a_fixed_size_need_no_look_at_their_lengths():
    array = listed(matrix("int8", ROWS, WIDTH), "fixed", None, ABSENT)
    refuse_other_lengths(
        pa.record_batch({"x": array}), feature("x", array.type, width=WIDTH), where
    )


def test_items_of_a_slice_are_its_own():
    X = matrix("int32", ROWS, WIDTH)
    for layout in LISTS:
        array = listed(X, layout, None, ABSENT)
        assert_array_equal(items_of(array.slice(1, 4)), X[[1, 3, 4]].ravel())


# Categories


def strings():
    plain = pa.array([RED, GREEN, "blue", RED])
    yield plain
    yield plain.cast(pa.large_string())
    yield plain.dictionary_encode()
    yield sliced(plain)
    yield pa.array(["x", *plain.to_pylist()]).dictionary_encode()[1:]


@pytest.mark.parametrize("array", strings(), ids=lambda array: str(array.type))
def test_categories_become_codes_and_what_is_not_known_is_counted(array):
    (part,), treated = decoded({"x": array}, x={"categories": KNOWN})
    assert type(part) is Codes
    assert part.width == 2
    assert part.values.dtype == np.int32
    assert_array_equal(part.values[:, 0], [1, 0, -1, 1])
    assert treated == {'unknown in "x"': 1}


@pytest.mark.parametrize(
    ("array", "known", "codes"),
    [
        (pa.array([5, 300, -1], pa.int16()), Classes("int16", (-1, 5)), [1, -1, 0]),
        (pa.array([5, 7], pa.uint8()), Classes("int64", (-1, 5, 300)), [1, -1]),
        (pa.array([5.0, 7.0]), Classes("int64", (5, 7)), [0, 1]),
        (pa.array([True, False]), Classes("bool", (False, True)), [1, 0]),
    ],
)
def test_categories_of_other_types_become_codes(array, known, codes):
    (part,), _ = decoded({"x": array}, x={"categories": known})
    assert_array_equal(part.values[:, 0], codes)


def test_a_null_category_is_an_error_or_no_category():
    array = pa.array([RED, None, "blue", GREEN, None])
    with pytest.raises(DataError, match=r'^row 1: column "x" is null'):
        one(array, categories=KNOWN)
    (part,), treated = decoded({"x": array}, x={"categories": KNOWN, "fill": (0.0,)})
    assert_array_equal(part.values[:, 0], [1, -1, -1, 0, -1])
    assert treated == {'unknown in "x"': 1, 'nulls in "x"': 2}


def test_a_category_that_will_not_do_names_its_row():
    known = Classes("int64", (1, 2))
    with pytest.raises(DataError, match=r'^row 3: column "x" is 1.5'):
        one(pa.array([1.0, None, 2.0, 1.5]), categories=known, fill=(0.0,))


# Indicators and dropped rows


def test_an_indicator_tells_the_rows_with_nulls():
    X = matrix("float32", ROWS, WIDTH)
    columns = {
        "a": pa.array(X[:, 0], mask=GAPS[:, 0]),
        "v": listed(X, "list", GAPS, ABSENT),
        "c": pa.array([None if gap else RED for gap in GAPS[:, 1]]),
    }
    facts = {"fill": (0.0,), "indicator": True}
    lists = facts | {"width": WIDTH, "fill": (0.0,) * WIDTH}
    parts, _ = decoded(columns, a=facts, v=lists, c=facts | {"categories": KNOWN})
    assert [part.width for part in parts] == [1, 1, WIDTH, 1, 2, 1]
    wanted = (GAPS[:, 0], ABSENT | GAPS.any(axis=1), GAPS[:, 1])
    for part, told in zip(parts[1::2], wanted, strict=True):
        assert part.dtype == np.uint8
        assert_array_equal(part.values[:, 0], told)


def test_rows_with_a_null_in_any_column_are_told():
    X = matrix("float32", ROWS, WIDTH)
    columns = {
        "a": pa.array(X[:, 0], mask=GAPS[:, 0]),
        "v": listed(X, "large_list", np.roll(GAPS, 5, axis=0), ABSENT),
        "b": pa.array(X[:, 1]),
    }
    batch = pa.record_batch(columns)
    widths = {"v": {"width": WIDTH}}
    features = tuple(feature(f.name, f.type, **widths.get(f.name, {})) for f in batch.schema)
    told = rows_with_nulls(batch, features, where)
    wanted = GAPS[:, 0] | ABSENT | np.roll(GAPS, 5, axis=0).any(axis=1)
    assert_array_equal(told, wanted)
    part = batch.slice(3, 6)
    assert_array_equal(rows_with_nulls(part, features, where), wanted[3:9])
    assert not rows_with_nulls(batch, features[2:], where).any()
