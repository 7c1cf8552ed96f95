"""Pictures of the autofs story: the matrix, a pipe read step by step, and who told whom what.

Every function takes data (events, the DataFrame of `autofs.outcomes`, packets, messages) and gives an Output that a
cell shows, with its text alternative made of the same data.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from kernelnotes.autofs import PACKETS, Outcome
from kernelnotes.autofs.log import LANES, STEPS, Log
from kernelnotes.errors import BadInput
from kernelnotes.pipes import BytePipe, PacketPipe, Pipe
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.views.explorer import Explorer, Frame, explorer, play
from kernelnotes.views.output import Output, below, card, csv_link, show
from kernelnotes.views.style import GREY, INK, PALETTE, STRONG, figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from kernelnotes.recordings.stored import Transcript

# The matrix ---------------------------------------------------------------------------------------------------------

MATRIX_CSS = """
.kn-matrix{border-collapse:collapse;margin:0;font-size:.82rem;line-height:1.3;color:#1b1f24;min-width:29rem;width:100%}
.kn-matrix caption{caption-side:top;text-align:left;font-weight:600;color:#1b1f24;padding:0 0 .3rem}
.kn-matrix th,.kn-matrix td{padding:.25rem .4rem;border:1px solid #d0d7de;background:none;text-align:left;color:#1b1f24;
vertical-align:top;font-weight:400}
.kn-matrix th{font-weight:600}
.kn-matrix td.kn-ok{background:#d9f1e6}
.kn-matrix td.kn-bad{background:#fbe0d6}
.kn-matrix td b,.kn-matrix td small{display:block;white-space:nowrap}
.kn-matrix td small{font-size:.75rem}
.kn-log{margin:0;padding:0 0 0 1.6rem;font-size:.82rem;line-height:1.4;color:#1b1f24}
.kn-log li.kn-trouble{font-weight:600;color:#8a2b00}
.kn-card .kn-listing pre{background:#f6f8fa!important;color:#1b1f24!important;border:0;white-space:pre-wrap;
width:auto;overflow-wrap:anywhere}
.kn-log-head{font-size:.85rem;color:#1b1f24;margin:0 0 .3rem}
""".replace("\n", "")
COLUMNS = ("kernel", "reader", "mode", "schedule", "writes", "wants", "verdict", "answered", "late", "events")


def matrix(frame: pd.DataFrame, mode: str = "32-on-64", schedule: str = "sequential", caption: str = "") -> Output:
    """One mode of the matrix as a table, a row per kernel: verdict, bytes written and wanted, who of three was served.

    frame : as `autofs.outcomes` returns it; its `attrs` say where it comes from
    Raises BadInput for another frame, or one without such cells.
    """
    import pandas as pd

    drawn = matrix_frame(frame, mode, schedule)
    cells = _cells(frame, mode=mode, schedule=schedule)
    requests = [{name: " ".join(map(str, cell[name])) for name in ("answered", "late")} for cell in cells]
    data = pd.DataFrame([{**cell, **told} for cell, told in zip(cells, requests, strict=True)])[list(COLUMNS[:-1])]
    origin = frame.attrs.get("provenance", MODEL)
    table = card(str(drawn.picture), "The matrix")
    link = csv_link(data, caption or drawn.alt.partition(";")[0])
    body = f'<div class="kn-out">{table}<div class="kn-head">{below(caption, origin, link)}</div></div>'
    return Output(body, f"[matrix, {origin}] {drawn.alt}")


def matrix_frame(frame: pd.DataFrame, mode: str, schedule: str) -> Frame:
    """The same as a frame of an explorer, and the verdicts in words."""
    cells = _cells(frame, mode=mode, schedule=schedule)
    readers = list(dict.fromkeys(cell["reader"] for cell in cells))
    found = {(cell["kernel"], cell["reader"]): cell for cell in cells}
    rows, said = [], []
    for kernel in dict.fromkeys(cell["kernel"] for cell in cells):
        row = [found.get((kernel, reader)) for reader in readers]
        rows.append(f'<tr><th scope="row">{escape(kernel)}</th>{"".join(map(_cell, row))}</tr>')
        told = ", ".join(f"{cell['reader']} {cell['verdict']}" for cell in row if cell)
        said.append(f"{kernel}: {told}.")
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("kernel", *readers))
    how = "one after the other" if schedule == "sequential" else schedule
    caption = f"{mode}, three requests, {how}; bytes written → wanted"
    table = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    html = f'<style>{MATRIX_CSS}</style><table class="kn-matrix"><caption>{escape(caption)}</caption>{table}</table>'
    return Frame(html, f"{caption}. {' '.join(said)}")


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "<td>–</td>"
    well = cell["verdict"] == "ok"
    served = " ".join(
        f"{k}\u00a0{'late' if k in cell['late'] else '✓' if k in cell['answered'] else '✗'}" for k in range(1, 4)
    )
    return (
        f'<td class="kn-{"ok" if well else "bad"}"><b>{"✓" if well else "✗"} {escape(cell["verdict"])}</b>'
        f"<small>{cell['writes']} → {cell['wants']}</small><small>{served}</small></td>"
    )


def _cells(frame: pd.DataFrame, **wanted: str) -> list[Mapping[str, Any]]:
    # The rows in which all of `wanted` is so.
    if missing := [name for name in COLUMNS if name not in getattr(frame, "columns", ())]:
        raise BadInput(f"expected a DataFrame as autofs.outcomes returns it, this one lacks {', '.join(missing)}")
    rows: list[dict[Any, Any]] = frame.to_dict("records")
    cells: list[Mapping[str, Any]] = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    if not cells:
        raise BadInput(f"no cell with {', '.join(f'{key} {value}' for key, value in wanted.items())}")
    return cells


def matrices(frame: pd.DataFrame, title: str = "Six kernels, four readers") -> Explorer:
    """The matrix with a control for the mode and, if there are several, for the schedule.  Raises as `matrix` does."""
    _cells(frame)
    modes, schedules = (list(dict.fromkeys(frame[name])) for name in ("mode", "schedule"))
    modes = sorted(modes, key=lambda name: name != "32-on-64")

    def draw(mode: str, requests: str = schedules[0]) -> Frame:
        return matrix_frame(frame, mode, requests)

    labels = {"one after the other" if name == "sequential" else name: name for name in schedules}
    axes: dict[str, Any] = {"mode": modes} | ({"requests": labels} if len(schedules) > 1 else {})
    still = [{"mode": mode} for mode in modes]
    return explorer(draw, title=title, provenance=frame.attrs.get("provenance", MODEL), still=still, **axes)


def cell_log(frame: pd.DataFrame, mode: str = "32-on-64", schedule: str = "sequential", title: str = "") -> Explorer:
    """What happened in each cell, event by event, to be chosen by kernel and reader.  Raises as `matrix` does."""
    cells = {(cell["kernel"], cell["reader"]): cell for cell in _cells(frame, mode=mode, schedule=schedule)}
    kernels, readers = (list(dict.fromkeys(pair[k] for pair in cells)) for k in (0, 1))

    def draw(kernel: str, reader: str) -> Frame:
        return _draw_log(cells[kernel, reader])

    worst = [pair for pair in cells if cells[pair]["verdict"] != "ok"][:3] or list(cells)[:1]
    return explorer(
        draw,
        title=title or f"What happened in a cell, {mode}",
        provenance=frame.attrs.get("provenance", MODEL),
        kernel={name: name for name in kernels},
        reader={name: name for name in readers},
        still=[{"kernel": kernel, "reader": reader} for kernel, reader in worst],
    )


def story(outcome: Outcome) -> Output:
    """What happened in one cell, event by event."""
    drawn = _draw_log(outcome.as_dict())
    head = f"{outcome.reader} on {outcome.kernel}, {outcome.mode}"
    return show(str(drawn.picture), drawn.alt, outcome.provenance, head)


def _draw_log(cell: Mapping[str, Any]) -> Frame:
    lines = [_told(event) for event in cell["events"]]
    head = f"{cell['verdict']}: the kernel writes {cell['writes']} bytes, the daemon wants {cell['wants']}"
    if left := [str(k) for k in cell["hangs"]]:
        lines.append((f"Nobody answers {'process' if len(left) == 1 else 'processes'} {' and '.join(left)}.", True))
    items = "".join(f"<li{' class=kn-trouble' if bad else ''}>{escape(words)}</li>" for words, bad in lines)
    html = f'<style>{MATRIX_CSS}</style><p class="kn-log-head"><b>{escape(head)}</b></p><ol class="kn-log">{items}</ol>'
    return Frame(html, f"{head}. " + " ".join(words for words, _ in lines))


def _told(event: Mapping[str, Any]) -> tuple[str, bool]:
    """An event of the matrix in words, and whether it is a trouble."""
    kind, token, got, want = (event[key] for key in ("kind", "token", "got", "want"))
    if kind == "asks":
        return f"Process {token} asks; the kernel writes {got} bytes with the token {token}.", False
    if kind == "refused":
        return f"Process {token} asks; nobody reads any more, so it gets an error.", True
    if kind == "packet":
        known = next((kind.name for kind in PACKETS.values() if kind.number == event["type"]), "no such type")
        told = f"The daemon has {got} bytes: protocol {event['proto']}, type {event['type']} ({known}), token {token}. "
        if event["wakes"]:
            return f"{told}READY wakes process {event['wakes']}.", event["proto"] != 5
        return f"{told}READY gives EINVAL: nobody waits under that token.", True
    if kind == "short":
        return f"A read gave too little: {got} of {want} bytes. The daemon asks for the rest.", True
    if kind == "dies":
        return f"A read gave too little: {got} of {want} bytes. The daemon gives up.", True
    middle = f" in the middle of a packet, with {got} of {want} bytes" if got else ""
    return f"The pipe is empty; the daemon waits{middle}.", bool(got)


# A pipe, step by step -----------------------------------------------------------------------------------------------

LETTERS = "ABCDEFGH"
GROUNDS = ("#cfe4f3", "#fdebc8", "#cdebe0", "#f3dcea", "#e2e2f6", "#f7f3b5", "#e6e6e6", "#fbd9d0")
PIPE_CSS = """
.kn-pipe{font-size:.82rem;line-height:1.35;color:#1b1f24;min-width:20rem}
.kn-pipe p{margin:.1rem 0 .35rem;font-weight:600;min-height:2.7em}
.kn-pipe dl{display:grid;grid-template-columns:5.2rem 1fr;gap:.25rem .5rem;margin:0 0 .5rem;align-items:center}
.kn-pipe dt{font-weight:400;margin:0}
.kn-pipe dd{margin:0;display:flex;gap:3px;min-height:1.7rem;align-items:stretch}
.kn-pipe .kn-buffer{display:flex;border:1px solid #57606a;border-radius:3px;min-width:min-content}
.kn-pipe .kn-bytes-of{padding:.1rem .2rem;text-align:center;box-sizing:border-box;white-space:nowrap;
border-left:1px solid #57606a;min-width:2.6rem}
.kn-pipe .kn-bytes-of:first-child{border-left:0}
.kn-pipe .kn-thrown{text-decoration:line-through}
.kn-pipe .kn-none{color:#57606a;align-self:center}
.kn-pipe table{border-collapse:collapse;width:100%;margin:0;font-size:.8rem}
.kn-pipe caption{caption-side:top;text-align:left;font-weight:600;color:#1b1f24;padding:0}
.kn-pipe th,.kn-pipe td{text-align:left;padding:.05rem .4rem .05rem 0;border:0;border-bottom:1px solid #d0d7de;
background:none;font-weight:400;color:#1b1f24;overflow-wrap:anywhere}
.kn-pipe tr.kn-wrong td,.kn-pipe tr.kn-wrong th{background:#fbe3d3;font-weight:600}
""".replace("\n", "")


class Piece(NamedTuple):
    """Consecutive bytes of one packet: its number from 0, the first byte's place in it, how many there are."""

    packet: int
    first: int
    size: int

    @property
    def letter(self) -> str:
        """How the packet is called in the picture."""
        return LETTERS[self.packet]

    def __str__(self) -> str:
        return f"{self.size} of {self.letter}"


class Step(NamedTuple):
    """A pipe after one call: what the call took and threw away, and what is left, slot by slot."""

    call: str
    asked: int = 0  # bytes, of a read
    taken: tuple[Piece, ...] = ()
    thrown: tuple[Piece, ...] = ()
    left: tuple[tuple[Piece, ...], ...] = ()
    reads: int = 0  # so far, this one included
    data: bytes = b""

    def words(self) -> str:
        """The step in a sentence or two."""
        left = sum(piece.size for slot in self.left for piece in slot)
        if not self.asked:
            return f"{self.call}: {left} bytes in the pipe."
        if not self.taken:
            return f"{self.call}: the pipe is empty, the daemon waits."
        short = f" {self.asked - len(self.data)} bytes are missing: it waits for more." if self.short else ""
        thrown = f", {_listed(self.thrown)} thrown away" if self.thrown else ""
        return f"{self.call}: {_listed(self.taken)} taken{thrown}, {left} bytes left.{short}"

    @property
    def short(self) -> bool:
        """Whether the read got less than it asked for."""
        return len(self.data) < self.asked


class Reading(NamedTuple):
    """A way to read: which pipe, how many bytes of each packet the kernel writes, how many the daemon asks for."""

    pipe: type[Pipe]
    written: int
    asked: int


READINGS: Mapping[str, Reading] = {
    "plain pipe, 304 written, 300 asked for": Reading(BytePipe, 304, 300),
    "plain pipe, 300 written, 304 asked for": Reading(BytePipe, 300, 304),
    "packet pipe, 304 written, 300 asked for": Reading(PacketPipe, 304, 300),
    "packet pipe, 304 written, 304 asked for": Reading(PacketPipe, 304, 304),
}


def film(packets: Sequence[bytes], reading: Reading) -> list[Step]:
    """Every packet written into a pipe, then a read more than there are packets.  `Pipe` does what is shown.

    Raises BadInput for no packets, more than there are letters, or packets shorter than what is to be written.
    """
    if not 1 <= len(packets) <= len(LETTERS) or min(map(len, packets)) < reading.written:
        raise BadInput(f"expected 1 to {len(LETTERS)} packets of at least {reading.written} bytes")
    pipe = reading.pipe()
    steps = [Step("Nothing is written yet")]
    for k, packet in enumerate(packets):
        pipe.write(packet[: reading.written])
        steps.append(Step(f"write({reading.written}) of packet {LETTERS[k]}", left=_left(pipe, 0, reading.written)))
    for reads in range(1, len(packets) + 2):
        call = f"read({reading.asked})"
        try:
            got = pipe.take(reading.asked)
        except BlockingIOError:
            steps.append(Step(call, reading.asked, reads=reads))
            continue
        middle = got.at + len(got.data)
        taken = _pieces(got.at, len(got.data), reading.written)
        thrown = _pieces(middle, len(got.thrown), reading.written)
        left = _left(pipe, middle + len(got.thrown), reading.written)
        steps.append(Step(call, reading.asked, taken, thrown, left, reads, got.data))
    return steps


def _pieces(start: int, count: int, size: int) -> tuple[Piece, ...]:
    # Bytes start to start + count of all that was written, cut where packets of `size` bytes meet.
    pieces = []
    while count > 0:
        packet, first = divmod(start, size)
        pieces.append(Piece(packet, first, min(count, size - first)))
        start, count = start + pieces[-1].size, count - pieces[-1].size
    return tuple(pieces)


def _left(pipe: Pipe, gone: int, size: int) -> tuple[tuple[Piece, ...], ...]:
    # The slots still to be read; the last byte of the last one is the last that was written.
    slots, start = [], gone
    for slot in pipe.slots:
        slots.append(_pieces(start, len(slot.data), size))
        start += len(slot.data)
    return tuple(slots)


def _listed(pieces: Iterable[Piece]) -> str:
    return " and ".join(map(str, pieces)) or "nothing"


def pipe_stepper(
    packets: Sequence[bytes],
    readings: Mapping[str, Reading] = READINGS,
    title: str = "A pipe, read step by step",
    provenance: Provenance = MODEL,
) -> Explorer:
    """Packets written into a pipe and read again, a call at a time; below it the struct that the daemon then has.

    packets : as a 64-bit kernel writes them, 304 bytes each
    readings : {label: Reading} to choose from, at least two
    provenance : of the packets; what the pipe does with them is a model
    Raises BadInput as `film` does.
    """
    films = {label: film(packets, reading) for label, reading in readings.items()}

    def draw(pipe: str, step: int) -> Frame:
        return _draw_step(films[pipe][step], packets)

    last = 2 * len(packets) + 1
    second = len(packets) + 2
    return explorer(
        draw,
        title=title,
        provenance=MODEL.joined(provenance),
        pipe={label: label for label in films},
        step=play(range(last + 1), seconds=2),
        still=[{"pipe": label, "step": second} for label in films],
    )


def _draw_step(step: Step, packets: Sequence[bytes]) -> Frame:
    slots = "".join(_buffer(slot) for slot in step.left) or '<span class="kn-none">empty</span>'
    rows = [("in the pipe", slots)]
    if step.asked:
        rows += [("taken", _buffer(step.taken)), ("thrown away", _buffer(step.thrown, thrown=True))]
    bars = "".join(f"<dt>{name}</dt><dd>{bar}</dd>" for name, bar in rows)
    table, wrong = _decoded(step, packets) if step.data else ("", "")
    body = f'<div class="kn-pipe"><p>{escape(step.words())}</p><dl>{bars}</dl>{table}</div>'
    return Frame(f"<style>{PIPE_CSS}</style>{body}", f"{step.words()} {wrong}".strip())


def _buffer(pieces: Sequence[Piece], thrown: bool = False) -> str:
    # As wide as its bytes are many, but wide enough for the words.
    if not pieces:
        return '<span class="kn-none">nothing</span>'
    cells = "".join(
        f'<span class="kn-bytes-of{" kn-thrown" if thrown else ""}" '
        f'style="flex:{piece.size} 1 auto;background:{GROUNDS[piece.packet]}">{piece.size}\u00a0{piece.letter}</span>'
        for piece in pieces
    )
    return f'<span class="kn-buffer" style="flex:0 1 {sum(piece.size for piece in pieces) / 9.5:.0f}%">{cells}</span>'


class Field(NamedTuple):
    """A member of the packet as a daemon finds it: its value, what it was in the packet meant, whose bytes it has."""

    name: str
    meant: str
    found: str
    bytes_of: str

    @property
    def wrong(self) -> bool:
        """Whether the daemon is misled."""
        return self.found != self.meant


def decoded(step: Step, packets: Sequence[bytes]) -> list[Field]:
    """The struct that a 32-bit daemon has after a read, member by member, beside the packet that it should be.

    The first read should give the first packet, and so on; members of which no byte came are left out.
    """
    packet = PACKETS["missing_indirect"].layout("i386")
    meant = packets[step.reads - 1] if step.reads <= len(packets) else b""
    fields = []
    for member in packet.paths():
        end = member.offset + member.size
        if member.name == "hdr" or member.offset >= len(step.data):
            continue
        found = _value(member.name, step.data[member.offset : end])
        should = _value(member.name, meant[member.offset : end]) if meant else "no packet"
        fields.append(Field(member.name.rpartition(".")[2], should, found, _sources(step, member.offset, end)))
    return fields


def _value(name: str, data: bytes) -> str:
    if name == "name":
        return repr(data.partition(b"\0")[0])[1:]
    number = int.from_bytes(data, "little")
    kind = next((kind.name for kind in PACKETS.values() if kind.number == number), "no type")
    return f"{number} ({kind})" if name.endswith("type") else f"{number}"


def _sources(step: Step, start: int, end: int) -> str:
    # Which bytes of which packet stand at start to end of what was read.
    at, told = 0, []
    for piece in step.taken:
        low, high = max(start, at), min(end, at + piece.size)
        if low < high:
            told.append(f"{piece.letter} {piece.first + low - at}\u2013{piece.first + high - at - 1}")
        at += piece.size
    return ", ".join(told)


def _breaking(text: str) -> str:
    # Long names may break behind an underscore.
    return escape(text).replace("_", "_<wbr>")


def _decoded(step: Step, packets: Sequence[bytes]) -> tuple[str, str]:
    """The table of the members, and in words which of them are wrong."""
    fields = decoded(step, packets)
    wrong = [field for field in fields if field.wrong]
    rows = "".join(
        f"<tr{' class=kn-wrong' if field.wrong else ''}>"
        f'<th scope="row">{"≠ " if field.wrong else ""}{_breaking(field.name)}</th>'
        f"<td>{_breaking(field.meant)}</td><td>{_breaking(field.found)}</td><td>{field.bytes_of}</td></tr>"
        for field in fields
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("member", "should be", "daemon finds", "bytes"))
    caption = f"What the daemon takes for packet {step.reads}; ≠ marks what is wrong"
    said = ", ".join(f"{field.name} {field.found} instead of {field.meant}" for field in wrong)
    return (
        f"<table><caption>{caption}</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>",
        f"The daemon finds {said}." if wrong else "Every member is right.",
    )


# Who told whom what -------------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """One arrow of a sequence diagram: seconds since the start, from whom, to whom (or to itself: a note), words."""

    at: float
    sender: str
    receiver: str
    words: str
    trouble: bool = False


def sequence(
    messages: Sequence[Message], actors: Sequence[str], provenance: Provenance = MODEL, caption: str = ""
) -> Output:
    """Who told whom what, from top to bottom, each with its time in milliseconds; troubles in another colour, dashed.

    Raises BadInput where nothing was said, or somebody speaks who is not among the actors.
    """
    if unknown := {name for m in messages for name in (m.sender, m.receiver)} - set(actors):
        raise BadInput(f"sequence: {', '.join(sorted(unknown))} not among the actors {', '.join(actors)}")
    if not messages:
        raise BadInput("sequence: no messages, expected at least one")
    place = {name: 1.0 + k * (9.0 / max(1, len(actors) - 1)) for k, name in enumerate(actors)}
    wrapped = ["\n".join(textwrap.wrap(m.words, 34)) for m in messages]
    heights = [0.75 + 0.62 * (words.count("\n") + 1) for words in wrapped]
    total = sum(heights) + 0.6
    drawn, axes = figure(height=0.8 + 0.24 * total)
    with style():
        axes.set(xlim=(-1.1, 11), ylim=(total, -1.4))
        axes.axis("off")
        for name, x in place.items():
            axes.plot([x, x], [-0.3, total], color=GREY, linewidth=1)
            axes.text(x, -0.8, name, ha="center", va="center", weight="bold", color=INK)
        below = 0.0
        for message, words, height in zip(messages, wrapped, heights, strict=True):
            below += height
            _arrow(axes, message, words, place, below - 0.2)
    said = [f"{1000 * m.at:.0f} ms, {m.sender} to {m.receiver}: {m.words}" for m in messages]
    return show(drawn, f"Sequence between {', '.join(actors)}. " + "; ".join(said) + ".", provenance, caption)


def _arrow(axes: Axes, message: Message, words: str, place: Mapping[str, float], y: float) -> None:
    start, end = place[message.sender], place[message.receiver]
    colour = STRONG if message.trouble else PALETTE["blue"]
    axes.text(-1.1, y, f"{1000 * message.at:,.0f} ms", va="center", color=GREY, size=9)
    if start == end:
        last = start == max(place.values())
        axes.plot(start, y, "o", color=colour, markersize=5)
        shift, align = (-6, "right") if last else (6, "left")
    else:
        line = "--" if message.trouble else "-"
        axes.annotate(
            "", (end, y), (start, y), arrowprops={"arrowstyle": "-|>", "color": colour, "linestyle": line, "lw": 1.4}
        )
        shift, align = 0, "center"
    axes.annotate(
        words,
        ((start + end) / 2, y),
        xytext=(shift, 3 if start != end else 0),
        textcoords="offset points",
        ha=align,
        va="bottom" if start != end else "center",
        color=STRONG if message.trouble else INK,
        size=9.5,
        linespacing=1.1,
    )


def conversation(log: Log, caption: str = "") -> Output:
    """The log of an automounter as a sequence diagram, with the process that asks in a lane of its own.

    That it looks a name up, and goes on, the daemon does not see: the kernel's packet, and READY or FAIL, imply it.
    """
    messages = []
    asked = set()  # tokens of those who wait; an expiry has a token too, and nobody waits for it
    for event in log.events:
        step = STEPS[event.what]
        name = event.name.rpartition("/")[2]
        token = f", token {event.token}" if event.token else ""
        if event.what == "missing":
            asked.add(event.token)
            messages.append(Message(event.at, LANES[0], LANES[1], f"process {event.pid} looks up {name}"))
        trouble = event.what in ("fail", "refused")
        messages.append(Message(event.at, step.sender, step.receiver, f"{event.what} {name}{token}".strip(), trouble))
        if event.what in ("ready", "fail") and event.token in asked:
            found = f"finds {name}" if event.what == "ready" else "ENOENT"
            messages.append(Message(event.at, LANES[1], LANES[0], found, trouble))
    return sequence(messages, LANES, log.provenance, caption)


def transcripts(several: Mapping[str, Transcript], title: str) -> Explorer:
    """What a terminal showed in several runs, to be chosen by label; each with the command that made it.

    The mark of the whole names what is common to the commands.  Raises BadInput for fewer than two.
    """
    if len(several) < 2:
        raise BadInput(f"transcripts: {len(several)} given, expected at least 2")

    def draw(run: str) -> Frame:
        one = several[run]
        words = f'<p class="kn-log-head"><b>{escape(one.provenance.command)}</b></p>'
        text = f'<div class="kn-listing"><pre>{escape(one.text)}</pre></div>'
        return Frame(f"<style>{MATRIX_CSS}</style>{words}{text}", f"{one.provenance.command}. It printed: {one.text}")

    first = next(iter(several.values())).provenance
    columns = zip(*(one.provenance.command for one in several.values()), strict=False)
    common = "".join(letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, columns))
    origin = Provenance(first.kind, first.kernel, common.rstrip(" ,") or first.command, first.date)
    labels = {label: label for label in several}
    still = [{"run": label} for label in list(labels)[:3]]
    return explorer(draw, title=title, provenance=origin, run=labels, still=still)
