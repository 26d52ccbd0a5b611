"""Packed data hold the same rows, are read like the rows they were, and say what is lost."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax import DataError, OptionError, pack
from fastsoftmax.cli.main import main
from fastsoftmax.data.open import open_source
from tests.tables import feature_columns, matrix, table

N, D = 500, 12
RNG = np.random.default_rng(1)
TRAIN = {"epochs": 2, "learning_rate": 1e-4, "shuffle": "off"}
pytestmark = pytest.mark.filterwarnings("ignore:after epoch:UserWarning")


def written(path, dtype="uint8", layout="mixed", **more):
    X = matrix(dtype, N, D)
    pq.write_table(table(X, layout, **more), path, row_group_size=70)
    return X


def features(path):
    chunks = open_source(path, "y").chunks(None)
    return np.concatenate(
        [np.concatenate([part.matrix() for part in chunk.parts], axis=1) for chunk in chunks]
    )


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("layout", ["scalars", "list", "mixed"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "float32", "float64", "bool"])
def test_packed_rows_train_to_the_same_bits(tmp_path, dtype, layout, suffix):
    source, out = tmp_path / "x.parquet", tmp_path / f"packed{suffix}"
    written(source, dtype, layout, name=[f"n{i}" for i in range(N)])
    wanted = [name for name in pq.read_schema(source).names if name not in ("y", "name")]
    done = pack(source, out, "y", features=wanted, keep=["name"])
    stored = "uint8" if dtype == "bool" else dtype
    assert (done.rows, done.features, done.dtype, done.lost) == (N, D, stored, 0)
    first = fastsoftmax.train(source, "y", features=wanted, **TRAIN)
    second = fastsoftmax.train(out, "y", features=wanted, **TRAIN)
    assert second.feature_names == first.feature_names
    assert_array_equal(second.coef, first.coef)
    # Each reads what the other was trained on.
    assert_array_equal(first.predict_proba(out), second.predict_proba(source))
    assert fastsoftmax.evaluate(first, out).rows == N


def test_features_that_are_not_copied_lie_in_the_file_as_they_are_used(tmp_path):
    X = written(tmp_path / "x", layout="list")
    pack(tmp_path / "x", tmp_path / "p.parquet", "y")
    source = open_source(tmp_path / "p.parquet", "y")
    for chunk in source.chunks(None):
        assert not chunk.parts[0].values.flags.owndata
    assert_array_equal(features(tmp_path / "p.parquet"), X)


def test_some_of_the_features_can_be_chosen_in_any_order(tmp_path):
    X = written(tmp_path / "x", layout="scalars")
    pack(tmp_path / "x", tmp_path / "p.parquet", "y")
    model = fastsoftmax.train(tmp_path / "p.parquet", "y", features=["x7", "x2"], **TRAIN)
    assert model.feature_names == ("x7", "x2")
    want = fastsoftmax.train(X[:, [7, 2]].copy(), np.arange(N) % 3, **TRAIN)
    assert_array_equal(model.coef, want.coef)
    assert_array_equal(model.predict(tmp_path / "x"), model.predict(tmp_path / "p.parquet"))


def test_other_tools_read_what_is_packed(tmp_path):
    X = written(tmp_path / "x", "float32", "list", name=["é"] * N)
    wanted = {"features": ["v"], "keep": ["name"]}
    pack(tmp_path / "x", tmp_path / "p.parquet", "y", **wanted)
    path = tmp_path / "p.parquet"
    by_polars = pl.read_parquet(path)
    got = np.frombuffer(b"".join(by_polars["features"].to_list()), np.float32).reshape(N, D)
    assert_array_equal(got, X)
    rows = duckdb.sql(f"select features, y, name from '{path}'").fetchall()
    assert_array_equal(np.frombuffer(rows[3][0], np.float32), X[3])
    assert rows[3][1:] == (0, "é")
    footer = pq.read_metadata(path)
    assert footer.row_group(0).column(0).compression == "UNCOMPRESSED"
    told = json.loads(pq.read_schema(path).metadata[b"fastsoftmax"])
    assert told["columns"] == [["v", D]]


def test_what_narrower_numbers_lose_is_told(tmp_path, capsys):
    X = RNG.normal(size=(N, 3)) * [1, 100, 0]
    source = tmp_path / "x.parquet"
    pq.write_table(pa.table({**feature_columns(X, "scalars"), "y": np.arange(N) % 2}), source)
    halves = pack(source, tmp_path / "half.parquet", "y", dtype="float16")
    back = features(tmp_path / "half.parquet").astype(float)
    assert_allclose(halves.lost, np.abs(back - X).max())
    assert halves.worst == "x1"
    assert 2**-12 < halves.lost_relative <= 2**-11
    steps = pack(source, tmp_path / "steps.parquet", "y", dtype="uint8")
    assert steps.scaled
    back = features(tmp_path / "steps.parquet")
    assert back.dtype == np.float32
    assert_allclose(steps.lost, np.abs(back - X).max(), rtol=1e-6)
    span = np.ptp(X, axis=0)
    assert (np.abs(back - X).max(axis=0) <= span / 510 * 1.01 + 1e-12).all()
    assert_array_equal(back[:, 2], 0)
    command = ["pack", str(source), "--target", "y", "-o", str(tmp_path / "c.parquet")]
    assert main([*command, "--dtype", "float16"]) == 0
    assert "up to" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lost"] == 0
    for path in ("half", "steps"):
        model = fastsoftmax.train(tmp_path / f"{path}.parquet", "y", epochs=1)
        assert model.predict(source).shape == (N,)


def test_whole_numbers_fit_bytes_exactly(tmp_path):
    X = RNG.integers(0, 256, (N, 4)).astype(np.float64)
    pq.write_table(
        pa.table({**feature_columns(X, "scalars"), "y": np.arange(N) % 2}), tmp_path / "x"
    )
    done = pack(tmp_path / "x", tmp_path / "p.parquet", "y", dtype="uint8")
    assert (done.scaled, done.lost) == (False, 0)
    assert features(tmp_path / "p.parquet").dtype == np.uint8
    assert_array_equal(features(tmp_path / "p.parquet"), X)


def test_a_matrix_is_packed_with_its_classes(tmp_path):
    X, y = matrix("float32", N, D), np.array(["a", "b"])[np.arange(N) % 2]
    done = pack(X, tmp_path / "p.parquet", y)
    assert done.rows == N
    model = fastsoftmax.train(tmp_path / "p.parquet", "label", **TRAIN)
    want = fastsoftmax.train(X, y, **TRAIN)
    assert_array_equal(model.coef, want.coef)
    assert_array_equal(want.predict(tmp_path / "p.parquet"), want.predict(X))


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([1.0, 70_000.0], "float16", "row 1: x0 is 70000.0, which float16 cannot hold"),
        ([1.0, np.nan], "uint8", "row 1: x0 is nan, which uint8 cannot hold"),
        ([1.0, 300.0], "int8", "row 1: x0 is 300.0, which int8 cannot hold"),
        ([1.0, None], None, 'row 1: column "x0" is null'),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, values, dtype, message):
    pq.write_table(pa.table({"x0": values, "y": [0, 1]}), tmp_path / "x")
    with pytest.raises(DataError, match=message):
        pack(tmp_path / "x", tmp_path / "p.parquet", "y", dtype=dtype)
    assert not (tmp_path / "p.parquet").exists()


def test_bad_requests_are_refused(tmp_path):
    written(tmp_path / "x.parquet")
    with pytest.raises(OptionError, match="must end in"):
        pack(tmp_path / "x.parquet", tmp_path / "p.csv", "y")
    with pytest.raises(OptionError, match="dtype must be one of"):
        pack(tmp_path / "x.parquet", tmp_path / "p.parquet", "y", dtype="int4")
    path = str(tmp_path / "x.parquet")
    assert main(["pack", path, "--target", "y", "-o", path]) == 2
    assert "p.parquet" not in [p.name for p in tmp_path.iterdir()]
    pack(path, tmp_path / "p.parquet", "y")
    packed = str(tmp_path / "p.parquet")
    assert main(["train", packed, "--target", "y", "-o", "m", "--categorical", "x1"]) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float64"}, "its metadata tell of 12 numbers of float64"),
        ({"dtype": "object"}, "dtype 'object' is none of"),
        ({"columns": [["v", 3]]}, "its metadata tell of 3 numbers"),
        ({"version": 9}, "version 9 is not 1"),
        ({"scale": [1.0]}, "there must be 12 finite numbers"),
    ],
)
def test_metadata_that_contradict_the_column_are_refused(tmp_path, change, message):
    written(tmp_path / "x", layout="list")
    pack(tmp_path / "x", tmp_path / "p.parquet", "y")
    rows = pq.read_table(tmp_path / "p.parquet")
    told = json.loads(rows.schema.metadata[b"fastsoftmax"]) | change
    pq.write_table(rows.replace_schema_metadata({"fastsoftmax": json.dumps(told)}), tmp_path / "q")
    with pytest.raises(DataError, match=message):
        fastsoftmax.train(tmp_path / "q", "y")


def test_files_packed_otherwise_do_not_go_together(tmp_path):
    X = written(tmp_path / "x", "float32", "list")
    pack(tmp_path / "x", tmp_path / "a.parquet", "y")
    pack(tmp_path / "x", tmp_path / "b.parquet", "y", dtype="float16")
    with pytest.raises(DataError, match="packed otherwise than the first file"):
        fastsoftmax.train([tmp_path / "a.parquet", tmp_path / "b.parquet"], "y")
    pack(tmp_path / "x", tmp_path / "c.parquet", "y")
    model = fastsoftmax.train([tmp_path / "a.parquet", tmp_path / "c.parquet"], "y", **TRAIN)
    want = fastsoftmax.train(np.vstack([X, X]), np.tile(np.arange(N) % 3, 2), **TRAIN)
    assert_array_equal(model.coef, want.coef)


def wide(name, tmp_path, **columns):
    path = tmp_path / f"{name}.parquet"
    pq.write_table(pa.table({**columns, "y": ["a", "b"] * 25}), path)
    return str(path)


@pytest.mark.parametrize("kind", ["int64", "uint64"])
def test_integers_of_64_bits_are_packed_to_the_last_digit(kind, tmp_path):
    first = {"int64": 2**53 + 1, "uint64": 2**63 + 1}[kind]
    values = pa.array([first + 2 * i for i in range(50)], kind)
    data = wide("ids", tmp_path, id=values)
    done = fastsoftmax.pack(data, tmp_path / "p.parquet", "y")
    assert (done.dtype, done.lost) == (kind, 0.0)
    stored = b"".join(pq.read_table(tmp_path / "p.parquet")["features"].to_pylist())
    assert np.frombuffer(stored, kind).tolist() == values.to_pylist()
    packed = fastsoftmax.train(str(tmp_path / "p.parquet"), "y", l2=0.1)
    assert_array_equal(packed.weights, fastsoftmax.train(data, "y", l2=0.1).weights)


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_what_floats_lose_of_long_integers_is_told_exactly(dtype, tmp_path):
    ids = pa.array([2**53 + 1 + 2 * i for i in range(50)])
    data = wide("ids", tmp_path, x=np.linspace(0, 1, 50), id=ids)
    done = fastsoftmax.pack(data, tmp_path / "p.parquet", "y", dtype=dtype)
    assert (done.dtype, done.lost, done.worst) == ("float64", 1.0, "id")
    assert 0 < done.lost_relative < 2.0**-52


def test_columns_beside_packed_features_are_none_of_them(tmp_path):
    x, w = np.linspace(-1, 1, 50), np.ones(50)
    data, packed = wide("d", tmp_path, x=x, w=w, id=np.arange(50)), str(tmp_path / "p.parquet")
    fastsoftmax.pack(data, packed, "y", weight="w", keep=["id"])
    model = fastsoftmax.train(packed, "y", l2=0.1)
    assert model.feature_names == ("x",)
    weighted = fastsoftmax.train(packed, "y", weight="w", l2=0.1)
    assert_array_equal(weighted.weights, model.weights)
    for call in (
        lambda: fastsoftmax.train(packed, "y", features=["x", "w"]),
        lambda: fastsoftmax.train(data, "y", l2=0.1).predict(packed),
        lambda: fastsoftmax.evaluate(fastsoftmax.train(data, "y", l2=0.1), packed),
    ):
        with pytest.raises(DataError, match="which stands beside them, is none"):
            call()
    for names in ({"target": "x"}, {"target": "y", "weight": "x"}):
        with pytest.raises(DataError, match='column "x" is packed among the features'):
            fastsoftmax.train(packed, **names)
