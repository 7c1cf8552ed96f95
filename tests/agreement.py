"""Where the running kernel's struct differs from that of the installed UAPI headers, and why, found mechanically.

    agreement.explain(layout of the header's, layouts of the kernel's of the same name)

The headers are of one version, the kernel mostly of a later one; and a name may mean something else inside the kernel.
What none of the reasons explains is a mistake, most likely ours.
"""

import re
from dataclasses import replace

import installed

from kernelnotes import cdecl, layout
from kernelnotes.ctype import Record
from kernelnotes.errors import BadInput
from kernelnotes.headers import BEFORE
from kernelnotes.live.cpp import Cpp

# What the C library has as well the headers behind it leave out; behind the kernel's own ones they declare it.
PRELUDES = (BEFORE, "#include <linux/types.h>\n#include <linux/socket.h>\n#include <asm/signal.h>\n")
RESERVED = re.compile(r"re?s(er)?vd?(ed)?|^res\d|pad|unused|spare")

EXACT = "exact"
REASONS = {
    "other names": "the same bytes under other names",
    "added": "the kernel is newer: it has more members, in place of reserved ones or behind them",
    "removed": "the kernel lacks members, and the others lie as our rules place them without",
}


def headers(names):
    """[(header, the names it defines)] of those that define a struct or union of these names."""
    found = []
    for name, path in installed.headers().items():
        if name.startswith("asm-generic/"):  # comes in by asm/, where that has nothing else
            continue
        tags = re.findall(r"\b(struct|union)\s+(\w+)\s*\{", path.read_text(errors="replace"))
        if known := {f"{kind} {tag}" for kind, tag in tags} & names:
            found.append((name, known))
    return found


def declared(found):
    """({name: record}, [what could not be read]) as each header of `headers` declares them on x86-64."""
    made, refused, known = {}, [], cdecl.Known()
    for header, names in found:
        wanted, problem = names - made.keys(), None
        for prelude in PRELUDES:
            try:
                reader = cdecl.Reader(cpp=Cpp("gcc -m64"), known=known)
                told = reader.parse(f"{prelude}#include <{header}>\n", header)
            except BadInput as e:
                problem = f"{header}: {e}"
                continue
            made |= {name: told[name] for name in wanted & told.keys() if f"/{header}:" in told[name].where}
            if not wanted - made.keys():
                break
        if problem and wanted - made.keys():
            refused.append(problem)
    return made, refused


def explain(ours, kernels):
    """EXACT, one of REASONS, or None."""
    if any(_places(ours) == _places(kernel) for kernel in kernels):
        return EXACT
    return next((reason for kernel in kernels if (reason := _reason(ours, kernel))), None)


def _places(one):
    return one.size, {m.name: (m.bit_offset, m.size, m.bit_width) for m in one.members}


def _reason(ours, kernel):
    twins = {m.name: m for m in kernel.members}
    in_kernel, in_ours = _covering(kernel), _covering(ours)

    def covered(member):  # what has a name on both sides is not the same bytes under another
        twin = twins.get(member.name, member)
        return twin.bit_offset == member.bit_offset and in_kernel(member)

    if ours.size == kernel.size and all(map(covered, ours.members)) and all(map(in_ours, kernel.members)):
        return "other names"
    changed = _places(kernel)[1] != _places(ours)[1]
    stay = all(_kept(m, twins.get(m.name)) or covered(m) for m in ours.members)
    if changed and stay and kernel.size >= ours.size:
        return "added"
    try:
        without = layout.layout(_only(ours.record, twins), ours.abi)
    except BadInput:
        return None
    return "removed" if _places(without) == _places(kernel) else None


def _kept(member, twin):
    # At the same place; a reserved member may have become another, one without size may be left out, and what is
    # itself a record may have grown, as may an array that had no size.
    if RESERVED.search(member.name) or (twin is None and member.size == 0):
        return True
    if twin is None or twin.bit_offset != member.bit_offset or twin.bit_width != member.bit_width:
        return False
    return twin.size == member.size or (
        twin.size > member.size and (member.size == 0 or isinstance(member.type, Record))
    )


def _covering(one):
    # Do members of `one` begin and end where a member does?
    begins = {m.bit_offset for m in one.members}
    ends = {m.bit_offset + (m.bit_width or 8 * m.size) for m in one.members}
    return lambda m: m.bit_offset in begins and m.bit_offset + (m.bit_width or 8 * m.size) in ends


def _only(record, names):
    members = []
    for member in record.members:
        if member.name in names:
            members.append(member)
        elif not member.name and isinstance(member.type, Record):
            inner = _only(member.type, names)
            members += [member._replace(type=inner)] if inner.members else []
    return replace(record, members=tuple(members), _layouts={})
