"""The only place for versions: the package's own, and those that the bits of a model depend on."""

from __future__ import annotations

import os
import sys
from functools import cache

__version__ = "0.1.0"

SHAPING = ("numpy", "numba", "pyarrow")  # packages whose versions may change what is learnt


def versions() -> dict[str, str]:
    """Return the versions that the bits of a model depend on."""
    return {"fastsoftmax": __version__, **{package: installed(package) for package in SHAPING}}


@cache
def installed(package: str) -> str:
    """Return the version of a package, imported or not; "unknown" where there is none."""
    found = _names().get(package)
    if found is not None:
        return found
    from importlib.metadata import PackageNotFoundError, version  # takes 0.02 s

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


@cache
def _names() -> dict[str, str]:
    """Return the versions that the names of installed packages' folders tell."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:  # a zip file, or nothing
            continue
        for name in names:
            if name.endswith(".dist-info"):
                package, _, version = name.removesuffix(".dist-info").partition("-")
                found.setdefault(package.lower(), version)
    return found
