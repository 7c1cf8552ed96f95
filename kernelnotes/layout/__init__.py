"""What a record looks like in memory, on any ABI.

place    where a compiler puts the members: the rules
codec    bytes to values and back
show     text and tables
bytemap  the bytes as a picture, in HTML
hazards  what changes between two ABIs, and the mend

>>> packet = autofs.records("i386")["struct autofs_v5_packet"]
>>> here = layout.layout(packet, "i386")
>>> here.size, here["ino"].offset, here.padding
(300, 16, 0)
>>> here.unpack(bytes([5]) + bytes(299))["hdr"]
{'proto_version': 5, 'type': 0}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from kernelnotes.abi import Abi, find
from kernelnotes.ctype import Aligned, Array, Record
from kernelnotes.errors import BadInput
from kernelnotes.layout import codec
from kernelnotes.layout.hazards import KINDS, hazards
from kernelnotes.layout.place import Measured, Placed, measure, place
from kernelnotes.provenance import MODEL, Provenance

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CACHE_LINE", "KINDS", "Hole", "Layout", "Measured", "Placed", "compare", "hazards", "layout", "measure"]

CACHE_LINE = 64  # bytes
MOST_PATHS = 1 << 16


class Hole(NamedTuple):
    """Bits that no named member uses, before the last byte that one does."""

    bit_offset: int
    bits: int

    @property
    def offset(self) -> int:
        """The byte of the first bit."""
        return self.bit_offset // 8


@dataclass(frozen=True, slots=True)
class Layout:
    """One record on one ABI.

    `size` and `align` are bytes; `members` are those C can name, in the order of declaration, the members of an
    anonymous record where it stands.  `layout["hdr.type"]` or `layout["a[2].x"]` finds members of members.
    """

    record: Record
    abi: Abi
    size: int
    align: int
    members: tuple[Placed, ...]
    provenance: Provenance = MODEL

    def _gaps(self) -> tuple[list[Hole], int]:
        # The holes, and the bit after the last one used.
        holes, end = [], 0
        for member in sorted(self.members, key=lambda m: m.bit_offset):
            if member.bit_offset > end:
                holes.append(Hole(end, member.bit_offset - end))
            end = max(end, member.bit_offset + (8 * member.size if member.bit_width is None else member.bit_width))
        if end % 8:
            holes.append(Hole(end, -end % 8))
        return holes, end

    @property
    def holes(self) -> tuple[Hole, ...]:
        """The holes between members, and the unused bits of the last byte; unnamed bit-fields are holes too."""
        return tuple(self._gaps()[0])

    @property
    def padding(self) -> int:
        """Bytes at the end that no member uses."""
        return self.size - -(-self._gaps()[1] // 8)

    def paths(self) -> Iterator[Placed]:
        """Every member and, behind it, the members of it, named by path; what lies in an array is left out.

        Raises BadInput for more than MOST_PATHS: of 30 records, each twice in the next, there are 2**30.
        """
        try:
            for count, path in enumerate(self._paths()):
                if count == MOST_PATHS:
                    raise BadInput(f"{self.record} has more than {MOST_PATHS} members of members")
                yield path
        except RecursionError:
            raise BadInput(f"{self.record}: nested too deeply") from None

    def _paths(self) -> Iterator[Placed]:
        for member in self.members:
            yield member
            inner = member.type
            while isinstance(inner, Aligned):
                inner = inner.of
            if isinstance(inner, Record):
                for part in layout(inner, self.abi)._paths():
                    yield _within(member, part, f"{member.name}.{part.name}")

    def __getitem__(self, path: str) -> Placed:
        """The member at the path.  Raises BadInput where there is none."""
        steps = re.findall(r"[^.\[\]]+|\[\d+\]", path) if isinstance(path, str) else []
        found = next((m for m in self.members if steps and m.name == steps[0]), None)
        for step in steps[1:]:
            found = self._step(found, step) if found else None
        if found is None:
            names = ", ".join(m.name for m in self.members[:20])
            raise BadInput(f"{self.record} has no member {path!r}; its members: {names}")
        return found._replace(name=path)

    def _step(self, member: Placed, step: str) -> Placed | None:
        inner = member.type
        while isinstance(inner, Aligned):
            inner = inner.of
        if step.startswith("[") and isinstance(inner, Array):
            size = measure(inner.of, self.abi).size
            offset = member.offset + int(step[1:-1]) * size
            if inner.count is not None and offset + size > member.offset + member.size:
                return None
            return Placed(member.name + step, inner.of, offset, size, 8 * offset, None, "")
        if isinstance(inner, Record):
            part = next((m for m in layout(inner, self.abi).members if m.name == step), None)
            return _within(member, part, step) if part else None
        return None

    def cache_lines(self, line: int = CACHE_LINE) -> dict[int, list[str]]:
        """The members that begin in each cache line, by the number of the line; the record begins a line."""
        lines: dict[int, list[str]] = {}
        for member in self.members:
            lines.setdefault(member.offset // line, []).append(member.name)
        return lines

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """The bytes of a record; see `codec.pack`."""
        return codec.pack(self.record, values, self.abi)

    def unpack(self, data: bytes) -> dict[str, Any]:
        """The members from exactly `size` bytes; see `codec.unpack`."""
        return codec.unpack(self.record, data, self.abi)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: record, abi, size, align, and every path of `paths` with its place."""
        keys = ("name", "offset", "size", "bit_offset", "bit_width")
        members = [{key: getattr(m, key) for key in keys} for m in self.paths()]
        return {
            "record": str(self.record),
            "abi": self.abi.name,
            "size": self.size,
            "align": self.align,
            "members": members,
            "holes": [{"bit_offset": hole.bit_offset, "bits": hole.bits} for hole in self.holes],
            "padding": self.padding,
        }

    def to_frame(self) -> pd.DataFrame:
        """A row per path: member, type, offset and size in bytes, bit_offset, bit_width."""
        from kernelnotes.layout import show

        return show.frame(self)

    def _repr_html_(self) -> str:
        """The bytes as a map, for notebooks."""
        from kernelnotes.layout import bytemap

        return f"<style>{bytemap.CSS}</style>{bytemap.table(self, note=f' ({self.provenance})')}"

    def __str__(self) -> str:
        """The record as C, with offset and size of every member, as pahole prints it."""
        from kernelnotes.layout import show

        return show.text(self)


