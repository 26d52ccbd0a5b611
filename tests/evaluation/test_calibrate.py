"""A calibrated model has the temperature of least log-loss, and predicts the same classes."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax.errors import DataError, OptionError
from fastsoftmax.evaluation import calibrate as calibration
from fastsoftmax.evaluation.calibrate import calibrate
from fastsoftmax.evaluation.evaluate import evaluate
from fastsoftmax.labels import given_classes
from fastsoftmax.model import logits
from fastsoftmax.model.model import Model, load
from fastsoftmax.model.scaling import Scaling
from tests.models import make_model


def draw(factor=1.0, K=4, n=5000, dtype="float64"):
    """Return a model whose logits are `factor` times the true ones, rows and drawn classes."""
    true = make_model(K, 5, dtype="float64", named=False)
    random = np.random.default_rng(1)
    X = random.normal(size=(n, 5)).astype(dtype)
    y = (true.predict_proba(X).cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    weights, bias = ((factor * v).astype(dtype) for v in (true.coef, true.intercept))
    return Model(weights, bias, true.classes_, record={"options": {}}), X, np.minimum(y, K - 1)


def at(model: Model, temperature: float) -> Model:
    """Return the model at a temperature."""
    weights, bias = model.coef / temperature, model.intercept / temperature
    return Model(weights, bias, model.classes_, record=model.record)


def temperature_of(*given, **options) -> float:
    """Return the temperature that calibration finds, relative to the model given."""
    return calibrate(*given, **options).record["temperature"]


@pytest.mark.parametrize("factor", [0.02, 0.3, 1.0, 2.5, 40.0])
def test_the_temperature_undoes_what_logits_were_multiplied_by(factor):
    model, X, y = draw(factor)
    base = temperature_of(*draw(1.0))
    assert abs(base - 1) < 0.05
    assert math.isclose(temperature_of(model, X, y), factor * base, rel_tol=1e-8)


def test_no_other_temperature_has_a_lower_loss():
    model, X, y = draw(3.0)
    w = np.random.default_rng(2).uniform(0, 2, len(y))
    best = calibrate(model, X, y, w)
    loss = evaluate(best, X, y, w).log_loss
    for factor in (0.99, 0.9999, 1.0001, 1.01):
        assert evaluate(at(best, factor), X, y, w).log_loss > loss


def test_slope_and_curvature_are_those_of_finite_differences():
    model, X, y = draw(n=40)
    source = calibration.open_judged(model, X, y, None)
    ((slope, curvature),) = calibration._slopes(model, source, (0.7,), None)
    h = 1e-4
    less, here, more = (evaluate(at(model, 1 / (0.7 + s)), X, y).log_loss for s in (-h, 0, h))
    assert_allclose(slope, (more - less) / (2 * h), rtol=1e-6)
    assert_allclose(curvature, (more - 2 * here + less) / h**2, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_calibrated_model_is_divided_in_its_own_dtype_and_predicts_the_same(dtype):
    model, X, y = draw(5.0, dtype=dtype)
    got = calibrate(model, X, y)
    temperature = got.record["temperature"]
    assert got.dtype == dtype
    assert_allclose(got.coef, model.coef / temperature, rtol=np.finfo(dtype).eps)
    assert_allclose(got.intercept, model.intercept / temperature, rtol=np.finfo(dtype).eps)
    assert_array_equal(got.predict(X), model.predict(X))
    assert evaluate(got, X, y).calibration_error < evaluate(model, X, y).calibration_error
    assert "temperature" not in model.record


def test_features_brought_to_one_scale_stay_so():
    raw, X, y = draw(3.0)
    conditioning = Scaling(np.arange(5.0), np.array([0.5, 1, 2, 4, 8]))
    model = Model(
        *conditioning.scaled(raw.coef, raw.intercept), raw.classes_, conditioning=conditioning
    )
    got, want = calibrate(model, X, y), calibrate(raw, X, y)
    assert got.conditioning is conditioning
    assert_allclose(got.coef, want.coef, rtol=1e-8)
    assert_allclose(got.intercept, want.intercept, rtol=1e-8)


def test_calibrating_again_changes_nothing():
    model, X, y = draw(5.0)
    once = calibrate(model, X, y)
    twice = calibrate(once, X, y)
    assert_allclose(twice.coef, once.coef, rtol=1e-8)
    assert math.isclose(twice.record["temperature"], once.record["temperature"], rel_tol=1e-8)


def test_a_row_of_weight_two_is_two_rows_and_one_of_weight_zero_none():
    model, X, y = draw(2.0, n=200)
    w = np.where(np.arange(200) < 50, 2.0, 1.0)
    w[150:] = 0
    rows = np.repeat(np.arange(200), w.astype(int))
    want = temperature_of(model, X[rows], y[rows])
    assert math.isclose(temperature_of(model, X, y, w), want, rel_tol=1e-8)
    assert math.isclose(temperature_of(model, X, y, 1e9 * w), want, rel_tol=1e-8)


def test_blocks_do_not_show(monkeypatch):
    model, X, y = draw(2.0, n=300)
    want = temperature_of(model, X, y)
    monkeypatch.setattr(logits, "BLOCK_BYTES", 400)
    assert math.isclose(temperature_of(model, X, y), want, rel_tol=1e-8)


@pytest.mark.parametrize(("labels", "bound"), [([0, 1, 2], 0.01), ([1, 2, 0], 100.0)])
def test_rows_all_right_or_all_wrong_end_at_a_bound_with_a_warning(labels, bound):
    model = Model(np.eye(3), np.zeros(3), given_classes(range(3)))
    with pytest.warns(UserWarning, match=rf"bound of the temperature, {bound:g}"):
        got = calibrate(model, np.eye(3), np.array(labels))
    assert_allclose(got.coef, np.eye(3) / bound)


def count_passes(model, X, y, monkeypatch) -> int:
    """Return how often calibration reads the rows."""
    passes = []
    pass_over = calibration.judged
    monkeypatch.setattr(calibration, "judged", lambda *a: passes.append(a) or pass_over(*a))
    calibrate(model, X, y)
    return len(passes)


@pytest.mark.parametrize("factor", [0.02, 0.3, 1.0, 2.5, 40.0])
def test_few_passes_find_it(factor, monkeypatch):
    assert count_passes(*draw(factor), monkeypatch) <= 10


def test_one_mistake_in_very_many_rows_takes_few_passes_too(monkeypatch):
    model = Model(np.eye(2), np.zeros(2), given_classes(range(2)))
    margins = np.random.default_rng(3).uniform(0.5, 3, 20_000)
    X = np.stack([margins, np.zeros_like(margins)], axis=1)
    y = np.zeros(len(X), np.int64)
    y[margins.argmin()] = 1
    assert count_passes(model, X, y, monkeypatch) <= calibration.MOST_PASSES
    best = calibrate(model, X, y)
    loss = evaluate(best, X, y).log_loss
    assert loss < evaluate(at(best, 0.999), X, y).log_loss
    assert loss < evaluate(at(best, 1.001), X, y).log_loss


def test_a_loss_without_curvature_is_halved_down_to():
    asked = []

    def slopes(betas):
        asked.append(betas)
        return [(-1.0 if beta < 30 else 1.0, 0.0) for beta in betas]

    assert math.isclose(calibration._least(slopes), 30, rel_tol=1e-4)
    assert len(asked) == calibration.MOST_PASSES


def test_huge_logits_are_no_trouble():
    model, X, y = draw(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="the log-loss falls")
        assert temperature_of(at(model, 1e-100), X, y) == 100.0


def test_the_temperature_survives_saving_and_is_kept_beside_the_record(tmp_path):
    model, X, y = draw(2.0)
    model.record["rows"] = 7
    got = calibrate(model, X, y)
    got.save(tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").record == got.record
    assert got.record["rows"] == 7


def test_tables_are_calibrated_on_by_the_names_of_their_columns():
    model = make_model(3, 4, dtype="float64")
    random = np.random.default_rng(5)
    X, w = random.normal(size=(90, 4)), random.uniform(0.5, 1, 90)
    y = np.where(np.arange(90) < 80, model.predict(X), 0)
    v = pa.FixedSizeListArray.from_arrays(pa.array(X[:, 1:].ravel()), 3)
    table = pa.table({"w": w, "v": v, "a": X[:, 0], "label": y})
    want = temperature_of(model, X, y, w)
    assert temperature_of(model, table, weight="w") == want


def test_what_cannot_be_calibrated_on_is_a_sentence():
    model, X, y = draw(n=20)
    with pytest.raises(OptionError, match="target must be given"):
        calibrate(model, X)
    with pytest.raises(DataError, match="positive weight"):
        calibrate(model, X, y, np.zeros(20))
    table = pa.table({**{f"x{j}": X[:, j] for j in range(5)}, "y": y})
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches())
    with pytest.raises(DataError, match="a reader can be read once, and calibration"):
        calibrate(model, reader, "y")


def test_calibrate_is_a_public_name():
    assert fastsoftmax.calibrate is calibrate
