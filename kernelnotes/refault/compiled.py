"""How the step functions become machine code.  Imported on the first replay, where numba is installed.

The functions stay what they are, plain Python: numba is told of each as an overload of itself, so that compiled
code can call it too.  What every access needs is inlined into the one loop, and without reference counts on the
arrays (`_nrt`), which cost five times as much as the work itself (measured: 56 against 8 ns per access).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload, register_jitable

from kernelnotes.errors import BadInput
from kernelnotes.refault import article, choices, kernel, lists, loop, yardsticks

_OPTIONS: dict[str, Any] = {"_nrt": False}


@functools.cache
def _register() -> None:
    for function in (*loop.OPERATIONS, *loop.BUILT_IN, loop.run):
        register_jitable(forceinline=function not in kernel.SELDOM, **_OPTIONS)(function)
    overload(lists.prefetch, jit_options=_OPTIONS)(lambda array, index: lambda array, index: _prefetch(array, index))


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


def _sources() -> str:
    """A digest of all that is compiled: numba itself asks only one file whether what it kept on disk is stale."""
    files = (Path(module.__file__) for module in (article, choices, kernel, lists, loop, yardsticks) if module.__file__)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@functools.cache
def built_in(step: Callable[..., Any]) -> Callable[..., None]:
    """`loop.run` with a step function of this package filled in; numba keeps it on disk, where it may write there."""
    _register()
    sources, run_step = _sources(), loop.run

    def run(m: Any, rules: Any, pages: Any, start: Any, stop: Any, distances: Any) -> None:
        sources  # noqa: B018 - what a closure holds is part of the key under which numba keeps it
        run_step(step, m, rules, pages, start, stop, distances)

    try:
        compiled: Callable[..., None] = numba.njit(cache=True, **_OPTIONS)(run)
    except RuntimeError:  # there is no folder that numba could write to
        compiled = numba.njit(**_OPTIONS)(run)
    return compiled


def custom(step: Callable[..., Any]) -> Callable[..., None]:
    """`loop.run` for somebody else's step function, which may call every operation of this package; compiled anew.

    Calling it raises BadInput for a step function that cannot be compiled.
    """
    _register()
    run = numba.njit(**_OPTIONS)(loop.run)
    compiled = numba.njit(forceinline=True, **_OPTIONS)(step)

    def run_custom(*arguments: Any) -> None:
        try:
            run(compiled, *arguments)
        except numba.core.errors.NumbaError as e:
            why = " ".join(line.strip() for line in str(e).splitlines() if line.strip())[:400]
            name = getattr(step, "__name__", repr(step))
            raise BadInput(f"rules: {name}() cannot be compiled, expected it to return an integer; numba: {why}") from e

    return run_custom