def _within(outer: Placed, part: Placed, name: str) -> Placed:
    return part._replace(name=name, offset=outer.offset + part.offset, bit_offset=outer.bit_offset + part.bit_offset)


def layout(record: Record, abi: str | Abi) -> Layout:
    """Where the ABI places the members of the record.

    Raises BadInput for an unknown ABI, a type the ABI lacks, or what no compiler accepts.

    >>> foo = cdecl.parse("struct foo { __u32 a; __u64 b; };")["struct foo"]
    >>> made = layout.layout(foo, "x86-64")
    >>> made.size, made.align, made["b"].offset, made.holes
    (16, 8, 8, (Hole(bit_offset=32, bits=32),))
    """
    if not isinstance(record, Record):
        raise BadInput(f"expected a Record, as cdecl.parse returns them, got {type(record).__name__}")
    found = find(abi)
    (size, align, _), members = place(record, found)
    return Layout(record, found, size, align, members)


def compare(record: Record, abis: Iterable[str | Abi]) -> pd.DataFrame:
    """A row per member and one for the whole: its offset (in bits for bit-fields) and size on each ABI, side by side.

    Columns: member, then (offset, size) per ABI as `i386 offset`, `i386 size`, ..., and `differs`.

    >>> foo = cdecl.parse("struct foo { __u32 a; __u64 b; };")["struct foo"]
    >>> layout.compare(foo, ["i386", "x86-64"])["differs"].tolist()
    [False, True, True]
    """
    from kernelnotes.layout import show

    return show.comparison([layout(record, abi) for abi in abis])
