"""The only place that decides for which kind of processor kernels are compiled.

A level is a set of instructions that many models of processors share. Machine code made for it and
not for the model at hand computes the same bits on all of them, and serves them all.
FASTSOFTMAX_LEVEL chooses a lower level than this processor's.
"""

from __future__ import annotations

import os
import platform

from llvmlite import binding

from fastsoftmax.errors import OptionError
from fastsoftmax.facts import dataclass


@dataclass(frozen=True)
class Level:
    """What processors of one level can do.

    processor: what LLVM calls it.
    settings: what it has beside, as LLVM is told it: "+avx,-fma".
    features: all that kernels ask for by name, as LLVM names it.
    """

    processor: str
    features: frozenset[str] = frozenset()
    settings: str = ""

    @property
    def vector_bytes(self) -> int:
        """How wide the widest registers are."""
        return 64 if "avx512f" in self.features else 32 if "avx" in self.features else 16

    @property
    def registers(self) -> int:
        """How many registers of that width there are."""
        return 16 if {"avx512f", "neon"}.isdisjoint(self.features) else 32


_V2 = frozenset({"cx16", "popcnt", "sahf", "sse3", "ssse3", "sse4.1", "sse4.2"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
GENERIC = Level("generic")
# The levels of each kind of machine, from the lowest; x86-64 below the second is generic.
LEVELS = {
    "x86-64-v2": Level("x86-64-v2", _V2),
    "x86-64-v3": Level("x86-64-v3", _V3),
    "x86-64-v4": Level("x86-64-v4", _V4),
}
ARM = {"armv8": Level("generic", frozenset({"neon"}), "+neon")}


# The level of machine code that is compiled to be shipped, and not run here; set by the build hook.
BUILD_LEVEL = os.environ.get("FASTSOFTMAX_BUILD_LEVEL")


def host_levels() -> dict[str, Level]:
    """Return the levels that this processor has, from the lowest."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return {"generic": GENERIC, **ARM}
    there = {name for name, has in binding.get_host_cpu_features().items() if has}
    return {"generic": GENERIC} | {
        name: level for name, level in LEVELS.items() if level.features <= there
    }


def _of_numba() -> Level | None:
    """Return the processor that numba's own settings name, or None if they name none."""
    processor = os.environ.get("NUMBA_CPU_NAME")
    if not processor or processor == "host":
        return None
    settings = os.environ.get("NUMBA_CPU_FEATURES", "")
    features = [name[1:] for name in settings.split(",") if name.startswith("+")]
    return Level(processor, frozenset(features), settings)


def chosen_level() -> Level:
    """Return the level to compile for: the highest of this processor, unless a lower one is chosen.

    Raises OptionError where FASTSOFTMAX_LEVEL is none that this processor has.
    """
    if BUILD_LEVEL is not None:
        return {**LEVELS, **ARM}[BUILD_LEVEL]
    own = _of_numba()
    if own is not None:
        return own
    levels = host_levels()
    name = os.environ.get("FASTSOFTMAX_LEVEL") or list(levels)[-1]
    if name not in levels:
        raise OptionError(
            f"FASTSOFTMAX_LEVEL must be one of this processor's levels, {', '.join(levels)},"
            f" got {name!r}"
        )
    return levels[name]


LEVEL = chosen_level()
