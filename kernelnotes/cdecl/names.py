"""The type names that C, its standard headers and the kernel's <linux/types.h> give out before a header begins.

They stand in for the headers in `HEADERS` where no include path is given.  `__u64` is `unsigned long long` here, as in
asm-generic/int-ll64.h; where the kernel makes it `unsigned long` that has the same size and alignment.
Source: include/uapi/linux/types.h, include/uapi/asm-generic/posix_types.h.
"""

from __future__ import annotations

from kernelnotes.ctype import SCALARS, Aligned, Later, Scalar, Type

INTEGERS = ("signed", "unsigned", "char", "bool", "wchar")

_HEADERS = """
    linux/types.h asm/types.h asm-generic/types.h asm-generic/int-ll64.h linux/posix_types.h asm/posix_types.h
    linux/compiler.h linux/compiler_types.h linux/stddef.h linux/const.h asm/byteorder.h asm/bitsperlong.h
    linux/ioctl.h asm/ioctl.h asm-generic/ioctl.h sys/ioctl.h
    stddef.h stdint.h stdbool.h inttypes.h limits.h stdalign.h sys/types.h
"""
HEADERS = frozenset(_HEADERS.split())

_WIDTHS = {8: "char", 16: "short", 32: "int", 64: "long long"}


def _fixed() -> dict[str, Type]:
    # Names with a width in them: u8, __u8, __le16, uint8_t, u_int8_t, compat_u64, ...
    made: dict[str, Type] = {}
    for bits, key in _WIDTHS.items():
        signed = SCALARS["signed char" if bits == 8 else key]
        unsigned = SCALARS[f"unsigned {key}"]
        signed_names = f"s{bits} __s{bits} int{bits}_t __int{bits}_t int_least{bits}_t"
        unsigned_names = f"u{bits} __u{bits} uint{bits}_t u_int{bits}_t __uint{bits}_t uint_least{bits}_t"
        if bits > 8:
            unsigned_names += f" __le{bits} __be{bits}"
        made |= dict.fromkeys(signed_names.split(), signed) | dict.fromkeys(unsigned_names.split(), unsigned)
    return made


def _widthless() -> dict[str, Type]:
    word = Scalar("size_t", "size_t", "unsigned")
    signed_word = Scalar("ssize_t", "size_t", "signed")
    rows: dict[str, str] = {
        "int": "pid_t __kernel_pid_t __pid_t key_t __kernel_key_t clockid_t __kernel_clockid_t timer_t "
        "__kernel_timer_t __kernel_mqd_t mqd_t __kernel_daddr_t",
        "unsigned int": "uid_t gid_t __kernel_uid32_t __kernel_gid32_t qid_t mode_t fmode_t gfp_t __poll_t uint dev_t "
        "__kernel_dev_t __wsum",
        "unsigned short": "ushort __sum16 umode_t __kernel_old_uid_t sa_family_t __kernel_sa_family_t",
        "unsigned char": "unchar u_char cc_t",
        "long": "off_t __kernel_off_t time_t __kernel_time_t __kernel_old_time_t suseconds_t __kernel_suseconds_t "
        "clock_t __kernel_clock_t __kernel_long_t",
        "unsigned long": "ulong u_long ino_t __kernel_ino_t __kernel_ulong_t",
        "long long": "loff_t __kernel_loff_t __kernel_time64_t ktime_t intmax_t",
        "unsigned long long": "sector_t blkcnt_t uintmax_t",
        "_Bool": "bool",
    }
    made: dict[str, Type] = {name: SCALARS[ctype] for ctype, names in rows.items() for name in names.split()}
    made |= dict.fromkeys(("u_int", "speed_t", "tcflag_t"), SCALARS["unsigned int"])
    made |= dict.fromkeys(("u_short",), SCALARS["unsigned short"])
    made |= dict.fromkeys(("size_t", "__kernel_size_t", "uintptr_t"), word)
    made |= dict.fromkeys(("ssize_t", "__kernel_ssize_t", "ptrdiff_t", "intptr_t", "__kernel_ptrdiff_t"), signed_word)
    made |= {"wchar_t": SCALARS["wchar_t"], "__float128": SCALARS["__float128"]}
    made |= {"__int128_t": SCALARS["__int128"], "__uint128_t": SCALARS["unsigned __int128"]}
    return made


# Macros in <linux/types.h>, `__u64 __attribute__((aligned(8)))`: they align the member, not the type.
_MEMBER_ALIGNED = {"unsigned ": "__aligned_u64 __aligned_be64 __aligned_le64 aligned_u64 aligned_be64 aligned_le64"}
_MEMBER_ALIGNED[""] = "__aligned_s64"
MEMBER_ALIGNED = {
    name: Aligned(SCALARS[f"{sign}long long"], 8, name)
    for sign, names in _MEMBER_ALIGNED.items()
    for name in names.split()
}

# Where an ioctl number has its direction and its size is the ABI's; see abi.Ioctl.
IOCTL = {
    "_IOC_NONE": Later("_IOC_NONE", lambda abi: abi.ioctl.none),
    "_IOC_READ": Later("_IOC_READ", lambda abi: abi.ioctl.read),
    "_IOC_WRITE": Later("_IOC_WRITE", lambda abi: abi.ioctl.write),
    "_IOC_DIRSHIFT": Later("_IOC_DIRSHIFT", lambda abi: 16 + abi.ioctl.size_bits),
}

PRELUDE: dict[str, Type] = _fixed() | _widthless() | MEMBER_ALIGNED

_MODES = {"QI": "char", "HI": "short", "SI": "int", "DI": "long long", "TI": "__int128", "pointer": "size_t"}


def changed(ctype: Type, name: str, attribute: str, arguments: str) -> Type:
    """The type of a typedef with an attribute that changes its size: `mode(DI)` of an integer is known here.

    Another one makes a type without a size, refused where a member has it.
    """
    key = _MODES.get(arguments.strip().strip("_"))
    if attribute == "mode" and key and isinstance(ctype, Scalar) and ctype.kind in ("signed", "unsigned"):
        return Scalar(name, key, ctype.kind)
    return Scalar(f"{name}, made by the attribute {attribute}({arguments})", "unknown", "unknown")


_WORDS = frozenset(
    ["char", "short", "int", "long", "float", "double", "signed", "unsigned", "_Bool", "_Complex", "__int128", "void"]
)


def scalar(words: list[str]) -> Type | None:
    """The scalar that a list of C's keywords means, in any order: `long unsigned int` is `unsigned long`."""
    if not set(words) <= _WORDS:
        return None
    if words == ["void"]:
        return Scalar("void", "void", "void")
    count = {word: words.count(word) for word in words}
    sign = "unsigned " if count.pop("unsigned", 0) else ""
    signed = count.pop("signed", 0)
    if signed and sign:
        return None
    longs, integer = count.pop("long", 0), count.pop("int", 0)
    if "double" in count or "float" in count:
        name = ("_Complex " if count.pop("_Complex", 0) else "") + ("long " if longs else "") + next(iter(count), "")
        return SCALARS.get(name) if len(count) == 1 and not (sign or signed or integer or longs > 1) else None
    if count == {"char": 1} and not longs and not integer:
        return SCALARS[f"{sign}char" if sign or not signed else "signed char"]
    if count == {"short": 1} and not longs:
        return SCALARS[f"{sign}short"]
    if count == {"_Bool": 1} or count == {"__int128": 1}:
        return SCALARS.get(sign + next(iter(count))) if not longs and not integer else None
    if count or longs > 2:
        return None
    return SCALARS[sign + ("long " * longs).strip() if longs else f"{sign}int"]
