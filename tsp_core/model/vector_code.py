"""Writes functions for this processor's vectors in LLVM's language, and compiles them.

For loops whose vectors have to stay in registers, which plain array code cannot ask for. LLVM comes
with Numba; compiling takes about a tenth of a second, and needs no compiler on the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()


def lanes_here(*, is_bf16: bool) -> int | None:
    """The fp32 values of a vector with which this processor multiplies values of a kind.

    None where it has no such vectors, or, as with AMX for bf16, other code is much faster.
    """
    has = llvm.get_host_cpu_features()
    has_512 = all(has.get(name) for name in ("avx512f", "avx512bw", "avx512vl"))
    if is_bf16:
        return 16 if has_512 and has.get("avx512bf16") and not multiplies_tiles() else None
    if has_512:
        return 16
    return 8 if has.get("avx2") and has.get("fma") else None


def multiplies_tiles() -> bool:
    """Tell whether this processor multiplies whole matrices of bf16 (AMX)."""
    return bool(llvm.get_host_cpu_features().get("amx-bf16"))


def compiled(module: ir.Module) -> Any:
    """Compile a module for this processor; its functions live as long as what is returned."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    parsed = llvm.parse_assembly(str(module))
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        jit=True,
    )
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(parsed, passes)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine


class Int:
    """A 64-bit integer of the function that is written, with Python's operators."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self._builder, self.value = builder, value

    def _with(self, other: Int | int) -> ir.Value:
        return other.value if isinstance(other, Int) else ir.Constant(_I64, other)

    def __add__(self, other: Int | int) -> Int:
        return Int(self._builder, self._builder.add(self.value, self._with(other)))

    def __sub__(self, other: Int | int) -> Int:
        return Int(self._builder, self._builder.sub(self.value, self._with(other)))

    def __mul__(self, other: Int | int) -> Int:
        return Int(self._builder, self._builder.mul(self.value, self._with(other)))

    def __floordiv__(self, other: Int | int) -> Int:
        return Int(self._builder, self._builder.udiv(self.value, self._with(other)))

    def __mod__(self, other: Int | int) -> Int:
        return Int(self._builder, self._builder.urem(self.value, self._with(other)))

    def rounded_up(self, step: int) -> Int:
        """Divide by a number, rounding up."""
        return (self + (step - 1)) // step

    def is_index_below(self, bound: Int) -> ir.Value:
        """Tell whether it is neither negative nor as large as a bound."""
        return self._builder.icmp_unsigned("<", self.value, bound.value)

    def at_most(self, other: Int) -> Int:
        """Take the smaller of two that are not negative."""
        return self.where(self.is_index_below(other), other)

    def where(self, condition: ir.Value, otherwise: Int) -> Int:
        """Take it where a condition holds, and something else otherwise."""
        found = self._builder.select(condition, self.value, otherwise.value)
        return Int(self._builder, found)


class VectorCode:
    """Writes one function `name(int64 *arguments)` with vectors of fp32 sums.

    What is multiplied are *values*, fp32 or bf16; in memory they are as they are, in vectors fp32.

    Args:
        name: Of the function.
        lanes: fp32 values in a vector.
        is_bf16: Whether values are bf16.
    """

    def __init__(self, name: str, lanes: int, *, is_bf16: bool) -> None:
        self.module = ir.Module(name)
        self.lanes, self._is_bf16 = lanes, is_bf16
        self._floats, self._ints = ir.VectorType(_F32, lanes), ir.VectorType(_I32, lanes)
        self._values = ir.VectorType(_I16, lanes) if is_bf16 else self._floats
        self._pairs = ir.VectorType(_BFloat(), 2 * lanes)
        kind = ir.FunctionType(ir.VoidType(), [_I64.as_pointer()])
        function = ir.Function(self.module, kind, name)
        self._b = ir.IRBuilder(function.append_basic_block("entry"))
        self._arguments = Int(self._b, self._b.ptrtoint(function.args[0], _I64))

    def end(self) -> ir.Module:
        """End the function; returns the module to compile."""
        self._b.ret_void()
        return self.module

    def argument(self, place: int) -> Int:
        """An argument, by its place."""
        return Int(self._b, self._b.load(self._pointer(self._arguments + 8 * place, _I64)))

    def float_argument(self, place: int) -> ir.Value:
        """An argument that is fp32, in all lanes."""
        value = self._b.load(self._pointer(self._arguments + 8 * place, _F32))
        return self._spread(value)

    def integer(self, value: int) -> Int:
        """A constant."""
        return Int(self._b, ir.Constant(_I64, value))

    def both(self, one: ir.Value, other: ir.Value) -> ir.Value:
        """Tell whether two conditions hold."""
        return self._b.and_(one, other)

    def constant(self, value: float) -> ir.Constant:
        """A vector of one number."""
        return ir.Constant(self._floats, [float(value)] * self.lanes)

    def mask(self, count: Int) -> ir.Value:
        """Mark the first lanes, as many as are left; none if the count is negative."""
        order = ir.Constant(self._ints, list(range(self.lanes)))
        left = self._spread(self._b.trunc(count.value, _I32))
        return self._b.icmp_signed("<", order, left)

    def read_values(self, address: Int, mask: ir.Value) -> ir.Value:
        """Read values; 0 where the mask is not set."""
        pointer = self._pointer(address, self._values)
        align = ir.Constant(_I32, 2 if self._is_bf16 else 4)
        nothing = ir.Constant(self._values, None)
        name = f"llvm.masked.load.{self._suffix}.p0"
        found = self._intrinsic(name, self._values, pointer, align, mask, nothing)
        if not self._is_bf16:
            return found
        upper_half = ir.Constant(self._ints, [16] * self.lanes)
        shifted = self._b.shl(self._b.zext(found, self._ints), upper_half)
        return self._b.bitcast(shifted, self._floats)

    def write_values(self, vector: ir.Value, address: Int, mask: ir.Value | None = None) -> None:
        """Round a vector to values and write it, or those of its lanes that a mask marks."""
        if self._is_bf16:
            name = f"llvm.x86.avx512bf16.cvtneps2bf16.{self.lanes * 32}"
            rounded = self._intrinsic(name, ir.VectorType(_BFloat(), self.lanes), vector)
            vector = self._b.bitcast(rounded, self._values)
        pointer = self._pointer(address, self._values)
        align = 2 if self._is_bf16 else 4
        if mask is None:
            self._b.store(vector, pointer, align=align)
            return
        name = f"llvm.masked.store.{self._suffix}.p0"
        self._intrinsic(name, ir.VoidType(), vector, pointer, ir.Constant(_I32, align), mask)

    def read_sums(self, address: Int) -> ir.Value:
        """Read a vector of fp32."""
        return self._b.load(self._pointer(address, self._floats), align=4)

    def write_sums(self, vector: ir.Value, address: Int) -> None:
        """Write a vector of fp32."""
        self._b.store(vector, self._pointer(address, self._floats), align=4)

    def read_factors(self, address: Int) -> ir.Value:
        """Read what `add_product` takes: per lane one fp32 value, or two of bf16."""
        kind = self._pairs if self._is_bf16 else self._floats
        return self._b.load(self._pointer(address, kind), align=4)

    def read_factor(self, address: Int) -> ir.Value:
        """Read one fp32 value, or two of bf16, into all lanes."""
        if not self._is_bf16:
            return self._spread(self._b.load(self._pointer(address, _F32), align=4))
        pair = self._b.load(self._pointer(address, _I32), align=4)
        return self._b.bitcast(self._spread(pair), self._pairs)

    def add_product(self, total: ir.Value, one: ir.Value, other: ir.Value) -> ir.Value:
        """Add products of factors to sums; of bf16, both products of a lane."""
        if not self._is_bf16:
            return self._multiply_add(one, other, total)
        name = f"llvm.x86.avx512bf16.dpbf16ps.{self.lanes * 32}"
        return self._intrinsic(name, self._floats, total, one, other)

    def add(self, one: ir.Value, other: ir.Value) -> ir.Value:
        """Add two vectors."""
        return self._b.fadd(one, other)

    def at_least(self, vector: ir.Value, floor: ir.Value) -> ir.Value:
        """Take the larger of two vectors, lane by lane; what is not a number stays so."""
        below = self._b.fcmp_ordered("<", vector, floor)
        return self._b.select(below, floor, vector)

    def weighted_sum(self, weights: Sequence[float], vectors: Sequence[ir.Value]) -> ir.Value:
        """Add vectors with constant weights, at least one of which is not 0."""
        terms = [it for it in zip(weights, vectors, strict=True) if it[0] != 0]
        terms.sort(key=lambda term: term[0] != 1)  # begins with one that needs no product
        (weight, found), *others = terms
        if weight != 1:
            found = self._b.fmul(found, self.constant(weight))
        for weight, vector in others:
            if weight == 1:
                found = self._b.fadd(found, vector)
            elif weight == -1:
                found = self._b.fsub(found, vector)
            else:
                found = self._multiply_add(vector, self.constant(weight), found)
        return found

    def loop(
        self,
        stop: Int,
        body: Callable[..., Any],
        *,
        start: Int | None = None,
        step: Int | None = None,
        carried: Sequence[ir.Value] = (),
    ) -> list[ir.Value]:
        """Write a loop that runs at least once.

        Args:
            stop: Where it ends; the index is below.
            body: Writes one turn. It takes the index and, if there are any, the carried values, and
                returns what these become.
            start: The first index, 0 by default.
            step: From index to index, 1 by default.
            carried: What the first turn takes.

        Returns:
            The carried values after the last turn.
        """
        b = self._b
        zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
        before, inside = b.block, b.append_basic_block("loop")
        b.branch(inside)
        b.position_at_end(inside)
        index = b.phi(_I64)
        index.add_incoming(zero if start is None else start.value, before)
        values = [b.phi(value.type) for value in carried]
        for phi, value in zip(values, carried, strict=True):
            phi.add_incoming(value, before)
        found = body(Int(b, index), values) if carried else body(Int(b, index)) or []
        following = b.add(index, one if step is None else step.value)
        index.add_incoming(following, b.block)
        for phi, value in zip(values, found, strict=True):
            phi.add_incoming(value, b.block)
        after = b.append_basic_block("after")
        b.cbranch(b.icmp_signed("<", following, stop.value), inside, after)
        b.position_at_end(after)
        return list(found)

    @property
    def _suffix(self) -> str:
        return f"v{self.lanes}{'i16' if self._is_bf16 else 'f32'}"

    def _multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return self._intrinsic(f"llvm.fma.v{self.lanes}f32", self._floats, a, b, c)

    def _spread(self, value: ir.Value) -> ir.Value:
        nothing = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = self._b.insert_element(nothing, value, ir.Constant(_I32, 0))
        places = ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        return self._b.shuffle_vector(first, nothing, places)

    def _pointer(self, address: Int, kind: ir.Type) -> ir.Value:
        return self._b.inttoptr(address.value, kind.as_pointer())

    def _intrinsic(self, name: str, kind: ir.Type, *values: ir.Value) -> ir.Value:
        function = self.module.globals.get(name)
        if function is None:
            takes = ir.FunctionType(kind, [value.type for value in values])
            function = ir.Function(self.module, takes, name)
        return self._b.call(function, values)


class _BFloat(ir.Type):  # type: ignore[misc]  # llvmlite has no types for mypy
    """LLVM's bf16, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)
