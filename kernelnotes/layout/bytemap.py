"""A layout as a map of its bytes, an HTML table that every notebook shows.

    byte    +0   +1   +2   +3   +4   +5   +6   +7
       0    [        dev       ][      hole      ]       a cell per member, hole and padding
       8    [                 ino                ]
      16    [        … 240 more bytes of name    ]       rows that would look alike, in one
     256    [bits][   padding, 7 bytes          ]
     256 bits [ x ][  y  ][        hole         ]       a row per byte that several bit-fields share

Members that share bytes, in a union, have rows of their own, `or`.  However big the record is, the table is not.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from html import escape
from itertools import groupby
from typing import NamedTuple

from kernelnotes.layout import CACHE_LINE, Layout
from kernelnotes.layout.place import Placed

WIDTH = 8  # bytes in a row, and bits in a row of bits
MOST_ROWS = 160  # of one map: task_struct has a few hundred members
MOST_LANES = 24  # members of a union that are drawn
MOST_LETTERS = 60  # of a name or a type: C allows any number
TINTS = ("#cfe4f3", "#fdebc8", "#cdebe0", "#f3dcea", "#e2e2f6", "#f7f3b5")  # light Okabe-Ito, in turn

# Cells bring their own light ground and dark ink, so they read the same on light and on dark pages.
CSS = (
    """
