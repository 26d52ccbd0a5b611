"""What will go wrong with data is said before they are trained on, and nothing else is."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.cli.main import main
from fastsoftmax.data.suspects import suspects


@pytest.fixture(scope="module")
def honest():
    """Columns with which nothing is wrong."""
    rng = np.random.default_rng(11)
    X = rng.normal(size=(3000, 3))
    y = (X[:, 0] + rng.normal(size=3000) > 0).astype(int)
    return {
        "a": X[:, 0],
        "b": X[:, 1].astype(np.float32),
        "count": rng.poisson(3, 3000),
        "town": np.array(["Rome", "Oslo", "Bern"])[rng.integers(0, 3, 3000)],
        "v": list(X),
        "y": np.array(["no", "yes"])[y],
    }


def found(tmp_path, columns, target="y", validation=None):
    """Return the kinds and columns that are suspected in a table of these columns."""
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=500)
    if validation is not None:
        pq.write_table(pa.table(validation), tmp_path / "more.parquet")
        validation = str(tmp_path / "more.parquet")
    listed = suspects(str(tmp_path / "rows.parquet"), target, validation)
    return {(each.kind, each.column): each.detail for each in listed}


def test_nothing_is_wrong_with_honest_data(tmp_path, honest):
    halves = [{name: values[part] for name, values in honest.items()}
              for part in (slice(2000), slice(2000, None))]  # fmt: skip
    assert found(tmp_path, halves[0], validation=halves[1]) == {}


def test_columns_that_give_the_target_away_are_leaks(tmp_path, honest):
    sure = (honest["y"] == "yes").astype(float)
    noisy = np.where(np.random.default_rng(0).random(3000) < 0.005, 1 - sure, sure)
    more = {
        "copy": honest["y"],
        "shifted": sure * 3 + 0.1 * np.random.default_rng(1).random(3000),
        "noisy": noisy,
        "missing": [None if s else 1.0 for s in sure],
    }
    got = found(tmp_path, {**honest, **more})
    assert {key for key in got if key[0] == "leak"} == {("leak", name) for name in more}
    assert "alone it predicts the target with a log-loss of" in got["leak", "copy"]


def test_columns_that_hold_nothing_or_one_value_or_anothers_are_named(tmp_path, honest):
    more = {
        "empty": [None] * 2900 + [1.0] * 100,
        "nan": np.full(3000, np.nan),
        "one": np.full(3000, 7),
        "word": ["x"] * 3000,
        "same": honest["a"].astype(np.float64),
        "twin": honest["town"],
        "zeros": [[0.0, 0.0]] * 3000,
    }
    got = found(tmp_path, {**honest, **more})
    assert set(got) == {
        ("empty", "empty"), ("empty", "nan"), ("constant", "one"), ("constant", "word"),
        ("duplicate", "same"), ("duplicate", "twin"), ("constant", "zeros"),
    }  # fmt: skip
    assert got["duplicate", "same"] == 'it holds what "a" holds'
    assert got["constant", "one"] == "all rows hold 7"
    assert got["empty", "empty"] == "2,900 of 3,000 rows are null"


def test_columns_that_name_rows_are_ids(tmp_path, honest):
    rng = np.random.default_rng(2)
    more = {
        "row": np.arange(3000),
        "shuffled": rng.permutation(3000),
        "hashed": rng.integers(0, 2**62, 3000),
        "customer_id": rng.choice(10**6, 3000, replace=False),
        "uuid": [f"{value:x}" for value in rng.integers(0, 2**62, 3000)],
    }
    got = found(tmp_path, {**honest, **more})
    assert set(got) == {("id", name) for name in more}


def test_whole_numbers_that_only_happen_to_differ_are_no_ids(tmp_path, honest):
    cents = np.random.default_rng(2).choice(10**6, 3000, replace=False)
    assert found(tmp_path, {**honest, "price": cents}) == {}


def test_classes_too_rare_to_learn_are_named(tmp_path, honest):
    y = honest["y"].astype(object)
    y[:1] = "once"
    y[1:10] = "nine times"
    got = found(tmp_path, {**honest, "y": y.astype(str)})
    assert set(got) == {("rare_class", "y")}
    data = str(tmp_path / "rows.parquet")
    assert {each.detail for each in suspects(data, "y")} == {
        "class 'once' has 1 row", "class 'nine times' has 9 rows",
    }  # fmt: skip


def test_rows_in_both_data_sets_are_counted(tmp_path, honest):
    train = {name: values[:2000] for name, values in honest.items()}
    more = {name: values[1990:] for name, values in honest.items()}
    got = found(tmp_path, train, validation=more)
    assert set(got) == {("overlap", None)}
    assert got["overlap", None].startswith("10 of 1,010 rows of the validation data")


def test_columns_that_drift_are_named(tmp_path, honest):
    train = {name: values[:2000] for name, values in honest.items()}
    more = {name: values[2000:] for name, values in honest.items()}
    more["a"] = more["a"] + 1
    more["town"] = np.where(np.arange(1000) % 2, "Rome", "Oslo")
    got = found(tmp_path, train, validation=more)
    assert set(got) == {("drift", "a"), ("drift", "town")}
    assert "medians" in got["drift", "a"]
    del more["a"], more["town"]
    got = found(tmp_path, train, validation=more)
    assert got["drift", "a"] == "the validation data have no column of this name"


def test_packed_data_are_looked_at_column_by_column(tmp_path, honest):
    numbers = {name: honest[name] for name in ("a", "b", "y")}
    table = pa.table({**numbers, "same": honest["a"]})
    fastsoftmax.pack(table, tmp_path / "packed.parquet", "y", dtype="float32")
    listed = suspects(str(tmp_path / "packed.parquet"), "y")
    assert [(each.kind, each.column) for each in listed] == [("duplicate", "same")]


def test_inspect_lists_them(tmp_path, honest, capsys):
    path = tmp_path / "rows.csv"
    rows = zip(honest["a"], np.arange(3000), honest["y"], strict=True)
    path.write_text("a,row,y\n" + "".join(f"{a},{i},{y}\n" for a, i, y in rows))
    given = ["inspect", str(path), "--target", "y", "--validation", str(path)]
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert any(line.startswith("warning: id") and '"row"' in line for line in shown.splitlines())
    assert main([*given, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["warnings"]
    assert {(each["kind"], each["column"]) for each in listed} == {("id", "row"), ("overlap", None)}
    assert all(set(each) == {"kind", "column", "detail"} for each in listed)
