"""C text cut into the declarations of its top level, each rewritten so that a standard C parser reads it.

The declarations of a header are independent but for the typedef names they use, so each is parsed by itself: an error
names one declaration, a function body is left out, and what two headers include is parsed once.

GNU attributes become C23 attributes in place, `__attribute__((packed))` -> `[[gnu::packed]]`, padded to the same
length so that columns stay true.  Only the attributes that place members are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from kernelnotes.errors import BadInput

MOST_BYTES = 64 << 20
MOST_NESTING = 200


class Declaration(NamedTuple):
    """One declaration: `text` rewritten, where it begins, and the `#pragma pack` in force, 0 without."""

    text: str
    file: str
    line: int
    column: int
    pack: int


def fail(file: str, line: int, column: int, declaration: str, problem: str) -> NoReturn:
    """Raise BadInput with the place and the beginning of the declaration."""
    start = " ".join(declaration.split())
    quoted = f" in: {start[:60]}{'...' if len(start) > 60 else ''}" if start else ""
    raise BadInput(f"{file}:{line}:{column}: {problem}{quoted}")


# A string that is not closed ends with its line; without that, each quote in it would be tried to the end of the text.
_STRINGS = r"""  "(?:[^"\\\n]|\\.)*+"?  |  '(?:[^'\\\n]|\\.)*+'?  """.replace(" ", "")
_COMMENT = re.compile(rf"/\*.*?(?:\*/|\Z)|//(?:[^\n\\]|\\.|\\\n)*|{_STRINGS}", re.S)


def quoted(path: str) -> str:
    """A file name as it stands between the quotes of a line marker."""
    return path.replace("\\", "\\\\").replace('"', '\\"')


