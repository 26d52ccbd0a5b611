"""Whether a default run is right about itself: the gain it says is left, beside the true one.

The truth is the objective of the saved model less that of a run in float64 which ends by full
gradients at a tolerance of 1e-12, both taken from the models' coefficients by NumPy.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import fastsoftmax
from bench.bench_defaults import DATA, splits
from bench.problems import KINDS, problem

FLOOR = 1e-5  # of the loss of guessing: below it a run ends, whatever is left
EXACT = {"solver": "lbfgs", "dtype": "float64", "tolerance": 1e-12, "epochs": 3000}
OWN = ("l2", "l1", "standardize", "fit_intercept")  # options that make the objective


def objective(model: fastsoftmax.Model, X: np.ndarray, y: np.ndarray, weighs: np.ndarray) -> float:
    """Return mean loss and penalty; weighs: what a unit of each coefficient (d,) counts for."""
    z = X.astype(np.float64) @ model.coef.T + model.intercept
    z -= z.max(axis=1, keepdims=True)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), np.searchsorted(model.classes, y)]
    l2 = model.record["options"]["l2"]
    return float(losses.mean() + l2 / 2 * np.square(model.coef * weighs).sum())


def drawn(name: str, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the training rows and classes of a kind of data, or of a known data set."""
    if name in DATA:
        split = next(splits(name, quick))
        return split.matrices[0], split.y
    rows = problem(name)
    return rows.X, rows.y


@pytest.mark.parametrize("name", [*DATA, *KINDS])
def bench_gain(benchmark, report, quick, name) -> None:
    """Compare the gain that a run tells with that which there was."""
    if quick and name not in ("digits", "normal"):
        pytest.skip("not among the few of --quick")
    X, y = drawn(name, quick)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = benchmark.pedantic(fastsoftmax.train, (X, y), rounds=1, iterations=1)
        same = {option: model.record["options"][option] for option in OWN}
        best = fastsoftmax.train(X, y, **same, **EXACT)
    deviations = X.std(axis=0, dtype=np.float64)
    weighs = deviations if same["standardize"] else np.ones(X.shape[1])
    truth = objective(model, X, y, weighs) - objective(best, X, y, weighs)
    unit = math.log(len(model.classes))
    gain = model.record["gain"]
    is_told = truth / 3 <= gain <= 3 * truth if truth > FLOOR * unit else gain <= FLOOR * unit
    report.add(
        "Gain that is left at the end of default runs, as shares of the loss of guessing",
        data=name,
        passes=str(len(model.history)),
        ended=model.record["ended"],
        told=f"{gain / unit:.1e}",
        truth=f"{truth / unit:.1e}",
        within="yes" if is_told else "no",
    )
