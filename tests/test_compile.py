"""Kept machine code: private, started afresh by any change, repaired when damaged, never needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastsoftmax
from fastsoftmax.kernels import compile as policy

PROGRAM = """
import numpy as np, numba, warnings
from fastsoftmax.kernels.permute import fisher_yates
order = np.arange(5)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fisher_yates(order, np.arange(4, dtype=np.uint64) << np.uint64(61))
print(order.tolist(), len(fisher_yates.stats.cache_hits), [str(w.message) for w in caught])
assert numba.config.CACHE_DIR == {before!r}
"""


def run(tmp_path, **environment):
    """Run PROGRAM in a fresh process with its machine code kept below tmp_path."""
    before = environment.get("NUMBA_CACHE_DIR", "")
    settings = {"FASTSOFTMAX_CACHE": str(tmp_path / "code"), "PYTHONWARNINGS": "default"}
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        env={**os.environ, **settings, **environment},
        cwd=Path(fastsoftmax.__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout.strip()


def test_machine_code_is_kept_for_the_next_process_in_a_private_folder(tmp_path):
    assert run(tmp_path) == "[3, 2, 0, 4, 1] 0 []"
    assert run(tmp_path) == "[3, 2, 0, 4, 1] 1 []"
    (folder,) = (tmp_path / "code").iterdir()
    assert folder.name == policy.source_digest()
    assert folder.stat().st_mode & 0o077 == 0


def test_damaged_code_is_compiled_again_with_one_warning(tmp_path):
    run(tmp_path)
    for path in (tmp_path / "code").rglob("*.nbc"):
        path.write_bytes(path.read_bytes()[:100])
    assert "damaged" in run(tmp_path)
    assert run(tmp_path) == "[3, 2, 0, 4, 1] 1 []"


def test_a_damaged_index_is_no_harm_either(tmp_path):
    run(tmp_path)
    for path in (tmp_path / "code").rglob("*.nbi"):
        path.write_bytes(b"nonsense")
    assert run(tmp_path).startswith("[3, 2, 0, 4, 1] 0")
    assert run(tmp_path).startswith("[3, 2, 0, 4, 1] 1")


def test_nothing_is_kept_where_others_could_write(tmp_path):
    run(tmp_path)
    (folder,) = (tmp_path / "code").iterdir()
    folder.chmod(0o777)
    assert run(tmp_path).startswith("[3, 2, 0, 4, 1] 0")


@pytest.mark.parametrize(
    "environment",
    [
        {"FASTSOFTMAX_CACHE": "off"},
        {"FASTSOFTMAX_CACHE": "/proc/nowhere"},
        {"FASTSOFTMAX_CACHE": "", "HOME": "/proc/nowhere", "XDG_CACHE_HOME": ""},
    ],
    ids=["off", "unwritable", "no home"],
)
def test_a_run_needs_no_place_to_keep_code(environment, tmp_path):
    for _ in range(2):
        assert run(tmp_path, **environment) == "[3, 2, 0, 4, 1] 0 []"


def test_numba_keeps_its_own_folder_for_others(tmp_path):
    run(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "theirs"))
    assert not list((tmp_path / "theirs").rglob("*.nbc"))


def test_any_change_of_a_kernel_source_changes_the_digest(tmp_path, monkeypatch):
    before = policy.source_digest()
    for path in Path(policy.__file__).parent.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(policy, "__file__", str(tmp_path / "compile.py"))
    assert policy.source_digest() == before
    with (tmp_path / "softmax.py").open("a") as source:
        source.write("\n")
    assert policy.source_digest() != before
