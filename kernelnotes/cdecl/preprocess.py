"""The C preprocessor in pure Python: pcpp, with limits, with errors of our own, and with a memory (see `expander`).

Source text without a directive is passed through: most examples need no preprocessor, and pcpp is not even imported.

Left out: trigraphs, computed `#line`, and `#include_next` but for a header that includes its own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(?!pragma\b|\d|line\b)\S", re.M)
_MACRO = re.compile(r"__struct_group|__DECLARE_FLEX_ARRAY|\b_IO(?:C|[RW]+)?\s*\(")
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
    """What including one file did, as long as every macro in `asked` is what it was then.

    `asked` and `set` map names of macros to macros, None for "not defined".  `text` is what came out, line markers
    included.  `repeatable` is False where it depended on more than macros: `#pragma once`, `__COUNTER__`.
    """

    asked: dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    repeatable: bool = True
    below: str = ""  # the source's folder, where files below it were read: another source may not

    def took(self, inner: Expansion) -> None:
        """Note what a file below did."""
        for name, macro in inner.asked.items():
            if name not in self.set:
                self.asked.setdefault(name, macro)
        self.set |= inner.set
        self.repeatable &= inner.repeatable
        self.below = self.below or inner.below


Expansions = dict[tuple[str, ...], list[Expansion]]  # by the file's path and the folders that #include looks in


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
    from kernelnotes.cdecl.expander import expand

    return expand([before, source], filename, MACROS | dict(defines), include, {} if known is None else known)
