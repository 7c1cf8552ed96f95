"""Make the sessions of connection repair anew: `python tools/recordings/repair_sessions.py [NAME ...]`, on Linux.

Root, or anybody in `unshare -Urnm`.  Each is one move of one connection between two hosts of a `live.netlab.Lab`, in
one state, by `live.moves.move`, while its calls are recorded and its packets captured at the peer.  After the move both
ends read to their end, and every byte is compared; a session with a reset, or a byte lost, is not kept.
`kernelnotes.repair.session` reads them.
"""

import os
import socket
import sys
import time
from datetime import date
from pathlib import Path

from kernelnotes.live.capture import attach_filter
from kernelnotes.live.moves import move
from kernelnotes.live.netlab import Lab
from kernelnotes.live.repair import observed
from kernelnotes.provenance import Provenance
from kernelnotes.repair import Recorder, Session, session
from kernelnotes.repair.constants import SocketOption, TcpState
from kernelnotes.repair.segment import Flags

FOLDER = Path(__file__).resolve().parents[2] / "kernelnotes" / "recordings"
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6, "mapped": socket.AF_INET6}
DEAF = ((6, 0, 0, 0),)  # a filter that drops all
TEXT = b"The quick brown fox jumps over the lazy dog. " * 2000


class Ends:
    """The end that moves, `a`, and the peer, `b`; what each has written."""

    def __init__(self, lab, kind):
        self.lab, self.kind, self.family = lab, kind, FAMILIES[kind]
        self.old, self.new, self.server = (lab.host(name) for name in ("old", "new", "server"))
        self.address = {"ipv4": "192.0.2.100", "ipv6": "2001:db8::100", "mapped": "192.0.2.100"}[kind]
        self.old.add_address(self.address)
        self.wrote, self.are_deaf = {"a": b"", "b": b""}, set()

    def form(self, address):
        return f"::ffff:{address}" if self.kind == "mapped" else address

    def listen(self):
        listener = self.server.socket(self.family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind((self.form(self.server.address6 if self.kind == "ipv6" else self.server.address4), 80))
        listener.listen()
        return listener

    def socket(self):
        self.a = self.old.socket(self.family)
        self.a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.a.bind((self.form(self.address), 40000))

    def connect(self):
        listener = self.listen()
        self.socket()
        self.a.connect(listener.getsockname())
        self.peer = self.a.getpeername()
        self.b, _ = listener.accept()
        listener.close()
        # The handshake's last acknowledgement is on its way, and nothing else.
        time.sleep(0.01)

    def write(self, end, data):
        getattr(self, end).sendall(data)
        self.wrote[end] += data
        time.sleep(0.02)

    def fill(self):
        """Send what the peer's window takes, which the peer does not hear, and let more wait behind it."""
        self.deaf("b")
        self.a.setblocking(False)
        idle = 0
        while idle < 20:
            try:
                self.wrote["a"] += TEXT[: self.a.send(TEXT[:3000])]
                idle = 0
            except BlockingIOError:
                idle += 1
                time.sleep(0.01)
        self.a.setblocking(True)

    def shut(self, end):
        getattr(self, end).shutdown(socket.SHUT_WR)
        time.sleep(0.02)

    def deaf(self, end):
        attach_filter(getattr(self, end), DEAF)
        self.are_deaf.add(end)

    def hears(self, end):
        if end in self.are_deaf:
            getattr(self, end).setsockopt(socket.SOL_SOCKET, SocketOption.SO_DETACH_FILTER, 0)
            self.are_deaf.remove(end)

    def comes_to(self, state):
        deadline = time.monotonic() + 5
        while self.state() is not state:
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.state().name}, expected {state.name}")
            time.sleep(0.005)

    def state(self):
        return TcpState(self.a.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])


# ---------------------------------------------------------------------------------------- the states


def established(ends):
    ends.connect()
    ends.write("b", b"unread: what the peer wrote, and our application has not read. " * 5)
    ends.fill()


def fin_wait1(ends):
    ends.connect()
    ends.write("b", b"unread")
    ends.deaf("b")
    ends.write("a", b"sent, not acknowledged")
    ends.shut("a")


def fin_wait2(ends):
    ends.connect()
    ends.write("a", b"acknowledged")
    ends.shut("a")
    ends.write("b", b"unread")


def close_wait(ends):
    ends.connect()
    ends.write("b", b"unread, and then the peer's end")
    ends.shut("b")


def last_ack(ends):
    close_wait(ends)
    ends.deaf("b")
    ends.write("a", b"sent, not acknowledged")
    ends.shut("a")


