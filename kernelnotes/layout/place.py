"""Where a compiler puts the members of a record.

The rule of C is one sentence: place each member at the next multiple of its alignment; the record's alignment is its
strictest member's, and its size is rounded up to that.

    struct { u8 a; u32 b; u8 c; }      a 0..0   hole 1..3   b 4..7   c 8..8   padding 9..11

A *hole* lies between members, *padding* at the end.  All that differs between ABIs is the table in `abi` and the
rule for bit-fields, which C leaves open:

sysv    Let a bit-field of type T begin at the next free bit.  If it would then lie in more units of align(T) than T
        itself has, it moves to the next multiple of align(T).  It aligns the record as T would.  Width 0 moves to the
        next multiple of align(T), even in a packed record.  Packed, or under `#pragma pack`: no moving.
m68k    T does not matter: the next free bit, always.  Yet a bit-field that happens to fill a whole, aligned machine
        integer is laid out as one, and aligns the record.
ms      A bit-field joins the unit that the one before it opened, if both types have the same size and there is room;
        otherwise it opens a unit of its own, sizeof(T) bytes at align(T).  Width 0 closes an open unit, no more.

`aligned` only ever raises the alignment of a member; `packed` lowers it to 1 first; `#pragma pack(n)` caps the result.
A typedef with `aligned` can lower as well as raise, but not inside a packed record.  On Windows an alignment asked for
by attribute is *required*: packing does not lower it, and it is inherited by every record that contains the member.

Positions are bits from the start of the record: in little-endian from the least significant bit of byte 0, in
big-endian from the most significant.  With that the rules are the same for both.

Source: what gcc 12 and clang 22 do, measured (tests/test_layout.py); the code is in gcc/stor-layout.cc, place_field(),
update_alignment_for_field(), and clang/lib/AST/RecordLayoutBuilder.cpp.  Left out: `aligned` on a bit-field,
which compilers place differently (refused), C++, `ms_struct` on other systems, and layouts of more than one language.
"""

from __future__ import annotations

from typing import NamedTuple

from kernelnotes.abi import Abi
from kernelnotes.ctype import Aligned, Array, Enum, Later, Member, Number, Pointer, Record, Scalar, Type
from kernelnotes.errors import BadInput


class Placed(NamedTuple):
    """A member with its place.  `offset` and `size` are bytes; `bit_offset` is bits from the start of the record.

    `bit_width` is None for what is no bit-field.  For a bit-field `size` is that of its declared type, and `offset` the
    byte that holds its first bit.
    """

    name: str
    type: Type
    offset: int
    size: int
    bit_offset: int
    bit_width: int | None
    spelled: str


class Measured(NamedTuple):
    """Size and alignment of a type inside a struct, bytes; `required` is the part of it that attributes demand."""

    size: int
    align: int
    required: int


class Places(NamedTuple):
    """What the rules say of one record."""

    measured: Measured
    members: tuple[Placed, ...]


def number(value: Number, abi: Abi) -> int:
    """The value under this ABI."""
    return value.value(abi) if isinstance(value, Later) else value


def measure(ctype: Type, abi: Abi) -> Measured:
    """Size and alignment of any type inside a struct.  Raises BadInput where the ABI has no such type."""
    kind = ctype.__class__
    if kind is Scalar:
        try:
            return _measures(abi)[ctype.key]  # type: ignore[union-attr]
        except KeyError:
            raise BadInput(f"{abi.name} has no type {ctype}") from None
    if kind is Pointer:
        return _measures(abi)["void*"]
    if isinstance(ctype, Record):
        return place(ctype, abi).measured
    if isinstance(ctype, Array):
        return _measure_array(ctype, abi)
    if isinstance(ctype, Enum):
        odd = ctype.underlying or _is_odd(ctype, abi)
        return measure(enum_type(ctype, abi), abi) if odd else _measures(abi)["enum"]
    assert isinstance(ctype, Aligned)
    size, natural, required = measure(ctype.of, abi)
    asked = _alignment(ctype.align, abi)
    if abi.bit_fields == "ms":
        return Measured(size, natural, max(required, asked))
    return Measured(size, asked, asked)


