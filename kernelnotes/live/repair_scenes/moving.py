"""A download that moves between two hosts while it runs."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import itertools
import os
import signal
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from kernelnotes.errors import CallFailed
from kernelnotes.live import moves
from kernelnotes.live.capture import Capture
from kernelnotes.live.netlab import Host, Lab
from kernelnotes.live.repair import observed
from kernelnotes.live.repair_scenes.stage import (
    PORT,
    connected,
    lines,
    rest_of,
    say,
    until,
)
from kernelnotes.repair import constants as c
from kernelnotes.repair import steps as plan
from kernelnotes.repair.scenes import NEW, OLD, PEER, told_packet
from kernelnotes.repair.segment import Flags, Segment
from kernelnotes.repair.steps import Calls

PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
MOVES, HURRIED = 8, 4  # of these so many at the end, one right after the other
PART, MOST_AHEAD = 1 << 20, 2 << 20  # bytes: sent between two moves, and beyond that until the send queue is full
REST_S = 0.6  # between two moves that are not hurried; a peer answers a window probe every 0.5 s at most
MOST_PACKETS = 240


def move(count: str = str(MOVES)) -> dict[str, Any]:
    moved = int(count)
    with Lab() as lab:
        peer, old, new = lab.host(PEER), lab.host(OLD), lab.host(NEW)
        address = "192.0.2.100"
        old.add_address(address)
        new.prepare(address)
        sock, other = connected(old, peer, 1 << 17, address)
        report, child = _reader(other)
        captures = {host.name: host.capture(packets=100_000, keep=100) for host in (old, new, peer)}
        data = lines(1 << 20)
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
            say(
                f"move {k + 1} of {moved}, to the {where.name if where else '?'}: {sent:,} bytes written so far, "
                f"{rows[-1][1]:,} carried over, stood still for {freeze_us / 1e3:.2f} ms"
            )
            all_marks.append(marks)
        sent = _pump(sock, data, sent, sent + PART)
        sock.setblocking(True)
        sock.shutdown(socket.SHUT_WR)
        rest_of(sock)
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
        until(lambda: peer.neighbours()[address] != before, "the new hardware address", 1)
    return peer.neighbours()[address]


def _reader(sock: socket.socket) -> tuple[int, int]:
    # The peer's application is another process, which reads to the end and tells the hash of what it got.
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        sock.close()
        return read, child
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
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
