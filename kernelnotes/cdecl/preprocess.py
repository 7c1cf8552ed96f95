"""The C preprocessor in pure Python: pcpp, with limits, with errors of our own, and with a memory.

Source text without a directive is passed through: most examples need no preprocessor.

Headers include the same headers again and again.  What an include does is decided by the macros it looks at, so an
`Expansion` keeps, for one file, every macro that was asked for with the answer, what came out, and what was defined.
Where a later translation unit, under another ABI perhaps, would give the same answers, the file is not read again.

Left out: trigraphs' warnings, `#include_next` but for a header that includes its own name, computed `#line`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernelnotes.cdecl.names import HEADERS
from kernelnotes.cdecl.source import MOST_BYTES, without_comments
from kernelnotes.errors import BadInput

MOST_TOKENS = 1_000_000  # of macro expansions: a line of text can ask for 2**30
MOST_CALLS = 50  # of macros inside macros and their arguments: the time pcpp takes grows with the cube
MOST_CHARACTERS = 1 << 24  # of the same: ## and # make a token of any length
MOST_DEPTH = 200
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(?!pragma\b|\d|line\b)\S", re.M)
_MACRO = re.compile(r"__struct_group|__DECLARE_FLEX_ARRAY|\b_IO(?:C|[RW]+)?\s*\(")
_NEXT = re.compile(r"^([ \t]*#[ \t]*)include_next\b", re.M)
# What names.HEADERS would define as macros.  Source: include/uapi/linux/stddef.h, include/uapi/asm-generic/ioctl.h,
# where the directions and the size of an ioctl are is left to the ABI (see names.IOCTL); C17, 5.2.4.2.1.
MACROS = {
    "CHAR_BIT": "8",
    "SHRT_MAX": "0x7fff",
    "USHRT_MAX": "0xffff",
    "INT_MAX": "0x7fffffff",
    "INT_MIN": "(-0x7fffffff - 1)",
    "UINT_MAX": "0xffffffffU",
    "LONG_MAX": "((long)(~0UL >> 1))",
    "ULONG_MAX": "(~0UL)",
    "__DECLARE_FLEX_ARRAY(TYPE, NAME)": "struct { struct { } __empty_ ## NAME; TYPE NAME[]; }",
    "__struct_group(TAG, NAME, ATTRS, MEMBERS...)": (
        "union { struct { MEMBERS } ATTRS; struct TAG { MEMBERS } ATTRS NAME; }"
    ),
    "_IOC(dir, type, nr, size)": "((unsigned)(dir) << _IOC_DIRSHIFT | (type) << 8 | (nr) | (unsigned)(size) << 16)",
    "_IO(type, nr)": "_IOC(_IOC_NONE, (type), (nr), 0)",
    "_IOR(type, nr, size)": "_IOC(_IOC_READ, (type), (nr), sizeof(size))",
    "_IOW(type, nr, size)": "_IOC(_IOC_WRITE, (type), (nr), sizeof(size))",
    "_IOWR(type, nr, size)": "_IOC(_IOC_READ | _IOC_WRITE, (type), (nr), sizeof(size))",
}


@dataclass(slots=True)
class Expansion:
    """What including one file did: `asked` and `set` map names of macros to macros, None for "not defined".

    `text` is what came out, line markers included.
    """

    asked: dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    once: bool = False  # the file, or one below it, has #pragma once: what it does depends on more than macros

    def took(self, inner: Expansion) -> None:
        """Note what a file below did."""
        for name, macro in inner.asked.items():
            if name not in self.set:
                self.asked.setdefault(name, macro)
        self.set |= inner.set
        self.once |= inner.once


Expansions = dict[str, list[Expansion]]  # by the file's path
MOST_EXPANSIONS = 20  # kept for one file


def preprocess(
    source: str,
    filename: str,
    defines: Mapping[str, str],
    include: list[str],
    known: Expansions | None = None,
    before: str = "",
) -> str:
    """The text with macros and includes expanded and line markers added.  Raises BadInput, with its line.

    `known` keeps the expansions of includes between calls; the files must not change in the meantime.  `before` is text
    that is read first.
    """
    if not defines and not before and not _DIRECTIVE.search(source) and not _MACRO.search(source):
        return source
    return _expand([before, source], filename, defines, include, {} if known is None else known)


class _Macros(dict[str, Any]):
    # The table of macros, which notes for each file being included what is asked and what is set.
    def __init__(self) -> None:
        super().__init__()
        self.files = [Expansion()]

    def peek(self, name: str) -> Any:
        return dict.get(self, name)

    def _note(self, name: str) -> None:
        now = self.files[-1]
        if name not in now.set and name not in now.asked:
            now.asked[name] = dict.get(self, name)

    def __contains__(self, name: object) -> bool:
        self._note(str(name))
        return dict.__contains__(self, name)

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return dict.__getitem__(self, name)

    def __setitem__(self, name: str, macro: Any) -> None:
        self.files[-1].set[name] = macro
        dict.__setitem__(self, name, macro)

    def __delitem__(self, name: str) -> None:
        self.files[-1].set[name] = None
        dict.__delitem__(self, name)

    def answers(self, expansion: Expansion) -> bool:
        """Would the file find every macro as it did then?"""
        return all(_same(dict.get(self, name), macro) for name, macro in expansion.asked.items())

    def repeat(self, expansion: Expansion) -> None:
        """Do to the macros what the file did then."""
        self.files[-1].took(expansion)
        for name, macro in expansion.set.items():
            if macro is None:
                dict.pop(self, name, None)
            else:
                dict.__setitem__(self, name, macro)


def _same(one: Any, two: Any) -> bool:
    return one is two or (one is not None and two is not None and _written(one) == _written(two))


def _written(macro: Any) -> tuple[object, ...]:
    values = tuple(token.value for token in macro.value)
    return macro.name, tuple(macro.arglist) if macro.arglist is not None else None, macro.variadic, values


@dataclass(slots=True)
class _Verbatim:
    # What an include yields in place of tokens: text that is finished.
    value: str
    type: str = "VERBATIM"


def _expand(
    sources: list[str], filename: str, defines: Mapping[str, str], include: list[str], known: Expansions
) -> str:
    from pcpp import Preprocessor

    here = os.path.abspath(filename)

    class Limited(Preprocessor):  # type: ignore[misc]
        source: str = here  # the file being read
        expanded = written = depth = 0
        directive_line = 1

        def expand_macros(self, tokens: Any, expanding_from: Any = ()) -> Any:
            self.depth += 1
            if self.depth > MOST_CALLS:
                raise BadInput(f"{filename}: macros nested more than {MOST_CALLS} deep")
            result = super().expand_macros(tokens, list(expanding_from))
            self.depth -= 1
            self.expanded += len(result)
            self.written += sum(len(token.value) for token in result)
            if self.written > MOST_CHARACTERS:
                raise BadInput(f"{filename}: macros expand to more than {MOST_CHARACTERS} characters")
            if self.expanded > MOST_TOKENS:
                raise BadInput(f"{filename}: macros expand to more than {MOST_TOKENS} tokens")
            return result

        def on_error(self, file: str, line: int, msg: str) -> None:
            raise BadInput(f"{_shown(file)}:{line}:1: {msg}")

        def include(self, tokens: Any, original_line: Any) -> Iterator[_Verbatim]:
            name = "".join(token.value for token in tokens).strip()
            at = f"{_shown(self.source)}:{self.directive_line}:1"
            if not re.fullmatch(r'<[^<>]+>|"[^"]+"', name):
                raise BadInput(f"{at}: malformed #include {name}")
            path = self.find(name, at)
            if path and path not in self.include_once:
                yield _Verbatim(self.included(path, at))

        def find(self, name: str, at: str) -> str:
            # The path of an include; "" for one whose names are built in.
            wanted = name[1:-1]
            folders = [os.path.dirname(self.source)] if name[0] == '"' else []
            paths = [os.path.abspath(os.path.join(folder, wanted)) for folder in [*folders, *include]]
            if self.source in paths:  # a header that includes its own name means the next one of that name
                paths = paths[paths.index(self.source) + 1 :]
            if found := next(filter(os.path.isfile, paths), ""):
                return found
            if wanted in HEADERS:
                return ""
            where = f"not in {', '.join(include)}" if include else "and no include path is given"
            raise BadInput(f"{at}: #include {wanted!r} is not found, {where}")

        def included(self, path: str, at: str) -> str:
            macros = self.macros
            for expansion in known.get(path, ()):
                if macros.answers(expansion):
                    macros.repeat(expansion)
                    return expansion.text
            if len(macros.files) > MOST_DEPTH:
                raise BadInput(f"{at}: #include nested more than {MOST_DEPTH} deep")
            macros.files.append(Expansion())
            outside = self.source
            text = _written_out(self.parsegen(_text_of(path, at), path, path), here, filename)
            self.source = outside
            if len(text) > MOST_BYTES:
                raise BadInput(f"{at}: #include {path!r} expands to more than {MOST_BYTES >> 20} MiB")
            done = macros.files.pop()
            done.text, done.once = text, done.once or path in self.include_once
            macros.files[-1].took(done)
            kept = known.setdefault(path, [])
            if not done.once and len(kept) < MOST_EXPANSIONS:
                kept.append(done)
            return text

        def on_directive_handle(self, directive: Any, toks: Any, ifpassthru: bool, precedingtoks: Any) -> Any:
            self.directive_line = directive.lineno
            return super().on_directive_handle(directive, toks, ifpassthru, precedingtoks)

        def on_directive_unknown(self, directive: Any, toks: Any, ifpassthru: bool, precedingtoks: Any) -> Any:
            text = "".join(token.value for token in toks)
            if directive.value in ("warning", "ident", "pragma"):
                return None if directive.value == "pragma" else True
            raise BadInput(f"{_shown(directive.source)}:{directive.lineno}:1: #{directive.value} {text}")

    def _shown(path: str | None) -> str:
        return filename if not path or path == here else path

    pp = Limited()
    pp.macros = _Macros()
    pp.expand_filemacro = False
    pp.auto_pragma_once_enabled = False
    for name, value in (MACROS | dict(defines)).items():
        pp.define(f"{name} {value}")
    pp.macros.files = [Expansion()]
    try:
        texts = [pp.parsegen(_plain(source), filename, here) for source in sources if source]
        return "".join(_written_out(tokens, here, filename) for tokens in texts)
    except BadInput:
        raise
    except RecursionError:
        raise BadInput(f"{filename}: macros nested too deeply") from None
    except Exception as e:  # pcpp raises anything on malformed text
        raise BadInput(f"{filename}: the preprocessor failed: {type(e).__name__}: {e}") from e


_CONTINUED = re.compile(r"(?:[^\n]*\\\n)+[^\n]*")
_LIKE_LINES = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029]")  # where Python ends a line and C does not


def _plain(text: str) -> str:
    # Without comments, and with line ends that pcpp counts as C does: continued lines are joined, with empty ones
    # behind them.
    def joined(lines: re.Match[str]) -> str:
        return lines[0].replace("\\\n", "") + "\n" * lines[0].count("\\\n")

    return _CONTINUED.sub(joined, _LIKE_LINES.sub(" ", without_comments(text)))


def _text_of(path: str, at: str) -> str:
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise BadInput(f"{at}: #include {path!r} has more than {MOST_BYTES >> 20} MiB")
        return _NEXT.sub(r"\1include", _plain(Path(path).read_text(errors="surrogateescape")))
    except OSError as e:
        raise BadInput(f"{at}: #include {path!r}: {e.strerror}") from e


def _written_out(tokens: Iterator[Any], here: str, filename: str) -> str:
    # The text of the tokens; a line marker wherever the next line is not the one that follows.
    parts: list[str] = []
    file, line, fresh = "", 0, True  # where the output is, and whether a line begins
    for token in tokens:
        if token.type == "VERBATIM":
            parts.append(token.value if fresh else f"\n{token.value}")
            file, fresh = "", True
            continue
        value = token.value
        if fresh:
            if value == "\n" and (file != token.source or token.lineno > line):
                continue  # of the lines that a directive or a false #if leaves empty
            if file != token.source or line != token.lineno:
                file, line = token.source, token.lineno
                parts.append(f'# {line} "{_quoted(filename if file == here else file)}"\n')
        parts.append(value)
        fresh = value.endswith("\n")
        line += value.count("\n")
    return "".join(parts) + ("" if fresh else "\n")


def _quoted(path: str) -> str:
    return path.replace("\\", "\\\\").replace('"', '\\"')
