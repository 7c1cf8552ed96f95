"""BTF, the types that a Linux kernel carries with it: every struct, with the offsets its compiler chose.

A kernel built with CONFIG_DEBUG_INFO_BTF shows them to everyone in /sys/kernel/btf/vmlinux, 5 MB made by pahole from
the hundreds of MB of its debug information.  BPF programs need them: one compiled elsewhere asks for
`task_struct.comm` by name, and the loader puts in the offset it has here.

    types = btf.read(Path("/sys/kernel/btf/vmlinux").read_bytes())      (or kernelnotes.live.btf.types())
    types["task_struct"]["comm"].offset

The file is a header, the types one behind the other, and the strings they name.  A type is three words, name, info and
size or type, and what its kind adds; its number, counted from 1, is how others refer to it:

    [1] INT 'long unsigned int'   8 bytes
    [2] STRUCT 'list_head'        16 bytes, 2 members: 'next' type 3 at bit 0, 'prev' type 3 at bit 64
    [3] PTR                       to type 2

The BTF of a module (/sys/kernel/btf/MODULE) is split: its numbers and string offsets go on where those of vmlinux end.

So a layout from BTF is read, not computed, and is right for this kernel with its configuration and compiler.  What BTF
drops: attributes (`packed` and `aligned` show in the offsets alone; see `attributes`), unnamed bit-fields, macros,
#ifdefs and comments, what no code used, where the source is, and for which machine it all is, but for byte order and
the size of `long`.  Type tags (`__user`) are skipped here, as are functions and variables.

Source: include/uapi/linux/btf.h, Documentation/bpf/btf.rst, kernel/bpf/btf.c.
"""

from __future__ import annotations

import difflib
import struct
import sys
from array import array
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from kernelnotes.abi import Abi, find
from kernelnotes.btf import attributes
from kernelnotes.ctype import Array, Enum, Member, Pointer, Record, Scalar, Type
from kernelnotes.errors import BadInput
from kernelnotes.layout import Layout
from kernelnotes.layout.place import Placed, measure, place
from kernelnotes.provenance import MODEL, Provenance

__all__ = ["Types", "read"]

MAGIC, VERSION = 0xEB9F, 1
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT = range(1, 12)
FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(12, 20)
KINDS = ["void", "int", "ptr", "array", "struct", "union", "enum", "fwd", "typedef", "volatile", "const", "restrict"]
KINDS += ["func", "func_proto", "var", "datasec", "float", "decl_tag", "type_tag", "enum64"]
# Words behind the first three: once, and per element of the vlen that `info` counts.
ONCE = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
EACH = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}
INTEGERS = ("char", "short", "int", "long long", "__int128")
SIGNED, BOOL = 1, 4  # in the encoding of an INT
QUALIFIERS = {VOLATILE: "volatile", CONST: "const", RESTRICT: "restrict"}
TRANSPARENT = {TYPEDEF, TYPE_TAG, *QUALIFIERS}

# No kernel is near these; a file that is wants to fill the memory or never to end.
MOST_BYTES = 64 << 20
MOST_TYPES = 0xFFFFF  # BTF_MAX_TYPE
MOST_NAME = 512  # KSYM_NAME_LEN
MOST_NAMES = 1 << 25  # characters of all names together: they can share their bytes
MOST_STEPS = 64  # from a type to what it refers to, and so on; the kernel's MAX_RESOLVE_DEPTH is 32
MOST_MEMBERS = 1 << 16  # of one record, those of members included
MOST_TEXT = 4096  # characters of the parameters of a function
MOST_COMPARED = 20_000  # names with one that is not there
MOST_PROTOTYPES = 16  # functions as parameters of functions


class _Entry(NamedTuple):
    # One type as it stands in the file; `rest` is where in `words` its own data begin.
    number: int
    name: int
    kind: int
    vlen: int
    flag: int
    value: int
    words: array[int]
    rest: int


class _Field(NamedTuple):
    # A member as BTF has it: `bit` from the start of the record, `width` None for what is no bit-field.
    name: str
    type: Type
    bit: int
    width: int | None
    spelled: str


