"""Integer classes of 64 bits keep their value through every entry, whatever holds the labels."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax
from fastsoftmax.cli.main import main
from fastsoftmax.errors import DataError
from fastsoftmax.labels import given_classes

# Beyond int64; the neighbours of 2^53, which one float64 holds; both ends of int64.
WIDE = {
    "uint64": [2**63 + 1, 2**63 + 2, 2**64 - 1],
    "int64": [2**53, 2**53 + 1, 2**53 + 2],
    "negative": [-(2**63), -(2**53) - 1, 2**63 - 1],
}
KINDS = {"uint64": "uint64", "int64": "int64", "negative": "int64"}
rng = np.random.default_rng(5)
X = rng.normal(size=(90, 3))
AT = (X @ rng.normal(size=(3, 3))).argmax(axis=1)
QUICK = {"l2": 0.01, "learning_rate": 0.1, "epochs": 1}


def held_as():
    """Yield what labels can lie in."""
    yield "numpy", lambda y: y
    yield "objects", lambda y: np.array([int(v) for v in y], dtype=object)
    yield "a list", lambda y: [int(v) for v in y]
    yield "Arrow", pa.array
    yield "Arrow chunks", lambda y: pa.chunked_array([y[:20], y[20:]])
    yield "pandas", lambda y: pytest.importorskip("pandas").Series(y)
    yield "pandas objects", lambda y: pytest.importorskip("pandas").Series(list(y), dtype=object)
    yield "nullable pandas", nullable
    yield "polars", lambda y: pytest.importorskip("polars").Series(y)


def nullable(y):
    pandas = pytest.importorskip("pandas")
    return pandas.Series(y).astype("UInt64" if y.dtype == np.uint64 else "Int64")


HELD = dict(held_as())


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("values", WIDE)
def test_wide_integers_stay_exact_from_training_to_a_loaded_model(values, held, tmp_path):
    classes = WIDE[values]
    labels = HELD[held](np.array(classes, KINDS[values])[AT])
    model = fastsoftmax.train(X, labels, validation=(X, labels), **QUICK)
    assert model.classes_.values == tuple(sorted(classes))
    model.save(tmp_path / "m.safetensors")
    loaded = fastsoftmax.load(tmp_path / "m.safetensors")
    assert loaded.classes_ == model.classes_
    predicted = loaded.predict(X)
    assert predicted.dtype == KINDS[values]
    assert set(predicted.tolist()) <= set(classes)
    report = fastsoftmax.evaluate(loaded, X, labels)
    assert [score.label for score in report.per_class] == sorted(classes)
    given = fastsoftmax.train(X, labels, classes=classes, class_weight={classes[0]: 2.0}, **QUICK)
    assert given.classes_ == model.classes_


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("values", WIDE)
def test_the_estimator_keeps_wide_integers_exact(values, held):
    pytest.importorskip("sklearn")
    classes = WIDE[values]
    labels = HELD[held](np.array(classes, KINDS[values])[AT])
    fitted = fastsoftmax.SoftmaxClassifier(l2=0.01, max_iter=50).fit(X, labels)
    assert fitted.classes_.tolist() == sorted(classes)
    assert fitted.model_.classes_.values == tuple(sorted(classes))
    assert fitted.score(X, labels) > 0.8
    stepped = fastsoftmax.SoftmaxClassifier(l2=0.01)
    stepped.partial_fit(X, labels, classes=sorted(classes)).partial_fit(X, labels)
    assert stepped.classes_.tolist() == sorted(classes)


@pytest.mark.parametrize("values", WIDE)
def test_the_command_line_takes_and_writes_wide_integers(values, tmp_path, capsys):
    classes = WIDE[values]
    labels = np.array(classes, KINDS[values])[AT]
    data, model, out = (str(tmp_path / n) for n in ("d.parquet", "m.safetensors", "p.parquet"))
    pq.write_table(pa.table({"x": X[:, 0], "z": X[:, 1], "y": labels}), data)
    listed = ",".join(map(str, classes))
    argv = ["train", data, "--target", "y", "-o", model, f"--classes={listed}", "--epochs", "1"]
    assert main([*argv, "--learning-rate", "0.1", "--validation", data, "--quiet"]) == 0
    assert main(["predict", model, data, "-o", out, "--keep", "y", "--top-k", "2", "--quiet"]) == 0
    written = pq.read_table(out)
    assert str(written["prediction"].type) == KINDS[values]
    assert written["y"].to_pylist() == labels.tolist()
    assert set(written["prediction"].to_pylist()) <= set(classes)
    assert main(["evaluate", model, data]) == 0
    capsys.readouterr()
    assert main(["inspect", model, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == sorted(classes)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64"])
def test_predictions_have_the_type_of_the_labels_when_classes_are_given(kind):
    labels = np.array([1, 2, 3], kind)[AT]
    for classes in (
        [3, 2, 1],
        np.array([1, 2, 3]),
        [1.0, 2.0, 3.0],
        pa.array([1, 2, 3]),
        {1, 2, 3},
    ):
        assert fastsoftmax.train(X, labels, classes=classes, **QUICK).predict(X).dtype == kind


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 2**70], "beyond what 64 bits hold"),
        ([-1, 2**63], "beyond what 64 bits hold"),
        ([0, 1e300], "beyond what 64 bits hold"),
        ([0, float("nan")], "all integers, all strings or all booleans"),
        ([0, float("inf")], "all integers, all strings or all booleans"),
        ([True, 0], "all integers, all strings or all booleans"),
        ([0, None], "all integers, all strings or all booleans"),
        (5, "is a list of labels"),
        ("ab", "is a list of labels"),
    ],
)
def test_classes_that_will_not_do_are_refused_in_a_sentence(classes, message):
    with pytest.raises(DataError, match=message):
        given_classes(classes)


@pytest.mark.parametrize("far", [2.0**63, -(2.0**70)])
def test_floats_beyond_int64_are_told_to_be_too_large_for_labels(far):
    with pytest.raises(DataError, match=r"row 0: the target is .*, beyond what an int64 holds"):
        fastsoftmax.train(X, np.where(AT[0] == AT, far, 1.0))


@pytest.mark.parametrize("words", ["1.0,2", "1e0,2.00", " 1,2", "+1,2"])
def test_classes_of_a_column_of_floats_may_be_written_as_floats(words, tmp_path):
    data, model = str(tmp_path / "d.parquet"), str(tmp_path / "m.safetensors")
    pq.write_table(pa.table({"x": X[:, 0], "y": np.where(AT == 0, 1.0, 2.0)}), data)
    argv = ["train", data, "--target", "y", "-o", model, f"--classes={words}", "--epochs", "1"]
    assert main([*argv, "--learning-rate", "0.1", "--quiet"]) == 0
    assert fastsoftmax.load(model).classes_.values == (1, 2)


@pytest.mark.parametrize("word", ["1e999999999", "9" * 5000, "nan", "x"])
def test_words_that_are_no_class_of_integers_are_an_error_of_the_data(word, tmp_path, capsys):
    data, model = str(tmp_path / "d.parquet"), str(tmp_path / "m.safetensors")
    pq.write_table(pa.table({"x": X[:, 0], "y": AT}), data)
    assert main(["train", data, "--target", "y", "-o", model, f"--classes=0,{word}"]) == 3
    assert "classes" in capsys.readouterr().err
