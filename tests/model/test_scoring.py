"""A model and rows in, logits, classes and probabilities out, whatever the rows come in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsoftmax.errors import DataError
from fastsoftmax.labels import given_classes
from fastsoftmax.model import logits, scoring
from fastsoftmax.model.model import Model
from fastsoftmax.model.scoring import log_sum_exp, scored, softmax
from tests.models import Rows, make_model


def exact_logits(model: Model, X: np.ndarray) -> np.ndarray:
    """Return W x + b in float64."""
    return X.astype(np.float64) @ model.coef.T + model.intercept


def exact_softmax(z: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits that are not large, by the definition."""
    e = np.exp(z)
    return e / e.sum(axis=1, keepdims=True)


@pytest.fixture(params=["float32", "float64"])
def model(request) -> Model:
    """A model of each dtype."""
    return make_model(5, 7, dtype=request.param)


@pytest.fixture
def X() -> np.ndarray:
    """Some rows."""
    return np.random.default_rng(1).normal(size=(50, 7))


def tolerance(model: Model) -> float:
    """Return how far a few dozen roundings may lead off."""
    return 64 * float(np.finfo(model.dtype).eps)


def test_all_answers_follow_from_the_logits(model, X):
    want = exact_logits(model, X)
    tol = tolerance(model)
    np.testing.assert_allclose(model.decision_function(X), want, rtol=tol, atol=tol)
    np.testing.assert_allclose(model.predict_proba(X), exact_softmax(want), rtol=tol)
    got = model.predict_log_proba(X)
    np.testing.assert_allclose(got, np.log(exact_softmax(want)), rtol=tol, atol=tol)
    np.testing.assert_array_equal(model.predict(X), want.argmax(axis=1))


def test_answers_have_the_models_dtype_and_classes_the_labels_own(model, X):
    for answer in (model.decision_function, model.predict_proba, model.predict_log_proba):
        assert answer(X).dtype == model.dtype
        assert answer(X).shape == (50, 5)
    named = make_model(3, 7, classes=given_classes(["a", "b", "ccc"]))
    assert set(named.predict(X)) <= {"a", "b", "ccc"}
    truth = make_model(2, 7, classes=given_classes([False, True]))
    assert truth.predict(X).dtype == np.bool_


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "float16", "float32", ">f8"])
def test_numbers_of_any_dtype_and_layout_give_the_same(model, dtype):
    X = np.random.default_rng(2).integers(0, 2, size=(20, 14)).astype(dtype)
    want = model.decision_function(np.ascontiguousarray(X[:, ::2], np.float64))
    read_only = X[:, ::2].copy()
    read_only.flags.writeable = False
    for same in (X[:, ::2], np.asfortranarray(X[:, ::2]), read_only, X[:, ::2].tolist()):
        np.testing.assert_array_equal(model.decision_function(same), want)


def test_blocks_do_not_show(model, X, monkeypatch):
    want = model.predict_proba(X)
    monkeypatch.setattr(logits, "BLOCK_BYTES", 3 * (5 + 7) * model.dtype.itemsize)
    np.testing.assert_allclose(model.predict_proba(X), want, rtol=tolerance(model))
    np.testing.assert_array_equal(model.predict(X), want.argmax(axis=1))


def test_no_rows_give_no_answers(model):
    assert model.predict(np.empty((0, 7))).shape == (0,)
    assert model.predict_proba(np.empty((0, 7))).shape == (0, 5)


@given(st.floats(-1e4, 1e4), st.integers(0, 2**32))
def test_shifting_logits_changes_no_probability(shift, seed):
    z = np.random.default_rng(seed).normal(size=(3, 4))
    atol = 1e4 * 8 * np.finfo(np.float64).eps
    np.testing.assert_allclose(softmax(z + shift), softmax(z), rtol=atol)
    np.testing.assert_allclose(log_sum_exp(z + shift), log_sum_exp(z) + shift, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_survive_logits_of_ten_thousand(dtype):
    z = np.array([[1e4, -1e4, 1e4], [-1e4, -1e4, -2e4]], dtype)
    np.testing.assert_array_equal(softmax(z), np.array([[0.5, 0, 0.5], [0.5, 0.5, 0]], dtype))
    want = np.array([1e4, -1e4]) + np.log(2)
    np.testing.assert_allclose(log_sum_exp(z), want, rtol=4 * np.finfo(dtype).eps)


def test_probabilities_sum_to_one(model, X):
    sums = model.predict_proba(1000 * X).astype(np.float64).sum(axis=1)
    np.testing.assert_allclose(sums, 1, rtol=8 * np.finfo(model.dtype).eps)


def test_of_equal_classes_the_first_is_predicted():
    model = Model(np.zeros((3, 1)), np.zeros(3), given_classes([7, 8, 9]))
    assert model.predict([[1.0]]) == [7]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.nan, r'row 3: column "v\[1\]" is NaN'),
        (np.inf, r'row 3: column "v\[1\]" is infinite'),
        (-1e300, r'row 3: column "v\[1\]" is -1e\+300, which does not fit float32'),
    ],
)
def test_a_value_that_is_not_finite_is_named(value, text, monkeypatch):
    monkeypatch.setattr(logits, "BLOCK_BYTES", 64)
    X = np.zeros((5, 7))
    X[3, 2] = value
    with pytest.raises(DataError, match=text):
        make_model(5, 7).predict(X)
    with pytest.raises(DataError, match="row 3: feature 2 is"):
        make_model(5, 7, named=False).predict(X)


