"""A connection at rest: two queues and a handful of numbers.

What came in, and what goes out, each a stream with 32-bit sequence numbers that wrap:

         read by the application |      recv_queue       | peer's FIN |  not there yet
    -----------------------------+-----------------------+------------+----------------> receive stream
                            copied_seq               recv_end      rcv_nxt

      acknowledged by the peer |  unacked  |  never_sent  | own FIN |  not written yet
    ---------------------------+-----------+--------------+---------+------------------> send stream
                            snd_una   unsent_seq       send_end  write_seq
                               |------- send_queue -------|

A FIN takes one sequence number.  The peer's is there once it has arrived, our own once the application has shut its
side down; it may be acknowledged, sent, or still waiting behind the data.  The kernel tells the *ends* (rcv_nxt and
write_seq, FIN included), the lengths of the queues give the rest.

Source: criu soccr/soccr.c, the comment above get_queue(); include/linux/tcp.h, struct tcp_sock.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kernelnotes.errors import BadInput
from kernelnotes.repair import constants as c
from kernelnotes.repair import files, options
from kernelnotes.repair.constants import AF_INET, AF_INET6, TcpState, Window
from kernelnotes.repair.options import Value

Address = tuple[str, int] | tuple[str, int, int, int]  # as the socket module has them; IPv6 with flow label and scope

S = TcpState
STATES = frozenset(
    {
        S.TCP_ESTABLISHED,
        S.TCP_SYN_SENT,
        S.TCP_FIN_WAIT1,
        S.TCP_FIN_WAIT2,
        S.TCP_CLOSE,
        S.TCP_CLOSE_WAIT,
        S.TCP_LAST_ACK,
        S.TCP_CLOSING,
    }
)
"""The states that can be dumped and restored."""
_FIN_RECEIVED = frozenset({S.TCP_CLOSE_WAIT, S.TCP_LAST_ACK, S.TCP_CLOSING, S.TCP_CLOSE})
_FIN_QUEUED = frozenset({S.TCP_FIN_WAIT1, S.TCP_FIN_WAIT2, S.TCP_CLOSING, S.TCP_LAST_ACK, S.TCP_CLOSE})
_FIN_ACKED = frozenset({S.TCP_FIN_WAIT2, S.TCP_CLOSE})
MOST_QUEUED = (1 << 31) - 1  # bytes: the largest receive window is half of that, and a message length is an int
NO_WINDOW = Window(0, 0, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One connection, read while it was frozen.  Sequence numbers are modulo 2**32, queues are bytes.

    Left out, because the kernel does not give them away or takes them back by itself: data that came out of order (the
    peer sends it again), the round-trip time, the congestion window, the peer's last time stamp, ECN, keys, timers.
    """

    state: TcpState
    family: int  # AF_INET or AF_INET6 (there also for IPv4-mapped addresses)
    local: Address
    peer: Address
    recv_queue: bytes = b""  # received and acknowledged, not read by the application
    rcv_nxt: int = 0  # the next number expected from the peer
    send_queue: bytes = b""  # written by the application, not acknowledged by the peer
    write_seq: int = 0  # the number of the next byte that the application will write
    unsent: int = 0  # so many bytes at the end of send_queue have never been sent
    fin_unsent: bool = False  # nor has our FIN
    mss_clamp: int = 536  # bytes; the largest segment that the two ends agreed on
    snd_wscale: int | None = None  # window scales, the peer's and ours; None: not negotiated
    rcv_wscale: int | None = None
    sack: bool = False
    timestamp: int | None = None  # our clock for time stamps, ms; odd: its unit is 1/1000 ms.  None: not negotiated
    window: Window = NO_WINDOW
    interface: str = ""  # SO_BINDTODEVICE
    options: Mapping[str, Value] = field(default_factory=dict)  # where they differ from a new socket's
    filter: bytes = b""  # the application's own socket filter, struct sock_filter[]
    taken: float = field(default_factory=time.time)  # seconds since 1970, when the time stamp was read
    identity: bytes = field(default_factory=lambda: secrets.token_bytes(16))  # a snapshot can be restored once
    _checked: bool = field(default=False, init=False, repr=False, compare=False)  # as it never changes, once is enough

    def as_dict(self) -> dict[str, Any]:
        """What is in it, for a table or JSON: of the queues the lengths, of the time the date."""
        numbers = ("copied_seq", "rcv_nxt", "snd_una", "unsent_seq", "write_seq", "unsent", "mss_clamp")
        agreed = ("snd_wscale", "rcv_wscale", "sack", "timestamp", "interface")
        return {
            "state": TcpState(self.state).name,
            "local": " ".join(map(str, self.local[:2])),
            "peer": " ".join(map(str, self.peer[:2])),
            "recv_queue": len(self.recv_queue),
            "send_queue": len(self.send_queue),
            **{name: getattr(self, name) for name in numbers + agreed},
            **self.window._asdict(),
            "options": {n: v.hex() if isinstance(v, bytes) else v for n, v in self.options.items()},
            "filter": len(self.filter) // c.SOCK_FILTER.size,
            "taken": datetime.fromtimestamp(self.taken, UTC).isoformat(timespec="milliseconds"),
            "identity": self.identity.hex(),
        }

    @property
    def fin_received(self) -> bool:
        """True if the peer will send nothing more, and we know it."""
        return self.state in _FIN_RECEIVED

    @property
    def fin_queued(self) -> bool:
        """True if our application will write nothing more: a FIN stands at the end of the send stream."""
        return self.state in _FIN_QUEUED

    @property
    def fin_acked(self) -> bool:
        """True if the peer knows it."""
        return self.state in _FIN_ACKED

    @property
    def recv_end(self) -> int:
        """Behind the last byte of `recv_queue`: rcv_nxt, less the peer's FIN."""
        return (self.rcv_nxt - self.fin_received) % 2**32

    @property
    def copied_seq(self) -> int:
        """The first byte of `recv_queue`: what the application reads next."""
        return (self.recv_end - len(self.recv_queue)) % 2**32

    @property
    def send_end(self) -> int:
        """Behind the last byte of `send_queue`: write_seq, less our FIN (or our SYN)."""
        return (self.write_seq - (self.fin_queued or self.state is S.TCP_SYN_SENT)) % 2**32

    @property
    def send_start(self) -> int:
        """The first byte of `send_queue`; in SYN_SENT the initial sequence number."""
        return (self.send_end - len(self.send_queue)) % 2**32

    @property
    def snd_una(self) -> int:
        """The first number that the peer has not acknowledged."""
        return self.write_seq if self.fin_acked else self.send_start

    @property
    def unsent_seq(self) -> int:
        """The first byte that was never sent, snd_nxt for the kernel unless the FIN is sent too."""
        return (self.send_end - self.unsent) % 2**32

    @property
    def unacked(self) -> memoryview:
        """The bytes of `send_queue` that were sent; not copied."""
        return memoryview(self.send_queue)[: len(self.send_queue) - self.unsent]

    @property
    def never_sent(self) -> memoryview:
        """The bytes of `send_queue` that were never sent; not copied."""
        return memoryview(self.send_queue)[len(self.send_queue) - self.unsent :]

    def timestamp_after(self, elapsed_ms: int) -> int:
        """What TCP_TIMESTAMP is set to that much later, so that the clock never goes back: the peer would drop us.

        Its lowest bit says how the kernel counts (1: in microseconds); an odd value of a kernel that did not know
        about it (before 6.7) is made even when it is dumped.
        """
        if self.timestamp is None:
            raise BadInput("this connection has no time stamps")
        micro = self.timestamp & 1
        return ((self.timestamp + elapsed_ms * (1000 if micro else 1)) & 0xFFFFFFFE) | micro

    def to_bytes(self) -> bytes:
        """The snapshot as a file: see `files`."""
        return files.pack(self)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Snapshot:
        """The snapshot in a file's bytes.  Raises BadInput for anything but a whole, unharmed file of our version."""
        snapshot = cls(**files.unpack(data))
        check(snapshot)
        return snapshot


