"""Recorded sessions: each call that one move of a connection made, what the kernel answered, the packets meanwhile.

    kernel --- calls ---> Recorder ---> Session ---> file          on Linux, once
                                   file ---> Session ---> Replay   anywhere: the same code, the recorded answers

`replay("fin-wait1-ipv4")` runs the code of `steps` on the answers: look, freeze, dump, prepare, commit, release.  It
compares each call and each argument with the recording, so that it fails where the code would now ask something else;
nothing is shown that this code would not have done.  What it returns says that it was recorded, where and when.

A file is gzip text that any language can read, a JSON object in each line.  The first is the header: who recorded
what, how many calls and packets.  Then a line per call and one per packet, each in its order in time:

    {"at": 1764046285.1, "on": "source", "call": "getsockopt", "args": [6, 19], "gives": 0}
    {"at": 1764046285.2, "on": "source", "call": "getpeername", "args": [], "fails": ["ENOTCONN", "Transport ..."]}
    {"at": 1764046285.3, "packet": {"hex": "4500..."}}

`at` is in seconds since 1970.  Bytes are {"hex": ...}; a tuple is a list.  `on` says which socket: "source", the one
that is dumped, or "target", the one that it is restored on.  Errors have names, since their numbers differ between
systems.  Structs are as the machine had them: only little-endian ones are recorded and replayed.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from kernelnotes.errors import BadInput, KernelNotesError, Unavailable
from kernelnotes.provenance import Provenance
from kernelnotes.repair.constants import AF_INET, AF_INET6
from kernelnotes.repair.segment import Segment, from_ip
from kernelnotes.repair.snapshot import Address, Snapshot, check, check_address
from kernelnotes.repair.steps import (
    Calls,
    commit_steps,
    dump_steps,
    elapsed_ms,
    freeze_steps,
    hold_steps,
    look_steps,
    perform,
    prepare_steps,
    release_steps,
    run,
)

FORMAT, VERSION = "kernelnotes-session", 1
SOCKETS = ("source", "target")
_PREFIX, _SUFFIX = "repair-", ".jsonl.gz"  # of the package's
# What a file may ask for.
MOST_LINES = 100_000  # calls, and as many packets
MOST_LINE = 16 << 20  # bytes
MOST_BYTES = 256 << 20  # unpacked


class Diverged(KernelNotesError):
    """The code asks something else than what was recorded, so that no answer is known."""


class Call(NamedTuple):
    """One call: when, on which socket, its name, its arguments, what it gave; or the error's name and text."""

    at: float
    on: str
    name: str
    args: tuple[Any, ...]
    gives: Any = None
    fails: tuple[str, str] | None = None

    def __str__(self) -> str:
        """Like `source: getsockopt(6, 19)`."""
        return f"{self.on}: {self.name}({', '.join(map(_brief, self.args))})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One connection, dumped from one socket and restored on another, as a kernel took part in it.

    `family` is that of the sockets; `peer` is what the caller said about the peer's address where the kernel does not
    tell it.  `packets` were captured at the peer, from the handshake to the end; `names` says whose each address is.
    """

    name: str
    provenance: Provenance
    family: int
    peer: Address | None
    calls: tuple[Call, ...]
    packets: tuple[Segment, ...] = ()
    names: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.family not in (AF_INET, AF_INET6):
            raise BadInput(f"session: family {self.family}, expected {AF_INET} or {AF_INET6}")
        if self.peer is not None:
            check_address("session: peer", self.peer, self.family)


# ------------------------------------------------------------------------------------- record


class Recorder:
    """Writes down what passes through mappings of calls: the first is the source's, the others are the target's.

    recorder = Recorder()
    with live.repair.observed(recorder):
        moved = live.moves.move(sock, host)
    recorder.calls                       # list[Call]
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._seen = 0

    def __call__(self, calls: Calls) -> Calls:
        """A mapping that does the same, and is recorded."""
        which = SOCKETS[min(self._seen, 1)]
        self._seen += 1
        return {name: self._recorded(which, name, call) for name, call in calls.items()}

    def _recorded(self, which: str, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*args: Any) -> Any:
            at, kept = time.time(), _kept(args)
            try:
                result = call(*args)
            except OSError as e:
                error = (errno.errorcode.get(e.errno or 0, str(e.errno)), str(e.strerror or e))
                self.calls.append(Call(at, which, name, kept, None, error))
                raise
            self.calls.append(Call(at, which, name, kept, _kept(result)))
            return result

        return recorded


