"""The ioctl numbers that a header defines: macros, which leave no trace in declarations.

    #define KVM_GET_DIRTY_LOG  _IOW(KVMIO, 0x42, struct kvm_dirty_log)

The size of the argument is part of the number, so a struct of two sizes gives two numbers: the kernel does not even
recognise the call.  To learn the value, the source asks for it: a line behind the header, `enum { X = KVM_... };`, goes
through preprocessor and parser as everything else does, and `sizeof` in it waits for the ABI.

Left out: macros with arguments (EVIOCGNAME(len)), and those that use the old numbers, which name no type.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from kernelnotes.cdecl.source import without_comments
from kernelnotes.ctype import Aligned, Array, Number, Record

if TYPE_CHECKING:
    from kernelnotes.cdecl.scope import Records

PREFIX = "kernelnotes_ioctl_"
BEGIN = f"struct {PREFIX};"  # a declaration that says nothing, in front of the questions
_QUESTION = re.compile(rf"enum\s*\{{\s*{PREFIX}(\w+)\s*=[^,{{}}]*\}}\s*;\Z")
_DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+((?:[^\\\n]|\\.|\\\n)*)", re.M)
_MAKES = re.compile(r"_IO(?:C|[RW]+)?(?:_BAD)?\s*\(")
_ARGUMENT = re.compile(r",\s*(?:sizeof\s*\(\s*)?((?:struct|union)\s+\w+|\w+)\s*(?:\[[^\]]*\]\s*)*(?:\)\s*)+\Z")


class Ioctl(NamedTuple):
    """One ioctl: its number, of which the size of the argument is part, and file:line.

    `argument` is the record that the argument is, or an array of which it is, as `Records` names it; "" for all else.
    """

    number: Number
    argument: str
    where: str


class Definition(NamedTuple):
    """The text of a macro that makes an ioctl number, and where it stands."""

    text: str
    where: str


def definitions(source: str, filename: str) -> dict[str, Definition]:
    """The macros in the source that make an ioctl number, by name."""
    if "_IO" not in source:
        return {}
    source = without_comments(source)
    return {
        found[1]: Definition(found[2], f"{filename}:{source.count(chr(10), 0, found.start()) + 1}")
        for found in _DEFINE.finditer(source)
        if _MAKES.search(found[2]) and found[2].count("(") == found[2].count(")")
    }


def questions(defined: dict[str, Definition]) -> str:
    """C text that asks for the value of each; what is not defined in the end, by an #if, is not asked for.

    Many headers leave the include of _IO to the program.
    """
    asked = "".join(f"\n#ifdef {name}\nenum {{ {PREFIX}{name} = {name} }};\n#endif" for name in defined)
    return f"\n{BEGIN}\n#include <linux/ioctl.h>{asked}" if asked else ""


def asks_for(declaration: str, defined: dict[str, Definition]) -> str:
    """The name that the declaration, one behind BEGIN, asks for; "" if it is no question of ours.

    A macro can hold anything, `) }; struct x { ...` too, and so give other declarations.
    """
    found = _QUESTION.match(declaration)
    return found[1] if found and found[1] in defined else ""


def answer(name: str, number: Number, defined: dict[str, Definition], records: Records) -> Ioctl:
    """The ioctl of that name."""
    text, where = defined[name]
    found = _ARGUMENT.search(text.replace("\\\n", " "))
    argument = " ".join(found[1].split()) if found else ""
    if argument in records.typedefs:
        ctype = records.typedefs[argument]
        while isinstance(ctype, Array | Aligned):
            ctype = ctype.of
        argument = str(ctype) if isinstance(ctype, Record) else ""
    return Ioctl(number, argument if argument in records.keys() else "", where)  # noqa: SIM118
