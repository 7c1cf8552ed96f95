"""Layouts as text and as tables."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kernelnotes.layout.place import Placed

if TYPE_CHECKING:
    import pandas as pd

    from kernelnotes.layout import Layout


def declared(member: Placed) -> str:
    """The member as C declares it."""
    if inside := re.match(r".*?\*[ a-z]*(?=[)[])", member.spelled):  # void (*name)(int)
        return f"{inside[0]}{' ' if inside[0][-1].isalpha() else ''}{member.name}{member.spelled[inside.end() :]};"
    written, bracket, dimensions = (member.spelled or str(member.type)).partition("[")
    bits = "" if member.bit_width is None else f":{member.bit_width}"
    return f"{written}{'' if written.endswith('*') else ' '}{member.name}{bracket}{dimensions}{bits};"


def text(layout: Layout) -> str:
    """The record as C; behind each member its offset and size in bytes, holes, padding and cache lines in between."""
    lines, line = [f"{layout.record} {{"], 0
    holes = deque(layout.holes)
    for member in sorted(layout.members, key=lambda m: m.bit_offset):
        if holes and holes[0].bit_offset < member.bit_offset:
            hole = holes.popleft()
            lines.append(f"\n\t/* XXX {_amount(hole.bits)} hole */\n")
        if member.offset // 64 > line:
            line = member.offset // 64
            lines.append(f"\t/* --- cacheline {line} boundary ({64 * line} bytes) --- */")
        place = f"{member.offset}" if member.bit_width is None else f"{member.offset}:{member.bit_offset % 8}"
        lines.append(f"\t{declared(member):<40} /* {place:>6} {member.size:>5} */")
    lines += [f"\n\t/* XXX {_amount(hole.bits)} unused */" for hole in holes]
    count = -(-layout.size // 64)
    lines.append(f"\n\t/* {layout.abi.name}: size: {layout.size}, align: {layout.align}, cachelines: {count} */")
    lines += [f"\t/* padding: {layout.padding} */"] if layout.padding else []
    return "\n".join([*lines, "};"])


def _amount(bits: int) -> str:
    return f"{bits // 8} bytes" if bits % 8 == 0 else f"{bits} bits"


def frame(layout: Layout) -> pd.DataFrame:
    """A row per path: member, type, offset and size in bytes, bit_offset, bit_width."""
    import pandas as pd

    rows = [(m.name, m.spelled or str(m.type), m.offset, m.size, m.bit_offset, m.bit_width) for m in layout.paths()]
    made = pd.DataFrame(rows, columns=["member", "type", "offset", "size", "bit_offset", "bit_width"])
    return made.astype({"bit_width": "Int64"})


def comparison(layouts: Sequence[Layout]) -> pd.DataFrame:
    """Layouts of one record side by side; the last row is the whole record, its offset empty."""
    import pandas as pd

    columns: dict[str, list[object]] = {"member": []}
    placed = [{m.name: m for m in one.paths()} for one in layouts]
    names = list(dict.fromkeys(name for members in placed for name in members))
    columns["member"] = [*names, str(layouts[0].record) if layouts else ""]
    differs = [len({_key(members.get(name)) for members in placed}) > 1 for name in names]
    for one, members in zip(layouts, placed, strict=True):
        columns[f"{one.abi.name} offset"] = [*(_offset(members.get(name)) for name in names), None]
        columns[f"{one.abi.name} size"] = [getattr(members.get(name), "size", None) for name in names] + [one.size]
    columns["differs"] = [*differs, len({(one.size, one.align) for one in layouts}) > 1]
    return pd.DataFrame(columns)


def _key(member: Placed | None) -> object:
    return member and (member.bit_offset, member.size, member.bit_width)


def _offset(member: Placed | None) -> float | None:
    # Bytes; a bit-field at bit 13 is at 1.625.
    return member.bit_offset / 8 if member else None
