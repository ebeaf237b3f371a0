"""A vector of 16 numbers inside Numba functions. In float32: one register on AVX-512, two on AVX2, four on NEON.

Numba leaves vectorising to the compiler, which cannot know that arrays do not overlap and keeps small arrays in
memory. With an explicit vector type the kernels say which numbers stay in registers. Everything is LLVM's own
instructions on vectors, so any machine that LLVM knows will do.

Vectors live in arrays of float32 or float64, of any shape; `at` counts numbers in memory from the array's first.
"""
# ruff: noqa: ARG001, ARG005  Numba passes the typing context, the signature and more

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

_FEATURES = cpu_target.target_context.codegen().magic_tuple()[2]  # of the CPU that Numba compiles for

LANES = 16
"""Samples that a vector holds."""

GROUP = 8 if "+avx512f," in _FEATURES else 4
"""Sums that stay in registers: enough to hide the latency of a multiplication, few enough to leave some free."""

_INT = ir.IntType(32)


class _VectorType(types.Type):  # type: ignore[misc]
    def __init__(self, element: types.Float, ir_element: ir.Type) -> None:
        self.element, self.ir = element, ir.VectorType(ir_element, LANES)
        super().__init__(name=f"{element}x{LANES}")


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, frontend_type: Any) -> None:
        super().__init__(manager, frontend_type, frontend_type.ir)


_FLOATS, _DOUBLES = _VectorType(types.float32, ir.FloatType()), _VectorType(types.float64, ir.DoubleType())
_INTS = ir.VectorType(_INT, LANES)


def _vector(number: Any) -> _VectorType:
    """Return the type of a vector of such numbers."""
    return {types.float32: _FLOATS, types.float64: _DOUBLES}[number]


def _group(number: Any) -> types.UniTuple:
    return types.UniTuple(_vector(number), GROUP)


@intrinsic  # type: ignore[untyped-decorator]
def load(typing_context: Any, array: Any, at: Any) -> Any:
    """array[at : at + 16]."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature, args), align=_bytes(array))

    return _vector(array.dtype)(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def broadcast(typing_context: Any, array: Any, at: Any) -> Any:
    """array[at], 16 times."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        number = builder.load(_number_at(context, builder, signature.args[0], args), align=_bytes(array))
        return _splat(builder, number)

    return _vector(array.dtype)(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing_context: Any, array: Any, at: Any, value: Any) -> Any:
    """array[at : at + 16] = value."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, signature, args), align=_bytes(array))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic  # type: ignore[untyped-decorator]
def splat(typing_context: Any, number: Any) -> Any:
    """One number, 16 times."""
    return _vector(number)(number), lambda context, builder, signature, args: _splat(builder, args[0])


@intrinsic  # type: ignore[untyped-decorator]
def add(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b."""
    return a(a, a), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic  # type: ignore[untyped-decorator]
def sub(typing_context: Any, a: Any, b: Any) -> Any:
    """a − b."""
    return a(a, a), lambda context, builder, signature, args: builder.fsub(*args)


@intrinsic  # type: ignore[untyped-decorator]
def mul(typing_context: Any, a: Any, b: Any) -> Any:
    """a · b."""
    return a(a, a), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic  # type: ignore[untyped-decorator]
def div(typing_context: Any, a: Any, b: Any) -> Any:
    """a / b."""
    return a(a, a), lambda context, builder, signature, args: builder.fdiv(*args)


@intrinsic  # type: ignore[untyped-decorator]
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, rounded once where the machine can."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return _call(builder, "fmuladd", *args)

    return a(a, a, a), generate


@intrinsic  # type: ignore[untyped-decorator]
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger of a and b; b where either is not a number."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, a), generate


