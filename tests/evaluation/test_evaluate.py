"""A Report is what the definitions, and scikit-learn, say, for any kind of data."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import metrics as sk

import fastsoftmax
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.evaluation import metrics
from fastsoftmax.evaluation.evaluate import evaluate
from fastsoftmax.evaluation.metrics import Bin, ClassScore
from fastsoftmax.evaluation.report import Report
from fastsoftmax.labels import given_classes
from fastsoftmax.model import logits
from tests.models import make_model

PRIOR = [0.5, 0.3, 0.2]


@pytest.fixture
def model():
    """A model whose training classes were not equally frequent."""
    model = make_model(3, 4, dtype="float64")
    model.record["prior"] = PRIOR
    return model


@pytest.fixture
def rows():
    """Features (60, 4), classes (60,), weights (60,) of which some are 0."""
    random = np.random.default_rng(3)
    X, y = random.normal(size=(60, 4)), random.integers(0, 3, 60)
    return X, y, random.integers(0, 4, 60).astype(np.float64)


def probabilities(model, X) -> np.ndarray:
    """Return the probabilities by their definition."""
    z = X @ model.coef.T + model.intercept
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def expected(model, X, y, w) -> dict[str, float]:
    """Return the means of a Report by their definitions."""
    p = probabilities(model, X)
    return {
        "rows": int((w > 0).sum()),
        "log_loss": float(np.average(-np.log(p[np.arange(len(y)), y]), weights=w)),
        "accuracy": float(np.average(p.argmax(axis=1) == y, weights=w)),
        "log_loss_prior": float(np.average(-np.log(np.array(PRIOR)[y]), weights=w)),
    }


def assert_same(got: Report, want: dict[str, float]) -> None:
    """Compare a report's means up to rounding."""
    assert got.rows == want["rows"]
    for name in ("log_loss", "accuracy", "log_loss_prior"):
        assert math.isclose(getattr(got, name), want[name], rel_tol=1e-12), name


def as_table(X, y, w) -> pa.Table:
    """Return rows as a table in which the model's columns stand in another order, among others."""
    v = pa.FixedSizeListArray.from_arrays(pa.array(X[:, 1:].ravel()), 3)
    names = ["other", "w", "v", "a", "label"]
    return pa.table([pa.array(["x"] * len(y)), pa.array(w), v, pa.array(X[:, 0]), y], names)


def test_arrays_are_evaluated_by_the_definition(model, rows):
    X, y, w = rows
    assert_same(evaluate(model, X, y), expected(model, X, y, np.ones(60)))
    assert_same(evaluate(model, X, y, w), expected(model, X, y, w))


def test_a_table_is_evaluated_by_the_names_of_its_columns(model, rows):
    table = as_table(*rows)
    X, y, w = rows
    assert_same(evaluate(model, table), expected(model, X, y, np.ones(60)))
    assert_same(evaluate(model, table, "label", "w"), expected(model, X, y, w))


def test_blocks_do_not_show(model, rows, monkeypatch):
    X, y, w = rows
    monkeypatch.setattr(logits, "BLOCK_BYTES", 400)
    assert_same(evaluate(model, X, y, w), expected(model, X, y, w))


def test_a_row_of_weight_two_is_two_rows(model, rows):
    X, y, _ = rows
    twice = evaluate(model, np.concatenate([X, X[:9]]), np.concatenate([y, y[:9]]))
    weighted = evaluate(model, X, y, np.where(np.arange(60) < 9, 2, 1))
    assert_same(dataclasses.replace(weighted, rows=69), twice.as_dict())
    assert math.isclose(weighted.calibration_error, twice.calibration_error)
    assert_allclose(weighted.confusion, twice.confusion)


def test_losses_of_certain_mistakes_are_finite(model):
    X = np.full((2, 4), 1e5)
    report = evaluate(model, X, np.array([0, 1]))
    assert math.isfinite(report.log_loss)
    assert report.log_loss > 1e4


def test_a_class_that_training_never_saw_makes_the_prior_loss_infinite(model, rows):
    X, y, _ = rows
    model.record["prior"] = [0.5, 0.5, 0.0]
    report = evaluate(model, X, y)
    assert report.log_loss_prior == math.inf
    assert report.as_dict()["log_loss_prior"] is None
    only_seen = evaluate(model, X[y < 2], y[y < 2])
    assert math.isclose(only_seen.log_loss_prior, math.log(2))


