"""The line "to repeat" is one that a shell runs with the same result, whatever stands in it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastsoftmax.cli.parsers import parsed, train_parser
from fastsoftmax.cli.repeat import LEFT_OUT, same_run, shell_line
from fastsoftmax.cli.words import as_factors, as_list
from fastsoftmax.options import OPTIONS, TrainOptions

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = (
    *("-1", "-x", "--target", "--", "-", " Flow", "a b", "a,b", 'q"q', '"q"', "it's", "''", '""'),
    *("$HOME", "${x}", "$(id)", "`id`", "a;b|c&d", ">o", "<i", "~", "#c", "*", "?", "a[0]", "{a}"),
    *("!x", "!!", "\\", "\\n", "\\0101", "%s", "%b\\0101", "= y", "a=b", "\n", "a\nb", "x\n\n"),
    *("\r", "x\t", "\x1b[2J", "\x7f", "\u202e", "\u2028", "\u00a0", "é€", "日本", "\udcff"),
)  # fmt: skip
# On a busy machine an example takes as long as it takes.
PATIENT = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
ANYTHING = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.just("\udcff")
)


@pytest.fixture(scope="module")
def stub(tmp_path_factory) -> Path:
    """A folder with a command of the name fastsoftmax, that says which words it was given."""
    folder = tmp_path_factory.mktemp("stub")
    command = folder / "fastsoftmax"
    command.write_text('#!/bin/sh\nfor word in "$@"; do printf \'%s\\0\' "$word"; done\n')
    command.chmod(0o700)
    return folder


def words_of(line: str, stub: Path, shell: str = "/bin/sh") -> list[str]:
    """Return the words that a shell hands to the command in a line."""
    done = subprocess.run(
        [shell, "-c", line], capture_output=True, check=True,
        env={**os.environ, "PATH": f"{stub}:{os.environ['PATH']}"},
    )  # fmt: skip
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


def run_of(argv: list[str]) -> tuple[dict[str, Any], TrainOptions]:
    """Return what a command line asks for, as a run takes it."""
    args = parsed(train_parser(), argv)
    options = TrainOptions.of(**{name: args.pop(name) for name in OPTIONS if name in args})
    return args, options


def command(value: str, other: str) -> list[str]:
    """Return the words of a command in which a value stands wherever one can."""
    return [
        f"--target={value}", f"--weight={other}", "--features", f"a,{as_list([value, other])}",
        f"--categorical={as_list([value])}", f"--classes={as_list([value, other, 'n'])}",
        f"--class-weight={as_factors({value: 0.1, other + '2': 3e-9})}", f"--init={value}",
        f"--validation={value}", f"--validation={other}", f"-o={value}", f"--cache-folder={other}",
        f"--checkpoint={value}", "--no-fit-intercept", "--memory", "1 GB", "--", value, other,
    ]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_a_shell_hands_on_the_same_arguments(value, stub):
    other = HOSTILE[(HOSTILE.index(value) + 7) % len(HOSTILE)]
    args, options = run_of(command(value, other))
    line = same_run(args, options)
    assert line.isprintable()
    for shell in ("/bin/sh", "/bin/bash"):
        if os.path.exists(shell):
            again, as_well = run_of(words_of(line, stub, shell)[1:])
            assert again == args
            assert as_well == options.changed(**{name: OPTIONS[name].default for name in LEFT_OUT})


@PATIENT
@given(words=st.lists(ANYTHING, max_size=5), encoding=st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_a_line_is_one_that_can_be_shown_and_copied(words, encoding, stub):
    shown, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO(), encoding)
    try:
        line = shell_line(["fastsoftmax", *words])
    finally:
        sys.stdout = shown
    assert line.isprintable()
    assert line.encode(encoding)
    assert words_of(line, stub) == words


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(("value", "locale"), [("-1,'é\n\\", {}), (' "日本!$x', C_LOCALE)])
def test_a_shell_runs_it_with_the_same_result(tmp_path, value, locale):
    x = np.random.default_rng(0).normal(size=200)
    data, model = f"{value}.parquet", f"m{value}"
    table = {value: x, f"{value}w": abs(x), f"{value}y": np.where(x > 0, value, "other")}
    pq.write_table(pa.table(table), tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / data)
    run = [
        "train", f"--target={value}y", f"--features={as_list([value])}", f"--weight={value}w",
        f"--class-weight={as_factors({value: 2})}", f"--checkpoint={value}", f"-o={model}",
        "--epochs=1", "--learning-rate=0.1", "--quiet", "--", data,
    ]  # fmt: skip
    stub = tmp_path / "bin" / "fastsoftmax"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fastsoftmax "$@"\n')
    stub.chmod(0o700)
    options: dict[str, Any] = {
        "cwd": tmp_path, "capture_output": True, "check": True,
        "env": {**os.environ, "PYTHONPATH": str(ROOT), **locale,
                "PATH": f"{stub.parent}:{os.environ['PATH']}"},
    }  # fmt: skip
    done = subprocess.run([os.fsencode(word) for word in ("fastsoftmax", *run)], **options)
    line = re.search(r"^to repeat +(.*)$", done.stdout.decode(), re.MULTILINE)[1]
    first = (tmp_path / model).read_bytes()
    (tmp_path / model).unlink()
    subprocess.run(["/bin/sh", "-c", line.encode()], **options)
    assert (tmp_path / model).read_bytes() == first
