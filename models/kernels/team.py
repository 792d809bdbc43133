"""Shares of a kernel's work on the threads of another library's OpenMP team, such as torch's.

They wait for work with their cores awake, and take it up within a microsecond. Threads of our own
would find those cores taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped_cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

cgutils, make_array = cast(Any, untyped_cgutils), cast(Any, arrayobj).make_array
WORD, FLAGS, NOTHING, ADDRESS = ir.IntType(64), ir.IntType(32), ir.VoidType(), cgutils.voidptr_t
BODY = ir.FunctionType(NOTHING, [ADDRESS])
FORK = ir.FunctionType(NOTHING, [BODY.as_pointer(), ADDRESS, FLAGS, FLAGS])
"""GOMP_parallel of the GNU OpenMP runtime: body, its argument, threads, flags."""


@intrinsic
def _in_shares(typing: Any, function: Any, how: Any) -> Any:
    """Call the kernel `function` in shares, as `how` says: `threads.How`.

    The arrays that are split have one length n; share i of `shares` gets their rows
    n * i // shares .. n * (i + 1) // shares - 1. `fork` is the address of GOMP_parallel, which
    calls on `threads` threads; each takes shares until none is left. With 0 this thread does all.
    Returns how many shares failed, which they do when memory is short.
    """
    *_, split, whole = how
    parts = tuple(map(_part_of, split))
    signature = function.get_call_type(typing, (*parts, *whole), {})

    def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
        compiled = function.dispatcher.overloads[tuple(signature.args)]
        context.active_code_library.add_linking_library(compiled.library)
        return _Shares(context, builder, compiled.fndesc, signature, split, parts).build(*values)

    return types.intp(function, how), generate


in_shares: Callable[..., int] = _in_shares
"""`_in_shares` as kernels call it; the compiler gives `typing`."""


def _part_of(array: Any) -> Any:
    """The type of an array's share; that of one in C's order is in this order too."""
    return array.copy(layout="C" if array.layout == "C" else "A")


class _Shares:
    """Writes `in_shares`."""

    def __init__(
        self, context: Any, builder: Any, kernel: Any, signature: Any, split: Any, parts: Any
    ) -> None:
        self.context, self.builder, self.kernel = context, builder, kernel
        self.signature, self.split, self.parts = signature, tuple(split), parts

    def build(self, _: Any, how: Any) -> Any:
        builder = self.builder
        fork, threads, shares, split, whole = cgutils.unpack_tuple(builder, how)
        frame_type = ir.LiteralStructType([WORD, WORD, WORD, split.type, whole.type])
        frame = cgutils.alloca_once(builder, frame_type)
        for index, value in enumerate((_word(0), _word(0), shares, split, whole)):
            builder.store(value, cgutils.gep_inbounds(builder, frame, 0, index))
        body, argument = self._body(frame.type), builder.bitcast(frame, ADDRESS)
        with builder.if_else(builder.icmp_signed("==", fork, _word(0))) as (alone, together):
            with alone:
                builder.call(body, [argument])
            with together:
                team = builder.inttoptr(fork, FORK.as_pointer())
                count = builder.trunc(threads, FLAGS)
                builder.call(team, [body, argument, count, ir.Constant(FLAGS, 0)])
        return builder.load(cgutils.gep_inbounds(builder, frame, 0, 1))

    def _body(self, frame_type: Any) -> Any:
        """What each thread does: take the next share until there is none."""
        module = self.builder.module
        body = ir.Function(module, BODY, module.get_unique_name("shares"))
        body.linkage = "internal"
        begin, take, do, end = map(body.append_basic_block, ("begin", "take", "do", "end"))
        builder = ir.IRBuilder(begin)
        frame = builder.bitcast(body.args[0], frame_type)
        taken, failed, *given = (cgutils.gep_inbounds(builder, frame, 0, i) for i in range(5))
        shares, split, whole = map(builder.load, given)
        builder.branch(take)

        builder.position_at_end(take)
        share = builder.atomic_rmw("add", taken, _word(1), "monotonic")
        builder.cbranch(builder.icmp_signed("<", share, shares), do, end)

        builder.position_at_end(do)
        arrays = cgutils.unpack_tuple(builder, split)
        parts = [
            self._part(builder, *each, share, shares)
            for each in zip(self.split, self.parts, arrays, strict=True)
        ]
        arguments = [*parts, *cgutils.unpack_tuple(builder, whole)]
        status, _ = self.context.call_internal_no_propagate(
            builder, self.kernel, self.signature, arguments
        )
        error = builder.zext(status.is_error, WORD)
        builder.atomic_rmw("add", failed, error, "monotonic")
        builder.branch(take)

        builder.position_at_end(end)
        builder.ret_void()
        return body

    def _part(
        self, builder: Any, kind: Any, part_kind: Any, value: Any, share: Any, shares: Any
    ) -> Any:
        """Rows of an array: its header with another address and length."""
        array = make_array(kind)(self.context, builder, value)
        shape, strides = (
            cgutils.unpack_tuple(builder, each) for each in (array.shape, array.strides)
        )
        start, stop = (
            builder.sdiv(builder.mul(shape[0], number), shares)
            for number in (share, builder.add(share, _word(1)))
        )
        count = builder.sub(stop, start)
        at = cgutils.pointer_add(builder, array.data, builder.mul(start, strides[0]))
        items = count
        for more in shape[1:]:
            items = builder.mul(items, more)
        part = make_array(part_kind)(self.context, builder)
        part.meminfo, part.parent, part.itemsize = array.meminfo, array.parent, array.itemsize
        part.data, part.nitems = at, items
        part.shape = cgutils.pack_array(builder, [count, *shape[1:]])
        part.strides = array.strides
        return part._getvalue()


def _word(number: int) -> Any:
    return ir.Constant(WORD, number)