def read(data: bytes, base: Types | None = None, abi: str | Abi = "", provenance: Provenance = MODEL) -> Types:
    """The types in the bytes of a BTF file, or of a section `.BTF`; `base` is vmlinux where they are a module's.

    BTF does not say for which machine it is.  Unless `abi` does, little-endian with a `long` of 8 bytes is taken for
    x86-64, of 4 for i386, big-endian for s390x and ppc32.  Raises BadInput for what is no BTF, or contradicts the ABI.
    """
    if len(data) > MOST_BYTES:
        raise BadInput(f"BTF: {len(data)} bytes are more than {MOST_BYTES}")
    endian, types, strings, later = _sections(bytes(data))
    words = array("I")
    words.frombytes(types)
    if endian != sys.byteorder:
        words.byteswap()
    return Types(words, strings, endian, later, base, abi, provenance)


def _sections(data: bytes) -> tuple[Literal["little", "big"], bytes, bytes, dict[int, tuple[int, int]]]:
    # Byte order, types, strings, and the words of the kinds that a later kernel has added, by its layout section.
    if len(data) < 24:
        raise BadInput(f"BTF: {len(data)} bytes, expected a header of 24")
    endian: Literal["little", "big"] = "little" if data[0] == MAGIC & 0xFF else "big"
    order = "<" if endian == "little" else ">"
    magic, version, flags, length, *bounds = struct.unpack_from(f"{order}HBBIIIII", data)
    if magic != MAGIC:
        raise BadInput(f"BTF: it begins with {data[:2].hex()}, expected 9feb or eb9f")
    if version != VERSION or flags:
        raise BadInput(f"BTF: version {version} and flags {flags}, expected {VERSION} and 0")
    if not 24 <= length <= len(data):
        raise BadInput(f"BTF: a header of {length} bytes in {len(data)}")
    # Since Linux kernel commit 01504da43e67 the header may go on with the place of a layout section.
    bounds += struct.unpack_from(f"{order}II", data, 24) if length >= 32 else (0, 0)
    types, strings, layouts = (
        _section(data, length + start, size, what)
        for start, size, what in zip(bounds[::2], bounds[1::2], ("type", "string", "layout"), strict=True)
    )
    if len(types) % 4:
        raise BadInput(f"BTF: {len(types)} bytes of types are no multiple of 4")
    if strings[-1:] not in (b"", b"\0"):
        raise BadInput("BTF: the last string does not end")
    sizes = enumerate(zip(layouts[::4], layouts[1::4], strict=False))
    return endian, types, strings, {kind: size for kind, size in sizes if kind > ENUM64 and not (size[0] | size[1]) % 4}


def _section(data: bytes, start: int, size: int, what: str) -> bytes:
    if start + size > len(data):
        raise BadInput(f"BTF: the {what} section ends at byte {start + size} of {len(data)}")
    return data[start : start + size]


