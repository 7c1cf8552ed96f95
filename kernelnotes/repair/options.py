"""The socket options that make up a connection besides its queues and numbers: libsoccr leaves most of them out.

Source: net/core/sock.c, sk_setsockopt(); net/ipv4/tcp.c, do_tcp_setsockopt(); net/ipv4/ip_sockglue.c;
net/ipv6/ipv6_sockglue.c.  Left out: file status flags (O_NONBLOCK), ownership and signals (F_SETOWN), multicast and
IP options, TCP_MD5SIG and TCP-AO keys, zero copy, time stamping of packets, options of later kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from itertools import compress
from operator import ne
from types import MappingProxyType
from typing import Any, NamedTuple

from kernelnotes.errors import BadInput
from kernelnotes.repair.constants import (
    AF_INET,
    AF_INET6,
    IPPROTO_IP,
    IPPROTO_IPV6,
    IPPROTO_TCP,
    SOL_SOCKET,
    IpOption,
    Ipv6Option,
    SocketOption,
    TcpOption,
)

Value = int | bytes


class Option(NamedTuple):
    """One option: how it is read and set, and what a new socket has."""

    level: int
    number: int
    unset: Value | None  # None: differs from machine to machine, so it is always kept
    size: int  # bytes to ask for; 0: it is an int
    late: bool  # set when the queues are in place
    ipv6: bool  # only sockets of AF_INET6 have it


# Each with what a new socket has (None: that differs from machine to machine), in the order in which they are set.
_EARLY: tuple[tuple[IntEnum, Value | None], ...] = (
    (SocketOption.SO_REUSEPORT, 0),
    (SocketOption.SO_MARK, 0),
    (IpOption.IP_FREEBIND, 0),
    (IpOption.IP_TRANSPARENT, 0),
    (Ipv6Option.IPV6_V6ONLY, 0),
    (IpOption.IP_TOS, 0),
    (Ipv6Option.IPV6_TCLASS, 0),
    (SocketOption.SO_PRIORITY, 0),  # after IP_TOS, which sets it too
    (IpOption.IP_TTL, 64),
    (Ipv6Option.IPV6_UNICAST_HOPS, 64),
    (IpOption.IP_MTU_DISCOVER, 1),
    (Ipv6Option.IPV6_MTU_DISCOVER, 1),
    (IpOption.IP_RECVERR, 0),
    (Ipv6Option.IPV6_RECVERR, 0),
    (TcpOption.TCP_CONGESTION, None),
    (TcpOption.TCP_NODELAY, 0),
    (SocketOption.SO_KEEPALIVE, 0),
    (TcpOption.TCP_KEEPIDLE, 7200),
    (TcpOption.TCP_KEEPINTVL, 75),
    (TcpOption.TCP_KEEPCNT, 9),
    (TcpOption.TCP_SYNCNT, 6),
    (TcpOption.TCP_LINGER2, 60),
    (TcpOption.TCP_USER_TIMEOUT, 0),
    (TcpOption.TCP_THIN_LINEAR_TIMEOUTS, 0),
    (TcpOption.TCP_NOTSENT_LOWAT, 0),
    (SocketOption.SO_OOBINLINE, 0),
    (SocketOption.SO_MAX_PACING_RATE, -1),
    (SocketOption.SO_LINGER, bytes(8)),
)
# Set when the queues are in place: they would change how these are filled, or be changed by it.
_LATE: tuple[tuple[IntEnum, Value | None], ...] = (
    (SocketOption.SO_RCVLOWAT, 1),
    (SocketOption.SO_RCVTIMEO, bytes(16)),
    (SocketOption.SO_SNDTIMEO, bytes(16)),
    (SocketOption.SO_PEEK_OFF, -1),
    (SocketOption.SO_SNDBUF, None),
    (SocketOption.SO_RCVBUF, None),
    (SocketOption.SO_BUF_LOCK, 0),
    (TcpOption.TCP_CORK, 0),
    (SocketOption.SO_REUSEADDR, 0),  # leaving repair mode clears it, so that it comes last of all
)

_LEVELS = {
    SocketOption: SOL_SOCKET,
    TcpOption: IPPROTO_TCP,
    IpOption: IPPROTO_IP,
    Ipv6Option: IPPROTO_IPV6,
}
_TCP_CA_NAME_MAX = 16  # include/net/tcp.h


def _option(name: IntEnum, unset: Value | None, late: bool) -> Option:
    size = len(unset) if isinstance(unset, bytes) else _TCP_CA_NAME_MAX * (name is TcpOption.TCP_CONGESTION)
    return Option(_LEVELS[type(name)], int(name), unset, size, late, isinstance(name, Ipv6Option))


OPTIONS = MappingProxyType(
    {n.name: _option(n, unset, late) for late, rows in ((False, _EARLY), (True, _LATE)) for n, unset in rows}
)


_OF = {
    family: MappingProxyType({name: o for name, o in OPTIONS.items() if family == AF_INET6 or not o.ipv6})
    for family in (AF_INET, AF_INET6)
}


def of(family: int) -> Mapping[str, Option]:
    """Those that a socket of this family has, {name: option}."""
    return _OF[family]


# Freezing changes these three: they are read before.
READ_BEFORE = ("SO_REUSEADDR", "SO_PEEK_OFF", "SO_OOBINLINE")
# The order in which they are read, by family, and what a new socket has.
READ = {family: (*(name for name in of(family) if name not in READ_BEFORE), *READ_BEFORE) for family in _OF}
_UNSET = {family: tuple(OPTIONS[name].unset for name in names) for family, names in READ.items()}


def differing(family: int, values: Sequence[Any]) -> dict[str, Value]:
    """What a connection has and a new socket has not: {name: value}, from values as getsockopt returns them for `READ`.

    The size of its buffers is always kept.
    """
    differs = map(ne, values, _UNSET[family])
    found = {n: v for n, v in compress(zip(READ[family], values, strict=True), differs) if v is not None}
    if isinstance(name := found.get("TCP_CONGESTION"), bytes):
        found["TCP_CONGESTION"] = name.rstrip(b"\0")
    return found


def check(options: Mapping[str, Value], family: int) -> None:
    """Raises BadInput for an option that such a socket has not, and for a value that it cannot have."""
    known = of(family)
    for name, value in options.items():
        if name not in known:
            raise BadInput(f"option {name!r:.80}: expected one of {', '.join(known)}")
        option = known[name]
        if option.size and (type(value) is not bytes or len(value) > option.size):
            raise BadInput(f"option {name}: {value!r:.80}, expected at most {option.size} bytes")
        if not option.size and (type(value) is not int or not -(1 << 31) <= value < 1 << 31):
            raise BadInput(f"option {name}: {value!r:.80}, expected a C int")