def _kept(value: Any) -> Any:
    # Views are of memory that will change; the kernel's numbers are plain ones.
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    if isinstance(value, tuple):
        return tuple(map(_kept, value))
    if isinstance(value, int) and type(value) is not bool:
        return int(value)
    return value


# ------------------------------------------------------------------------------------- replay


class Replay:
    """Answers calls from a recording, strictly: the same calls with the same arguments in the same order.

    with Replay(session) as recorded:
        run(look_steps(session.family, session.peer), recorded.calls("source"))
        ...

    The end of the block raises Diverged if recorded calls are left over.  A call that is not the next one raises it at
    once, and again at every later call.
    """

    def __init__(self, session: Session) -> None:
        if sys.byteorder != "little":
            raise Unavailable("replay: the recordings hold structs of little-endian machines")
        self._session, self._next = session, 0

    def calls(self, which: str) -> Calls:
        """The calls of that socket, "source" or "target"."""
        return _Answers(which, self._answer)

    @property
    def left(self) -> tuple[Call, ...]:
        """The recorded calls that nobody has made yet."""
        return self._session.calls[self._next :]

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.left:
            raise Diverged(
                f"{self._session.name}: the code is done, but {len(self.left)} calls are left: {self.left[0]}"
            )

    def _answer(self, which: str, name: str, args: tuple[Any, ...]) -> Any:
        asked = Call(0.0, which, name, _kept(args))
        recorded = self.left[0] if self.left else None
        if recorded is None or not _same(asked, recorded):
            expected = recorded or "the end"
            raise Diverged(f"{self._session.name}: call {self._next + 1} is {asked}, recorded was {expected}")
        self._next += 1
        if recorded.fails is None:
            return recorded.gives
        name, text = recorded.fails
        raise OSError(getattr(errno, name), text)


class _Answers(Mapping[str, Callable[..., Any]]):
    # Every name is there: one that was not recorded is a difference like any other.
    def __init__(self, which: str, answer: Callable[[str, str, tuple[Any, ...]], Any]) -> None:
        self._which, self._answer = which, answer

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return lambda *args: self._answer(self._which, name, args)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _same(a: Call, b: Call) -> bool:
    # As JSON, which tells true from 1 and 1 from 1.0, unlike ==.
    return (a.on, a.name) == (b.on, b.name) and json.dumps(_encoded(a.args)) == json.dumps(_encoded(b.args))


def _brief(value: Any) -> str:
    text = repr(value)
    return (
        text if len(text) < 60 else f"{text[:50]}... ({len(value)})" if isinstance(value, bytes) else f"{text[:50]}..."
    )


class Replayed(NamedTuple):
    """What the code made of a recording: the snapshot, and where it comes from."""

    snapshot: Snapshot
    session: Session

    @property
    def provenance(self) -> Provenance:
        """Always "recorded"."""
        return self.session.provenance


def replay(session: Session | str) -> Replayed:
    """The same code as on live sockets, in the order of `live.moves.move`, on a recording (a name: of the package).

    Raises Diverged where this code makes other calls than the code that was recorded; BadInput for an unknown name.

    >>> repair.session.replay("fin-wait1-ipv4").snapshot.state.name
    'TCP_FIN_WAIT1'
    """
    if isinstance(session, str):
        session = load(session)
    with Replay(session) as recorded:
        source, target = recorded.calls("source"), recorded.calls("target")
        before = run(look_steps(session.family, session.peer), source)
        held = run(freeze_steps(before), source)
        perform(hold_steps(held), source)
        snapshot = run(dump_steps(before, held), source)
        check(snapshot)
        perform(prepare_steps(snapshot, elapsed_ms(snapshot.taken, target["clock"]())), target)
        perform(commit_steps(snapshot), target)
        perform(release_steps(), source)
    return Replayed(snapshot, session)