def without_comments(text: str) -> str:
    """The text with every comment blanked, lines and columns unchanged."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return re.sub(r"[^\n]", " ", found) if found.startswith("/") else found

    return _COMMENT.sub(blank, text)


_STOP = re.compile(rf"[{{}}()\[\];]|{_STRINGS}|^[ \t]*\#[^\n]*|_Pragma\s*\(", re.M)
_MARKER = re.compile(r'^[ \t]*#[ \t]*(?:line[ \t]+)?([0-9]{1,9})\b(?:[ \t]+"((?:[^"\\\n]|\\.)*)")?[^\n]*\n?', re.M)
_CLOSES = {")": "(", "]": "[", "}": "{"}


class _Stretch(NamedTuple):
    # What was found in a stretch of text: its declarations, the #pragma pack in force behind it (the stack of them),
    # and where and how the stretch ends inside a declaration, None where it does not.
    declarations: tuple[Declaration, ...]
    packs: tuple[int, ...]
    open: tuple[str, int, int, str, str] | None


Stretches = dict[tuple[str, str, int, tuple[int, ...]], _Stretch]  # by text, file, line and packs


def declarations(text: str, file: str, known: Stretches | None = None) -> Iterator[Declaration]:
    """Every declaration at the top level of preprocessed text; function definitions are passed over.

    `known` keeps what was found between the line markers, so that a header that many others include is cut up once.
    """
    text = without_comments(text)
    known = {} if known is None else known
    line = 1
    packs: tuple[int, ...] = (0,)
    start = counted = tries = deep = 0
    for end, next_start, next_file, next_line in _between_markers(text):
        stretch: _Stretch | None = None
        deep += text.count("{", counted, end) - text.count("}", counted, end)
        counted, tries = end, tries + 1
        # A declaration may go on behind a marker.  Each try looks at the whole stretch again: not too many of them.
        if next_start < 0 or (deep == 0 and tries <= MOST_TRIES) or tries & (tries - 1) == 0:
            stretch = _cut(text[start:end], file, line, packs, known)
        if stretch and stretch.open and next_start < 0:
            fail(*stretch.open)
        if stretch and not stretch.open:
            yield from stretch.declarations
            start, file, line, packs, tries, deep = next_start, next_file or file, next_line, stretch.packs, 0, 0


MOST_TRIES = 16


def _between_markers(text: str) -> Iterator[tuple[int, int, str | None, int]]:
    # Where each stretch without a line marker ends; where the next one starts (-1: none), its file (None: the same)
    # and line.
    for marker in _MARKER.finditer(text):
        yield marker.start(), marker.end(), marker[2], int(marker[1])
    yield len(text), -1, None, 1


def _cut(text: str, file: str, line: int, packs: tuple[int, ...], known: Stretches) -> _Stretch:
    if not text or text.isspace():
        return _Stretch((), packs, None)
    key = text, file, line, packs
    found = known.get(key)
    if found is None:
        found = known[key] = _cut_up(text, file, line, list(packs))
    return found


_BLANK = re.compile(r"\s*")


class _Place:
    # Line and column of positions that only ever grow.
    def __init__(self, text: str, line: int) -> None:
        self.text, self.line, self.column, self.position = text, line, 1, 0

    def at(self, position: int) -> tuple[int, int]:
        lines = self.text.count("\n", self.position, position)
        last = self.text.rfind("\n", self.position, position) if lines else -1
        self.column = position - last if lines else self.column + position - self.position
        self.line, self.position = self.line + lines, position
        return self.line, self.column

    def mark(self, position: int, line: int) -> None:
        # Behind a line marker.
        self.position, self.line, self.column = position, line, 1


def _cut_up(text: str, file: str, line: int, packs: list[int]) -> _Stretch:
    start = 0
    here = _Place(text, line)
    found: list[Declaration] = []
    open_: list[str] = []
    body = False
    begun: tuple[str, int, int] | None = None  # where a declaration began, if a line marker stands in it
    place = here.at

    def begin() -> int:
        # where the declaration that starts at `start` has its first character
        rest = _BLANK.match(text, start)
        return rest.end() if rest else start

    for stop in _STOP.finditer(text):
        word = stop[0]
        if word[0] in "\"'":
            continue
        if word.lstrip().startswith("#") or word[0] == "_":
            if word[0] == "_":
                fail(file, *place(stop.start()), "", "_Pragma is not supported, write #pragma")
            between = not open_ and not text[start : stop.start()].strip()
            marker = _MARKER.match(word)
            if marker:
                if between:
                    start = stop.end()
                elif not begun:
                    begun = (file, *place(begin()))
                here.mark(stop.end(), int(marker[1]) - 1)
                file = marker[2] if marker[2] is not None else file
                continue
            pragma = re.match(r"\s*#\s*pragma\s+pack\b(.*)", word)
            if pragma and not between:
                fail(file, *place(stop.start()), text[start : stop.start()], "#pragma pack inside a declaration")
            if pragma:
                _pack(packs, pragma[1], file, *place(stop.start()))
            start = stop.end() if between else start
            continue
        if word in "([{":
            if word == "{" and not open_:
                body = _is_function(text[start : stop.start()])
            open_.append(word)
            if len(open_) > MOST_NESTING:
                fail(file, *place(stop.start()), text[start : stop.start()], f"nested more than {MOST_NESTING} deep")
            continue
        if word in ")]}":
            if not open_ or open_.pop() != _CLOSES[word]:
                fail(file, *place(stop.start()), text[start : stop.end()], f"unexpected {word!r}")
            if word == "}" and not open_ and body:
                start, body, begun = stop.end(), False, None
            continue
        if not open_:
            at = begin()
            if at < stop.start():
                found.append(Declaration(rewritten(text[at : stop.end()]), *(begun or (file, *place(at))), packs[-1]))
            start, begun = stop.end(), None
    at = begin()
    if not text[at:].strip():
        return _Stretch(tuple(found), tuple(packs), None)
    problem = f"{open_[-1]!r} is never closed" if open_ else "unfinished declaration, a ';' is missing"
    return _Stretch(tuple(found), tuple(packs), (*(begun or (file, *place(at))), text[at:][:100], problem))


_ATTRIBUTE = re.compile(
    r"__attribute(?:__)?\s*\(|\b__aligned__ \("
)  # the second: __aligned(n) of the kernel, see `_from_kernel`


def _is_function(head: str) -> bool:
    # Does this text before a "{" start a function?  `struct __attribute__((packed)) s {` does not.
    plain = "".join(text for text, _ in _attributes(head)).rstrip()
    return plain.endswith(")") and not re.search(r"=\s*\(", plain)


def _pack(packs: list[int], arguments: str, file: str, line: int, column: int) -> None:
    # #pragma pack(n), pack(), pack(push), pack(push, n), pack(push, name, n), pack(pop), pack(pop, n)
    inside = re.fullmatch(r"\s*\(([^()]*)\)\s*", arguments)
    words = [word.strip() for word in inside[1].split(",")] if inside else ["?"]
    numbers = [word for word in words if word.isdigit()]
    names = [word for word in words if re.fullmatch(r"[A-Za-z_]\w*", word) and word not in ("push", "pop")]
    known = words == [""] or len(numbers) + len(names) + (words[0] in ("push", "pop")) == len(words)
    if not known or any(n not in ("1", "2", "4", "8", "16") for n in numbers) or len(numbers) > 1 or names:
        fail(file, line, column, "", f"#pragma pack{arguments} is not understood")
    if words[0] == "push":
        packs.append(packs[-1])
        if len(packs) > MOST_NESTING:
            fail(file, line, column, "", f"#pragma pack(push) more than {MOST_NESTING} deep")
    elif words[0] == "pop":
        if len(packs) == 1:
            fail(file, line, column, "", "#pragma pack(pop) without a push")
        packs.pop()
    if numbers or words == [""]:
        packs[-1] = int(numbers[0]) if numbers else 0


# ------------------------------------------------------------------------------------- GNU C -> C23

_SPELLINGS = {
    **dict.fromkeys(("__signed__", "__signed"), "signed"),
    **dict.fromkeys(("__const__", "__const"), "const"),
    **dict.fromkeys(("__volatile__", "__volatile"), "volatile"),
    **dict.fromkeys(("__inline__", "__inline", "__restrict", "__restrict__", "__extension__", "__thread"), ""),
    **dict.fromkeys(("__typeof__", "__typeof", "__typeof_unqual__"), "typeof"),
    **dict.fromkeys(("__complex__", "__complex"), "_Complex"),
    **dict.fromkeys(("__alignof__", "__alignof"), "alignof"),  # GNU's: the alignment of a variable of its own
    "alignof": "_Alignof",  # C23's: inside a struct
    "alignas": "_Alignas",
    "__builtin_offsetof": "offsetof",
}
# Words of <linux/compiler_types.h>; user space never sees them, kernel sources are full of them.
_KERNEL = re.compile(r"\b__packed\b|\b__aligned\s*\(|\b__(?:user|force|bitwise|rcu|iomem|percpu|kernel|private)\b")


def _from_kernel(match: re.Match[str]) -> str:
    found = match[0]
    if found == "__packed":
        return "__attribute__((packed))"
    return "__aligned__ (" if found.startswith("__aligned") else " " * len(found)


_ASM = r"\b(?:__asm__|__asm|asm)\b(?:\s|\b(?:volatile|__volatile__|__volatile|inline|goto)\b)*+(?=\()"
# A line marker comes first, since its file name is not C: /usr/include/asm-generic/statfs.h
_REWRITE = re.compile(rf"^[ \t]*#[^\n]*|\b(?:{'|'.join(_SPELLINGS)})\b|{_ASM}", re.M)
_KEPT = ("packed", "aligned")
_CHANGES_LAYOUT = ("mode", "vector_size", "ms_struct", "gcc_struct", "scalar_storage_order", "btf_type_tag")


def rewritten(text: str) -> str:
    """A declaration of GNU C as C23."""
    text = _KERNEL.sub(_from_kernel, text)
    if "__" not in text and "alig" not in text and "asm" not in text:
        return text
    parts = []
    for plain, arguments in _attributes(text):
        parts.append(plain)
        if arguments is not None:
            attribute, length = _as_c23(arguments[0]), arguments[1]
            if attribute and (colon := _bits_before(parts)) is not None:
                attribute, parts[:] = "", [colon[0] + attribute + " " + colon[1]]
            parts.append(attribute.ljust(length - arguments[0].count("\n")) + "\n" * arguments[0].count("\n"))
    return _without_asm(_REWRITE.sub(_spelled, "".join(parts)))


def _spelled(match: re.Match[str]) -> str:
    if match[0].lstrip().startswith("#"):
        return match[0]
    return _SPELLINGS.get(match[0], "\0asm").ljust(len(match[0]))


def _attributes(text: str) -> Iterator[tuple[str, tuple[str, int] | None]]:
    # The text before each __attribute__((...)), with its arguments and whole length; at last the text after all.
    position = 0
    while found := _ATTRIBUTE.search(text, position):
        end = _closing(text, found.end() - 1)
        inside = text[found.end() : end - 1].strip()
        if found[0].startswith("__aligned"):
            inside = f"(aligned({inside}))"
        yield text[position : found.start()], (inside, end - found.start())
        position = end
    yield text[position:], None


def _closing(text: str, position: int) -> int:
    # The position after the parenthesis that closes the one at `position`.
    depth = 0
    for parenthesis in re.compile(r"[()]").finditer(text, position):
        depth += 1 if parenthesis[0] == "(" else -1
        if depth == 0:
            return parenthesis.end()
    return len(text)


def _as_c23(arguments: str) -> str:
    # "(packed, aligned(8))" -> "[[gnu::packed,gnu::aligned(8)]]", without what does not place members
    kept = []
    arguments = _MARKER.sub("", arguments)
    inside = arguments[1:-1] if arguments.startswith("(") and arguments.endswith(")") else ""
    depth, word = 0, ""
    for character in inside + ",":
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            found = re.match(r"\s*(\w+)\s*(.*)", word, re.S)
            name = found[1].strip("_") if found else ""
            if found and (name in _KEPT or name in _CHANGES_LAYOUT):
                kept.append(f"gnu::{name}{found[2].strip()}".replace("\n", " "))
            word = ""
        else:
            word += character
    return f"[[{','.join(kept)}]]" if kept else ""


_BITS = re.compile(r":(?!:)[^:;,{}?\]]*\Z")
_ENDS = re.compile(r"[:;,{}?\]]")


def _bits_before(parts: list[str]) -> tuple[str, str] | None:
    # If the text so far ends in the width of a bit-field: the text up to its colon, and the rest.
    first = next((i for i in reversed(range(len(parts))) if _ENDS.search(parts[i])), 0)
    parts[first:] = ["".join(parts[first:])]  # a colon further ahead belongs to something else
    bits = _BITS.search(parts[-1])
    return ("".join(parts[:-1]) + parts[-1][: bits.start()], parts[-1][bits.start() :]) if bits else None


def _without_asm(text: str) -> str:
    while (found := text.find("\0asm")) >= 0:
        end = _closing(text, text.index("(", found))
        text = text[:found] + re.sub(r"[^\n]", " ", text[found:end]) + text[end:]
    return text
