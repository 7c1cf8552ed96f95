"""From C source text to record types, without a compiler.

    text -> preprocessed text -> declarations -> C23 -> pycparser -> `ctype` -> (with an ABI) `layout`

    records = cdecl.parse("struct s { __u32 a; __u64 b __attribute__((aligned(8))); };")
    layout.layout(records["struct s"], "i386")

Numbers that depend on the ABI, such as `char pad[128 - sizeof(long)]`, stay open until an ABI asks.

Left out: function bodies, C++, `_BitInt`, vectors, `_Atomic`, K&R definitions.  Refused, with the reason: what no ABI
defines (`aligned` on a bit-field, which gcc and clang place differently) and attributes that change layouts in ways not
modelled (`mode`, `vector_size`, `scalar_storage_order`, `ms_struct`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kernelnotes.cdecl.known import Known
from kernelnotes.cdecl.predefined import predefined
from kernelnotes.cdecl.scope import Records, Scope
from kernelnotes.cdecl.source import MOST_BYTES, declarations
from kernelnotes.errors import BadInput

__all__ = ["Known", "Records", "parse", "predefined"]

Preprocess = Callable[[str, str, Mapping[str, str], list[str]], str]


def parse(
    source: str,
    defines: Mapping[str, str] | None = None,
    include: Iterable[str] | None = None,
    cpp: Preprocess | None = None,
    filename: str = "<source>",
    known: Known | None = None,
) -> Records:
    """Every struct and union that the source defines, by name: `struct x`, `union x`, or a typedef.

    Parameters
    ----------
    source : str
        C text; already preprocessed text, with its line markers, is C text too.
    defines : mapping of str to str, optional
        Macros, as `-DNAME=VALUE` gives them.
    include : list of str, optional
        Where `#include` looks.  Without it the headers in `names.HEADERS` are replaced by the names they define, and
        any other include is refused.
    cpp : callable, optional
        A preprocessor, called with (source, filename, defines, include); by default pcpp, which is pure Python.
        `live.cpp` has one that runs a program.
    filename : str
        What errors call the source.
    known : Known, optional
        Remembers between calls: headers that include the same headers share their work, and their records.

    Raises BadInput with file, line, column and the declaration for what is no C, or cannot be placed.
    """
    if not isinstance(source, str):
        raise BadInput(f"source is a {type(source).__name__}, expected C text")
    if len(source) > MOST_BYTES or "\0" in source:
        raise BadInput(f"{filename}: expected C text of at most {MOST_BYTES >> 20} MiB without NUL characters")
    known = Known() if known is None else known
    paths = list(include or [])
    if cpp is not None:
        text = cpp(source, filename, defines or {}, paths)
    else:
        from kernelnotes.cdecl.preprocess import preprocess

        text = preprocess(source, filename, defines or {}, paths, known.expansions)
    scope = Scope(known.readings)
    for declaration in declarations(text, filename, known.stretches):
        scope.read(declaration)
    return scope.records
