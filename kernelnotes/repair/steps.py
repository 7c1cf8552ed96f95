"""Dump and restore as lists of steps: which calls, in which order, and why.  Nothing is executed here.

A step names a call and its arguments.  What a call does is up to who performs it: a real socket (`live.repair`), a
recorded session, a test, or nobody, where the book only prints them.  Calls named like methods of socket.socket are
these; the others are

    ioctl(request)               the number that the kernel puts into an int
    poll(events)                 those of the events that are the case now
    attach_filter(program)       SO_ATTACH_FILTER with an array of struct sock_filter
    get_filter()                 SO_GET_FILTER: that array, empty without a filter
    room(option, size)           a buffer of `size` bytes at least, past the limit of the machine if we may
    buffer(option, size)         a buffer of `size` bytes, past the limit of the machine if we may
    send_all(data)               send(), again and again, until all is taken; never waiting
    disconnect()                 connect() to an address of family AF_UNSPEC
    inject(packet, address, scope, state)   an IP packet of our own making, with the mark that passes our lock, to that
                                 address of ours; done when it has brought the connection into that state
    clock(), random(size)        seconds since 1970, and bytes that nobody can guess

Source: net/ipv4/tcp.c, do_tcp_setsockopt(), tcp_repair_options_est(), tcp_repair_set_window(), tcp_recv_rcvq();
net/ipv4/tcp_input.c, tcp_send_rcvq(); criu soccr/soccr.c, whose order it is but for the lock, the options, the second
read, and the bytes that were never sent.
"""

from __future__ import annotations

import errno
import math
import struct
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.repair import constants as c
from kernelnotes.repair import options
from kernelnotes.repair.constants import SocketOption, TcpOption, TcpState, Window
from kernelnotes.repair.segment import Flags, Segment, signed
from kernelnotes.repair.snapshot import NO_WINDOW, STATES, Address, Snapshot, as_read, check_address

MOST_TRIES = 8  # reads of a connection that keeps changing under the lock, before we give up
LARGE = 8192  # bytes of a queue that may need a larger buffer than a new socket has
# TCP_MIN_MSS and MAX_TCP_WINDOW: TCP_MAXSEG takes nothing else, but a peer may want less, and loopback has more.
SMALLEST_MAXSEG, LARGEST_MAXSEG = 88, 32767


class Step(NamedTuple):
    """One call: what it is for, its name, its arguments, and the errors after which the plan goes on (result: None)."""

    what: str
    call: str
    args: tuple[Any, ...] = ()
    ignored: tuple[int, ...] = ()


Calls = Mapping[str, Callable[..., Any]]
Plan = Generator[list[Step], list[Any], Any]
Result = TypeVar("Result")


def perform(steps: Iterable[Step], calls: Calls) -> list[Any]:
    """The results of the steps.  Raises CallFailed that names the step which the kernel refused."""
    results = []
    for what, call, args, ignored in steps:
        try:
            results.append(calls[call](*args))
        except OSError as e:
            if e.errno not in ignored:
                raise CallFailed(e.errno, f"{what}: {e.strerror or e}") from e
            results.append(None)
    return results


def run(plan: Generator[list[Step], list[Any], Result], calls: Calls) -> Result:
    """What the plan returns, after each list of steps that it yields was performed and it was sent the results."""
    try:
        steps = next(plan)
        while True:
            steps = plan.send(perform(steps, calls))
    except StopIteration as end:
        result: Result = end.value
        return result
    finally:
        plan.close()


def _get(what: str, level: int, option: int, *size: int, ignored: tuple[int, ...] = ()) -> Step:
    return Step(what, "getsockopt", (level, int(option), *size), ignored)


def _tcp(what: str, option: TcpOption, value: int | bytes) -> Step:
    return Step(what, "setsockopt", (c.IPPROTO_TCP, int(option), value))


