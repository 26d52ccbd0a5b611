"""How soon the optimum is near: the objective of the returned model against the seconds it took.

Rows and penalty as in `bench_peers`, l2 = 1/n; everything is counted, from the call to the model.
All get all cores. A trainer that can be stopped early is run anew for each point; PyTorch, which
tells of its steps, once. Peers that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from bench.bench_peers import Data, load_data

Points = list[tuple[float, float]]  # seconds, objective
Trainer = Callable[[Data], Points]
LIMITS = (0.01, 0.001)  # of the optimum: how near is near


def objective(data: Data, W: np.ndarray, b: np.ndarray) -> float:
    """Return the mean loss and the penalty, in float64."""
    total = 0.0
    for first in range(0, len(data.y), 10_000):
        X, y = data.X[first : first + 10_000].astype(np.float64), data.y[first : first + 10_000]
        z = X @ W.T + b
        top = z.max(axis=1)
        total += float((np.log(np.exp(z - top[:, None]).sum(axis=1)) + top).sum())
        total -= float(z[np.arange(len(y)), y].sum())
    return (total + 0.5 * float((W**2).sum())) / len(data.y)


def own(**options: object) -> Callable[[Data], tuple[np.ndarray, np.ndarray]]:
    """fastsoftmax, to the end of its passes, or until little is left to gain."""

    def fit(data: Data) -> tuple[np.ndarray, np.ndarray]:
        model = fastsoftmax.train(data.X, data.y, l2=1 / len(data.y), **options)
        return model.coef, model.intercept

    return fit


def by_scikit_learn(solver: str, passes: int) -> Callable[[Data], tuple[np.ndarray, np.ndarray]]:
    """LogisticRegression, so many iterations."""
    linear_model = pytest.importorskip("sklearn.linear_model")

    def fit(data: Data) -> tuple[np.ndarray, np.ndarray]:
        model = linear_model.LogisticRegression(solver=solver, max_iter=passes, tol=1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged yet
            model.fit(data.X, data.y)
        return model.coef_.astype(np.float64), model.intercept_.astype(np.float64)

    return fit


def run_torch(data: Data, passes: int) -> Points:
    """Take full-batch L-BFGS steps with a line search; note the objective as it goes."""
    torch = pytest.importorskip("torch")
    n, d = data.X.shape
    layer = torch.nn.Linear(d, 10)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    rows, labels = torch.from_numpy(data.X), torch.from_numpy(data.y)
    steps = torch.optim.LBFGS(
        layer.parameters(), max_iter=passes, history_size=20, line_search_fn="strong_wolfe",
        tolerance_grad=0, tolerance_change=0,
    )  # fmt: skip
    points: Points = []
    started = time.perf_counter()

    def closure():
        steps.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer(rows), labels)
        loss = loss + (layer.weight**2).sum() / (2 * n)
        loss.backward()
        points.append((time.perf_counter() - started, float(loss)))
        return loss

    steps.step(closure)
    return points


def timed(fits: list[Callable[[Data], tuple[np.ndarray, np.ndarray]]], data: Data) -> Points:
    """Return when each returned a model, and what that model's objective is."""
    points = []
    for fit in fits:
        started = time.perf_counter()
        W, b = fit(data)
        points.append((time.perf_counter() - started, objective(data, W, b)))
    return points


def seconds_to(points: Points, goal: float) -> float | None:
    """Return after how many seconds the objective was first at most `goal`."""
    reached = [seconds for seconds, value in points if value <= goal]
    return min(reached, default=None)


