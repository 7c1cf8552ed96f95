"""The attributes that BTF drops, found again from what they did.

BTF says where a member is, not why.  Mostly the rules of `layout` put it there by themselves; where they do not, the
source said something that BTF left out, and the offset tells what:

    earlier than its type is aligned         packed
    later than that, at a multiple of 2**k   aligned(2**k)
    a bit-field behind a gap                 an unnamed bit-field
    the record longer than its members need  aligned, on the record

`explained` proposes such a declaration and lets the rules place it: only one that reproduces every offset counts.  It
need not be the source's own: `aligned(8)` on a member that lies at a multiple of 8 anyhow leaves no trace here, though
it does on i386.  pahole prints its guesses in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kernelnotes.abi import Abi
from kernelnotes.ctype import SCALARS, Member, Record
from kernelnotes.errors import BadInput
from kernelnotes.layout.place import Measured, Placed, Places, bit_width, measure, place

POWERS = tuple(1 << power for power in range(17))  # bytes; the kernel asks for up to some pages
LIKELY_FIRST = (64, *POWERS)  # most often for a cache line; a smaller power may give the same offset
MOST_UNNAMED = 64  # bytes in unnamed bit-fields; a longer gap is left unexplained


def explained(plain: Record, bits: Sequence[int], size: int, members: tuple[Placed, ...], abi: Abi) -> Record:
    """The record with attributes under which the rules give these members and this size in bytes.

    `bits` is where each member as declared begins.  The numbers are kept with the record as its layout on `abi`, also
    where no attributes explain them.
    """
    for proposed in _proposals(plain, bits, abi):
        try:
            measured, found = place(proposed, abi)
            if found == members and measured.size != size:
                proposed = _lengthened(proposed, measured, size)
                measured = place(proposed, abi).measured
        except BadInput:  # nothing a compiler takes
            continue
        if found == members and measured.size == size:
            return proposed
    natural = max((measure(member.type, abi).align for member in plain.members), default=1)
    align = natural if size % natural == 0 else size & -size
    plain._layouts[abi] = Places(Measured(size, align, 1), members)
    return plain


def _proposals(plain: Record, bits: Sequence[int], abi: Abi) -> Iterator[Record]:
    yield replace(plain, _layouts={})
    for packed in (False, True):
        for powers in (LIKELY_FIRST, POWERS):
            members = tuple(_attributed(plain, bits, packed, powers, abi))
            yield replace(plain, members=members, packed=packed, _layouts={})


def _attributed(record: Record, bits: Sequence[int], packed: bool, powers: Sequence[int], abi: Abi) -> Iterator[Member]:
    # The members, each with what puts it where it is, behind the one before.
    end = 0
    for member, bit in zip(record.members, bits, strict=True):
        size, align, _ = measure(member.type, abi)
        if record.kind == "union":
            end = 0
        if member.bits is None:
            yield from _aligned(member, end, bit, 1 if packed else align, powers)
            end = bit + 8 * size
        else:
            width = bit_width(member, size, abi)
            fits = packed or end % (8 * align) + width <= 8 * size
            if bit > (end if fits else _up(end, align)):
                yield from _unnamed(end, bit)
            crosses = bit % (8 * align) + width > 8 * size
            yield member._replace(packed=crosses and not packed)
            end = bit + width


def _up(bit: int, align: int) -> int:
    return bit + -bit % (8 * align)


def _aligned(member: Member, end: int, bit: int, align: int, powers: Sequence[int]) -> Iterator[Member]:
    # `align` is what the rules would give it.
    if bit == _up(end, align):
        yield member
        return
    lower = bit % (8 * align) != 0
    asked = next((power for power in powers if _up(end, power) == bit), 0)
    if not asked:
        yield from _unnamed(end, bit)
    yield member._replace(packed=lower, align=asked if asked > 1 else 0)


def _unnamed(start: int, end: int) -> Iterator[Member]:
    # None of them crosses a boundary of 64 bits: there the rules would move it.
    while start < end <= start + 8 * MOST_UNNAMED:
        width = min(end - start, 64 - start % 64)
        yield Member("", SCALARS["unsigned long long"], width)
        start += width


def _lengthened(record: Record, short: Measured, size: int) -> Record:
    # Aligned, or else with unnamed bits at its end.
    powers = (power for power in LIKELY_FIRST if power > short.align and short.size + -short.size % power == size)
    if asked := next(powers, 0):
        return replace(record, align=asked, _layouts={})
    return replace(record, members=(*record.members, *_unnamed(8 * short.size, 8 * size)), _layouts={})
