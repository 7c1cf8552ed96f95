"""A socket made of a few integers that knows the rules of repair mode: whoever breaks one gets the kernel's errno.

It holds no truth about the kernel beyond these rules, each read in net/ipv4/tcp.c or tcp_input.c, as the comments say;
tests/live asks the kernel itself (it takes and refuses the same).  No packets, no timers, no loss: the peer is silent,
but for what is injected.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn

from kernelnotes.repair import constants as c
from kernelnotes.repair.constants import TcpOption, TcpState
from kernelnotes.repair.options import OPTIONS
from kernelnotes.repair.segment import Flags, from_ip, signed

S, SEND, RECV, NONE = TcpState, c.TCP_SEND_QUEUE, c.TCP_RECV_QUEUE, c.TCP_NO_QUEUE
LOCK = c.DROP_UNMARKED


def fail(number: Any) -> NoReturn:
    raise OSError(number, errno.errorcode[number])


def after(a: Any, b: Any) -> bool:
    """Whether a lies behind b, as in include/net/tcp.h."""
    return signed(a - b) > 0


class ToySocket:
    """`calls()` is what steps are performed on; `log` is (what was called, its arguments) in order."""

    def __init__(self, family: Any = c.AF_INET) -> None:
        self.family: Any = family
        self.log: list[tuple[str, Any]] = []
        self.before_call: Callable[[str, Any], Any] = lambda name, args: None
        self.state, self.repair, self.queue, self.filter = S.TCP_CLOSE, False, NONE, b""
        self.local: Any = None
        self.peer: Any = None
        self.received, self.rcv_nxt = b"", 0
        self.snd_una = self.snd_nxt = self.write_seq = 0
        self.written = b""  # from snd_una on, without a FIN
        self.window, self.snd_wnd = c.Window(0, 0, 0, 0, 0), 0
        self.agreed = SimpleNamespace(clamp=536, scales=None, sack=False, stamps=False)
        self.clock, self.interface, self.blocking = 0, "", True
        self.packets: list[Any] = []
        self.clamped = False
        self.options: dict[tuple[int, int], Any] = {
            (o.level, o.number): bytes(o.size) if o.size else o.unset or 0 for o in OPTIONS.values()
        }
        self.options |= {(1, 7): 16384, (1, 8): 131072}

    def calls(self) -> Any:
        names = [name for name in dir(self) if name.startswith("call_")]
        return {name[5:]: self._logged(name[5:], getattr(self, name)) for name in names}

    def _logged(self, name: Any, call: Any) -> Any:
        def logged(*args: Any) -> Any:
            self.log.append((name, args))
            self.before_call(name, args)
            return call(*args)

        return logged

    # --------------------------------------------------------------------------------- options

    def call_setsockopt(self, level: Any, number: Any, value: Any) -> Any:
        if level == c.IPPROTO_TCP and number in self.SET:
            self.SET[number](self, value)
        elif (level, number) == (1, 27):
            if not self.filter:
                fail(errno.ENOENT)
            self.filter = b""
        elif (level, number, value) == (c.IPPROTO_TCP, c.TcpOption.TCP_WINDOW_CLAMP, 65535):
            assert self.state is S.TCP_CLOSE  # once connected, a scale has been chosen
            self.clamped = True
        elif (level, number) == (1, 25):
            self.interface = value.rstrip(b"\0").decode()
        elif (level, number) in self.options:
            self.options[level, number] = value
        else:
            raise AssertionError((level, number, value))

    def _set_repair(self, value: Any) -> Any:
        if value == c.TCP_REPAIR_ON:
            self.repair, self.options[1, 2] = True, 2
        else:
            assert value in (c.TCP_REPAIR_OFF, c.TCP_REPAIR_OFF_NO_WP)
            # Where no scale was agreed on, that of connect() must not be left: it chose one unless it was clamped.
            assert self.state in (S.TCP_CLOSE, S.TCP_SYN_SENT) or self.agreed.scales or self.clamped
            if value == c.TCP_REPAIR_OFF and self.state is S.TCP_ESTABLISHED:
                self.packets.append("probe")
            self.repair, self.options[1, 2] = False, 0  # sk_reuse = SK_NO_REUSE

    def _set_queue(self, value: Any) -> Any:
        if not self.repair:
            fail(errno.EPERM)
        self.queue = value

    def _set_seq(self, value: Any) -> Any:
        if self.state is not S.TCP_CLOSE:
            fail(errno.EPERM)
        assert -(2**31) <= value < 2**31
        if self.queue == SEND:
            self.snd_una = self.snd_nxt = self.write_seq = value % 2**32
        elif self.queue == RECV:
            self.rcv_nxt = value % 2**32
        else:
            fail(errno.EINVAL)

    def _set_agreed(self, value: Any) -> Any:
        if not self.repair:
            fail(errno.EINVAL)
        if self.state is not S.TCP_ESTABLISHED or self.written:
            fail(errno.EPERM)
        for code, number in c.REPAIR_OPT.iter_unpack(value):
            if code == c.TCPOPT_MSS:
                self.agreed.clamp = number
            elif code == c.TCPOPT_WINDOW:
                self.agreed.scales = (number & 0xFFFF, number >> 16)
                assert max(self.agreed.scales) <= 14
            elif code == c.TCPOPT_SACK_PERM:
                self.agreed.sack = True
            elif code == c.TCPOPT_TIMESTAMP:
                self.agreed.stamps = True

    def _set_clock(self, value: Any) -> Any:
        if not self.repair:
            fail(errno.EPERM)
        self.clock = value % 2**32

    def _set_window(self, value: Any) -> Any:
        # tcp_repair_set_window()
        w = c.Window(*c.REPAIR_WINDOW.unpack(value))
        if not self.repair:
            fail(errno.EPERM)
        if w.max_window < w.snd_wnd or after(w.snd_wl1, self.rcv_nxt + w.rcv_wnd) or after(w.rcv_wup, self.rcv_nxt):
            fail(errno.EINVAL)
        self.window, self.snd_wnd = w, w.snd_wnd

    def _set_maxseg(self, value: Any) -> Any:
        if not 88 <= value <= 32767:
            fail(errno.EINVAL)
        self.user_mss = value

    SET: ClassVar[dict[int, Callable[[Any, Any], Any]]] = {
        TcpOption.TCP_REPAIR: _set_repair,
        TcpOption.TCP_REPAIR_QUEUE: _set_queue,
        TcpOption.TCP_QUEUE_SEQ: _set_seq,
        TcpOption.TCP_REPAIR_OPTIONS: _set_agreed,
        TcpOption.TCP_TIMESTAMP: _set_clock,
        TcpOption.TCP_REPAIR_WINDOW: _set_window,
        TcpOption.TCP_MAXSEG: _set_maxseg,
    }

    def call_getsockopt(self, level: Any, number: Any, size: Any = 0) -> Any:
        if level == c.IPPROTO_TCP and number in self.GET:
            return self.GET[number](self)
        if (level, number) in ((1, 38), (1, 44)):
            return {38: c.IPPROTO_TCP, 44: 0}[number]
        if (level, number) == (1, 25):
            return self.interface.encode() + b"\0"
        if level == c.IPPROTO_IPV6 and self.family == c.AF_INET:
            raise AssertionError("an option of IPv6 on a socket of IPv4")
        value = self.options[level, number]
        return value.ljust(size, b"\0") if isinstance(value, bytes) else value

    def _get_info(self) -> Any:
        offered = c.TCPI_OPT_SACK * self.agreed.sack | c.TCPI_OPT_TIMESTAMPS * self.agreed.stamps
        scales = self.agreed.scales or (0, 0)
        offered |= c.TCPI_OPT_WSCALE * (self.agreed.scales is not None)
        offered |= c.TCPI_OPT_USEC_TS * (self.agreed.stamps and self.clock % 2)
        notsent = (self.write_seq - self.snd_nxt) % 2**32
        return c.INFO.pack(self.state, offered, scales[0] | scales[1] << 4, notsent)

    def _get_seq(self) -> Any:
        if self.queue not in (RECV, SEND):
            fail(errno.EINVAL)
        return signed(self.rcv_nxt if self.queue == RECV else self.write_seq)

    def _get_window(self) -> Any:
        if not self.repair:
            fail(errno.EPERM)
        return c.REPAIR_WINDOW.pack(*self.window)

    def _no_ulp(self) -> Any:
        fail(errno.ENOPROTOOPT)

    GET: ClassVar[dict[int, Callable[[Any], Any]]] = {
        TcpOption.TCP_INFO: _get_info,
        TcpOption.TCP_REPAIR: lambda self: int(self.repair),
        TcpOption.TCP_ULP: _no_ulp,
        TcpOption.TCP_QUEUE_SEQ: _get_seq,
        TcpOption.TCP_REPAIR_WINDOW: _get_window,
        TcpOption.TCP_MAXSEG: lambda self: self.agreed.clamp if self.repair else 524,
        TcpOption.TCP_TIMESTAMP: lambda self: signed(self.clock),
    }

    # --------------------------------------------------------------------------------- data

    def call_ioctl(self, request: Any) -> Any:
        if request == c.SIOCINQ:
            return len(self.received)
        return 0 if self.state is S.TCP_SYN_SENT else (self.write_seq - self.snd_una) % 2**32

    def call_recv(self, size: Any, flags: Any) -> Any:
        assert flags == c.MSG_PEEK | c.MSG_DONTWAIT
        assert self.repair
        data = {RECV: self.received, SEND: self.written}[self.queue][:size]
        return data or fail(errno.EAGAIN)

    def call_send_all(self, data: Any) -> Any:
        data = bytes(data)
        assert self.state in (S.TCP_ESTABLISHED, S.TCP_CLOSE_WAIT)
        if self.repair and self.queue == NONE:
            fail(errno.EINVAL)
        if self.repair and self.queue == RECV:  # tcp_send_rcvq()
            self.received += data
            self.rcv_nxt = (self.rcv_nxt + len(data)) % 2**32
        else:
            self.written += data
            self._queued(len(data))

    def _queued(self, count: Any) -> Any:
        # tcp_write_xmit(): with the send queue selected in repair mode nothing leaves, and counts as sent.
        sent = self.snd_nxt == self.write_seq
        self.write_seq = (self.write_seq + count) % 2**32
        if self.repair and self.queue == SEND:
            assert sent
            self.snd_nxt = self.write_seq
        elif self.repair or self.snd_wnd:
            raise AssertionError("a packet leaves before the connection is complete")

    def call_shutdown(self, how: Any) -> Any:
        assert how == c.SHUT_WR
        self.state = {S.TCP_ESTABLISHED: S.TCP_FIN_WAIT1, S.TCP_CLOSE_WAIT: S.TCP_LAST_ACK}[self.state]
        self._queued(1)

    def call_inject(self, packet: Any, address: Any, scope: Any, state: Any) -> Any:
        s = from_ip(packet)
        assert self.filter == LOCK  # the mark lets it through
        assert self.queue == NONE  # otherwise its acknowledgement would mark as sent what is not
        assert (s.src, s.sport, s.dst, s.dport) == (*_host(self.peer), *_host(self.local))
        assert (address, scope) == (s.dst, self.local[3] if len(self.local) == 4 else 0)
        assert s.seq == self.rcv_nxt
        assert not after(s.ack, self.snd_nxt), "it acknowledges what was never sent"
        assert not after(self.snd_una, s.ack)
        if s.flags & Flags.FIN:
            assert s.ack == self.snd_una
            if self.window != (0,) * 5:  # outside of it it would be thrown away: tcp_sequence()
                assert not after(s.seq, self.window.rcv_wup + self.window.rcv_wnd)
            self.rcv_nxt = s.end
            moves = {S.TCP_ESTABLISHED: S.TCP_CLOSE_WAIT, S.TCP_FIN_WAIT1: S.TCP_CLOSING}
        else:
            assert s.ack == self.write_seq
            self.snd_una, self.written = s.ack, b""
            moves = {S.TCP_FIN_WAIT1: S.TCP_FIN_WAIT2, S.TCP_LAST_ACK: S.TCP_CLOSE}
        self.state = moves[self.state]
        assert self.state is state

    # --------------------------------------------------------------------------------- the rest

    def call_bind(self, address: Any) -> Any:
        assert self.repair  # otherwise a port in use is an obstacle
        self.local = address

    def call_connect(self, address: Any) -> Any:
        assert self.state is S.TCP_CLOSE
        self.peer = address
        if self.repair:
            self.state = S.TCP_ESTABLISHED
            return
        self.packets.append(("SYN", self.write_seq))
        self.state, self.snd_nxt = S.TCP_SYN_SENT, (self.write_seq + 1) % 2**32
        self.write_seq = self.snd_nxt
        if not self.blocking:
            fail(errno.EINPROGRESS)

    def call_disconnect(self) -> Any:
        if not self.repair:
            self.packets.append("RST")
        self.state, self.received, self.written = S.TCP_CLOSE, b"", b""

    def call_getsockname(self) -> Any:
        return self.local

    def call_getpeername(self) -> Any:
        if self.state in (S.TCP_CLOSE, S.TCP_SYN_SENT):
            fail(errno.ENOTCONN)
        return self.peer

    def call_attach_filter(self, program: Any) -> Any:
        self.filter = program

    def call_get_filter(self) -> Any:
        return self.filter

    def call_poll(self, events: Any) -> Any:
        return 0

    def call_setblocking(self, flag: Any) -> Any:
        self.blocking = flag

    def call_room(self, option: Any, size: Any) -> Any:
        self.options[1, option] = max(self.options[1, option], 2 * size)
        self.options[1, 72] |= {7: 1, 8: 2}[option]

    def call_buffer(self, option: Any, size: Any) -> Any:
        self.options[1, option] = 2 * size
        self.options[1, 72] |= {7: 1, 8: 2}[option]

    def call_clock(self) -> Any:
        return 1764046285.0

    def call_random(self, size: Any) -> Any:
        return bytes(range(size))


def _host(address: Any) -> Any:
    return address[0].partition("%")[0].removeprefix("::ffff:"), address[1]
