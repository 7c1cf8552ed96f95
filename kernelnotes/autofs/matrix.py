"""Who reads the packet, what each kernel wrote, and what became of the processes that asked.

    outcomes()                                  every kernel with every reader, 32/32, 64/64 and 32-on-64
    play(KERNELS["revert"], READERS["systemd"], MODES["32-on-64"]).events

A kernel that has written a packet knows its own `sizeof`, and of the daemon what it was when it mounted: its name, and
whether it is a 32-bit program on a 64-bit kernel (`Task`).  A reader knows its `sizeof` and what uname() says (`Host`).
Each guesses the other.  Whatever size a kernel chooses is wrong for someone, until the size no longer matters.

Both lists can be added to: a reader is a function that says how many bytes it asks for, and a generator that takes one
packet; a kernel is a function that says how many bytes it writes, and whether the pipe keeps packets apart.

    def always_300(task): return 300
    outcomes(kernels=[*KERNELS.values(), Kernel("mine", (3, 4), always_300)])

Sequence of events: three processes ask, the kernel writes a packet for each, with tokens 1, 2 and 3.  The reader
answers what it takes for the token with READY, which wakes the process that waits under it, or gets EINVAL if none
does.  A process that nobody answers hangs; that is what was seen in 2012.

Left out: what the daemon does with type and name (systemd and automount look at the type before the token), timing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kernelnotes.abi import find
from kernelnotes.autofs.packets import PACKETS, encode, make
from kernelnotes.errors import BadInput
from kernelnotes.pipes import PAGE, Pipe
from kernelnotes.provenance import MODEL, Provenance

if TYPE_CHECKING:
    import pandas as pd

# --------------------------------------------------------------------------------------------------- the readers


class Host(NamedTuple):
    """What a daemon can know: the size of the packet as it was compiled, and uname's machine and release."""

    sizeof: int
    machine: str
    release: tuple[int, ...]


Take = Callable[[int], Generator[int, bytes, bytes | None]]


@dataclass(frozen=True, slots=True)
class Reader:
    """A daemon: how many bytes it asks for, and how it takes one packet of as many.

    `take(want)` is a generator: each number that it yields is a read() of so many bytes, the bytes are sent to it, and
    it returns the packet, or None if it gives up for good.  `comm` is the name that the kernel sees.
    """

    name: str
    comm: str
    wants: Callable[[Host], int]
    take: Take


def own_size(host: Host) -> int:
    """What the compiler says, on any kernel."""
    return host.sizeof


def kpkt_len_2007(host: Host) -> int:
    """What automount 5.0.1 to 5.0.6 says: four bytes more where the machine, not the program, is a 64-bit one.

    Only i386 on x86-64 ever took the branch: the 32-bit ABIs of the other machines have no odd size.
    Source: autofs-tools daemon/automount.c, get_kpkt_len(), commit 35c33d1e.
    """
    odd = host.sizeof % 8 and host.machine in ("alpha", "ia64", "x86_64", "ppc64")
    return host.sizeof + 4 if odd else host.sizeof


def kpkt_len_2012(host: Host) -> int:
    """What automount says since 5.0.7: from Linux 3.3 on the kernel is trusted, before it as ever.

    Source: autofs-tools daemon/automount.c, get_kpkt_len(), commits 8c3f7446 and ca9d8fe4.
    """
    return host.sizeof if host.release >= (3, 3) else kpkt_len_2007(host)


def read_on(want: int) -> Generator[int, bytes, bytes | None]:
    """Ask for the rest until it is there, however long that takes.

    Source: systemd src/core/automount.c with loop_read(); autofs-tools daemon/automount.c, fullread().
    """
    got = b""
    while len(got) < want:
        got += yield want - len(got)
    return got


def read_once(want: int) -> Generator[int, bytes, bytes | None]:
    """One read(), which must give it all: so commit and article tell it of both daemons, though both of them loop."""
    got = yield want
    return got if len(got) == want else None


def _by_name(rows: Iterable[Any]) -> Mapping[str, Any]:
    return MappingProxyType({row.name: row for row in rows})


READERS: Mapping[str, Reader] = _by_name(
    [
        Reader("systemd", "systemd", own_size, read_on),
        Reader("single read", "strict", own_size, read_once),
        Reader("automount 5.0.6", "automount", kpkt_len_2007, read_on),
        Reader("automount 5.0.7", "automount", kpkt_len_2012, read_on),
    ]
)

