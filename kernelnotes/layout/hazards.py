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
from itertools import chain, count
from typing import TYPE_CHECKING, NamedTuple

from kernelnotes.abi import Abi, find
from kernelnotes.ctype import SCALARS, Aligned, Array, Later, Member, Number, Pointer, Record, Scalar, Type
from kernelnotes.errors import BadInput
from kernelnotes.layout.place import measure, number, place

if TYPE_CHECKING:
    import pandas as pd

    from kernelnotes.cdecl.ioctl import Ioctl

DEFINITION, IOCTL = "definition differs", "ioctl number changed"
KINDS = ("tail padding", "interior shift", "nested record", "width-dependent", DEFINITION, IOCTL)


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

    >>> records = cdecl.parse("struct foo { __u32 a; __u64 b; };")
    >>> layout.hazards(records, "i386", "x86-64")[["record", "kind", "sizes"]].to_dict("records")
    [{'record': 'struct foo', 'kind': 'interior shift', 'sizes': (12, 16)}]
    """
    import pandas as pd

    for given in (records, {} if other is None else other):
        if not isinstance(given, Mapping):
            raise BadInput(f"expected records by name, as cdecl.parse returns them, got {type(given).__name__}")
    a, b = find(abi_a), find(abi_b)
    found = compared(pairs(records, other), a, b, both_have(records, other))
    return pd.DataFrame(found, columns=list(Hazard._fields))


def pairs(records: Mapping[str, Record], other: Mapping[str, Record] | None) -> list[Pair]:
    """The records that both ABIs have."""
    there = records if other is None else other
    return [Pair(name, record, there[name]) for name, record in records.items() if name in there.keys()]  # noqa: SIM118


def compared(found: Iterable[Pair], a: Abi, b: Abi, ioctls: Iterable[tuple[str, Ioctl, Ioctl]] = ()) -> list[Hazard]:
    """The hazards among records and ioctls, their mends tried in all records given.

    An ioctl is its name and what each ABI knows of it.
    """
    mender = _Mender(list(found), a, b)
    hazards_found = [hazard for pair in mender.pairs if (hazard := _hazard(pair, mender))]
    return hazards_found + [hazard for ioctl in ioctls if (hazard := _ioctl(*ioctl, mender))]


def _hazard(pair: Pair, mender: _Mender) -> Hazard | None:
    try:
        difference = differs(pair, mender.a, mender.b)
    except BadInput:
        return None
    if difference is None:
        return None
    return Hazard(pair.name, pair.here.where, *difference, mender.text(pair) if difference[0] != DEFINITION else "")


def both_have(records: Mapping[str, Record], other: Mapping[str, Record] | None) -> list[tuple[str, Ioctl, Ioctl]]:
    """The ioctls that both ABIs know, as `compared` takes them."""
    here: dict[str, Ioctl] = getattr(records, "ioctls", {})
    there: dict[str, Ioctl] = here if other is None else getattr(other, "ioctls", {})
    return [(name, here[name], there[name]) for name in here if name in there]


def _ioctl(name: str, here: Ioctl, there: Ioctl, mender: _Mender) -> Hazard | None:
    # One whose number changes with its argument; an architecture that numbers all of them otherwise is no hazard.
    a, b = mender.a, mender.b
    try:
        numbers = number(here.number, a), number(there.number, b)
    except BadInput:
        return None
    if numbers[0] == numbers[1] or a.ioctl != b.ioctl:
        return None
    bits = (1 << a.ioctl.size_bits) - 1
    sizes = numbers[0] >> 16 & bits, numbers[1] >> 16 & bits
    mend = mender.mend_named(here.argument) if here.argument else "give its argument a type of one size"
    return Hazard(name, here.where, IOCTL, sizes, [here.argument] if here.argument else [], mend, numbers)


def differs(pair: Pair, a: Abi, b: Abi) -> tuple[str, tuple[int, int], list[str]] | None:
    """Kind, sizes and members; None where the ABIs agree.  Raises BadInput where one cannot have the record."""
    here, there = place(pair.here, a), place(pair.there, b)
    sizes = here.measured.size, there.measured.size
    if [m.name for m in here.members] != [m.name for m in there.members]:
        return DEFINITION, sizes, []
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
    # Does a scalar in the type, the length of an array or the width of a bit-field differ?
    try:
        return _widths(one, a, {}) != _widths(two, b, {})
    except RecursionError:
        raise BadInput(f"{one}: nested too deeply") from None


def _widths(ctype: Type, abi: Abi, known: dict[int, int]) -> object:
    # All that decides a layout but alignment: of a record a summary, worked out once however often it is contained.
    if isinstance(ctype, Array):
        return _widths(ctype.of, abi, known), None if ctype.count is None else number(ctype.count, abi)
    if isinstance(ctype, Aligned):
        return _widths(ctype.of, abi, known)
    if not isinstance(ctype, Record):
        return measure(ctype, abi).size
    if id(ctype) not in known:
        parts = tuple((_widths(m.type, abi, known), m.bits and number(m.bits, abi)) for m in ctype.members)
        known[id(ctype)] = hash(parts)
    return known[id(ctype)]


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
        self._by_record = {id(record): pair for pair in found for record in (pair.here, pair.there)}
        self._by_place = {(pair.name, pair.here.where): pair for pair in found}
        self._by_name = {pair.name: pair for pair in found}
        self._mends: dict[int, _Mend] = {}
        self._inside: dict[int, dict[int, Record]] = {}
        self._containing: dict[int, list[Pair]] | None = None

    def mend(self, pair: Pair) -> _Mend:
        """How to make both ABIs place the record alike, the records in it having been mended before."""
        found = self._mends.get(id(pair.here))
        if found is None:
            found = self._mends[id(pair.here)] = self._find(pair)
        return found

    def text(self, pair: Pair) -> str:
        """What to do about the record; "" too where it is nested so deeply that there is no telling."""
        try:
            return self.mend(pair).text
        except RecursionError:
            return ""

    def mend_named(self, name: str) -> str:
        """What to do about the record of an ioctl: mend it, if there is a mend."""
        pair = self._by_name.get(name)
        return f"mend {name}" if pair and self._may_differ(pair) and self.text(pair) else ""

    def _find(self, pair: Pair) -> _Mend:
        inner = self._mended_inside(pair.here)
        here = _swapped(pair.here, {key: self.mend(p).here for key, p in inner.items()})
        there = _swapped(pair.there, {key: self.mend(p).there for key, p in self._mended_inside(pair.there).items()})
        names = ", ".join(dict.fromkeys(p.name for p in inner.values()))
        if names and self._agree(here, there):
            return _Mend(f"mend {names}", here, there)
        for text, change in self._candidates(here, there):
            one, two = change(here), change(there)
            if self._agree(one, two) and self._agree_outside(pair, one, two):
                return _Mend(f"{text}, after mending {names}" if names else text, one, two)
        return _Mend("", here, there)

    def _mended_inside(self, record: Record) -> dict[int, Pair]:
        # The nearest records in this one, by id, that have a name, a difference and a mend for it.
        found: dict[int, Pair] = {}
        todo, seen = [record], {id(record)}
        while todo:
            for inner in _members_that_are_records(todo.pop()):
                pair = self._pair_of(inner)
                if pair and id(inner) not in found and self._may_differ(pair) and self.mend(pair).text:
                    found[id(inner)] = pair
                elif not pair and id(inner) not in seen:
                    seen.add(id(inner))
                    todo.append(inner)
        return found

    def _pair_of(self, record: Record) -> Pair | None:
        # Where a name it uses meant something else, a header has given the same record twice.
        return self._by_record.get(id(record)) or self._by_place.get((str(record), record.where))

    def _records_in(self, record: Record) -> dict[int, Record]:
        # The records by value in this one, at any depth, by id.
        if id(record) not in self._inside:
            found = self._inside[id(record)] = {}
            for inner in _members_that_are_records(record):
                if id(inner) not in found:
                    found |= {id(inner): inner} | self._records_in(inner)
        return self._inside[id(record)]

    def _may_differ(self, pair: Pair) -> bool:
        try:
            found = differs(pair, self.a, self.b)
        except BadInput:
            return False
        return found is not None and found[0] != DEFINITION

    def _agree(self, here: Record, there: Record) -> bool:
        # A record that one of the ABIs cannot have agrees with nothing.
        try:
            return differs(Pair("", here, there), self.a, self.b) is None
        except BadInput:
            return False

    def _agree_outside(self, pair: Pair, here: Record, there: Record) -> bool:
        # Does the mend hold wherever the record is contained?  It does if even its alignment is the same.
        if measure(here, self.a).align == measure(there, self.b).align:
            return True
        if self._containing is None:
            self._containing = {}
            for outer in self.pairs:
                for inner in self._records_in(outer.here):
                    self._containing.setdefault(inner, []).append(outer)
        swap = {id(pair.here): here, id(pair.there): there}
        outside = [outer for outer in self._containing.get(id(pair.here), []) if self._both_have(outer)]
        return all(self._agree(_swapped(outer.here, swap), _swapped(outer.there, swap)) for outer in outside)

    def _both_have(self, pair: Pair) -> bool:
        try:
            return bool(place(pair.here, self.a) and place(pair.there, self.b))
        except BadInput:
            return False

    def _candidates(self, here: Record, there: Record) -> Iterator[tuple[str, Change]]:
        a, b = self.a, self.b
        both = list(zip(place(here, a).members, place(there, b).members, strict=True))
        named = {m.name: m for m in here.members if m.bits is None and m.name}
        wide = [m.name for m, n in both if _depends_on_width(m.type, n.type, a, b)]
        types = {m.name: (m.type, n.type) for m, n in both}
        strict = [n for n in named if measure(types[n][0], a).align != measure(types[n][1], b).align]
        if wide:
            wider = {name: _wider(named[name].type) for name in wide if name in named}
            if len(wider) == len(wide) and all(wider.values()):
                spelled = {name: f"__{_sign(one)}64" for name, one in wider.items() if one}
                yield _make(spelled), lambda record: _retyped(record, wider)
                both_ = list(dict.fromkeys([*wide, *strict]))
                yield _aligning(here, both_, wider), lambda record: _aligned(_retyped(record, wider), both_)
            return
        open_ended = bool(here.members) and _is_flexible(here.members[-1])
        missing = abs(place(here, a).measured.size - place(there, b).measured.size)
        if here.kind == "struct" and missing and not open_ended:
            pad = _free_name({m.name for m, _ in both})
            yield f"add `__u8 {pad}[{missing}];` at the end", lambda record: _padded(record, pad, missing)
        if strict:
            yield _aligning(here, strict, {}), lambda record: _aligned(record, strict)
        if strict and not any(_is_flexible(named[name]) for name in strict):
            yield f"move {', '.join(strict)} to the front", lambda record: _in_front(record, strict)
        yield "align the record: __attribute__((aligned(8)))", _record_aligned


def _aligning(record: Record, names: list[str], wider: Mapping[str, Type | None]) -> str:
    # "make a __aligned_u64" for what is, or becomes, a 64-bit integer; else the attribute itself, which alone counts
    # where something is packed.
    members = {member.name: member for member in record.members}
    types = {name: wider.get(name) or members[name].type for name in names}
    packed = {name for name in names if record.packed or members[name].packed}
    integers = {n: f"__aligned_{_sign(t)}64" for n, t in types.items() if _is_64_bit(t) and n not in packed}
    integers |= {name: f"__{_sign(types[name])}64" for name in names if name in packed and name in wider}
    rest = [name for name in names if not integers.get(name, "").startswith("__aligned")]
    what = [_make(integers) + ("" if wider else " (align to 8)")] if integers else []
    return ", ".join(what + ([f"add __attribute__((aligned(8))) to {', '.join(rest)}"] if rest else []))


def _members_that_are_records(record: Record) -> Iterator[Record]:
    for member in record.members:
        element = _element(member.type)
        if isinstance(element, Record):
            yield element


def _free_name(taken: set[str]) -> str:
    return next(name for name in chain(["pad"], map("pad{}".format, count(2))) if name not in taken)


def _make(spelled: Mapping[str, str]) -> str:
    # "make a, b __u64 and c __s64"
    groups: dict[str, list[str]] = {}
    for name, spelling in spelled.items():
        groups.setdefault(spelling, []).append(name)
    return "make " + " and ".join(f"{', '.join(names)} {spelling}" for spelling, names in groups.items())


def _element(ctype: Type) -> Type:
    while isinstance(ctype, Array | Aligned):
        ctype = ctype.of
    return ctype


def _sign(ctype: Type) -> str:
    element = _element(ctype)
    return "s" if isinstance(element, Scalar) and element.kind == "signed" else "u"


def _is_64_bit(ctype: Type) -> bool:
    element = _element(ctype)
    return isinstance(element, Scalar) and element.key == "long long" and not isinstance(ctype, Aligned)


def _is_flexible(member: Member) -> bool:
    inner = member.type
    if isinstance(inner, Array) and inner.count is None:
        return True
    element = _element(inner)
    return isinstance(element, Record) and bool(element.members) and _is_flexible(element.members[-1])


def _wider(ctype: Type) -> Type | None:
    # The same, of 64-bit integers in place of longs and pointers; None for what has none: floating point, records, and
    # arrays whose length depends on the ABI.
    if isinstance(ctype, Array):
        of = _wider(ctype.of)
        return replace(ctype, of=of) if of and not isinstance(ctype.count, Later) else None
    if isinstance(ctype, Pointer):
        return SCALARS["unsigned long long"]
    if isinstance(ctype, Scalar) and ctype.kind in ("signed", "unsigned"):
        return SCALARS["long long" if ctype.kind == "signed" else "unsigned long long"]
    return None


def _swapped(record: Record, swap: Mapping[int, Record]) -> Record:
    # The record with some of the records in it, by id, replaced; each is looked at once.
    done: dict[int, Record] = dict(swap)

    def made(old: Type) -> Type:
        if isinstance(old, Array | Aligned):
            new = made(old.of)
            return old if new is old.of else replace(old, of=new)
        if isinstance(old, Record):
            if id(old) not in done:
                done[id(old)] = rebuilt(old)
            return done[id(old)]
        return old

    def rebuilt(old: Record) -> Record:
        members = [m._replace(type=made(m.type)) for m in old.members]
        same = all(new.type is was.type for new, was in zip(members, old.members, strict=True))
        return old if same else _with_members(old, members)

    return rebuilt(record)


def _with_members(record: Record, members: list[Member]) -> Record:
    return replace(record, members=tuple(members), _layouts={})


def _padded(record: Record, name: str, length: int) -> Record:
    return _with_members(record, [*record.members, Member(name, Array(SCALARS["unsigned char"], length))])


def _in_front(record: Record, names: list[str]) -> Record:
    chosen = set(names)
    return _with_members(record, sorted(record.members, key=lambda m: m.name not in chosen))


def _at_least_8(align: Number) -> Number:
    return max(align, 8) if isinstance(align, int) else align


def _record_aligned(record: Record) -> Record:
    return replace(record, align=_at_least_8(record.align), _layouts={})


def _aligned(record: Record, names: list[str]) -> Record:
    chosen = set(names)
    changed = [m._replace(align=_at_least_8(m.align)) if m.name in chosen else m for m in record.members]
    return _with_members(record, changed)


def _retyped(record: Record, types: Mapping[str, Type | None]) -> Record:
    return _with_members(record, [m._replace(type=types.get(m.name) or m.type) for m in record.members])
