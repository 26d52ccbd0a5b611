"""NumPy's files are read in slices, as the arrays in them are trained on."""

from __future__ import annotations

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import DataError
from fastsoftmax.data.formats import arrays

GIVEN = {"shuffle": "off", "learning_rate": 0.01, "epochs": 2}
DTYPES = ["float16", "float32", "float64", ">f4", "uint8", "int64", "bool"]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(arrays, "PIECE_BYTES", 2**11)


def made(dtype="float32"):
    rng = np.random.default_rng(3)
    X = rng.integers(0, 2 if dtype == "bool" else 9, size=(500, 4)).astype(dtype)
    return X, np.array(["no", "yes"])[(X[:, 0] > X[:, 1]).astype(int)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_in_a_file_is_trained_on_as_the_matrix_is(tmp_path, dtype, order):
    X, y = made(dtype)
    np.save(tmp_path / "X.npy", np.asarray(X, order=order))
    want = fastsoftmax.train(X, y, **GIVEN)
    model = fastsoftmax.train(tmp_path / "X.npy", y, **GIVEN)
    np.testing.assert_array_equal(model.coef, want.coef)
    assert list(model.predict(tmp_path / "X.npy")) == list(want.predict(X))
    assert fastsoftmax.evaluate(model, tmp_path / "X.npy", y).rows == 500


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_arrays_of_an_archive_are_columns(tmp_path, save):
    X, y = made()
    w = np.arange(500.0)
    save(tmp_path / "rows.npz", pixels=X.reshape(500, 2, 2), y=y, w=w)
    want = fastsoftmax.train(X, y, weight=w, **GIVEN)
    model = fastsoftmax.train(tmp_path / "rows.npz", "y", weight="w", **GIVEN)
    np.testing.assert_array_equal(model.coef, want.coef)
    assert model.feature_names[0] == "pixels[0]"
    assert model.record["data"][0]["rows"] == 500


def test_a_value_that_is_no_number_is_named_by_its_row(tmp_path):
    X, y = made()
    X[321, 2] = np.nan
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(DataError, match=r"X.npy, row 321: .*X\[2\]"):
        fastsoftmax.train(tmp_path / "X.npy", y, **GIVEN)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.array([[1, "a"], [2, None]], dtype=object), "holds Python objects, which are not read"),
        (np.zeros((3, 2), complex), "holds values of type complex128"),
        (np.zeros((3, 0)), "has rows of no numbers"),
        (np.array(3.0), r"of shape \(\) holds"),
    ],
)
def test_arrays_that_hold_no_rows_of_numbers_are_refused(tmp_path, values, sentence):
    np.save(tmp_path / "X.npy", values, allow_pickle=True)
    with pytest.raises(DataError, match=sentence):
        fastsoftmax.train(tmp_path / "X.npy", [0, 1, 0])


def test_arrays_of_different_lengths_are_refused(tmp_path):
    np.savez(tmp_path / "rows.npz", X=np.zeros((4, 2)), y=np.zeros(3, int))
    with pytest.raises(DataError, match=r"not as many rows each: {'X': 4, 'y': 3}"):
        fastsoftmax.train(tmp_path / "rows.npz", "y")


@pytest.mark.parametrize("kept", [5, 60, 300])
def test_a_file_that_was_cut_off_is_refused(tmp_path, kept):
    X, y = made()
    for name, save in (("X.npy", np.save), ("rows.npz", lambda path, X: np.savez(path, X=X, y=y))):
        save(tmp_path / name, X)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:kept])
        with pytest.raises(DataError, match=name):
            fastsoftmax.train(tmp_path / name, y if name == "X.npy" else "y", learning_rate=0.1)


def test_labels_beside_files_of_named_columns_are_refused_as_before(tmp_path):
    X, y = made()
    np.savez(tmp_path / "rows.npz", X=X)
    with pytest.raises(DataError, match="the target of files is the name of a column"):
        fastsoftmax.train(tmp_path / "rows.npz", y)
