"""Plain values in and out of Arrow, by their bytes: what pyarrow does, without importing pandas."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from fastsoftmax.data.values import as_arrow, as_numpy, words_as_arrow
from tests.floors import ROOT

DTYPES = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "?"]
pytest.importorskip("pandas")


def some(dtype, n=37):
    return np.random.default_rng(0).integers(0, 2 if dtype == "?" else 100, n).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [slice(None), slice(3, 30), slice(8, 17), slice(5, 5)])
def test_numbers_come_out_as_pyarrow_has_them(dtype, rows):
    array = pa.array(some(dtype))[rows]
    got = as_numpy(array)
    assert_array_equal(got, some(dtype)[rows])
    assert got.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", [1, 3, -1])
def test_numbers_go_in_as_pyarrow_takes_them(dtype, step):
    values = some(dtype)[::step]
    assert as_arrow(values).equals(pa.array(np.ascontiguousarray(values)))
    as_arrow(values).validate(full=True)
    assert as_arrow(values[:0]).equals(pa.array(np.ascontiguousarray(values[:0])))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
@pytest.mark.parametrize("words", [[], [""], ["a", "", "größe", "日本"], ["x" * 70_000, "y"]])
def test_words_go_in_as_pyarrow_takes_them(kind, words):
    array = words_as_arrow(words, kind)
    array.validate(full=True)
    assert array.equals(pa.array(words, kind))


@pytest.mark.parametrize("labels", ["numbers", "words"])
def test_no_run_imports_pandas_unasked(tmp_path, labels):
    X, y = np.random.default_rng(0).normal(size=(400, 3)), np.arange(400) % 3
    y = y if labels == "numbers" else np.array(["a", "b", "c"])[y]
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": y, "w": np.ones(400)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=100)
    code = (
        "import sys, fastsoftmax\n"
        "rows = sys.argv[1]\n"
        "told = {'weight': 'w', 'holdout': 0.1, 'epochs': 2, 'l2': 1e-3}\n"
        "fastsoftmax.train(rows, 'y', **told)\n"
        "model = fastsoftmax.train(rows, 'y', **told, shuffle_window=64, cache='disk')\n"
        "fastsoftmax.evaluate(model, rows)\n"
        "model.predict(rows)\n"
        "assert 'pandas' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "rows.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