def _measures(abi: Abi) -> dict[str, Measured]:
    # The scalars of an ABI, those of two parts included; made once.
    made = _MEASURES.get(abi)
    if made is None:
        made = {key: Measured(size, align, 1) for key, (size, align) in abi.scalars.items()}
        for key in ("float", "double", "long double"):
            made[f"_Complex {key}"] = made[key]._replace(size=2 * made[key].size)
        _MEASURES[abi] = made
    return made


_MEASURES: dict[Abi, dict[str, Measured]] = {}


def _measure_array(array: Array, abi: Abi) -> Measured:
    size, align, required = measure(array.of, abi)
    if abi.bit_fields == "ms" and isinstance(array.of, Aligned):
        align = required  # clang lets the typedef of an element lower it, that of a lone member not
    if array.count is None:
        return Measured(0, align, required)
    count = number(array.count, abi)
    if count < 0:
        raise BadInput(f"an array of {count} elements: {array}")
    if size % align:
        raise BadInput(f"{array}: an element is {size} bytes, not a multiple of its alignment {align}")
    return Measured(_possible(size * count, abi), align, required)


def _possible(size: int, abi: Abi) -> int:
    # No object is bigger than half of the addresses: a difference of two pointers into it must have a sign.
    if size >= 1 << (abi.pointer_bits - 1):
        raise BadInput(f"{size} bytes are more than an object can have on {abi.name}")
    return size


def _is_odd(enum: Enum, abi: Abi) -> bool:
    return enum.packed or not (number(enum.low, abi) >= -(2**31) and number(enum.high, abi) < 2**32)


def enum_type(enum: Enum, abi: Abi) -> Type:
    """The integer type that holds an enumeration: int if it can, long long if it must, the smallest if packed."""
    if enum.underlying:
        return enum.underlying
    low, high = number(enum.low, abi), number(enum.high, abi)
    sign, kind = ("", "signed") if low < 0 else ("unsigned ", "unsigned")
    if abi.bit_fields == "ms":
        return Scalar("int", "int", "signed")  # always, whatever the values
    for key in ("char", "short", "int", "long long") if enum.packed else ("int", "long long"):
        bits = 8 * abi.scalars[key][0]
        if (-(1 << (bits - 1)) <= low and high < 1 << (bits - 1)) if low < 0 else high < 1 << bits:
            return Scalar(f"{sign}{key}", key, kind)
    raise BadInput(f"{enum}: its values reach from {low} to {high}, more than any integer type holds")


def _alignment(asked: Number, abi: Abi) -> int:
    asked = number(asked, abi)
    if asked and (asked < 0 or asked & (asked - 1) or asked > 1 << 28):
        raise BadInput(f"an alignment of {asked} is not a power of two up to 2**28")
    return asked


def place(record: Record, abi: Abi) -> Places:
    """The place of every member of the record; worked out once per record and ABI.

    Members of an anonymous record appear where it stands, as C looks them up.
    Raises BadInput for what the ABI lacks or no compiler accepts.
    """
    known = record._layouts.get(abi)
    if known is None:
        try:
            known = _ms(record, abi) if abi.bit_fields == "ms" else _gnu(record, abi)
        except RecursionError:
            raise BadInput(f"{record}: nested too deeply") from None
        record._layouts[abi] = known
    return known


