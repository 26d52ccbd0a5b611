"""The only place for versions: the package's own, and those that the bits of a model depend on."""

from __future__ import annotations

from functools import cache

__version__ = "0.1.0"

SHAPING = ("numpy", "numba", "pyarrow")  # packages whose versions may change what is learnt


def versions() -> dict[str, str]:
    """Return the versions that the bits of a model depend on."""
    return {"fastsoftmax": __version__, **{package: _installed(package) for package in SHAPING}}


@cache
def _installed(package: str) -> str:
    """Return the version of a package; to look it up takes half a millisecond."""
    from importlib.metadata import version  # 20 ms, which --version does not need

    return version(package)
