"""Small scenes with live connections: what they tell, and the recorded ones.

`kernelnotes.live.repair_scenes` plays them and has the same functions; these here return what they were on another
machine.  So a page takes the one module or the other:

    life()      a connection from the handshake to its end, dumped after each event; and what else tells of it
    entering()  who may enter repair mode, in which state, and which addresses can be bound in it
    steps()     one dump and restore, call by call, with the packets that the peer saw
    skipped()   the same with a step left out
    states()    a dump and restore in each state
    move()      a connection under load that moves between two hosts
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import resources
from typing import Any, NamedTuple

from kernelnotes.provenance import Provenance
from kernelnotes.repair.segment import Flags, Segment, signed
from kernelnotes.repair.snapshot import Snapshot

HERE, PEER, OLD, NEW = "here", "peer", "old host", "new host"


class Passed(NamedTuple):
    """A packet that passed: seconds since the scene began, from whom, to whom, and the segment without its bytes."""

    at: float
    sender: str
    receiver: str
    segment: Segment


class Mark(NamedTuple):
    """Something that was done at a time of the scene, in seconds."""

    at: float
    what: str


class Done(NamedTuple):
    """A step that was performed: what for, the call, what it gave."""

    what: str
    call: str
    result: str


class Moment(NamedTuple):
    """An event of a connection, and the connection after it."""

    what: str
    snapshot: Snapshot


class Life(NamedTuple):
    """A connection, event by event; and the one of the moment `at` as others tell it.

    `proc` is its line of /proc/net/tcp with the heading, `ss` what `ss -tien` printed ("" without ss), `info` struct
    tcp_info; `calls` are (what, call, what it gave outside of repair mode, what it gave within).
    """

    moments: tuple[Moment, ...]
    at: int
    proc: str
    ss: str
    info: bytes
    calls: tuple[tuple[str, str, str, str], ...]
    provenance: Provenance


class Entering(NamedTuple):
    """Answers of the kernel: "yes", or the name of the error.

    `states` are (state, with CAP_NET_ADMIN, without), `binds` (what is there, a plain bind(), one in repair mode).
    """

    states: tuple[tuple[str, str, str], ...]
    binds: tuple[tuple[str, str, str], ...]
    provenance: Provenance


class Steps(NamedTuple):
    """One dump and restore: the calls, the connection, marks and packets, in time."""

    snapshot: Snapshot
    dump: tuple[Done, ...]
    restore: tuple[Done, ...]
    marks: tuple[Mark, ...]
    packets: tuple[Passed, ...]
    provenance: Provenance


class Trial(NamedTuple):
    """A dump and restore with something left out, and a few words said over the connection afterwards.

    `said` is {who: bytes said afterwards}, `heard` {who: bytes heard}; `states` those of both ends in the end,
    `errors` what the kernel told either ("" for nothing); `clock` how many units our time stamps advance in a
    millisecond (0: not known).
    """

    name: str
    what: str
    said: Mapping[str, int]
    heard: Mapping[str, int]
    states: Mapping[str, str]
    errors: Mapping[str, str]
    clock: float
    packets: tuple[Passed, ...]
    marks: tuple[Mark, ...]

    @property
    def resets(self) -> int:
        """Packets with RST."""
        return sum(Flags.RST in p.segment.flags for p in self.packets)

    @property
    def again(self) -> int:
        """Packets with bytes that had been sent before."""
        highest: dict[str, int] = {}
        count = 0
        for p in self.packets:
            if p.segment.length:
                seen = highest.setdefault(p.sender, (p.segment.end - 1) % 2**32)
                if signed(p.segment.end - seen) > 0:
                    highest[p.sender] = p.segment.end
                else:
                    count += 1
        return count

    @property
    def verdict(self) -> str:
        """What became of the connection, in a word or two."""
        arrived = [who for who in (HERE, PEER) if self.heard[_other(who)] == self.said[who]]
        if self.resets:
            return "reset"
        if len(arrived) == 2:
            return "works"
        return f"only what {'we say' if arrived == [HERE] else 'the peer says'} arrives" if arrived else "silence"


def _other(who: str) -> str:
    return PEER if who == HERE else HERE


class Skipped(NamedTuple):
    """The trials, the first one with nothing left out."""

    trials: tuple[Trial, ...]
    provenance: Provenance


class StateMoved(NamedTuple):
    """A dump and restore in one state: the state afterwards, bytes that arrived and that should have, packets."""

    snapshot: Snapshot
    after: str
    arrived: int
    expected: int
    whole: bool
    resets: int


class States(NamedTuple):
    """One for each state."""

    moved: tuple[StateMoved, ...]
    provenance: Provenance


class Moved(NamedTuple):
    """One move: ms in which it stood still, ms in which the peer got nothing, bytes carried over, ms since the last."""

    frozen_ms: float
    gap_ms: float
    queued: int
    since_ms: float


class Move(NamedTuple):
    """A download that moves between two hosts.

    `moves` are all moves; marks and packets, as the two hosts saw them, are those around the first.  `usual_ms` is the
    longest gap at the peer without a move, `whole` whether every byte arrived once and in its place, `resets` packets
    with RST of all.
    """

    moves: tuple[Moved, ...]
    marks: tuple[Mark, ...]
    packets: tuple[Passed, ...]
    bytes: int
    whole: bool
    resets: int
    usual_ms: float
    macs: tuple[str, str]
    provenance: Provenance


# ------------------------------------------------------------------------------------- to and from JSON

_LEFT_OUT = ("payload", "cut", "flags", "src", "dst", "sport", "dport")


def told_packet(at: float, sender: str, receiver: str, segment: Segment) -> dict[str, Any]:
    """A packet for JSON, without its bytes."""
    kept = {f.name: getattr(segment, f.name) for f in fields(Segment) if f.name not in _LEFT_OUT}
    kept = {name: value for name, value in kept.items() if value and name != "time"}
    flow = [segment.src, segment.sport, segment.dst, segment.dport]
    fixed = {"flags": int(segment.flags), "seq": segment.seq, "cut": segment.length}
    return {"at": round(at, 6), "way": [sender, receiver], "flow": flow, **kept, **fixed}


def packets(told: Sequence[Mapping[str, Any]]) -> tuple[Passed, ...]:
    """Packets that JSON brought."""
    return tuple(_packet(dict(one)) for one in told)


def _packet(one: dict[str, Any]) -> Passed:
    at, way, flow = one.pop("at"), one.pop("way"), one.pop("flow")
    one["sack"] = tuple(tuple(block) for block in one.get("sack", ()))
    flags = Flags(one.pop("flags"))
    if ("tsval" in one) != ("tsecr" in one):  # a time stamp of 0 was left out
        one = {"tsval": 0, "tsecr": 0} | one
    ends = dict(zip(("src", "sport", "dst", "dport"), flow, strict=True))
    sender, receiver = way
    return Passed(at, sender, receiver, Segment(**ends, flags=flags, **one))


def marks(told: Sequence[Sequence[Any]]) -> tuple[Mark, ...]:
    """Marks that JSON brought."""
    return tuple(Mark(*one) for one in told)


def _snapshot(text: str) -> Snapshot:
    return Snapshot.from_bytes(bytes.fromhex(text))


def made_life(told: Mapping[str, Any], origin: Provenance) -> Life:
    """`Life` from what JSON brought; so do the others."""
    moments = tuple(Moment(what, _snapshot(text)) for what, text in told["moments"])
    calls = tuple(tuple(row) for row in told["calls"])
    return Life(moments, told["at"], told["proc"], told["ss"], bytes.fromhex(told["info"]), calls, origin)


def made_entering(told: Mapping[str, Any], origin: Provenance) -> Entering:
    """See `made_life`."""
    found, binds = (tuple(tuple(row) for row in told[name]) for name in ("states", "binds"))
    return Entering(found, binds, origin)


def made_steps(told: Mapping[str, Any], origin: Provenance) -> Steps:
    """See `made_life`."""
    dump, restore = (tuple(Done(*row) for row in told[name]) for name in ("dump", "restore"))
    return Steps(_snapshot(told["snapshot"]), dump, restore, marks(told["marks"]), packets(told["packets"]), origin)


def made_skipped(told: Mapping[str, Any], origin: Provenance) -> Skipped:
    """See `made_life`."""
    made = ({**one, "packets": packets(one["packets"]), "marks": marks(one["marks"])} for one in told["trials"])
    return Skipped(tuple(Trial(**one) for one in made), origin)


def made_states(told: Mapping[str, Any], origin: Provenance) -> States:
    """See `made_life`."""
    return States(tuple(StateMoved(_snapshot(text), *rest) for text, *rest in told["moved"]), origin)


def made_move(told: Mapping[str, Any], origin: Provenance) -> Move:
    """See `made_life`."""
    rest = {name: told[name] for name in ("bytes", "whole", "resets", "usual_ms")}
    moved = tuple(Moved(*row) for row in told["moves"])
    seen = packets(told["packets"])
    return Move(moved, marks(told["marks"]), seen, macs=tuple(told["macs"]), provenance=origin, **rest)


# ------------------------------------------------------------------------------------- the recorded ones


def _recorded(name: str) -> tuple[dict[str, Any], Provenance]:
    packed = (resources.files("kernelnotes.recordings") / "repair-scenes.json.gz").read_bytes()
    stored: dict[str, Any] = json.loads(gzip.decompress(packed))
    return stored[name], Provenance("recorded", stored["kernel"], stored["command"], stored["date"])


def life() -> Life:
    """A connection from the handshake to its end."""
    return made_life(*_recorded("life"))


def entering() -> Entering:
    """Who may enter repair mode."""
    return made_entering(*_recorded("entering"))


def steps() -> Steps:
    """A dump and restore, call by call."""
    return made_steps(*_recorded("steps"))


def skipped() -> Skipped:
    """What happens where a step is left out."""
    return made_skipped(*_recorded("skipped"))


def states() -> States:
    """A dump and restore in each state."""
    return made_states(*_recorded("states"))


def move() -> Move:
    """A connection that moves between two hosts."""
    return made_move(*_recorded("move"))