class Types:
    """The types of a kernel, or of one of its modules, by name: "task_struct", "struct task_struct" or a typedef's.

    `types[name]` is a `Layout` with BTF's own numbers, `types.record(name)` a declaration for other ABIs;
    iterating gives the names of all structs and unions that have one.  Raises BadInput for an unknown name and where
    the types of a record make no sense.
    """

    def __init__(
        self,
        words: array[int],
        strings: bytes,
        endian: Literal["little", "big"],
        later: dict[int, tuple[int, int]],
        base: Types | None,
        abi: str | Abi,
        provenance: Provenance,
    ) -> None:
        self._words, self._strings, self._base = words, strings, base
        self.provenance = provenance
        self._first: int = base._first + len(base._starts) if base else 1
        self._first_string: int = base._first_string + len(base._strings) if base else 0
        self._made: dict[int, Type] = {}
        self._counts: dict[Record, int] = {}  # members, those of members included
        self._budget = MOST_MEMBERS
        self._prototypes: dict[int, str] = {}
        self._long: int = base._long if base else 0
        self._starts: array[int]
        self._starts, named = self._index(later)
        self.abi: Abi = self._machine(endian, base.abi if base and not abi else abi)
        self._names = self._by_name(named)

    # ------------------------------------------------------------------------------------- the index

    def _index(self, later: dict[int, tuple[int, int]]) -> tuple[array[int], list[int]]:
        # Where each type begins, and the numbers of the records and typedefs.
        words, end, at = self._words, len(self._words), 0
        starts, named = array("I"), []
        once, each = [3] * 128, [0] * 128
        for kind in range(128):
            more = later.get(kind, (4 * ONCE.get(kind, 0), 4 * EACH.get(kind, 0)))
            once[kind] += more[0] // 4
            each[kind] = more[1] // 4
        unknown = {0, *range(ENUM64 + 1, 128)} - set(later)
        while at + 3 <= end:
            info = words[at + 1]
            kind = info >> 24 & 0x7F
            if kind in unknown:
                raise BadInput(f"BTF: type {self._first + len(starts)} is of the unknown kind {kind}")
            if kind in (STRUCT, UNION, TYPEDEF):
                named.append(self._first + len(starts))
            elif kind == INT and words[at] and self._name(words[at]) in ("long unsigned int", "unsigned long"):
                self._long = words[at + 2]
            starts.append(at)
            at += once[kind] + each[kind] * (info & 0xFFFFFF)
        if at != end:
            raise BadInput(f"BTF: the last type ends at byte {4 * at} of {4 * end}")
        if self._first + len(starts) > MOST_TYPES:
            raise BadInput(f"BTF: more than {MOST_TYPES} types")
        return starts, named

    def _machine(self, endian: Literal["little", "big"], asked: str | Abi) -> Abi:
        guess = {"little": ("i386", "x86-64"), "big": ("ppc32", "s390x")}[endian][self._long != 4]
        found = find(asked or guess)
        if self._base and found is not self._base.abi:
            raise BadInput(f"BTF: of {found.name}, on a base of {self._base.abi.name}")
        if found.endian != endian or self._long not in (0, found.scalars["long"][0]):
            raise BadInput(f"BTF: {endian}-endian with a long of {self._long or '?'} bytes is not {found.name}")
        return found

    def _by_name(self, named: list[int]) -> dict[str, list[int]]:
        # "struct x", "union x", and the typedefs: of each every type that has this name.
        names: dict[str, list[int]] = {}
        self._aliases: dict[int, str] = {}
        characters = 0
        for number in named:
            entry = self._entry(number)
            if entry.name:
                name = self._name(entry.name)
                if entry.kind == TYPEDEF:
                    self._aliases.setdefault(entry.value, name)
                else:
                    name = f"{KINDS[entry.kind]} {name}"
                names.setdefault(name, []).append(number)
                characters += len(name)
                if characters > MOST_NAMES:
                    raise BadInput(f"BTF: names of more than {MOST_NAMES} characters")
        return names

    def _name(self, offset: int) -> str:
        if offset < self._first_string and self._base:
            return self._base._name(offset)
        start = offset - self._first_string
        end = self._strings.find(b"\0", start, start + MOST_NAME)
        if end < 0:
            raise BadInput(f"BTF: no name at byte {offset} of the strings, or one of more than {MOST_NAME} characters")
        name = self._strings[start:end].decode("ascii", "replace")
        if not name.isprintable() or not name.isascii():
            raise BadInput(f"BTF: {name!r} is no name of a type or member")
        return name

    def _entry(self, number: int) -> _Entry:
        if number < self._first and self._base:
            return self._base._entry(number)
        if not self._first <= number < self._first + len(self._starts):
            raise BadInput(f"BTF: there is no type {number}")
        words, at = self._words, self._starts[number - self._first]
        name, info, value = words[at : at + 3]
        return _Entry(number, name, info >> 24 & 0x7F, info & 0xFFFFFF, info >> 31, value, words, at + 3)

    def __len__(self) -> int:
        """How many types of every kind, those of the base included."""
        return self._first + len(self._starts) - 1

    def __iter__(self) -> Iterator[str]:
        """The names, "struct x" and "union x", of these types; those of the base are left out."""
        return (name for name in self._names if " " in name)

    def __contains__(self, name: object) -> bool:
        """Is there a record of that name, here or in the base?"""
        return isinstance(name, str) and bool(self._numbers(name))

    # ------------------------------------------------------------------------------------- by name

    def __getitem__(self, name: str) -> Layout:
        """The layout of the first record of that name."""
        return self._layout(self.record(name))

    def all(self, name: str) -> list[Layout]:
        """The layouts of every record of that name: two source files may each have a struct of their own."""
        return [self._layout(record) for record in self._records(name)]

    def record(self, name: str) -> Record:
        """The declaration, with the attributes that its offsets betray; `layout.layout` places it on other ABIs."""
        return self._records(name)[0]

    def _records(self, name: str) -> list[Record]:
        numbers = self._numbers(name) if isinstance(name, str) else []
        if not numbers:
            raise BadInput(f"BTF: no struct, union or typedef of one called {name!r}{self._similar(name)}")
        for types in (self, self._base):
            if types:
                types._budget = MOST_MEMBERS
        return [self._record(number, 0) for number in numbers]

    def _numbers(self, name: str) -> list[int]:
        # A module's own records come before those of vmlinux.
        for wanted in (name, f"struct {name}", f"union {name}"):
            found = [self._target(number) for number in self._names.get(wanted, ())]
            if records := [entry.number for entry in found if entry and entry.kind in (STRUCT, UNION)]:
                return list(dict.fromkeys(records))
        return self._base._numbers(name) if self._base else []

    def _target(self, number: int) -> _Entry | None:
        try:
            return self._resolve(number)
        except BadInput:  # a typedef of void
            return None

    def _similar(self, name: object) -> str:
        bare = str(name).rpartition(" ")[2]
        known = {one.rpartition(" ")[2] for types in (self, self._base) if types for one in types._names}
        # Names as long as the wanted one, more or less: comparing with all of them takes seconds.
        known = {one for one in known if abs(len(one) - len(bare)) <= 3 and set(bare[:2]) & set(one[:2])}
        near = difflib.get_close_matches(bare, sorted(known)[:MOST_COMPARED], 5)
        return f"; similar: {', '.join(near)}" if near else ""

    def _layout(self, record: Record) -> Layout:
        measured, members = place(record, self.abi)
        return Layout(record, self.abi, measured.size, measured.align, members, self.provenance)

    # ------------------------------------------------------------------------------------- types as C has them

    def _resolve(self, number: int) -> _Entry:
        # What a typedef, or a qualified type, is in the end.
        entry = self._behind(TRANSPARENT, number)
        if entry is None:
            raise BadInput("BTF: void has no size")
        return entry

    def _type(self, number: int, depth: int) -> Type:
        # What a member of this type is.
        entry = self._resolve(number)
        number = entry.number
        if depth > MOST_STEPS:
            raise BadInput(f"BTF: type {number} contains itself, or is nested deeper than {MOST_STEPS}")
        if number < self._first and self._base:
            return self._base._type(number, depth)
        if number not in self._made:
            if entry.kind in (STRUCT, UNION):
                return self._record(number, depth)
            self._made[number] = self._plain(entry, depth)
        return self._made[number]

    def _plain(self, entry: _Entry, depth: int) -> Type:
        if entry.kind == INT:
            encoded = entry.words[entry.rest]
            size = entry.value if _whole(encoded, entry.value) else 0  # an old bit-field: as big as the name says
            return self._integer(self._name(entry.name), size, encoded >> 24)
        if entry.kind == PTR:
            return Pointer(self._text(entry.value))
        if entry.kind == ARRAY:
            element, _, count = entry.words[entry.rest : entry.rest + 3]
            return Array(self._type(element, depth + 1), count or None)
        if entry.kind in (ENUM, ENUM64):
            return self._enum(entry)
        if entry.kind == FLOAT:
            return self._float(self._name(entry.name), entry.value)
        raise BadInput(f"BTF: type {entry.number}, {KINDS[entry.kind]}, is no type that a member can have")

    def _integer(self, name: str, size: int, encoding: int) -> Scalar:
        words = name.split()
        kinds = ("long", "short", "char", "_Bool", "__int128")
        key = "long long" if words.count("long") == 2 else next((word for word in kinds if word in words), "int")
        if size and self.abi.scalars.get(key, (0, 0))[0] != size:
            sizes = {abi_size: key for key, (abi_size, _) in self.abi.scalars.items() if key in INTEGERS}
            if size not in sizes:
                raise BadInput(f"BTF: an integer of {size} bytes, {name!r}; {self.abi.name} has none")
            key = sizes[size]
        signed = "signed" if encoding & SIGNED else "unsigned"
        return Scalar(name, key, "bool" if encoding & BOOL else "char" if name == "char" else signed)

    def _float(self, name: str, size: int) -> Type:
        for key in (name, "float", "double", "long double", "__float128"):
            if self.abi.scalars.get(key, (0, 0))[0] == size:
                return Scalar(name, key, "float")
        return Array(Scalar("unsigned char", "char", "unsigned"), size)  # such as _Float16: only its bytes

    def _enum(self, entry: _Entry) -> Enum:
        words, at, step = entry.words, entry.rest, EACH[entry.kind]
        end, bits = at + step * entry.vlen, 32 if entry.kind == ENUM else 64
        values = list(words[at + 1 : end : step])
        if entry.kind == ENUM64:
            values = [low | high << 32 for low, high in zip(values, words[at + 2 : end : step], strict=True)]
        if entry.flag:
            values = [value - (1 << bits) if value >> (bits - 1) else value for value in values]
        tag = self._name(entry.name) if entry.name else ""
        underlying = self._integer("", entry.value, entry.flag)
        return Enum(tag, min(values, default=0), max(values, default=0), underlying=underlying)

    # ------------------------------------------------------------------------------------- records

    def _record(self, number: int, depth: int) -> Record:
        if number < self._first and self._base:
            return self._base._record(number, depth)
        made = self._made.get(number)
        if made is None:
            entry = self._entry(number)
            self._spend(entry.vlen)
            fields = [self._field(entry, index, depth) for index in range(entry.vlen)]
            tag = self._name(entry.name) if entry.name else ""
            plain = Record(
                KINDS[entry.kind],
                tag,
                tuple(Member(f.name, f.type, f.width, spelled=f.spelled) for f in fields),
                where=f"BTF type {number}",
                alias="" if tag else self._aliases.get(number, ""),
            )
            count = sum(1 + self._count(field.type) for field in fields)
            self._spend(count)
            members = tuple(placed for field in fields for placed in self._placed(field))
            made = attributes.explained(plain, [f.bit for f in fields], entry.value, members, self.abi)
            self._made[number], self._counts[made] = made, count
        assert isinstance(made, Record)
        return made

    def _count(self, ctype: Type) -> int:
        if not isinstance(ctype, Record):
            return 0
        return self._counts[ctype] if ctype in self._counts or not self._base else self._base._counts[ctype]

    def _spend(self, members: int) -> None:
        # Before so many are made: 64 levels of records may have 2**64 members.
        self._budget -= members
        if self._budget < 0:
            raise BadInput(f"BTF: a record of more than {MOST_MEMBERS} members, those of members included")

    def _field(self, entry: _Entry, index: int, depth: int) -> _Field:
        at = entry.rest + 3 * index
        name, number, bit = entry.words[at : at + 3]
        bit, width = (bit & 0xFFFFFF, bit >> 24 or None) if entry.flag else self._old_bits(number, bit)
        label = self._name(name) if name else ""
        made = self._type(number, depth + 1)
        bits = 8 * measure(made, self.abi).size
        if width is None and bit % 8:
            raise BadInput(f"BTF: type {entry.number}: {label!r} is no bit-field, yet begins at bit {bit}")
        if width is not None and (width > bits or not isinstance(made, Scalar | Enum)):
            raise BadInput(f"BTF: type {entry.number}: {label!r} of type {made} is no bit-field of {width} bits")
        if bit + (bits if width is None else width) > 8 * entry.value:
            raise BadInput(f"BTF: type {entry.number}: {label!r} reaches beyond the {entry.value} bytes of the record")
        text = self._text(number)
        return _Field(label, made, bit, width, "" if text == str(made) else text)

    def _old_bits(self, number: int, bit: int) -> tuple[int, int | None]:
        # First bit and width, as they were before Linux 5.0: an integer type of its own for every width.
        entry = self._resolve(number)
        encoded = entry.words[entry.rest] if entry.kind == INT else 0
        return bit + (encoded >> 16 & 0xFF), encoded & 0xFF if encoded and not _whole(encoded, entry.value) else None

    def _placed(self, field: _Field) -> Iterator[Placed]:
        # The members C can name: those of an unnamed record stand in its place.
        if field.name:
            size = measure(field.type, self.abi).size
            yield Placed(field.name, field.type, field.bit // 8, size, field.bit, field.width, field.spelled)
        elif isinstance(field.type, Record):
            for inner in place(field.type, self.abi).members:
                bit = field.bit + inner.bit_offset
                yield inner._replace(offset=bit // 8, bit_offset=bit)

    # ------------------------------------------------------------------------------------- types as text

    def _text(self, number: int, depth: int = 0) -> str:
        # From the outside in, around a name that is left out: "char *", "int [4]", "void (*)(int)".
        before = declarator = ""
        for _ in range(MOST_STEPS):
            entry = self._behind((TYPE_TAG,), number)
            if entry is None or entry.kind not in (PTR, ARRAY, FUNC_PROTO, *QUALIFIERS):
                gap = " " if declarator[:1] not in ("", "[") else ""
                return f"{before}{self._base_text(entry)}{gap}{declarator}"
            number = entry.value
            if entry.kind == PTR:
                inner = self._unqualified(number)
                around = inner is not None and inner.kind in (ARRAY, FUNC_PROTO)
                declarator = f"(*{declarator})" if around else f"*{declarator}"
            elif entry.kind == ARRAY:
                number, _, count = entry.words[entry.rest : entry.rest + 3]
                declarator += f"[{count or ''}]"
            elif entry.kind == FUNC_PROTO:
                declarator += f"({self._parameters(entry, depth)})"
            elif (inner := self._unqualified(number)) is not None and inner.kind == PTR:
                declarator = f"{QUALIFIERS[entry.kind]} {declarator}".rstrip()
            else:
                before += f"{QUALIFIERS[entry.kind]} "
        raise BadInput(f"BTF: type {number} refers to itself, or through more than {MOST_STEPS} types")

    def _unqualified(self, number: int) -> _Entry | None:
        return self._behind((TYPE_TAG, *QUALIFIERS), number)

    def _behind(self, kinds: Collection[int], number: int) -> _Entry | None:
        # The type behind those of these kinds; None for void.
        for _ in range(MOST_STEPS):
            if number == 0:
                return None
            entry = self._entry(number)
            if entry.kind not in kinds:
                return entry
            number = entry.value
        raise BadInput(f"BTF: type {number} refers to itself, or through more than {MOST_STEPS} types")

    def _base_text(self, entry: _Entry | None) -> str:
        if entry is None:
            return "void"
        name = self._name(entry.name) if entry.name else ""
        if entry.kind in (STRUCT, UNION, ENUM, ENUM64, FWD):
            kind = KINDS[entry.kind].removesuffix("64")
            return f"{('struct', 'union')[entry.flag] if entry.kind == FWD else kind} {name}".rstrip()
        if entry.kind in (INT, FLOAT, TYPEDEF):
            return name
        raise BadInput(f"BTF: type {entry.number}, {KINDS[entry.kind]}, is no type that a pointer can have")

    def _parameters(self, entry: _Entry, depth: int) -> str:
        if depth > MOST_PROTOTYPES:
            raise BadInput(f"BTF: type {entry.number} is a function of a function, more than {MOST_PROTOTYPES} times")
        if entry.number not in self._prototypes:
            told = ""
            for at in range(entry.rest, entry.rest + 2 * entry.vlen, 2):
                name, number = entry.words[at : at + 2]
                told += ", " if told else ""
                told += self._text(number, depth + 1) if name or number else "..."
                if len(told) > MOST_TEXT:
                    raise BadInput(f"BTF: the parameters of type {entry.number} have more than {MOST_TEXT} characters")
            self._prototypes[entry.number] = told or "void"
        return self._prototypes[entry.number]


def _whole(encoded: int, size: int) -> bool:
    # Does an INT use all the bits of its bytes?
    return encoded & 0xFF == 8 * size
