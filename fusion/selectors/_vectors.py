"""Eight words as one value, for kernels that read many planes in one pass.

Loops over words that write several planes are not made vectors by the compiler, as it cannot tell that the planes are
apart. Here they are written as vectors: `load` and `store` move eight words at a position of a flat array, and the
bitwise operators and + work on them. Where registers are narrower, the compiler splits them.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

LANES = 8
"""Words of a vector; widths of planes are multiples of it."""

_WORD = ir.IntType(64)
_VECTOR = ir.VectorType(_WORD, LANES)
_ONES = ir.Constant(_VECTOR, [(1 << 64) - 1] * LANES)


class _Vector(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name=f"words{LANES}")


_vector = _Vector()


@register_default(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


class _Pair(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(_vector, _vector, _vector) if tuple(args) == (_vector, _vector) else None


class _Single(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: Any, kws: Any) -> Any:
        return signature(_vector, _vector) if tuple(args) == (_vector,) else None


def _define(function: Any, instruction: str) -> None:
    def lower(context: Any, builder: Any, kinds: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    infer_global(function)(type(f"_{function.__name__}", (_Pair,), {"key": function}))
    lower_builtin(function, _vector, _vector)(lower)


for _function, _instruction in (
    (operator.and_, "and_"),
    (operator.iand, "and_"),
    (operator.or_, "or_"),
    (operator.ior, "or_"),
    (operator.add, "add"),
    (operator.iadd, "add"),
):
    _define(_function, _instruction)

infer_global(operator.invert)(type("_invert", (_Single,), {"key": operator.invert}))


@lower_builtin(operator.invert, _vector)  # type: ignore[untyped-decorator]
def _invert(context: Any, builder: Any, kinds: Any, args: Any) -> Any:
    return builder.xor(args[0], _ONES)


def _place(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def load(context: Any, words: Any, at: Any) -> Any:
    """Return the eight words of a flat contiguous array that begin at `at`; nothing checks that it has them."""

    def generate(target: Any, builder: Any, kinds: Any, args: Any) -> Any:
        return builder.load(_place(target, builder, kinds.args[0], args[0], args[1]), align=8)

    return _vector(words, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(context: Any, words: Any, at: Any, value: Any) -> Any:
    """Write eight words from `at` on; nothing checks that the array has them."""

    def generate(target: Any, builder: Any, kinds: Any, args: Any) -> Any:
        builder.store(args[2], _place(target, builder, kinds.args[0], args[0], args[1]), align=8)
        return target.get_dummy_value()

    return types.void(words, types.intp, value), generate


@intrinsic  # type: ignore[untyped-decorator]
def zeros(context: Any) -> Any:
    """Return eight words without a bit set."""

    def generate(target: Any, builder: Any, kinds: Any, args: Any) -> Any:
        return ir.Constant(_VECTOR, [0] * LANES)

    return _vector(), generate


@intrinsic  # type: ignore[untyped-decorator]
def popcounts(context: Any, value: Any) -> Any:
    """Return the number of bits set in each of eight words."""

    def generate(target: Any, builder: Any, kinds: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctpop.v{LANES}i64"), args)

    return _vector(_vector), generate


@intrinsic  # type: ignore[untyped-decorator]
def total(context: Any, value: Any) -> Any:
    """Return the sum of eight words."""

    def generate(target: Any, builder: Any, kinds: Any, args: Any) -> Any:
        kind = ir.FunctionType(_WORD, [_VECTOR])
        name = f"llvm.vector.reduce.add.v{LANES}i64"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return types.uint64(_vector), generate
