"""One run has one result: whatever the threads, the cache, the process, and who compiled when."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastsoftmax

ROOT = Path(__file__).resolve().parent.parent
RUNS: dict[str, dict[str, Any]] = {
    "windows": {"epochs": 2, "shuffle_window": 4096, "l2": 1e-4},
    "full gradients": {"l2": 1e-3},
}
CHILD = """
import sys
import fastsoftmax
fastsoftmax.train(sys.argv[1], "y", **eval(sys.argv[3])).save(sys.argv[2])
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(20_000, 24)).astype(np.float32)
    y = (X[:, :5] + rng.gumbel(size=(len(X), 5))).argmax(axis=1)
    table = pa.table({**{f"x{j}": column for j, column in enumerate(X.T)}, "y": y})
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    pq.write_table(table, path, row_group_size=3000)
    return str(path)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def here(data: str, path: Path, **options: Any) -> str:
    fastsoftmax.train(data, "y", **options).save(path)
    return digest_of(path)


def elsewhere(data: str, path: Path, options: dict[str, Any], **env: str) -> str:
    command = [sys.executable, "-c", CHILD, data, str(path), repr(options)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT), **env}, check=True)
    return digest_of(path)


@pytest.mark.parametrize("name", RUNS)
def test_threads_and_caches_change_no_bit(data, tmp_path, name):
    found = {
        here(data, tmp_path / "m", threads=threads, cache=cache, readers=threads, **RUNS[name])
        for threads, cache in itertools.product((1, 2, 3, 4), ("auto", "memory", "disk", "off"))
    }
    assert len(found) == 1


@pytest.mark.parametrize("name", RUNS)
def test_another_process_and_kernels_compiled_anew_change_no_bit(data, tmp_path, name):
    want = here(data, tmp_path / "m", **RUNS[name])
    assert elsewhere(data, tmp_path / "warm", RUNS[name]) == want
    if name == "windows":  # a cold cache takes its time
        cold = {"FASTSOFTMAX_CACHE": str(tmp_path)}
        assert elsewhere(data, tmp_path / "cold", {"threads": 3, **RUNS[name]}, **cold) == want
