"""Models of sparse rows: their categories in a file, and what other programs can have of them."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax import DataError, ModelFileError, OptionError, load
from fastsoftmax.data.in_use import InUse
from fastsoftmax.data.source import Column
from fastsoftmax.labels import Classes, given_classes
from fastsoftmax.model.model import Model
from tests.model.test_texts import damaged, say, swap
from tests.sparse_rows import random_rows

sp = pytest.importorskip("scipy.sparse")

pytestmark = pytest.mark.filterwarnings("ignore:after epoch 1")  # labels mean nothing here

WORDS = Classes("string", ("", "a", "b c", "z\0", "ä", "猫", "😀"))
IDS = Classes("uint64", (3, 2**60, 2**64 - 1))
BY_HAND = {"learning_rate": 0.1, "epochs": 1}


def model_of(*categories):
    columns = tuple(
        Column(f"c{j}", categories=each, sparse=InUse(len(each), np.arange(len(each))[::-1].copy()))
        for j, each in enumerate(categories)
    )
    d = sum(map(len, categories))
    W = np.random.default_rng(0).normal(size=(2, d)).astype(np.float32)
    return Model(W, np.zeros(2, np.float32), given_classes(["y", "n"]), columns)


def test_categories_that_are_many_come_back_from_a_file(tmp_path):
    model = model_of(WORDS, IDS)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert [column.categories for column in again.columns] == [WORDS, IDS]
    assert again.feature_names == model.feature_names
    again.save(tmp_path / "n")
    assert (tmp_path / "m").read_bytes() == (tmp_path / "n").read_bytes()
    rows = pa.table({"c0": ["猫", "a"], "c1": pa.array([3, 2**60], pa.uint64())})
    assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))


@pytest.mark.parametrize(
    "change",
    [
        swap("categories.0.offsets", (1, 9)),
        swap("categories.0.offsets", (-1, 10**9)),
        swap("categories.0.offsets", (5, 9)),  # within a character
        swap("categories.0.names", (0, 0xFF)),
        swap("categories.0.names", (1, 0x20)),  # out of order
        swap("categories.1.values", (0, 2**61)),
        say('"kind":"uint64"', '"kind":"int64"'),
        say('"kind":"uint64"', '"kind":"V8"'),
        say('"kind":"uint64"', '"kind":[]'),
        say('"kind":"uint64"', '"kind":"string"'),
        say('"kind":"uint64"', '"kind":"uint64","values":[1,2,3]'),
        say('"sparse":3', '"sparse":null'),
        lambda tensors, _: tensors.pop("categories.0.offsets"),
        lambda tensors, _: tensors.update({"categories.0.offsets": np.zeros((2, 2), np.int64)}),
        lambda tensors, _: tensors.update({"categories.0.offsets": np.zeros(0, np.int64)}),
        lambda tensors, _: tensors.update({"categories.7.values": np.zeros(3, np.int64)}),
    ],
)
def test_damaged_categories_are_refused_in_one_sentence(tmp_path, change):
    model_of(WORDS, IDS).save(tmp_path / "m")
    damaged(tmp_path / "m", change)
    with pytest.raises(ModelFileError, match=r"categor|columns|tensors"):
        load(tmp_path / "m")


@pytest.mark.parametrize("word", ["{:07d}", "é{:06d}ü"])
def test_a_million_categories_are_loaded_and_looked_up_at_once(tmp_path, word):
    n = 10**6
    model_of(Classes("string", tuple(map(word.format, range(n))))).save(tmp_path / "m")
    start = time.process_time()
    model = load(tmp_path / "m")
    assert time.process_time() - start < 1  # 0.2 s where nothing else runs
    row = pa.table({"c0": [word.format(7)]})
    expected = model.weights[:, n - 1 - 7]
    assert_allclose(model.decision_function(row)[0], expected)  # which hashes them all
    start = time.process_time()
    for _ in range(10):
        model.predict(row)
    assert time.process_time() - start < 0.5  # 0.02 s, and 2 s where each hashes them


def test_many_sparse_rows_are_scored_by_the_kernels_as_few_are_by_numpy(monkeypatch):
    X = random_rows(90, 8, 0.4)
    csr = sp.csr_matrix(X)
    y = np.arange(90) % 3
    model = fastsoftmax.train(csr, y, **BY_HAND)
    few, told = model.predict_proba(csr), fastsoftmax.evaluate(model, csr, y)
    monkeypatch.setattr("fastsoftmax.model.scoring.is_worth_for_sparse", lambda *sizes: True)
    many = model.predict_proba(csr)
    assert_allclose(many, few, rtol=1e-5)
    assert_allclose(fastsoftmax.evaluate(model, csr, y).log_loss, told.log_loss, rtol=1e-6)
    csr.data[11] = np.inf
    with pytest.raises(DataError, match=r'row \d+: column "x\[\d\]" is infinite'):
        model.predict(csr)


def test_what_takes_no_sparse_rows_is_refused(tmp_path):
    csr = sp.csr_matrix(random_rows(60, 8))
    sparse = fastsoftmax.train(csr, np.arange(60) % 3, **BY_HAND)
    texts = pa.table({"t": ["a b", "b c"] * 30, "y": [0, 1] * 30})
    text = fastsoftmax.train(texts, "y", text=["t"], **BY_HAND)
    for model, what in ((sparse, 'column "x" is sparse'), (text, 'column "t" is a text')):
        with pytest.raises(OptionError, match=f"format sql takes numbers.*{what}"):
            fastsoftmax.export(model, tmp_path / "m.sql")
        fastsoftmax.export(model, tmp_path / "m.csv")
    with pytest.raises(DataError, match="sparse rows cannot be packed"):
        fastsoftmax.pack(csr, tmp_path / "p.parquet", np.arange(60) % 3)
    assert not (tmp_path / "p.parquet").exists()


def test_scikit_learn_takes_the_matrix_that_a_model_was_trained_on():
    pytest.importorskip("sklearn")
    X = random_rows(90, 8, 0.4)
    X[:, 5] = 0.0
    csr = sp.csr_matrix(X)
    model = fastsoftmax.train(csr, np.arange(90) % 3, **BY_HAND)
    theirs = model.to_sklearn()
    assert theirs.coef_.shape == (3, 8)
    assert_allclose(theirs.predict_proba(csr), model.predict_proba(csr), atol=1e-6)
