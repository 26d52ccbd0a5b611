"""Values that are hashed to features: whatever they are kept in, with signs, and counted."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax import DataError, OptionError
from fastsoftmax.data import hashed
from fastsoftmax.data.hashed import Collisions, hashes_of, indices_and_signs
from fastsoftmax.kernels import hashing
from fastsoftmax.kernels.compile import in_python

pytestmark = pytest.mark.filterwarnings("ignore:after epoch")  # labels mean little here

N = 300
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, 100, N)
Y = (IDS + RNG.integers(0, 2, N)) % 3
BY_HAND = {"learning_rate": 0.1, "epochs": 4, "dtype": "float64"}
BITS = 8


def hash_of(value: bytes) -> int:
    """Hash a value by the numbers of the kernels."""
    words = (int.from_bytes(value[at : at + 8], "little") for at in range(0, len(value), 8))
    h = hashed.OF_VALUE
    for word in (len(value), *words):
        h = (h ^ word) * hashing.MULTIPLIER % 2**64
    return hashing._finish_twin(h) % 2**64


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_hashes_are_those_of_the_kernels(kind):
    words = ["", "a", "12345678", "123456789", "ä" * 9, "\0", "\0\0", "x" * 100]
    found = hashes_of(pa.array(["before", *words, "after"], kind).slice(1, len(words)))
    assert found.tolist() == [hash_of(word.encode()) for word in words]
    assert len(set(found.tolist())) == len(words)
    index, sign = indices_and_signs(found, BITS)
    for h, i, s in zip(found.astype(np.int64).tolist(), index, sign, strict=True):
        assert (i, s) == (in_python(hashing.index_of)(h, BITS), in_python(hashing.sign_of)(h, BITS))


def test_numbers_are_their_digits():
    numbers = pa.array([-3, 0, 2**40])
    assert_array_equal(hashes_of(numbers), hashes_of(pa.array(["-3", "0", str(2**40)])))
    assert hashes_of(pa.array([], pa.int8())).size == 0


def columns():
    words = [f"user {i}" for i in IDS]
    return {
        "strings": pa.array(words),
        "dictionary": pa.array(words).dictionary_encode(),
        "lists": pa.array([[word] for word in words]),
        "maps": pa.array([[(word, 1.0)] for word in words], pa.map_(pa.string(), pa.float32())),
    }


def by_hand():
    """Return the matrix that the column stands for."""
    index, sign = indices_and_signs(hashes_of(columns()["strings"]), BITS)
    X = np.zeros((N, 2**BITS))
    X[np.arange(N), index] = sign
    return X


@pytest.mark.parametrize("kind", columns())
def test_a_column_is_the_matrix_of_its_signed_hashes(kind, tmp_path):
    rows = pa.table({"u": columns()[kind], "y": Y})
    model = fastsoftmax.train(rows, "y", hashed=["u"], bits=BITS, scaling="off", **BY_HAND)
    X = by_hand()
    want = fastsoftmax.train(X, Y, scaling="off", **BY_HAND)
    assert_allclose(model.coef, want.coef[:, model.feature_index], atol=1e-10)
    assert model.feature_names == tuple(f"u=#{j}" for j in model.feature_index)
    assert 0 < model.record["collisions"] < 0.6
    model.save(tmp_path / "m")
    again = fastsoftmax.load(tmp_path / "m")
    assert_allclose(again.predict_proba(rows), want.predict_proba(X), atol=1e-10)
    assert again.record["options"]["hashed"] == ["u"]


def test_rows_of_several_values_are_the_sums_of_them_and_nulls_have_none():
    rows = pa.table({"u": [["a", "b", "a"], [], None, ["c"]] * 20, "y": [0, 1, 2, 0] * 20})
    told = {"hashed": ["u"], "scaling": "off", **BY_HAND}
    with pytest.raises(DataError, match='row 2: column "u" is null'):
        fastsoftmax.train(rows, "y", **told)
    model = fastsoftmax.train(rows, "y", nulls="zero", **told)
    index, sign = indices_and_signs(hashes_of(pa.array(["a", "b", "c"])), 18)
    assert sorted(model.feature_index) == sorted(index)
    X = np.zeros((4, 3))
    X[0, :2], X[3, 2] = sign[:2] * [2, 1], sign[2]
    coef = model.coef[:, [model.feature_index.tolist().index(i) for i in index]]
    z = X @ coef.T + model.intercept
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert_allclose(model.predict_proba(rows.slice(0, 4)), p, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"hashed": ["x"], "features": ["x"]},
            'column "x" is to be hashed, but it is of type double',
        ),
        ({"hashed": ["z"]}, 'hashed= lists "z", which is no feature'),
        ({"hashed": ["u"], "categorical": ["u"]}, "is listed in categorical= and in hashed="),
        ({"hashed": ["u"], "text": ["u"]}, "is listed in text= and in hashed="),
    ],
)
def test_what_cannot_be_hashed_is_named(options, said):
    rows = pa.table({"u": columns()["strings"], "x": RNG.normal(size=N), "y": Y})
    with pytest.raises(DataError, match=said):
        fastsoftmax.train(rows, "y", **options)


def test_bits_are_of_columns_that_are_hashed():
    with pytest.raises(OptionError, match="bits is of columns of texts"):
        fastsoftmax.train(pa.table({"x": [1.0], "y": [1]}), "y", bits=10)
    with pytest.raises(OptionError, match="ngrams is of columns of texts"):
        fastsoftmax.train(pa.table({"x": [1.0], "y": [1]}), "y", hashed=["x"], ngrams="1-3")


def test_collisions_are_counted_and_merged():
    hashes = np.array([1 << 60, 2 << 60, (1 << 60) + 1, 1 << 60], np.uint64)  # of 4 bits
    whole = Collisions(4)
    whole.add(hashes)
    assert whole.share == 0.25
    halves = [Collisions(4), Collisions(4)]
    halves[0].add(hashes[:2])
    halves[1].add(hashes[3:])
    merged = halves[0] + halves[1]
    assert merged.share == 0.0
    merged.add(hashes[2:3])
    assert merged.share == 0.25
