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
from numba.extending import register_jitable

from kernelnotes import intrinsics
from kernelnotes.errors import BadInput
from kernelnotes.intrinsics import OPTIONS
from kernelnotes.refault import article, choices, generations, kernel, lists, loop, yardsticks


@functools.cache
def _register() -> None:
    seldom = (*kernel.SELDOM, *generations.SELDOM)
    for function in (*loop.OPERATIONS, *loop.BUILT_IN, loop.run):
        register_jitable(forceinline=function not in seldom, **OPTIONS)(function)
    intrinsics.register()


def _sources() -> str:
    """A digest of all that is compiled: numba itself asks only one file whether what it kept on disk is stale."""
    modules = (intrinsics, article, choices, generations, kernel, lists, loop, yardsticks)
    files = (Path(module.__file__) for module in modules if module.__file__)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@functools.cache
def built_in(step: Callable[..., Any]) -> Callable[..., None]:
    """`loop.run` with a step function of this package filled in; numba keeps it on disk, where it may write there."""
    _register()
    sources, run_step = _sources(), loop.run

    def run(m: Any, rules: Any, pages: Any, start: Any, stop: Any, distances: Any) -> None:
        sources  # noqa: B018 - what a closure holds is part of the key under which numba keeps it
        run_step(step, m, rules, pages, start, stop, distances)

    return intrinsics.compiled(run)


def custom(step: Callable[..., Any]) -> Callable[..., None]:
    """`loop.run` for somebody else's step function, which may call every operation of this package; compiled anew.

    Calling it raises BadInput for a step function that cannot be compiled.
    """
    _register()
    run = numba.njit(**OPTIONS)(loop.run)
    compiled = numba.njit(forceinline=True, **OPTIONS)(step)

    def run_custom(*arguments: Any) -> None:
        try:
            run(compiled, *arguments)
        except numba.core.errors.NumbaError as e:
            why = " ".join(line.strip() for line in str(e).splitlines() if line.strip())[:400]
            name = getattr(step, "__name__", repr(step))
            raise BadInput(f"rules: {name}() cannot be compiled, expected it to return an integer; numba: {why}") from e

    return run_custom
