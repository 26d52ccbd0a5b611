"""A run that was stopped, or killed, and resumed leaves the bytes of one that was not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import fastsoftmax
from fastsoftmax import OptionError, TrainingInterrupted
from fastsoftmax.cli import main as cli
from fastsoftmax.model.safetensors import decode_tensors, encode_tensors
from fastsoftmax.optim.rules import rule
from fastsoftmax.training import callbacks
from fastsoftmax.training.checkpoint import Checkpoints
from tests.faults import Faults

ROOT = Path(__file__).resolve().parents[2]
STATES = ("checkpoint-a.safetensors", "checkpoint-b.safetensors")


pytestmark = pytest.mark.filterwarnings("ignore::fastsoftmax.errors.NotConverged")


@pytest.fixture(autouse=True)
def reports_after_each_span(monkeypatch):
    monkeypatch.setattr(callbacks, "REPORT_SECONDS", 0.0)


def made(rows: int = 30_000, d: int = 12, K: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(rows, d)).astype(np.float32)
    z = X @ rng.normal(size=(d, K)) + rng.gumbel(size=(rows, K))
    return X, z.argmax(axis=1)


def as_parquet(folder: Path) -> str:
    X, y = made()
    path = folder / "rows.parquet"
    table = pa.table({**{f"x{j}": X[:, j] for j in range(X.shape[1])}, "y": y})
    pq.write_table(table, path, row_group_size=2000)
    return str(path)


class StopAfter:
    """Ends a run at its nth report."""

    def __init__(self, reports: int) -> None:
        self.left = reports

    def __call__(self, progress: Any) -> bool:
        self.left -= 1
        return self.left <= 0


def saved(model: fastsoftmax.Model, folder: Path) -> bytes:
    model.save(folder / "model.safetensors")
    return (folder / "model.safetensors").read_bytes()


KINDS: dict[str, dict[str, Any]] = {
    "per-sample": {"epochs": 3},
    "mini-batch": {"epochs": 3, "batch_size": 48, "learning_rate": 0.1},
    "averaged": {"epochs": 2, "learning_rate": 0.01, "average": True},
    "adaptive": {"epochs": 2, "adaptive": True},
    "lbfgs": {"solver": "lbfgs", "epochs": 12},
    "sweep": {"learning_rate": [0.003, 0.01, 0.03], "epochs": 2},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "in memory": {},
    "windows": {"shuffle": "window", "shuffle_window": 8192, "cache": "off"},
    "packed": {"shuffle": "window", "shuffle_window": 8192},
    "cached": {"shuffle": "window", "shuffle_window": 8192, "cache": "disk"},
    "dealt": {"shuffle": "full", "shuffle_window": 8192},
}


def matrix(everything: bool) -> list[Any]:
    """Return the cases of the resume matrix: all, or a few in which each value occurs."""
    cases = list(
        itertools.product(
            KINDS, LAYOUTS, ("float32", "float64"), ({}, {"l2": 1e-4}, {"l1": 1e-3, "l2": 0.0}),
            ({}, {"holdout": 0.1, "patience": 1}),
        )
    )  # fmt: skip
    few = [*cases[::29], ("lbfgs", "in memory", "float32", {"l1": 1e-3, "l2": 0.0}, {})]
    return cases if everything else few


def train(data: str, **options: Any) -> fastsoftmax.Model:
    """Train a model, or the best of a sweep where a step size is a list."""
    if isinstance(options.get("learning_rate"), list):
        return fastsoftmax.sweep(data, "y", **options).best
    return fastsoftmax.train(data, "y", **options)


@pytest.mark.parametrize("case", matrix("FASTSOFTMAX_CRASH" in os.environ), ids=str)
def test_stopped_and_resumed_is_as_if_never_stopped(tmp_path, case):
    kind, layout, dtype, penalty, stopping = case
    options = {**KINDS[kind], **LAYOUTS[layout], **penalty, **stopping, "dtype": dtype}
    data = as_parquet(tmp_path)
    if layout == "packed":
        fastsoftmax.pack(data, tmp_path / "packed.parquet", "y")
        data = str(tmp_path / "packed.parquet")
    whole = saved(train(data, **options), tmp_path)
    folder = str(tmp_path / "state")
    for reports in (2, 3, 4):
        report = StopAfter(reports)
        train(data, checkpoint=folder, resume=reports > 2, report=report, **options)
    resumed = train(data, checkpoint=folder, resume=True, threads=1, **options)
    assert saved(resumed, tmp_path) == whole
    # After the end the same model comes out again, and how its last epoch went is told again.
    told: list[Any] = []
    again = train(data, checkpoint=folder, resume=True, report=told.append, **options)
    assert saved(again, tmp_path) == whole
    assert told[-1].finished
    if kind != "sweep":  # which may tell of another than its best at the end
        assert told[-1].facts().items() <= again.history[-1].items()


@pytest.mark.parametrize("K", [4, 600])  # blocks in turn, and with lookahead
def test_a_span_of_several_calls_is_resumed_too(tmp_path, monkeypatch, K):
    d = 512
    monkeypatch.setattr(rule, "CALL_FLOPS", 4 * K * d * 64)
    X, y = made(2500, d, K)
    options: dict[str, Any] = {"epochs": 2, "average": True, "l2": 0.0, "learning_rate": 1e-3}
    want = fastsoftmax.train(X, y, threads=1, **options)
    kept = {"checkpoint": str(tmp_path / "state"), "checkpoint_every": 1}
    fastsoftmax.train(X, y, report=StopAfter(3), threads=3, **options, **kept)
    got = fastsoftmax.train(X, y, resume=True, threads=2, **options, **kept)
    assert saved(got, tmp_path) == saved(want, tmp_path)


def test_a_sweep_is_resumed_too(tmp_path):
    X, y = made()
    options = {"learning_rate": [0.003, 0.01, 0.03, 0.1], "epochs": 2}
    whole = fastsoftmax.sweep(X, y, **options)
    folder = str(tmp_path / "state")
    fastsoftmax.sweep(X, y, checkpoint=folder, report=StopAfter(2), **options)
    resumed = fastsoftmax.sweep(X, y, checkpoint=folder, resume=True, **options)
    assert resumed.table == whole.table
    assert_array_equal(resumed.best.weights, whole.best.weights)


def test_killed_at_any_moment_and_resumed_is_as_if_never_killed(tmp_path):
    data = as_parquet(tmp_path)
    args = [sys.executable, "-m", "fastsoftmax", "train", data, "--target", "y", "--quiet"]
    args += ["--epochs", "60", "--shuffle-window", "8192", "--shuffle", "window"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(2):  # compiled in the first, if need be
        started = time.perf_counter()
        whole = subprocess.run([*args, "-o", tmp_path / "whole"], env=env, check=False)
        seconds = time.perf_counter() - started
        assert whole.returncode == 0
    args += ["--checkpoint-every", "8192", "--resume"]
    rng = np.random.default_rng(int(os.environ.get("FASTSOFTMAX_CRASH", "0")))
    kills = 200 if "FASTSOFTMAX_CRASH" in os.environ else 6
    killed = ended = 0
    for _ in range(kills):
        # Where a run ends before it is killed, another begins.
        out = tmp_path / f"out{ended}"
        kept = ["--checkpoint", str(tmp_path / f"state{ended}"), "-o", out]
        process = subprocess.Popen(
            [*args, *kept], env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        time.sleep(seconds * float(rng.uniform(0.2, 1.0)))
        is_killed = process.poll() is None
        killed += is_killed
        process.kill()
        process.wait()
        if not is_killed:
            assert out.read_bytes() == (tmp_path / "whole").read_bytes()
            ended += 1
    assert killed > 0
    out, state = tmp_path / f"out{ended}", tmp_path / f"state{ended}"
    done = subprocess.run([*args, "--checkpoint", state, "-o", out], env=env, check=False)
    assert done.returncode == 0
    assert out.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_run_killed_before_its_model_was_written_writes_it_when_resumed(tmp_path, capsys):
    data, out = as_parquet(tmp_path), tmp_path / "model"
    args = ["train", data, "--target", "y", "--epochs", "2", "--quiet", "-o", str(out)]
    args += ["--checkpoint", str(tmp_path / "state"), "--resume"]
    assert cli.main(args) == 0
    before, model = capsys.readouterr().out.splitlines(), out.read_bytes()
    out.unlink()
    assert cli.main(args) == 0
    again = capsys.readouterr().out.splitlines()
    assert out.read_bytes() == model
    differing = {old.split()[0] for old, new in zip(before, again, strict=True) if old != new}
    assert differing <= {"time"}


def test_a_signal_keeps_the_state_and_says_how_to_go_on(tmp_path):
    data = as_parquet(tmp_path)
    args = [sys.executable, "-m", "fastsoftmax", "train", data, "--target", "y"]
    args += ["--epochs", "100000", "-o", "m", "--checkpoint", "state"]
    process = subprocess.Popen(
        args, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while process.stderr.readline().startswith("compiling, once: "):
        continue
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "kept in state: go on with --resume" in err
    assert not (tmp_path / "m").exists()
    assert any((tmp_path / "state" / name).exists() for name in STATES)


def test_an_interrupt_carries_the_model():
    X, y = made()

    def interrupt(progress: Any) -> None:
        if progress.rows_seen > 15_000:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterrupted) as caught:
        fastsoftmax.train(X, y, learning_rate=0.01, report=interrupt)
    model = caught.value.model
    assert isinstance(caught.value, KeyboardInterrupt)
    assert 15_000 < model.history[-1]["rows"] < 30_000
    assert fastsoftmax.evaluate(model, X, y).accuracy > 0.6


@pytest.mark.filterwarnings("ignore:a checkpoint is damaged")
def test_a_damaged_newest_checkpoint_falls_back_to_the_older(tmp_path):
    X, y = made()
    folder = tmp_path / "state"
    options = {"learning_rate": 0.01, "epochs": 2, "checkpoint": str(folder)}
    whole = fastsoftmax.train(X, y, **{**options, "checkpoint": None})
    fastsoftmax.train(X, y, report=StopAfter(4), checkpoint_every=1, **options)
    newest = max((folder / name for name in STATES), key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    with pytest.warns(UserWarning, match="a checkpoint is damaged"):
        resumed = fastsoftmax.train(X, y, resume=True, **options)
    assert saved(resumed, tmp_path) == saved(whole, tmp_path)
    for name in STATES:
        (folder / name).write_bytes(b"nothing")
    with pytest.raises(OptionError, match=r"no checkpoint in .* is whole"):
        fastsoftmax.train(X, y, resume=True, **options)


def test_other_options_or_data_are_refused_with_what_differs(tmp_path):
    X, y = made()
    kept = {"checkpoint": str(tmp_path / "state"), "epochs": 2}
    fastsoftmax.train(X, y, report=StopAfter(2), learning_rate=0.01, **kept)
    with pytest.raises(OptionError, match=r"options\.l2 was 'auto', is 0\.5"):
        fastsoftmax.train(X, y, learning_rate=0.01, l2=0.5, resume=True, **kept)
    with pytest.raises(OptionError, match=r"data\.0\.crc32 was \d+, is \d+"):
        fastsoftmax.train(X + 1, y, learning_rate=0.01, resume=True, **kept)
    with pytest.raises(OptionError, match="holds checkpoints of a run: go on with it by resume"):
        fastsoftmax.train(X, y, learning_rate=0.01, **kept)


def test_data_written_again_are_refused_or_told_of(tmp_path, caplog):
    X, y = made(2000)
    path = tmp_path / "rows.parquet"
    table = pa.table({"a": X[:, 0], "b": X[:, 1], "y": y})
    pq.write_table(table, path)
    kept = {"checkpoint": str(tmp_path / "state"), "epochs": 2}
    fastsoftmax.train(path, "y", report=StopAfter(1), **kept)
    os.utime(path, ns=(1, 1))
    fastsoftmax.train(path, "y", resume=True, **kept)
    assert "rows.parquet was written again since the checkpoint" in caplog.text
    caplog.clear()
    fastsoftmax.train(path, "y", resume=True, **kept)  # that of the copy is kept since
    assert "written again" not in caplog.text
    pq.write_table(table.set_column(0, "a", [X[:, 0] + 1]), path)
    with pytest.raises(OptionError, match=r"data\.0\.sha256 was "):
        fastsoftmax.train(path, "y", resume=True, **kept)


def test_a_folder_serves_one_run_at_a_time(tmp_path):
    X, y = made(1000)
    with open(tmp_path / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OptionError, match="in use by another run"):
            fastsoftmax.train(X, y, checkpoint=str(tmp_path))


def test_an_empty_folder_begins_and_says_so(tmp_path, caplog):
    X, y = made(1000)
    fastsoftmax.train(X, y, checkpoint=str(tmp_path / "new"), resume=True, epochs=1)
    assert "has no checkpoint: the run starts anew" in caplog.text


def test_a_full_disk_costs_a_warning(tmp_path, monkeypatch):
    X, y = made()

    def full(*_: Any) -> None:
        raise fastsoftmax.SaveError("the disk is full.")

    monkeypatch.setattr("fastsoftmax.training.checkpoint.write_file", full)
    with pytest.warns(UserWarning, match=r"no checkpoint could be kept: the disk is full\."):
        model = fastsoftmax.train(
            X, y, checkpoint=str(tmp_path / "state"), learning_rate=0.01, epochs=1
        )
    alone = fastsoftmax.train(X, y, learning_rate=0.01, epochs=1)
    assert saved(model, tmp_path) == saved(alone, tmp_path)


def test_whichever_step_of_a_save_fails_a_whole_checkpoint_is_there(tmp_path):
    state: dict[str, Any] = {"visited": 1, "plan": ["all", 5, 0, 0]}

    def keep(number: int) -> None:
        with Checkpoints(str(tmp_path), "30s", {}) as checkpoints:
            if number > 1:
                checkpoints.load(resume=True)
            checkpoints.keep(lambda: (state | {"number": number}, {"x": np.full(5, number)}))

    keep(1)
    keep(2)
    number, passed = 3, False
    while not passed:
        faults = Faults(number - 2, errno.EIO)
        # The first two steps open the folder's lock.
        with warnings.catch_warnings(), faults.injected(), contextlib.suppress(OptionError):
            warnings.simplefilter("ignore")
            keep(number)
        passed = faults.failed is None
        with Checkpoints(str(tmp_path), "30s", {}) as checkpoints:
            facts, arrays = checkpoints.load(resume=True)
        assert facts["number"] in range(2, number + 1)
        assert_array_equal(arrays["x"], np.full(5, facts["number"]))
        number += 1
    assert facts["number"] == number - 1
    assert number > 8


@pytest.mark.filterwarnings("ignore:a checkpoint is damaged")
@pytest.mark.parametrize("damage", [{}, {"place": 3}, {"learners": [{}]}, {"plan": [1, 2]}])
def test_a_checkpoint_that_makes_no_sense_is_refused(tmp_path, damage):
    X, y = made(2000)
    options = {"learning_rate": 0.01, "epochs": 1, "checkpoint": str(tmp_path)}
    fastsoftmax.train(X, y, **options)
    for name in STATES:
        if (tmp_path / name).exists():
            arrays, metadata = decode_tensors(tmp_path / name)
            text = json.loads(metadata["run"])
            text["state"] = {**text["state"], **damage} if damage else {"visited": 0}
            metadata["run"] = json.dumps(text)
            (tmp_path / name).write_bytes(b"".join(encode_tensors(arrays, metadata)))
    with pytest.raises(OptionError, match=r"is not usable|in .* is whole"):
        fastsoftmax.train(X, y, resume=True, **options)


@pytest.mark.parametrize("every", ["x", "-1s", "0", "1.5", "5d"])
def test_an_interval_that_cannot_be_is_refused(every):
    with pytest.raises(OptionError, match="checkpoint_every must be a time"):
        fastsoftmax.train(*made(100), checkpoint="x", checkpoint_every=every)


def test_resume_needs_a_folder():
    with pytest.raises(OptionError, match="name its folder with checkpoint="):
        fastsoftmax.train(*made(100), resume=True)


def test_other_validation_rows_are_refused(tmp_path):
    X, y = made(2000)
    options = {"learning_rate": 0.01, "epochs": 2, "checkpoint": str(tmp_path / "state")}
    fastsoftmax.train(X, y, validation=(X[:100], y[:100]), report=StopAfter(1), **options)
    with pytest.raises(OptionError, match=r"of another run: validation\.0\.crc32 was \d+, is \d+"):
        fastsoftmax.train(X, y, validation=(X[:99], y[:99]), resume=True, **options)
    fastsoftmax.train(X, y, validation=(X[:100], y[:100]), resume=True, **options)
