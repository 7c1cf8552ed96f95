"""The C preprocessor in pure Python: pcpp, with limits, and with errors of our own.

Source text without a directive is passed through: most examples need no preprocessor.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from kernelnotes.cdecl.names import HEADERS
from kernelnotes.errors import BadInput

MOST_TOKENS = 1_000_000  # of macro expansions: a line of text can ask for 2**30
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(?!pragma\b|\d|line\b)\S", re.M)
_MACRO = re.compile(r"__struct_group|__DECLARE_FLEX_ARRAY")
# What names.HEADERS would define as macros.  Source: include/uapi/linux/stddef.h.
FUNCTIONS = {
    "__DECLARE_FLEX_ARRAY(TYPE, NAME)": "struct { struct { } __empty_ ## NAME; TYPE NAME[]; }",
    "__struct_group(TAG, NAME, ATTRS, MEMBERS...)": (
        "union { struct { MEMBERS } ATTRS; struct TAG { MEMBERS } ATTRS NAME; }"
    ),
}


def preprocess(source: str, filename: str, defines: Mapping[str, str], include: list[str]) -> str:
    """The text with macros and includes expanded and line markers added.  Raises BadInput, with its line."""
    if not defines and not _DIRECTIVE.search(source) and not _MACRO.search(source):
        return source
    return _expand(source, filename, defines, include)


def _expand(source: str, filename: str, defines: Mapping[str, str], include: list[str]) -> str:
    from pcpp import OutputDirective, Preprocessor
    from pcpp.parser import Action

    class Limited(Preprocessor):  # type: ignore[misc]
        expanded = 0
        directive_line = 1

        def expand_macros(self, tokens: Any, expanding_from: Any = ()) -> Any:
            result = super().expand_macros(tokens, list(expanding_from))
            self.expanded += len(result)
            if self.expanded > MOST_TOKENS:
                raise BadInput(f"{filename}: macros expand to more than {MOST_TOKENS} tokens")
            return result

        def on_error(self, file: str, line: int, msg: str) -> None:
            raise BadInput(f"{file or filename}:{line}:1: {msg}")

        def on_include_not_found(self, is_malformed: bool, is_system_include: bool, curdir: str, path: str) -> Any:
            line = self.directive_line
            if is_malformed:
                raise BadInput(f"{self.source or filename}:{line}:1: malformed #include {path}")
            if path in HEADERS:
                raise OutputDirective(Action.IgnoreAndRemove)
            where = f"not in {', '.join(include)}" if include else "and no include path is given"
            raise BadInput(f"{self.source or filename}:{line}:1: #include {path!r} is not found, {where}")

        def on_directive_handle(self, directive: Any, toks: Any, ifpassthru: bool, precedingtoks: Any) -> Any:
            self.directive_line = directive.lineno
            return super().on_directive_handle(directive, toks, ifpassthru, precedingtoks)

        def on_directive_unknown(self, directive: Any, toks: Any, ifpassthru: bool, precedingtoks: Any) -> Any:
            text = "".join(token.value for token in toks)
            if directive.value in ("warning", "ident", "pragma"):
                return True
            raise BadInput(f"{directive.source or filename}:{directive.lineno}:1: #{directive.value} {text}")

    pp = Limited()
    pp.line_directive = "#"
    for name, value in (FUNCTIONS | dict(defines)).items():
        pp.define(f"{name} {value}")
    for path in include:
        pp.add_path(path)
    try:
        pp.parse(source, filename)
        output = io.StringIO()
        pp.write(output)
    except BadInput:
        raise
    except RecursionError:
        raise BadInput(f"{filename}: macros nested too deeply") from None
    except Exception as e:  # pcpp raises anything on malformed text
        raise BadInput(f"{filename}: the preprocessor failed: {type(e).__name__}: {e}") from e
    return output.getvalue()
