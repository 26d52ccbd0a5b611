"""Some of what `make test-fuzz`, `test-objects` and `test-crash` try, which try much more."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("kind", "count"), [("fuzz_parquet", "10"), ("fuzz_models", "500"), ("fuzz_checkpoints", "300")]
)
def test_damaged_files_end_well_or_in_one_sentence(kind, count):
    done = subprocess.run(
        [sys.executable, "-m", f"tests.{kind}", count],
        capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} damaged files" in done.stdout


def test_damaged_metadata_do_not_end_the_process():
    """Arrow lets exceptions through where a row group is asked for columns of these two files."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz_parquet", "345", "27", "344"],
        capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_objects_of_all_kinds_give_results_or_our_own_errors():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz_objects", "110"],
        capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "110 calls with objects of all kinds" in done.stdout
