"""Three things that a processor does at once and Python cannot say so; as plain Python they work too, only slower.

    ones(word)                      how many of the 32 bits of `word` are set
    one_less_behind(array, index)   subtract 1 from all elements behind, up to the next index divisible by 64
                                    (fast for arrays from aligned_zeros only)
    prefetch(array, index)          fetch array[index] early: it changes no result, and as plain Python nothing at all

`register()` tells numba of them.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

LINE = 64  # bytes
AHEAD = 16  # accesses; long enough for a line of memory to arrive
OPTIONS: dict[str, Any] = {"_nrt": False}  # of what is compiled: without reference counts on the arrays


def prefetch(array: Any, index: int) -> None:
    """Ask the processor to fetch array[index] early.  Compiled code only; changes no result."""


def ones(word: Any) -> int:
    """How many of its 32 bits are set."""
    return int(word).bit_count()


def one_less_behind(array: Any, index: int) -> None:
    """Subtract 1 from array[index + 1:end], where `end` is the next number divisible by 64."""
    array[index + 1 : (index | 63) + 1] -= 1


def aligned_zeros(length: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array of zeros that starts on a line of memory: a vector that lies across two lines is read back slowly."""
    import numpy as np

    size = length * np.dtype(dtype).itemsize
    room = np.zeros(size + LINE, dtype=np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + size].view(dtype)


def have_numba() -> bool:
    """Whether functions are compiled; without numba the same functions run as plain Python, with the same results."""
    return importlib.util.find_spec("numba") is not None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code; numba keeps it on disk, where it may write there."""
    import numba

    try:
        made: Callable[..., Any] = numba.njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # there is no folder that numba could write to
        made = numba.njit(**OPTIONS)(function)
    return made


@functools.cache
def register() -> None:
    """Tell numba of them; once is enough."""
    import numpy as np
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic, overload

    number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()

    def fetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, index_type = signature.args
        data = context.make_array(array_type)(context, builder, arguments[0]).data
        where = builder.gep(data, [context.cast(builder, arguments[1], index_type, types.intp)])
        function_type = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
        for_writing, keep_in_all_caches, data_not_code = (ir.Constant(number, value) for value in (1, 3, 1))
        builder.call(function, [builder.bitcast(where, pointer), for_writing, keep_in_all_caches, data_not_code])
        return context.get_dummy_value()

    def count(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = context.cast(builder, arguments[0], signature.args[0], types.uint32)
        return context.cast(builder, builder.ctpop(word), types.uint32, types.int64)

    falling = np.repeat(np.array([0, -1], dtype=np.int8), 64)

    def subtract(array: Any, index: Any) -> Any:
        # All 64, most of them by 0, read from a table: with no end to guess at this is a few vector instructions.
        # Unsigned, since numba asks of every signed index whether it counts from the end.
        first, zeros = np.uint64(index & ~63), np.uint64(63 - (index & 63))
        for i in range(64):
            array[first + np.uint64(i)] += falling[zeros + np.uint64(i)]

    def subtracts(array: Any, index: Any) -> Any:
        return subtract

    fetched = intrinsic(lambda typing_context, array, index: (types.void(array, index), fetch))
    counted = intrinsic(lambda typing_context, word: (types.int64(word), count))
    overload(prefetch, jit_options=OPTIONS)(lambda array, index: lambda array, index: fetched(array, index))
    overload(one_less_behind, jit_options=OPTIONS | {"forceinline": True})(subtracts)
    overload(ones, jit_options=OPTIONS)(lambda word: lambda word: counted(word))
