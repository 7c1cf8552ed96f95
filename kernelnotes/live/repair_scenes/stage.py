"""Pieces of a scene: two hosts, a connection between them, an end that hears nothing, and how things are told."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from kernelnotes.errors import CallFailed
from kernelnotes.live.capture import Capture
from kernelnotes.live.netlab import Host, Lab
from kernelnotes.live.repair import calls, freeze
from kernelnotes.live.repair_scenes import PROGRESS
from kernelnotes.repair import constants as c
from kernelnotes.repair import spelling
from kernelnotes.repair import steps as plan
from kernelnotes.repair.constants import SocketOption, TcpOption, TcpState
from kernelnotes.repair.scenes import HERE, PEER, told_packet
from kernelnotes.repair.snapshot import Snapshot
from kernelnotes.repair.steps import Step, perform

PORT = 80
PORTS = itertools.count(40001)


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    with Lab() as lab:
        yield lab.host(HERE), lab.host(PEER)


def connected(here: Host, peer: Host, buffer: int = 0, address: str = "") -> tuple[socket.socket, socket.socket]:
    # A connection from `here` to `peer`; the congestion control that every kernel has, so that it is the same anywhere.
    listener = peer.socket()
    listener.setsockopt(c.SOL_SOCKET, SocketOption.SO_REUSEADDR, 1)
    if buffer:
        listener.setsockopt(c.SOL_SOCKET, SocketOption.SO_RCVBUF, buffer)
    listener.bind((peer.address4, PORT))
    listener.listen()
    sock = here.socket()
    sock.setsockopt(c.IPPROTO_TCP, TcpOption.TCP_CONGESTION, b"reno")
    sock.bind((address or here.address4, next(PORTS)))
    sock.connect((peer.address4, PORT))
    other, _ = listener.accept()
    listener.close()
    return sock, other


def until(true: Callable[[], Any], what: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise CallFailed(errno.ETIMEDOUT, f"waited in vain: {what}")
        time.sleep(0.001)


def unread(sock: socket.socket) -> int:
    return int(calls(sock)["ioctl"](c.SIOCINQ))


def unacked(sock: socket.socket) -> int:
    return int(calls(sock)["ioctl"](c.SIOCOUTQ))


def state_of(sock: socket.socket) -> str:
    return TcpState(sock.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_INFO, 1)[0]).name


_DEAF = c.SOCK_FILTER.pack(0x06, 0, 0, 0)  # BPF_RET: drop all


def make_deaf(sock: socket.socket) -> None:
    # From now on it hears nothing, as if each packet to it were lost.
    calls(sock)["attach_filter"](_DEAF)


def make_hear(sock: socket.socket) -> None:
    perform([plan.UNLOCK], calls(sock))


def lines(count: int, start: int = 0) -> bytes:
    # Text that says where it is: one can see what is lost.
    return b"".join(b"line %06d\n" % k for k in range(start // 12, start // 12 + count // 12 + 1))[:count]


def dumped(sock: socket.socket, peer: Any = None) -> Snapshot:
    with freeze(sock, peer) as frozen:
        return frozen.dump()


def as_hex(snapshot: Snapshot) -> str:
    # Identity and time of day differ each time and say nothing.
    return dataclasses.replace(snapshot, identity=bytes(16), taken=0).to_bytes().hex()


def run_noted(steps: Generator[list[Step], list[Any], Any], sock: socket.socket, done: list[tuple[Step, Any]]) -> Any:
    # As repair.run, and `done` has each step with its result.
    used, results = calls(sock), None
    try:
        while True:
            wanted = next(steps) if results is None else steps.send(results)
            results = perform(wanted, used)
            done += zip(wanted, results, strict=True)
    except StopIteration as end:
        return end.value


def spelled(done: Sequence[tuple[Step, Any]]) -> list[list[str]]:
    return [[step.what, spelling.call(step), spelling.result(step, found)] for step, found in done]


def passed(capture: Capture, names: dict[str, str], began: float) -> list[dict[str, Any]]:
    return [told_packet(s.time - began, names[s.src], names[s.dst], s) for s in capture.segments]


def answer(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as e:
        return errno.errorcode.get(e.errno or 0, str(e))
    return "yes"


def rest_of(sock: socket.socket) -> bytes:
    sock.settimeout(5)
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def say(text: str) -> None:
    """How far the scene is: for `played`."""
    print(f"{PROGRESS}{text}", file=sys.stderr, flush=True)
