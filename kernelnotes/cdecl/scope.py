"""What the declarations read so far have named, and how a parsed declaration becomes a type.

GNU C lets an attribute stand nearly anywhere; what it applies to follows from the place:

    struct s { ... } __attribute__((packed)) x;      the struct, since its body was just closed
    __u64 __attribute__((aligned(8))) x, y;          every member declared here
    __u64 x __attribute__((aligned(8))), y;          x
    typedef __u64 __attribute__((aligned(4))) t;     the type t
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn

from pycparser import c_ast, c_generator

from kernelnotes.abi import Abi
from kernelnotes.cdecl import constant, names
from kernelnotes.cdecl.ioctl import Ioctl
from kernelnotes.cdecl.meaning import Meaning
from kernelnotes.cdecl.parsing import parsed, words
from kernelnotes.cdecl.source import Declaration, fail
from kernelnotes.ctype import (
    BIGGEST,
    SCALARS,
    Aligned,
    Array,
    Enum,
    Later,
    Member,
    Number,
    Pointer,
    Record,
    Scalar,
    Type,
)

_ESCAPE = re.compile(r"""\\(?:x[0-9a-fA-F]+|[0-7]{1,3}|[abfnrtv?'"\\])""")


class Records(dict[str, Record]):
    """The records of a source, by `struct x`, `union x` or the typedef of an untagged one; `x` alone finds them too.

    `typedefs` are all type names, `constants` the enumerators, `ioctls` the ioctl numbers that macros make.
    """

    typedefs: dict[str, Type]
    constants: dict[str, Number]
    ioctls: dict[str, Ioctl]

    def __missing__(self, name: str) -> Record:
        for full in (f"struct {name}", f"union {name}"):
            if full in self:
                return self[full]
        found = self.typedefs.get(name)
        while isinstance(found, Aligned):
            found = found.of
        if isinstance(found, Record):
            return found
        raise KeyError(name)


@dataclass(slots=True)
class Reading:
    """What a declaration meant before: its words, and for what they meant then, the names it defined."""

    words: tuple[str, ...]
    defined: list[tuple[_Meant, _Defined]] = field(default_factory=list)


Readings = dict[Declaration, Reading]
_Meant = list[Any]  # each word as a typedef, as a tag and as a constant
_Defined = tuple[dict[str, Type], dict[str, Number], dict[str, Record | Enum], dict[str, Record]]


def _is_the_same(one: Any, two: Any) -> bool:
    # Equal is not enough for a type: the built-in __aligned_u64 is more than what it is equal to.
    return one is two or (one.__class__ is int and two.__class__ is int and one == two)


class Scope:
    """The names of one translation unit.

    `known` keeps what declarations meant between units: one that is read again, its words meaning the same, gives the
    same Record, which is then laid out once.
    """

    def __init__(self, known: Readings | None = None) -> None:
        self.known = {} if known is None else known
        self.defined: _Defined = ({}, {}, {}, {})  # by the declaration being read
        self.typedefs: dict[str, Type] = dict(names.PRELUDE)
        self.constants: dict[str, Number] = {}
        self.tags: dict[str, Record | Enum] = {}
        self.records = Records()
        self.records.typedefs, self.records.constants = self.typedefs, self.constants
        self.records.ioctls = {}
        self.declaration = Declaration("", "", 0, 0, 0)
        self._converted: dict[int, tuple[Any, Type]] = {}  # by id of the node, which is kept

    def fail(self, node: Any, problem: str) -> NoReturn:
        """Raise BadInput at the node, or at the beginning of the declaration."""
        fail_at(self.declaration, node, problem)

    def read(self, declaration: Declaration) -> None:
        """Take in one declaration.  Raises BadInput where it is none, or one that no ABI defines."""
        self.declaration = declaration
        reading = self.known.get(declaration)
        if reading is None:
            reading = self.known[declaration] = Reading(tuple(words(declaration.text)))
        meant = [table.get(word) for table in (self.typedefs, self.tags, self.constants) for word in reading.words]
        for before, defined in reading.defined:
            if all(map(_is_the_same, before, meant)):
                self._define_all(defined)
                return
        self.defined = ({}, {}, {}, {})
        self._converted.clear()
        try:
            for node in parsed(declaration, self.typedefs):
                self._read(node)
        except RecursionError:
            self.fail(None, "nested too deeply")
        reading.defined.append((meant, self.defined))

    def _define_all(self, defined: _Defined) -> None:
        for names_of_scope, made in zip((self.typedefs, self.constants, self.tags, self.records), defined, strict=True):
            names_of_scope.update(made)  # type: ignore[attr-defined]

    def _define_type(self, name: str, made: Type) -> None:
        self.typedefs[name] = self.defined[0][name] = made

    def _read(self, node: Any) -> None:
        if isinstance(node, c_ast.Typedef):
            made = self.convert(node.type, node, alias=node.name)
            for attribute in _all_attributes(node):
                if attribute.name not in ("packed", "aligned"):
                    changed = names.changed(made, node.name, attribute.name, attribute.arguments or "")
                    self._define_type(node.name, changed)
                    return
            asked = self._asked(node)
            self._define_type(node.name, Aligned(made, asked, node.name) if asked else made)
        elif isinstance(node, c_ast.Decl) and not isinstance(node.type, c_ast.FuncDecl):
            if any(True for _ in _bodies(node.type)):
                self.convert(node.type, node)
        elif not isinstance(node, c_ast.Decl | c_ast.StaticAssert | c_ast.Pragma | c_ast.EmptyStatement):
            self.fail(node, "not a declaration")

    # ------------------------------------------------------------------------------------- numbers

    def number(self, node: Any) -> Number:
        """The value of a constant expression, now if it can be, else when the ABI is known."""
        try:
            return constant.evaluate(node, self, None).value
        except constant.NeedsAbi:
            meaning = Meaning(node, self)

        @cache  # `B = A + A, C = B + B, ...` asks for A 2**n times
        def value(abi: Abi) -> int:
            try:
                return constant.evaluate(node, meaning, abi).value
            except RecursionError:
                meaning.fail(node, "nested too deeply")

        return Later(c_generator.CGenerator().visit(node), value)

    def constant(self, node: Any) -> Number:
        """The value of a name.  Raises BadInput where it has none."""
        number = self.constants.get(node.name, names.IOCTL.get(node.name))
        if number is None:
            self.fail(node, f"{node.name!r} is not a constant known here")
        return number

    # ------------------------------------------------------------------------------------- types

    def convert(self, node: Any, owner: Any, alias: str = "") -> Type:
        """The type of a declarator; `owner` is the declaration it belongs to."""
        if isinstance(node, c_ast.TypeDecl | c_ast.Typename | c_ast.AttributedType):
            return self._tag(node) if _defines(node) else self.convert(node.type, owner, alias)
        if isinstance(node, c_ast.ArrayDecl):
            element = self.convert(node.type, owner, alias)
            return Array(element, None if node.dim is None else self.number(node.dim))
        if isinstance(node, c_ast.PtrDecl):
            for body in _bodies(node):
                self.convert(body, owner)
            if _attributes(node):
                self.fail(node, "packed or aligned right behind *: gcc and clang differ, put it behind the name")
            return Pointer(_pointee_text(node))
        if isinstance(node, c_ast.IdentifierType):
            return self._named(node)
        if isinstance(node, c_ast.Struct | c_ast.Union | c_ast.Enum):
            return self._tag(node, alias=alias)
        if isinstance(node, c_ast.TypeOf):
            inner = node.expr
            return self.convert(inner.type, owner) if isinstance(inner, c_ast.Typename) else self.type_of(inner)
        if isinstance(node, c_ast.FuncDecl):
            return Scalar("function", "function", "function")
        self.fail(node, f"{type(node).__name__} is not supported as a type")

    def _named(self, node: Any) -> Type:
        if len(node.names) == 1 and node.names[0] in self.typedefs:
            return self.typedefs[node.names[0]]
        found = names.scalar(node.names)
        if found is None:
            self.fail(node, f"unknown type {' '.join(node.names)!r}")
        return found

    def _tag(self, node: Any, alias: str = "") -> Type:
        # A struct, union or enum, with the attributes that follow its body.
        after: list[Any] = []
        while isinstance(node, c_ast.AttributedType | c_ast.TypeDecl):
            after += _attributes(node) if isinstance(node, c_ast.AttributedType) else []
            node = node.type
        if id(node) in self._converted:
            return self._converted[id(node)][1]
        kind = type(node).__name__.lower()
        tag = node.name or ""
        body = node.values if kind == "enum" else node.decls
        if body is None:
            if tag in self.tags and _kind(self.tags[tag]) == kind:
                return self.tags[tag]
            return Scalar(f"{kind} {tag}", "incomplete", "incomplete")
        known = self.tags.get(tag)
        attributes = _attributes(node) + after
        made: Record | Enum
        if isinstance(node, c_ast.Enum):
            made = self._enum(node, attributes)
        else:
            made = self._record(node, kind, attributes, alias)
        if known is not None:
            first = f", first at {known.where}" if isinstance(known, Record) else ""
            self.fail(node, f"{kind} {tag} is defined twice{first}")
        self._converted[id(node)] = (node, made)
        if tag:
            self.tags[tag] = self.defined[2][tag] = made
        if isinstance(made, Record) and (tag or alias):
            name = f"{kind} {tag}" if tag else alias
            self.records[name] = self.defined[3][name] = made
        return made

    def _enum(self, node: Any, attributes: list[Any]) -> Enum:
        values: list[Number] = []
        written: Number = -1  # the last value that is written out, and how many enumerators follow it
        following = 0
        for enumerator in node.values.enumerators:
            following += 1
            if enumerator.value is not None:
                written, following = self.number(enumerator.value), 0
            values.append(_plus(written, following))
            self.constants[enumerator.name] = self.defined[1][enumerator.name] = values[-1]
        underlying = self.convert(node.underlying_type, node) if node.underlying_type is not None else None
        packed = any(attribute.name == "packed" for attribute in attributes)
        return Enum(node.name or "", _least(values, min), _least(values, max), packed, underlying)

    def _record(self, node: Any, kind: str, attributes: list[Any], alias: str) -> Record:
        pack = self.declaration.pack
        members = [member for decl in node.decls for member in self._members(decl)]
        self._check(node, kind, members)
        packed = any(attribute.name == "packed" for attribute in attributes)
        where = f"{node.coord.file}:{node.coord.line}" if node.coord else self.declaration.file
        align = self._aligned(attributes, node)
        return Record(kind, node.name or "", tuple(members), packed, align, pack, where, alias)

    def _members(self, node: Any) -> Iterator[Member]:
        if isinstance(node, c_ast.StaticAssert | c_ast.Pragma | c_ast.EmptyStatement):
            return
        if not isinstance(node, c_ast.Decl):
            self.fail(node, "not a member")
        made = self.convert(node.type, node)
        if node.bitsize is None and not node.name:
            if isinstance(made, Record) and not made.tag and any(True for _ in _bodies(node.type)):
                attributes = _attributes(node)
                packed = any(attribute.name == "packed" for attribute in attributes)
                yield Member("", made, None, packed, self._aligned(attributes, node))
            return  # `struct s { ... };` inside a record names a type, and no member
        asked = self._asked(node)
        if isinstance(made, Aligned) and names.MEMBER_ALIGNED.get(made.name) is made:
            made, asked = made.of, _least([asked, 8], max)
        inner = made
        while isinstance(inner, Array | Aligned):
            inner = inner.of
        if isinstance(inner, Scalar) and inner.key in ("incomplete", "function", "void"):
            what = "a function" if inner.key == "function" else f"of the incomplete type {inner}"
            self.fail(node, f"member {node.name!r} is {what}")
        if "_Atomic" in node.quals:
            self.fail(node, f"member {node.name!r} is _Atomic, whose size and alignment no ABI here defines")
        attributes = list(_all_attributes(node))
        packed = any(attribute.name == "packed" for attribute in attributes)
        if node.bitsize is None:
            yield Member(node.name, made, None, packed, asked, _spelled(node.type))
            return
        if asked:
            self.fail(node, f"aligned on the bit-field {node.name or ':'}: no ABI defines it, gcc and clang differ")
        if isinstance(made, Aligned):
            self.fail(node, f"bit-field {node.name or ':'} of a type with an alignment of its own: compilers differ")
        if not isinstance(made, Enum) and not (isinstance(made, Scalar) and made.kind in names.INTEGERS):
            self.fail(node, f"bit-field {node.name or ':'} is of type {made}, not of an integer type")
        yield Member(node.name or "", made, self.number(node.bitsize), packed, 0, _spelled(node.type))

    def _check(self, node: Any, kind: str, members: list[Member]) -> None:
        seen: set[str] = set()
        for member in members:
            for name in [member.name] if member.name else _names_in(member.type):
                if name in seen:
                    self.fail(node, f"two members are called {name!r}")
                seen.add(name)
        for member in members[:-1] if kind == "struct" else []:
            if isinstance(member.type, Array) and member.type.count is None:
                self.fail(node, f"the flexible array {member.name!r} is not the last member")

    # ------------------------------------------------------------------------------------- attributes

    def _asked(self, node: Any) -> Number:
        # The alignment that a declaration asks for, by attribute or _Alignas.
        asked = self._aligned(list(_all_attributes(node)), node)
        for alignas in getattr(node, "align", None) or []:
            what = alignas.alignment
            if isinstance(what, c_ast.Typename):
                what = c_ast.UnaryOp("_Alignof", what, node.coord)
            asked = _least([asked, self.number(what)], max)
        return asked

    def _aligned(self, attributes: list[Any], node: Any) -> Number:
        asked: Number = 0
        for attribute in attributes:
            if attribute.name not in ("packed", "aligned"):
                self.fail(node, f"the attribute {attribute.name!r} changes layouts and is not supported")
            if attribute.name == "aligned":
                asked = _least([asked, self._argument(attribute, node)], max)
        return asked

    def _argument(self, attribute: Any, node: Any) -> Number:
        text = (attribute.arguments or "").strip()
        if not text:
            return BIGGEST
        if text.isdigit() and len(text) < 10 and text[0] != "0":
            number: Number = int(text)
        else:
            enumeration = self.declaration._replace(text=f"enum {{ _ = ({text}) }};")
            [enum] = parsed(enumeration, self.typedefs)
            number = self.number(enum.type.values.enumerators[0].value)
        if isinstance(number, int) and (number < 1 or number & (number - 1) or number > 1 << 28):
            self.fail(node, f"an alignment of {number} is not a power of two up to 2**28")
        return number

    # ------------------------------------------------------------------------------------- types of expressions

    def type_of(self, node: Any) -> Type:
        """The type of an expression, as far as sizeof and typeof in headers need it."""
        if isinstance(node, c_ast.StructRef):
            base = self.pointee(node.name) if node.type == "->" else self.type_of(node.name)
            while isinstance(base, Aligned):
                base = base.of
            found = _member(base, node.field.name) if isinstance(base, Record) else None
            if found is None:
                self.fail(node, f"{base} has no member {node.field.name!r}")
            return found.type
        if isinstance(node, c_ast.ArrayRef):
            base = self.type_of(node.name)
            if isinstance(base, Array):
                return base.of
        if isinstance(node, c_ast.Cast):
            return self.convert(node.to_type.type, node.to_type)
        if isinstance(node, c_ast.UnaryOp) and node.op == "*":
            return self.pointee(node.expr)
        if isinstance(node, c_ast.Constant) and node.type == "string":
            return Array(SCALARS["char"], self._string_length(node) + 1)
        if isinstance(node, c_ast.UnaryOp) and node.op in ("sizeof", "_Alignof", "alignof"):
            return SCALARS["size_t"]
        try:
            value = constant.evaluate(node, self, None)
        except constant.NeedsAbi:
            self.fail(node, "the type of an expression whose value depends on the ABI is not supported")
        return SCALARS[value.rank if value.signed else f"unsigned {value.rank}"]

    def _string_length(self, node: Any) -> int:
        # In bytes, without the NUL.
        inside = _ESCAPE.sub("_", node.value[1:-1])
        if node.value[0] != '"' or "\\" in inside:
            self.fail(node, f"the string {node.value[:40]} is not supported")
        return len(inside.encode(errors="surrogatepass"))

    def pointee(self, node: Any) -> Type:
        """What a pointer expression points to; only a cast says so here."""
        if isinstance(node, c_ast.Cast) and isinstance(node.to_type.type, c_ast.PtrDecl):
            return self.convert(node.to_type.type.type, node.to_type)
        self.fail(node, "only a cast to a pointer can be followed in a constant expression")


def fail_at(declaration: Declaration, node: Any, problem: str) -> NoReturn:
    """Raise BadInput at the node of pycparser, or at the beginning of the declaration."""
    place = getattr(node, "coord", None)
    if place and place.line and str(place.file):
        fail(str(place.file), place.line, place.column or 1, declaration.text, problem)
    fail(declaration.file, declaration.line, declaration.column, declaration.text, problem)


def _kind(made: Record | Enum) -> str:
    return made.kind if isinstance(made, Record) else "enum"


def _plus(value: Number, more: int) -> Number:
    if isinstance(value, int):
        return value + more
    return Later(f"{value.text} + {more}", lambda abi: value.value(abi) + more) if more else value


def _least(values: list[Number], choose: Any) -> Number:
    # The smallest or biggest, where some may depend on the ABI.
    known = [value for value in values if isinstance(value, int)]
    later = [value for value in values if isinstance(value, Later)]
    if not later:
        result: int = choose(known) if known else 0
        return result

    def value(abi: Abi) -> int:
        return int(choose([*known, *(number.value(abi) for number in later)]))

    return Later(", ".join(number.text for number in later), value)


def _attributes(node: Any) -> list[Any]:
    return [attribute for group in node.attributes for attribute in group.attributes]


def _all_attributes(node: Any) -> Iterator[Any]:
    # What stands anywhere in the declaration, but for the attributes of a record that is defined in it.
    yield from _attributes(node) if hasattr(node, "attributes") else []
    node = node.type
    while isinstance(node, c_ast.TypeDecl | c_ast.ArrayDecl | c_ast.PtrDecl | c_ast.AttributedType | c_ast.FuncDecl):
        if isinstance(node, c_ast.TypeDecl) or not (isinstance(node, c_ast.PtrDecl) or _defines(node)):
            yield from _attributes(node)
        node = node.type


def _defines(node: Any) -> bool:
    # A record or enum with its body, perhaps followed by attributes?
    if not isinstance(node, c_ast.AttributedType):
        return False
    while isinstance(node, c_ast.AttributedType):
        node = node.type
    return any(True for _ in _bodies(node))


def _bodies(node: Any) -> Iterator[Any]:
    # The definitions inside a declarator: of its base type.
    while isinstance(node, c_ast.TypeDecl | c_ast.ArrayDecl | c_ast.PtrDecl | c_ast.FuncDecl | c_ast.Typename):
        node = node.type
    inner = node
    while isinstance(inner, c_ast.AttributedType):
        inner = inner.type
    body = inner.values if isinstance(inner, c_ast.Enum) else getattr(inner, "decls", None)
    if isinstance(inner, c_ast.Struct | c_ast.Union | c_ast.Enum) and body is not None:
        yield node


def _spelled(node: Any) -> str:
    # The typedef that the source writes, with the dimensions behind it: `__u8[16]`; "" where it writes none.
    dimensions = ""
    while isinstance(node, c_ast.TypeDecl | c_ast.ArrayDecl | c_ast.AttributedType):
        if isinstance(node, c_ast.ArrayDecl):
            dimensions += f"[{c_generator.CGenerator().visit(node.dim) if node.dim is not None else ''}]"
        node = node.type
    if not isinstance(node, c_ast.IdentifierType) or len(node.names) != 1 or names.scalar(node.names):
        return ""
    return f"{node.names[0]}{dimensions}"


def _pointee_text(node: Any) -> str:
    stars = ""
    while isinstance(node, c_ast.PtrDecl):
        stars, node = stars + "*", node.type
    if isinstance(node, c_ast.FuncDecl):
        return f"function ({stars})"
    if isinstance(node, c_ast.ArrayDecl):
        return f"array ({stars})"
    while isinstance(node, c_ast.TypeDecl | c_ast.AttributedType):
        node = node.type
    if isinstance(node, c_ast.IdentifierType):
        base = " ".join(node.names)
    else:
        base = f"{type(node).__name__.lower()} {getattr(node, 'name', None) or ''}".strip()
    return base + (" " + stars[1:] if len(stars) > 1 else "")


def _names_in(ctype: Type) -> Iterator[str]:
    for member in ctype.members if isinstance(ctype, Record) else ():
        yield from [member.name] if member.name else _names_in(member.type)


def _member(record: Record, name: str) -> Member | None:
    for member in record.members:
        if member.name == name:
            return member
        if not member.name and isinstance(member.type, Record) and (found := _member(member.type, name)):
            return found
    return None
