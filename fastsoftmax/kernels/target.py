"""The only place that compiles: for a level instead of for the model of this processor.

Numba compiles for the processor at hand, as its settings describe it. These subclasses are a target
beside that one: other users of numba in the process keep theirs, and what numba itself adds to a
kernel, such as max(), is compiled for the level too. Machine code is not for this process to run,
but an object file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property, partial
from importlib import import_module
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, jit, types
from numba.core import cgutils
from numba.core.codegen import AOTCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext
from numba.core.registry import CPUDispatcher, CPUTarget, cpu_target
from numba.core.runtime import rtsys
from numba.core.target_extension import (
    CPU,
    dispatcher_registry,
    jit_registry,
    target_registry,
)
from numba.extending import intrinsic, overload
from numba.np.arrayobj import populate_array

import fastsoftmax.kernels.vector_types  # noqa: F401  (numba learns of our types by it)
from fastsoftmax.kernels.frames import NONE, PACKED, Kind, read_array
from fastsoftmax.kernels.later import CHOSEN_BY_TYPE
from fastsoftmax.kernels.level import LEVEL
from fastsoftmax.kernels.loading import SYMBOL

NAME = "fastsoftmax"
I8, I32, I64 = (ir.IntType(bits) for bits in (8, 32, 64))
POINTER = I8.as_pointer()


class LevelLibrary(AOTCodeLibrary):
    """A kernel and all that it calls, optimised once, all together.

    Numba optimises each function as soon as it is typed, and then again in each of its callers.

    framed: it has the wrapper which takes a frame, so that nothing else will call it.
    """

    framed = False

    def _optimize_functions(self, ll_module: Any) -> None:
        """Leave that to `_optimize_final_module`."""
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        if not self.framed:
            return
        passes = self._codegen._module_pass_manager()
        # Since numba 0.62 with what they work by.
        manager, *options = passes if isinstance(passes, tuple) else (passes,)
        manager.run(self._final_module, *options)

    def emit_native_object(self) -> bytes:
        """Return an object file with one name: others count what was compiled before."""
        self._ensure_finalized()
        module = self._final_module
        for symbol in (*module.functions, *module.global_variables):
            if not symbol.is_declaration and symbol.name != SYMBOL:
                symbol.linkage = "private"
        return super().emit_native_object()


class LevelCode(JITCPUCodegen):
    """Machine code for the level: object files, that are not loaded."""

    _library_class = LevelLibrary

    def _get_host_cpu_name(self) -> str:
        return LEVEL.processor

    def _get_host_cpu_features(self) -> str:
        return LEVEL.settings

    def _add_module(self, module: Any) -> None:
        """Leave the module to `emit_native_object`."""


class LevelContext(CPUContext):
    """What numba lowers kernels with.

    framed: the name of the function that gets a wrapper which takes a frame.
    """

    framed = ""

    def init(self) -> None:
        super().init()
        self._internal_codegen = LevelCode(NAME)

    def load_additional_registries(self) -> None:
        # Numba's functions for memory are one set for all targets, and ours are not loaded.
        rtsys.initialize(cpu_target.target_context)
        super().load_additional_registries()

    def get_executable(self, library: Any, fndesc: Any, env: Any) -> Any:
        """Return what tells the function from others: nobody calls it from Python."""
        return object()

    def create_cfunc_wrapper(self, library: Any, fndesc: Any, env: Any, call_helper: Any) -> None:
        """Add the function that takes a frame and a place for results, and returns a status."""
        if fndesc.qualname == self.framed:
            _add_wrapper(self, library, fndesc)


def _add_wrapper(context: Any, library: Any, fndesc: Any) -> None:
    module = context.create_module("frame")
    inner = context.call_conv.get_function_type(fndesc.restype, fndesc.argtypes)
    callee = ir.Function(module, inner, fndesc.llvm_func_name)
    outer = ir.Function(module, ir.FunctionType(I32, [POINTER, POINTER]), SYMBOL)
    builder = ir.IRBuilder(outer.append_basic_block("entry"))
    frame = _Frame(context, builder, outer.args[0])
    arguments = [frame.take(ty) for ty in fndesc.argtypes]
    status, value = context.call_conv.call_function(
        builder, callee, fndesc.restype, fndesc.argtypes, arguments, attrs=("noinline",)
    )
    members, values = [fndesc.restype], [value]
    if isinstance(fndesc.restype, types.BaseTuple):
        members, values = list(fndesc.restype), cgutils.unpack_tuple(builder, value)
    for i, (ty, member) in enumerate(zip(members, values, strict=True)):
        if ty != types.none:
            place = builder.gep(outer.args[1], [ir.Constant(I64, 8 * i)])
            stored = context.get_value_as_data(builder, ty, member)
            builder.store(stored, builder.bitcast(place, stored.type.as_pointer()))
    builder.ret(builder.select(status.is_error, status.code, ir.Constant(I32, 0)))
    library.add_ir_module(module)
    library.framed = True


class _Frame:
    """A frame, from which arguments are taken one after the other."""

    def __init__(self, context: Any, builder: Any, address: Any) -> None:
        self._context, self._builder, self._address = context, builder, address
        self._taken = 0
        self._header = self._word(I64)

    def _word(self, ty: Any) -> Any:
        at = ir.Constant(I64, 8 * self._taken)
        self._taken += 1
        return self._load(self._builder.gep(self._address, [at]), ty)

    def _load(self, place: Any, ty: Any) -> Any:
        return self._builder.load(self._builder.bitcast(place, ty.as_pointer()))

    def take(self, ty: Any) -> Any:
        """Return the next argument."""
        context, builder = self._context, self._builder
        if ty == types.none:
            return context.get_dummy_value()
        if isinstance(ty, types.BaseTuple):
            return context.make_tuple(builder, ty, [self.take(member) for member in ty])
        if isinstance(ty, types.Array):
            return self._array(ty)
        return context.data_model_manager[ty].from_data(
            builder, self._word(context.get_data_type(ty))
        )

    def _array(self, ty: Any) -> Any:
        """Return an array that nobody owns: address, dimensions, lengths, strides, from NumPy's."""
        context, builder = self._context, self._builder
        fields = builder.gep(self._word(POINTER), [self._header])
        data, lengths, strides = (
            self._load(builder.gep(fields, [ir.Constant(I64, 8 * i)]), POINTER) for i in (0, 2, 3)
        )
        array = context.make_array(ty)(context, builder)
        shape, steps = (
            [
                self._load(builder.gep(numbers, [ir.Constant(I64, 8 * i)]), I64)
                for i in range(ty.ndim)
            ]
            for numbers in (lengths, strides)
        )
        populate_array(
            array,
            data=builder.bitcast(data, array.data.type),
            shape=shape,
            strides=steps,
            itemsize=ir.Constant(I64, context.get_abi_sizeof(context.get_data_type(ty.dtype))),
            meminfo=None,
        )
        return array._getvalue()