.kn-maps{display:flex;flex-wrap:wrap;gap:.8rem 1.6rem}
.kn-maps>div{flex:1 1 17rem;min-width:0}
.kn-bytes{border-collapse:collapse;table-layout:fixed!important;width:100%!important;max-width:36rem;margin:0;font-size:.8rem;
line-height:1.25;font-variant-numeric:tabular-nums;color:inherit}
.kn-bytes caption{caption-side:top;text-align:left;font-weight:600;color:inherit;padding:.1rem 0 .3rem}
.kn-bytes col.kn-at{width:3rem}
.kn-bytes th,.kn-bytes td{padding:.15rem .1rem;border:0;background:none;text-align:center;font-weight:400;
overflow-wrap:anywhere;vertical-align:middle}
.kn-bytes tr th:first-child{text-align:right;padding-right:.4rem;font-size:.75rem}
.kn-bytes td[class]{border:1px solid #57606a;color:#1b1f24;height:1.9rem}
.kn-bytes td b{font-size:.76rem}
.kn-bytes td small{display:block;font-size:.72rem}
.kn-bytes td.kn-hole,.kn-bytes td.kn-padding{background:repeating-linear-gradient(45deg,#fff 0 5px,#8c959f 5px 7px)}
.kn-bytes td span{background:#fff;color:#1b1f24;padding:0 .25em;border-radius:.3em;display:inline-block;
max-width:calc(100% - 14px);font-size:.72rem;box-sizing:border-box}
.kn-bytes td.kn-bits{border-style:dashed;background:#fff;font-size:.72rem}
.kn-bytes td.kn-differs{box-shadow:inset 0 0 0 2px #b34700}
.kn-bytes tr th.kn-wide{font-size:.72rem;text-align:left;padding:0 0 0 .5rem}
.kn-bytes tr th.kn-line{border-top:2px dashed currentColor}
"""
    + "".join(f".kn-bytes td.kn-tint{k}{{background:{tint}}}\n" for k, tint in enumerate(TINTS))
).replace("\n", "")


class Run(NamedTuple):
    """Consecutive bits with one owner.  `kind` is "member", "hole" or "padding"; `end` is the bit after the last.

    `lane` counts members that share bits: in a union each has a lane of its own.
    """

    kind: str
    name: str
    type: str
    start: int
    end: int
    lane: int = 0
    tint: int = 0

    @property
    def place(self) -> tuple[str, str, int, int]:
        """What must be the same on two ABIs that agree about it."""
        return self.kind, self.name, self.start, self.end


def runs(layout: Layout) -> list[Run]:
    """Every bit of the record once, in order, as member, hole or padding; members that share bits, in further lanes."""
    found: list[Run] = []
    busy: list[tuple[int, int]] = []  # a heap of (bit from which it is free, lane)
    free: list[int] = []  # a heap of lanes, since the first free one is taken
    for k, member in enumerate(sorted(layout.members, key=lambda m: (m.bit_offset, -_end(m)))):
        start, end = member.bit_offset, _end(member)  # the same for a flexible array: a place, but no bytes
        while busy and busy[0][0] <= start:
            heappush(free, heappop(busy)[1])
        lane = heappop(free) if free else len(busy)
        heappush(busy, (end, lane))
        bits = "" if member.bit_width is None else f":{member.bit_width}"
        written = f"{member.spelled or member.type}{bits}"
        found.append(Run("member", member.name, written, start, end, lane, k % len(TINTS)))
    found += [Run("hole", "hole", "", hole.bit_offset, hole.bit_offset + hole.bits) for hole in layout.holes]
    if layout.padding:
        found.append(Run("padding", "padding", "", 8 * (layout.size - layout.padding), 8 * layout.size))
    return sorted(found, key=lambda run: (run.lane, run.start))


def _end(member: Placed) -> int:
    return member.bit_offset + (8 * member.size if member.bit_width is None else member.bit_width)


def table(layout: Layout, alike: Collection[object] | None = None, note: str = "") -> str:
    """The map as HTML; `CSS` gives it its looks.

    A record of more than `MOST_ROWS` rows is cut, which a row says.  With `alike`, every run whose `place` is not in it
    is marked as different.  `note` ends the caption.
    """
    return _Map(layout, alike).table(note)


class _Map:
    # The table of one layout, row by row.
    def __init__(self, layout: Layout, alike: Collection[object] | None) -> None:
        every = runs(layout)
        self.layout, self.alike = layout, alike
        self.lanes = [list(lane) for _, lane in groupby(every, key=lambda run: run.lane)][:MOST_LANES]
        self.hidden = sum(run.lane >= MOST_LANES for run in every)
        self.edges = {edge for lane in self.lanes for run in lane for edge in (run.start, run.end)}
        self.split = sorted({edge // 8 for edge in self.edges if edge % 8})  # bytes that are drawn bit by bit
        self.bits = [[_Piece(run.start, run.end, run) for run in lane] for lane in self.lanes]
        self.bytes = [list(_whole_bytes(lane, self.split)) for lane in self.lanes]

    def table(self, note: str) -> str:
        layout = self.layout
        size = f"{layout.size} byte{'s' * (layout.size != 1)}, alignment {layout.align}"
        words = f"{_cut(str(layout.record))} on {_cut(layout.abi.name)}: {size}{note}"
        columns = "".join(f'<th scope="col">+{k}</th>' for k in range(WIDTH))
        return (
            f'<table class="kn-bytes"><caption>{escape(words)}</caption>'
            f'<colgroup><col class="kn-at"><col span="{WIDTH}"></colgroup>'
            f'<thead><tr><th scope="col">byte</th>{columns}</tr></thead>'
            f"<tbody>{''.join(self.rows())}</tbody></table>"
        )

    def rows(self) -> Iterator[str]:
        # Only rows in which something begins or ends are drawn, however many bytes lie between.
        wanted = sorted({place // (8 * WIDTH) for edge in self.edges for place in (edge, edge - 1)})
        wanted = [row for row in wanted if 0 <= row * WIDTH < self.layout.size]
        most, done = MOST_ROWS // max(1, len(self.lanes)), 0
        for row in wanted[:most]:
            if row - done > 2:
                yield self.alike_rows(done * WIDTH, row * WIDTH)
                done = row
            for one in range(done, row + 1):
                yield from self.row(one * WIDTH)
            done = row + 1
        if wanted[most:]:
            yield self.rest(done * WIDTH)
        if self.split:
            first = "least" if self.layout.abi.endian == "little" else "most"
            yield _wide(f"rows of bits: +0 is the {first} significant bit")
        if self.hidden:
            yield _wide(f"{self.hidden} more members share these bytes")

    def row(self, at: int) -> Iterator[str]:
        # One row of bytes in every lane, and below it a row for each byte that has to be drawn bit by bit.
        if at and at % CACHE_LINE == 0:
            yield _wide(f"cache line {at // CACHE_LINE}", "kn-wide kn-line")
        yield from self.lines(f"{at}", self.bytes, 8 * at, 8)
        for byte in self.split[bisect_left(self.split, at) : bisect_left(self.split, at + WIDTH)]:
            yield from self.lines(f"{byte} bits", self.bits, 8 * byte, 1)

    def lines(self, head: str, lanes: list[list[_Piece]], start: int, unit: int) -> Iterator[str]:
        for pieces in lanes:
            if cells := "".join(self.cells(pieces, start, unit)):
                yield f'<tr><th scope="row">{head}</th>{cells}</tr>'
                head = "or"

    def cells(self, pieces: list[_Piece], start: int, unit: int) -> Iterator[str]:
        # What lies in 8 units from bit `start`: bytes (unit 8) or bits (unit 1).
        at, stop = start, start + WIDTH * unit
        for k in range(max(0, bisect_right(pieces, start, key=lambda piece: piece.start) - 1), len(pieces)):
            first, last = max(pieces[k].start, start), min(pieces[k].end, stop)
            if first >= stop:
                break
            if first < last:
                yield _blank(first - at, unit) + self.cell(pieces[k].run, first, last, unit)
                at = last
        if start < at < stop:
            yield _blank(stop - at, unit)

    def cell(self, run: Run | None, first: int, last: int, unit: int) -> str:
        width = (last - first) // unit
        if run is None:
            return f'<td class="kn-bits" colspan="{width}">bits</td>'
        css, name, begins = _css(run), _breakable(run.name), first == run.start
        if self.alike is not None and run.place not in self.alike:
            css, name = f"{css} kn-differs", f'<abbr title="differs">≠</abbr> {name}'
        if run.kind != "member":
            inner = f"<span>{name}{', ' + _amount(run.end - run.start) if begins else ''}</span>"
        elif begins:
            inner = f"<b>{name}</b>" + (f"<small>{_breakable(run.type)}</small>" if width > 2 else "")
        else:
            inner = f"… {name}"
        return f'<td class="{css}" colspan="{width}">{inner}</td>'

    def alike_rows(self, start: int, end: int) -> str:
        # The rows from byte `start` to byte `end`, in none of which anything begins or ends.
        inside = [run for lane in self.lanes for run in lane if run.start < 8 * end and 8 * start < run.end]
        names = escape(", ".join(_cut(run.name) for run in inside[:5]))
        lines = range(-(-start // CACHE_LINE), -(-end // CACHE_LINE))
        crossed = f"; cache line {lines[0]} begins at {CACHE_LINE * lines[0]}" if len(lines) == 1 else ""
        crossed = f"; cache lines {lines[0]} to {lines[-1]} begin in it" if len(lines) > 1 else crossed
        words = f"… {end - start:,} more bytes of {names}{crossed}"
        plain = inside[0].kind == "member"
        return _one_cell(start, _css(inside[0]), words if plain else f"<span>{words}</span>")

    def rest(self, start: int) -> str:
        # What a big record has after the last row drawn.
        later = sum(run.kind == "member" and run.start >= 8 * start for lane in self.lanes for run in lane)
        words = f"… {self.layout.size - start:,} more bytes with {later:,} more members; print() shows all"
        return _one_cell(start, "kn-bits", words)


class _Piece(NamedTuple):
    start: int
    end: int
    run: Run | None  # None: a byte that is drawn bit by bit, below


def _whole_bytes(lane: list[Run], split: list[int]) -> Iterator[_Piece]:
    # The runs of a lane without the bytes that are drawn bit by bit, and those bytes.
    drawn = -1
    for run in lane:
        at = run.start
        for byte in split[bisect_left(split, run.start // 8) : bisect_left(split, -(-run.end // 8))]:
            if at < 8 * byte:
                yield _Piece(at, 8 * byte, run)
            if byte > drawn:
                yield _Piece(8 * byte, 8 * byte + 8, None)
            drawn, at = byte, 8 * byte + 8
        if at < run.end:
            yield _Piece(at, run.end, run)


def _css(run: Run) -> str:
    return f"kn-tint{run.tint}" if run.kind == "member" else f"kn-{run.kind}"


def _amount(bits: int) -> str:
    count, unit = (bits, "bit") if bits % 8 else (bits // 8, "byte")
    return f"{count:,} {unit}{'s' * (count != 1)}"


def _blank(bits: int, unit: int) -> str:
    return f'<td colspan="{bits // unit}"></td>' if bits else ""


def _one_cell(start: int, css: str, words: str) -> str:
    cell = f'<td class="{css}" colspan="{WIDTH}">{words}</td>'
    return f'<tr><th scope="row">{start}</th>{cell}</tr>'


def _wide(words: str, css: str = "kn-wide") -> str:
    return f'<tr><th scope="row" class="{css}" colspan="{WIDTH + 1}">{words}</th></tr>'


def _breakable(text: str) -> str:
    # HTML that a narrow cell breaks behind an underscore rather than anywhere.
    return re.sub(r"(?<=[a-z0-9])_(?=[a-z0-9])", "_<wbr>", escape(_cut(text)))


def _cut(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