def _gnu(record: Record, abi: Abi) -> Places:
    # The rules "sysv" and "m68k".  Positions in bits, alignments in bytes.
    union, pack, record_packed = record.kind == "union", record.pack, record.packed
    strictest = 1 if record_packed else min(abi.least_align, pack or abi.least_align)
    m68k = abi.bit_fields == "m68k"
    end = position = 0
    placed: list[Placed] = []
    for member in record.members:
        name, ctype, bits, member_packed, member_align, spelled = member
        size, align, _ = measure(ctype, abi)
        packed = record_packed or member_packed
        if union:
            position = 0
        if bits is None:
            if packed:
                align = 1
            if member_align:
                align = max(align, _alignment(member_align, abi))
            if pack and pack < align:
                align = pack
            position += -position % (8 * align)
            if name:
                placed.append(Placed(name, ctype, position >> 3, size, position, None, spelled))
            else:
                _add(placed, member, position, size, None, abi)
            width = 8 * size
        else:
            width = bit_width(member, size, abi)
            if m68k:
                position, align = _m68k_bits(position, width, packed, pack, abi)
            else:
                if width == 0:
                    position += -position % (8 * align)
                elif pack:
                    align = min(align, pack)
                elif packed:
                    align = 1
                elif position % (8 * align) + width > 8 * size:
                    position += -position % (8 * align)
                if not name and not abi.unnamed_aligns:
                    align = 1
            _add(placed, member, position, size, width, abi)
        if align > strictest:
            strictest = align
        position += width
        if position > end:
            end = position
    asked = _alignment(record.align, abi)
    strictest = max(strictest, asked)
    size = -(-end // 8)
    size = _possible(size + -size % strictest, abi)
    return Places(Measured(size, strictest, asked or 1), tuple(placed))


def _m68k_bits(position: int, width: int, packed: bool, pack: int, abi: Abi) -> tuple[int, int]:
    # (position, alignment it gives the record)
    if width == 0:
        return position + -position % (8 * abi.zero_width_align), abi.zero_width_align
    if width not in (8, 16, 32, 64):
        return position, 1
    whole = min(width // 8, abi.biggest)  # the alignment of a machine integer of that width
    if position % (8 * whole) or (packed and whole > 1):
        return position, 1
    return position, min(whole, pack or whole)


def bit_width(member: Member, size: int, abi: Abi) -> int:
    """Width of a bit-field in bits.  Raises BadInput for one that C forbids."""
    assert member.bits is not None
    width = number(member.bits, abi)
    most = 1 if isinstance(member.type, Scalar) and member.type.kind == "bool" else 8 * size
    if width < 0 or width > most or (width == 0 and member.name):
        name, least = member.name or "(unnamed)", 1 if member.name else 0
        raise BadInput(f"bit-field {name} of type {member.type}: the width {width} is not in {least}..{most}")
    return width


def _add(placed: list[Placed], member: Member, position: int, size: int, width: int | None, abi: Abi) -> None:
    if member.name:
        placed.append(Placed(member.name, member.type, position // 8, size, position, width, member.spelled))
    elif width is None and isinstance(member.type, Record):
        for inner in place(member.type, abi).members:
            bit = position + inner.bit_offset
            placed.append(inner._replace(offset=bit // 8, bit_offset=bit))


def _ms(record: Record, abi: Abi) -> Places:
    # The rule "ms".  `end` in bytes; `unit`: the size of the open unit of bit-fields, `room` its free bits.
    union = record.kind == "union"
    pack = 1 if record.packed else record.pack if record.pack <= abi.pointer_bits // 8 else 0
    strictest, all_required = 1, 1 if abi.pointer_bits == 64 else 0
    end = unit = room = 0
    placed: list[Placed] = []
    for member in record.members:
        size, align, required = measure(member.type, abi)
        required = max(required, _alignment(member.align, abi))
        if pack:
            align = min(align, pack)
        if member.packed:
            align = 1
        if member.bits is None:
            if required > 1:
                all_required = max(all_required, required)
            align, unit = max(align, required), 0
            strictest = max(strictest, align)
            at = 0 if union else end + -end % align
            _add(placed, member, 8 * at, size, None, abi)
            end = max(end, at + size)
            continue
        width = bit_width(member, size, abi)
        if width and unit == size and width <= room and not union:
            _add(placed, member, 8 * end - room, size, width, abi)
            room -= width
            continue
        if width or unit:  # width 0 matters after a bit-field only
            at = 0 if union else end + -end % align
            _add(placed, member, 8 * at, size, width, abi)
            end = max(end, at + size) if width or union else at
            if not union:
                strictest = max(strictest, align)
            unit, room = (size, 8 * size - width) if width else (0, 0)
    end += -end % strictest
    asked = _alignment(record.align, abi)
    all_required = max(all_required, asked)
    if all_required:
        strictest = max(strictest, all_required)
        end += -end % max(min(strictest, pack or strictest), all_required)
    if end == 0:
        end = strictest if all_required >= abi.empty_size else abi.empty_size
    # A record that asks for an alignment itself is required to have all it got; one that contains such a member is not.
    required = strictest if asked else max(all_required, 1)
    return Places(Measured(_possible(end, abi), strictest, required), tuple(placed))
