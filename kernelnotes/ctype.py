"""What a C declaration says, before any ABI has placed it.

`int x` does not say how many bytes; the ABI does.  So a type here has no size: it names a scalar, or is built from
other types, and `layout.layout(record, abi)` turns it into numbers.  Even the length of an array can depend on the ABI
(`char pad[128 - sizeof(long)]`): such a number is a `Later`, worked out when the ABI is known.

Records compare by identity, as C does with two definitions.  What a pointer points to is kept as text: its size does
not depend on it, and so a record can hold a pointer to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from kernelnotes.abi import Abi
    from kernelnotes.layout.place import Places


@dataclass(frozen=True, slots=True, eq=False)
class Later:
    """A number that only an ABI can tell; `text` is how the source writes it."""

    text: str
    value: Callable[[Abi], int] = field(repr=False)


Number: TypeAlias = int | Later
BIGGEST = Later("__BIGGEST_ALIGNMENT__", lambda abi: abi.biggest)  # what a bare `__attribute__((aligned))` asks for


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type without parts.

    `name` is its C name, `key` where `Abi.scalars` has its size and alignment, `kind` how bytes are read:
    "signed", "unsigned", "char" (signed or not by the ABI), "bool", "float", "complex", "pointer".
    """

    name: str
    key: str
    kind: str

    def __str__(self) -> str:
        return self.name


def _integers() -> dict[str, Scalar]:
    made = {"char": Scalar("char", "char", "char"), "_Bool": Scalar("_Bool", "_Bool", "bool")}
    for key in ("char", "short", "int", "long", "long long", "__int128"):
        signed = "signed char" if key == "char" else key
        made[signed] = Scalar(signed, key, "signed")
        made[f"unsigned {key}"] = Scalar(f"unsigned {key}", key, "unsigned")
    return made


SCALARS: dict[str, Scalar] = _integers() | {
    name: Scalar(name, name, kind)
    for kind, names in {
        "float": ("float", "double", "long double", "__float128"),
        "complex": ("_Complex float", "_Complex double", "_Complex long double"),
        "unsigned": ("size_t",),
        "wchar": ("wchar_t",),
    }.items()
    for name in names
}


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer to anything: `to` is C text, with a `*` where the name would stand if it has to stand inside."""

    to: str

    def __str__(self) -> str:
        return f"{self.to} *" if "(*" not in self.to else self.to


@dataclass(frozen=True, slots=True)
class Enum:
    """An enumeration: its range decides its size.  `underlying` is C23's `enum : type`."""

    tag: str
    low: Number
    high: Number
    packed: bool = False
    underlying: Type | None = None

    def __str__(self) -> str:
        return f"enum {self.tag}".rstrip()


@dataclass(frozen=True, slots=True)
class Array:
    """`count` elements; None for a flexible array member, whose size is 0."""

    of: Type
    count: Number | None

    def __str__(self) -> str:
        inner: Type = self.of
        dimensions = f"[{_written(self.count)}]"
        while isinstance(inner, Array):
            dimensions += f"[{_written(inner.count)}]"
            inner = inner.of
        return f"{inner}{dimensions}"


def _written(number: Number | None) -> str:
    return "" if number is None else number.text if isinstance(number, Later) else str(number)


@dataclass(frozen=True, slots=True)
class Aligned:
    """A typedef with an alignment of its own, `typedef u64 compat_u64 __attribute__((aligned(4)))`: up or down."""

    of: Type
    align: Number
    name: str = ""

    def __str__(self) -> str:
        return self.name or f"{self.of} __attribute__((aligned({_written(self.align)})))"


class Member(NamedTuple):
    """One member as declared.  `name` is "" for an anonymous record or an unnamed bit-field; `bits` is None for what is
    no bit-field; `align` is what `aligned` asks for, 0 without; `spelled` the type's name where it is a typedef.
    """

    name: str
    type: Type
    bits: Number | None = None
    packed: bool = False
    align: Number = 0
    spelled: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A struct or union as declared: `kind` is "struct" or "union", `pack` the `#pragma pack` in force, 0 without.

    `where` is file:line, `alias` the typedef of one without tag.  `_layouts` keeps what `layout` worked out, by ABI.
    """

    kind: str
    tag: str
    members: tuple[Member, ...]
    packed: bool = False
    align: Number = 0
    pack: int = 0
    where: str = ""
    alias: str = ""
    _layouts: dict[Abi, Places] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.tag}" if self.tag else self.alias or self.kind


Type: TypeAlias = Scalar | Pointer | Enum | Array | Aligned | Record