def test_a_model_without_frequencies_has_no_prior_loss(model, rows):
    X, y, _ = rows
    del model.record["prior"]
    report = evaluate(model, X, y)
    assert report.log_loss_prior is None
    assert "frequencies" not in str(report)


def test_a_report_reads_well():
    numbers = {
        "rows": 1234, "log_loss": 0.25, "accuracy": 0.875, "log_loss_prior": 1.5,
        "macro_f1": 0.75, "weighted_f1": 0.5, "top_k": 2, "top_k_accuracy": 1.0,
        "calibration_error": 0.125,
    }  # fmt: skip
    score, some = ClassScore("a", 1.0, 0.5, 0.75, 2.0), Bin(0.8, 0.9, 3, 2.0, 0.875, 0.5)
    report = Report(
        **numbers, reliability=(some,), per_class=(score,), confusion=np.array([[1.0, 2.0]])
    )
    want = "1,234 rows: log-loss 0.2500 (class frequencies alone: 1.5000), accuracy 87.50 %"
    assert str(report) == want
    assert report.as_dict() == {
        **numbers,
        "reliability": [dataclasses.asdict(some)],
        "per_class": [{"label": "a", "precision": 1.0, "recall": 0.5, "f1": 0.75, "support": 2.0}],
        "confusion": [[1.0, 2.0]],
        "treated": {},
    }


def test_classes_may_have_any_integer_type_but_no_unknown_value(model, rows):
    X, y, _ = rows
    want = expected(model, X, y, np.ones(60))
    for dtype in (np.int8, np.uint16, np.float32):
        assert_same(evaluate(model, X, y.astype(dtype)), want)
    with pytest.raises(DataError, match=r"row 0.* 7"):
        evaluate(model, X, np.full(60, 7))


def test_named_classes_are_evaluated(rows):
    X, y, w = rows
    model = make_model(3, 4, dtype="float64", classes=given_classes(["a", "b", "c"]))
    model.record["prior"] = PRIOR
    assert_same(evaluate(model, X, np.array(["a", "b", "c"])[y], w), expected(model, X, y, w))


def test_the_target_must_be_known(model, rows):
    model.record["target"] = None
    with pytest.raises(OptionError, match="target must be given"):
        evaluate(model, rows[0])


def test_rows_without_weight_leave_nothing_to_evaluate(model, rows):
    X, y, _ = rows
    with pytest.raises(DataError, match="positive weight"):
        evaluate(model, X, y, np.zeros(60))


def test_evaluate_is_a_public_name():
    assert fastsoftmax.evaluate is evaluate


# Confusion, F1, ranks and calibration.


@pytest.fixture
def many():
    """A model of 8 classes, 300 rows (two classes have none, one no predictions), weights."""
    model = make_model(8, 4, dtype="float64", named=False)
    random = np.random.default_rng(4)
    X = random.normal(size=(300, 4))
    y = np.where(random.random(300) < 0.5, model.predict(X), random.integers(0, 6, 300))
    return model, X, y % 6, random.uniform(0.1, 3, 300)


def certain_model(K=3) -> fastsoftmax.Model:
    """Return a model that takes the class of the largest feature, its logits being the features."""
    return fastsoftmax.Model(np.eye(K), np.zeros(K), given_classes(range(K)))


@pytest.mark.parametrize("weighted", [False, True])
def test_confusion_and_f1_are_those_of_scikit_learn(many, weighted):
    model, X, y, w = many
    report = evaluate(model, X, y, w if weighted else None)
    given = {"sample_weight": w if weighted else None}
    guess = model.predict(X)
    assert_allclose(
        report.confusion, sk.confusion_matrix(y, guess, labels=range(8), **given), rtol=1e-12
    )
    for average, got in (("macro", report.macro_f1), ("weighted", report.weighted_f1)):
        want = sk.f1_score(y, guess, average=average, zero_division=0, **given)
        assert math.isclose(got, want, rel_tol=1e-12), average
    want = sk.precision_recall_fscore_support(y, guess, labels=range(8), zero_division=0, **given)
    for name, column in zip(("precision", "recall", "f1", "support"), want, strict=True):
        got = [getattr(score, name) for score in report.per_class]
        assert_allclose(got, column, rtol=1e-12, err_msg=name)
    assert [score.label for score in report.per_class] == list(range(8))


