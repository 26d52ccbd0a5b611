"""Numbers of every Arrow type are features and weights, nulls among them or not."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax.cli.main import main
from fastsoftmax.errors import DataError, OptionError

rng = np.random.default_rng(1)
N = 60
X = rng.normal(size=N)
Y = (X + 0.5 * rng.normal(size=N) > 0).astype(int)
VALUES = [1 + i % 3 for i in range(N)]
NULLS = [None if i % 7 == 0 else value for i, value in enumerate(VALUES)]
SIZES = [(1, 0), (3, 1), (9, 2), (18, 9), (20, 0), (38, 10), (38, 37)]
DECIMALS = [pa.decimal128(*size) for size in SIZES] + [pa.decimal256(3, 1), pa.decimal256(76, 40)]
if hasattr(pa, "decimal32"):
    DECIMALS += [pa.decimal32(4, 1), pa.decimal64(10, 3)]
PLAIN = [pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.float16(), pa.float32()]
ENCODED = [pa.dictionary(pa.int8(), pa.float64()), pa.run_end_encoded(pa.int32(), pa.int16())]
KINDS = [*DECIMALS, *PLAIN, *ENCODED]
QUICK = {"l2": 0.1}


def array(values, kind):
    if pa.types.is_decimal(kind):
        return pa.array([None if v is None else decimal.Decimal(v) for v in values], kind)
    if pa.types.is_float16(kind):
        return pa.array([None if v is None else np.float16(v) for v in values], kind)
    if pa.types.is_run_end_encoded(kind):
        ends = pa.array(np.arange(1, N + 1), kind.run_end_type)
        return pa.RunEndEncodedArray.from_arrays(ends, pa.array(values, kind.value_type))
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode()
    return pa.array(values, kind)


def table(kind):
    return pa.table(
        {
            "x": X,
            "p": array(NULLS, kind),
            "v": array(VALUES, kind),
            "w": array(VALUES, kind),
            "y": Y,
        }
    )


@pytest.mark.parametrize("nulls", ["zero", "mean", "drop"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_numbers_with_nulls_are_features_and_weights_as_floats_are(kind, nulls):
    options = {"weight": "w", "nulls": nulls, "null_indicators": nulls != "drop", **QUICK}
    floats = table(pa.float64())
    want = fastsoftmax.train(floats, "y", **options)
    data = table(kind)
    model = fastsoftmax.train(data, "y", **options)
    fastsoftmax.train(data, "y", validation=data, **options)
    assert_allclose(want.predict_proba(data), want.predict_proba(floats), rtol=1e-6)
    report, told = (fastsoftmax.evaluate(want, each, weight="w") for each in (floats, data))
    assert (told.rows, told.treated) == (report.rows, report.treated)
    assert told.log_loss == pytest.approx(report.log_loss, rel=1e-6)
    assert_allclose(model.coef, want.coef, rtol=1e-3, atol=1e-5)
    fastsoftmax.calibrate(model, data, weight="w")


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_weights_of_every_type_may_stand_beside_a_matrix(kind):
    want = fastsoftmax.train(X[:, None], Y, weight=np.array(VALUES), **QUICK)
    got = fastsoftmax.train(X[:, None], Y, weight=array(VALUES, kind), **QUICK)
    assert_array_equal(got.weights, want.weights)
    with pytest.raises(DataError, match="row 0: the weight is null"):
        fastsoftmax.train(X[:, None], Y, weight=array(NULLS, kind))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"a"] * N),
        pa.array([1] * N, pa.date32()),
        pa.array([decimal.Decimal(1)] * N),
        pa.array([{"a": 1}] * N),
        *([pa.array([b"a"] * N, pa.binary_view())] if hasattr(pa, "binary_view") else []),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_that_holds_no_categories_is_refused_before_it_is_read(column):
    with pytest.raises(DataError, match=r'column "c" is of type .* no category'):
        fastsoftmax.train(pa.table({"c": column, "y": Y}), "y", categorical=["c"])


def test_names_that_other_columns_share_do_no_harm(tmp_path, capsys):
    data = pa.Table.from_arrays([pa.array(c) for c in (X, X, X, Y)], ["x", "z", "z", "y"])
    path = str(tmp_path / "d.parquet")
    pq.write_table(data, path)
    for given in (data, path):
        assert fastsoftmax.train(given, "y", features=["x"], **QUICK).feature_names == ("x",)
        with pytest.raises(DataError, match='2 columns are called "z"'):
            fastsoftmax.train(given, "y")
    assert main(["inspect", path, "--target", "y"]) == 0
    assert "range x" in capsys.readouterr().out


def test_what_is_no_model_is_refused():
    model = fastsoftmax.train(X[:, None], Y, **QUICK)
    for call in (
        lambda: fastsoftmax.train(X[:, None], Y, init="m.safetensors"),
        lambda: fastsoftmax.evaluate("m.safetensors", X[:, None], Y),
        lambda: fastsoftmax.calibrate(model.coef, X[:, None], Y),
    ):
        with pytest.raises(OptionError, match="must be a Model, as train returns it"):
            call()