def test_a_value_that_is_not_finite_is_named_by_its_place_in_the_data(monkeypatch):
    monkeypatch.setattr(logits, "BLOCK_BYTES", 64)
    parts = (np.zeros((9, 3), np.uint8), np.zeros((9, 4)))
    parts[1][7, 1] = np.nan
    source = Rows(parts, sizes=(4, 5))
    text = r'data.parquet, row group 1, row 3: column "v\[3\]" is NaN'
    with pytest.raises(DataError, match=text):
        list(scored(make_model(5, 7).parameters, source))


def test_what_fits_float64_is_predicted_by_a_float64_model():
    model = make_model(5, 7, dtype="float64")
    assert np.isfinite(model.predict_proba(np.full((1, 7), 1e300))).all()


def test_logits_that_overflow_are_named():
    model = Model(np.full((2, 1), 1e30, np.float32), np.zeros(2, np.float32), given_classes([0, 1]))
    with pytest.raises(DataError, match=r"row 1: .*so large that the logits do not fit float32"):
        model.predict(np.array([[1.0], [1e30]]))


def test_a_matrix_of_the_wrong_shape_is_refused(model):
    with pytest.raises(DataError, match="the model has 7 features, the data have 6"):
        model.predict(np.ones((2, 6)))
    with pytest.raises(DataError, match=r"must be a matrix .* got the shape \(7,\)"):
        model.predict(np.ones(7))
    with pytest.raises(DataError, match="not all of the same length"):
        model.predict([[1.0] * 7, [1.0] * 6])


def test_what_is_no_number_is_refused(model):
    for dtype in (object, "U1", "complex128"):
        with pytest.raises(DataError, match="must be numbers"):
            model.predict(np.ones((2, 7)).astype(dtype))
    with pytest.raises(DataError, match="masked array"):
        model.predict(np.ma.masked_equal(np.ones((2, 7)), 1))


@pytest.mark.parametrize("sizes", [(50,), (1, 49), (20, 20, 10)])
def test_a_source_is_scored_in_order_in_bounded_blocks(model, X, monkeypatch, sizes):
    monkeypatch.setattr(logits, "BLOCK_BYTES", 8 * (5 + 7) * model.dtype.itemsize)
    source = Rows((X[:, :3], np.asfortranarray(X[:, 3:])), sizes=sizes)
    blocks = list(scored(model.parameters, source))
    assert max(len(block.logits) for block in blocks) <= 8
    got = np.concatenate([block.logits for block in blocks])
    tol = tolerance(model)
    np.testing.assert_allclose(got, exact_logits(model, X), rtol=tol, atol=tol)
    # float64 parts are views of X, so a block's span finds its own rows.
    rows = np.concatenate([block.chunk.parts[0].values[block.span] for block in blocks])
    np.testing.assert_array_equal(rows, X[:, :3])


def as_table(X: np.ndarray) -> pa.Table:
    """Return rows as the columns that a model with 7 features has, in another order."""
    v = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(X[:, 1:]).ravel()), 6)
    return pa.table({"other": ["x"] * len(X), "v": v, "a": X[:, 0]})


def test_all_kinds_of_data_give_the_same_answers(model, X, tmp_path):
    table = as_table(X)
    pq.write_table(table, tmp_path / "X.parquet", row_group_size=20)
    want = model.predict_proba(X)
    kinds = [
        table,
        table.to_batches()[0],
        table.to_reader(max_chunksize=7),
        lambda: table.to_reader(max_chunksize=7),
        tmp_path / "X.parquet",
        [str(tmp_path / "X.parquet")],
    ]
    for data in kinds:
        got = model.predict_proba(data)
        np.testing.assert_allclose(got, want, rtol=tolerance(model))


def test_frames_give_the_same_answers(model, X):
    polars = pytest.importorskip("polars")
    frame = polars.from_arrow(as_table(X))
    np.testing.assert_array_equal(model.predict(frame), model.predict(X))


def test_columns_that_are_missing_are_named(model, X):
    with pytest.raises(DataError, match=r'no column "a"'):
        model.predict(as_table(X).drop_columns(["a"]))


def test_rows_that_disappear_are_noticed(model, X):
    source = Rows((X,))
    blocks = (scores.logits for scores in scored(model.parameters, source))
    with pytest.raises(DataError, match="held 50 rows where 60 were announced"):
        scoring.stack(blocks, 60)
