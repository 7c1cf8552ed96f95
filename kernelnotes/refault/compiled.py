"""How the functions of rules.py become machine code.  Imported on the first replay, where numba is installed.

The functions stay what they are, plain Python: numba is told of each as an overload of itself, so that compiled
code can call it too.  All of them are inlined into the one loop, and without reference counts on the arrays
(`_nrt`), which cost five times as much as the work itself (measured: 56 against 8 ns per access).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload, register_jitable

from kernelnotes.errors import BadInput
from kernelnotes.refault import rules

_OPTIONS: dict[str, Any] = {"_nrt": False}


@functools.cache
def _register() -> None:
    for function in (*rules.OPERATIONS, *rules.BUILT_IN, rules.run):
        register_jitable(forceinline=True, **_OPTIONS)(function)
    overload(rules.prefetch, jit_options=_OPTIONS)(lambda array, index: lambda array, index: _prefetch(array, index))


def _generate_prefetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array_type, index_type = signature.args
    data = context.make_array(array_type)(context, builder, arguments[0]).data
    where = builder.gep(data, [context.cast(builder, arguments[1], index_type, types.intp)])
    number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
    function_type = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    for_writing, keep_in_all_caches, data_not_code = (ir.Constant(number, value) for value in (1, 3, 1))
    builder.call(function, [builder.bitcast(where, pointer), for_writing, keep_in_all_caches, data_not_code])
    return context.get_dummy_value()


_prefetch = intrinsic(lambda typing_context, array, index: (types.void(array, index), _generate_prefetch))


@functools.cache
def built_in() -> Callable[..., None]:
    """`rules.run_built_in`, compiled; numba keeps it on disk beside rules.py, where it may write there."""
    _register()
    try:
        compiled: Callable[..., None] = numba.njit(cache=True, **_OPTIONS)(rules.run_built_in)
    except RuntimeError:  # there is no folder that numba could write to
        compiled = numba.njit(**_OPTIONS)(rules.run_built_in)
    return compiled


def custom(step: Callable[..., Any]) -> Callable[..., None]:
    """`rules.run` for somebody else's step function, which may call every operation of rules.py; compiled anew.

    Calling it raises BadInput for a step function that cannot be compiled.
    """
    _register()
    loop = numba.njit(**_OPTIONS)(rules.run)
    compiled = numba.njit(forceinline=True, **_OPTIONS)(step)

    def run_custom(*arguments: Any) -> None:
        try:
            loop(compiled, *arguments)
        except numba.core.errors.NumbaError as e:
            why = " ".join(line.strip() for line in str(e).splitlines() if line.strip())[:400]
            name = getattr(step, "__name__", repr(step))
            raise BadInput(f"rules: {name}() cannot be compiled, expected it to return an integer; numba: {why}") from e

    return run_custom
