"""One declaration through pycparser.

pycparser is told which words of the text are typedef names: all that C's grammar depends on.
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

from pycparser.c_parser import CParser, ParseError

from kernelnotes.cdecl.source import Declaration, fail

_WORD = re.compile(r"(?<![\w$])[A-Za-z_$][\w$]*")
_PARSER = CParser(dialect="c23")
# `bool` and its like are keywords of C23, not names that may be defined.
_KEYWORDS = {"bool", "true", "false", "nullptr", "typeof", "static_assert", "alignas", "alignof", "constexpr"}


def words(text: str) -> set[str]:
    """Every word of C in the text."""
    return set(_WORD.findall(text))


def parsed(declaration: Declaration, typedefs: Container[str]) -> list[Any]:
    """The nodes of the declaration.  Raises BadInput where it is no C."""
    text, file, line, column, _ = declaration
    known = {word for word in words(text) if word in typedefs} - _KEYWORDS
    outcome = _parse(text, file, line, column, tuple(sorted(known)))
    if isinstance(outcome, list):
        return outcome
    at_line, at_column, problem = outcome
    fail(file, at_line, at_column, text, problem)


def _plainly(problem: str) -> str:
    problem = problem.rpartition(": ")[2]
    return "not a declaration, or of a type that is not known here" if problem == "Invalid specifier list" else problem


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