@intrinsic  # type: ignore[untyped-decorator]
def sqrt(typing_context: Any, a: Any) -> Any:
    """√a."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return _call(builder, "sqrt", *args)

    return a(a), generate


@intrinsic  # type: ignore[untyped-decorator]
def load_group(typing_context: Any, array: Any, at: Any) -> Any:
    """As many vectors as a group has, the first at array[at]."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        vectors = _group_at(context, builder, signature.args[0], args[0], args[1])
        return context.make_tuple(builder, signature.return_type, vectors)

    return _group(array.dtype)(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store_group(typing_context: Any, array: Any, at: Any, vectors: Any) -> Any:
    """The inverse of `load_group`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        start = _address(context, builder, signature, args)
        for n, value in enumerate(cgutils.unpack_tuple(builder, args[2])):
            builder.store(value, builder.gep(start, [_int(n)]), align=_bytes(array))
        return context.get_dummy_value()

    return types.void(array, types.intp, vectors), generate


@intrinsic  # type: ignore[untyped-decorator]
def fma_numbers(typing_context: Any, array: Any, at: Any, step: Any, v: Any, sums: Any) -> Any:
    """array[at + n·step] · v + sums[n] for a group of sums; the numbers of the array 16 times each."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        address, results = _number_at(context, builder, signature.args[0], args), []
        for sum_ in cgutils.unpack_tuple(builder, args[4]):
            number = _splat(builder, builder.load(address, align=_bytes(array)))
            results.append(_call(builder, "fmuladd", number, args[3], sum_))
            address = builder.gep(address, [args[2]])
        return context.make_tuple(builder, signature.return_type, results)

    return sums(array, types.intp, types.intp, v, sums), generate


@intrinsic  # type: ignore[untyped-decorator]
def fma_vectors(typing_context: Any, array: Any, at: Any, v: Any, sums: Any) -> Any:
    """x[n] · v + sums[n] for a group of sums, where x is the group at array[at]."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        vectors = _group_at(context, builder, signature.args[0], args[0], args[1])
        totals = cgutils.unpack_tuple(builder, args[3])
        results = [_call(builder, "fmuladd", x, args[2], s) for x, s in zip(vectors, totals, strict=True)]
        return context.make_tuple(builder, signature.return_type, results)

    return sums(array, types.intp, v, sums), generate


@intrinsic  # type: ignore[untyped-decorator]
def fma_along(typing_context: Any, vectors: Any, array: Any, at: Any, sum_: Any) -> Any:
    """sum_ + Σ_n vectors[n] · x[n], one after the other, where x is the group at array[at]."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        xs = _group_at(context, builder, signature.args[1], args[1], args[2])
        total = args[3]
        for a, x in zip(cgutils.unpack_tuple(builder, args[0]), xs, strict=True):
            total = _call(builder, "fmuladd", a, x, total)
        return total

    return sum_(vectors, array, types.intp, sum_), generate


@intrinsic  # type: ignore[untyped-decorator]
def totals(typing_context: Any, vectors: Any) -> Any:
    """The sums of the numbers of each of a group's vectors, in the lanes `TOTALS`; always in the same order.

    A round puts the halves of two vectors into one, so that one addition serves both, while there are two.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        parts = cgutils.unpack_tuple(builder, args[0])
        for half in (8, 4, 2, 1):
            low = [lane if lane & half == 0 else LANES + lane - half for lane in range(LANES)]
            high = [lane + half for lane in low]
            pairs = list(zip(parts[::2], parts[1::2], strict=False)) or [(parts[0], parts[0])]
            parts = [
                builder.fadd(
                    builder.shuffle_vector(a, b, _ints(low)), builder.shuffle_vector(a, b, _ints(high))
                )
                for a, b in pairs
            ]
        return parts[0]

    return vectors.dtype(vectors), generate


#: Where `totals` leaves the sums of a group.
TOTALS = (0, 8, 4, 12, 2, 10, 6, 14)[:GROUP]


@intrinsic  # type: ignore[untyped-decorator]
def transpose(typing_context: Any, x: Any, x0: Any, x_row: Any, out: Any, o0: Any, out_row: Any) -> Any:
    """out[c, r] = x[r, c] of 16 × 16 numbers; row r of x starts at x[x0 + r · x_row], of out at out[o0 + r · out_row].

    Each of four rounds swaps what two rows `distance` apart have in each other's half of 2 · distance lanes.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        source, vector = (
            _number_at(context, builder, signature.args[0], args),
            _vector(signature.args[0].dtype).ir,
        )
        rows = []
        for _ in range(LANES):
            rows.append(builder.load(builder.bitcast(source, vector.as_pointer()), align=_bytes(x)))
            source = builder.gep(source, [args[2]])
        for distance in (8, 4, 2, 1):
            keep = [lane if lane & distance == 0 else LANES + lane - distance for lane in range(LANES)]
            swap = [lane + distance if lane & distance == 0 else LANES + lane for lane in range(LANES)]
            for r in range(LANES):
                if r & distance == 0:
                    a, b = rows[r], rows[r + distance]
                    rows[r] = builder.shuffle_vector(a, b, _ints(keep))
                    rows[r + distance] = builder.shuffle_vector(a, b, _ints(swap))
        target = cgutils.create_struct_proxy(signature.args[3])(context, builder, args[3]).data
        target = builder.gep(target, [args[4]])
        for row in rows:
            builder.store(row, builder.bitcast(target, vector.as_pointer()), align=_bytes(x))
            target = builder.gep(target, [args[5]])
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, out, types.intp, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def exp(typing_context: Any, a: Any) -> Any:
    """eᵃ; of float32 for a ≤ 88, to 2 units in the last place; below −87 it stays at e⁻⁸⁷ (10⁻³⁸); NaN stays NaN.

    float64 calls the C library. float32: a = n·ln 2 + r with |r| ≤ ln 2 / 2; a polynomial of degree 7 for eʳ
    (coefficients of Cephes' expf), and n added to the exponent's bits. Adding 1.5·2²³ rounds to a whole number and
    leaves n in the lowest bits.
    """
    if a.element == types.float64:
        return a(a), lambda context, builder, signature, args: _call(builder, "exp", *args)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        def fused(x: Any, y: float | Any, z: float | Any) -> Any:
            return _call(
                builder, "fmuladd", x, *(_constant(c) if isinstance(c, float) else c for c in (y, z))
            )

        lowest, rounder = _constant(-87.0), _constant(1.5 * 2**23)
        x = builder.select(builder.fcmp_ordered("<", args[0], lowest), lowest, args[0])
        shifted = fused(x, 1.44269504088896341, 1.5 * 2**23)
        n = builder.fsub(shifted, rounder)
        r = fused(n, -0.693359375, x)  # ln 2 in two parts, the first exact in few bits
        r = fused(n, 2.12194440e-4, r)
        p = _constant(1.9875691500e-4)
        for coefficient in (
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ):
            p = fused(p, r, coefficient)
        p = fused(p, builder.fmul(r, r), builder.fadd(r, _constant(1.0)))
        exponent = builder.shl(builder.bitcast(shifted, _INTS), _ints([23] * LANES))
        scale = builder.add(exponent, _ints([0x3F800000] * LANES))
        return builder.fmul(p, builder.bitcast(scale, _FLOATS.ir))

    return a(a), generate


