"""The macros that a compiler for an ABI defines before it reads a line: what the #ifs of real headers ask for.

    cdecl.parse(source, defines=cdecl.predefined("i386"), include=["/usr/include"])

Most follow from the table in `abi`; the name of the machine does not.  Source: what `gcc -dM -E` and `clang -dM -E`
print (tests/test_cdecl.py).  Left out: all that headers do not ask for (limits of floating point, code models, CPU
features), and Windows, whose headers are others.
"""

from __future__ import annotations

from kernelnotes.abi import Abi, find
from kernelnotes.errors import BadInput

GCC = "12"  # the compiler that these macros make us; glibc's headers drop every attribute for one that is none

_MACHINES = {
    "x86-64": "__x86_64__ __x86_64 __amd64__ __amd64",
    "i386": "__i386__ __i386",
    "x32": "__x86_64__ __x86_64 __amd64__ __amd64",
    "arm-eabi": "__arm__ __ARM_EABI__",
    "arm-oabi": "__arm__",
    "aarch64": "__aarch64__",
    "aarch64-ilp32": "__aarch64__",
    "m68k": "__m68k__ __mc68000__",
    "m68k-malign-int": "__m68k__ __mc68000__",
    "ppc32": "__powerpc__ __PPC__",
    "ppc64": "__powerpc__ __PPC__ __powerpc64__ __PPC64__",
    "ppc64le": "__powerpc__ __PPC__ __powerpc64__ __PPC64__",
    "riscv32": "__riscv",
    "riscv64": "__riscv",
    "s390-31": "__s390__",
    "s390x": "__s390__ __s390x__",
    **dict.fromkeys(
        ("mips-o32", "mipsel-o32", "mips-n32", "mipsel-n32", "mips-n64", "mipsel-n64"), "__mips__ __MIPSE{endian}__"
    ),
    "sparc32": "__sparc__ __sparc",
    "sparc64": "__sparc__ __sparc __arch64__",
    "alpha": "__alpha__ __alpha",
    "hppa": "__hppa__ __hppa",
    "sh4": "__sh__",
    "arc": "__arc__",
    "loongarch64": "__loongarch__ __loongarch64",
}
_SIZES = {"SHORT": "short", "INT": "int", "LONG": "long", "LONG_LONG": "long long", "POINTER": "void*"}
_SIZES |= {"SIZE_T": "size_t", "WCHAR_T": "wchar_t", "INT128": "__int128"}
_SIZES |= {"FLOAT": "float", "DOUBLE": "double", "LONG_DOUBLE": "long double"}


def predefined(abi: str | Abi) -> dict[str, str]:
    """Name and value of each macro, as `cdecl.parse` takes them.  Raises BadInput for an unknown ABI and Windows."""
    abi = find(abi)
    if abi.bit_fields == "ms":
        raise BadInput(f"the macros that compilers for {abi.name} define are not known here; give them as defines")
    little = abi.endian == "little"
    made = {"__GNUC__": GCC, "__GNUC_MINOR__": "2", "__STDC__": "1", "__STDC_VERSION__": "201710L", "__CHAR_BIT__": "8"}
    made |= dict.fromkeys(("__linux__", "__linux", "__unix__", "__unix", "__gnu_linux__", "__ELF__"), "1")
    machine = _MACHINES.get(abi.name, "").format(endian="L" if little else "B")
    made |= dict.fromkeys(machine.split(), "1")
    made |= {f"__SIZEOF_{name}__": str(abi.scalars[key][0]) for name, key in _SIZES.items() if key in abi.scalars}
    made |= {"__ORDER_LITTLE_ENDIAN__": "1234", "__ORDER_BIG_ENDIAN__": "4321"}
    made["__BYTE_ORDER__"] = "__ORDER_LITTLE_ENDIAN__" if little else "__ORDER_BIG_ENDIAN__"
    made |= {"__INT_MAX__": "0x7fffffff", "__LONG_LONG_MAX__": "0x7fffffffffffffffLL"}
    made["__LONG_MAX__"] = f"{hex(2 ** (8 * abi.scalars['long'][0] - 1) - 1)}L"
    if not abi.char_signed:
        made["__CHAR_UNSIGNED__"] = "1"
    if abi.pointer_bits == 64 and abi.scalars["long"][0] == 8:
        made |= {"_LP64": "1", "__LP64__": "1"}
    elif abi.name in ("i386", "x32", "aarch64-ilp32"):
        made |= {"_ILP32": "1", "__ILP32__": "1"}
    if abi.name.startswith("riscv"):
        made["__riscv_xlen"] = str(abi.pointer_bits)
    return made