def check(s: Snapshot) -> None:
    """Raises BadInput for a snapshot that contradicts itself, or holds what no connection has."""
    if not s._checked:
        _check(s)
        object.__setattr__(s, "_checked", True)


def as_read(**fields: Any) -> Snapshot:
    """A snapshot of all fields as they were just read from a connection, known to be as `check` wants it."""
    # Without the __init__ of a frozen dataclass, which sets each field by a call: that takes 6 us, while it is frozen.
    made = Snapshot.__new__(Snapshot)
    made.__dict__.update(fields, _checked=True)
    return made


def _check(s: Snapshot) -> None:
    if s.state not in STATES:
        raise BadInput(f"a connection in state {_name(s.state)} cannot be restored, {_names()} can")
    if s.family not in (AF_INET, AF_INET6):
        raise BadInput(f"family {s.family}: expected AF_INET ({AF_INET}) or AF_INET6 ({AF_INET6})")
    for name in ("local", "peer"):
        check_address(name, getattr(s, name), s.family)
    for name in ("rcv_nxt", "write_seq"):
        _check_range(name, getattr(s, name), 0, 2**32 - 1)
    _check_range("mss_clamp", s.mss_clamp, 1, 65535)
    if (s.snd_wscale is None) != (s.rcv_wscale is None):
        raise BadInput("window scales: both ends have one or none has")
    for name in ("snd_wscale", "rcv_wscale"):
        _check_range(name, getattr(s, name) or 0, 0, 14)
    if s.timestamp is not None:
        _check_range("timestamp", s.timestamp, 0, 2**32 - 1)
    _check_window(s)
    _check_queues(s)
    options.check(s.options, s.family)
    if len(s.identity) != 16:
        raise BadInput(f"identity: {len(s.identity)} bytes, expected 16")
    if len(s.filter) % 8 or len(s.filter) > 8 * 4096:
        raise BadInput(f"filter: {len(s.filter)} bytes, expected at most 4096 instructions of 8")
    if s.interface and not _is_interface(s.interface):
        raise BadInput(f"interface: {s.interface!r:.80}, expected a name of at most 15 bytes")


