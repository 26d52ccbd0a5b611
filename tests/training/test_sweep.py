"""Many settings over one read: each the model trained alone, the field halved, the best first."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax import OptionError
from fastsoftmax.cli.main import main

RATES = [0.003, 0.01, 0.03, 0.1]


def made(rows: int = 12_000, d: int = 12, K: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(rows, d)).astype(np.float32)
    z = X @ rng.normal(size=(d, K)) + rng.gumbel(size=(rows, K))
    return X, z.argmax(axis=1)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": [0.01, 0.1], "l2": [0.0, 1e-3], "epochs": 2},
        {"learning_rate": 0.05, "batch_size": [1, 16], "epochs": 1},
        {"learning_rate": 0.01, "adaptive": [True, False], "average": True, "epochs": 1},
        {"learning_rate": 0.01, "class_weight": [None, "balanced"], "epochs": 1},
        {"l1": [0.0, 1e-2], "l2": 1e-4, "epochs": 2, "holdout": 0.2},
    ],
)
def test_each_model_has_the_bits_of_one_trained_alone(options):
    X, y = made()
    found = fastsoftmax.sweep(X, y, halve=False, keep_all=True, **options)
    assert len(found.models) == len(found.table) > 1
    varied = [name for name, value in options.items() if isinstance(value, list)]
    for line, model in zip(found.table, found.models, strict=True):
        own = options | {name: line[name] for name in varied}
        alone = fastsoftmax.train(X, y, **own)
        assert_array_equal(model.weights, alone.weights)
        assert model.history == alone.history
        assert model.record == alone.record


def test_models_do_not_depend_on_the_threads():
    X, y = made()
    one, three = (
        fastsoftmax.sweep(
            X, y, learning_rate=RATES, epochs=1, halve=False, keep_all=True, threads=t
        )
        for t in (1, 3)
    )
    assert one.table == three.table
    for a, b in zip(one.models, three.models, strict=True):
        assert_array_equal(a.weights, b.weights)


def test_the_field_is_halved_and_the_best_is_kept():
    X, y = made(40_000)
    found = fastsoftmax.sweep(X, y, learning_rate=[*RATES, 1.0, 10.0], epochs=2)
    status = [line["status"] for line in found.table]
    assert status[0] == "trained to the end"
    assert all(told.startswith("given up after") for told in status[1:])
    assert len(found.models) == 1
    alone = {rate: fastsoftmax.train(X, y, learning_rate=rate, epochs=2) for rate in RATES}
    best = min(alone, key=lambda rate: alone[rate].history[-1]["log_loss"])
    assert found.table[0]["learning_rate"] == best
    assert_array_equal(found.best.weights, alone[best].weights)


def test_a_setting_that_diverges_leaves_the_others_alone():
    X, y = made()
    found = fastsoftmax.sweep(X, y, learning_rate=[0.01, 1e30], epochs=1, halve=False)
    assert found.table[0]["learning_rate"] == 0.01
    assert found.table[1]["status"].startswith("diverged after")


def test_validation_ranks_where_there_is_any():
    X, y = made()
    kept = {"l2": [1e-5, 1.0], "halve": False, "epochs": 2}
    found = fastsoftmax.sweep(X[2000:], y[2000:], validation=(X[:2000], y[:2000]), **kept)
    losses = [line["validation_log_loss"] for line in found.table]
    assert losses == sorted(losses)
    assert found.table[0]["l2"] == 1e-5
    held = fastsoftmax.sweep(X, y, **kept)
    assert held.best.record["options"]["holdout"] == 0.1


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"seed": [0, 1]}, "seed cannot be a list"),
        ({"l2": []}, "l2 is an empty list"),
        ({"l2": [0.0, -1.0]}, "l2 must be >= 0"),
    ],
)
def test_lists_that_cannot_be_are_named(options, rule):
    with pytest.raises(OptionError, match=rule):
        fastsoftmax.sweep(*made(100), **options)


def test_the_command_ranks_settings_and_writes_the_best(tmp_path, capsys):
    X, y = made(3000)
    columns = {f"x{j}": X[:, j] for j in range(X.shape[1])}
    pq.write_table(pa.table({**columns, "y": y}), tmp_path / "a.parquet")
    args = ["sweep", str(tmp_path / "a.parquet"), "--target", "y", "--epochs", "2", "--quiet"]
    args += ["-o", str(tmp_path / "m.safetensors"), "--learning-rate", "0.01,0.1"]
    assert main([*args, "--all", str(tmp_path / "all"), "--no-halve"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["rank", "learning-rate", "log-loss"]
    assert lines[1].startswith("1 ")
    best = fastsoftmax.load(tmp_path / "m.safetensors")
    first = fastsoftmax.load(tmp_path / "all" / "1.safetensors")
    assert_array_equal(best.weights, first.weights)
    assert (tmp_path / "all" / "2.safetensors").exists()
    assert main([*args, "--all", str(tmp_path / "m.safetensors" / "all")]) == 2
    assert "cannot be made: Not a directory" in capsys.readouterr().err
