"""The only place that has numba compile for a level instead of for the model of this processor.

Numba compiles for the processor at hand, as its settings describe it. These subclasses are a target
beside that one: other users of numba in the process keep theirs, and what numba itself adds to a
kernel, such as max(), is compiled for the level too.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

from numba import jit
from numba.core.codegen import JITCPUCodegen
from numba.core.cpu import CPUContext
from numba.core.registry import CPUDispatcher, CPUTarget
from numba.core.target_extension import (
    CPU,
    dispatcher_registry,
    jit_registry,
    target_registry,
)

from fastsoftmax.kernels.level import LEVEL

NAME = "fastsoftmax"


class LevelCode(JITCPUCodegen):
    """Machine code for the level."""

    def _get_host_cpu_name(self) -> str:
        return LEVEL.processor

    def _get_host_cpu_features(self) -> str:
        return LEVEL.settings


class LevelContext(CPUContext):
    """What numba lowers kernels with."""

    def init(self) -> None:
        super().init()
        self._internal_codegen = LevelCode(NAME)


class LevelTarget(CPUTarget):
    """The level as a target of numba's."""

    @cached_property
    def _toplevel_target_context(self) -> LevelContext:
        return LevelContext(self.typing_context, self._target_name)


class LevelHardware(CPU):
    """The level among the kinds of hardware that numba knows: a CPU."""


target_registry[NAME] = LevelHardware


class LevelDispatcher(CPUDispatcher):
    """A kernel compiled for the level."""

    targetdescr = LevelTarget(NAME)


dispatcher_registry[LevelHardware] = LevelDispatcher
compile_for_level: Any = partial(jit, _target=NAME)
jit_registry[LevelHardware] = compile_for_level
