"""Scenes with connections of the running kernel, for the book: see `kernelnotes.repair.scenes` for what they tell.

Each plays in a process and in network namespaces of its own, which end with it; where we are not root, in a user
namespace of its own too.  It is killed after `TIMEOUT_S`.  Raises Unavailable where the machine cannot do it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import hashlib
import itertools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from kernelnotes.errors import CallFailed, Unavailable
from kernelnotes.live import inside, moves
from kernelnotes.live import trial as live_trial
from kernelnotes.live.capture import Capture
from kernelnotes.live.netlab import Host, Lab
from kernelnotes.live.repair import calls, freeze, guard, observed, prepare
from kernelnotes.provenance import Provenance
from kernelnotes.repair import constants as c
from kernelnotes.repair import scenes, spelling
from kernelnotes.repair import steps as plan
from kernelnotes.repair.constants import SocketOption, TcpOption, TcpState
from kernelnotes.repair.scenes import HERE, NEW, OLD, PEER, told_packet
from kernelnotes.repair.segment import Flags, Segment
from kernelnotes.repair.snapshot import Snapshot
from kernelnotes.repair.steps import Calls, Step, perform

TIMEOUT_S = 60.0
PATIENCE_S = 1.2  # how long a trial waits for what was said; the peer's first retransmission comes after 0.2 s
PORT = 80
_FAILED, _PROGRESS = "Unavailable: ", "so far: "  # what begins a line of a scene that says so
_ports = itertools.count(40001)


def provenance(what: str) -> Provenance:
    """That it happened here and now."""
    return Provenance("live", f"{os.uname().sysname} {os.uname().release}", what, f"{date.today()}")


def life() -> scenes.Life:
    """A connection from the handshake to its end, dumped after each event."""
    return scenes.made_life(played("life"), provenance("a connection between two namespaces, dumped in repair mode"))


def entering() -> scenes.Entering:
    """Who may enter repair mode, and what can be bound in it."""
    return scenes.made_entering(played("entering"), provenance("setsockopt(TCP_REPAIR) and bind(), tried"))


def steps() -> scenes.Steps:
    """One dump and restore, call by call."""
    return scenes.made_steps(played("steps"), provenance("dump and restore, with a capture at the peer"))


def skipped() -> scenes.Skipped:
    """A dump and restore with a step left out."""
    return scenes.made_skipped(played("skipped"), provenance("dump and restore with a step left out"))


def states() -> scenes.States:
    """A dump and restore in each state."""
    return scenes.made_states(played("states"), provenance("dump and restore in each state"))


def move() -> scenes.Move:
    """A download that moves between two hosts."""
    return made_move(played("move"))


def made_move(told: dict[str, Any]) -> scenes.Move:
    """`Move` from what `played("move")` told."""
    return scenes.made_move(told, provenance("a connection moved between two namespaces"))


def require() -> None:
    """Raises Unavailable where this machine cannot play."""
    played("ready")


def played(scene: str, *arguments: str, progress: Callable[[str], None] = lambda _: None) -> Any:
    """What a scene of `SCENES` tells, as JSON has it; meanwhile `progress` is told how far it has got, if it says so.

    Raises Unavailable, and CallFailed where it breaks off.
    """
    command = [sys.executable, "-m", "kernelnotes.live.repair_scenes", scene, *arguments]
    last = ""
    with (
        tempfile.TemporaryFile() as told,
        subprocess.Popen(command, stdout=told, stderr=subprocess.PIPE, text=True, process_group=0) as process,
    ):
        timer = threading.Timer(TIMEOUT_S, process.kill)
        timer.start()
        try:
            for line in process.stderr or ():
                if line.startswith(_PROGRESS):
                    progress(line.removeprefix(_PROGRESS).rstrip())
                else:
                    last = line.strip() or last
            process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        if _FAILED in last:
            raise Unavailable(last.partition(_FAILED)[2])
        if process.returncode == -signal.SIGKILL:
            raise CallFailed(errno.ETIMEDOUT, f"the scene {scene} did not end within {TIMEOUT_S:g} s")
        if process.returncode:
            raise CallFailed(errno.EIO, f"the scene {scene} broke off: {last or f'status {process.returncode}'}")
        told.seek(0)
        return json.load(told)


# ------------------------------------------------------------------------------------- pieces of a scene


@contextlib.contextmanager
def _two_hosts() -> Iterator[tuple[Host, Host]]:
    with Lab() as lab:
        yield lab.host(HERE), lab.host(PEER)


def _connected(here: Host, peer: Host, buffer: int = 0, address: str = "") -> tuple[socket.socket, socket.socket]:
    # A connection from `here` to `peer`; the congestion control that every kernel has, so that it is the same anywhere.
    listener = peer.socket()
    listener.setsockopt(c.SOL_SOCKET, SocketOption.SO_REUSEADDR, 1)
    if buffer:
        listener.setsockopt(c.SOL_SOCKET, SocketOption.SO_RCVBUF, buffer)
    listener.bind((peer.address4, PORT))
    listener.listen()
    sock = here.socket()
    sock.setsockopt(c.IPPROTO_TCP, TcpOption.TCP_CONGESTION, b"reno")
    sock.bind((address or here.address4, next(_ports)))
    sock.connect((peer.address4, PORT))
    other, _ = listener.accept()
    listener.close()
    return sock, other


def _until(true: Callable[[], Any], what: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise CallFailed(errno.ETIMEDOUT, f"waited in vain: {what}")
        time.sleep(0.001)


def _unread(sock: socket.socket) -> int:
    return int(calls(sock)["ioctl"](c.SIOCINQ))


def _unacked(sock: socket.socket) -> int:
    return int(calls(sock)["ioctl"](c.SIOCOUTQ))


def _state(sock: socket.socket) -> str:
    return TcpState(sock.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_INFO, 1)[0]).name


_DEAF = c.SOCK_FILTER.pack(0x06, 0, 0, 0)  # BPF_RET: drop all


def _deaf(sock: socket.socket) -> None:
    # From now on it hears nothing, as if each packet to it were lost.
    calls(sock)["attach_filter"](_DEAF)


def _hears(sock: socket.socket) -> None:
    perform([plan.UNLOCK], calls(sock))


def _lines(count: int, start: int = 0) -> bytes:
    # Text that says where it is: one can see what is lost.
    return b"".join(b"line %06d\n" % k for k in range(start // 12, start // 12 + count // 12 + 1))[:count]


def _dumped(sock: socket.socket, peer: Any = None) -> Snapshot:
    with freeze(sock, peer) as frozen:
        return frozen.dump()


def _hex(snapshot: Snapshot) -> str:
    # Identity and time of day differ each time and say nothing.
    return dataclasses.replace(snapshot, identity=bytes(16), taken=0).to_bytes().hex()


def _run(steps: Generator[list[Step], list[Any], Any], sock: socket.socket, done: list[tuple[Step, Any]]) -> Any:
    # As repair.run, and `done` has each step with its result.
    used, results = calls(sock), None
    try:
        while True:
            wanted = next(steps) if results is None else steps.send(results)
            results = perform(wanted, used)
            done += zip(wanted, results, strict=True)
    except StopIteration as end:
        return end.value


def _spelled(done: Sequence[tuple[Step, Any]]) -> list[list[str]]:
    return [[step.what, spelling.call(step), spelling.result(step, found)] for step, found in done]


def _passed(capture: Capture, names: dict[str, str], began: float) -> list[dict[str, Any]]:
    return [told_packet(s.time - began, names[s.src], names[s.dst], s) for s in capture.segments]


def _answer(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as e:
        return errno.errorcode.get(e.errno or 0, str(e))
    return "yes"


# ------------------------------------------------------------------------------------- life


def _life() -> dict[str, Any]:
    with _two_hosts() as (here, peer):
        sock, other = _connected(here, peer)
        moments = []

        def after(what: str) -> Snapshot:
            snapshot = _dumped(sock)
            moments.append((what, _hex(snapshot)))
            return snapshot

        after("the handshake is over")
        other.sendall(_lines(6000))
        _until(lambda: _unread(sock) == 6000, "6,000 bytes")
        after("the peer writes 6,000 bytes")
        sock.recv(2500)
        after("our application reads 2,500 of them")
        sock.sendall(_lines(4000))
        _until(lambda: not _unacked(sock), "the acknowledgement")
        after("our application writes 4,000 bytes, and the peer acknowledges them")
        _deaf(other)
        sock.sendall(_lines(30_000, 4000))
        time.sleep(0.005)
        after("nothing reaches the peer any more; our application writes 30,000 bytes")
        other.sendall(_lines(3000, 6000))
        _until(lambda: _unread(sock) == 6500, "3,000 more bytes")
        seen = after("the peer, which can still send, writes 3,000 bytes")
        view = _seen(here, sock, seen)
        _hears(other)
        _until(lambda: not _unacked(sock), "the acknowledgement of all")
        after("the peer hears again, and acknowledges all there is")
        other.shutdown(socket.SHUT_WR)
        _until(lambda: _state(sock) == "TCP_CLOSE_WAIT", "the FIN")
        after("the peer has nothing more to say: its FIN arrives")
        _deaf(other)
        sock.sendall(_lines(5000, 34_000))
        sock.shutdown(socket.SHUT_WR)
        time.sleep(0.005)
        after("our application writes 5,000 bytes and shuts down too, unheard by the peer")
        return {"moments": moments, "at": 5, **view}


def _seen(here: Host, sock: socket.socket, snapshot: Snapshot) -> dict[str, Any]:
    # What others tell of it.
    end = f"{snapshot.local[1]:04X}"
    with here.inside():
        heading, *lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()
    [line] = [line for line in lines if line.split()[1].endswith(f":{end}")]
    ss = ""
    if shutil.which("ss"):
        ss = here.run(["ss", "-tienH", "sport", "=", f":{snapshot.local[1]}"]).stdout
    info = sock.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_INFO, 256)
    told = {"proc": f"{heading}\n{line}", "ss": ss, "info": info.hex()}
    return told | {"calls": _tried(sock, len(snapshot.recv_queue), len(snapshot.send_queue))}


def _tried(sock: socket.socket, received: int, sent: int) -> list[list[str]]:
    """Each call of a dump, outside of repair mode and within."""

    def get(option: TcpOption, *size: int) -> Step:
        return Step("", "getsockopt", (c.IPPROTO_TCP, int(option), *size))

    def peek(length: int) -> Step:
        return Step("", "recv", (length, c.MSG_PEEK | c.MSG_DONTWAIT))

    rows = {
        "state, and what was agreed on": [get(TcpOption.TCP_INFO, c.INFO.size)],
        "bytes not read": [Step("", "ioctl", (c.SIOCINQ,))],
        "bytes not acknowledged": [Step("", "ioctl", (c.SIOCOUTQ,))],
        "clock for time stamps": [get(TcpOption.TCP_TIMESTAMP)],
        "largest segment": [get(TcpOption.TCP_MAXSEG)],
        "the receive queue": [plan.SELECT_RECV, peek(received)],
        "its end, rcv_nxt": [plan.SELECT_RECV, get(TcpOption.TCP_QUEUE_SEQ)],
        "the send queue": [plan.SELECT_SEND, peek(sent)],
        "its end, write_seq": [plan.SELECT_SEND, get(TcpOption.TCP_QUEUE_SEQ)],
        "windows": [get(TcpOption.TCP_REPAIR_WINDOW, c.REPAIR_WINDOW.size)],
    }
    handle = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
    used = calls(handle)

    def outcome(wanted: list[Step]) -> str:
        try:
            return spelling.result(wanted[-1], perform(wanted, used)[-1])
        except CallFailed as e:
            return errno.errorcode[e.errno or 0]

    with handle:
        outside = {what: outcome(wanted) for what, wanted in rows.items()}
        with freeze(sock):
            within = {what: outcome(wanted) for what, wanted in rows.items()}
    spelled = {what: "; ".join(spelling.call(step) for step in wanted) for what, wanted in rows.items()}
    return [[what, spelled[what], outside[what], within[what]] for what in rows]


# ------------------------------------------------------------------------------------- entering


def _entering() -> dict[str, Any]:
    with _two_hosts() as (here, peer):
        new, listening, waiting = here.socket(), here.socket(), here.socket()
        listening.bind((here.address4, 8080))
        listening.listen()
        refuge = peer.socket()
        refuge.bind((peer.address4, 7))
        _deaf(refuge)
        refuge.listen()
        waiting.setblocking(False)
        waiting.connect_ex((peer.address4, 7))
        sock, _other = _connected(here, peer)
        half, gone = _connected(here, peer)
        gone.shutdown(socket.SHUT_WR)
        _until(lambda: _state(half) == "TCP_CLOSE_WAIT", "the FIN")
        several = (new, waiting, sock, half, listening)

        def entered() -> list[str]:
            return [_answer(partial(perform, [plan.REPAIR_ON], calls(one))) for one in several]

        allowed = entered()
        for one in several[:-1]:
            perform([plan.REPAIR_OFF_SILENTLY], calls(one))
        refused = _without_rights(entered)
        rows = [list(row) for row in zip(map(_state, several), allowed, refused, strict=True)]
        return {"states": rows, "binds": _binds(here, peer, sock)}


def _binds(here: Host, peer: Host, sock: socket.socket) -> list[list[str]]:
    first, last = _connected(here, peer)
    used = first.getsockname()
    first.close()  # we close first, so TIME_WAIT is ours
    _until(lambda: _state(last) == "TCP_CLOSE_WAIT", "the FIN")
    last.close()
    time.sleep(0.01)
    rows = []
    for what, address in (
        ("nothing", (here.address4, 9090)),
        ("a listener", (here.address4, 8080)),
        ("an open connection", sock.getsockname()),
        ("a connection in TIME_WAIT", used),
        ("another host's address", (peer.address4, 9090)),
    ):
        plain, repaired = here.socket(), here.socket()
        answers = [_answer(partial(plain.bind, address))]
        plain.close()
        perform([plan.REPAIR_ON], calls(repaired))
        answers.append(_answer(partial(repaired.bind, address)))
        repaired.close()
        rows.append([what, *answers])
    return rows


def _without_rights(ask: Callable[[], list[str]]) -> list[str]:
    # In a child that gives up all capabilities; the sockets are the same ones.
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        with open(read) as told:
            answers: list[str] = json.load(told)
        os.waitpid(child, 0)
        return answers
    try:
        _drop_capabilities()
        os.write(write, json.dumps(ask()).encode())
    finally:
        os._exit(0)


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


# ------------------------------------------------------------------------------------- steps

PAUSE_S = 0.02  # between two stages, so that one can see to which a packet belongs


def _steps() -> dict[str, Any]:
    with _two_hosts() as (here, peer):
        sock, other = _connected(here, peer)
        other.sendall(_lines(3000))
        sock.sendall(_lines(600))
        _until(lambda: _unread(sock) == 3000 and not _unacked(sock), "the first bytes")
        _deaf(other)
        sock.sendall(_lines(25_000, 600))
        time.sleep(0.005)
        names = {here.address4: HERE, peer.address4: PEER}
        dumped: list[tuple[Step, Any]] = []
        restored: list[tuple[Step, Any]] = []
        with peer.capture(keep=100) as capture:
            began, marks = time.time(), []

            def stage(what: str) -> None:
                marks.append([round(time.time() - began, 6), what])

            handle = socket.socket(fileno=os.dup(sock.fileno()))
            stage("lock, repair mode, dump")
            before = _run(plan.look_steps(handle.family), handle, dumped)
            held = _run(plan.freeze_steps(before), handle, dumped)
            snapshot = _run(plan.dump_steps(before, held), handle, dumped)
            time.sleep(PAUSE_S)
            with here.inside(), guard(snapshot.local):
                stage("the source closes in repair mode")
                handle.close()
                sock.close()
                time.sleep(PAUSE_S)
                new = here.socket()
                used = calls(new)
                wanted = plan.prepare_steps(snapshot, 0)
                cut = 1 + next(k for k, step in enumerate(wanted) if step.call == "connect")
                for what, some in (
                    ("new socket: repair mode, bind, connect", wanted[:cut]),
                    ("what was agreed on, queues, windows", wanted[cut:]),
                ):
                    stage(what)
                    restored += zip(some, perform(some, used), strict=True)
                    time.sleep(PAUSE_S)
            _hears(other)
            stage("repair mode off")
            leave = plan.commit_steps(snapshot)
            restored += zip(leave, perform(leave, used), strict=True)
            _until(lambda: not _unacked(new), "the acknowledgement of all")
            packets = _passed(capture, names, began)
        told = {"snapshot": _hex(snapshot), "dump": _spelled(dumped), "restore": _spelled(restored)}
        return told | {"marks": marks, "packets": packets}


# ------------------------------------------------------------------------------------- skipped

Change = Callable[[Snapshot, list[Step]], list[Step]]


def _whole(_: Snapshot, steps: list[Step]) -> list[Step]:
    return steps


def _without(*whats: str) -> Change:
    return lambda _, steps: [step for step in steps if not step.what.startswith(whats)]


def _clock(change: Callable[[int], int]) -> Change:
    def changed(_: Snapshot, steps: list[Step]) -> list[Step]:
        return [
            step._replace(args=(*step.args[:2], _signed(change(step.args[2] % 2**32))))
            if step.what == "clock for time stamps"
            else step
            for step in steps
        ]

    return changed


def _signed(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def _off_by(distance: int) -> Change:
    def changed(s: Snapshot, steps: list[Step]) -> list[Step]:
        wrong = _signed(s.send_start + distance)
        return [
            step._replace(args=(*step.args[:2], wrong)) if step.what == "where the send queue begins" else step
            for step in steps
        ]

    return changed


def _silently(s: Snapshot, steps: list[Step]) -> list[Step]:
    silent = [plan.REPAIR_OFF_SILENTLY if step == plan.REPAIR_OFF else step for step in steps]
    return _without("windows")(s, silent)


@dataclasses.dataclass
class _Trial:
    """One trial; `hold` has the two ends as long as it lasts."""

    name: str
    what: str
    change: Change = _whole
    lock: bool = True
    silent_close: bool = True
    guarded: bool = True
    base: int | None = None  # the peer's numbers begin there
    said: dict[str, int] = dataclasses.field(default_factory=lambda: {HERE: 0, PEER: 0})
    heard: dict[str, int] = dataclasses.field(default_factory=lambda: {HERE: 0, PEER: 0})
    errors: dict[str, str] = dataclasses.field(default_factory=lambda: {HERE: "", PEER: ""})
    began: float = 0.0
    marks: list[list[Any]] = dataclasses.field(default_factory=list)

    def mark(self, what: str) -> None:
        self.marks.append([round(time.time() - self.began, 6), what])

    def say(self, who: str, sock: socket.socket, data: bytes) -> None:
        """Say it, whether anybody hears it or not."""
        self.said[who] += len(data)
        self._try(who, lambda: sock.send(data, c.MSG_DONTWAIT | c.MSG_NOSIGNAL))

    def hear(self, who: str, sock: socket.socket) -> None:
        """Hear what there is."""

        def all_of_it() -> None:
            with contextlib.suppress(BlockingIOError):
                while part := sock.recv(1 << 16, c.MSG_DONTWAIT):
                    self.heard[who] += len(part)

        self._try(who, all_of_it)

    def _try(self, who: str, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as e:
            self.errors[who] = errno.errorcode.get(e.errno or 0, str(e))


_CLOCK, _WINDOWS = "the clock of the time stamps", "the windows, and no probe"
TRIALS: tuple[Callable[[], _Trial], ...] = tuple(
    lambda fixed=fixed: _Trial(**fixed)  # type: ignore[misc]
    for fixed in (
        {"name": "nothing", "what": "Every step is there."},
        {
            "name": "the lock",
            "what": "No filter drops what comes in. The peer writes 24 bytes when the dump has been taken; a socket in "
            "repair mode takes them and acknowledges them.",
            "lock": False,
        },
        {
            "name": "repair mode at the close",
            "what": "The source leaves repair mode and is closed as any socket, with bytes that nobody has read.",
            "silent_close": False,
        },
        {
            "name": "whoever takes packets meanwhile",
            "what": "The peer writes 24 bytes when the source is gone and the new socket is not there yet.",
            "guarded": False,
        },
        {
            "name": "the numbers of the queues",
            "what": "TCP_QUEUE_SEQ is not set, so both streams begin at 0; nor are the windows, which would not fit.",
            "change": _without("where the", "windows"),
        },
        {
            "name": "a number, by 1,000",
            "what": "TCP_QUEUE_SEQ of the send queue is 1,000 too high.",
            "change": _off_by(1000),
        },
        {
            "name": "what was agreed on",
            "what": "TCP_REPAIR_OPTIONS and the clock are not set: no scales, no SACK, no time stamps.",
            "change": _without("what the two ends", "clock for"),
        },
        {
            "name": f"{_CLOCK}, 1,000 s behind",
            "what": "The clock goes on from 1,000 seconds ago.",
            "change": _clock(lambda value: value - 1_000_000),
        },
        {
            "name": f"{_CLOCK}, an odd number",
            "what": "The clock is set to an odd number, as an older kernel may have given it.",
            "change": _clock(lambda value: value | 1),
        },
        {
            "name": f"{_WINDOWS}, small numbers",
            "what": "TCP_REPAIR_WINDOW is not set and repair mode left with -1. The peer's numbers are near 1,000.",
            "change": _silently,
            "base": 1000,
        },
        {
            "name": f"{_WINDOWS}, large numbers",
            "what": "TCP_REPAIR_WINDOW is not set and repair mode left with -1. The peer's numbers are near "
            "2,415,919,104, more than half of the circle.",
            "change": _silently,
            "base": 0x90000000,
        },
    )
)


def _skipped() -> dict[str, Any]:
    with _two_hosts() as (here, peer):
        names = {here.address4: HERE, peer.address4: PEER}
        running = []
        for make in TRIALS:
            trial = make()
            sock, other = _connected(here, peer)
            if trial.base is not None:
                sock, other = _renumbered(here, peer, sock, other, trial.base)
            capture = peer.capture(packets=512, keep=100)
            trial.began = time.time()
            with here.inside():
                new = _restored(trial, here, sock, other)
            trial.mark("both ends say something")
            trial.say(HERE, new, b"a line that we write\n")
            trial.say(PEER, other, b"a line of the peer\n")
            running.append((trial, new, other, capture, sock.getsockname() if sock.fileno() >= 0 else None))
        time.sleep(PATIENCE_S)
        for trial, new, other, *_ in running:
            trial.mark("both say something again")
            trial.say(HERE, new, b"another line that we write\n")
            trial.say(PEER, other, b"another line of the peer\n")
        time.sleep(PATIENCE_S / 3)
        return {"trials": [_told(*one[:4], names) for one in running]}


def _restored(trial: _Trial, here: Host, sock: socket.socket, other: socket.socket) -> socket.socket:
    """Dump, close, restore, all but what the trial leaves out."""
    trial.say(PEER, other, b"a line not read\n")
    _until(lambda: _unread(sock), "the line")
    handle = socket.socket(fileno=os.dup(sock.fileno()))
    used = calls(handle)
    trial.mark("dump")
    before = _run(plan.look_steps(handle.family), handle, [])
    freezing = [plan.LOCK, plan.REPAIR_ON] if trial.lock else [plan.REPAIR_ON]
    perform(freezing, used)
    snapshot = _run(plan.dump_steps(before), handle, [])
    if not trial.lock:
        trial.say(PEER, other, b"said while we look away\n")
        _until(lambda: not _unacked(other), "that it is acknowledged")
    with guard(snapshot.local) if trial.guarded else contextlib.nullcontext():
        trial.mark("close")
        if not trial.silent_close:
            perform([plan.UNLOCK, plan.REPAIR_OFF_SILENTLY], used)
        handle.close()
        sock.close()
        if not trial.guarded:
            trial.say(PEER, other, b"said while we are away\n\n")
        time.sleep(0.005)
        trial.mark("restore")
        new = here.socket()
        elapsed = round((time.time() - snapshot.taken) * 1000)
        wanted = trial.change(snapshot, plan.restore_steps(snapshot, elapsed))
        perform(wanted, calls(new))
    return new


def _renumbered(
    here: Host, peer: Host, sock: socket.socket, other: socket.socket, base: int
) -> tuple[socket.socket, socket.socket]:
    """The same connection with other numbers: both ends dumped, and built anew."""
    with freeze(sock) as one, freeze(other) as two:
        ours, theirs = one.dump(), two.dump()
        one.release()
        two.release()
    sock.close()
    other.close()
    made = []
    for host, s, sent, received in ((here, ours, 5000, base), (peer, theirs, base, 5000)):
        window = s.window._replace(snd_wl1=received, rcv_wup=received)
        fresh = dataclasses.replace(
            s, write_seq=sent, rcv_nxt=received, window=window, identity=os.urandom(16), options={"SO_REUSEADDR": 1}
        )
        made.append(prepare(fresh, host.socket))
    first, second = (target.commit(probe=False) for target in made)
    return first, second


def _told(
    trial: _Trial, new: socket.socket, other: socket.socket, capture: Capture, names: dict[str, str]
) -> dict[str, Any]:
    trial.hear(HERE, new)
    trial.hear(PEER, other)
    port = new.getsockname()[1]
    ours = [s for s in capture.segments if port in (s.sport, s.dport)]
    capture.stop()
    told = [told_packet(s.time - trial.began, names[s.src], names[s.dst], s) for s in ours]
    stamps = [(s.time, s.tsval) for s in ours if names[s.src] == HERE and s.tsval is not None]
    stamps = [stamp for stamp in stamps if stamp[0] - trial.began >= trial.marks[2][0]]
    clock = 0.0
    if len(stamps) > 1 and stamps[-1][0] - stamps[0][0] > 0.02:
        clock = (stamps[-1][1] - stamps[0][1]) % 2**32 / (stamps[-1][0] - stamps[0][0]) / 1000
    kept = ("name", "what", "said", "heard", "errors", "marks")
    states = {HERE: _state(new), PEER: _state(other)}
    return {name: getattr(trial, name) for name in kept} | {"states": states, "clock": clock, "packets": told}


# ------------------------------------------------------------------------------------- states


def _states() -> dict[str, Any]:
    with _two_hosts() as (here, peer):
        return {"moved": [_in_state(here, peer, state, make) for state, make in _MAKE.items()]}


Make = Callable[[socket.socket, socket.socket], None]


def _fin_wait1(sock: socket.socket, other: socket.socket) -> None:
    _deaf(other)
    sock.sendall(_lines(4000))
    sock.shutdown(socket.SHUT_WR)


def _fin_wait2(sock: socket.socket, other: socket.socket) -> None:
    sock.sendall(_lines(4000))
    sock.shutdown(socket.SHUT_WR)
    _until(lambda: _state(sock) == "TCP_FIN_WAIT2", "the acknowledgement")
    other.sendall(_lines(5000))


def _close_wait(sock: socket.socket, other: socket.socket) -> None:
    other.sendall(_lines(5000))
    other.shutdown(socket.SHUT_WR)
    _until(lambda: _state(sock) == "TCP_CLOSE_WAIT", "the FIN")


def _last_ack(sock: socket.socket, other: socket.socket) -> None:
    _close_wait(sock, other)
    _deaf(other)
    sock.sendall(_lines(4000))
    sock.shutdown(socket.SHUT_WR)


def _closing(sock: socket.socket, other: socket.socket) -> None:
    # Both say their last, and neither hears the other's acknowledgement.
    _deaf(other)
    _deaf(sock)
    sock.sendall(_lines(1000))  # one segment each, which is what is sent again while no acknowledgement is heard
    other.sendall(_lines(1000))
    sock.shutdown(socket.SHUT_WR)
    other.shutdown(socket.SHUT_WR)
    _hears(sock)


def _closed(sock: socket.socket, other: socket.socket) -> None:
    _close_wait(sock, other)
    sock.sendall(_lines(4000))
    sock.shutdown(socket.SHUT_WR)


def _established(sock: socket.socket, other: socket.socket) -> None:
    _deaf(other)
    sock.sendall(_lines(4000))
    other.sendall(_lines(5000))


_MAKE: dict[str, Make] = {
    "TCP_ESTABLISHED": _established,
    "TCP_FIN_WAIT1": _fin_wait1,
    "TCP_FIN_WAIT2": _fin_wait2,
    "TCP_CLOSING": _closing,
    "TCP_CLOSE_WAIT": _close_wait,
    "TCP_LAST_ACK": _last_ack,
    "TCP_CLOSE": _closed,
    "TCP_SYN_SENT": _established,
}


def _in_state(here: Host, peer: Host, state: str, make: Make) -> list[Any]:
    if state == "TCP_SYN_SENT":
        return _syn_sent(here, peer)
    sock, other = _connected(here, peer)
    remote, local = sock.getpeername(), sock.getsockname()
    with peer.capture(packets=256, keep=100) as capture:
        make(sock, other)
        _until(lambda: _state(sock) == state, state)
        _until(lambda: _unread(sock) in (0, 1000, 5000), "what the peer writes")
        time.sleep(0.005)
        with here.inside(), freeze(sock, remote) as frozen:
            snapshot = frozen.dump()
            with guard(local):
                frozen.release()
                sock.close()
                new = prepare(snapshot, here.socket).commit()
        after = _state(new)
        _hears(other)
        if not snapshot.fin_queued:
            new.shutdown(socket.SHUT_WR)
        theirs = _rest(other)
        if not snapshot.fin_received:
            other.shutdown(socket.SHUT_WR)
        ours = _rest(new)
        expected = snapshot.recv_queue == ours and _lines(len(theirs)) == theirs
        sent = {"TCP_CLOSE_WAIT": 0, "TCP_CLOSING": 1000}.get(state, 4000)
        resets = sum(Flags.RST in s.flags for s in capture.segments)
    new.close()
    other.close()
    arrived = len(ours) + len(theirs)
    want = len(snapshot.recv_queue) + sent
    return [_hex(snapshot), after, arrived, want, bool(expected) and arrived == want, resets]


def _rest(sock: socket.socket) -> bytes:
    sock.settimeout(5)
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def _syn_sent(here: Host, peer: Host) -> list[Any]:
    listener = peer.socket()
    listener.bind((peer.address4, 81))
    _deaf(listener)
    listener.listen()
    sock = here.socket()
    sock.setblocking(False)
    sock.bind((here.address4, next(_ports)))
    with peer.capture(packets=256, keep=100) as capture:
        sock.connect_ex((peer.address4, 81))
        with here.inside(), freeze(sock, (peer.address4, 81)) as frozen:
            snapshot = frozen.dump()
            with guard(snapshot.local):
                frozen.release()
                sock.close()
                new = prepare(snapshot, here.socket).commit()
        after = _state(new)
        _hears(listener)
        _until(lambda: _state(new) == "TCP_ESTABLISHED", "the handshake")
        other, _ = listener.accept()
        new.sendall(_lines(100))
        new.shutdown(socket.SHUT_WR)
        got = _rest(other)
        starts = {s.seq for s in capture.segments if s.flags == Flags.SYN and s.sport == snapshot.local[1]}
        resets = sum(Flags.RST in s.flags for s in capture.segments)
    whole = got == _lines(100) and starts == {snapshot.send_start}
    return [_hex(snapshot), after, len(got), 100, whole, resets]


# ------------------------------------------------------------------------------------- move

MOVES, HURRIED = 8, 4  # of these so many at the end, one right after the other
PART, MOST_AHEAD = 1 << 20, 2 << 20  # bytes: sent between two moves, and beyond that until the send queue is full
REST_S = 0.6  # between two moves that are not hurried; a peer answers a window probe every 0.5 s at most
MOST_PACKETS = 240


def _move(count: str = str(MOVES)) -> dict[str, Any]:
    moved = int(count)
    with Lab() as lab:
        peer, old, new = lab.host(PEER), lab.host(OLD), lab.host(NEW)
        address = "192.0.2.100"
        old.add_address(address)
        new.prepare(address)
        sock, other = _connected(old, peer, 1 << 17, address)
        report, child = _reader(other)
        captures = {host.name: host.capture(packets=100_000, keep=100) for host in (old, new, peer)}
        data = _lines(1 << 20)
        rows: list[tuple[float, int, float]] = []
        sent, all_marks, macs = 0, [], [peer.neighbours()[address]]
        sock.setblocking(False)
        hosts = itertools.cycle((new, old))
        last = 0.0
        for k in range(moved):
            while time.monotonic() < last + REST_S * (k < moved - HURRIED):
                sent = _pump(sock, data, sent, sent + 1)
                time.sleep(0.01)
            sent = _pump(sock, data, sent, sent + PART)
            since, last = time.monotonic() - last, time.monotonic()
            with _watched() as marks:
                sock, snapshot, freeze_us = moves.move(sock, next(hosts), sock.getpeername())
            sock.setblocking(False)
            if not rows:
                macs.append(_mac_after(peer, address, macs[0]))
            rows.append((freeze_us / 1e3, len(snapshot.recv_queue) + len(snapshot.send_queue), since if k else 0))
            where = lab.owner(address)
            _say(
                f"move {k + 1} of {moved}, to the {where.name if where else '?'}: {sent:,} bytes written so far, "
                f"{rows[-1][1]:,} carried over, stood still for {freeze_us / 1e3:.2f} ms"
            )
            all_marks.append(marks)
        sent = _pump(sock, data, sent, sent + PART)
        sock.setblocking(True)
        sock.shutdown(socket.SHUT_WR)
        _rest(sock)
        with open(report) as told:
            digest = told.read()
        os.waitpid(child, 0)
        return _moved_told(captures, all_marks, rows, sent, digest == _digest(data, sent), macs)


@contextlib.contextmanager
def _watched() -> Iterator[list[tuple[float, str]]]:
    """What `moves.move` does, with times; a step that occurs more than once stands where it was last done."""
    found: dict[str, float] = {}
    kept: list[tuple[float, str]] = []

    def watch(used: Calls) -> Calls:
        return {name: _timed(name, call, found) for name, call in used.items()}

    with observed(watch):
        yield kept
    kept += sorted((at, what) for what, at in found.items())


def _timed(name: str, call: Callable[..., Any], found: dict[str, float]) -> Callable[..., Any]:
    def timed(*args: Any) -> Any:
        result = call(*args)
        what = _EVENTS.get((name, *args)) or _EVENTS.get((name,))
        if what and not (what == _LOCKED and what in found):
            found[what] = time.time()
        return result

    return timed


_LOCKED = "the old socket is locked"
_EVENTS: dict[tuple[Any, ...], str] = {
    ("attach_filter", c.DROP_UNMARKED): _LOCKED,
    ("random", 16): "it is dumped",
    ("connect",): "the new socket is connected, without a packet",
    # The first of the steps that start it; the address has moved just before.
    (plan.SELECT_NONE.call, *plan.SELECT_NONE.args): "the address is on the new host",
    (plan.REPAIR_OFF.call, *plan.REPAIR_OFF.args): "the new socket lives",
    ("disconnect",): "the old socket has ended",
}


def _mac_after(peer: Host, address: str, before: str) -> str:
    with contextlib.suppress(CallFailed):
        _until(lambda: peer.neighbours()[address] != before, "the new hardware address", 1)
    return peer.neighbours()[address]


def _reader(sock: socket.socket) -> tuple[int, int]:
    # The peer's application is another process, which reads to the end and tells the hash of what it got.
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        sock.close()
        return read, child
    try:
        live_trial._libc("prctl", live_trial.PR_SET_PDEATHSIG, signal.SIGKILL)
        digest = hashlib.sha256()
        while part := sock.recv(1 << 15):  # rather slowly, so that there is always something to carry over
            digest.update(part)
            time.sleep(0.0005)
        os.write(write, digest.hexdigest().encode())
    finally:
        os._exit(0)


def _pump(sock: socket.socket, data: bytes, sent: int, end: int) -> int:
    # The stream is `data` over and over; up to byte `end` of it, and on until the send queue is full, or nearly so.
    while sent < end + MOST_AHEAD:
        at = sent % len(data)
        try:
            sent += sock.send(memoryview(data)[at : at + 65536])
        except BlockingIOError:
            if sent >= end:
                break
            time.sleep(0.0002)
    return sent


def _digest(data: bytes, count: int) -> str:
    digest = hashlib.sha256()
    while count > 0:
        digest.update(data[:count])
        count -= len(data)
    return digest.hexdigest()


def _moved_told(
    captures: dict[str, Capture],
    all_marks: list[list[tuple[float, str]]],
    moved: list[tuple[float, int, float]],
    sent: int,
    whole: bool,
    macs: list[str],
) -> dict[str, Any]:
    seen = {name: capture.segments for name, capture in captures.items()}
    for capture in captures.values():
        if capture.lost:
            raise CallFailed(errno.ENOBUFS, f"the capture lost {capture.lost} packets")
        capture.stop()
    arrivals = [s.time for s in seen[PEER] if s.dport == PORT and s.length]
    gaps = [(later - at, at) for at, later in itertools.pairwise(arrivals)]
    rows, spans = [], []
    for marks, (frozen_ms, queued, since_s) in zip(all_marks, moved, strict=True):
        start, end = marks[0][0], marks[-1][0]
        start = max((at for at in arrivals if at <= start), default=start)
        spans.append((start, end))
        rows.append([frozen_ms, max(gap for gap, at in gaps if start <= at <= end) * 1e3, queued, since_s * 1e3])
    usual = [gap for gap, at in gaps if not any(start <= at <= end for start, end in spans)]
    first = all_marks[0]
    told = {
        "moves": rows,
        "marks": [[round(at - first[0][0], 6), what] for at, what in first],
        "packets": _around(seen, first[0][0], first[-1][0]),
        "bytes": sent,
        "whole": whole,
        "resets": sum(Flags.RST in s.flags for segments in seen.values() for s in segments),
        "usual_ms": statistics.quantiles(usual, n=1000)[-1] * 1e3,
        "macs": macs,
    }
    return told


def _around(seen: dict[str, list[Segment]], start: float, end: float) -> list[dict[str, Any]]:
    # As the two hosts saw them: at the peer one cannot tell which of them sent it.
    packets = []
    for name in (OLD, NEW):
        for s in seen[name]:
            if start - 0.0006 <= s.time <= end + 0.0015:
                ways = (PEER, name) if s.sport == PORT else (name, PEER)
                packets.append(told_packet(s.time - start, *ways, s))
    return sorted(packets, key=lambda one: float(one["at"]))[:MOST_PACKETS]


# ------------------------------------------------------------------------------------- the process of a scene


def _ready() -> dict[str, Any]:
    with _two_hosts() as (here, peer):
        sock, _ = _connected(here, peer)
        _dumped(sock)
    return {}


def _say(text: str) -> None:
    print(f"{_PROGRESS}{text}", file=sys.stderr, flush=True)


SCENES: dict[str, Callable[..., dict[str, Any]]] = {
    "ready": _ready,
    "life": _life,
    "entering": _entering,
    "steps": _steps,
    "skipped": _skipped,
    "states": _states,
    "move": _move,
}


def _main(scene: str, *arguments: str) -> int:
    try:
        inside.enter_own_namespaces()
        told = SCENES[scene](*arguments)
    except Unavailable as e:
        print(f"{_FAILED}{e}", file=sys.stderr)
        return 1
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
