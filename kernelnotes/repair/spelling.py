"""How a step is written in a table: the call as a C programmer knows it, and what came back, in few words.

setsockopt(TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)        recv(MSG_PEEK)                 14,480 bytes
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Any

from kernelnotes.repair import constants as c
from kernelnotes.repair.constants import IpOption, Ipv6Option, SocketOption, TcpOption, TcpState, Window
from kernelnotes.repair.segment import from_ip
from kernelnotes.repair.steps import Step

_NAMES: dict[int, type[IntEnum]] = {
    c.SOL_SOCKET: SocketOption,
    c.IPPROTO_TCP: TcpOption,
    c.IPPROTO_IP: IpOption,
    c.IPPROTO_IPV6: Ipv6Option,
}
_VALUES = {
    TcpOption.TCP_REPAIR: {1: "TCP_REPAIR_ON", 0: "TCP_REPAIR_OFF", -1: "TCP_REPAIR_OFF_NO_WP"},
    TcpOption.TCP_REPAIR_QUEUE: {0: "TCP_NO_QUEUE", 1: "TCP_RECV_QUEUE", 2: "TCP_SEND_QUEUE"},
}
_CODES = {
    c.TCPOPT_MSS: "MSS",
    c.TCPOPT_WINDOW: "window scales",
    c.TCPOPT_SACK_PERM: "SACK",
    c.TCPOPT_TIMESTAMP: "time stamps",
}
_REQUESTS = {c.SIOCINQ: "SIOCINQ", c.SIOCOUTQ: "SIOCOUTQ"}


def call(step: Step) -> str:
    """The call with its arguments by name; bytes by their number or, where it is a struct, by what stands in it."""
    _, name, args, _ = step
    if name in ("setsockopt", "getsockopt"):
        level, number, *rest = args
        option = _NAMES[level](number)
        value = f", {_value(option, rest[0])}" if name == "setsockopt" else ""
        return f"{name}({option.name}{value})"
    if name == "recv":
        return "recv(MSG_PEEK)"
    if name == "ioctl":
        return f"ioctl({_REQUESTS[args[0]]})"
    if name == "attach_filter":
        return (
            "setsockopt(SO_ATTACH_FILTER, drop all)" if args[0] == c.DROP_UNMARKED else "setsockopt(SO_ATTACH_FILTER)"
        )
    if name == "get_filter":
        return "getsockopt(SO_GET_FILTER)"
    if name in ("room", "buffer"):
        return f"setsockopt({SocketOption(args[0]).name}, {args[1]:,})"
    if name == "send_all":
        return f"send({size(args[0])})"
    if name in ("bind", "connect"):
        return f"{name}({_address(args[0])})"
    if name == "inject":
        segment = from_ip(args[0])
        return f"raw packet: {segment.flags}, seq {segment.seq}, ack {segment.ack}"
    return f"{_PLAIN.get(name, name)}({', '.join(map(_argument, args))})"


_PLAIN = {"disconnect": "connect to AF_UNSPEC", "clock": "time", "random": "getrandom"}


def _argument(value: Any) -> str:
    return _address(value) if isinstance(value, tuple) else str(value)


def _address(address: tuple[Any, ...]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _value(option: IntEnum, value: Any) -> str:
    if option is TcpOption.TCP_REPAIR_OPTIONS:
        return ", ".join(_CODES[code] + _detail(code, found) for code, found in c.REPAIR_OPT.iter_unpack(value))
    if option is TcpOption.TCP_REPAIR_WINDOW:
        return window(Window(*c.REPAIR_WINDOW.unpack(value)))
    if isinstance(value, bytes):
        return repr(value.rstrip(b"\0"))[1:]
    if option in (TcpOption.TCP_QUEUE_SEQ, TcpOption.TCP_TIMESTAMP):
        return str(value % 2**32)
    return _VALUES.get(option, {}).get(value, str(value))  # type: ignore[call-overload, no-any-return]


def _detail(code: int, value: int) -> str:
    if code == c.TCPOPT_MSS:
        return f" {value}"
    return f" {value & 0xFFFF} and {value >> 16}" if code == c.TCPOPT_WINDOW else ""


def window(w: Window) -> str:
    """The five numbers of the windows by name."""
    return ", ".join(f"{name} {value}" for name, value in zip(Window._fields, w, strict=True))


def size(data: bytes | memoryview) -> str:
    """How many bytes there are."""
    return "1 byte" if len(data) == 1 else f"{len(data):,} bytes"


def result(step: Step, found: Any) -> str:
    """What a step gave: a number, a state, a name, or how many bytes; empty where there is nothing to tell."""
    _, name, args, _ = step
    if found is None:
        return ""
    if isinstance(found, OSError):
        return errno.errorcode.get(found.errno or 0, "error")
    if name == "getsockopt":
        return _got(_NAMES[args[0]](args[1]), found)
    if isinstance(found, tuple):
        return _address(found)
    if isinstance(found, bytes):
        return size(found)
    return f"{found:,.0f}" if isinstance(found, int | float) else str(found)


def _got(option: IntEnum, found: int | bytes) -> str:
    if isinstance(found, int):
        return str(found % 2**32 if option in (TcpOption.TCP_QUEUE_SEQ, TcpOption.TCP_TIMESTAMP) else found)
    if option is TcpOption.TCP_INFO and len(found) >= c.INFO.size:
        state, offered, scales, notsent = c.INFO.unpack(found[: c.INFO.size])
        return (
            f"{TcpState(state).name}, options {offered}, scales {scales & 15} and {scales >> 4}, {notsent:,} not sent"
        )
    if option is TcpOption.TCP_REPAIR_WINDOW:
        return window(Window(*c.REPAIR_WINDOW.unpack(found)))
    text = found.rstrip(b"\0")
    return text.decode() if text.isascii() and text.decode().isprintable() else size(found)
