"""Problems about where compilers put the members of a struct, and what that does to an interface."""

from __future__ import annotations

import itertools
import random

from kernelnotes import abi, cdecl
from kernelnotes.ctype import Record, Scalar
from kernelnotes.layout import Layout
from kernelnotes.layout import layout as lay_out
from kernelnotes.layout.hazards import compared, pairs
from kernelnotes.layout.place import measure
from kernelnotes.quiz import Code, Draft, Table

_TYPES = ("char", "__u8", "__u16", "__s16", "__u32", "int", "__u64", "long", "void *", "double", "long long")
_NAMES = ("flags", "id", "len", "state", "ino", "next", "mode", "offset", "count", "name")
_ABIS = ("x86-64", "i386", "x32", "aarch64", "arm-eabi", "m68k", "ppc32", "riscv64", "s390x", "win64")


def _struct(rng: random.Random, least: int = 4, most: int = 6, types: tuple[str, ...] = _TYPES) -> list[str]:
    """Declarations of members."""
    names = rng.sample(_NAMES[:-1], rng.randint(least, most))
    members = [f"{rng.choice(types)} {name};".replace("* ", "*") for name in names]
    if rng.random() < 0.5:
        members[rng.randrange(len(members))] = f"char name[{rng.randint(3, 20)}];"
    return members


def _source(members: list[str]) -> str:
    return "\n".join(["struct s {", *(f"    {member}" for member in members), "};"])


def _record(members: list[str]) -> Record:
    return cdecl.parse(_source(members))["struct s"]


def _steps(made: Layout) -> Table:
    rows, end = [], 0
    for member in made.members:
        align = measure(member.type, made.abi).align
        rows.append((f"`{member.name}`", str(member.size), str(align), str(end), str(member.offset)))
        end = member.offset + member.size
    return Table(("member", "bytes", "aligned to", "free from", "so at"), tuple(rows))


def place(rng: random.Random) -> Draft:
    """Offsets, holes and size under one ABI."""
    name = rng.choice(_ABIS)
    while True:
        members = _struct(rng)
        made = lay_out(_record(members), name)
        if made.holes:
            break
    holes = ", ".join(f"{hole.bits // 8} at {hole.offset}" for hole in made.holes)
    return Draft(
        title=f"A struct on {name}",
        question=(
            Code(_source(members)),
            f"Where does {name} put each member? Where are the holes, how many bytes of padding stand at the end, and "
            "what are size and alignment of the whole?",
        ),
        steps=(
            "Each member goes to the first free byte that its alignment divides; the struct is aligned as its "
            "strictest member, and its size is rounded up to that.",
            _steps(made),
            f"The last member ends at {made.size - made.padding}; rounded up to {made.align}: {made.size}.",
        ),
        answer=f"{', '.join(f'{m.name} {m.offset}' for m in made.members)}; holes: {holes}; "
        f"padding {made.padding}; size {made.size}, alignment {made.align}.",
    )


def two_sizes(rng: random.Random) -> Draft:
    """One declaration, an i386 program and an x86-64 kernel."""
    while True:
        members = _struct(rng, 2, 4, ("__u8", "__u16", "__u32", "int", "__u64", "long long", "long"))
        record = _record(members)
        found = compared(pairs({"struct s": record}, None), abi.ABIS["i386"], abi.ABIS["x86-64"])
        if len(found) == 1:
            break
    hazard = found[0]
    here, there = lay_out(record, "i386"), lay_out(record, "x86-64")
    both = list(zip(here.members, there.members, strict=True))
    moved = [one.name for one, two in both if one.offset != two.offset]
    sized = [one.name for one, two in both if one.size != two.size]
    return Draft(
        title="One struct, two sizes",
        question=(
            Code(_source(members)),
            "A 32-bit program (i386) and a 64-bit kernel (x86-64) exchange this struct as bytes. Which size does each "
            "believe in, which members are elsewhere or of another size, and which change makes both agree?",
        ),
        steps=(
            "`__u64` and `long long` are aligned to 4 on i386 and to 8 on x86-64; `long` and pointers have 4 and 8.",
            "On i386:",
            _steps(here),
            "On x86-64:",
            _steps(there),
        ),
        answer=f"{here.size} and {there.size} bytes; elsewhere: {', '.join(moved) or 'none'}; of another size: "
        f"{', '.join(sized) or 'none'}. That is called {hazard.kind}; one way to mend it: {hazard.mend}.",
    )


def read_bytes(rng: random.Random) -> Draft:
    """A member out of a dump of bytes."""
    name = rng.choice(("x86-64", "i386", "aarch64", "s390x", "m68k", "ppc32"))
    while True:
        members = _struct(rng, 3, 4, ("__u8", "__u16", "__s16", "__u32", "int", "__u64"))
        made = lay_out(_record(members), name)
        numbers = [m for m in made.members if m.name != "name"]
        if made.size <= 40 and numbers:
            break
    values: dict[str, object] = {}
    for member in made.members:
        if member.name == "name":
            values["name"] = b"kernelnotes of 2012"[: member.size].ljust(member.size, b"\0")
            continue
        signed = isinstance(member.type, Scalar) and member.type.kind == "signed"
        most = 1 << 8 * member.size - signed
        values[member.name] = rng.randrange(-most * signed, most)
    data = made.pack(values)
    asked = rng.choice(numbers)
    ours = data[asked.offset : asked.offset + asked.size]
    order = "the lowest byte first" if made.abi.endian == "little" else "the highest byte first"
    dump = "\n".join(f"{at:4}  {data[at : at + 8].hex(' ')}" for at in range(0, len(data), 8))
    return Draft(
        title=f"Bytes from {name}",
        question=(
            Code(_source(members)),
            f"A program on {name} wrote this struct; padding is zero. The bytes, with the offset of each line's first:",
            Code(dump),
            f"What is the value of `{asked.name}`?",
        ),
        steps=(
            _steps(made),
            f"`{asked.name}` has the {asked.size} bytes from {asked.offset} on: {ours.hex(' ')}, {order}.",
        ),
        answer=f"{asked.name} = {values[asked.name]}.",
    )


def smallest(rng: random.Random) -> Draft:
    """The order of members that wastes least."""
    name = rng.choice(("x86-64", "i386", "aarch64", "arm-eabi"))
    while True:
        members = _struct(rng, 4, 5)
        size = lay_out(_record(members), name).size
        least = min(lay_out(_record(list(order)), name).size for order in itertools.permutations(members))
        if least < size:
            break
    ordered = sorted(members, key=lambda member: -measure(_record([member]).members[0].type, abi.ABIS[name]).align)
    made = lay_out(_record(ordered), name)
    return Draft(
        title=f"The smallest order on {name}",
        question=(
            Code(_source(members)),
            f"On {name} this takes {size} bytes. Put the members into an order that takes as few as possible, without "
            "`packed`. How many are it?",
        ),
        steps=(
            "From the strictest alignment to the weakest no member needs a hole before it, for in C every size is a "
            "multiple of its alignment; what remains is the padding at the end.",
            Code(_source(ordered)),
            _steps(made),
        ),
        answer=f"{made.size} bytes; {'no order is better' if made.size == least else f'the best has {least}'}.",
    )


KINDS = (place, two_sizes, read_bytes, smallest)
