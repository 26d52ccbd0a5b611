"""What a default run makes of data of all kinds: its test loss beside the best of scikit-learn.

The best C of StandardScaler + LogisticRegression is chosen on the test rows themselves.
"""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import pytest

import fastsoftmax
from bench.problems import KINDS, Problem, problem

CS = tuple(10.0**power for power in range(-3, 5))
FEW = ("normal", "student t, few rows", "unlike scales, two classes", "rare features")


def best_of_scikit_learn(rows: Problem) -> float:
    """Return the lowest test loss over C."""
    linear = pytest.importorskip("sklearn.linear_model")
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    X = scaler.fit_transform(rows.X.astype(np.float64))
    X_test = scaler.transform(rows.X_test.astype(np.float64))
    losses = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for C in CS:
            fit = linear.LogisticRegression(C=C, max_iter=300).fit(X, rows.y)
            places = np.searchsorted(fit.classes_, rows.y_test)
            logs = fit.predict_log_proba(X_test)
            losses.append(-float(logs[np.arange(len(places)), places].mean()))
    return min(losses)


@pytest.mark.parametrize("name", KINDS)
def bench_problems(benchmark, report, quick, name) -> None:
    """Compare test losses, and say what the run says of its own end."""
    if quick and name not in FEW:
        pytest.skip("not among the few of --quick")
    rows = problem(name)
    known = np.isin(rows.y_test, np.unique(rows.y))
    rows = rows._replace(X_test=rows.X_test[known], y_test=rows.y_test[known])
    started = time.perf_counter()
    model = benchmark.pedantic(fastsoftmax.train, (rows.X, rows.y), rounds=1, iterations=1)
    seconds = time.perf_counter() - started
    losses = -model.predict_log_proba(rows.X_test)
    ours = float(losses[np.arange(len(losses)), np.searchsorted(model.classes, rows.y_test)].mean())
    best = best_of_scikit_learn(rows)
    report.add(
        "Data of all kinds: test log-loss of a default run and the best of scikit-learn",
        data=name,
        default=f"{ours:.4f}",
        best=f"{best:.4f}",
        ratio=f"{ours / best:.3f}" if best > 0 else "-",
        passes=str(len(model.history)),
        ended=model.record["ended"],
        gain=f"{model.record['gain'] / math.log(len(model.classes)):.1e} of guessing",
        s=f"{seconds:.2f}",
    )
