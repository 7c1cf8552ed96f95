"""What changes between two ABIs, and a mend that has been tried.

A program and a kernel that disagree about a record exchange garbage, and seldom an error.  The kinds, from the one that
is hardest to see:

    tail padding        every member at the same place, only sizeof differs: autofs_v5_packet, 300 and 304
    interior shift      the same types, yet members move, because a 64-bit member is aligned differently
    nested record       a record inside has another size, and nothing else moved
    width-dependent     a member's type has another size: long, pointers, size_t, long double
    definition differs  the two ABIs see different members, by #ifdef

A mend is a change of the declaration after which both ABIs agree; each is laid out again before it is proposed.  A
difference is a hazard, not a bug: the kernel may have a compat handler.  Left out: ioctl numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from kernelnotes.abi import Abi, find
from kernelnotes.ctype import SCALARS, Aligned, Array, Enum, Member, Pointer, Record, Scalar, Type
from kernelnotes.errors import BadInput
from kernelnotes.layout.place import measure, place

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["record", "header", "kind", "sizes", "members", "mend"]


def hazards(
    records: Mapping[str, Record], abi_a: str | Abi, abi_b: str | Abi, other: Mapping[str, Record] | None = None
) -> pd.DataFrame:
    """A row per record that the two ABIs place differently.

    `other` are the records as the second ABI sees them, if its preprocessor saw other text.  Columns: record, header
    (file:line), kind, sizes (bytes on each), members (those that moved or changed size), mend ("" where none was
    found).  A record that one of the ABIs cannot have is left out.
    """
    import pandas as pd

    a, b = find(abi_a), find(abi_b)
    rows = []
    for name, record in records.items():
        twin = (other or records).get(name)
        try:
            found = examine(record, twin, a, b) if twin is not None else None
        except BadInput:
            continue
        if found:
            rows.append((name, record.where, *found))
    return pd.DataFrame(rows, columns=COLUMNS)


def examine(record: Record, twin: Record, a: Abi, b: Abi) -> tuple[str, tuple[int, int], list[str], str] | None:
    """Kind, sizes, members and mend of one record; None where the ABIs agree."""
    here, there = place(record, a), place(twin, b)
    sizes = here.measured.size, there.measured.size
    if [m.name for m in here.members] != [m.name for m in there.members]:
        return "definition differs", sizes, [], ""
    pairs = list(zip(here.members, there.members, strict=True))
    moved = [p.name for p, q in pairs if p.bit_offset != q.bit_offset]
    resized = [p.name for p, q in pairs if p.size != q.size]
    if not moved and not resized and sizes[0] == sizes[1]:
        return None
    wide = [m.name for m, n in pairs if _depends_on_width(m.type, n.type, a, b)]
    if wide:
        return "width-dependent", sizes, wide, _mend(record, a, b, wide)
    kind = "interior shift" if moved else "nested record" if resized else "tail padding"
    return kind, sizes, moved or resized, _mend(record, a, b, [])


def _depends_on_width(one: Type, two: Type, a: Abi, b: Abi) -> bool:
    # Does any scalar in the type have another size on the other ABI?
    leaves, twins = list(_leaves(one)), list(_leaves(two))
    return len(leaves) != len(twins) or any(
        measure(p, a).size != measure(q, b).size for p, q in zip(leaves, twins, strict=True)
    )


def _leaves(ctype: Type) -> Iterator[Type]:
    if isinstance(ctype, Array | Aligned):
        yield from _leaves(ctype.of)
    elif isinstance(ctype, Record):
        for member in ctype.members:
            yield from _leaves(member.type)
    else:
        yield ctype


# ------------------------------------------------------------------------------------- mends


def _agree(record: Record, a: Abi, b: Abi) -> bool:
    here, there = place(record, a), place(record, b)
    return here.measured.size == there.measured.size and all(
        (p.bit_offset, p.size) == (q.bit_offset, q.size) for p, q in zip(here.members, there.members, strict=True)
    )


def _mend(record: Record, a: Abi, b: Abi, wide: list[str]) -> str:
    # The first change that, laid out on both ABIs, removes the difference.
    for text, changed in _candidates(record, a, b, wide):
        if _agree(changed, a, b):
            return text
    return ""


def _candidates(record: Record, a: Abi, b: Abi, wide: list[str]) -> Iterator[tuple[str, Record]]:
    strict = [m.name for m in record.members if m.bits is None and _stricter(m.type, a, b)]
    if wide:
        fixed = _changed(record, wide, SCALARS["unsigned long long"])
        yield f"make {', '.join(wide)} __u64", fixed
        yield f"make {', '.join(wide)} __aligned_u64", _aligned(fixed, [*wide, *strict])
        return
    missing = abs(place(record, a).measured.size - place(record, b).measured.size)
    if record.kind == "struct" and missing:
        pad = _with_members(record, [*record.members, _pad(missing)])
        yield f"add `__u8 pad[{missing}];` at the end", pad
    if strict:
        yield f"make {', '.join(strict)} __aligned_u64 (align to 8)", _aligned(record, strict)
        ordered = sorted(record.members, key=lambda m: m.name not in strict)
        yield f"move {', '.join(strict)} to the front", _with_members(record, ordered)
    yield "align the record: __attribute__((aligned(8)))", replace(record, align=8, _layouts={})


def _stricter(ctype: Type, a: Abi, b: Abi) -> bool:
    return measure(ctype, a).align != measure(ctype, b).align


def _pad(count: int) -> Member:
    return Member("pad", Array(SCALARS["unsigned char"], count))


def _with_members(record: Record, members: list[Member]) -> Record:
    return replace(record, members=tuple(members), _layouts={})


def _aligned(record: Record, names: list[str]) -> Record:
    return _with_members(record, [m._replace(align=8) if m.name in names else m for m in record.members])


def _changed(record: Record, names: list[str], ctype: Scalar) -> Record:
    def made(old: Type) -> Type:
        if isinstance(old, Array):
            return Array(made(old.of), old.count)
        return ctype if isinstance(old, Scalar | Pointer | Enum | Aligned) else old

    return _with_members(record, [m._replace(type=made(m.type)) if m.name in names else m for m in record.members])
