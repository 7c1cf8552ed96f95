"""What changes between two ABIs, and a mend that has been tried.

A program and a kernel that disagree about a record exchange garbage, and seldom an error.  The kinds, from the one that
is hardest to see:

    tail padding          every member at the same place, only sizeof differs: autofs_v5_packet, 300 and 304
    interior shift        the same types, yet members move, because a 64-bit member is aligned differently
    nested record         a record inside has another size, and nothing else moved
    width-dependent       a member's type has another size: long, pointers, size_t, long double
    definition differs    the two ABIs see different members, by #ifdef
    ioctl number changed  the size of its argument is part of an ioctl's number: the kernel does not know the call

A mend is a change of the declaration after which both ABIs agree; each is laid out again before it is proposed, and so
is every record that contains the mended one.  A difference is a hazard, not a bug: the kernel may have a compat
handler.  Left out: what a mend would break, namely programs that were compiled before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from kernelnotes.abi import Abi, find
from kernelnotes.ctype import SCALARS, Aligned, Array, Enum, Later, Member, Pointer, Record, Scalar, Type
from kernelnotes.errors import BadInput
from kernelnotes.layout.place import measure, number, place

if TYPE_CHECKING:
    import pandas as pd

    from kernelnotes.cdecl.ioctl import Ioctl

IOCTL = "ioctl number changed"
KINDS = ("tail padding", "interior shift", "nested record", "width-dependent", "definition differs", IOCTL)


class Hazard(NamedTuple):
    """One difference between two ABIs.

    `record` is the record, or the macro of an ioctl; `header` file:line; `sizes` bytes on each ABI, of an ioctl those
    of its argument; `members` those that moved or changed size, of an ioctl the records it is made of; `mend` "" where
    none was found; `numbers` the ioctl's on each ABI.
    """

    record: str
    header: str
    kind: str
    sizes: tuple[int, int]
    members: list[str]
    mend: str
    numbers: tuple[int, int] | None = None


class Pair(NamedTuple):
    """A record by name, as each of the two ABIs sees it: twice the same, but where an #ifdef or a typedef differs."""

    name: str
    here: Record
    there: Record


def hazards(
    records: Mapping[str, Record], abi_a: str | Abi, abi_b: str | Abi, other: Mapping[str, Record] | None = None
) -> pd.DataFrame:
    """A row per record that the two ABIs place differently, and per ioctl whose number changes: see `Hazard`.

    `other` are the records as the second ABI sees them, if its preprocessor saw other text.  Columns: record, header,
    kind, sizes, members, mend, numbers.  A record that one of the ABIs cannot have is left out.
    """
    import pandas as pd

    a, b = find(abi_a), find(abi_b)
    found = [*compared(pairs(records, other), a, b), *ioctls_compared(records, other, a, b)]
    return pd.DataFrame(found, columns=list(Hazard._fields))


def pairs(records: Mapping[str, Record], other: Mapping[str, Record] | None) -> list[Pair]:
    """The records that both ABIs have."""
    there = records if other is None else other
    return [Pair(name, record, there[name]) for name, record in records.items() if name in there.keys()]  # noqa: SIM118


def compared(found: Iterable[Pair], a: Abi, b: Abi) -> list[Hazard]:
    """The hazards among records, their mends tried in all records given."""
    mender = _Mender(list(found), a, b)
    hazards_found = []
    for pair in mender.pairs:
        try:
            difference = differs(pair, a, b)
            if difference:
                mend = mender.mend(pair).text if difference[0] != "definition differs" else ""
                hazards_found.append(Hazard(pair.name, pair.here.where, *difference, mend))
        except BadInput:
            continue
    return hazards_found


