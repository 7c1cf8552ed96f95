"""What a connection looks like from its beginning to its end, and who may enter repair mode."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kernelnotes.errors import CallFailed
from kernelnotes.live.netlab import Host
from kernelnotes.live.repair import calls, freeze
from kernelnotes.live.repair_scenes.stage import (
    answer,
    as_hex,
    connected,
    dumped,
    lines,
    make_deaf,
    make_hear,
    state_of,
    two_hosts,
    unacked,
    unread,
    until,
)
from kernelnotes.repair import constants as c
from kernelnotes.repair import spelling
from kernelnotes.repair import steps as plan
from kernelnotes.repair.constants import TcpOption
from kernelnotes.repair.snapshot import Snapshot
from kernelnotes.repair.steps import Step, perform


def life() -> dict[str, Any]:
    with two_hosts() as (here, peer):
        sock, other = connected(here, peer)
        moments = []

        def after(what: str) -> Snapshot:
            snapshot = dumped(sock)
            moments.append((what, as_hex(snapshot)))
            return snapshot

        after("the handshake is over")
        other.sendall(lines(6000))
        until(lambda: unread(sock) == 6000, "6,000 bytes")
        after("the peer writes 6,000 bytes")
        sock.recv(2500)
        after("our application reads 2,500 of them")
        sock.sendall(lines(4000))
        until(lambda: not unacked(sock), "the acknowledgement")
        after("our application writes 4,000 bytes, and the peer acknowledges them")
        make_deaf(other)
        sock.sendall(lines(30_000, 4000))
        time.sleep(0.005)
        after("nothing reaches the peer any more; our application writes 30,000 bytes")
        other.sendall(lines(3000, 6000))
        until(lambda: unread(sock) == 6500, "3,000 more bytes")
        seen = after("the peer, which can still send, writes 3,000 bytes")
        view = _seen(here, sock, seen)
        make_hear(other)
        until(lambda: not unacked(sock), "the acknowledgement of all")
        after("the peer hears again, and acknowledges all there is")
        other.shutdown(socket.SHUT_WR)
        until(lambda: state_of(sock) == "TCP_CLOSE_WAIT", "the FIN")
        after("the peer has nothing more to say: its FIN arrives")
        make_deaf(other)
        sock.sendall(lines(5000, 34_000))
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


def entering() -> dict[str, Any]:
    with two_hosts() as (here, peer):
        new, listening, waiting = here.socket(), here.socket(), here.socket()
        listening.bind((here.address4, 8080))
        listening.listen()
        refuge = peer.socket()
        refuge.bind((peer.address4, 7))
        make_deaf(refuge)
        refuge.listen()
        waiting.setblocking(False)
        waiting.connect_ex((peer.address4, 7))
        sock, _other = connected(here, peer)
        half, gone = connected(here, peer)
        gone.shutdown(socket.SHUT_WR)
        until(lambda: state_of(half) == "TCP_CLOSE_WAIT", "the FIN")
        several = (new, waiting, sock, half, listening)

        def entered() -> list[str]:
            return [answer(partial(perform, [plan.REPAIR_ON], calls(one))) for one in several]

        allowed = entered()
        for one in several[:-1]:
            perform([plan.REPAIR_OFF_SILENTLY], calls(one))
        refused = _without_rights(entered)
        rows = [list(row) for row in zip(map(state_of, several), allowed, refused, strict=True)]
        return {"states": rows, "binds": _binds(here, peer, sock)}


def _binds(here: Host, peer: Host, sock: socket.socket) -> list[list[str]]:
    first, last = connected(here, peer)
    used = first.getsockname()
    first.close()  # we close first, so TIME_WAIT is ours
    until(lambda: state_of(last) == "TCP_CLOSE_WAIT", "the FIN")
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
        answers = [answer(partial(plain.bind, address))]
        plain.close()
        perform([plan.REPAIR_ON], calls(repaired))
        answers.append(answer(partial(repaired.bind, address)))
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