def trainers(quick: bool) -> dict[str, tuple[str, Trainer]]:
    """Return the trainers: the module that each needs, and how it is run."""
    tolerances = (1e-1, 1e-2, 5e-3, 2e-3, 1e-3, 1e-4, 1e-5, 1e-6)[:: 3 if quick else 1]
    share = 0.05 if quick else 1.0

    def scikit_learn(solver: str, passes: tuple[int, ...]) -> tuple[str, Trainer]:
        fits = [by_scikit_learn(solver, max(int(p * share), 1)) for p in passes]
        return "sklearn", lambda data: timed(fits, data)

    full = [own(solver="lbfgs", tolerance=tolerance) for tolerance in tolerances]
    if not quick:
        full += [own(solver="lbfgs", epochs=passes) for passes in (18, 20, 22)]
    return {
        "fastsoftmax, solver=lbfgs": ("numpy", lambda data: timed(full, data)),
        "fastsoftmax, by default": ("numpy", lambda data: timed([own()], data)),
        "scikit-learn, lbfgs": scikit_learn("lbfgs", (10, 50, 200, 440, 850)),
        "scikit-learn, saga": scikit_learn("saga", (5, 20, 60)),
        "scikit-learn, newton-cholesky": scikit_learn("newton-cholesky", (2,)),
        "PyTorch, LBFGS": ("torch", lambda data: run_torch(data, int(900 * share))),
    }


def bench_optimum(benchmark, report, quick) -> None:
    """Run each trainer to several distances from the optimum; write the table and the picture."""
    data = load_data(3_000 if quick else 60_000)
    for options in ({"solver": "lbfgs", "tolerance": 1e-2}, {"epochs": 4}):
        own(**options)(data)  # compiled before it is timed
    with _all_cores():
        best = objective(data, *own(solver="lbfgs", tolerance=1e-9, dtype="float64")(data))
        found: dict[str, Points] = {}

        def one_round() -> None:
            for name, (module, run) in trainers(quick).items():
                if importlib.util.find_spec(module) is not None:
                    found[name] = run(data)

        benchmark.pedantic(one_round, rounds=1, iterations=1)
    firsts = [seconds_to(found["fastsoftmax, solver=lbfgs"], best * (1 + by)) for by in LIMITS]
    title = f"Full objective, l2 = 1/n, optimum {best:.6f}: seconds until it is near, all cores"
    for name, points in found.items():
        row = {"trainer": name}
        for by, first in zip(LIMITS, firsts, strict=True):
            taken = seconds_to(points, best * (1 + by))
            near = f"{points[-1][1] / best - 1:.2%} after {points[-1][0]:.0f} s"
            row[f"to {by:.1%}, s"] = f"not yet: {near}" if taken is None else f"{taken:.2f}"
            known = taken is not None and first is not None
            row[f"times fastsoftmax, {by:.1%}"] = f"{taken / first:.1f}" if known else ""
        report.add(title, **row)
    if not quick:
        draw(found, best, Path(__file__).parent / "optimum.png")
        report.pictures[title] = "optimum.png"


def draw(found: dict[str, Points], best: float, path: Path) -> None:
    """Draw how far the objective is above the optimum, against seconds, both by logarithms."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, pane = pyplot.subplots(figsize=(7, 4.2))
    for name, points in found.items():
        ahead = [(seconds, value / best - 1) for seconds, value in sorted(points)]
        seen = [(seconds, max(excess, 1e-6)) for seconds, excess in ahead]
        own = name.startswith("fastsoftmax")
        style = "o-" if len(seen) < 20 else "-"
        pane.loglog(*zip(*seen, strict=True), style, label=name, lw=2.2 if own else 1.2, ms=4)
    for limit in LIMITS:
        pane.axhline(limit, color="grey", lw=0.6, ls=":")
    pane.set_xlabel("seconds from the call to the model")
    pane.set_ylabel("objective above the optimum, relative")
    pane.set_ylim(1e-6, 10)
    pane.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def _all_cores():
    """Let BLAS, which `make bench` holds to one thread, use all cores meanwhile."""
    from contextlib import nullcontext

    if importlib.util.find_spec("threadpoolctl") is None:
        return nullcontext()
    import threadpoolctl

    from fastsoftmax.options import available_threads

    return threadpoolctl.threadpool_limits(available_threads())
