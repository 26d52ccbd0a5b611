"""The version stands in one place, and costs nothing to ask for."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import fastsoftmax
from fastsoftmax import version

ROOT = Path(__file__).resolve().parents[1]


def test_the_package_is_built_with_the_version_that_it_tells():
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["version"]["path"]
    assert Path(version.__file__) == ROOT / built
    assert fastsoftmax.__version__ is version.__version__


def test_what_is_handed_out_is_nobody_elses():
    version.versions().clear()
    assert version.versions()["fastsoftmax"] == fastsoftmax.__version__


def test_the_version_is_told_without_looking_any_package_up():
    code = (
        "import sys, fastsoftmax; fastsoftmax.__version__\n"
        "assert not {'importlib.metadata', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
