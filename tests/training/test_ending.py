"""Why a run ended, as its model says it, and where that is warned of."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import NotConverged


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(5)
    X = random.normal(size=(3000, 10))
    return X, (X[:, :4] + random.gumbel(size=(3000, 4))).argmax(axis=1)


@pytest.mark.parametrize(
    ("options", "ended"),
    [
        ({}, "floor"),
        ({"tolerance": 1e-4}, "tolerance"),
        ({"solver": "lbfgs", "l2": 1e-3}, "tolerance"),
        ({"learning_rate": 0.01, "epochs": 3}, "epochs"),
        ({"epochs": 2}, "epochs"),
        ({"learning_rate": 0.01, "holdout": 0.2, "patience": 1, "epochs": 90}, "patience"),
        ({"learning_rate": 0.01, "report": lambda progress: progress.finished}, "callback"),
        ({"shuffle_window": 512, "l2": 1e-3}, "floor"),
    ],
)
def test_a_model_tells_why_its_run_ended(rows, options, ended, tmp_path):
    model = fastsoftmax.train(*rows, **options)
    assert model.record["ended"] == ended
    model.save(tmp_path / "m")
    assert fastsoftmax.load(tmp_path / "m").record["ended"] == ended


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"solver": "lbfgs", "l2": 1e-4, "epochs": 1}, "epochs"),
        ({"epochs": 10_000, "learning_rate": 1e-3, "max_seconds": 0.01}, "max_seconds"),
    ],
)
def test_a_fit_that_a_limit_ended_is_warned_of(rows, options, limit):
    with pytest.warns(NotConverged, match=f"ended by {limit} before it had converged"):
        model = fastsoftmax.train(*rows, **options)
    assert model.record["ended"] == limit


def test_epochs_that_were_asked_for_are_no_matter_for_a_warning(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastsoftmax.train(*rows, epochs=2)


def test_an_interrupted_model_says_so(rows):
    def interrupt(progress):
        if progress.finished:
            raise KeyboardInterrupt

    with pytest.raises(fastsoftmax.TrainingInterrupted) as caught:
        fastsoftmax.train(*rows, learning_rate=0.01, epochs=5, report=interrupt)
    assert caught.value.model.record["ended"] == "interrupt"
