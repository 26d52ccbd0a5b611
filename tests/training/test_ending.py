"""Why a run ended, as its model says it, and where that is warned of."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import NotConverged
from fastsoftmax.training import learner


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


def test_a_run_that_chose_its_end_itself_says_how_to_go_on(rows, monkeypatch):
    monkeypatch.setattr(learner, "MOST_EPOCHS", 5)
    X, y = rows
    with pytest.warns(NotConverged, match=r"after 5 epochs before .* by solver=lbfgs"):
        model = fastsoftmax.train(np.sinh(3 * X), y, l2=1e-9)
    assert model.record["ended"] == "max_iter"


def says_the_truth(seed):
    """Return whether a run over columns of heavy tails is right, within a factor of three."""
    random = np.random.default_rng(seed)
    n, K = 6000, (4, 10)[seed % 2]
    tails = random.pareto(1.1, (n, 4)), random.standard_t(1.2, (n, 4)), random.normal(size=(n, 4))
    X = np.concatenate(tails, axis=1)
    near = np.clip(X, -3, 3)
    y = (near @ random.normal(size=(12, K)) + random.gumbel(size=(n, K))).argmax(axis=1)
    model = fastsoftmax.train(X, y)
    l2 = model.record["options"]["l2"]
    exact = {"solver": "lbfgs", "dtype": "float64", "tolerance": 1e-10, "epochs": 1000}
    best = fastsoftmax.train(X, y, l2=l2, standardize=True, **exact)

    def objective(model):
        losses = -model.predict_log_proba(X)[np.arange(n), np.searchsorted(model.classes, y)]
        return losses.mean() + l2 / 2 * np.square(model.coef * X.std(axis=0)).sum()

    truth, floor = objective(model) - objective(best), 1e-5 * np.log(K)
    gain = model.record["gain"]
    return gain <= floor if truth <= floor else truth / 3 <= gain <= 3 * truth


def test_what_a_run_says_is_left_to_gain_is_true_where_tails_are_heavy():
    """Of forty such runs one or two are not: a few rows have nearly all of the curvature."""
    assert sum(map(says_the_truth, range(10))) >= 9


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
