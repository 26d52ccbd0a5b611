"""Rows in memory and in streams: every layout and library gives what the NumPy reference holds."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data.open import open_source
from fastsoftmax.data.source import Column
from fastsoftmax.errors import DataError
from fastsoftmax.labels import Classes
from tests.tables import DTYPES, LAYOUTS, ROWS, WIDTH, matrix, mixed_order, read, table

THREE = Classes("int64", (0, 1, 2))
Y = np.arange(ROWS) % 3


def assert_reads(source, X, y=Y):
    got, labels = read(source, source.scan_labels().classes)
    assert_array_equal(got, X)
    assert_array_equal(labels, y)


def read_all(*given, **named):
    source = open_source(*given, **named)
    source.scan_labels()
    list(source.chunks(THREE))


def refused(*given, **named):
    """Return the sentence with which data are refused, at once or while they are read."""
    with pytest.raises(DataError) as caught:
        read_all(*given, **named)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [*DTYPES, ">f4", ">i2", "longdouble"])
@pytest.mark.parametrize("shape", ["C", "F", "sliced", "reversed", "read-only", "list"])
def test_a_matrix_of_any_dtype_and_layout_is_used_as_it_lies(dtype, shape):
    X = matrix(dtype)
    wide = np.zeros((2 * ROWS, WIDTH + 2), X.dtype)
    wide[::2, 1:-1] = X
    given = {
        "C": X,
        "F": np.asfortranarray(X),
        "sliced": wide[::2, 1:-1],
        "reversed": X[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": X.copy(),
        "list": X.tolist(),
    }[shape]
    if shape == "read-only":
        given.flags.writeable = False
    source = open_source(given, Y)
    assert_reads(source, X)
    assert source.in_memory
    (part,) = next(source.chunks(None)).parts
    assert source.resident == (part.values.strides[1] == part.values.itemsize)
    assert source.resident == (shape != "F") or shape == "reversed"
    assert (source.columns, source.n_features, source.pieces) == (None, WIDTH, (ROWS,))
    assert source.place(0, 17) == "row 17"
    assert source.fingerprint() == []
    (chunk,) = source.chunks(None)
    native = X.dtype.isnative and X.dtype.itemsize <= 8 and shape != "list"
    assert np.shares_memory(chunk.parts[0].values, given) == native


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_table_of_any_layout_sliced_and_cut_anyhow_gives_its_rows(dtype, layout):
    X = matrix(dtype)
    whole = table(X, layout)
    parts = [whole.slice(0, 1), whole.slice(1, 9), whole.slice(10, 0), whole.slice(10)]
    want = mixed_order(X) if layout == "mixed" else X
    for given in (whole, pa.concat_tables(parts), whole.combine_chunks()):
        assert_reads(open_source(given, "y"), want)
    assert_reads(open_source(whole.slice(5, 7), "y"), want[5:12], Y[5:12])
    assert_reads(open_source(whole.to_batches()[0].slice(4), "y"), want[4:], Y[4:])
    assert_reads(open_source(lambda: whole.to_reader(4), "y"), want)


def test_columns_of_many_dtypes_stand_side_by_side_in_their_own():
    y = Y
    columns = {"a": np.arange(ROWS, dtype="u1"), "b": np.arange(ROWS) / 2.0, "c": y == 1}
    source = open_source(pa.table({**columns, "d": y == 2, "y": y}), "y")
    (chunk,) = source.chunks(None)
    assert [part.dtype for part in chunk.parts] == ["uint8", "float64", "uint8"]
    assert [part.width for part in chunk.parts] == [1, 1, 2]
    assert source.feature_names == ("a", "b", "c", "d")
    assert source.row_bytes == 1 + 8 + 1 + 1


def test_many_scalar_columns_become_one_matrix():
    X = matrix("float32", width=20)
    source = open_source(table(X).slice(3), "y")
    (chunk,) = source.chunks(None)
    (part,) = chunk.parts
    assert part.values.flags.f_contiguous
    assert_array_equal(part.values, X[3:])


def test_decimals_and_dictionaries_of_numbers_are_features():
    a = pa.array([decimal.Decimal("1.50"), decimal.Decimal("-2.25")] * 3)
    b = pa.array([7, 8] * 3, pa.int16()).dictionary_encode()
    wide = a.cast(pa.decimal256(40, 2))
    X, _ = read(open_source(pa.table({"a": a, "b": b, "c": wide, "y": [0, 1] * 3}), "y"))
    assert_array_equal(X, [[1.5, 7, 1.5], [-2.25, 8, -2.25]] * 3)


def test_lists_of_plain_numbers_are_not_copied():
    whole = table(matrix("float32"), "fixed")
    source = open_source(whole, "y")
    (chunk,) = source.chunks(None)
    memory = whole["v"].chunk(0).values.to_numpy()
    assert np.shares_memory(chunk.parts[0].values, memory)
    assert source.in_memory
    assert source.resident
    assert not open_source(table(matrix("float32")), "y").resident


def test_pieces_of_a_table_come_in_the_order_asked_for():
    X = matrix("float32")
    whole = pa.concat_tables([table(X).slice(0, 10), table(X).slice(10)])
    source = open_source(whole, "y")
    assert source.pieces == (10, 13)
    got, labels = read(source, THREE, order=[1, 0])
    assert_array_equal(got, np.concatenate([X[10:], X[:10]]))
    assert_array_equal(labels, np.concatenate([Y[10:], Y[:10]]))
    assert source.place(1, 2) == "row 12"


def test_labels_and_weights_may_be_arrays_beside_any_data_in_memory():
    X = matrix("float32")
    whole = pa.concat_tables([table(X).slice(0, 10), table(X).slice(10)]).drop_columns("y")
    weights = np.arange(ROWS, dtype=np.float32)
    for given in (whole, lambda: whole.to_reader(4), X):
        source = open_source(given, Y.tolist(), weight=weights)
        chunks = list(source.chunks(THREE))
        assert_array_equal(np.concatenate([chunk.labels for chunk in chunks]), Y)
        assert_array_equal(np.concatenate([chunk.weights for chunk in chunks]), weights)
    assert all(chunk.labels is chunk.weights is None for chunk in source.chunks(None))


def test_columns_are_handed_on_beside_the_features():
    whole = table(matrix("float32"), name=[f"n{t}" for t in range(ROWS)])
    source = open_source(whole, features=["x0"], keep=["name", "y"])
    kept = pa.Table.from_batches([chunk.kept for chunk in source.chunks(None)])
    assert kept.equals(whole.select(["name", "y"]))


def library_frames():
    X = matrix("float32")
    polars = pytest.importorskip("polars")
    pandas = pytest.importorskip("pandas")
    duckdb = pytest.importorskip("duckdb")
    columns = {f"x{j}": X[:, j] for j in range(WIDTH)} | {"y": Y}
    frame = pandas.DataFrame(columns)
    return {
        "polars": polars.DataFrame(columns),
        "pandas": frame,
        "duckdb": duckdb.from_df(frame),
        "reader": lambda: pa.table(columns).to_reader(5),
        "frame": lambda: frame,
    }


@pytest.mark.parametrize("library", ["polars", "pandas", "duckdb", "reader", "frame"])
def test_streams_are_asked_again_at_each_pass(library):
    X = matrix("float32")
    source = open_source(library_frames()[library], "y")
    assert source.pieces is None
    assert not source.resident
    for _ in range(3):
        assert_reads(source, X)
    assert source.pieces == (ROWS,)
    assert source.place(0, 17) == "row 17"


def test_polars_strings_lists_and_categories_are_read():
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {
            "v": [[1.0, 2.0], [3.0, 4.0]],
            "w": polars.Series([[5], [6]], dtype=polars.Array(polars.Int8, 1)),
        }
    ).with_columns(
        polars.Series("s", ["b", "a"]), polars.Series("c", ["q", "p"], polars.Categorical)
    )
    for target in ("s", "c"):
        source = open_source(frame, target, features=["w", "v"])
        assert_reads(source, [[5, 1, 2], [6, 3, 4]], [1, 0])


def test_series_of_pandas_and_polars_are_labels():
    X = matrix("float32")
    for module in ("polars", "pandas"):
        library = pytest.importorskip(module)
        assert_reads(open_source(X, library.Series(Y)), X)
        strings = library.Series(["a", "b", "c"] * 8)[:ROWS]
        assert_reads(open_source(X, strings), X)


def test_a_dataset_of_files_is_read_file_by_file(tmp_path):
    X = matrix("float32")
    pq.write_table(table(X), tmp_path / "a.parquet")
    dataset = pyarrow.dataset.dataset(tmp_path)
    source = open_source(dataset, "y")
    assert_reads(source, X)
    assert source.place(0, 3).endswith("a.parquet, row group 0, row 3")


def test_a_filtered_dataset_keeps_its_filter(tmp_path):
    X = matrix("float32")
    pq.write_table(table(X), tmp_path / "a.parquet")
    dataset = pyarrow.dataset.dataset(tmp_path).filter(pc.field("y") < 2)
    assert_reads(open_source(dataset, "y"), X[Y < 2], Y[Y < 2])


def test_a_dataset_in_memory_or_of_folders_with_values_is_a_stream(tmp_path):
    X = matrix("float32")
    assert_reads(open_source(pyarrow.dataset.dataset(table(X)), "y"), X)
    (tmp_path / "z=5").mkdir()
    pq.write_table(table(X), tmp_path / "z=5" / "a.parquet")
    dataset = pyarrow.dataset.dataset(tmp_path, partitioning="hive")
    assert_reads(open_source(dataset, "y"), np.column_stack([X, np.full(ROWS, 5)]))


def test_a_reader_is_read_once():
    X = matrix("float32")
    source = open_source(table(X, "list").to_reader(4), "y")
    assert source.one_pass
    assert source.pieces is None
    got, labels = read(source, THREE)
    assert_array_equal(got, X)
    assert_array_equal(labels, Y)
    with pytest.raises(DataError, match="a RecordBatchReader can be read once"):
        list(source.chunks(THREE))
    with pytest.raises(DataError, match="can be read once, so its classes cannot be looked for"):
        source.scan_labels()


def test_a_model_s_columns_are_matched_by_name_or_by_position():
    X = matrix("float32")
    like = (Column("x2"), Column("x0"))
    got, _ = read(open_source(table(X), like=like, like_width=2))
    assert_array_equal(got, X[:, [2, 0]])
    got, _ = read(open_source(X[:, :2], like=like, like_width=2))
    assert_array_equal(got, X[:, :2])
    named = table(X, s=["a"] * ROWS).drop_columns("y")
    got, _ = read(open_source(named, like_width=3))
    assert_array_equal(got, X)


def with_null(column, row=4):
    values = column.to_pylist()
    values[row] = None
    return pa.array(values, column.type)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.0] * 8), 'row 4: column "a" is null. Use rows without nulls, or fill them'),
        (pa.array([True] * 8), 'row 4: column "a" is null.'),
        (pa.array([[1, 2]] * 8, pa.list_(pa.int8(), 2)), 'row 4: column "a" is null.'),
        (pa.array([[1, 2]] * 8), 'row 4: column "a" is null.'),
        (pa.array([7] * 8).dictionary_encode(), 'row 4: column "a" is null.'),
    ],
    ids=str,
)
def test_a_null_feature_is_named(column, message):
    kind = column.type
    values = with_null(column if not pa.types.is_dictionary(kind) else column.cast(pa.int64()))
    if pa.types.is_dictionary(kind):
        values = values.dictionary_encode()
    given = pa.table({"a": values, "y": [0, 1] * 4})
    assert message in refused(given, "y")
    cut = pa.concat_tables([given.slice(0, 3), given.slice(3)])
    assert message in refused(cut, "y")


def test_a_null_among_many_columns_and_in_a_list_is_named():
    columns = {f"x{j}": pa.array([1.0] * 8) for j in range(12)} | {"y": [0, 1] * 4}
    columns["x7"] = with_null(columns["x7"], 6)
    assert 'row 6: column "x7" is null.' in refused(pa.table(columns), "y")
    lists = pa.array([[1.0, 2.0]] * 7 + [[1.0, None]], pa.list_(pa.float64(), 2))
    got = refused(pa.table({"a": lists, "y": [0, 1] * 4}), "y")
    assert 'row 7: an item of column "a" is null.' in got


def test_lists_of_unequal_lengths_are_named():
    given = pa.table({"a": [[1, 2], [3, 4], [5]], "y": [0, 1, 0]})
    want = 'row 2: column "a" holds a list of 1 numbers, but of 2 in the first list.'
    assert want in refused(given, "y")
    assert want in refused(lambda: given.to_reader(1), "y")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((np.zeros(5), [0] * 5), "must have two dimensions (rows, features), got the shape (5,)"),
        ((np.zeros((0, 3)), []), "the matrix has no rows."),
        ((np.zeros((3, 0)), [0, 1, 0]), "the matrix: there are no features"),
        ((np.zeros((3, 2)), [0, 1]), "the target has 2 values, but the data have 3 rows"),
        ((np.zeros((3, 2)), "y"), 'a matrix has no column "y"'),
        ((np.zeros((3, 2)), [[0, 1]] * 3), "the target is of type list<item: int64>"),
        (
            (np.zeros((3, 2)), np.zeros((3, 2))),
            "the target is neither the name of a column nor an array of one type",
        ),
        ((np.zeros((3, 2), complex), [0, 1, 0]), "the matrix has dtype complex128"),
        ((np.array([["a"], ["b"]]), [0, 1]), "the matrix has dtype <U1; it must hold numbers"),
        ((np.zeros((2, 2), object), [0, 1]), "the matrix has dtype object; it must hold numbers"),
        (([[1, 2], [3]], [0, 1]), "no matrix can be made of the data"),
        ((np.ma.masked_array([[1.0], [2.0]], [[0], [1]]), [0, 1]), "the matrix is masked"),
        ((table(matrix("int8"))[:0], "y"), "the table: there are no rows."),
        ((lambda: table(matrix("int8"))[:0].to_reader(), "y"), "the data: there are no rows."),
        ((lambda: 5, "y"), "the function returned int; it must return a fresh"),
        ((table(matrix("int8")), "yy"), 'the table: there is no column "yy"; did you mean "y"?'),
        ((table(matrix("int8")), [0, 1]), "the target has 2 values, but the data have 23 rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_data_that_will_not_do_are_refused(given, message):
    assert message in refused(*given)


def test_an_array_of_another_length_beside_a_stream_is_refused():
    whole = table(matrix("int8")).drop_columns("y")
    for labels in ([0, 1], [0, 1] * 20):
        assert "there must be one for each row" in refused(lambda: whole.to_reader(4), labels)


def test_a_stream_of_another_length_at_a_later_pass_is_refused():
    whole = table(matrix("int8"))
    asked = []

    def ask():
        asked.append(1)
        return whole.slice(0, ROWS - len(asked) // 3).to_reader()

    want = "there were 23 rows at the first pass and 22 at a later one"
    assert want in refused(ask, "y")


def test_a_function_that_returns_the_same_reader_is_refused():
    reader = table(matrix("int8")).to_reader()
    told = "a function that cannot be called without arguments"
    assert f"{told} (missing a required argument: 'path')" in refused(lambda path: path, "y")
    assert told in refused(len, "y")
    assert "returned the same reader twice" in refused(lambda: reader, "y")


def test_a_stream_with_other_columns_at_a_later_pass_is_refused():
    tables = [table(matrix("int8")), table(matrix("int16"))]
    asked = iter([0, 1])
    got = refused(lambda: tables[next(asked)].to_reader(), "y")
    assert "the columns are others than at the first pass" in got


def test_a_stream_that_fails_says_so():
    def batches():
        yield table(matrix("int8")).to_batches()[0]
        raise OSError("the wire is cut")

    schema = table(matrix("int8")).schema
    got = refused(lambda: pa.RecordBatchReader.from_batches(schema, batches()), "y")
    assert "the stream failed" in got
    assert "the wire is cut" in got


def test_what_exports_one_batch_is_a_table():
    class Exporter:
        def __arrow_c_array__(self, requested_schema=None):
            return table(matrix("int8")).to_batches()[0].__arrow_c_array__(requested_schema)

    assert_reads(open_source(Exporter(), "y"), matrix("int8"))


def test_labels_in_arrow_arrays_and_a_column_of_numpy_are_taken():
    X = matrix("float32")
    chunked = pa.chunked_array([Y[:9], Y[9:]])
    for labels in (pa.array(Y), chunked, Y[:, None]):
        assert_reads(open_source(X, labels), X)


def test_data_without_a_target_have_no_labels_to_scan():
    for given in (matrix("int8"), table(matrix("int8"))):
        assert "no target was given, so there are no labels" in refused(given)


def test_names_are_a_list():
    assert 'features= is a list of columns, as ["x0"]' in refused(
        table(matrix("int8")), "y", features="x0"
    )