def _sol(what: str, option: SocketOption, value: int | bytes, ignored: tuple[int, ...] = ()) -> Step:
    return Step(what, "setsockopt", (c.SOL_SOCKET, int(option), value), ignored)


REPAIR_ON = _tcp("repair mode on", TcpOption.TCP_REPAIR, c.TCP_REPAIR_ON)
REPAIR_OFF = _tcp("repair mode off, with a window probe", TcpOption.TCP_REPAIR, c.TCP_REPAIR_OFF)
REPAIR_OFF_SILENTLY = _tcp("repair mode off, without a probe", TcpOption.TCP_REPAIR, c.TCP_REPAIR_OFF_NO_WP)
LOCK = Step("lock: nothing comes in", "attach_filter", (c.DROP_UNMARKED,))
UNLOCK = _sol("unlock", SocketOption.SO_DETACH_FILTER, 0, (errno.ENOENT,))
SELECT_RECV = _tcp("select the receive queue", TcpOption.TCP_REPAIR_QUEUE, c.TCP_RECV_QUEUE)
SELECT_SEND = _tcp("select the send queue", TcpOption.TCP_REPAIR_QUEUE, c.TCP_SEND_QUEUE)
SELECT_NONE = _tcp("select no queue", TcpOption.TCP_REPAIR_QUEUE, c.TCP_NO_QUEUE)
_SEQ = _get("its end", c.IPPROTO_TCP, TcpOption.TCP_QUEUE_SEQ)
_OOB_ON = _sol("urgent data in line", SocketOption.SO_OOBINLINE, 1)
_OOB_OFF = _sol("urgent data apart", SocketOption.SO_OOBINLINE, 0)
_INQ = Step("bytes not read", "ioctl", (c.SIOCINQ,))
_INFO = _get("state, options, window scales, bytes never sent", c.IPPROTO_TCP, TcpOption.TCP_INFO, c.INFO.size)
_CORK = _get("TCP_CORK", c.IPPROTO_TCP, TcpOption.TCP_CORK)
_WINDOWS = _get(
    "windows", c.IPPROTO_TCP, TcpOption.TCP_REPAIR_WINDOW, c.REPAIR_WINDOW.size, ignored=(errno.ENOPROTOOPT,)
)


# ------------------------------------------------------------------------------------- freeze


class Before(NamedTuple):
    """What a socket was before it was frozen: what the dump needs of it, and what is put back."""

    family: int
    state: TcpState
    local: Address
    peer: Address
    reuseaddr: int
    peek_off: int
    oobinline: int
    filter: bytes


_PROTOCOL = _get("protocol", c.SOL_SOCKET, SocketOption.SO_PROTOCOL)
_LOOK = [
    _get("state", c.IPPROTO_TCP, TcpOption.TCP_INFO, c.INFO.size),
    _get("repair mode?", c.IPPROTO_TCP, TcpOption.TCP_REPAIR),
    _get("protocol on top?", c.IPPROTO_TCP, TcpOption.TCP_ULP, 16, ignored=(errno.ENOPROTOOPT,)),
    Step("urgent data, or an error?", "poll", (c.POLLPRI | c.POLLERR,)),
    _get("filter locked?", c.SOL_SOCKET, SocketOption.SO_LOCK_FILTER),
    _get("SO_REUSEADDR", c.SOL_SOCKET, SocketOption.SO_REUSEADDR),
    _get("SO_PEEK_OFF", c.SOL_SOCKET, SocketOption.SO_PEEK_OFF),
    _get("SO_OOBINLINE", c.SOL_SOCKET, SocketOption.SO_OOBINLINE),
    Step("its own filter", "get_filter", (), (errno.EACCES,)),
    Step("local address", "getsockname"),
    Step("peer's address", "getpeername", (), (errno.ENOTCONN,)),
]


