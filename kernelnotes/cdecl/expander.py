"""pcpp, with limits, with errors of our own, and with a memory.

Headers include the same headers again and again.  What an include does is decided by the macros it looks at, so an
`Expansion` keeps, for one file, every macro that was asked for with the answer, what came out, and what was defined.
Where a later translation unit, under another ABI perhaps, would give the same answers, the file is not read again.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcpp import Preprocessor, evaluator

from kernelnotes.cdecl.names import HEADERS
from kernelnotes.cdecl.preprocess import Expansion, Expansions
from kernelnotes.cdecl.source import MOST_BYTES, quoted, without_comments
from kernelnotes.errors import BadInput

MOST_TOKENS = 1_000_000  # of macro expansions: a line of text can ask for 2**30
MOST_CHARACTERS = 1 << 24  # of the same: ## and # make a token of any length
MOST_CALLS = 50  # of macros inside macros and their arguments: the time pcpp takes grows with the cube
MOST_ARGUMENTS = 20_000  # tokens
MOST_EXPANDED = 32 << 20  # characters that all includes bring in, those inside others counted twice
MOST_DEPTH = 80  # of includes; real headers need 20
MOST_EXPANSIONS = 20  # kept for one file


def expand(sources: list[str], filename: str, defines: Mapping[str, str], include: list[str], known: Expansions) -> str:
    """The sources, one after the other, with macros and includes expanded.  Raises BadInput, with the place."""
    expander = _Expander(filename, include, known)
    for name, value in defines.items():
        expander.define(f"{name} {value}")
    expander.macros.files = [Expansion()]  # what is predefined was not asked for by a file
    try:
        return "".join(expander.expanded(_plain(source), expander.here) for source in sources if source)
    except BadInput:
        raise
    except RecursionError:
        raise BadInput(f"{filename}: macros nested too deeply") from None
    except Exception as e:  # pcpp raises anything on malformed text
        raise BadInput(f"{filename}: the preprocessor failed: {type(e).__name__}: {e}") from e


@contextmanager
def _limited_shifts(at: str) -> Iterator[None]:
    # pcpp works with numbers of any length, and `#if 1 << 8000000000` would take 2 GB.
    shift = evaluator.Value.__lshift__

    def limited(one: Any, other: Any) -> Any:
        if not 0 <= int(other) < 64:
            raise BadInput(f"{at}: a shift by {int(other)} bits")
        return shift(one, other)

    evaluator.Value.__lshift__ = limited
    try:
        yield
    finally:
        evaluator.Value.__lshift__ = shift


class _Macros(dict[str, Any]):
    # The table of macros, which notes for each file being included what is asked and what is set.
    def __init__(self) -> None:
        super().__init__()
        self.files = [Expansion()]

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


class _Expander(Preprocessor):  # type: ignore[misc]
    # One translation unit.  Methods without _ in front are called by pcpp, but for `expanded`.
    macros: _Macros
    source: str  # path of the file being read

    def __init__(self, filename: str, include: list[str], known: Expansions) -> None:
        super().__init__()
        self.filename, self.here, self.source = filename, os.path.abspath(filename), os.path.abspath(filename)
        self.folders, self.known = include, known
        self.roots = [os.path.dirname(self.here), *map(os.path.abspath, include)]  # a source may read below these only
        self.macros = _Macros()
        self.expand_filemacro = self.auto_pragma_once_enabled = False
        self.directive_line = 1
        self.rewrite_paths: list[Any] = []  # pcpp would shorten the paths below the current folder
        self.tokens = self.characters = self.calls = self.brought = 0

    def expanded(self, text: str, path: str) -> str:
        """The text of a file, with a line marker wherever the next line is not the one that follows."""
        return "".join(self._written_out(self.parsegen(text, path, path)))

    def expand_macros(self, tokens: Any, expanding_from: Any = ()) -> Any:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise BadInput(f"{self.filename}: macros nested more than {MOST_CALLS} deep")
        counted = self.countermacro
        result = super().expand_macros(tokens, list(expanding_from))
        self.calls -= 1
        if self.countermacro != counted:
            self.macros.files[-1].repeatable = False
        self.tokens += len(result)
        self.characters += sum(len(token.value) for token in result)
        if self.characters > MOST_CHARACTERS:
            raise BadInput(f"{self.filename}: macros expand to more than {MOST_CHARACTERS} characters")
        if self.tokens > MOST_TOKENS:
            raise BadInput(f"{self.filename}: macros expand to more than {MOST_TOKENS} tokens")
        return result

    def evalexpr(self, tokens: Any) -> Any:
        with _limited_shifts(f"{self._shown(self.source)}:{self.directive_line}:1"):
            return super().evalexpr(tokens)

    def collect_args(self, tokenlist: Any, ignore_errors: bool = False) -> Any:
        collected = super().collect_args(tokenlist, ignore_errors)
        if collected[0] > MOST_ARGUMENTS:
            raise BadInput(f"{self.filename}: the arguments of a macro have more than {MOST_ARGUMENTS} tokens")
        return collected

    def on_error(self, file: str, line: int, msg: str) -> None:
        problem = sys.exc_info()[1]
        if isinstance(problem, BadInput):
            raise problem
        raise BadInput(f"{self._shown(file)}:{line}:1: {msg}")

    def on_directive_handle(self, directive: Any, toks: Any, ifpassthru: bool, precedingtoks: Any) -> Any:
        self.directive_line = directive.lineno
        return super().on_directive_handle(directive, toks, ifpassthru, precedingtoks)

    def on_directive_unknown(self, directive: Any, toks: Any, ifpassthru: bool, precedingtoks: Any) -> Any:
        text = "".join(token.value for token in toks)
        if directive.value in ("warning", "ident", "pragma"):
            return None if directive.value == "pragma" else True  # None: the line is kept
        raise BadInput(f"{self._shown(directive.source)}:{directive.lineno}:1: #{directive.value} {text}")

    def include(self, tokens: Any, original_line: Any) -> Iterator[_Verbatim]:
        name = "".join(token.value for token in tokens).strip()
        at = f"{self._shown(self.source)}:{self.directive_line}:1"
        if not re.fullmatch(r'<[^<>]+>|"[^"]+"', name):
            raise BadInput(f"{at}: malformed #include {name}")
        path = self._find(name, at)
        if path in self.include_once:
            self.macros.files[-1].repeatable = False
        elif path:
            yield _Verbatim(self._included(path, at))

    def _find(self, name: str, at: str) -> str:
        # The path of an include; "" for one whose names are built in.
        wanted = name[1:-1]
        folders = [os.path.dirname(self.source)] if name[0] == '"' else []
        paths = [os.path.abspath(os.path.join(folder, wanted)) for folder in [*folders, *self.folders]]
        if self.source in paths:  # a header that includes its own name means the next one of that name
            paths = paths[paths.index(self.source) + 1 :]
        if found := next(filter(os.path.isfile, paths), ""):
            if not _is_below(found, self.roots):
                raise BadInput(f"{at}: #include {wanted!r} is outside of {', '.join(self.roots)}")
            return found
        if wanted in HEADERS:
            return ""
        where = f"not in {', '.join(self.folders)}" if self.folders else "and no include path is given"
        raise BadInput(f"{at}: #include {wanted!r} is not found, {where}")

    def _included(self, path: str, at: str) -> str:
        macros = self.macros
        kept = self.known.setdefault((path, *self.folders), [])
        for expansion in kept:
            if expansion.below in ("", self.roots[0]) and macros.answers(expansion):
                macros.repeat(expansion)
                return self._counted(expansion.text, at)
        if len(macros.files) > MOST_DEPTH:
            raise BadInput(f"{at}: #include nested more than {MOST_DEPTH} deep")
        text = _text_of(path, at)
        macros.files.append(Expansion())
        outside = self.source
        expanded = self.expanded(text, path)
        self.source = outside
        done = macros.files.pop()
        done.text, done.repeatable = expanded, done.repeatable and path not in self.include_once
        if not _is_below(path, self.roots[1:]):
            done.below = self.roots[0]
        macros.files[-1].took(done)
        if done.repeatable and len(kept) < MOST_EXPANSIONS:
            kept.append(done)
        return self._counted(expanded, at)

    def _counted(self, text: str, at: str) -> str:
        self.brought += len(text)
        if self.brought > MOST_EXPANDED:
            raise BadInput(f"{at}: all #includes together expand to more than {MOST_EXPANDED >> 20} MiB")
        return text

    def _shown(self, path: str | None) -> str:
        return self.filename if not path or path == self.here else path

    def _written_out(self, tokens: Iterator[Any]) -> Iterator[str]:
        file, line, fresh = "", 0, True  # where the output is, and whether a line begins
        for token in tokens:
            if token.type == "VERBATIM":
                yield token.value if fresh else f"\n{token.value}"
                file, fresh = "", True
                continue
            value = token.value
            if fresh:
                if value == "\n" and (file != token.source or token.lineno > line):
                    continue  # of the lines that a directive or a false #if leaves empty
                if file != token.source or line != token.lineno:
                    file, line = token.source, token.lineno
                    yield f'# {line} "{quoted(self._shown(file))}"\n'
            yield value
            fresh = value.endswith("\n")
            line += value.count("\n")
        yield "" if fresh else "\n"


_NEXT = re.compile(r"^([ \t]*#[ \t]*)include_next\b", re.M)
_CONTINUED = re.compile(r"^(?:[^\n]*\\\n)+[^\n]*", re.M)
_LIKE_LINES = re.compile("[\r\v\f\x1c-\x1e\x85\u2028\u2029]")  # where Python ends a line and C does not


def _plain(text: str) -> str:
    # Without comments, and with line ends that pcpp counts as C does: continued lines are joined, with empty ones
    # behind them.
    def joined(lines: re.Match[str]) -> str:
        return lines[0].replace("\\\n", "") + "\n" * lines[0].count("\\\n")

    return _CONTINUED.sub(joined, _LIKE_LINES.sub(" ", without_comments(text)))


def _is_below(path: str, folders: list[str]) -> bool:
    return any(path.startswith(f"{folder.rstrip(os.sep)}{os.sep}") for folder in folders)


def _text_of(path: str, at: str) -> str:
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise BadInput(f"{at}: #include {path!r} has more than {MOST_BYTES >> 20} MiB")
        return _NEXT.sub(r"\1include", _plain(Path(path).read_text(errors="surrogateescape")))
    except OSError as e:
        raise BadInput(f"{at}: #include {path!r}: {e.strerror}") from e
