"""Parameters are what a model is, as one value: frozen, shared and never copied."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax.labels import given_classes
from fastsoftmax.model.file import load_model
from fastsoftmax.model.model import Model, load
from fastsoftmax.model.scaling import Scaling
from tests.models import make_model

ROOT = Path(__file__).resolve().parents[2]
SCALING = Scaling(np.array([1.0, 0.0, -2.0, 5.0]), np.array([0.5, 2.0, 1.0, 4.0]))


def test_a_model_and_its_parameters_share_all_they_hold():
    model = make_model()
    parameters = model.parameters
    assert np.shares_memory(parameters.weights, model.weights)
    assert np.shares_memory(Model.of(parameters).weights, model.weights)
    assert parameters.record is model.record
    assert parameters.classes == model.classes_


def test_parameters_are_frozen():
    with pytest.raises(FrozenInstanceError):
        make_model().parameters.bias = np.zeros(3)


def test_a_changed_copy_leaves_the_model_as_it_was():
    model = make_model()
    other = Model.of(replace(model.parameters, classes=given_classes(list("abc"))))
    assert list(other.classes) == ["a", "b", "c"]
    assert list(model.classes) == [0, 1, 2]


def test_parameters_follow_what_a_model_is_given_later():
    model = make_model()
    model.conditioning = SCALING
    np.testing.assert_array_equal(model.parameters.coef, model.weights * SCALING.scale)


@pytest.mark.parametrize("scaling", [None, SCALING])
def test_raw_weights_give_the_logits_of_scaled_features(scaling):
    parameters = replace(make_model(dtype="float64").parameters, scaling=scaling)
    X = np.random.default_rng(1).normal(size=(9, 4))
    scaled = X if scaling is None else scaling.apply(X)
    want = scaled @ parameters.weights.T + parameters.bias
    coef, intercept = parameters.raw()
    np.testing.assert_allclose(X @ coef.T + intercept, want, rtol=0, atol=1e-13)
    assert coef.dtype == intercept.dtype == np.float64


def test_a_record_that_says_nothing_leaves_the_defaults():
    parameters = replace(make_model().parameters, record={}, columns=None)
    assert parameters.nulls == "error"
    assert parameters.ledger == []
    assert parameters.deviations is parameters.feature_names is None


def test_the_ledger_lists_files_that_are_known_piece_by_piece():
    known, unknown = {"name": "a", "rows": 1, "pieces": ["x"]}, {"name": "b", "rows": 1}
    record = {"ledger": [unknown, {**known, "name": "c"}], "data": [known]}
    parameters = replace(make_model().parameters, record=record)
    assert [entry["name"] for entry in parameters.ledger] == ["c", "a"]


def test_reading_a_model_holds_its_weights_once(tmp_path):
    model = make_model(64, 20_000, named=False)
    model.save(tmp_path / "m")
    tracemalloc.start()
    try:
        found = load_model(tmp_path / "m")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found.weights, model.weights)
    assert peak < 1.5 * model.weights.nbytes


def test_predicting_from_a_matrix_needs_neither_the_compiler_nor_arrow(tmp_path):
    model = make_model()
    model.save(tmp_path / "m")
    code = (
        "import sys, numpy as np; from fastsoftmax import load\n"
        f"model = load({str(tmp_path / 'm')!r})\n"
        "X = np.ones((2, 4)); model.predict(X), model.predict_proba(X), model.top_features()\n"
        "print(*sorted({'numba', 'llvmlite', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []
    assert load(tmp_path / "m").predict(np.ones((2, 4))).shape == (2,)