# --------------------------------------------------------------------------------------------------- the kernels


class Task(NamedTuple):
    """What the kernel can know of the daemon that mounts: its name, and whether it is a 32-bit program here.

    `sizeof` is the packet's size in this kernel.  `compat` is is_compat_task(), which was true of x32 as well.
    """

    comm: str
    compat: bool
    sizeof: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel: its release, how many bytes of a packet it writes for a daemon, and whether into a packet pipe."""

    name: str
    release: tuple[int, ...]
    size: Callable[[Task], int]
    packets: bool = False
    about: str = ""


def whole(task: Task) -> int:
    """The struct as this kernel has it."""
    return task.sizeof


def four_less_for_compat(task: Task) -> int:
    """Ian Kent's patch of February 2012.  Source: a32744d4abae, fs/autofs4/waitq.c, autofs_v5_packet_size()."""
    return task.sizeof - 4 if task.compat else task.sizeof


def four_less_unless_automount(task: Task) -> int:
    """Michael Tokarev's suggestion of 24 April 2012, never merged: whom the daemon calls itself decides."""
    return task.sizeof - 4 if task.compat and task.comm != "automount" else task.sizeof


KERNELS: Mapping[str, Kernel] = _by_name(
    [
        Kernel("no fix", (3, 2), whole, about="up to 3.2, and in automount's eyes any kernel that says so"),
        Kernel("Kent, 3.3-rc5", (3, 3), four_less_for_compat, about="a32744d4abae"),
        Kernel("Kent, 3.0.24", (3, 0, 24), four_less_for_compat, about="the same in a stable kernel, with its number"),
        Kernel("comm check", (3, 4), four_less_unless_automount, about="a suggestion"),
        Kernel("revert", (3, 4), whole, about="fcbf94b9dedd, knowingly breaking systemd again"),
        Kernel("packet pipe", (3, 4), whole, packets=True, about="9883035ae7ed and 64f371bc3107, since 3.4-rc5"),
    ]
)


class Mode(NamedTuple):
    """Which ABI the daemon and which the kernel was compiled for, and what uname says the machine is."""

    name: str
    program: str
    kernel: str
    machine: str


MODES: Mapping[str, Mode] = _by_name(
    [
        Mode("32/32", "i386", "i386", "i686"),
        Mode("64/64", "x86-64", "x86-64", "x86_64"),
        Mode("32-on-64", "i386", "x86-64", "x86_64"),
    ]
)
SCHEDULES = MappingProxyType(
    {
        "sequential": "the next process asks as soon as the one before is answered, or the reader waits",
        "burst": "all three have asked before the reader looks",
        "idle": "the next process asks when the reader has nothing left to do",
    }
)

# --------------------------------------------------------------------------------------------------- one cell


class Event(NamedTuple):
    """What happened next.

    kind      asks     a process asked, and the kernel wrote `got` bytes for it
              refused  a process asked, and the write failed: nobody reads any more
              packet   the reader has what it takes for a packet, and answers its token
              short    a read gave less than it asked for, and the reader asks for the rest
              waits    the pipe is empty, and the reader waits, perhaps in the middle of a packet
              dies     the reader gives up
    got, want bytes that the reader has, of those it wants
    proto, type, token  as they stand in those bytes, 0 where they end before
    wakes     the number of the process that the answer to a packet woke; 0: EINVAL
    """

    kind: str
    got: int
    want: int
    proto: int
    type: int
    token: int
    wakes: int = 0


