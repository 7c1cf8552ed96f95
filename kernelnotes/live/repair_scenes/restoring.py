"""One dump and restore: call by call, with a step left out, and in each state."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from kernelnotes.live.capture import Capture
from kernelnotes.live.netlab import Host
from kernelnotes.live.repair import calls, freeze, guard, prepare
from kernelnotes.live.repair_scenes.stage import (
    PORTS,
    as_hex,
    connected,
    lines,
    make_deaf,
    make_hear,
    passed,
    rest_of,
    run_noted,
    spelled,
    state_of,
    two_hosts,
    unacked,
    unread,
    until,
)
from kernelnotes.repair import constants as c
from kernelnotes.repair import steps as plan
from kernelnotes.repair.scenes import HERE, PEER, told_packet
from kernelnotes.repair.segment import Flags
from kernelnotes.repair.snapshot import Snapshot
from kernelnotes.repair.steps import Step, perform

PAUSE_S = 0.02  # between two stages, so that one can see to which a packet belongs


def steps() -> dict[str, Any]:
    with two_hosts() as (here, peer):
        sock, other = connected(here, peer)
        other.sendall(lines(3000))
        sock.sendall(lines(600))
        until(lambda: unread(sock) == 3000 and not unacked(sock), "the first bytes")
        make_deaf(other)
        sock.sendall(lines(25_000, 600))
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
            before = run_noted(plan.look_steps(handle.family), handle, dumped)
            held = run_noted(plan.freeze_steps(before), handle, dumped)
            snapshot = run_noted(plan.dump_steps(before, held), handle, dumped)
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
            make_hear(other)
            stage("repair mode off")
            leave = plan.commit_steps(snapshot)
            restored += zip(leave, perform(leave, used), strict=True)
            until(lambda: not unacked(new), "the acknowledgement of all")
            packets = passed(capture, names, began)
        told = {"snapshot": as_hex(snapshot), "dump": spelled(dumped), "restore": spelled(restored)}
        return told | {"marks": marks, "packets": packets}


# ------------------------------------------------------------------------------------- skipped

PATIENCE_S = 1.2  # how long a trial waits for what was said; the peer's first retransmission comes after 0.2 s
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


def skipped() -> dict[str, Any]:
    with two_hosts() as (here, peer):
        names = {here.address4: HERE, peer.address4: PEER}
        running = []
        for make in TRIALS:
            trial = make()
            sock, other = connected(here, peer)
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
    until(lambda: unread(sock), "the line")
    handle = socket.socket(fileno=os.dup(sock.fileno()))
    used = calls(handle)
    trial.mark("dump")
    before = run_noted(plan.look_steps(handle.family), handle, [])
    freezing = [plan.LOCK, plan.REPAIR_ON] if trial.lock else [plan.REPAIR_ON]
    perform(freezing, used)
    snapshot = run_noted(plan.dump_steps(before), handle, [])
    if not trial.lock:
        trial.say(PEER, other, b"said while we look away\n")
        until(lambda: not unacked(other), "that it is acknowledged")
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
    states = {HERE: state_of(new), PEER: state_of(other)}
    return {name: getattr(trial, name) for name in kept} | {"states": states, "clock": clock, "packets": told}


# ------------------------------------------------------------------------------------- states


def states() -> dict[str, Any]:
    with two_hosts() as (here, peer):
        return {"moved": [_in_state(here, peer, state, make) for state, make in _MAKE.items()]}


Make = Callable[[socket.socket, socket.socket], None]


def _fin_wait1(sock: socket.socket, other: socket.socket) -> None:
    make_deaf(other)
    sock.sendall(lines(4000))
    sock.shutdown(socket.SHUT_WR)


def _fin_wait2(sock: socket.socket, other: socket.socket) -> None:
    sock.sendall(lines(4000))
    sock.shutdown(socket.SHUT_WR)
    until(lambda: state_of(sock) == "TCP_FIN_WAIT2", "the acknowledgement")
    other.sendall(lines(5000))


def _close_wait(sock: socket.socket, other: socket.socket) -> None:
    other.sendall(lines(5000))
    other.shutdown(socket.SHUT_WR)
    until(lambda: state_of(sock) == "TCP_CLOSE_WAIT", "the FIN")


def _last_ack(sock: socket.socket, other: socket.socket) -> None:
    _close_wait(sock, other)
    make_deaf(other)
    sock.sendall(lines(4000))
    sock.shutdown(socket.SHUT_WR)


def _closing(sock: socket.socket, other: socket.socket) -> None:
    # Both say their last, and neither hears the other's acknowledgement.
    make_deaf(other)
    make_deaf(sock)
    sock.sendall(lines(1000))  # one segment each, which is what is sent again while no acknowledgement is heard
    other.sendall(lines(1000))
    sock.shutdown(socket.SHUT_WR)
    other.shutdown(socket.SHUT_WR)
    make_hear(sock)


def _closed(sock: socket.socket, other: socket.socket) -> None:
    _close_wait(sock, other)
    sock.sendall(lines(4000))
    sock.shutdown(socket.SHUT_WR)


def _established(sock: socket.socket, other: socket.socket) -> None:
    make_deaf(other)
    sock.sendall(lines(4000))
    other.sendall(lines(5000))


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
    sock, other = connected(here, peer)
    remote, local = sock.getpeername(), sock.getsockname()
    with peer.capture(packets=256, keep=100) as capture:
        make(sock, other)
        until(lambda: state_of(sock) == state, state)
        until(lambda: unread(sock) in (0, 1000, 5000), "what the peer writes")
        time.sleep(0.005)
        with here.inside(), freeze(sock, remote) as frozen:
            snapshot = frozen.dump()
            with guard(local):
                frozen.release()
                sock.close()
                new = prepare(snapshot, here.socket).commit()
        after = state_of(new)
        make_hear(other)
        if not snapshot.fin_queued:
            new.shutdown(socket.SHUT_WR)
        theirs = rest_of(other)
        if not snapshot.fin_received:
            other.shutdown(socket.SHUT_WR)
        ours = rest_of(new)
        expected = snapshot.recv_queue == ours and lines(len(theirs)) == theirs
        sent = {"TCP_CLOSE_WAIT": 0, "TCP_CLOSING": 1000}.get(state, 4000)
        resets = sum(Flags.RST in s.flags for s in capture.segments)
    new.close()
    other.close()
    arrived = len(ours) + len(theirs)
    want = len(snapshot.recv_queue) + sent
    return [as_hex(snapshot), after, arrived, want, bool(expected) and arrived == want, resets]


def _syn_sent(here: Host, peer: Host) -> list[Any]:
    listener = peer.socket()
    listener.bind((peer.address4, 81))
    make_deaf(listener)
    listener.listen()
    sock = here.socket()
    sock.setblocking(False)
    sock.bind((here.address4, next(PORTS)))
    with peer.capture(packets=256, keep=100) as capture:
        sock.connect_ex((peer.address4, 81))
        with here.inside(), freeze(sock, (peer.address4, 81)) as frozen:
            snapshot = frozen.dump()
            with guard(snapshot.local):
                frozen.release()
                sock.close()
                new = prepare(snapshot, here.socket).commit()
        after = state_of(new)
        make_hear(listener)
        until(lambda: state_of(new) == "TCP_ESTABLISHED", "the handshake")
        other, _ = listener.accept()
        new.sendall(lines(100))
        new.shutdown(socket.SHUT_WR)
        got = rest_of(other)
        starts = {s.seq for s in capture.segments if s.flags == Flags.SYN and s.sport == snapshot.local[1]}
        resets = sum(Flags.RST in s.flags for s in capture.segments)
    whole = got == lines(100) and starts == {snapshot.send_start}
    return [as_hex(snapshot), after, len(got), 100, whole, resets]
