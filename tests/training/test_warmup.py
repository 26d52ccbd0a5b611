"""fastsoftmax warmup: what it says, and that a run after it has nothing left to compile."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import fastsoftmax
from fastsoftmax.cli import main as cli
from fastsoftmax.kernels.cholesky import factor, solve
from fastsoftmax.kernels.curvature import add_products, add_squares, class_probabilities
from fastsoftmax.kernels.gradient import add_gradient
from fastsoftmax.kernels.measure import add_moments
from fastsoftmax.kernels.scoring import judge_rows, logits_of_rows, probabilities_of_rows
from fastsoftmax.optim.rules import rowwise, rule
from fastsoftmax.optim.rules.rowwise import Rowwise
from fastsoftmax.training import warmup


def test_it_says_how_many_kernels_it_compiled_and_where_they_are_kept(monkeypatch, capsys):
    monkeypatch.setattr(warmup, "RULES", (Rowwise,))
    monkeypatch.setattr(warmup, "kept_in", lambda: "a folder")
    assert cli.main(["warmup"]) == 0
    out, _ = capsys.readouterr()
    assert re.search(r"compiled +\d+ kernels in ", out)
    assert "a folder" in out
    assert cli.main(["warmup", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "compiled" in out
    assert "0 kernels" in out
    assert not err


def test_a_run_after_it_compiles_nothing_more(monkeypatch):
    monkeypatch.setattr(warmup, "RULES", (Rowwise,))
    warmup.warm_up()
    before = len(rowwise.descend_rowwise.signatures), len(rule.measure.signatures)
    rng = np.random.default_rng(0)
    X = rng.integers(0, 9, (60, 5)).astype(np.uint8)
    y = X[:, 0] // 3
    for average in (False, True):
        fastsoftmax.train(X, y, validation=(X, y), average=average, epochs=1, learning_rate=1e-4)
    assert (len(rowwise.descend_rowwise.signatures), len(rule.measure.signatures)) == before


def test_full_gradients_after_it_compile_nothing_more(monkeypatch):
    monkeypatch.setattr(warmup, "RULES", (Rowwise,))
    warmup.warm_up()
    kernels = (
        add_products,
        add_squares,
        class_probabilities,
        factor,
        solve,
        add_gradient,
        add_moments,
    )
    before = [len(kernel.signatures) for kernel in kernels]
    X = np.random.default_rng(0).normal(size=(90, 5))
    y = (X[:, 0] > 0).astype(int)
    for dtype in ("float32", "float64"):
        fastsoftmax.train(X.astype(dtype), y, dtype=dtype)
        fastsoftmax.train(X.astype(dtype), y, dtype=dtype, solver="lbfgs", l1=1e-3)
    assert [len(kernel.signatures) for kernel in kernels] == before


def test_without_a_place_for_machine_code_it_says_what_to_do():
    finished = subprocess.run(
        [sys.executable, "-m", "fastsoftmax", "warmup"],
        env={**os.environ, "FASTSOFTMAX_CACHE": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "FASTSOFTMAX_CACHE" in finished.stderr


def test_predictions_after_it_compile_nothing_more(monkeypatch):
    monkeypatch.setattr(warmup, "RULES", (Rowwise,))
    warmup.warm_up()
    kernels = (logits_of_rows, probabilities_of_rows, judge_rows)
    before = [len(kernel.signatures) for kernel in kernels]
    monkeypatch.setattr("fastsoftmax.model.scoring.is_worth", lambda *sizes: True)
    X = np.random.default_rng(0).integers(0, 9, (60, 5)).astype(np.uint8)
    y, w = X[:, 0] // 3, np.ones(60)
    w.flags.writeable = False
    model = fastsoftmax.train(X, y, epochs=1, learning_rate=1e-4)
    fastsoftmax.evaluate(model, X, y, w)
    fastsoftmax.evaluate(model, np.asfortranarray(X), y)
    model.predict_proba(X)
    model.predict(X)
    assert [len(kernel.signatures) for kernel in kernels] == before


SPARSE = """
import numpy, scipy.sparse, pyarrow
from fastsoftmax import train
from fastsoftmax.kernels.compile import Call, Kernel
from fastsoftmax.training.warmup import all_calls
foreseen, missed, ready = set(all_calls()), set(), Kernel.ready
def noted(kernel, kinds):
    if Call(kernel, kinds) not in foreseen:
        missed.add(kernel.name)
    return ready(kernel, kinds)
Kernel.ready = noted
Z = numpy.random.default_rng(0).random((90, 7))
X = scipy.sparse.csr_matrix(numpy.where(Z < 0.3, Z, 0.0))
y = [0, 1, 2] * 30
by_hand = {"epochs": 1, "learning_rate": 0.1}
train(X, y)
train(X, y, l1=0.01, dtype="float64", validation=(X, y), **by_hand)
train(X, y, batch_size=8, average=True, **by_hand)
train(X, y, adaptive=True, **by_hand)
text = pyarrow.table({"t": ["a b c", "b c", "d"] * 30, "y": y})
for own in ({}, {"bits": 8}):
    train(text, "y", text=["t"], **own).predict(text)
print(*missed)
"""


def test_sparse_rows_and_texts_after_it_compile_nothing_more():
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SPARSE],
        cwd=Path(fastsoftmax.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.stdout.split(), finished.stderr) == ([], "")