class Daemon(Protocol):
    """A reader at work, one event at a time: simulated here, a real process in `live.readers`."""

    def write(self, data: bytes) -> None:
        """Put a packet into its pipe.  Raises BrokenPipeError where it has died."""

    def resume(self) -> Event:
        """Let it run to its next event."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One cell of the matrix.

    `writes` and `wants` are bytes; `answered` are the processes that were woken, in order; `hangs` those that never
    were; `late` those woken after another one had asked.  `verdict` is "ok", or what first went wrong: "garbage" (a
    packet that is none), "hang" (waiting in the middle of one), "dies".
    """

    kernel: str
    reader: str
    mode: str
    schedule: str
    writes: int
    wants: int
    events: tuple[Event, ...]
    provenance: Provenance = MODEL

    @property
    def answered(self) -> tuple[int, ...]:
        """The processes that were woken, in order."""
        return tuple(event.wakes for event in self.events if event.wakes)

    @property
    def hangs(self) -> tuple[int, ...]:
        """The processes that nobody woke.

        A write that is refused makes the mount catatonic: everybody who waits is woken, with ENOENT, and so is who
        asks.  Source: fs/autofs/waitq.c, autofs_notify_daemon() and autofs_catatonic_mode().
        """
        if any(event.kind == "refused" for event in self.events):
            return ()
        asked = [event.token for event in self.events if event.kind == "asks"]
        return tuple(token for token in asked if token not in self.answered)

    @property
    def late(self) -> tuple[int, ...]:
        """The processes that were woken only by the request of a later one; nobody is late in a burst."""
        asked, late = 0, []
        for event in self.events:
            asked = event.token if event.kind == "asks" else asked
            if self.schedule != "burst" and 0 < event.wakes < asked:
                late.append(event.wakes)
        return tuple(late)

    @property
    def tokens(self) -> tuple[int, ...]:
        """What the reader took for tokens."""
        return tuple(event.token for event in self.events if event.kind == "packet")

    @property
    def verdict(self) -> str:
        """What first went wrong, or "ok"."""
        for event in self.events:
            if event.kind == "packet" and not event.wakes:
                return "garbage"
            if event.kind == "dies" or (event.kind == "waits" and event.got):
                return "dies" if event.kind == "dies" else "hang"
        return "ok"

    def as_dict(self) -> dict[str, Any]:
        """For JSON and tables: all of the above."""
        told = {name: getattr(self, name) for name in ("kernel", "reader", "mode", "schedule", "writes", "wants")}
        told |= {name: getattr(self, name) for name in ("verdict", "tokens", "answered", "late", "hangs")}
        return told | {"events": [event._asdict() for event in self.events]}


REQUESTS = 3
MOST_EVENTS = 1000  # of a cell: a reader of one's own may go on for ever


def sizes(kernel: Kernel, reader: Reader, mode: Mode) -> tuple[int, int]:
    """How many bytes the kernel writes, and how many the reader wants.

    Raises BadInput for numbers that are none, and for an unknown ABI.
    """
    packet = PACKETS["missing_direct"]
    native = packet.size(mode.kernel)
    writes = kernel.size(Task(reader.comm, mode.program != mode.kernel, native))
    wants = reader.wants(Host(packet.size(mode.program), mode.machine, kernel.release))
    for who, size in ((kernel.name, writes), (reader.name, wants)):
        if not isinstance(size, int) or not 1 <= size <= PAGE:
            raise BadInput(f"{who}: a packet of {size!r} bytes, expected 1 to {PAGE}")
    return writes, wants


def packet_bytes(token: int, mode: Mode, writes: int) -> bytes:
    """The packet that the kernel writes for a process, of which it writes as many bytes as it chooses."""
    packet = make("missing_direct", token=token, dev=42, ino=1234, uid=0, gid=0, pid=1, tgid=1, name=b"x")
    return encode(packet, mode.kernel)[:writes].ljust(writes, b"\0")


def play(kernel: Kernel, reader: Reader, mode: Mode, schedule: str = "sequential") -> Outcome:
    """What happens when three processes ask.  Raises BadInput for an unknown schedule, and for a reader gone astray."""
    writes, wants = sizes(kernel, reader, mode)
    events = drive(_Simulated(reader, wants, mode, Pipe(kernel.packets)), mode, writes, schedule)
    return Outcome(kernel.name, reader.name, mode.name, schedule, writes, wants, events)


def drive(daemon: Daemon, mode: Mode, writes: int, schedule: str) -> tuple[Event, ...]:
    """The part of the kernel and of the processes, against a daemon.

    Raises BadInput for an unknown schedule, and for more than MOST_EVENTS.
    """
    if schedule not in SCHEDULES:
        raise BadInput(f"unknown schedule {schedule!r}, expected one of: {', '.join(SCHEDULES)}")
    events: list[Event] = []
    waiting: set[int] = set()
    for token in range(1, REQUESTS + 1):
        events.append(_ask(daemon, packet_bytes(token, mode, writes), token))
        if events[-1].kind == "asks":
            waiting.add(token)
            if schedule != "burst":
                _run(daemon, events, waiting, token if schedule == "sequential" else 0)
    if schedule == "burst":
        _run(daemon, events, waiting, 0)
    return tuple(events)