def _check_window(s: Snapshot) -> None:
    for name, value in zip(Window._fields, s.window, strict=True):
        _check_range(f"window.{name}", value, 0, 2**32 - 1)
    # As tcp_repair_set_window() in net/ipv4/tcp.c asks for it.
    w = s.window
    if w.max_window < w.snd_wnd:
        raise BadInput(f"window: max_window {w.max_window} is less than snd_wnd {w.snd_wnd}")


def _check_queues(s: Snapshot) -> None:
    for name in ("recv_queue", "send_queue"):
        if len(getattr(s, name)) > MOST_QUEUED:
            raise BadInput(f"{name}: {len(getattr(s, name))} bytes, expected at most {MOST_QUEUED}")
    if not 0 <= s.unsent <= len(s.send_queue):
        raise BadInput(f"unsent: {s.unsent} bytes of a send queue of {len(s.send_queue)}")
    if s.fin_unsent and (s.fin_acked or not s.fin_queued):
        raise BadInput(f"fin_unsent: there is no FIN to send in state {_name(s.state)}")
    if s.unsent and s.fin_queued and not s.fin_unsent:
        raise BadInput("fin_unsent: a FIN is not sent before the data in front of it")
    if s.send_queue and (s.fin_acked or s.state is S.TCP_SYN_SENT):
        raise BadInput(f"send_queue: {len(s.send_queue)} bytes, but nothing waits for the peer in {_name(s.state)}")
    if s.recv_queue and s.state is S.TCP_SYN_SENT:
        raise BadInput("recv_queue: nothing can have been received in TCP_SYN_SENT")


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise BadInput(f"{name}: {value!r}, expected {least} to {most}")


def check_address(name: str, address: Address, family: int) -> None:
    """Raises BadInput unless it is as the kernel tells it: numbers, since a name would be looked up on restoring."""
    length = 2 if family == AF_INET else 4
    if len(address) != length or type(address[0]) is not str or any(type(part) is not int for part in address[1:]):
        raise BadInput(f"{name}: {address!r:.80}, expected an address of {length} parts")
    _check_host(name, address[0], family)
    _check_range(f"{name} port", address[1], 1, 65535)
    for part, most in zip(address[2:], (2**20 - 1, 2**32 - 1), strict=False):  # flow label, scope
        _check_range(name, part, 0, most)


def _check_host(name: str, host: str, family: int) -> None:
    # The platform's own number of AF_INET6: ours is Linux's.
    version, known = ("IPv4", socket.AF_INET) if family == AF_INET else ("IPv6", socket.AF_INET6)
    number, percent, scope = host.partition("%") if family == AF_INET6 else (host, "", "")
    try:
        usual = socket.inet_ntop(known, socket.inet_pton(known, number)) + percent + scope
    except (OSError, ValueError):
        usual = ""
    if not usual or (percent and not _is_interface(scope)):
        raise BadInput(f"{name}: {host[:80]!r} is no {version} address")
    if usual != host:
        raise BadInput(f"{name}: {host!r}, expected {usual!r}")


def _is_interface(name: str) -> bool:
    # As dev_valid_name() in net/core/dev.c has it, where bytes count.
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= 15 and name not in (".", "..") and not any(c in "/:\0" or c.isspace() for c in name)


def _name(state: int) -> str:
    return TcpState(state).name if state in TcpState._value2member_map_ else str(state)


def _names() -> str:
    return ", ".join(state.name for state in sorted(STATES))
