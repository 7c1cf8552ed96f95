"""One declaration through pycparser, once per text.

What the same text means can depend only on which of its words are typedef names: these are part of the key.
"""

from __future__ import annotations

import re
from collections.abc import Container
from functools import lru_cache
from typing import Any

from pycparser.c_parser import CParser, ParseError

from kernelnotes.cdecl.source import Declaration, fail

_WORD = re.compile(r"\b[A-Za-z_]\w*")
_PARSER = CParser(dialect="c23")
# `bool` and its like are keywords of C23, not names that may be defined.
_KEYWORDS = {"bool", "true", "false", "nullptr", "typeof", "static_assert", "alignas", "alignof", "constexpr"}


def parsed(declaration: Declaration, typedefs: Container[str]) -> list[Any]:
    """The nodes of the declaration.  Raises BadInput where it is no C."""
    text, file, line, column, _ = declaration
    known = {word for word in _WORD.findall(text) if word in typedefs} - _KEYWORDS
    outcome = _parse(text, file, line, column, tuple(sorted(known)))
    if isinstance(outcome, list):
        return outcome
    at_line, at_column, problem = outcome
    fail(file, at_line, at_column, text, problem)


def _plainly(problem: str) -> str:
    problem = problem.rpartition(": ")[2]
    return "not a declaration, or of a type that is not known here" if problem == "Invalid specifier list" else problem


@lru_cache(maxsize=20_000)
def _parse(text: str, file: str, line: int, column: int, typedefs: tuple[str, ...]) -> list[Any] | tuple[int, int, str]:
    quoted = file.replace("\\", "/").replace('"', "'").replace("\n", " ")
    before = "".join(f"typedef int {name};" for name in typedefs)
    try:
        ast = _PARSER.parse(f'{before}\n# {line} "{quoted}"\n{" " * min(column - 1, 1000)}{text}', quoted)
        return list(ast.ext[len(typedefs) :])
    except ParseError as e:
        place, _, problem = str(e).removeprefix(f"{quoted}:").partition(": ")
        numbers = re.fullmatch(r"(\d+)(?::(\d+))?", place)
        return (int(numbers[1]), int(numbers[2] or 1), problem) if numbers else (line, column, _plainly(str(e)))
    except RecursionError:
        return line, column, "nested too deeply"