def look_steps(family: int, peer: Address | None = None) -> Generator[list[Step], list[Any], Before]:
    """What a socket is, and whether it can be frozen; changes nothing.  `peer` where the kernel has forgotten it.

    Raises BadInput for what cannot be dumped, and for a `peer` that is no address.
    """
    if peer is not None:
        check_address("peer", peer, family)
    [protocol] = yield [_PROTOCOL]
    if protocol != c.IPPROTO_TCP:
        raise BadInput(f"a socket of protocol {protocol} (262 is MPTCP), expected TCP ({c.IPPROTO_TCP})")
    info, repair, ulp, polled, locked, reuseaddr, peek_off, oobinline, program, local, there = yield _LOOK
    state = c.TCP_STATES[info[0]]
    if state not in STATES:
        known = ", ".join(sorted(s.name for s in STATES))
        raise BadInput(f"a socket in state {state.name} cannot be dumped; expected one of {known}")
    if repair:
        raise BadInput("the socket is in repair mode already: somebody else is at work on it")
    if ulp and ulp.strip(b"\0"):
        raise BadInput(f"{ulp.strip(bytes(1)).decode()} is on top of this connection, and its state cannot be read")
    if polled & c.POLLPRI:
        raise BadInput("urgent data is pending, which cannot be dumped: read it first (MSG_OOB)")
    if polled & c.POLLERR:
        raise BadInput("an error is pending on the socket: read it first (SO_ERROR)")
    if locked:
        raise BadInput("the socket's filter is locked (SO_LOCK_FILTER), so that we cannot lock the connection")
    if program is None:
        raise BadInput("the socket has an eBPF filter, which cannot be read")
    remote = there or peer
    if remote is None:
        raise BadInput(f"in state {state.name} the kernel does not tell the peer's address any more: expected `peer`")
    return Before(family, state, local, remote, int(bool(reuseaddr)), peek_off, oobinline, program)


class Held(NamedTuple):
    """What `hold_steps` changes."""

    window: bytes  # struct tcp_repair_window
    cork: int


def freeze_steps(before: Before) -> Generator[list[Step], list[Any], Held | None]:
    """Lock, then repair mode: in it alone a socket still takes data and acknowledges it.  Raises BadInput.

    Returns what `hold_steps` needs where there is something that was never sent.
    """
    yield [LOCK, REPAIR_ON]
    if before.peek_off != -1:
        yield [_sol("peek from the beginning", SocketOption.SO_PEEK_OFF, -1)]
    if not before.oobinline:
        # Behind an urgent byte that the application has fetched, or not yet noticed, the queue looks empty.
        apart, _, in_line, _ = yield [_INQ, _OOB_ON, _INQ, _OOB_OFF]
        if apart != in_line:
            raise BadInput("urgent data is in the receive queue, which cannot be dumped: read up to it first")
    [info] = yield [_INFO]
    if not c.INFO.unpack(info)[-1]:
        return None
    window, cork = yield [_WINDOWS, _CORK]
    return Held(window, cork) if window else None


def hold_steps(held: Held | None) -> list[Step]:
    """In repair mode too a socket sends what it has, as fast as it is paced: not any more, the peer's window is zero.

    Otherwise the peer would acknowledge what was dumped as never sent, and the target ignore all that says so.
    """
    return _window(_of(held)._replace(snd_wnd=0), 0) if held else []


def _of(held: Held) -> Window:
    return Window(*c.REPAIR_WINDOW.unpack(held.window))


def resume_steps(before: Before, held: Held | None = None) -> list[Step]:
    """As it was before; may be performed at any point of freezing and dumping."""
    return [
        *(_window(_of(held), 0) if held else []),
        SELECT_NONE._replace(ignored=(errno.EPERM,)),
        *([] if before.oobinline else [_OOB_OFF]),
        *([] if before.peek_off == -1 else [_sol("SO_PEEK_OFF", SocketOption.SO_PEEK_OFF, before.peek_off)]),
        # Before leaving: the probe's answer must come in.
        Step("the application's filter", "attach_filter", (before.filter,)) if before.filter else UNLOCK,
        REPAIR_OFF._replace(ignored=(errno.EPERM,)),
        _sol("SO_REUSEADDR", SocketOption.SO_REUSEADDR, before.reuseaddr),
        *(_push(held.cork) if held else []),
    ]


