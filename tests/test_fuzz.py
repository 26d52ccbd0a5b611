"""Some of the damaged files of `make test-fuzz`, which has five hundred."""

import subprocess
import sys
from pathlib import Path


def test_damaged_files_end_well_or_in_one_sentence():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz_parquet", "20"],
        capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 damaged files" in done.stdout
