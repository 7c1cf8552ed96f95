"""Pictures of connections: both streams to scale, packets in their order and in their time, and steps left out.

Every function takes what `kernelnotes.repair.scenes` tells, live or recorded, and gives an Output that a cell shows,
with its text alternative made of the same data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from kernelnotes.errors import BadInput
from kernelnotes.provenance import MODEL, Provenance
from kernelnotes.repair import spelling
from kernelnotes.repair.constants import TcpState
from kernelnotes.repair.scenes import (
    HERE,
    NEW,
    OLD,
    PEER,
    Done,
    Life,
    Mark,
    Move,
    Passed,
    Skipped,
    States,
    Steps,
    Trial,
)
from kernelnotes.repair.segment import Flags, relative, signed
from kernelnotes.repair.snapshot import Snapshot
from kernelnotes.repair.steps import Step, restore_steps
from kernelnotes.views.explorer import Explorer, Frame, explorer, play
from kernelnotes.views.output import Output, show, table, to_svg
from kernelnotes.views.style import GREY, INK, PALETTE, RULE, STRONG, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# ------------------------------------------------------------------------------------- both streams


class Part(NamedTuple):
    """A stretch of a stream: what it is, its first number and length (from where the stream begins), how it looks."""

    name: str
    start: int
    length: int
    colour: str
    hatch: str = ""


class Stream(NamedTuple):
    """One direction of a connection: its parts, and the numbers that lie between them, {number: names}."""

    name: str
    parts: tuple[Part, ...]
    numbers: dict[int, str]
    window: int  # where it ends

    @property
    def end(self) -> int:
        """Behind its last part."""
        return max(part.start + part.length for part in self.parts)


GONE, FIN = "#d0d7de", PALETTE["purple"]


def streams(s: Snapshot, origin: tuple[int, int] | None = None) -> tuple[Stream, Stream]:
    """What came in and what goes out, counted from `origin`: the numbers of the first byte received, of the first sent.

    By default the streams begin where the queues do.
    """
    first, second = origin or (s.copied_seq, s.send_start)

    def since(number: int, start: int) -> int:
        return signed(number - start)

    received = Stream(
        "received",
        (
            Part("read by the application", 0, since(s.copied_seq, first), GONE),
            Part("not read yet", since(s.copied_seq, first), len(s.recv_queue), PALETTE["sky"]),
            Part("FIN", since(s.recv_end, first), int(s.fin_received), FIN, "xx"),
        ),
        _named({name: since(getattr(s, name), first) for name in ("copied_seq", "recv_end", "rcv_nxt")}),
        since(s.window.rcv_wup, first) + s.window.rcv_wnd,
    )
    start = since(s.send_start, second)
    sent = Stream(
        "sent",
        (
            Part("acknowledged by the peer", 0, start, GONE),
            Part("sent, not acknowledged", start, len(s.send_queue) - s.unsent, PALETTE["orange"]),
            Part("never sent", since(s.unsent_seq, second), s.unsent, PALETTE["yellow"], "//"),
            Part("FIN", since(s.send_end, second), int(s.fin_queued), FIN, "xx"),
        ),
        _named({name: since(getattr(s, name), second) for name in ("snd_una", "unsent_seq", "send_end", "write_seq")}),
        since(s.snd_una, second) + s.window.snd_wnd,
    )
    return received, sent


def _named(numbers: Mapping[str, int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for name, number in numbers.items():
        found[number] = f"{found[number]} = {name}" if number in found else name
    return found


def connection(s: Snapshot, provenance: Provenance = MODEL, caption: str = "") -> Output:
    """Both streams of a connection, to one scale, with the numbers between their parts as the kernel has them."""
    return show(*_draw_connection(s, None), provenance, caption)


def _draw_connection(s: Snapshot, origin: tuple[int, int] | None, width: int = 0) -> tuple[Figure, str]:
    both = streams(s, origin)
    width = width or max(1000, *(stream.end for stream in both))
    drawn, axes = figure(height=3.3)
    fixed = (s.copied_seq, s.send_start) if origin is None else (0, 0)
    with style():
        left = -0.17 * width if origin is None else -0.02 * width
        axes.set(xlim=(left, 1.17 * width), ylim=(-1.15, 2.75))
        axes.axis("off")
        for stream, y, start in zip(both, (1.5, 0.0), fixed, strict=True):
            _draw_stream(axes, stream, y, start, width, origin is None)
        _legend(axes, both)
        axes.set_title(f"state {TcpState(s.state).name}")
    return drawn, f"State {TcpState(s.state).name}. {' '.join(map(_told_stream, both, fixed))}"


def _told_stream(stream: Stream, start: int) -> str:
    parts = ", ".join(
        "a FIN" if part.name == "FIN" else f"{part.length:,} bytes {part.name}" for part in stream.parts if part.length
    )
    numbers = ", ".join(f"{names} {(start + number) % 2**32:,}" for number, names in stream.numbers.items())
    return f"{stream.name.capitalize()}: {parts or 'nothing'}; {numbers}."


def _draw_stream(axes: Axes, stream: Stream, y: float, start: int, width: int, stub: bool) -> None:
    least = 0.006 * width  # what is there can be seen
    if stub:
        axes.barh(y, 0.12 * width, 0.42, left=-0.12 * width, color=GONE, edgecolor="white")
    for part in stream.parts:
        if part.length:
            long = max(part.length, least)
            axes.barh(y, long, 0.42, left=part.start, color=part.colour, hatch=part.hatch, edgecolor=INK, linewidth=0.5)
            if part.length > 0.09 * width:
                box = {"facecolor": "white", "alpha": 0.8, "pad": 1.2, "linewidth": 0}
                middle = part.start + long / 2
                axes.text(middle, y, f"{part.length:,}", ha="center", va="center", size=9.5, color=INK, bbox=box)
    right = 1.13 * width
    if stream.window > stream.end:
        end = min(right, stream.window)
        axes.plot([stream.end, end], [y + 0.21] * 2, [stream.end, end], [y - 0.21] * 2, color=GREY, lw=0.8, ls=":")
    axes.annotate("", (right, y), (stream.end, y), arrowprops={"arrowstyle": "->", "color": GREY, "lw": 1})
    axes.text(
        right, y - 0.34, f"window up to {(start + stream.window) % 2**32:,}", ha="right", va="top", size=9, color=GREY
    )
    axes.text(
        -0.12 * width if stub else 0, y - 0.34, stream.name, ha="left", va="top", size=10, weight="bold", color=INK
    )
    _draw_numbers(axes, stream, y, start, width)


def _draw_numbers(axes: Axes, stream: Stream, y: float, start: int, width: int) -> None:
    # Labels stand above their place, at the lowest height where they do not meet the last one.
    ends = [-width] * 4
    for number, names in sorted(stream.numbers.items()):
        text = f"{names} {(start + number) % 2**32:,}"
        long = 0.0148 * width * len(text)
        at = min(max(number - long / 2, -0.15 * width), 1.15 * width - long)
        level = next((k for k, end in enumerate(ends) if at > end + 0.01 * width), len(ends) - 1)
        ends[level] = int(at + long)
        above = y + 0.32 + 0.24 * level
        axes.plot([number, number], [y - 0.24, above], color=INK, lw=0.9)
        axes.text(at, above, text, va="bottom", ha="left", size=9, color=INK)


def _legend(axes: Axes, both: Sequence[Stream]) -> None:
    from matplotlib.patches import Patch

    seen = {
        part.name: Patch(facecolor=part.colour, hatch=part.hatch, edgecolor=INK, linewidth=0.5, label=part.name)
        for stream in both
        for part in stream.parts
    }
    axes.legend(handles=list(seen.values()), loc="lower left", ncols=3, fontsize=9, handlelength=1.4, columnspacing=1.2)


def life(told: Life, title: str = "A connection, event by event") -> Explorer:
    """The connection after each event; numbers count from the first byte of each stream."""
    first = told.moments[0].snapshot
    origin = first.copied_seq, first.send_start
    width = max(stream.end for moment in told.moments for stream in streams(moment.snapshot, origin))

    def draw(event: int) -> Frame:
        what, snapshot = told.moments[event]
        picture, alt = _draw_connection(snapshot, origin, width)
        heading = f'<p class="kn-event"><b>{event}.</b> {escape(what[0].upper() + what[1:])}.</p>'
        return Frame(f"<style>{CSS}</style>{heading}{to_svg(picture, alt)}", f"{event}. {what}. {alt}")

    events = range(len(told.moments))
    still = [{"event": k} for k in (0, len(events) // 2, len(events) - 1)]
    return explorer(draw, title=title, provenance=told.provenance, event=play(events, seconds=3), still=still)


CSS = """
.kn-event{margin:.1rem 0 .3rem;color:#1b1f24;font-size:.92rem;min-height:2.6em}
.kn-verdict{margin:.1rem 0 .3rem;color:#1b1f24;font-size:.92rem}
.kn-verdict b.kn-bad{color:#8a2b00}
.kn-calls{border-collapse:collapse;margin:.2rem 0 .4rem;font-size:.82rem;line-height:1.35;color:#1b1f24}
.kn-calls caption{caption-side:top;text-align:left;font-weight:600;color:#1b1f24;padding:0 0 .2rem}
.kn-calls th,.kn-calls td{padding:.12rem .7rem .12rem 0;border:0;border-bottom:1px solid #d0d7de;background:none;
text-align:left;vertical-align:top;color:#1b1f24;font-weight:400}
.kn-calls th{font-weight:600}
.kn-calls tr.kn-only td{background:#fdebc8}
.kn-calls code{color:#1b1f24;background:none;border:0;padding:0;font-size:.95em;overflow-wrap:anywhere}
""".replace("\n", "")


def _short(state: TcpState) -> str:
    return state.name.removeprefix("TCP_")


def states(told: States, title: str = "A connection in each state") -> Explorer:
    """Both streams in each state, to be chosen by name, and what became of it after a dump and restore."""
    found = {_short(one.snapshot.state): one for one in told.moved}

    def draw(state: str) -> Frame:
        one = found[state]
        picture, alt = _draw_connection(one.snapshot, None)
        words = (
            f"Restored: state {one.after}; {one.arrived:,} of {one.expected:,} bytes arrived at both ends together, "
            f"{'each in its place' if one.whole else 'not as they were written'}; {one.resets} resets."
        )
        html = f'<style>{CSS}</style><p class="kn-event">{escape(words)}</p>{to_svg(picture, alt)}'
        return Frame(html, f"{alt} {words}")

    still = [{"state": name} for name in list(found)[:3]]
    return explorer(draw, title=title, provenance=told.provenance, state={n: n for n in found}, still=still)


# ------------------------------------------------------------------------------------- steps


def calls(done: Sequence[Done], caption: str, provenance: Provenance) -> Output:
    """Steps as they were performed: what for, the call, what it gave."""
    import pandas as pd

    rows = [{"what for": one.what, "call": one.call, "result": one.result} for one in done]
    frame = pd.DataFrame(rows, index=range(1, len(rows) + 1)).rename_axis("step")
    return table(frame, caption, provenance)


def steps_by_state(told: States, title: str = "The steps of a restore") -> Explorer:
    """What `restore_steps` plans for the snapshot of each state; shaded are steps that ESTABLISHED does not have."""
    found = {_short(one.snapshot.state): one.snapshot for one in told.moved}
    usual = {step.what for step in restore_steps(_plain(found["ESTABLISHED"]))}

    def draw(state: str) -> Frame:
        steps = restore_steps(_plain(found[state]))
        rows = "".join(_row(k, step, step.what not in usual) for k, step in enumerate(steps, 1))
        only = [step.what for step in steps if step.what not in usual]
        heads = "<thead><tr><th scope=col>step</th><th scope=col>what for</th><th scope=col>call</th></tr></thead>"
        caption = f"{len(steps)} steps for {state}; ▸ marks what ESTABLISHED does not need"
        html = f'<table class="kn-calls"><caption>{caption}</caption>{heads}<tbody>{rows}</tbody></table>'
        words = ", ".join(only) or "nothing"
        return Frame(
            f"<style>{CSS}</style>{html}", f"{len(steps)} steps for {state}; beyond those of ESTABLISHED: {words}."
        )

    still = [{"state": name} for name in ("ESTABLISHED", "LAST_ACK") if name in found]
    origin = MODEL.joined(told.provenance)
    return explorer(draw, title=title, provenance=origin, state={n: n for n in found}, still=still)


def _plain(s: Snapshot) -> Snapshot:
    # Without what is the same in each state and would only lengthen the list.
    kept = {name: value for name, value in s.options.items() if name in ("SO_SNDBUF", "SO_RCVBUF")}
    return replace(s, options=kept)


def _row(k: int, step: Step, only: bool) -> str:
    what = f"{'▸ ' if only else ''}{escape(step.what)}"
    return (
        f"<tr{' class=kn-only' if only else ''}><td>{k}</td><td>{what}</td>"
        f"<td><code>{escape(spelling.call(step))}</code></td></tr>"
    )


def stages(told: Steps, caption: str = "What the peer saw in each stage") -> Output:
    """Which packets passed while which stage of the dump and restore was going on."""
    import pandas as pd

    rows = []
    ends = [mark.at for mark in told.marks[1:]] + [float("inf")]
    for mark, end in zip(told.marks, ends, strict=True):
        within = [p for p in told.packets if mark.at <= p.at < end]
        first = "; ".join(_words(p) for p in _relatively(within)[:2])
        rows.append({"stage": mark.what, "packets": len(within), "the first two": first or "none"})
    return table(pd.DataFrame(rows), caption, told.provenance, index=False)


# ------------------------------------------------------------------------------------- packets


def _relatively(packets: Sequence[Passed]) -> list[Passed]:
    changed = relative([p.segment for p in packets])
    return [p._replace(segment=segment) for p, segment in zip(packets, changed, strict=True)]


def _words(p: Passed) -> str:
    # A packet of `_relatively` in words.
    s = p.segment
    told = [str(s.flags), f"seq {signed(s.seq):,}"]
    if s.flags & Flags.ACK:
        told.append(f"ack {signed(s.ack):,}")
    if s.length:
        told.append(f"{s.length:,} bytes")
    if s.sack:
        told.append(f"SACK {signed(s.sack[0][0]):,} to {signed(s.sack[0][1]):,}")
    return f"{p.sender} to {p.receiver}: {', '.join(told)}"


Event = Passed | Mark


def events(packets: Sequence[Passed], marks: Sequence[Mark]) -> list[Event]:
    """Packets, numbered from the first of each direction, and what was done, in the order of time."""
    return sorted([*_relatively(packets), *marks], key=lambda event: event.at)


def in_words(event: Event) -> str:
    """An event of `events`, in words."""
    return event.what if isinstance(event, Mark) else _words(event)


def _milliseconds(event: Event) -> str:
    return f"{1000 * event.at:,.3f} ms"


def sequence(
    packets: Sequence[Passed],
    marks: Sequence[Mark],
    actors: Sequence[str],
    provenance: Provenance = MODEL,
    caption: str = "",
    most: int = 24,
) -> Output:
    """The packets between hosts from top to bottom, each with its time, and what was done in between.

    Numbers count from the first packet of each direction.  Raises BadInput where there is nothing to show.
    """
    every = events(packets, marks)[:most]
    if not every:
        raise BadInput("sequence: no packets and no marks, expected at least one")
    drawn = _draw_ladder(every, actors, None)
    said = "; ".join(f"{_milliseconds(event)}, {in_words(event)}" for event in every)
    return show(drawn, f"Packets between {', '.join(actors)}. {said}.", provenance, caption)


def packet_film(
    packets: Sequence[Passed],
    marks: Sequence[Mark],
    actors: Sequence[str],
    title: str,
    provenance: Provenance = MODEL,
    seen: int = 9,
) -> Explorer:
    """The same, an event at a time, with those before and after it."""
    every = events(packets, marks)
    if len(every) < 2:
        raise BadInput(f"packet_film: {len(every)} events, expected at least 2")

    def draw(event: int) -> Frame:
        first = max(0, min(event - seen // 2, len(every) - seen))
        picture = _draw_ladder(every[first : first + seen], actors, event - first)
        return Frame(picture, f"{_milliseconds(every[event])}: {in_words(every[event])}.")

    still = [{"event": min(seen // 2 + k * seen, len(every) - 1)} for k in range(min(3, -(-len(every) // seen)))]
    distinct = [dict(one) for one in dict.fromkeys(tuple(one.items()) for one in still)]
    axis = play(range(len(every)), seconds=1.2)
    return explorer(draw, title=title, provenance=provenance, event=axis, still=distinct)


def _draw_ladder(every: Sequence[Event], actors: Sequence[str], now: int | None) -> Figure:
    place = {name: 2.3 + k * (7.7 / max(1, len(actors) - 1)) for k, name in enumerate(actors)}
    drawn, axes = figure(height=0.75 + 0.34 * len(every))
    with style():
        axes.set(xlim=(0, 10.8), ylim=(len(every) - 0.3, -1.4))
        axes.axis("off")
        for name, x in place.items():
            axes.plot([x, x], [-0.75, len(every) - 0.4], color=RULE, linewidth=1.4)
            axes.text(x, -1.05, name, ha="center", va="center", weight="bold", color=INK)
        for y, event in enumerate(every):
            _draw_event(axes, event, place, y, now is None or y == now)
    return drawn


def _draw_event(axes: Axes, event: Event, place: Mapping[str, float], y: int, now: bool) -> None:
    weight = "bold" if now and len(place) and not isinstance(event, Mark) else "normal"
    axes.text(0, y, _milliseconds(event), va="center", size=9, color=INK if now else GREY)
    if isinstance(event, Mark):
        axes.axhspan(y - 0.42, y + 0.42, xmin=0.19, xmax=0.99, color="#fdebc8", linewidth=0)
        axes.text(6.15, y, event.what, ha="center", va="center", size=9.5, color=INK)
        return
    start, end = place[event.sender], place[event.receiver]
    trouble = Flags.RST in event.segment.flags
    colour = STRONG if trouble else PALETTE["blue"] if now else PALETTE["sky"]
    axes.annotate(
        "", (end, y + 0.25), (start, y + 0.25), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2 if now else 1}
    )
    text = _words(event).partition(": ")[2]
    box = {"facecolor": "white", "pad": 0.6, "linewidth": 0}
    axes.text(
        (start + end) / 2,
        y + 0.12,
        text,
        ha="center",
        va="bottom",
        size=9,
        color=STRONG if trouble else INK,
        bbox=box,
        weight=weight if trouble else "normal",
    )


# ------------------------------------------------------------------------------------- a step left out


def trials(told: Skipped, title: str = "A step left out") -> Explorer:
    """What became of the connection in each trial, to be chosen by what was left out, with its packets."""
    found = {trial.name: trial for trial in told.trials}

    def draw(left_out: str) -> Frame:
        return _draw_trial(found[left_out])

    still = [{"left_out": name} for name in list(found)[:3]]
    return explorer(draw, title=title, provenance=told.provenance, left_out={n: n for n in found}, still=still)


def trials_table(told: Skipped, caption: str = "What became of the connection") -> Output:
    """All trials in a table."""
    import pandas as pd

    rows = {
        trial.name: {
            "outcome": trial.verdict,
            "we heard": f"{trial.heard[HERE]} of {trial.said[PEER]}",
            "the peer heard": f"{trial.heard[PEER]} of {trial.said[HERE]}",
            "errors": ", ".join(filter(None, dict.fromkeys(trial.errors.values()))) or "none",
        }
        for trial in told.trials
    }
    return table(pd.DataFrame.from_dict(rows, "index").rename_axis("left out"), caption, told.provenance)


def _draw_trial(trial: Trial) -> Frame:
    bad = "" if trial.verdict == "works" else " class=kn-bad"
    facts = [
        ("bytes we said, the peer heard", f"{trial.said[HERE]}, {trial.heard[PEER]}"),
        ("bytes the peer said, we heard", f"{trial.said[PEER]}, {trial.heard[HERE]}"),
        ("our state, the peer's", ", ".join(trial.states[who] for who in (HERE, PEER))),
        ("errors, ours and the peer's", ", ".join(trial.errors[who] or "none" for who in (HERE, PEER))),
        ("packets with RST, sent again", f"{trial.resets}, {trial.again}"),
    ]
    if trial.clock:
        facts.append(("our clock, units per ms", f"{trial.clock:,.1f}"))
    rows = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts)
    every = events(trial.packets, trial.marks)
    picture = _draw_ladder(every[:16], (HERE, PEER), None)
    more = f" The first 16 of {len(every)} events:" if len(every) > 16 else ""
    words = f"{trial.what} Outcome: {trial.verdict}."
    head = f'<p class="kn-verdict">{escape(trial.what)} <b{bad}>Outcome: {trial.verdict}.</b></p>'
    said = "; ".join(f"{name}: {value}" for name, value in facts)
    alt = f"{words} {said}. Packets: {'; '.join(in_words(event) for event in every[:16])}."
    body = f'{head}<table class="kn-calls">{rows}</table><p class="kn-verdict">{more}</p>{to_svg(picture, alt)}'
    return Frame(f"<style>{CSS}</style>{body}", alt)


def clocks(told: Skipped, names: Sequence[str], caption: str = "") -> Output:
    """How the time stamps of our packets advance in several trials, in seconds of the clock they should be of."""
    import pandas as pd

    drawn, axes = figure(height=2.6)
    said, rows = [], []
    with style():
        for (k, name), mark in zip(enumerate(names), "os^D", strict=False):
            [trial] = [trial for trial in told.trials if trial.name == name]
            stamps = [
                (p.at, p.segment.tsval) for p in trial.packets if p.sender == HERE and p.segment.tsval is not None
            ]
            if not stamps:
                raise BadInput(f"clocks: no time stamps in the trial {name!r}")
            start = stamps[0]
            units = [signed(value - start[1]) for _, value in stamps]
            advance = [max(1.0, float(number)) for number in units]  # the axis is logarithmic
            colour = list(PALETTE.values())[k]
            axes.plot([at for at, _ in stamps], advance, marker=mark, color=colour, label=name)
            rows += [(name, at, number) for (at, _), number in zip(stamps, units, strict=True)]
            said.append(f"{name}: {advance[-1]:,.0f} units in {stamps[-1][0] - start[0]:.2f} s")
        axes.set(xlabel="seconds", ylabel="units since the first", yscale="log")
        axes.legend(loc="lower right")
    alt = f"Time stamps of our packets over time. {'; '.join(said)}."
    data = pd.DataFrame(rows, columns=["trial", "seconds", "units since the first"])
    return show(drawn, alt, told.provenance, caption, data)


# ------------------------------------------------------------------------------------- a move


def time_sequence(told: Move, caption: str = "") -> Output:
    """The classic time-sequence diagram of the stream around the move: a mark per packet, acknowledgements as a line.

    Sequence numbers in kB from the first packet shown; the steps of the move are numbered lines.
    """
    import pandas as pd

    drawn, axes = figure(height=3.9)
    data = [p for p in told.packets if p.sender in (OLD, NEW)]
    if not data:
        raise BadInput("time_sequence: the host that sends is not in the packets")
    start = data[0].segment.seq
    rows = []
    looks = {OLD: ("s", PALETTE["blue"]), NEW: ("o", PALETTE["vermillion"])}
    with style():
        for name, (mark, colour) in looks.items():
            points = [(1000 * p.at, signed(p.segment.end - start) / 1000) for p in data if p.sender == name]
            if points:
                axes.plot(*zip(*points, strict=True), mark, markersize=4, color=colour, label=f"sent by the {name}")
            rows += [(f"sent by the {name}", *point) for point in points]
        acks = [(1000 * p.at, signed(p.segment.ack - start) / 1000) for p in told.packets if p.sender == PEER]
        if acks:
            axes.step(*zip(*acks, strict=True), where="post", color=PALETTE["green"], lw=1.2, label="acknowledged")
        rows += [("acknowledged", *point) for point in acks]
        axes.set(xlabel="ms since the lock", ylabel="sequence number, kB")
        low, high = axes.get_ylim()
        for k, mark_ in enumerate(told.marks, 1):
            axes.axvline(1000 * mark_.at, color=GREY, lw=0.9, ls="--")
            level = high + (high - low) * (0.03 + 0.075 * (k % 2))
            axes.text(1000 * mark_.at, level, str(k), ha="center", size=9.5, weight="bold", color=INK)
        drawn.legend(loc="outside upper left", ncols=3)
    steps = "; ".join(f"{k}: {mark_.what}" for k, mark_ in enumerate(told.marks, 1))
    again = sum(signed(b.segment.end - a.segment.end) <= 0 for a, b in itertools.pairwise(data))
    alt = (
        f"Sequence numbers over time around the move. {len(data)} packets of the stream, of these "
        f"{sum(p.sender == NEW for p in data)} sent by the new host, {again} not beyond the one before. Steps: "
        + ", ".join(f"{mark_.what} at {_milliseconds(mark_)}" for mark_ in told.marks)
        + "."
    )
    rows += [(f"{k}: {mark_.what}", 1000 * mark_.at, math.nan) for k, mark_ in enumerate(told.marks, 1)]
    drawn_rows = pd.DataFrame(rows, columns=["what", "ms since the lock", "sequence number, kB"])
    return show(drawn, alt, told.provenance, f"{caption.rstrip('.')}. {steps}.".lstrip(". "), drawn_rows)


def around(told: Move, before: int = 5, after: int = 20) -> tuple[list[Passed], list[Mark]]:
    """The packets just before the lock and just after the new socket lives, and all between; and the marks."""
    start, end = told.marks[0].at, told.marks[-1].at
    first = [p for p in told.packets if p.at < start][-before:]
    between = [p for p in told.packets if start <= p.at <= end]
    later = [p for p in told.packets if p.at > end][: max(0, after - len(between))]
    return [*first, *between, *later], list(told.marks)


def moves(told: Move, caption: str = "Moves of one download between two hosts") -> Output:
    """Each move in a row: bytes carried over, how long it stood still, how long the peer heard nothing."""
    import pandas as pd

    rows = [
        {
            "ms after the last": f"{one.since_ms:,.0f}" if one.since_ms else None,
            "bytes carried over": one.queued,
            "stood still, ms": f"{one.frozen_ms:.2f}",
            "gap at the peer, ms": f"{one.gap_ms:,.2f}",
        }
        for one in told.moves
    ]
    frame = pd.DataFrame(rows, index=range(1, len(rows) + 1)).rename_axis("move")
    return table(frame, caption, told.provenance)