def release_steps() -> list[Step]:
    """The end of the source: in repair mode it is disconnected without a packet, whoever else holds it."""
    return [_DISCONNECT, REPAIR_OFF_SILENTLY, UNLOCK]


_DISCONNECT = Step("disconnect without a packet", "disconnect")


# ------------------------------------------------------------------------------------- dump

_NUMBERS = [
    _INFO,
    Step("bytes not acknowledged", "ioctl", (c.SIOCOUTQ,)),
    _INQ,
    _WINDOWS,
    SELECT_RECV,
    _SEQ,
    SELECT_SEND,
    _SEQ,
]
CLOCK = [Step("time of day", "clock")]
_NUMBERS_AGAIN = [*_NUMBERS, SELECT_NONE]
_REST = [
    _get("largest segment", c.IPPROTO_TCP, TcpOption.TCP_MAXSEG),
    _get("interface", c.SOL_SOCKET, SocketOption.SO_BINDTODEVICE, 16),
    _get("clock for time stamps", c.IPPROTO_TCP, TcpOption.TCP_TIMESTAMP),
    *CLOCK,
    Step("identity", "random", (16,)),
]
_OPTIONS = {
    family: [
        _get(name, o.level, o.number, *([o.size] if o.size else []), ignored=(errno.ENOPROTOOPT,))
        for name, o in options.of(family).items()
        if name not in options.READ_BEFORE
    ]
    for family in (c.AF_INET, c.AF_INET6)
}


class _Numbers(NamedTuple):
    # What is read twice.
    state: int
    offered: int  # tcpi_options
    scales: int
    notsent: int
    outq: int
    inq: int
    window: bytes | None
    rcv_nxt: int
    write_seq: int


def _numbers(results: list[Any]) -> _Numbers:
    info, outq, inq, window, _, rcv_nxt, _, write_seq = results
    state, offered, scales, notsent = c.INFO.unpack(info)
    return _Numbers(state, offered, scales, notsent, outq, inq, window, rcv_nxt & 0xFFFFFFFF, write_seq & 0xFFFFFFFF)


def dump_steps(before: Before, held: Held | None = None) -> Generator[list[Step], list[Any], Snapshot]:
    """Read a frozen connection; its numbers twice, until both times they are the same.  Changes nothing.

    `held` is what freeze_steps returned.
    Raises CallFailed (EAGAIN) if it does not come to rest, as without a lock.
    """
    numbers = _numbers((yield _NUMBERS))
    for _ in range(MOST_TRIES):
        lengths = _lengths(numbers)
        recv_queue, send_queue = yield from _peek_steps(*lengths)
        rest = yield _REST
        values = yield _OPTIONS[before.family]
        earlier, numbers = numbers, _numbers((yield _NUMBERS_AGAIN)[:-1])
        if numbers == earlier and (len(recv_queue), len(send_queue)) == lengths:
            if held:
                numbers = numbers._replace(window=held.window)
            return _snapshot(before, numbers, recv_queue, send_queue, rest, values)
        yield [SELECT_SEND]  # as for the first try: with no queue selected, peeking is EINVAL
    raise CallFailed(errno.EAGAIN, f"dump: the connection changed during each of {MOST_TRIES} reads; is it locked?")


def _lengths(n: _Numbers) -> tuple[int, int]:
    # SIOCOUTQ counts our FIN until it is acknowledged; in these two states nothing waits for the peer.
    if n.state in _NOTHING_WAITS:
        return n.inq, 0
    return n.inq, n.outq - (n.state in _FIN_WAITS)


