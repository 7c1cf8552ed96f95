"""The ABIs, as data: how big every C scalar is, and how strictly a struct aligns it.

Two machines read the same declaration and disagree about where the members are.  Almost everything follows from one
table, the size and the alignment of each scalar *inside a struct*, in bytes:

    i386     long 4/4     long long 8/4     pointer 4/4
    x86-64   long 8/8     long long 8/8     pointer 8/8

"Inside a struct" matters: GNU `__alignof__(long long)` is 8 on i386 too, because a variable of its own is placed at a
multiple of 8, but a member is not; `_Alignof` says 4.  "A 32-bit machine aligns 64-bit integers to 4" is false as well:
i386, ARM's old ABI, SH4 and ARC do, m68k to 2, all the others here, x32 among them, to 8.

The rest is bit-fields.  `bit_fields` names the rule (see `layout`):

    sysv   a bit-field stays within the units its declared type could occupy, and aligns the record to that type
    m68k   the declared type does not matter: bit follows bit
    ms     Windows: a run of bit-fields whose types have one size shares a unit of that size

`unnamed_aligns`: unnamed bit-fields, those of width 0 included, align the record as named ones do (AAPCS: ARM EABI,
AArch64).  `least_align`: no record that is not packed is aligned to less (old ARM: every struct is a multiple of 4).
`biggest` is what a bare `__attribute__((aligned))` means.  `ioctl` says how Linux packs direction and size into an
ioctl number there.

`checked` says which compiler confirmed the row: every record rule and scalar was compiled, nothing is quoted.  Left
out: vector types, decimal floats, `_Float16`, and flags that change an ABI (-malign-double, -fshort-enums).

>>> [abi.ABIS[name].scalars["long long"] for name in ("i386", "x32", "m68k")]
[(8, 4), (8, 8), (8, 2)]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from kernelnotes.errors import BadInput

SizeAlign = tuple[int, int]


class Ioctl(NamedTuple):
    """The words of asm/ioctl.h: the direction's values, and how many bits the size has.

    Source: include/uapi/asm-generic/ioctl.h; arch/{alpha,mips,powerpc,sparc,parisc}/include/uapi/asm/ioctl.h.
    """

    none: int
    read: int
    write: int
    size_bits: int


GENERIC_IOCTL = Ioctl(0, 2, 1, 14)
_OSF_IOCTL = Ioctl(1, 2, 4, 13)  # "none" has a bit of its own, as in OSF/1
_PARISC_IOCTL = Ioctl(0, 1, 2, 14)


@dataclass(frozen=True, slots=True, eq=False)
class Abi:
    """One ABI.  `scalars` maps a C type, without its sign, to (size, alignment inside a struct) in bytes.

    A type that the ABI lacks, such as `__int128` on i386, is not in `scalars`.  `standalone` lists the types whose GNU
    `__alignof__` differs from their alignment inside a struct.
    """

    name: str
    endian: Literal["little", "big"]
    scalars: Mapping[str, SizeAlign] = field(repr=False)
    char_signed: bool = True
    wchar_signed: bool = True
    bit_fields: Literal["sysv", "m68k", "ms"] = "sysv"
    unnamed_aligns: bool = False
    zero_width_align: int = 0  # m68k: `int : 0` goes to a multiple of this, whatever the declared type; 0: by the type
    least_align: int = 1
    empty_size: int = 0  # sizeof of a record without members
    biggest: int = 16
    standalone: Mapping[str, int] = field(default_factory=dict, repr=False)
    ioctl: Ioctl = GENERIC_IOCTL
    checked: str = ""

    @property
    def pointer_bits(self) -> int:
        """Width of a pointer: 32 or 64."""
        return 8 * self.scalars["void*"][0]


COMMON: dict[str, SizeAlign] = {
    "_Bool": (1, 1),
    "char": (1, 1),
    "short": (2, 2),
    "int": (4, 4),
    "long long": (8, 8),
    "float": (4, 4),
    "double": (8, 8),
    "enum": (4, 4),
    "wchar_t": (4, 4),
}


def _scalars(word: int, long_double: SizeAlign, **changed: SizeAlign | None) -> Mapping[str, SizeAlign]:
    # `word` is the size of long and of a pointer.  C names come in `changed` with underscores
    # for spaces, and without them where they begin with two.
    table = COMMON | dict.fromkeys(("long", "void*", "size_t"), (word, word)) | {"long double": long_double}
    for name, size_align in changed.items():
        if size_align is not None:
            table[{"int128": "__int128", "float128": "__float128"}.get(name, name.replace("_", " "))] = size_align
    return MappingProxyType(table)


def _at_most(most: int, table: Mapping[str, SizeAlign]) -> Mapping[str, SizeAlign]:
    # The same sizes, nothing aligned to more than `most`.
    return MappingProxyType({name: (size, min(align, most)) for name, (size, align) in table.items()})


def _windows(word: int, long_double: SizeAlign, **more: SizeAlign | None) -> Mapping[str, SizeAlign]:
    table = dict(_scalars(4, long_double, **more)) | dict.fromkeys(("void*", "size_t"), (word, word))
    return MappingProxyType(table | {"wchar_t": (2, 2)})


_ILP32 = _scalars(4, (8, 8))
_ILP32_QUAD = _scalars(4, (16, 16))
_LP64 = _scalars(8, (16, 16), int128=(16, 16))
_LP64_FLOAT128 = _scalars(8, (16, 16), int128=(16, 16), float128=(16, 16))
_N32 = _scalars(4, (16, 16), int128=(16, 16))
_I386 = _scalars(4, (12, 4), long_long=(8, 4), double=(8, 4), float128=(16, 16))
_M68K = _scalars(4, (12, 4))

_BOTH = "gcc 12.2 and clang 22.1"
_GCC = "gcc 12.2"
_CLANG = "clang 22.1"

_TABLE = [
    Abi("x86-64", "little", _LP64_FLOAT128, checked=_BOTH),
    Abi("i386", "little", _I386, standalone=MappingProxyType({"long long": 8, "double": 8}), checked=_BOTH),
    Abi("x32", "little", _scalars(4, (16, 16), int128=(16, 16), float128=(16, 16)), checked=_BOTH),
    Abi(
        "arm-eabi",
        "little",
        _ILP32,
        char_signed=False,
        wchar_signed=False,
        unnamed_aligns=True,
        biggest=8,
        checked=f"{_BOTH}, soft and hard float",
    ),
    Abi(
        "arm-oabi",
        "little",
        _at_most(4, _ILP32),
        char_signed=False,
        least_align=4,
        biggest=4,
        checked=f"{_GCC} -mabi=apcs-gnu, in place of a historical compiler",
    ),
    Abi("aarch64", "little", _LP64, char_signed=False, wchar_signed=False, unnamed_aligns=True, checked=_BOTH),
    Abi("aarch64-ilp32", "little", _N32, char_signed=False, wchar_signed=False, unnamed_aligns=True, checked=_GCC),
    Abi("m68k", "big", _at_most(2, _M68K), bit_fields="m68k", zero_width_align=2, biggest=2, checked=_GCC),
    Abi(
        "m68k-malign-int",
        "big",
        _at_most(4, _M68K),
        bit_fields="m68k",
        zero_width_align=2,
        biggest=4,
        checked=f"{_GCC} -malign-int",
    ),
    Abi(
        "ppc32",
        "big",
        _ILP32_QUAD,
        char_signed=False,
        ioctl=_OSF_IOCTL,
        checked=f"{_BOTH}, but for long double: {_GCC} alone",
    ),
    Abi(
        "ppc64",
        "big",
        _LP64,
        char_signed=False,
        ioctl=_OSF_IOCTL,
        checked=f"{_BOTH}, but for long double: {_GCC} alone",
    ),
    Abi("ppc64le", "little", _LP64_FLOAT128, char_signed=False, ioctl=_OSF_IOCTL, checked=_BOTH),
    Abi("riscv32", "little", _ILP32_QUAD, char_signed=False, checked=_BOTH),
    Abi("riscv64", "little", _LP64, char_signed=False, checked=_BOTH),
    Abi("s390-31", "big", _scalars(4, (16, 8)), char_signed=False, biggest=8, checked=_GCC),
    Abi("s390x", "big", _scalars(8, (16, 8), int128=(16, 8)), char_signed=False, biggest=8, checked=_BOTH),
    Abi("mips-o32", "big", _ILP32, biggest=8, ioctl=_OSF_IOCTL, checked=_BOTH),
    Abi("mipsel-o32", "little", _ILP32, biggest=8, ioctl=_OSF_IOCTL, checked=_BOTH),
    Abi("mips-n32", "big", _N32, ioctl=_OSF_IOCTL, checked=_BOTH),
    Abi("mipsel-n32", "little", _N32, ioctl=_OSF_IOCTL, checked=_CLANG),
    Abi("mips-n64", "big", _LP64, ioctl=_OSF_IOCTL, checked=_BOTH),
    Abi("mipsel-n64", "little", _LP64, ioctl=_OSF_IOCTL, checked=_CLANG),
    Abi("sparc32", "big", _scalars(4, (16, 8)), biggest=8, ioctl=_OSF_IOCTL, checked=_BOTH),
    Abi("sparc64", "big", _LP64, ioctl=_OSF_IOCTL, checked=_BOTH),
    Abi("alpha", "little", _LP64, ioctl=_OSF_IOCTL, checked=_GCC),
    Abi("hppa", "big", _ILP32, biggest=8, ioctl=_PARISC_IOCTL, checked=_GCC),
    Abi("sh4", "little", _at_most(4, _ILP32), biggest=4, checked=_GCC),
    Abi("arc", "little", _at_most(4, _ILP32), char_signed=False, biggest=4, checked=_GCC),
    Abi("loongarch64", "little", _LP64, checked=_CLANG),
    Abi(
        "win32",
        "little",
        _windows(4, (8, 8)),
        wchar_signed=False,
        bit_fields="ms",
        empty_size=4,
        checked=f"{_CLANG} -target x86-windows-msvc; not run: cl.exe",
    ),
    Abi(
        "win64",
        "little",
        _windows(8, (8, 8), int128=(16, 16)),
        wchar_signed=False,
        bit_fields="ms",
        empty_size=4,
        checked=f"{_CLANG} -target x86_64-windows-msvc; not run: cl.exe",
    ),
]

ABIS: Mapping[str, Abi] = MappingProxyType({abi.name: abi for abi in _TABLE})


def find(abi: str | Abi) -> Abi:
    """The ABI of that name; an Abi is returned as it is.  Raises BadInput for an unknown name."""
    if isinstance(abi, Abi):
        return abi
    try:
        return ABIS[abi]
    except (KeyError, TypeError):
        raise BadInput(f"unknown ABI {abi!r}, expected one of: {', '.join(ABIS)}") from None