# ------------------------------------------------------------------------------------- files


def names() -> tuple[str, ...]:
    """The names of the sessions that come with the package."""
    files = (file.name for file in _folder().iterdir())
    ours = (file for file in files if file.startswith(_PREFIX) and file.endswith(_SUFFIX))
    return tuple(sorted(file.removeprefix(_PREFIX).removesuffix(_SUFFIX) for file in ours))


def load(name: str) -> Session:
    """A session that comes with the package.  Raises BadInput for an unknown name, with the known ones."""
    if name not in names():
        raise BadInput(f"session {name!r} is unknown, known are: {', '.join(names())}")
    return from_bytes((_folder() / f"{_PREFIX}{name}{_SUFFIX}").read_bytes())


def _folder() -> Any:
    return resources.files("kernelnotes") / "recordings"


def read(path: str | os.PathLike[str]) -> Session:
    """The session in a file.  Raises BadInput, naming file and line; OSError where it cannot be opened."""
    try:
        return from_bytes(Path(path).read_bytes())
    except BadInput as e:
        raise BadInput(f"{os.fspath(path)}: {e}") from e


def to_bytes(session: Session) -> bytes:
    """The session as a file."""
    origin = session.provenance
    header = {
        "format": FORMAT,
        "version": VERSION,
        "name": session.name,
        "kernel": origin.kernel,
        "command": origin.command,
        "date": origin.date,
        "family": session.family,
        "peer": session.peer,
        "names": dict(session.names),
        "calls": len(session.calls),
        "packets": len(session.packets),
    }
    lines = [header, *map(_call_line, session.calls), *map(_packet_line, session.packets)]
    return gzip.compress(b"".join(json.dumps(line).encode() + b"\n" for line in lines), mtime=0)


def _call_line(call: Call) -> dict[str, Any]:
    line = {"at": round(call.at, 6), "on": call.on, "call": call.name, "args": _encoded(call.args)}
    return line | ({"gives": _encoded(call.gives)} if call.fails is None else {"fails": list(call.fails)})


