"""Every option of every command, with values that it cannot have: one sentence each."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastsoftmax.cli.main import COMMANDS, main

VALUES = (
    *("", " ", "-", "--", "-1", "0", "1", "3", "1.5", "1e400", "nan", "inf", "-inf", "1e-320", "x"),
    *(str(2**63), str(2**70), "9" * 400, "1_0", "0x1", "٣", "true", "None", "auto", "a=", "=1"),
    *("a=1", "0=nan", "0=1,0=2", ",", ",,", '"', '""', "a\nb", "\x1b", "\udcff", "é", "x" * 5000),
    *("0", "m.st", "d.parquet", "no/such/place", "/", ".", "file:///no", "s3://", "10MB"),
)  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=60)
    rows = pa.table({"x": x, "w": abs(x), "y": np.arange(60) % 3, "k": ["a", "b"] * 30})
    pq.write_table(rows, "d.parquet")
    train = ["train", "d.parquet", "--target", "y", "--features", "x", "-o", "m.st"]
    assert main([*train, "--epochs", "1", "--learning-rate", "0.1", "--quiet"]) == 0
    return tmp_path


def usual(command: str) -> list[str]:
    """Return what a command needs at least."""
    trained = ["d.parquet", "--target", "y", "-o", "out.st", "--features", "x"]
    quick = ["--learning-rate", "0.1", "--epochs", "1"]
    tried = ["d.parquet", "--target", "y", "--features", "x", *quick]
    return {
        "train": [*trained, *quick],
        "sweep": [*trained, *quick],
        "cross-validate": [*tried, "--folds", "2"],
        "audit": [*tried, "--folds", "2"],
        "learning-curve": [*tried, "--fractions", "0.3,0.6,1"],
        "convert": ["d.parquet", "-o", "out.arrow"],
        "evaluate": ["m.st", "d.parquet"],
        "calibrate": ["m.st", "d.parquet", "-o", "out.st"],
        "predict": ["m.st", "d.parquet", "-o", "out.arrow"],
        "pack": ["d.parquet", "--features", "x", "-o", "out.arrow"],
        "inspect": ["d.parquet"],
        "export": ["m.st", "-o", "out.json"],
        "report": ["m.st", "d.parquet", "-o", "out.html"],
        "warmup": [],
    }[command]


def complaint(argv: list[str], code: int, err: str) -> str | None:
    """Return what is wrong with how a command ended, or None."""
    lines = [line for line in err.splitlines() if line.startswith("fastsoftmax: ")]
    lines = [line for line in lines if not line.startswith("fastsoftmax: warning: ")]
    if code not in (0, 2, 3, 4) or "an error of fastsoftmax itself" in err:
        return f"{argv}: exit code {code}: {err[-300:]}"
    if len(lines) != (code != 0):
        return f"{argv}: exit code {code} and {len(lines)} sentences: {err[-300:]}"
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "warmup"])
def test_a_wrong_value_of_any_option_is_one_sentence(here, command, capfd):
    parser, wrong = COMMANDS[command][0](), []
    for turn, (flag, action) in enumerate(parser._option_string_actions.items()):
        if action.nargs is not None:
            continue
        step = {"train": 3, "sweep": 3, "cross-validate": 9, "audit": 9, "learning-curve": 9}
        every = step.get(command, 1)
        for value in VALUES[turn % every :: every]:
            if flag == "--epochs" and value.isdecimal() and len(value) > 9:
                continue  # it can have that many
            if (flag, value) == ("--validation", "/"):
                continue  # which names every file of this machine
            argv = [command, *usual(command), f"{flag}={value}"]
            code = main(argv)
            found = complaint(argv, code, capfd.readouterr().err)
            wrong += [found] if found else []
            for name in ("out.st", "out.arrow", "out.json", "out.html"):
                if os.path.exists(name):
                    os.remove(name)
    assert not wrong, "\n".join(wrong)