def _bytes(array: Any) -> int:
    """Return the size of a number: a vector may start at any."""
    return int(array.dtype.bitwidth // 8)


def _number_at(context: Any, builder: ir.IRBuilder, kind: Any, args: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


def _address(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
    kind = signature.args[0]
    return builder.bitcast(_number_at(context, builder, kind, args), _vector(kind.dtype).ir.as_pointer())


def _group_at(context: Any, builder: ir.IRBuilder, kind: Any, array: Any, at: Any) -> list[Any]:
    start = _number_at(context, builder, kind, (array, at))
    start = builder.bitcast(start, _vector(kind.dtype).ir.as_pointer())
    size = _bytes(kind)
    return [builder.load(builder.gep(start, [_int(n)]), align=size) for n in range(GROUP)]


def _splat(builder: ir.IRBuilder, number: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, _ints([0] * LANES))


def _call(builder: ir.IRBuilder, name: str, *args: Any) -> Any:
    """An LLVM intrinsic of vectors."""
    vector = args[0].type
    kind = ir.FunctionType(vector, [vector] * len(args))
    bits = 32 if vector.element == ir.FloatType() else 64
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f{bits}")
    return builder.call(function, args)


def _constant(number: float) -> ir.Constant:
    from numpy import float32

    return ir.Constant(_FLOATS.ir, [float(float32(number))] * LANES)  # LLVM wants a float32's exact value


def _int(number: int) -> ir.Constant:
    return ir.Constant(_INT, number)


def _ints(numbers: Any) -> ir.Constant:
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(_INT, len(numbers)), numbers)