_NOTHING_WAITS = frozenset({TcpState.TCP_CLOSE, TcpState.TCP_SYN_SENT})
_FIN_WAITS = frozenset({TcpState.TCP_FIN_WAIT1, TcpState.TCP_CLOSING, TcpState.TCP_LAST_ACK})


def _peek_steps(received: int, sent: int) -> Generator[list[Step], list[Any], tuple[bytes, bytes]]:
    # The send queue is the selected one.  One byte more than there should be, to see that there is none.
    recv_queue = send_queue = b""
    if sent:
        [send_queue] = yield [_peek("the send queue", sent)]
    if received:
        _, recv_queue = yield [SELECT_RECV, _peek("the receive queue", received)]
    return recv_queue or b"", send_queue or b""


def _peek(what: str, length: int) -> Step:
    return Step(what, "recv", (length + 1, c.MSG_PEEK | c.MSG_DONTWAIT), (errno.EAGAIN,))


def _snapshot(
    before: Before, n: _Numbers, recv_queue: bytes, send_queue: bytes, rest: list[Any], values: list[Any]
) -> Snapshot:
    clamp, interface, clock, taken, identity = rest
    state = c.TCP_STATES[n.state]
    offered = 0 if state is TcpState.TCP_SYN_SENT else n.offered
    notsent = n.notsent if send_queue or state in _FIN_WAITS else 0
    fin_unsent = bool(notsent) and state in _FIN_WAITS
    return as_read(
        state=state,
        family=before.family,
        local=before.local,
        peer=before.peer,
        recv_queue=recv_queue,
        rcv_nxt=n.rcv_nxt,
        send_queue=send_queue,
        write_seq=n.write_seq,
        unsent=notsent - fin_unsent,
        fin_unsent=fin_unsent,
        mss_clamp=clamp,
        snd_wscale=n.scales & 15 if offered & c.TCPI_OPT_WSCALE else None,
        rcv_wscale=n.scales >> 4 if offered & c.TCPI_OPT_WSCALE else None,
        sack=bool(offered & c.TCPI_OPT_SACK),
        timestamp=_timestamp(clock, offered),
        window=Window._make(c.REPAIR_WINDOW.unpack(n.window)) if n.window else NO_WINDOW,
        interface=interface.rstrip(b"\0").decode(),
        options=options.differing(before.family, (*values, before.reuseaddr, before.peek_off, before.oobinline)),
        filter=before.filter,
        taken=taken,
        identity=identity,
    )


def _timestamp(clock: int, offered: int) -> int | None:
    if not offered & c.TCPI_OPT_TIMESTAMPS:
        return None
    return (clock & 0xFFFFFFFE) | bool(offered & c.TCPI_OPT_USEC_TS)


# ------------------------------------------------------------------------------------- restore


def restore_steps(s: Snapshot, elapsed_ms: int = 0, probe: bool = True) -> list[Step]:
    """The calls that rebuild `s` on a new socket of its family, in order.

    `elapsed_ms` is the time since it was taken.  At the end one window probe tells the peer that we are there
    (`probe`), and where to send.  Raises BadInput: without the probe the windows must be known.
    """
    return prepare_steps(s, elapsed_ms) + commit_steps(s, probe)


def elapsed_ms(taken: float, now: float) -> int:
    """How much later the clock for time stamps is set, in ms, from two times in seconds since 1970."""
    # Rounded up, and 3 more: the clock loses up to 2 where it is made even, and some time passes until it is set.  If
    # it went back, the peer would drop what we send as old (PAWS); a step forward does no harm.
    return max(0, math.ceil((now - taken) * 1000)) + 3


