"""From C source text to record types, without a compiler.

    text -> preprocessed text -> declarations -> C23 -> pycparser -> `ctype` -> (with an ABI) `layout`

Macros that make ioctl numbers are in `records.ioctls`; other macros leave no trace.
Numbers that depend on the ABI, such as `char pad[128 - sizeof(long)]`, stay open until an ABI asks.

Left out: function bodies, C++, `_BitInt`, vectors, `_Atomic`, K&R definitions.  Refused, with the reason: what no ABI
defines (`aligned` on a bit-field, which gcc and clang place differently) and attributes that change layouts in ways not
modelled (`mode`, `vector_size`, `scalar_storage_order`, `ms_struct`).

>>> records = cdecl.parse("struct s { __u32 a; __u64 b; };")
>>> [layout.layout(records["struct s"], name).size for name in ("i386", "x86-64")]
[12, 16]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from kernelnotes.cdecl import ioctl
from kernelnotes.cdecl.ioctl import Ioctl
from kernelnotes.cdecl.known import Known
from kernelnotes.cdecl.predefined import predefined
from kernelnotes.cdecl.scope import Records, Scope
from kernelnotes.cdecl.source import MOST_BYTES, declarations, quoted
from kernelnotes.errors import BadInput

__all__ = ["Ioctl", "Known", "Preprocess", "Preprocessed", "Reader", "Records", "parse", "predefined"]

Preprocess = Callable[[str, str, Mapping[str, str], list[str]], str]


def parse(
    source: str,
    defines: Mapping[str, str] | None = None,
    include: Iterable[str] | None = None,
    cpp: Preprocess | None = None,
    filename: str = "<source>",
) -> Records:
    """Every struct and union that the source defines, by name: `struct x`, `union x`, or a typedef.

    Parameters
    ----------
    source : str
        C text; already preprocessed text, with its line markers, is C text too.
    defines : mapping of str to str, optional
        Macros, as `-DNAME=VALUE` gives them.
    include : list of str, optional
        Where `#include` looks; `#include "..."` looks in the folder of `filename` first, and outside of these folders
        nothing is read.  Where it finds nothing, a header in `names.HEADERS` is replaced by the names it defines, and
        any other is refused.
    cpp : callable, optional
        A preprocessor, called with (source, filename, defines, include); by default pcpp, which is pure Python.
        `live.cpp` has one that runs a program.
    filename : str
        What errors call the source.

    Raises BadInput with file, line, column and the declaration for what is no C, or cannot be placed.
    """
    if isinstance(include, str):
        raise BadInput(f"include is the str {include!r}, expected a list of folders")
    return Reader(dict(defines or {}), list(include or []), cpp).parse(source, filename)


class Preprocessed(NamedTuple):
    """A source after the preprocessor, and the ioctl numbers that it is asked for."""

    text: str
    filename: str
    asked: dict[str, ioctl.Definition]


@dataclass(frozen=True, slots=True)
class Reader:
    """`parse` for many sources with the same options: `defines`, `include` and `cpp` are those of the function.

    `known` remembers what the sources have in common, their records too, and may be shared with other readers; `before`
    is C text that is read first, such as the `#include`s that a header leaves to the program.
    """

    defines: dict[str, str] = field(default_factory=dict)
    include: list[str] = field(default_factory=list)
    cpp: Preprocess | None = None
    known: Known = field(default_factory=Known)
    before: str = ""

    def parse(self, source: str, filename: str = "<source>") -> Records:
        """The records of the source; see the function `parse`."""
        if not isinstance(source, str):
            raise BadInput(f"source is a {type(source).__name__}, expected C text")
        try:
            return self.read(self.preprocess(source, filename))
        except BadInput:
            if not ioctl.definitions(source, filename):
                raise
        # It may have been a question about an ioctl, since a macro can be anything; without it the source has its say.
        return self.read(self.preprocess(source, filename, ask=False))

    def preprocess(self, source: str, filename: str, ask: bool = True) -> Preprocessed:
        """The first step, which runs no code of ours if `cpp` is a program: good for a thread."""
        if len(source) > MOST_BYTES or "\0" in source:
            raise BadInput(f"{filename}: expected C text of at most {MOST_BYTES >> 20} MiB without NUL characters")
        asked = ioctl.definitions(source, filename) if ask else {}
        source += ioctl.questions(asked)
        if self.cpp is not None:
            whole = f'{self.before}\n#line 1 "{quoted(filename)}"\n{source}' if self.before else source
            return Preprocessed(self.cpp(whole, filename, self.defines, self.include), filename, asked)
        from kernelnotes.cdecl.preprocess import preprocess

        text = preprocess(source, filename, self.defines, self.include, self.known.expansions, self.before)
        return Preprocessed(text, filename, asked)

    def read(self, source: Preprocessed) -> Records:
        """The second step: the records, and the numbers of the ioctls."""
        scope = Scope(self.known.readings)
        asking = False
        for declaration in declarations(source.text, source.filename, self.known.stretches):
            asking = asking or (bool(source.asked) and declaration.text == ioctl.BEGIN)
            if not asking:
                scope.read(declaration)
            elif name := ioctl.asks_for(declaration.text, source.asked):
                with suppress(BadInput):  # no constant after all: it is left out
                    scope.read(declaration)
                    number = scope.constants.pop(f"{ioctl.PREFIX}{name}")
                    scope.records.ioctls[name] = ioctl.answer(name, number, source.asked, scope.records)
        return scope.records
