"""Keys in folders' names have the type that they had in training, however few folders there are."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.data.formats.partitions import NULL
from fastsoftmax.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore::fastsoftmax.errors.NotConverged")
rng = np.random.default_rng(8)
KEYS = {
    "numbers": ["1", "2", "30"],
    "leading zeros": ["01", "02", "10"],
    "one number twice": ["1", "01", "2"],
    "mixed": ["1", "2", "x"],
    "long": ["1", "2", "9" * 30],
    "escaped": ["a%20b", "c%2Fd", "100%25"],
    "signed": ["-1", "0", "7"],
    "empty": ["", "a", "b"],
}


def folders(root, keys, name="k"):
    for key in keys:
        (root / f"{name}={key}").mkdir(parents=True)
        rows = pa.table({"x": rng.normal(size=30), "y": rng.integers(2, size=30)})
        pq.write_table(rows, root / f"{name}={key}" / "p.parquet")
    return str(root)


@pytest.mark.parametrize("keys", KEYS)
def test_each_folder_alone_predicts_as_all_do(keys, tmp_path):
    data = folders(tmp_path, KEYS[keys])
    as_category = {"features": ["x", "k"], "categorical": ["k"], "l2": 0.1}
    by_key = fastsoftmax.train(data, "y", validation=data, **as_category)
    assert by_key.n_features == 4
    of_key = fastsoftmax.train(data, "k", features=["x"], l2=0.1, validation=data)
    of_key.save(tmp_path / "m.safetensors")
    of_key = fastsoftmax.load(tmp_path / "m.safetensors")
    rows = 0
    for key in KEYS[keys]:
        alone = str(tmp_path / f"k={key}" / "p.parquet")
        by_key.predict(alone)
        assert fastsoftmax.evaluate(by_key, alone).treated == {}
        rows += fastsoftmax.evaluate(of_key, alone).rows
        fastsoftmax.train(alone, "y", init=by_key, seen="again", **as_category)
    assert rows == 90


def test_keys_that_training_did_not_have_are_unknown_categories(tmp_path):
    data = folders(tmp_path / "a", ["1", "2"])
    model = fastsoftmax.train(
        data, "y", features=["x", "k"], categorical=["k"], nulls="zero", l2=0.1
    )
    strange = folders(tmp_path / "b", ["x", "3", NULL])
    treated = fastsoftmax.evaluate(model, strange).treated
    assert treated == {'nulls in "k"': 30, 'unknown in "k"': 60}


def test_a_key_that_was_a_number_must_be_one(tmp_path):
    data = folders(tmp_path / "a", ["1", "2"])
    model = fastsoftmax.train(data, "y", features=["x", "k"], nulls="zero", l2=0.1)
    model.predict(folders(tmp_path / "b", [NULL]))
    with pytest.raises(DataError, match="the folder says k=x, which is no whole number"):
        model.predict(folders(tmp_path / "c", ["x"]))
    of_key = fastsoftmax.train(data, "k", features=["x"], l2=0.1)
    with pytest.raises(DataError, match="convert one to the other"):
        fastsoftmax.evaluate(of_key, folders(tmp_path / "d", ["y"]))


def test_classes_given_as_text_make_keys_text(tmp_path):
    data = folders(tmp_path, ["1", "2"])
    model = fastsoftmax.train(data, "k", features=["x"], classes=["1", "2"], l2=0.1)
    assert model.classes_.values == ("1", "2")
    assert fastsoftmax.evaluate(model, data).rows == 60