def differs(pair: Pair, a: Abi, b: Abi) -> tuple[str, tuple[int, int], list[str]] | None:
    """Kind, sizes and members; None where the ABIs agree.  Raises BadInput where one cannot have the record."""
    here, there = place(pair.here, a), place(pair.there, b)
    sizes = here.measured.size, there.measured.size
    if [m.name for m in here.members] != [m.name for m in there.members]:
        return "definition differs", sizes, []
    both = list(zip(here.members, there.members, strict=True))
    moved = [p.name for p, q in both if p.bit_offset != q.bit_offset]
    resized = [p.name for p, q in both if p.size != q.size]
    if not moved and not resized and sizes[0] == sizes[1]:
        return None
    wide = [m.name for m, n in both if _depends_on_width(m.type, n.type, a, b)]
    if wide:
        return "width-dependent", sizes, wide
    kind = "interior shift" if moved else "nested record" if resized else "tail padding"
    return kind, sizes, moved or resized


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


def ioctls_compared(
    records: Mapping[str, Record], other: Mapping[str, Record] | None, a: Abi, b: Abi
) -> Iterator[Hazard]:
    """The ioctls that have two numbers."""
    here: dict[str, Ioctl] = getattr(records, "ioctls", {})
    there: dict[str, Ioctl] = here if other is None else getattr(other, "ioctls", {})
    for name in here.keys() & there.keys():
        try:
            numbers = number(here[name].number, a), number(there[name].number, b)
        except BadInput:
            continue
        if numbers[0] != numbers[1] and a.ioctl == b.ioctl:
            sizes = tuple(n >> 16 & (1 << abi.ioctl.size_bits) - 1 for n, abi in zip(numbers, (a, b), strict=True))
            made_of = list(here[name].records)
            mend = f"mend {', '.join(made_of)}" if made_of else "give its argument a type of one size"
            yield Hazard(name, here[name].where, IOCTL, (sizes[0], sizes[1]), made_of, mend, numbers)


# ------------------------------------------------------------------------------------- mends


class _Mend(NamedTuple):
    # What to do, "" if nothing helps, and the record after it, as each ABI sees it.
    text: str
    here: Record
    there: Record


Change = Callable[[Record], Record]


class _Mender:
    # Mends records from the inside out.
    def __init__(self, found: list[Pair], a: Abi, b: Abi) -> None:
        self.pairs, self.a, self.b = found, a, b
        self._by_record = {id(pair.here): pair for pair in found}
        self._mends: dict[int, _Mend] = {}
        self._containing: dict[int, list[Pair]] | None = None

    def mend(self, pair: Pair) -> _Mend:
        """How to make both ABIs place the record alike, the records in it having been mended before."""
        found = self._mends.get(id(pair.here))
        if found is None:
            found = self._mends[id(pair.here)] = self._find(pair)
        return found

    def _find(self, pair: Pair) -> _Mend:
        inner = self._mended_inside(pair.here)
        swap = {id(p.here): self.mend(p).here for p in inner} | {id(p.there): self.mend(p).there for p in inner}
        here, there = _swapped(pair.here, swap), _swapped(pair.there, swap)
        names = ", ".join(p.name for p in inner)
        if names and self._agree(here, there):
            return _Mend(f"mend {names}", here, there)
        for text, change in self._candidates(here, there):
            one, two = change(here), change(there)
            if self._agree(one, two) and self._agree_outside(pair, one, two):
                return _Mend(f"{text}, after mending {names}" if names else text, one, two)
        return _Mend("", here, there)

    def _mended_inside(self, record: Record) -> list[Pair]:
        # The records in this one that have a difference, and a mend for it.
        inside = {id(r): self._by_record[id(r)] for r in _records_in(record) if id(r) in self._by_record}
        return [p for p in inside.values() if self._may_differ(p) and self.mend(p).text]

    def _may_differ(self, pair: Pair) -> bool:
        try:
            found = differs(pair, self.a, self.b)
        except BadInput:
            return False
        return found is not None and found[0] != "definition differs"

    def _agree(self, here: Record, there: Record) -> bool:
        return differs(Pair("", here, there), self.a, self.b) is None

    def _agree_outside(self, pair: Pair, here: Record, there: Record) -> bool:
        # Does the mend hold wherever the record is contained?  It does if even its alignment is the same.
        if measure(here, self.a).align == measure(there, self.b).align:
            return True
        if self._containing is None:
            self._containing = {}
            for outer in self.pairs:
                for inner in {id(record) for record in _records_in(outer.here)}:
                    self._containing.setdefault(inner, []).append(outer)
        swap = {id(pair.here): here, id(pair.there): there}
        outside = self._containing.get(id(pair.here), [])
        return all(self._agree(_swapped(outer.here, swap), _swapped(outer.there, swap)) for outer in outside)

    def _candidates(self, here: Record, there: Record) -> Iterator[tuple[str, Change]]:
        a, b = self.a, self.b
        both = list(zip(place(here, a).members, place(there, b).members, strict=True))
        wide = [m.name for m, n in both if _depends_on_width(m.type, n.type, a, b)]
        strict = [m.name for m in here.members if m.bits is None and m.name and _stricter(m.type, a, b)]
        if wide:
            yield f"make {', '.join(wide)} __u64", lambda record: _widened(record, wide)
            all_aligned = list(dict.fromkeys([*wide, *strict]))
            yield (
                f"make {', '.join(all_aligned)} __aligned_u64",
                lambda record: _aligned(_widened(record, wide), all_aligned),
            )
            return
        missing = abs(place(here, a).measured.size - place(there, b).measured.size)
        if here.kind == "struct" and missing:
            yield f"add `__u8 pad[{missing}];` at the end", lambda record: _padded(record, missing)
        if strict:
            yield f"make {', '.join(strict)} __aligned_u64 (align to 8)", lambda record: _aligned(record, strict)
            yield f"move {', '.join(strict)} to the front", lambda record: _in_front(record, strict)
        yield "align the record: __attribute__((aligned(8)))", lambda record: replace(record, align=8, _layouts={})