def closing(ends):
    ends.connect()
    ends.deaf("b")
    ends.deaf("a")
    ends.write("a", b"from here")
    ends.shut("a")
    ends.write("b", b"from there")
    ends.shut("b")
    ends.hears("a")


def close(ends):
    close_wait(ends)
    ends.write("a", b"acknowledged")
    ends.shut("a")


def syn_sent(ends):
    # The peer does not listen to us yet: its host loses all, as if it were far away.
    loss = ends.lab.drop(1.0, target=ends.server)
    ends.listener = ends.listen()
    ends.socket()
    ends.peer = ends.listener.getsockname()
    ends.a.setblocking(False)
    ends.a.connect_ex(ends.peer)
    time.sleep(0.02)
    loss.stop()


STATES = {
    "established": (established, TcpState.TCP_ESTABLISHED),
    "fin-wait1": (fin_wait1, TcpState.TCP_FIN_WAIT1),
    "fin-wait2": (fin_wait2, TcpState.TCP_FIN_WAIT2),
    "close-wait": (close_wait, TcpState.TCP_CLOSE_WAIT),
    "last-ack": (last_ack, TcpState.TCP_LAST_ACK),
    "closing": (closing, TcpState.TCP_CLOSING),
    "close": (close, TcpState.TCP_CLOSE),
    "syn-sent": (syn_sent, TcpState.TCP_SYN_SENT),
}
SESSIONS = [f"{state}-ipv4" for state in STATES] + ["established-ipv6", "last-ack-mapped"]


def record(name):
    """The session of that name, after a look at what came of it."""
    state_name, _, kind = name.rpartition("-")
    make, state = STATES[state_name]
    recorder = Recorder()
    with Lab() as lab:
        ends = Ends(lab, kind)
        with ends.server.capture() as capture:
            make(ends)
            ends.comes_to(state)
            ends.hears("b")
            with observed(recorder):
                moved = move(ends.a, ends.new, ends.peer)
            ends.a, s = moved.sock, moved.snapshot
            if state is TcpState.TCP_ESTABLISHED and not (s.recv_queue and s.unacked and s.never_sent):
                raise SystemExit(f"{name}: expected bytes that are unread, not acknowledged and never sent")
            finish(ends, state)
            time.sleep(0.3)
            packets = capture.segments
            names = {ends.address: "client", **dict.fromkeys((ends.server.address4, ends.server.address6), "server")}
    if capture.lost or capture.unreadable or any(p.flags & Flags.RST for p in packets):
        raise SystemExit(f"{name}: a reset, or packets that were not captured")
    return Session(
        name=name,
        provenance=origin(name),
        family=int(ends.family),
        peer=ends.peer,
        calls=tuple(recorder.calls),
        packets=tuple(packets),
        names=names,
    )


def finish(ends, state):
    """Both sides to their end: every byte that one wrote, the other reads."""
    if state is TcpState.TCP_SYN_SENT:
        ends.b, _ = ends.listener.accept()
        ends.listener.close()
    elif ends.state() is not state:
        raise SystemExit(f"{ends.state().name} after the move, expected {state.name}")
    for end in ("a", "b"):
        getattr(ends, end).settimeout(5)
    if state in (TcpState.TCP_ESTABLISHED, TcpState.TCP_CLOSE_WAIT, TcpState.TCP_SYN_SENT):
        ends.a.shutdown(socket.SHUT_WR)
    expect(read(ends.b), ends.wrote["a"])
    if state in (TcpState.TCP_ESTABLISHED, TcpState.TCP_FIN_WAIT1, TcpState.TCP_FIN_WAIT2, TcpState.TCP_SYN_SENT):
        ends.b.shutdown(socket.SHUT_WR)
    expect(read(ends.a), ends.wrote["b"])


def read(sock):
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def expect(found, wanted):
    if found != wanted:
        raise SystemExit(f"{len(found)} bytes arrived, expected {len(wanted)}, or other ones")


def origin(name):
    # The release without what its builder appended.
    kernel = f"{os.uname().sysname} {os.uname().release.partition('-')[0]}"
    return Provenance("recorded", kernel, f"python tools/recordings/repair_sessions.py {name}", f"{date.today()}")


if __name__ == "__main__":
    for each in sys.argv[1:] or SESSIONS:
        made = record(each)
        session.replay(made)
        data = session.to_bytes(made)
        session.replay(session.from_bytes(data))
        (FOLDER / f"repair-{each}.jsonl.gz").write_bytes(data)
        print(f"{each}: {len(made.calls)} calls, {len(made.packets)} packets, {len(data)} bytes")