def _packet_line(packet: Segment) -> dict[str, Any]:
    return {"at": round(packet.time, 6), "packet": _encoded(packet.to_ip())}


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, tuple):
        return [_encoded(part) for part in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise BadInput(f"session: {value!r:.80} cannot be recorded")


def from_bytes(data: bytes) -> Session:
    """The session in a file's bytes.  Raises BadInput, naming the line, for whatever is none."""
    lines = _lines(data)
    header = _header(*next(lines, (1, None)))
    calls = [_call(*line) for line in _take(lines, header["calls"], "calls")]
    packets = [_packet(*line) for line in _take(lines, header["packets"], "packets")]
    if surplus := next(lines, None):
        raise BadInput(f"line {surplus[0]}: expected the end of the file")
    origin = Provenance("recorded", header["kernel"], header["command"], header["date"])
    peer: Any = header["peer"] and tuple(header["peer"])  # whether it is an address, the Session asks
    return Session(
        name=header["name"], provenance=origin, family=header["family"], peer=peer,
        calls=tuple(calls), packets=tuple(packets), names=header["names"],
    )  # fmt: skip


def _lines(data: bytes) -> Iterator[tuple[int, Any]]:
    # A small file can unpack to a huge one, and a line can be long.
    number, total = 0, 0
    with gzip.open(io.BytesIO(data)) as text:
        while True:
            number += 1
            try:
                line = text.readline(MOST_LINE)
            except (OSError, EOFError, zlib.error) as e:
                raise BadInput(f"line {number}: no whole gzip data: {e}") from e
            if not line:
                return
            total += len(line)
            if not line.endswith(b"\n") or total > MOST_BYTES:
                raise BadInput(f"line {number}: cut off, or too long")
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as e:
                raise BadInput(f"line {number}: no JSON: {e}") from e


def _take(lines: Iterator[tuple[int, Any]], count: int, what: str) -> Iterator[tuple[int, Any]]:
    for i in range(count):
        line = next(lines, None)
        if line is None:
            raise BadInput(f"the file ends after {i} of {count} {what}")
        yield line


def _bad(number: int, what: str) -> BadInput:
    return BadInput(f"line {number}: {what}")


def _header(number: int, line: Any) -> dict[str, Any]:
    if not isinstance(line, dict) or line.get("format") != FORMAT:
        raise _bad(number, f'no session: expected {{"format": "{FORMAT}", ...}}')
    if line.get("version") != VERSION:
        raise _bad(number, f"version {line.get('version')!r:.40}, this release reads version {VERSION}")
    for name in ("name", "kernel", "command", "date"):
        if type(line.get(name)) is not str or not 0 < len(line[name]) < 1000 or not line[name].isprintable():
            raise _bad(number, f"{name}: expected 1 to 999 printable characters")
    for name in ("family", "calls", "packets"):
        if type(line.get(name)) is not int or not 0 <= line[name] <= MOST_LINES:
            raise _bad(number, f"{name}: expected a whole number up to {MOST_LINES}")
    named = line.get("names")
    if not isinstance(named, dict) or len(named) > 1000 or any(type(name) is not str for name in named.values()):
        raise _bad(number, "names: expected texts by address")
    if "peer" not in line or not (line["peer"] is None or isinstance(line["peer"], list)):
        raise _bad(number, "peer: expected an address, or null")
    return line


def _call(number: int, line: Any) -> Call:
    if not isinstance(line, dict) or line.keys() not in ({*_CALL, "gives"}, {*_CALL, "fails"}):
        raise _bad(number, f"expected a call: {', '.join(_CALL)}, and gives or fails")
    if line["on"] not in SOCKETS or type(line["call"]) is not str or type(line["args"]) is not list:
        raise _bad(number, "expected a call on source or target with its arguments")
    args, gives = _decoded(number, line["args"]), _decoded(number, line.get("gives"))
    return Call(_time(number, line["at"]), line["on"], line["call"], args, gives, _error(number, line.get("fails")))


_CALL = ("at", "on", "call", "args")


def _error(number: int, value: Any) -> tuple[str, str] | None:
    if value is None:
        return None
    if type(value) is not list or len(value) != 2 or any(type(part) is not str for part in value):
        raise _bad(number, "fails: expected the name of an error, and what it says")
    if not value[0].startswith("E") or not isinstance(getattr(errno, value[0], None), int):
        raise _bad(number, f"fails: {value[0]!r:.40} is no error of this system")
    return value[0], value[1]


def _time(number: int, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 2**53:
        raise _bad(number, "at: expected seconds since 1970")
    return float(value)


def _packet(number: int, line: Any) -> Segment:
    if not isinstance(line, dict) or line.keys() != {"at", "packet"}:
        raise _bad(number, "expected a packet: at, packet")
    packet = _decoded(number, line["packet"])
    if type(packet) is not bytes:
        raise _bad(number, "packet: expected bytes")
    try:
        return from_ip(packet, _time(number, line["at"]))
    except BadInput as e:
        raise _bad(number, str(e)) from e


def _decoded(number: int, value: Any, deep: int = 0) -> Any:
    # Arguments are a list, an address among them is one in it; there is nothing deeper.
    if isinstance(value, list) and len(value) <= 100 and deep < 2:
        return tuple(_decoded(number, part, deep + 1) for part in value)
    if isinstance(value, dict) and value.keys() == {"hex"} and type(value["hex"]) is str:
        try:
            return bytes.fromhex(value["hex"])
        except ValueError as e:
            raise _bad(number, f"hex: {e}") from e
    if isinstance(value, list | dict):
        raise _bad(number, 'expected numbers, texts, {"hex": ...}, and lists of these')
    return value