def prepare_steps(s: Snapshot, elapsed_ms: int = 0) -> list[Step]:
    """All but the end of it: the socket is whole, but locked and in repair mode.  No packet is sent."""
    if s.state is TcpState.TCP_SYN_SENT:
        return [*_empty(s), *_begin("send", SELECT_SEND, s.send_start), *_late(s)]
    return [
        *_empty(s),
        *_begin("send", SELECT_SEND, s.send_start),
        *_begin("receive", SELECT_RECV, s.copied_seq),
        Step("connect, without a packet", "connect", (s.peer,)),
        *_negotiated(s, elapsed_ms),
        *_queues(s),
        *_ends(s),
        *_late(s),
    ]


def commit_steps(s: Snapshot, probe: bool = True) -> list[Step]:
    """The end of it: from here on the connection lives on this socket."""
    if not probe and s.window == NO_WINDOW:
        raise BadInput(
            "probe: without the windows (TCP_REPAIR_WINDOW) the probe must be sent, or the peer's are ignored"
        )
    unlock = Step("the application's filter", "attach_filter", (s.filter,)) if s.filter else UNLOCK
    wanted = s.options.get("SO_REUSEADDR", 0)
    reuse = [_sol("SO_REUSEADDR", SocketOption.SO_REUSEADDR, wanted) if wanted else _NO_REUSE]
    if s.state is TcpState.TCP_SYN_SENT:
        return [SELECT_NONE, unlock, REPAIR_OFF_SILENTLY, *reuse, *_SYN(s.peer)]
    leave = REPAIR_OFF if probe else REPAIR_OFF_SILENTLY
    push = _push(int(s.options.get("TCP_CORK", 0))) if s.unsent or s.fin_unsent else []
    return [SELECT_NONE, unlock, leave, *reuse, *push]


_NO_REUSE = _sol("SO_REUSEADDR", SocketOption.SO_REUSEADDR, 0)


# connect() chooses a scale for our windows; only the peer's answer to the SYN would take it back.  In repair mode there
# is none, and the peer would take a window of 64 KB for one of 64 bytes.  What fits into 16 bits needs no scale.
# net/ipv4/tcp_output.c, tcp_select_initial_window(); tcp_input.c, tcp_rcv_synsent_state_process() has the same 65535.
UNSCALED = Step("windows without a scale", "setsockopt", (c.IPPROTO_TCP, int(TcpOption.TCP_WINDOW_CLAMP), 65535))


def _empty(s: Snapshot) -> list[Step]:
    # Repair mode before bind(): ports in use are no obstacle then.  The segment size before connect(): otherwise the
    # first flight is sent in pieces of 524 bytes.
    interface = s.interface.encode() + b"\0"
    maxseg = min(max(s.mss_clamp, SMALLEST_MAXSEG), LARGEST_MAXSEG)
    scaled = s.snd_wscale is not None and s.rcv_wscale is not None
    return [
        REPAIR_ON,
        LOCK,
        *([_sol("interface", SocketOption.SO_BINDTODEVICE, interface)] if s.interface else []),
        *_set(s, late=False),
        Step("largest segment", "setsockopt", (c.IPPROTO_TCP, _MAXSEG, maxseg)),
        *([] if scaled or s.state is TcpState.TCP_SYN_SENT else [UNSCALED]),
        Step("local address", "bind", (s.local,)),
    ]


def _set(s: Snapshot, late: bool) -> list[Step]:
    settable = _SETTABLE[late]
    names = [name for name in s.options if name in settable]
    if len(names) > 1:
        names.sort(key=_PLACE.__getitem__)
    return [Step(name, "setsockopt", (*settable[name], s.options[name])) for name in names]


_BY_HAND = ("SO_SNDBUF", "SO_RCVBUF", "SO_BUF_LOCK", "SO_REUSEADDR")
_SETTABLE = {
    late: {n: (o.level, o.number) for n, o in options.OPTIONS.items() if o.late is late and n not in _BY_HAND}
    for late in (False, True)
}
_PLACE = {name: place for place, name in enumerate(options.OPTIONS)}


