"""The only place that tells the compiler of types of our own: vectors, and tuples by address."""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, overload, register_model

from fastsoftmax.kernels.level import LEVEL


class Vector(types.Type):
    """The numba type of a register of `lanes` floats; or of so many that several hold them."""

    def __init__(self, dtype, lanes=None):
        self.dtype = dtype
        self.lanes = LEVEL.vector_bytes * 8 // dtype.bitwidth if lanes is None else lanes
        super().__init__(f"vector{self.lanes}({dtype})")

    @property
    def llvm(self):
        """What LLVM calls it."""
        scalar = ir.FloatType() if self.dtype == types.float32 else ir.DoubleType()
        return ir.VectorType(scalar, self.lanes)


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A Vector is an LLVM vector, nothing around it."""

    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, fe_type.llvm)


def without_owner(context, builder, ty, value):
    """Return an array, or a named tuple of them, that keeps no count of who uses it."""
    if isinstance(ty, types.Array):
        array = context.make_array(ty)(context, builder, value)
        array.meminfo = ir.Constant(array.meminfo.type, None)
        return array._getvalue()
    if isinstance(ty, types.BaseTuple):
        members = cgutils.unpack_tuple(builder, value)
        members = [
            without_owner(context, builder, kind, member)
            for kind, member in zip(ty, members, strict=True)
        ]
        return context.make_tuple(builder, ty, members)
    return value


class ByAddress(types.Type):
    """The numba type of the address of a named tuple that stands on the stack of a caller."""

    def __init__(self, members):
        self.members = members
        super().__init__(f"by_address({members})")


@register_model(ByAddress)
class ByAddressModel(models.PrimitiveModel):
    """A ByAddress is a pointer."""

    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, manager[fe_type.members].get_value_type().as_pointer())


@infer_getattr
class ByAddressMembers(AttributeTemplate):
    """A ByAddress has the members of the tuple it points to."""

    key = ByAddress

    def generic_resolve(self, address, name):
        fields = address.members.fields
        return address.members[fields.index(name)] if name in fields else None


@lower_getattr_generic(ByAddress)
def _member(context, builder, address, pointer, name):
    index = address.members.fields.index(name)
    value = builder.load(cgutils.gep_inbounds(builder, pointer, 0, index))
    return without_owner(context, builder, address.members[index], value)


def _operator(symbol, instruction):
    @intrinsic
    def apply(typing_context, a, b):
        def build(context, builder, signature, arguments):
            return getattr(builder, instruction)(*arguments)

        return a(a, b), build

    @overload(symbol)
    def overloaded(a, b):
        if isinstance(a, Vector) and a == b:
            return lambda a, b: apply(a, b)
        return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, _instruction)
