"""The build hook of platform wheels: machine code of the kernels, for each level of processors.

    FASTSOFTMAX_WHEEL=platform python -m build --wheel

Without that variable a wheel is pure, and kernels are compiled where they are first called. With it
too, if sources, numba or llvmlite are others than those of the build.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LEVELS = {"x86_64": ("x86-64-v2", "x86-64-v3", "x86-64-v4"), "aarch64": ("armv8",)}
# Object files call nothing of the system's: the tag is that of the oldest wheels of numba's.
TAG = "py3-none-manylinux_2_17_{}"
BUILD = "from fastsoftmax.training.warmup import build; build()"


def is_asked_for() -> bool:
    """Return whether the wheel is to carry machine code."""
    asked = os.environ.get("FASTSOFTMAX_WHEEL", "pure")
    if asked not in ("pure", "platform"):
        raise ValueError(f"FASTSOFTMAX_WHEEL must be pure or platform, got {asked!r}")
    return asked == "platform"


class MachineCode(BuildHookInterface):
    """Adds object files to a wheel where that is asked for."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what compiling needs beside the build backend."""
        return list(self.metadata.core.dependencies) if is_asked_for() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and have the files put into the wheel."""
        if version == "editable" or not is_asked_for():
            return
        machine = platform.machine().lower()
        if sys.platform != "linux" or machine not in LEVELS:
            raise RuntimeError(
                f"platform wheels are built on Linux for {' and '.join(LEVELS)}, not on"
                f" {sys.platform} for {machine}: leave FASTSOFTMAX_WHEEL away for a pure one"
            )
        self._folder = tempfile.TemporaryDirectory()
        for level in LEVELS[machine]:
            self.app.display_info(f"compiling the kernels for {level}")
            self._compile(level)
        (built,) = Path(self._folder.name).iterdir()
        for path in sorted(built.glob("*.code")):
            place = f"fastsoftmax/kernels/built/{built.name}/{path.name}"
            build_data["force_include"][str(path)] = place
        build_data["pure_python"] = False
        build_data["tag"] = TAG.format(machine)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled: it is in the wheel."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    def _compile(self, level: str) -> None:
        settings = {
            "FASTSOFTMAX_BUILD_LEVEL": level,
            "FASTSOFTMAX_CACHE": self._folder.name,
            "PYTHONPATH": self.root,
            "PYTHONHASHSEED": "0",  # sets of names are in one order: the same bytes each time
        }
        numbas = [name for name in os.environ if name.startswith("NUMBA_")]
        inherited = {name: value for name, value in os.environ.items() if name not in numbas}
        subprocess.run([sys.executable, "-c", BUILD], env={**inherited, **settings}, check=True)
