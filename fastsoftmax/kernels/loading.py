"""The only place that makes kept machine code callable: by LLVM's loader, without its compiler."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from llvmlite import binding

from fastsoftmax.kernels.frames import HEADER, Kind, Results, packing
from fastsoftmax.kernels.level import BUILD_LEVEL

SYMBOL = "fastsoftmax_run"  # what every object file calls the function that takes a frame
# Of a frame and a place for the results; ctypes lets go of the interpreter's lock meanwhile.
_Run = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p)


@cache
def _target() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_triple(binding.get_process_triple())


class Loaded:
    """Machine code of a kernel for arguments of some kinds."""

    def __init__(self, code: bytes, kinds: tuple[Kind, ...], returns: str | list[str]) -> None:
        """Raises RuntimeError where the code is not an object file of a kernel."""
        if BUILD_LEVEL is not None:
            raise RuntimeError(f"code for {BUILD_LEVEL} is built here, and not run")
        # An engine of its own: what two kernels call may have one name and be two functions.
        # And a machine of its own, which goes with the engine.
        machine = _target().create_target_machine()
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
        self._engine.add_object_file(binding.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address = self._engine.get_function_address(SYMBOL)
        if not address:
            raise RuntimeError("an object file that is not of a kernel")
        self._run, self._pack = _Run(address), packing(kinds).pack
        self._results = Results(returns)
        self._room = ctypes.c_char * self._results.size

    def __call__(self, words: list[Any]) -> Any:
        """Call the kernel with the words of its arguments; return what it returns."""
        frame = self._pack(HEADER, *words)
        if not self._results.size:
            memory, status = None, self._run(frame, None)
        else:
            memory = self._room()
            status = self._run(frame, memory)
        if status:
            raise RuntimeError(f"a kernel failed with status {status}; please report this")
        return None if memory is None else self._results.read(memory)