class LevelTarget(CPUTarget):
    """The level as a target of numba's."""

    @cached_property
    def _toplevel_target_context(self) -> LevelContext:
        return LevelContext(self.typing_context, self._target_name)


class LevelHardware(CPU):
    """The level among the kinds of hardware that numba knows: a CPU."""


target_registry[NAME] = LevelHardware


class LevelDispatcher(CPUDispatcher):
    """A kernel compiled for the level, which Python does not call."""

    targetdescr = LevelTarget(NAME)

    def add_overload(self, cres: Any) -> None:
        """Remember machine code for some types."""
        self.overloads[tuple(cres.signature.args)] = cres


dispatcher_registry[LevelHardware] = LevelDispatcher
compile_for_level: Any = partial(jit, _target=NAME)
jit_registry[LevelHardware] = compile_for_level


def _dispatcher(function: Callable[..., Any], flags: Collection[str], *, framed: bool) -> Any:
    while CHOSEN_BY_TYPE:
        chosen, typed = CHOSEN_BY_TYPE.pop(0)
        overload(chosen)(typed)
    return compile_for_level(
        nogil=True,
        # Kernels own no memory, so that nothing need be counted, or freed by numba's functions.
        _nrt=False,
        # NumPy's error model: a check for 0 at each division is a branch, and keeps loops scalar.
        error_model="numpy",
        fastmath=set(flags),
        no_cpython_wrapper=True,
        no_cfunc_wrapper=not framed,
    )(function)


def as_callee(function: Callable[..., Any], flags: Collection[str]) -> Any:
    """Return what compiles a kernel where kernels call it; it must live as long as they do."""
    return _dispatcher(function, flags, framed=False)


def as_intrinsic(typed: Callable[..., Any]) -> Any:
    """Return the type of a word."""
    typing = LevelDispatcher.targetdescr.typing_context
    registered = intrinsic(typed)
    typing.refresh()
    return typing.resolve_value_type(registered)


def _type_of(kind: Kind) -> Any:
    """Return the numba type of arguments of a kind."""
    if isinstance(kind, tuple):
        module, _, name = kind[0].partition(":")
        members = [_type_of(member) for member in kind[1:]]
        return types.BaseTuple.from_types(members, getattr(import_module(module), name))
    if kind == NONE:
        return types.none
    if kind in PACKED:
        return types.boolean if kind == "bool" else getattr(types, kind)
    known = read_array(kind)
    return types.Array(
        from_dtype(np.dtype(known.dtype)), known.ndim, known.layout,
        readonly=not known.is_writeable, aligned=known.is_aligned,
    )  # fmt: skip


def _returned(ty: Any) -> str | list[str]:
    """Return the kinds of what a kernel returns."""
    if isinstance(ty, types.BaseTuple):
        return [str(member) for member in ty]
    return str(ty)


def compile_framed(function: Callable[..., Any], flags: Collection[str], kinds: Any) -> Any:
    """Return what numba makes of a kernel and its wrapper."""
    dispatcher = _dispatcher(function, flags, framed=True)
    context = dispatcher.targetdescr.target_context
    context.framed = function.__qualname__
    try:
        dispatcher.compile(tuple(_type_of(kind) for kind in kinds))
    finally:
        context.framed = ""
    (result,) = dispatcher.overloads.values()
    return result


def object_code(
    function: Callable[..., Any], flags: Collection[str], kinds: tuple[Kind, ...]
) -> tuple[bytes, str | list[str]]:
    """Compile a kernel for arguments of these kinds: an object file, and what it returns."""
    with global_compiler_lock:
        result = compile_framed(function, flags, kinds)
        return result.library.emit_native_object(), _returned(result.signature.return_type)


def assembly(
    function: Callable[..., Any], flags: Collection[str], kinds: tuple[Kind, ...]
) -> str:  # fmt: skip
    """Compile a kernel for arguments of these kinds; return what is to be read of it."""
    with global_compiler_lock:
        library = compile_framed(function, flags, kinds).library
        library._ensure_finalized()
        return str(library.get_asm_str())