def _records_in(record: Record) -> Iterator[Record]:
    # The records by value in this one, at any depth.
    for member in record.members:
        inner = member.type
        while isinstance(inner, Array | Aligned):
            inner = inner.of
        if isinstance(inner, Record):
            yield inner
            yield from _records_in(inner)


def _swapped(record: Record, swap: Mapping[int, Record]) -> Record:
    # The record with some of the records in it, by id, replaced.
    def made(old: Type) -> Type:
        if isinstance(old, Array | Aligned):
            new = made(old.of)
            return old if new is old.of else replace(old, of=new)
        if isinstance(old, Record):
            return swap[id(old)] if id(old) in swap else _swapped(old, swap)
        return old

    members = [m._replace(type=made(m.type)) for m in record.members]
    same = all(new.type is old.type for new, old in zip(members, record.members, strict=True))
    return record if same else _with_members(record, members)


def _stricter(ctype: Type, a: Abi, b: Abi) -> bool:
    return measure(ctype, a).align != measure(ctype, b).align


def _with_members(record: Record, members: list[Member]) -> Record:
    return replace(record, members=tuple(members), _layouts={})


def _padded(record: Record, count: int) -> Record:
    return _with_members(record, [*record.members, Member("pad", Array(SCALARS["unsigned char"], count))])


def _in_front(record: Record, names: list[str]) -> Record:
    return _with_members(record, sorted(record.members, key=lambda m: m.name not in names))


def _aligned(record: Record, names: list[str]) -> Record:
    def at_least_8(align: int | Later) -> int | Later:
        return max(align, 8) if isinstance(align, int) else align

    return _with_members(
        record, [m._replace(align=at_least_8(m.align)) if m.name in names else m for m in record.members]
    )


def _widened(record: Record, names: list[str]) -> Record:
    def made(old: Type) -> Type:
        if isinstance(old, Array):
            return Array(made(old.of), old.count)
        return SCALARS["unsigned long long"] if isinstance(old, Scalar | Pointer | Enum | Aligned) else old

    return _with_members(record, [m._replace(type=made(m.type)) if m.name in names else m for m in record.members])
