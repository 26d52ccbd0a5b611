"""A learning curve says what the models of fewer rows lose, and a forecast that comes true."""

from __future__ import annotations

import json

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import OptionError
from fastsoftmax.cli.main import main
from tests.floors import ROOT

GIVEN = {"l2": 1e-4, "solver": "lbfgs", "dtype": "float64", "scaling": "off"}


def drawn(seed, n, d=20, K=4):
    """Return rows of a softmax model, whose excess loss falls as 1 / rows."""
    rng = np.random.default_rng(seed)
    W = np.random.default_rng(1).normal(size=(K, d)) * 0.4
    X = rng.normal(size=(n, d))
    return X, (X @ W.T + rng.gumbel(size=(n, K))).argmax(axis=1)


def test_the_forecast_comes_true_within_its_error():
    off = []
    X_new, y_new = drawn(99, 20_000)
    for seed in range(6):
        X, y = drawn(seed, 3000)
        curve = fastsoftmax.learning_curve(X[:1500], y[:1500], **GIVEN)
        n = curve.rows[-1]
        models = [fastsoftmax.train(X[:size], y[:size], **GIVEN) for size in (n, 2 * n)]
        losses = [fastsoftmax.evaluate(m, X_new, y_new).log_loss for m in models]
        off.append((curve.gain - (losses[0] - losses[1])) / curve.forecast_error)
    assert np.abs(off).max() < 4
    assert np.sqrt(np.mean(np.square(off))) < 2
    assert abs(np.mean(off)) < 1.5


def test_the_curve_falls_and_its_errors_do():
    curve = fastsoftmax.learning_curve(*drawn(0, 4000), **GIVEN)
    assert len(curve.rows) == len(curve.log_loss) == len(curve.error) == 5
    assert list(curve.rows) == sorted(curve.rows)
    assert curve.rows[-1] == pytest.approx(3200, rel=0.03)
    assert curve.log_loss[0] > curve.log_loss[2] > curve.log_loss[-1] > curve.forecast
    assert curve.gain > 0
    assert curve.forecast_error > 0


def test_a_curve_that_has_come_to_its_end_forecasts_next_to_nothing():
    X, y = drawn(0, 20_000, d=2, K=2)
    curve = fastsoftmax.learning_curve(X, y, **GIVEN)
    assert curve.gain < 5e-4


def test_no_forecast_is_below_nothing():
    """Of labels that anybody can tell."""
    random = np.random.default_rng(1)
    X = random.normal(size=(600, 2))
    curve = fastsoftmax.learning_curve(X, (X[:, 0] > 0).astype(int))
    assert 0 <= curve.forecast < curve.log_loss[-1]
    assert curve.gain > 0.1 * curve.log_loss[-1]


def test_the_same_rows_give_the_same_curve():
    rows = drawn(0, 1000)
    one, two = (fastsoftmax.learning_curve(*rows, threads=t, **GIVEN) for t in (1, 2))
    assert one == two


@pytest.mark.parametrize("fractions", [[0.5, 1.0], [0.5, 0.2, 1], [0, 0.5, 1], [0.5, 1, 2], "x", 3])
def test_fractions_that_make_no_curve_are_refused(fractions):
    with pytest.raises(OptionError, match="fractions must be three numbers or more in"):
        fastsoftmax.learning_curve(*drawn(0, 100), fractions=fractions)


def test_the_command_says_what_twice_the_rows_would_gain(capsys):
    data = str(ROOT / "examples/data/digits-train.parquet")
    given = ["learning-curve", data, "--target", "digit", "--l2", "0.001", "--quiet"]
    assert main([*given, "--fractions", "0.25,0.5,1"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4
    assert shown[-1].startswith("twice the rows  would gain about 0.0")
    assert main([*given, "--json", "--fractions", "0.25,0.5,1"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        "rows", "log_loss", "error", "forecast", "forecast_error",
    }  # fmt: skip