def _begin(which: str, select: Step, seq: int) -> list[Step]:
    signed = seq - (seq >> 31 << 32)  # setsockopt takes a C int
    return [select, Step(f"where the {which} queue begins", "setsockopt", (c.IPPROTO_TCP, _QUEUE_SEQ, signed))]


# As ints: those of an enumeration would cost a conversion each time.
_QUEUE_SEQ, _MAXSEG = int(TcpOption.TCP_QUEUE_SEQ), int(TcpOption.TCP_MAXSEG)
_REPAIR_OPTIONS, _TIMESTAMP = int(TcpOption.TCP_REPAIR_OPTIONS), int(TcpOption.TCP_TIMESTAMP)
_REPAIR_WINDOW = int(TcpOption.TCP_REPAIR_WINDOW)


def _negotiated(s: Snapshot, elapsed_ms: int) -> list[Step]:
    codes = [c.TCPOPT_MSS, s.mss_clamp]
    if s.snd_wscale is not None and s.rcv_wscale is not None:
        codes += c.TCPOPT_WINDOW, s.snd_wscale | s.rcv_wscale << 16
    if s.sack:
        codes += c.TCPOPT_SACK_PERM, 0
    if s.timestamp is None:
        return [_agreed(codes)]
    codes += c.TCPOPT_TIMESTAMP, 0
    later = s.timestamp_after(elapsed_ms)
    clock = Step("clock for time stamps", "setsockopt", (c.IPPROTO_TCP, _TIMESTAMP, later - (later >> 31 << 32)))
    return [_agreed(codes), clock]


def _agreed(codes: list[int]) -> Step:
    # An array of struct tcp_repair_opt.
    block = struct.pack(f"={len(codes)}I", *codes)
    return Step("what the two ends agreed on", "setsockopt", (c.IPPROTO_TCP, _REPAIR_OPTIONS, block))


def _queues(s: Snapshot) -> list[Step]:
    # What is sent with a queue selected goes into that queue, the send queue's part as sent already.  The receive
    # queue is still the selected one.
    steps = []
    if s.recv_queue:
        if len(s.recv_queue) > LARGE:
            steps.append(Step("room for it", "room", (_RCVBUF, len(s.recv_queue))))
        steps.append(Step("what the application has not read", "send_all", (s.recv_queue,)))
    if len(s.send_queue) > LARGE:
        # Doubled by the kernel, and counted with what each packet takes beside its bytes.
        steps.append(Step("room for it", "room", (_SNDBUF, len(s.send_queue) + (64 << 10))))
    if len(s.send_queue) > s.unsent:
        steps += [SELECT_SEND, Step("what the peer has not acknowledged", "send_all", (s.unacked,))]
    return steps


_OURS, _FIN, _ACK = "our FIN", "the peer's FIN", "its acknowledgement of ours"
_ORDER = {
    TcpState.TCP_FIN_WAIT1: (_OURS,),
    TcpState.TCP_FIN_WAIT2: (_OURS, _ACK),
    TcpState.TCP_CLOSING: (_OURS, _FIN),
    TcpState.TCP_CLOSE_WAIT: (_FIN,),
    TcpState.TCP_LAST_ACK: (_FIN, _OURS),
    TcpState.TCP_CLOSE: (_FIN, _OURS, _ACK),
}


def _ends(s: Snapshot) -> list[Step]:
    # What was never sent is written outside of repair mode, and must not leave yet: the peer's window is zero until the
    # end.  A FIN of the peer must fit into ours.
    order = _ORDER.get(s.state, ())
    steps = _window(s.window._replace(snd_wnd=0), int(_FIN in order)) if order or s.unsent else []
    if s.unsent and not s.fin_unsent:
        steps += _paused(s)
    for end in order:
        if end is not _OURS:
            steps += [SELECT_NONE, _forged(s, end)]
        elif s.fin_unsent:
            steps += _paused(s)
        else:
            steps += [SELECT_SEND, _SHUTDOWN]
    return steps if s.state is TcpState.TCP_CLOSE else steps + _window(s.window, 0)


