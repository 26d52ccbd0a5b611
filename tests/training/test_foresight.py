"""A run foresees the kernels that it will call, says so, and needs no others."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numba import config

import fastsoftmax
from fastsoftmax.cli.console import Console, telling_of_compiling
from fastsoftmax.kernels import compile as policy
from fastsoftmax.kernels.compile import logger
from tests.digests import problem

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="there is no machine code")

SEEN = """
import json, sys
from fastsoftmax.kernels import compile
from fastsoftmax.training import foresight
needed, foreseen, ready = [], [], compile.Kernel.ready
def noted(kernel, kinds):
    needed.append(kernel.name)
    return ready(kernel, kinds)
compile.Kernel.ready = noted
are_missing = foresight.are_missing
def all_of(calls):
    foreseen.extend(dict.fromkeys(call.kernel.name for call in calls))
    return are_missing(calls)
foresight.are_missing = all_of
import fastsoftmax
fastsoftmax.train(sys.argv[1], "y", **json.loads(sys.argv[2]))
print(*sorted(set(needed) - set(foreseen)), "|", *sorted(set(foreseen) - set(needed)))
"""
SHAPES = {
    "few weights": (900, 5, 12, "{}"),
    "two classes": (900, 2, 12, "{}"),
    "many features": (4200, 10, 600, "{}"),
    "given epochs": (900, 5, 12, '{"epochs": 3}'),
    "validation": (900, 5, 12, '{"holdout": 0.2, "epochs": 3, "average": false}'),
    "by hand": (900, 5, 12, '{"learning_rate": 0.1, "epochs": 2, "l2": 0.01}'),
    "a penalty of the first kind": (900, 5, 12, '{"l1": 0.001}'),
    "the optimum": (900, 5, 12, '{"solver": "lbfgs", "l2": 0.001}'),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_calls_the_kernels_that_it_foresees_and_no_others(tmp_path, shape):
    n, K, d, options = SHAPES[shape]
    X, y = problem(n, K, d)
    columns = {f"x{j}": X[:, j] for j in range(d)}
    calls_what_it_foresees(pa.table({**columns, "y": y}), options, tmp_path)


@pytest.mark.parametrize(
    "options", ["", ', "learning_rate": 0.1, "l1": 0.01', ', "batch_size": 8, "epochs": 1']
)
def test_a_run_over_sparse_rows_does_so_too(tmp_path, options):
    X, y = problem(900, 5, 12)
    rows = [{j: X[t, j] for j in range(t % 12)} for t in range(len(y))]
    maps = pa.array([list(row.items()) for row in rows], pa.map_(pa.int32(), pa.float32()))
    told = '{"sparse": ["x"]' + options + "}"
    calls_what_it_foresees(pa.table({"x": maps, "y": y}), told, tmp_path)


def test_a_run_that_ends_by_steps_does_so_too(tmp_path):
    random = np.random.default_rng(0)
    rows = [[(int(j), 1.0) for j in random.choice(3000, 6, replace=False)] for _ in range(600)]
    maps = pa.array(rows, pa.map_(pa.int32(), pa.float32()))
    y = pa.array(random.integers(0, 3, 600))
    calls_what_it_foresees(pa.table({"x": maps, "y": y}), '{"sparse": ["x"]}', tmp_path)


@pytest.mark.parametrize("options", ["", ', "bits": 9, "learning_rate": 0.1, "epochs": 1, "l2": 0'])
def test_a_run_over_texts_does_so_too(tmp_path, options):
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{int(u)}" for u in random.zipf(1.3, 9)) for _ in range(600)]
    rows = pa.table({"x": texts, "y": random.integers(0, 3, 600)})
    calls_what_it_foresees(rows, '{"text": ["x"]' + options + "}", tmp_path)


def calls_what_it_foresees(rows, options, tmp_path):
    pq.write_table(rows, tmp_path / "rows.parquet")
    finished = subprocess.run(
        [sys.executable, "-c", SEEN, str(tmp_path / "rows.parquet"), options],
        cwd=Path(fastsoftmax.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.split() == ["|"]


@pytest.mark.parametrize("is_live", [True, False])
def test_what_is_compiled_is_one_line_on_a_terminal_and_elsewhere_its_begin_and_end(
    is_live, capsys
):
    console, told = Console(), []
    console.is_live = is_live
    console.show = told.append
    before = logger.level, logger.propagate
    with telling_of_compiling(console):
        for done in range(4):
            level = logging.INFO if done in (0, 3) else logging.DEBUG
            logger.log(level, "compiling, once: %d of 3", done)
    assert (logger.level, logger.propagate) == before
    said = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()]
    if is_live:
        assert [line.partition(": ")[2] for line in told] == [f"{i} of 3" for i in range(4)] + [""]
    else:
        assert said == ["0 of 3", "3 of 3"]


def test_from_python_the_logger_tells_what_is_compiled(caplog, monkeypatch):
    monkeypatch.setattr(policy, "_announced", set())
    monkeypatch.setattr(policy, "_counted", set())
    call = policy.Call(
        policy.Kernel(test_from_python_the_logger_tells_what_is_compiled, frozenset(), False), ()
    )
    with caplog.at_level(logging.INFO, "fastsoftmax"):
        policy.announce([call])
        policy.announce([call])
        policy.count(call)
    first, last = (
        record.getMessage().split() for record in caplog.records if record.levelno == logging.INFO
    )
    assert first[:2] == last[:2] == ["compiling,", "once:"]
    assert int(last[2]) == int(first[2]) + 1
