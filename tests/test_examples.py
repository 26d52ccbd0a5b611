"""The examples run, and what they claim holds."""

from __future__ import annotations

import gzip
import importlib.util
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest

import fastsoftmax

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DATA = EXAMPLES / "data"


def load_script(name: str) -> ModuleType:
    """Import a script of the examples folder."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_script(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Run a script as `python examples/NAME.py ARGUMENTS` would."""
    monkeypatch.setattr("sys.argv", [name, *arguments])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def five_point_slope(f, x, h=1e-3):
    """Return the derivative of f at x to fourth order in h."""
    return (f(x - 2 * h) - 8 * f(x - h) + 8 * f(x + h) - f(x + 2 * h)) / (12 * h)


def test_true_probabilities_are_the_bayes_posterior():
    script = load_script("three_gaussians")
    x = script.GRID
    density = np.exp(-((x[:, None] - 2 * script.CLASSES) ** 2) / 2)
    want = density / density.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(script.true_probabilities(x), want, rtol=1e-12)


def test_true_log_odds_have_the_slopes_that_the_example_states():
    script = load_script("three_gaussians")

    def log_odds(x):
        log_p = np.log(script.true_probabilities(x))
        return log_p - log_p[:, :1]

    got = five_point_slope(log_odds, np.array([1.0, 4.0, 7.0]))
    np.testing.assert_allclose(got, np.tile([0.0, 2.0, 4.0], (3, 1)), atol=1e-9)


def test_three_gaussians_are_learnt_within_a_hundredth(tmp_path):
    script = load_script("three_gaussians")
    model = script.learn()
    assert script.largest_deviation(model) <= 0.01
    script.draw_curves(model, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_drawing_without_matplotlib_names_the_extra(tmp_path, monkeypatch):
    script = load_script("three_gaussians")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(fastsoftmax.MissingExtraError, match=r"fastsoftmax\[plot\]"):
        script.draw_curves(None, tmp_path / "curves.png")


def test_numpy_arrays_runs(tmp_path, monkeypatch, capsys):
    run_script("numpy_arrays", monkeypatch, str(tmp_path / "flowers.safetensors"))
    assert "is a daisy" in capsys.readouterr().out


def test_from_polars_runs(monkeypatch, capsys):
    pytest.importorskip("polars")
    run_script("from_polars", monkeypatch)
    assert "of 360 digits" in capsys.readouterr().out


def test_a_cluster_that_loses_a_worker_makes_the_same_model():
    pytest.importorskip("distributed", reason="distributed is not installed")
    # In a process of its own: what a cluster leaves behind is none of the other tests' business.
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "dask_cluster.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the same model" in done.stdout


def test_digits_are_what_their_script_makes(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    run_script("make_digits", monkeypatch, str(tmp_path))
    for name in ("digits-train.parquet", "digits-test.parquet"):
        got = pq.read_table(DATA / name, page_checksum_verification=True)
        assert got.equals(pq.read_table(tmp_path / name))


def test_digits_make_a_good_model():
    model = fastsoftmax.train(DATA / "digits-train.parquet", "digit")
    report = fastsoftmax.evaluate(model, DATA / "digits-test.parquet")
    assert report.rows == 360
    assert report.accuracy >= 0.93
    assert report.log_loss < 0.25


def test_fashion_says_in_one_sentence_that_it_needs_apt(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(SystemExit) as stopped:
        run_script("fashion", monkeypatch, str(tmp_path))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_fashion_says_in_one_sentence_that_a_download_failed(tmp_path, monkeypatch, capsys):
    failed = subprocess.CompletedProcess([], returncode=100)
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(SystemExit) as stopped:
        run_script("fashion", monkeypatch, str(tmp_path))
    assert stopped.value.code == 1
    assert "could not download" in capsys.readouterr().err


def test_fashion_reads_idx_and_writes_parquet(tmp_path):
    script = load_script("fashion")
    images = np.arange(3 * 784, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
    header = bytes([0, 0, 8, 3]) + np.array(images.shape, ">i4").tobytes()
    (tmp_path / "idx.gz").write_bytes(gzip.compress(header + images.tobytes()))
    read = script.read_idx(tmp_path / "idx.gz")
    script.write_parquet(read, np.array([0, 9, 1], np.uint8), tmp_path / "three.parquet")
    table = pq.read_table(tmp_path / "three.parquet", page_checksum_verification=True)
    np.testing.assert_array_equal(np.stack(table["pixels"].to_numpy()), images.reshape(3, 784))
    assert table["label"].to_pylist() == [0, 9, 1]


def test_descriptions_say_in_one_sentence_that_they_need_apt(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(SystemExit) as stopped:
        run_script("descriptions", monkeypatch, str(tmp_path))
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_descriptions_are_read_from_the_lists_of_packages(tmp_path, monkeypatch):
    script = load_script("descriptions")
    lists = {
        "Packages": "Package: a\nSection: contrib/games\nDescription-md5: 1\n\nPackage: b\n"
        "Source: a (1.0)\nSection: games\nDescription-md5: 2\n\nPackage: a\nSection: x\n"
        "Description-md5: 1\n",
        "Translations": "Package: a\nDescription-md5: 1\nDescription-en: short\n long\n .\n"
        " more\n\nPackage: b\nDescription-md5: 2\nDescription-en: other\n",
    }

    def run(command):
        return lists[command[-1]] if "cat-file" in command else command[-1].split(": ")[1]

    monkeypatch.setattr(script, "run", run)
    found = list(script.rows(tmp_path))
    assert [row for _, row in found] == [
        {"title": "a", "body": "short\nlong\n\nmore", "section": "games"},
        {"title": "b", "body": "other", "section": "games"},
    ]
    assert found[0][0] == found[1][0]  # of one source, both are for the test or none
    script.write([row for _, row in found], tmp_path / "d.parquet")
    assert pq.read_table(tmp_path / "d.parquet").num_rows == 2
