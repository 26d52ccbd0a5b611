"""Predictions, evaluations and temperatures in shards are those without, whoever does the work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.cli.main import main
from fastsoftmax.errors import DataError, OptionError
from tests.engines.executors import Chaos


def table(n=3000, d=6, K=3, seed=2):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, d)).astype(np.float32)
    y = (X[:, :K] + random.gumbel(size=(n, K))).argmax(axis=1)
    columns = {f"x{j}": column for j, column in enumerate(X.T)}
    return pa.table({**columns, "y": np.array(["a", "b", "c"])[y], "w": random.uniform(0, 2, n)})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    where = tmp_path_factory.mktemp("rows") / "rows.parquet"
    pq.write_table(table(), where, row_group_size=400)
    return where


@pytest.fixture(scope="module")
def model(path):
    return fastsoftmax.train(path, "y", weight="w", l2=1e-3)


@pytest.fixture(params=["threads", "processes", "chaos"])
def workers(request):
    if request.param == "chaos":
        with Chaos(3) as chaos:
            yield chaos
    else:
        yield {"threads": None, "processes": 2}[request.param]


def without(rows, *names):
    return pq.read_table(rows).drop_columns(list(names))


@pytest.mark.parametrize("large", [False, True])
def test_predictions_are_those_without_shards(model, path, workers, large, monkeypatch):
    rows = without(path, "y", "w")
    if large and workers != 2:  # the constant is that of this process
        monkeypatch.setattr("fastsoftmax.inference.answers.LOADING_SECONDS", 1e-9)
    for data in (rows, np.stack([column.to_numpy() for column in rows.columns], axis=1)):
        if not isinstance(data, pa.Table):
            told = {"l2": 1e-3}
            other = fastsoftmax.train(data, pq.read_table(path)["y"].to_pylist(), **told)
        else:
            other = model
        names = ("predict", "predict_proba", "predict_log_proba", "decision_function")
        for name in names[1:2] if workers == 2 else names:  # processes take a while to begin
            ask = getattr(other, name)
            np.testing.assert_array_equal(ask(data, shards=4, workers=workers), ask(data))


def test_an_evaluation_is_that_without_shards(model, path, workers):
    want = fastsoftmax.evaluate(model, path, "y", "w").as_dict()
    found = fastsoftmax.evaluate(model, path, "y", "w", shards=3, workers=workers).as_dict()
    assert found["rows"] == want["rows"]
    for name in ("log_loss", "accuracy", "macro_f1", "calibration_error"):
        assert found[name] == pytest.approx(want[name], rel=1e-12)
    again = fastsoftmax.evaluate(model, path, "y", "w", shards=3).as_dict()
    assert again == found


def test_a_temperature_is_that_without_shards(model, path, workers):
    want = fastsoftmax.calibrate(model, path, "y").record["temperature"]
    found = [
        fastsoftmax.calibrate(model, path, "y", shards=3, workers=w).record["temperature"]
        for w in (workers, None)
    ]
    assert found[0] == found[1] == pytest.approx(want, rel=1e-9)


def test_a_file_of_each_shard_holds_the_rows_in_their_order(model, path, tmp_path, capsys):
    model.save(tmp_path / "m")
    command = ["predict", str(tmp_path / "m"), str(path), "--proba", "--keep", "w"]
    assert main([*command, "-o", str(tmp_path / "one.parquet")]) == 0
    told = ["--shards", "4", "--workers", "2"]
    assert main([*command, "-o", f"{tmp_path}/many/", *told]) == 0
    assert main([*command, "-o", str(tmp_path / "in_order.parquet"), *told]) == 0
    names = sorted(file.name for file in (tmp_path / "many").iterdir())
    assert names == [f"part-{i:05d}.parquet" for i in range(4)]
    parts = [pq.read_table(tmp_path / "many" / name) for name in names]
    want = pq.read_table(tmp_path / "one.parquet")
    assert pa.concat_tables(parts).equals(want)
    assert pq.read_table(tmp_path / "in_order.parquet").equals(want)
    assert "3,000 rows written" in capsys.readouterr().err


def test_the_commands_take_shards_and_workers(path, tmp_path, capsys):
    model = str(tmp_path / "m")
    told = ["--shards", "3", "--workers", "2"]
    assert main(["train", str(path), "--target", "y", "-o", model, "--l2", "1e-3", *told]) == 0
    assert "--shards 3 --workers 2" in capsys.readouterr().out
    assert main(["evaluate", model, str(path), *told]) == 0
    assert main(["calibrate", model, str(path), "-o", f"{model}2", *told]) == 0
    assert main(["sweep", str(path), "--target", "y", "-o", f"{model}3", "--solver", "lbfgs",
                 "--l2", "1e-3,1e-1", *told]) == 0  # fmt: skip


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (["-o", "folder/"], "say how many by --shards"),
        (["-o", "x.parquet", "--workers", "2"], "say into how many parts"),
        (["-o", "x.parquet", "--shards", "0"], "shards must be a whole number >= 1"),
        (["-o", "x.parquet", "--shards", "2", "--workers", "host"], "not a whole number"),
        (["-o", "x.parquet", "--shards", "2", "--workers", "tcp://127.0.0.1:1"], "no scheduler"),
    ],
)
def test_wrong_shards_and_workers_are_one_sentence(model, path, tmp_path, told, sentence, capsys,
                                                   monkeypatch):  # fmt: skip
    if "tcp://127.0.0.1:1" in told:
        pytest.importorskip("distributed", reason="distributed is not installed")
        monkeypatch.setattr("fastsoftmax.engines.dask.CONNECTING_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    model.save("m")
    assert main(["predict", "m", str(path), *told]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert sentence in lines[-1]


def test_bad_rows_are_named_as_without_shards(model, path, tmp_path):
    rows = pq.read_table(path).to_pydict()
    rows["x2"][1234] = float("nan")
    pq.write_table(pa.table(rows), tmp_path / "bad.parquet", row_group_size=400)
    for workers in (None, 2):
        with pytest.raises(DataError, match=r"bad\.parquet, row group 3, row 34"):
            fastsoftmax.evaluate(model, tmp_path / "bad.parquet", shards=4, workers=workers)


def test_a_pool_of_the_callers_stays_open(model, path):
    rows = without(path, "y", "w")
    with ThreadPoolExecutor(2) as pool:
        model.predict(rows, shards=2, workers=pool)
        assert pool.submit(int, "3").result() == 3
    with pytest.raises(OptionError, match="say into how many parts"):
        model.predict(rows, workers=2)