_SHUTDOWN = Step(_OURS, "shutdown", (c.SHUT_WR,))


def _window(w: Window, room_for_fin: int) -> list[Step]:
    if w == NO_WINDOW:  # a kernel before 4.8: the probe's answer will tell
        return []
    snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup = w
    if signed(snd_wl1 - rcv_wup - rcv_wnd) > 0:
        # A kernel without memory for what arrives takes all of its window back (tcp_select_window(), ICSK_ACK_NOMEM).
        # Then snd_wl1, of a segment that came out of order, is beyond it, and tcp_repair_set_window() refuses that.
        snd_wl1 = rcv_wup
    rcv_wnd, rcv_wup = (rcv_wnd + room_for_fin) & 0xFFFFFFFF, (rcv_wup - room_for_fin) & 0xFFFFFFFF
    block = c.REPAIR_WINDOW.pack(snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup)
    return [Step("windows", "setsockopt", (c.IPPROTO_TCP, _REPAIR_WINDOW, block))]


def _paused(s: Snapshot) -> list[Step]:
    data = [Step("what was never sent", "send_all", (s.never_sent,))] if s.unsent else []
    return [SELECT_NONE, REPAIR_OFF_SILENTLY, *data, *([_SHUTDOWN] if s.fin_unsent else []), REPAIR_ON]


def _forged(s: Snapshot, end: str) -> Step:
    flags, seq, ack = (Flags.FIN | Flags.ACK, s.recv_end, s.send_start)
    after: TcpState = s.state if s.state is TcpState.TCP_CLOSING else TcpState.TCP_CLOSE_WAIT
    if end is _ACK:
        flags, seq, ack, after = (Flags.ACK, s.rcv_nxt, s.write_seq, s.state)
    source, target = (address[0].partition("%")[0].removeprefix("::ffff:") for address in (s.peer, s.local))
    segment = Segment(
        src=source, sport=s.peer[1], dst=target, dport=s.local[1], flags=flags, seq=seq, ack=ack, window=0
    )
    return Step(end, "inject", (segment.to_ip(), target, s.local[3] if len(s.local) == 4 else 0, after))


def _late(s: Snapshot) -> list[Step]:
    # A buffer set by hand stays as large as it was; one made larger for its queue is put back, and tuned on.
    locked, steps = int(s.options.get("SO_BUF_LOCK", 0)), []
    for name, number, queue, bit in (
        ("SO_SNDBUF", _SNDBUF, s.send_queue, c.SOCK_SNDBUF_LOCK),
        ("SO_RCVBUF", _RCVBUF, s.recv_queue, c.SOCK_RCVBUF_LOCK),
    ):
        if (locked & bit or len(queue) > LARGE) and name in s.options:
            steps.append(Step(name, "buffer", (number, int(s.options[name]) // 2)))
    if steps:
        steps.append(_sol("SO_BUF_LOCK", SocketOption.SO_BUF_LOCK, locked))
    return steps + _set(s, late=True)


_SNDBUF, _RCVBUF = int(SocketOption.SO_SNDBUF), int(SocketOption.SO_RCVBUF)


def _SYN(peer: Address) -> list[Step]:
    return [
        Step("do not wait", "setblocking", (False,)),
        Step("connect, with the same SYN", "connect", (peer,), (errno.EINPROGRESS,)),
        Step("wait again", "setblocking", (True,)),
    ]


def _push(cork: int) -> list[Step]:
    # Otherwise what was never sent waits for the next write, or for the answer to a probe, which may be lost.
    again = [_tcp("TCP_CORK", TcpOption.TCP_CORK, 1)] if cork else []
    return [_tcp("push what was never sent", TcpOption.TCP_CORK, 0), *again]
