"""A Report is what the definitions of log-loss and accuracy say, for any kind of data."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

import fastsoftmax
from fastsoftmax import prediction
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.evaluation import Report, evaluate
from fastsoftmax.labels import given_classes
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


def expected(model, X, y, w) -> Report:
    """Return the Report by its definition."""
    z = X @ model.coef.T + model.intercept
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return Report(
        rows=int((w > 0).sum()),
        log_loss=float(np.average(-np.log(p[np.arange(len(y)), y]), weights=w)),
        accuracy=float(np.average(p.argmax(axis=1) == y, weights=w)),
        log_loss_prior=float(np.average(-np.log(np.array(PRIOR)[y]), weights=w)),
    )


def assert_same(got: Report, want: Report) -> None:
    """Compare reports up to rounding."""
    assert got.rows == want.rows
    for name in ("log_loss", "accuracy", "log_loss_prior"):
        assert math.isclose(getattr(got, name), getattr(want, name), rel_tol=1e-12), name


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
    monkeypatch.setattr(prediction, "BLOCK_BYTES", 400)
    assert_same(evaluate(model, X, y, w), expected(model, X, y, w))


def test_a_row_of_weight_two_is_two_rows(model, rows):
    X, y, _ = rows
    twice = evaluate(model, np.concatenate([X, X[:9]]), np.concatenate([y, y[:9]]))
    weighted = evaluate(model, X, y, np.where(np.arange(60) < 9, 2, 1))
    assert_same(dataclasses.replace(weighted, rows=69), twice)


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
    report = Report(rows=1234, log_loss=0.25, accuracy=0.875, log_loss_prior=1.5)
    want = "1,234 rows: log-loss 0.2500 (class frequencies alone: 1.5000), accuracy 87.50 %"
    assert str(report) == want
    assert report.as_dict() == {
        "rows": 1234,
        "log_loss": 0.25,
        "accuracy": 0.875,
        "log_loss_prior": 1.5,
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
