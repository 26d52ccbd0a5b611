"""A model of texts and its file: vocabularies come back, and what is damaged does not come in."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest

import fastsoftmax
from fastsoftmax.data.source import Column
from fastsoftmax.data.text import NgramCount
from fastsoftmax.data.vocabulary import HASHING, UNICODE, Recipe, Vocabulary
from fastsoftmax.errors import ModelFileError
from fastsoftmax.inference.answers import is_worth_for_sparse
from fastsoftmax.kernels import characters, hashing
from fastsoftmax.labels import given_classes
from fastsoftmax.model.model import Model, load
from fastsoftmax.model.safetensors import decode_tensors, encode_tensors

TEXTS = pa.array(["red fox", "blue fox", "Füchse, rot", "中文", "red fox runs"])


def vocabulary(**recipe) -> Vocabulary:
    """Return what is learnt of a few texts."""
    count = NgramCount(Recipe(**recipe), 2**16)
    count.add(TEXTS, np.ones(len(TEXTS), np.bool_), "the text", str)
    return count.vocabulary(1, 2**16)


def model_of(*texts: Vocabulary) -> Model:
    """Return a model of columns of texts, and of a number beside them."""
    columns = (*(Column(f"t{i}", text=each) for i, each in enumerate(texts)), Column("x"))
    d = sum(column.n_features for column in columns)
    W = np.random.default_rng(0).normal(size=(3, d)).astype(np.float32)
    return Model(W, np.zeros(3, np.float32), given_classes(["a", "b", "c"]), columns)


@pytest.mark.parametrize(
    "recipe", [{}, {"characters": (3, 5)}, {"bits": 10}, {"words": (1, 1), "normalize": "NFKC"}]
)
def test_a_model_comes_back_as_it_was(tmp_path, recipe):
    text = vocabulary(**recipe)
    model = model_of(text, vocabulary(norm=None, tf="log"))
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.columns == model.columns
    np.testing.assert_array_equal(again.coef, model.coef)
    rows = pa.table({"t0": TEXTS, "t1": TEXTS, "x": np.arange(5.0)})
    np.testing.assert_array_equal(again.predict_proba(rows), model.predict_proba(rows))
    again.save(tmp_path / "n")
    assert (tmp_path / "m").read_bytes() == (tmp_path / "n").read_bytes()


def test_features_are_called_as_their_words():
    names = model_of(vocabulary()).feature_names
    assert {"t0=red fox", "t0=rot", "t0=中文", "t0=füchse rot", "x"} <= set(names)
    assert "t0=~fox" in model_of(vocabulary(characters=(3, 3))).feature_names
    assert all(name.startswith("t0=#") for name in model_of(vocabulary(bits=9)).feature_names[:-1])


def test_versions_are_those_of_the_kernels():
    assert (HASHING, UNICODE) == (hashing.VERSION, characters.UNICODE)


def damaged(path, change) -> None:
    """Write the file anew with something else in it."""
    tensors, metadata = decode_tensors(path)
    tensors = {name: tensor.copy() for name, tensor in tensors.items()}
    change(tensors, metadata)
    metadata.pop("sha256", None)
    with open(path, "wb") as file:
        file.writelines(encode_tensors(tensors, metadata))


def say(old, new):
    """Return what replaces a word in the description."""
    return lambda tensors, metadata: metadata.update(model=metadata["model"].replace(old, new))


def swap(name, value):
    """Return what replaces a number of a tensor."""
    return lambda tensors, metadata: tensors[name].__setitem__(*value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (say('"hashing":1', '"hashing":2'), "texts are of version 2 of hashing"),
        (say('"unicode":"14.0"', '"unicode":"9"'), "texts are of version '9' of unicode"),
        (say('"tf":"count"', '"tf":"twice"'), "a column of texts is malformed"),
        (say('"words":[1,2]', '"words":[2,1]'), "a column of texts is malformed"),
        (say('"words":[1,2]', '"words":"1-2"'), "a column of texts is malformed"),
        (say('"lower":true', '"lower":7'), "a column of texts is malformed"),
        (say('"bits":null', '"bits":12'), "a column of texts has no vocabulary"),
        (say('"tf":"count",', ""), "a column of texts is malformed"),
        (swap("text.0.offsets", (1, 0)), "the names of its n-grams are malformed"),
        (swap("text.0.offsets", (-1, 10**9)), "the names of its n-grams are malformed"),
        (swap("text.0.names", (0, 0xFF)), "the names of its n-grams are malformed"),
        (lambda tensors, _: tensors.pop("text.0.names"), "a column of texts has no vocabulary"),
        (
            lambda tensors, _: tensors.update({"text.0.names": np.zeros(3, np.int32)}),
            "a column of texts has no vocabulary",
        ),
    ],
)
def test_a_damaged_vocabulary_is_refused_in_one_sentence(tmp_path, change, message):
    model_of(vocabulary()).save(tmp_path / "m")
    damaged(tmp_path / "m", change)
    with pytest.raises(ModelFileError, match=message):
        load(tmp_path / "m")


@pytest.mark.parametrize("index", [-1, 2**10, "twice"])
def test_indices_beyond_their_bits_are_refused(tmp_path, index):
    model_of(vocabulary(bits=10)).save(tmp_path / "m")

    def change(tensors, metadata):
        held = tensors["text.0.indices"]
        held[0] = held[1] if index == "twice" else index

    damaged(tmp_path / "m", change)
    with pytest.raises(ModelFileError, match="the indices of its n-grams are malformed"):
        load(tmp_path / "m")


def least_seconds(work, turns=5):
    """Return the processor time of the quickest of some turns: others have the machine too."""
    found = []
    for _ in range(turns):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def test_a_million_words_are_loaded_at_once(tmp_path):
    n = 10**6
    names = np.frombuffer(b"".join(b"%07d" % i for i in range(n)), np.uint8)
    text = Vocabulary(Recipe((1, 1)), names, np.arange(n + 1, dtype=np.int64) * 7)
    columns = (Column("t", text=text),)
    W = np.zeros((2, n), np.float32)
    Model(W, np.zeros(2, np.float32), given_classes(["a", "b"]), columns).save(tmp_path / "m")
    rows = pa.table({"t": ["0000007 0999999"]})
    assert least_seconds(lambda: load(tmp_path / "m").predict(rows), 3) < 2  # 0.5 s in quiet
    model = load(tmp_path / "m")
    model.predict(rows)
    # 0.001 s, and 0.15 s where each hashes all words.
    assert least_seconds(lambda: model.predict(rows)) < 0.05


def test_few_texts_are_scored_by_numpy_as_many_are_by_the_kernels(monkeypatch):
    model = model_of(vocabulary())
    rows = pa.table({"t0": TEXTS, "x": np.arange(5.0)})
    assert not is_worth_for_sparse(5, 3, 10**6, 128.0, True)
    assert is_worth_for_sparse(5, 3, model.n_features, 128.0, True)
    many = model.decision_function(rows)
    monkeypatch.setattr("fastsoftmax.model.scoring.is_worth_for_sparse", lambda *sizes: False)
    np.testing.assert_allclose(model.decision_function(rows), many, rtol=1e-5, atol=1e-6)


def test_text_is_learnt_and_predicted_from_the_file_alone(tmp_path):
    rng = np.random.default_rng(0)
    words = np.array([["good", "fine", "great"], ["bad", "poor", "dull"]])
    y = rng.integers(0, 2, 200)
    chosen = words[y, rng.integers(0, 3, 200)]
    rows = [f"A {word}, film{j % 9}." for j, word in enumerate(chosen)]
    table = pa.table({"text": rows, "size": rng.normal(size=200), "y": y})
    model = fastsoftmax.train(table, "y", text=["text"], ngrams="1-2", chars="3-4")
    assert model.record["options"]["text"] == ["text"]
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    report = fastsoftmax.evaluate(again, table)
    assert report.accuracy == 1.0
    unseen = pa.table({"text": ["a GREAT film", "so dull", None], "size": [0.0, 0.0, 0.0]})
    assert again.predict(unseen.slice(0, 2)).tolist() == [0, 1]
    with pytest.raises(fastsoftmax.DataError, match='row 2: column "text" is null'):
        again.predict(unseen)
    told = [name.removeprefix("text=") for name, _ in again.top_features(5)[0]]
    assert set(told) <= set(again.columns[0].text.all_names())


def test_the_record_of_hashed_texts_tells_what_collides():
    rng = np.random.default_rng(0)
    rows = [" ".join(f"w{u}" for u in rng.integers(0, 400, 20)) for _ in range(60)]
    table = pa.table({"text": [f"{row} y{i % 2}" for i, row in enumerate(rows)], "y": [0, 1] * 30})
    told = {"text": ["text"], "bits": 8, "epochs": 3, "learning_rate": 0.1}
    model = fastsoftmax.train(table, "y", **told)
    assert 0.5 < model.record["collisions"] < 1
    assert "collisions" not in fastsoftmax.train(table, "y", **{**told, "bits": None}).record