def _ask(daemon: Daemon, data: bytes, token: int) -> Event:
    try:
        daemon.write(data)
    except BrokenPipeError:
        return Event("refused", 0, 0, 0, 0, token)
    return Event("asks", len(data), 0, 5, PACKETS["missing_direct"].number, token)


def _run(daemon: Daemon, events: list[Event], waiting: set[int], until: int) -> None:
    # To the end of its doings, or until it has answered this one.
    while len(events) < MOST_EVENTS:
        event = daemon.resume()
        if event.kind == "packet" and event.token in waiting:
            waiting.remove(event.token)
            event = event._replace(wakes=event.token)
        events.append(event)
        if event.kind in ("waits", "dies") or (until and event.wakes == until):
            return
    raise BadInput(f"a reader that after {MOST_EVENTS} events still finds packets")


@dataclass(slots=True)
class _Simulated:
    # A reader's generator at a modelled pipe.
    reader: Reader
    wants: int
    mode: Mode
    pipe: Pipe
    got: bytes = b""
    asks: int = 0
    taking: Generator[int, bytes, bytes | None] | None = field(default=None)

    def write(self, data: bytes) -> None:
        self.pipe.write(data)

    def resume(self) -> Event:
        if self.taking is None:
            self.taking, self.got = self.reader.take(self.wants), b""
            self._send(None)
        assert self.taking is not None
        try:
            data = self.pipe.read(self.asks)
        except BlockingIOError:
            return self._event("waits")
        self.got += data
        if self._send(data):
            return self._event("short")
        return self._event("packet" if self.pipe.read_end else "dies")

    def _send(self, data: bytes | None) -> bool:
        # Does it want more?
        assert self.taking is not None
        try:
            self.asks = next(self.taking) if data is None else self.taking.send(data)
        except StopIteration as done:
            self.taking = None
            if data is None:
                raise BadInput(f"{self.reader.name}: takes a packet without a read") from None
            if done.value is None:
                self.pipe.close_read()
            else:
                self.got = done.value  # a reader may have skipped bytes
            return False
        if not isinstance(self.asks, int) or self.asks < 1:
            raise BadInput(f"{self.reader.name}: a read of {self.asks!r} bytes")
        return True

    def _event(self, kind: str) -> Event:
        return seen(kind, self.got, self.wants, self.mode)


def seen(kind: str, got: bytes, want: int, mode: Mode) -> Event:
    """What the reader has and what it means to a program of its ABI; beyond its end are zeros."""
    packet = PACKETS["missing_direct"].layout(find(mode.program))
    values = packet.unpack(got[: packet.size].ljust(packet.size, b"\0"))
    header = values["hdr"]
    return Event(kind, len(got), want, header["proto_version"], header["type"], values["wait_queue_token"])


# --------------------------------------------------------------------------------------------------- all cells


def outcomes(
    readers: Iterable[Reader] = tuple(READERS.values()),
    kernels: Iterable[Kernel] = tuple(KERNELS.values()),
    modes: Iterable[Mode] = tuple(MODES.values()),
    schedules: Iterable[str] = ("sequential", "burst"),
    cell: Callable[[Kernel, Reader, Mode, str], Outcome] = play,
) -> pd.DataFrame:
    """Every kernel with every reader: a row per cell, with the columns of `Outcome.as_dict`.

    Its `attrs` hold the `provenance`: a model, unless another `cell` plays them.  Raises what that raises.
    """
    readers, modes, schedules = list(readers), list(modes), list(schedules)
    return frame([cell(k, r, m, s) for k in kernels for r in readers for m in modes for s in schedules])


def frame(cells: Iterable[Outcome]) -> pd.DataFrame:
    """A row per cell; of one provenance, which is in `attrs`."""
    import pandas as pd

    cells = list(cells)
    made = pd.DataFrame([cell.as_dict() for cell in cells])
    made.attrs = {"provenance": cells[0].provenance if cells else MODEL}
    return made
