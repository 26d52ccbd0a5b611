"""The unit of weights does not matter: from 1e-310 to 1e308 they give one and the same model."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastsoftmax
from fastsoftmax.data.label_stats import LabelSums
from fastsoftmax.errors import DataError
from fastsoftmax.labels import given_classes
from tests.data.test_encode import scan

pytestmark = [
    pytest.mark.filterwarnings("ignore::fastsoftmax.errors.NotConverged"),
    pytest.mark.filterwarnings("ignore:the log-loss falls"),
]
rng = np.random.default_rng(9)
X = rng.normal(size=(60, 2))
Y = np.digitize(X[:, 0] + 0.3 * rng.normal(size=60), [-0.4, 0.4])
W = rng.uniform(0.25, 1, 60)
W[::9] = 0
POWERS = [-1000, -401, 401, 1000, 1023]  # of two: these round nothing
SIZES = [1e-310, 1e-300, 1e-160, 1e160, 1e300, 1e308]


def entries(weights, how):
    """Return the arguments of data, target and weight, and the data alone."""
    if how == "arrays":
        return (X, Y), weights
    return (pa.table({"a": X[:, 0], "b": X[:, 1], "y": Y, "w": weights}), "y"), "w"


@pytest.mark.parametrize("how", ["arrays", "columns"])
@pytest.mark.parametrize("options", [{}, {"class_weight": "balanced"}, {"holdout": 0.3}])
@pytest.mark.parametrize("power", POWERS)
def test_weights_times_a_power_of_two_give_the_same_bits(power, options, how):
    args, plain = entries(W, how)
    features = {} if how == "arrays" else {"features": ["a", "b"]}
    want = fastsoftmax.train(*args, weight=plain, l2=0.01, **features, **options)
    args, huge = entries(np.ldexp(W, power), how)
    got = fastsoftmax.train(*args, weight=huge, l2=0.01, **features, **options)
    assert_array_equal(got.weights, want.weights)
    assert got.record["prior"] == want.record["prior"]


@pytest.mark.parametrize("how", ["arrays", "columns"])
@pytest.mark.parametrize("size", SIZES)
def test_weights_of_any_size_train_judge_and_calibrate_as_those_of_1(size, how):
    features = {} if how == "arrays" else {"features": ["a", "b"]}
    args, plain = entries(W, how)
    want = fastsoftmax.train(*args, weight=plain, l2=0.01, validation=(*args, plain), **features)
    report = fastsoftmax.evaluate(want, *args, plain)
    calibrated = fastsoftmax.calibrate(want, *args, plain)
    args, far = entries(W * size, how)
    got = fastsoftmax.train(*args, weight=far, l2=0.01, validation=(*args, far), **features)
    assert_allclose(got.coef, want.coef, rtol=1e-4)
    found = fastsoftmax.evaluate(want, *args, far)
    for name in ("rows", "log_loss", "accuracy", "macro_f1", "weighted_f1", "calibration_error"):
        assert getattr(found, name) == pytest.approx(getattr(report, name), rel=1e-9), name
    again = fastsoftmax.calibrate(want, *args, far)
    assert again.record["temperature"] == pytest.approx(calibrated.record["temperature"], rel=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_factors_of_classes_of_any_size_are_taken_as_shares(size):
    want = fastsoftmax.train(X, Y, weight=W, l2=0.01, class_weight={0: 1, 1: 0.5, 2: 0.25})
    far = {0: size, 1: size / 2, 2: size / 4}
    got = fastsoftmax.train(X, Y, weight=W * size, l2=0.01, class_weight=far)
    assert_allclose(got.coef, want.coef, rtol=1e-4)


def test_weights_of_all_sizes_at_once_leave_no_overflow_unsaid():
    mixed = np.where(np.arange(60) < 50, 1e-310, 1e308)
    model = fastsoftmax.train(X, Y, weight=mixed, l2=0.01)
    assert np.isfinite(model.weights).all()
    report = fastsoftmax.evaluate(model, X, Y, mixed)
    assert (report.rows, np.isfinite(report.log_loss)) == (60, True)
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "y": Y, "w": mixed})
    parts = pa.concat_tables([table.slice(0, 50), table.slice(50)])
    with pytest.raises(DataError, match="divide those that are huge"):
        fastsoftmax.evaluate(model, parts, "y", "w")


def test_sums_of_weights_merge_in_the_unit_of_the_largest():
    labels = [0, 1, 0, 1]
    whole = scan(labels, [1e-305, 1e-305, 1e307, 1e308], cut=1)
    assert whole.mass[0] / whole.mass[1] == pytest.approx(0.1)
    assert whole.exponent > 1000
    small, large = LabelSums(given_classes([0, 1])), LabelSums(given_classes([0, 1]))
    for sums, size in ((small, 1e-305), (large, 1e308)):
        sums._add_classes(np.array([0, 1]), np.array([size, size]))
    for merged in (small + large, large + small):
        assert np.ldexp(merged._mass, merged._exponent - 1000)[0] > 1e4