def test_classes_without_rows_and_predictions_do_not_lower_the_macro_f1():
    X, y = np.eye(3)[[0, 1, 1]], np.array([0, 1, 0])
    X = np.hstack([X, np.full((3, 1), -9.0)])
    report = evaluate(certain_model(4), X, y)
    assert math.isclose(report.macro_f1, (2 / 3 + 2 / 3) / 2)
    assert report.per_class[3] == ClassScore(3, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("top_k", [1, 3, 7])
def test_top_k_accuracy_is_that_of_scikit_learn(many, top_k):
    model, X, y, w = many
    report = evaluate(model, X, y, w, top_k=top_k)
    z = model.decision_function(X)
    want = sk.top_k_accuracy_score(y, z, k=top_k, sample_weight=w, labels=range(8))
    assert report.top_k == top_k
    assert math.isclose(report.top_k_accuracy, want, rel_tol=1e-12)


def test_the_top_one_is_the_prediction(many):
    model, X, y, w = many
    report = evaluate(model, X, y, w, top_k=1)
    assert report.top_k_accuracy == report.accuracy


def test_of_equal_logits_the_first_classes_rank_first():
    z = np.array([[1.0, 1.0, 2.0, 1.0]] * 4)
    assert_array_equal(metrics.ranks(z, np.arange(4)), [1, 2, 0, 3])


def test_top_five_is_told_where_there_are_more_classes(model, rows, many):
    assert evaluate(model, *rows[:2]).top_k_accuracy is None
    assert evaluate(*many[:3]).top_k == 5
    for k in (0, 9):
        with pytest.raises(OptionError, match=rf"top_k must be in 1..8.*got {k}"):
            evaluate(*many[:3], top_k=k)


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy(many):
    model, X, y, w = many
    report = evaluate(model, X, y, w)
    p = probabilities(model, X)
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == y
    want, bins = 0.0, []
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            accuracy, mean = (np.average(v[inside], weights=w[inside]) for v in (hit, confidence))
            want += w[inside].sum() / w.sum() * abs(accuracy - mean)
            bins.append([m / 15, (m + 1) / 15, inside.sum(), w[inside].sum(), mean, accuracy])
    assert math.isclose(report.calibration_error, want, rel_tol=1e-12)
    assert_allclose([dataclasses.astuple(line) for line in report.reliability], bins, rtol=1e-12)


def test_certain_rows_lie_in_the_last_bin():
    report = evaluate(certain_model(), 1e4 * np.eye(3), np.array([0, 1, 0]))
    (last,) = report.reliability
    assert (last.highest, last.rows, last.confidence) == (1.0, 3, 1.0)
    assert math.isclose(report.calibration_error, 1 / 3)


def test_a_table_of_very_many_classes_is_left_out_and_f1_is_not(many, monkeypatch):
    model, X, y, w = many
    want = evaluate(model, X, y, w)
    monkeypatch.setattr(metrics, "MOST_CONFUSED", 7)
    got = evaluate(model, X, y, w)
    assert got.confusion is None
    assert got.as_dict()["confusion"] is None
    assert got == want


def test_small_blocks_sum_to_the_same_tables(many, monkeypatch):
    model, X, y, _ = many
    want = evaluate(model, X, y)
    monkeypatch.setattr(logits, "BLOCK_BYTES", 400)
    got = evaluate(model, X, y)
    assert_array_equal(got.confusion, want.confusion)
    assert got.per_class == want.per_class
    assert math.isclose(got.calibration_error, want.calibration_error, rel_tol=1e-12)


@pytest.mark.parametrize("judge", [fastsoftmax.evaluate, fastsoftmax.calibrate])
def test_what_is_no_model_is_named(judge):
    with pytest.raises(OptionError, match=r"model must be a Model, .* got 'm\.safetensors'"):
        judge("m.safetensors", np.zeros((3, 2)), [0, 1, 2])


@pytest.mark.parametrize("path", [3, None, b"m", ["m"], object()])
def test_what_is_no_path_is_no_model(path):
    with pytest.raises(OptionError, match="a file is named by a string or a path"):
        fastsoftmax.load(path)
