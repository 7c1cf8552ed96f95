"""The 33 cases in which a connection that is frozen, moved and restored could lose something, on a live kernel.

Each case has its number, `@case(17)`, and the last test asks for all of them.  Where nothing else is said a connection
moves from one host to another, the captures at the peer are free of resets and of FINs that nobody sent, and every byte
is compared at both ends.
"""

import contextlib
import ctypes
import errno
import itertools
import os
import platform
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import capture as captures
from kernelnotes.live import repair as live
from kernelnotes.repair import constants as c
from kernelnotes.repair import options, steps
from kernelnotes.repair.constants import SocketOption, TcpOption, TcpState, Window
from kernelnotes.repair.segment import Flags, Segment
from kernelnotes.repair.snapshot import NO_WINDOW, Snapshot
from tests.live import streams
from tests.live.streams import comes_to, data, digest, fill, in_repair, read, read_all, state, until, watched

CASES = {}
every_kind = pytest.mark.parametrize("kind", streams.KINDS)
pytestmark = pytest.mark.needs("tcp repair")


def case(*numbers):
    """Notes that a test is about these cases."""

    def note(test):
        for number in numbers:
            CASES.setdefault(number, []).append(test.__name__)
        return test

    return note


@pytest.fixture(scope="module")
def place():
    with streams.world() as world:
        yield world


@pytest.fixture
def world(place):
    yield place
    place.reset()


# ------------------------------------------------------------------------------------- states
#
# How a state comes about: what the peer must still get, and what we must still read, both to the last byte.

BIG = data(1 << 20)


def established(a, b, lose):
    a.sendall(b"to the peer")
    b.sendall(b"from the peer")
    until(lambda: streams.unread(a) == 13 and not streams.unacked(a))
    return b"to the peer", b"from the peer"


def established_with_unacked_data(a, b, lose):
    lose("old")
    a.sendall(b"lost")
    b.sendall(b"unread")
    until(lambda: streams.unread(a) == 6)
    return b"lost", b"unread"


def established_with_unsent_data(a, b, lose):
    return BIG[: fill(a, BIG)], b""


def fin_wait1_with_unacked_data(a, b, lose):
    lose("old")
    a.sendall(b"lost")
    a.shutdown(socket.SHUT_WR)
    return b"lost", b""


def fin_wait1_without_data(a, b, lose):
    lose("old")
    a.shutdown(socket.SHUT_WR)
    return b"", b""


def fin_wait1_with_unsent_data(a, b, lose):
    size = fill(a, BIG)
    a.shutdown(socket.SHUT_WR)
    return BIG[:size], b""


def fin_wait2_with_unread_data(a, b, lose):
    a.sendall(b"x")
    a.shutdown(socket.SHUT_WR)
    comes_to(a, "FIN_WAIT2")
    b.sendall(b"unread")
    until(lambda: streams.unread(a) == 6)
    return b"x", b"unread"


def close_wait_with_unread_data(a, b, lose):
    b.sendall(b"unread")
    b.shutdown(socket.SHUT_WR)
    return b"", b"unread"


def close_wait_without_data(a, b, lose):
    b.shutdown(socket.SHUT_WR)
    return b"", b""


def close_wait_with_the_end_read(a, b, lose):
    b.sendall(b"read")
    b.shutdown(socket.SHUT_WR)
    assert read_all(a) == b"read"
    return b"", b""


def last_ack_with_unacked_data(a, b, lose):
    b.sendall(b"unread")
    b.shutdown(socket.SHUT_WR)
    comes_to(a, "CLOSE_WAIT")
    lose("old")
    a.sendall(b"lost")
    a.shutdown(socket.SHUT_WR)
    return b"lost", b"unread"


def last_ack_with_unsent_data(a, b, lose):
    size = fill(a, BIG)
    b.sendall(b"unread")
    b.shutdown(socket.SHUT_WR)
    comes_to(a, "CLOSE_WAIT")
    a.shutdown(socket.SHUT_WR)
    return BIG[:size], b"unread"


def closing(a, b, lose):
    lose("old")
    a.sendall(b"lost")
    a.shutdown(socket.SHUT_WR)
    b.sendall(b"unread")
    b.shutdown(socket.SHUT_WR)
    return b"lost", b"unread"


def close_with_unread_data(a, b, lose):
    b.sendall(b"unread")
    b.shutdown(socket.SHUT_WR)
    comes_to(a, "CLOSE_WAIT")
    a.sendall(b"data")
    a.shutdown(socket.SHUT_WR)
    return b"data", b"unread"


STATES = [
    ("ESTABLISHED", established),
    ("ESTABLISHED", established_with_unacked_data),
    ("ESTABLISHED", established_with_unsent_data),
    ("FIN_WAIT1", fin_wait1_with_unacked_data),
    ("FIN_WAIT1", fin_wait1_without_data),
    ("FIN_WAIT1", fin_wait1_with_unsent_data),
    ("FIN_WAIT2", fin_wait2_with_unread_data),
    ("CLOSE_WAIT", close_wait_with_unread_data),
    ("CLOSE_WAIT", close_wait_without_data),
    ("CLOSE_WAIT", close_wait_with_the_end_read),
    ("LAST_ACK", last_ack_with_unacked_data),
    ("LAST_ACK", last_ack_with_unsent_data),
    ("CLOSING", closing),
    ("CLOSE", close_with_unread_data),
]
MAY_WRITE, MAY_BE_WRITTEN_TO = ("ESTABLISHED", "CLOSE_WAIT"), ("ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2")


@case(2, 7, 8, 9, 10, 11, 12, 13, 16, 28)
@every_kind
@pytest.mark.parametrize(("expected", "make"), STATES, ids=[make.__name__ for _, make in STATES])
def test_every_state_is_restored_with_every_byte(world, kind, expected, make):
    a, b = world.pair(kind, rcvbuf=65536)
    there = a.getpeername()
    with contextlib.ExitStack() as losses, watched(world.peer, [world.address(kind), world.peer_address(kind)]):
        to_peer, to_us = make(a, b, lambda host: losses.enter_context(world.lab.drop(1, source=getattr(world, host))))
        comes_to(a, expected)
        moved, snapshot = world.move(kind, a, there)
        assert snapshot.state is TcpState[f"TCP_{expected}"]
        assert state(moved) == expected
        assert not in_repair(moved)
        assert not streams.has_filter(moved)
        finish(moved, b, expected, to_peer, to_us)


def finish(moved, b, was, to_peer, to_us):
    """The two streams go on where they may, and end; all of both has come."""
    if was in MAY_BE_WRITTEN_TO:
        b.sendall(b" and on")
        to_us += b" and on"
        b.shutdown(socket.SHUT_WR)
    with ThreadPoolExecutor() as pool:
        there = pool.submit(read_all, b)
        if was in MAY_WRITE:
            moved.sendall(b" and on")
            to_peer += b" and on"
            moved.shutdown(socket.SHUT_WR)
        assert digest(read_all(moved)) == digest(to_us)
        assert digest(there.result()) == digest(to_peer)


@case(13)
def test_a_closed_connection_needs_the_peers_address(world):
    a, b = world.pair("IPv4")
    close_with_unread_data(a, b, None)
    comes_to(a, "CLOSE")
    with pytest.raises(BadInput, match="expected `peer`"), live.freeze(a):
        pass
    assert read_all(a) == b"unread"


@pytest.mark.parametrize("make", [fin_wait2_with_unread_data, close_wait_with_unread_data, close_with_unread_data])
def test_a_socket_of_another_network_gets_its_fins_there(world, make):
    a, b = world.pair("IPv4")
    there = a.getpeername()
    to_peer, to_us = make(a, b, None)
    comes_to(a, expected := dict(map(reversed, STATES))[make])
    with live.freeze(a, there) as frozen, world.moving("IPv4", snapshot := frozen.dump()):
        frozen.release()
    a.close()
    with live.prepare(snapshot, world.new.socket) as prepared:
        moved = prepared.commit()
        world.opened.append(moved)
        assert state(moved) == expected
        finish(moved, b, expected, to_peer, to_us)


def test_fins_that_a_firewall_drops_are_missed_and_the_source_goes_on(world, monkeypatch):
    monkeypatch.setattr(live, "TAKEN_S", 0.1)
    a, b = world.pair("IPv4")
    to_peer, to_us = close_wait_with_unread_data(a, b, None)
    comes_to(a, "CLOSE_WAIT")
    with live.freeze(a) as frozen, world.moving("IPv4", snapshot := frozen.dump()):
        with world.firewall(world.new), pytest.raises(CallFailed, match="does a firewall drop it"):
            live.prepare(snapshot)
        world.old.take_over(world.service4)
    finish(a, b, "CLOSE_WAIT", to_peer, to_us)


# ------------------------------------------------------------------------------------- streams


def goes_on(a, b, seed=7, size=20_000):
    """Both directions carry more, and it is right."""
    there, here = data(size, seed), data(size, seed + 1)
    with ThreadPoolExecutor() as pool:
        got = pool.submit(read, b, size)
        a.sendall(there)
        b_sends = pool.submit(b.sendall, here)
        assert digest(read(a, size)) == digest(here)
        b_sends.result()
        assert digest(got.result()) == digest(there)


@case(1)
@every_kind
def test_a_hundred_idle_moves_and_back_change_no_number_and_send_one_probe_each(world, kind):
    a, b = world.pair(kind)
    goes_on(a, b)
    with watched(world.peer) as capture:
        first = None
        for _ in range(100):
            a, snapshot = world.move(kind, a)
            now = (snapshot.state, snapshot.rcv_nxt, snapshot.write_seq, snapshot.mss_clamp, snapshot.snd_wscale)
            first = first or now
            assert now == first
        ours = streams.plain(world.address(kind))
        until(lambda: sum(s.src == ours for s in capture.segments) >= 100)
        segments = capture.segments
    # The peer answers the first one, and others only so often: net.ipv4.tcp_invalid_ratelimit.
    assert {(s.src == ours, s.length, s.flags) for s in segments} == {(True, 0, Flags.ACK), (False, 0, Flags.ACK)}
    assert sum(s.src == ours for s in segments) == 100
    assert {s.seq for s in segments if s.src == ours} == {(first[2] - 1) % 2**32}
    goes_on(a, b)


@case(1)
@every_kind
def test_a_move_without_the_probe_sends_nothing_at_all(world, kind):
    a, b = world.pair(kind)
    goes_on(a, b)
    with watched(world.peer) as capture:
        a, _ = world.move(kind, a, probe=False)
        time.sleep(0.05)
        assert capture.segments == []
        goes_on(a, b)


@case(3)
@every_kind
def test_data_whose_acknowledgement_was_lost_is_not_delivered_twice(world, kind):
    a, b = world.pair(kind)
    sent = data(5000)
    with world.lab.drop(1, source=world.peer), watched(world.peer):
        a.sendall(sent)
        assert read(b, len(sent)) == sent
        a, snapshot = world.move(kind, a)
    assert digest(snapshot.send_queue) == digest(sent)
    assert snapshot.unsent == 0
    goes_on(a, b)
    assert not streams.unread(b)


@case(4)
@every_kind
def test_data_that_was_lost_is_sent_again_from_the_target(world, kind):
    a, b = world.pair(kind)
    sent = data(5000)
    with world.lab.drop(1, source=world.old), watched(world.peer) as capture:
        a.sendall(sent)
        a, snapshot = world.move(kind, a)
        assert bytes(snapshot.unacked) == sent
        assert digest(read(b, len(sent))) == digest(sent)
        assert {s.length for s in capture.segments if s.length} - {snapshot.mss_clamp - 12} <= {
            5000 % 1448,
            5000 % 1428,
        }
    goes_on(a, b)


@case(5)
@every_kind
def test_a_zero_window_is_restored_and_what_waited_behind_it_arrives(world, kind):
    a, b = world.pair(kind, rcvbuf=4096)
    with watched(world.peer):
        sent = BIG[: fill(a, BIG)]
        b.settimeout(streams.PATIENCE_S)
        moved, snapshot = world.move(kind, a)
        unacked = len(snapshot.unacked)
        assert snapshot.window.snd_wnd <= unacked
        assert snapshot.unsent > 0
        assert streams.unacked(moved) == len(snapshot.send_queue)
        assert digest(read(b, len(sent))) == digest(sent)
    goes_on(moved, b)


@pytest.fixture
def large_buffers(world):
    """New sockets of the two hosts have room for 16 MB."""
    limits = {"net.ipv4.tcp_rmem": "4096 33554432 33554432", "net.ipv4.tcp_wmem": "4096 33554432 33554432"}
    before = [
        (host, name, host.sysctl(name, value)) for host in (world.old, world.new) for name, value in limits.items()
    ]
    yield
    for host, name, value in before:
        host.sysctl(name, value)


@case(6)
@every_kind
def test_5_mb_unsent_and_12_mb_unread_at_once_arrive(world, kind, large_buffers):
    a, b = world.pair(kind, rcvbuf=65536)
    to_peer, to_us = data(8 << 20, 1), data(12_900_000, 2)
    with watched(world.peer, packets=40_000):
        with ThreadPoolExecutor() as pool:
            writing = pool.submit(b.sendall, to_us)
            until(lambda: streams.unread(a) == len(to_us))
            writing.result()
        size = fill(a, to_peer)
        moved, snapshot = world.move(kind, a)
        assert len(snapshot.recv_queue) == len(to_us)
        assert size - 200_000 < snapshot.unsent
        assert snapshot.unsent > 5 << 20
        with ThreadPoolExecutor() as pool:
            there = pool.submit(read, b, size)
            assert digest(read(moved, len(to_us))) == digest(to_us)
            assert digest(there.result()) == digest(to_peer[:size])
    goes_on(moved, b)


@case(14)
@every_kind
@pytest.mark.parametrize("probe", [True, False])
def test_a_connection_that_is_being_opened_sends_the_same_syn_and_is_accepted(world, kind, probe):
    family = streams.family_of(kind)
    with world.peer.socket(family) as listener, world.old.socket(family) as a:
        listener.bind((world.peer_address(kind), 0))
        listener.listen()
        listener.settimeout(streams.PATIENCE_S)
        a.bind((world.address(kind), 0))
        a.setblocking(False)
        peer = listener.getsockname()
        with watched(world.new) as after, watched(world.peer), world.old.capture() as before:
            with world.lab.drop(1, source=world.old):
                assert a.connect_ex(peer[:2]) == errno.EINPROGRESS
                assert state(a) == "SYN_SENT"
                moved, snapshot = world.move(kind, a, peer, probe)
                b, _ = listener.accept()
            world.opened.append(b)
            syns = {(s.seq, s.mss) for s in (*before.segments, *after.segments) if s.flags == Flags.SYN}
        assert syns == {(snapshot.send_start, snapshot.mss_clamp)} or len({seq for seq, _ in syns}) == 1
        assert {seq for seq, _ in syns} == {snapshot.send_start}
        until(lambda: state(moved) == "ESTABLISHED")
        b.settimeout(streams.PATIENCE_S)
        goes_on(moved, b)


# ------------------------------------------------------------------------------------- refused


@contextlib.contextmanager
def unchanged(sock):
    """In the block nothing about the socket changes."""

    def seen():
        names = [(c.SOL_SOCKET, o) for o in (SocketOption.SO_REUSEADDR, SocketOption.SO_PEEK_OFF)]
        return [sock.getsockopt(*name) for name in names], in_repair(sock), os.get_blocking(sock.fileno()), state(sock)

    before = seen()
    yield
    assert seen() == before


def refused(sock, match, peer=None):
    """It cannot be frozen, and nothing has changed."""
    with unchanged(sock), pytest.raises(BadInput, match=match), live.freeze(sock, peer):
        pass


@case(15)
def test_a_listener_is_told_apart_from_a_missing_capability(world):
    with world.old.socket() as listener:
        listener.bind((world.service4, 0))
        listener.listen()
        with pytest.raises(PermissionError):  # what the kernel says, and to whom has no capability too
            listener.setsockopt(c.IPPROTO_TCP, TcpOption.TCP_REPAIR, 1)
        refused(listener, "state TCP_LISTEN cannot be dumped")


@case(15)
def test_a_connection_that_both_ends_open_at_once_is_refused_in_syn_recv(world):
    with world.old.socket() as a, world.lab.drop(1, source=world.old):
        a.bind((world.service4, 0))
        a.setblocking(False)
        with world.old.capture() as capture:
            a.connect_ex((world.peer.address4, 4000))
            assert capture.wait(len)
            [syn, *_] = capture.segments
        theirs = Segment(src=syn.dst, sport=4000, dst=syn.src, dport=syn.sport, flags=Flags.SYN, seq=99, window=1000)
        with world.old.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(theirs.to_ip(), (syn.src, 0))
        comes_to(a, "SYN_RECV")
        refused(a, "state TCP_SYN_RECV cannot be dumped", (world.peer.address4, 4000))


@case(15)
def test_time_wait_is_kept_by_the_kernel_alone_and_refused_where_it_should_be_seen(world):
    # Who held the socket sees CLOSE: in TIME_WAIT there is no socket any more.
    a, b = world.pair("IPv4")
    there = a.getpeername()
    a.shutdown(socket.SHUT_WR)
    comes_to(a, "FIN_WAIT2")
    b.sendall(b"unread")
    b.shutdown(socket.SHUT_WR)
    comes_to(a, "CLOSE")

    def in_time_wait(calls):
        info = calls["getsockopt"](c.IPPROTO_TCP, TcpOption.TCP_INFO, c.INFO.size)

        def getsockopt(level, option, *size):
            if (level, option) == (c.IPPROTO_TCP, TcpOption.TCP_INFO):
                return bytes([TcpState.TCP_TIME_WAIT]) + info[1:]
            return calls["getsockopt"](level, option, *size)

        return {**calls, "getsockopt": getsockopt}

    with live.observed(in_time_wait):
        refused(a, "state TCP_TIME_WAIT cannot be dumped", there)
    moved, _ = world.move("IPv4", a, there)
    assert read_all(moved) == b"unread"


@case(22)
@pytest.mark.parametrize("noticed", [True, False])
def test_urgent_data_that_was_not_read_is_refused(world, noticed):
    a, b = world.pair("IPv4")
    b.sendall(b"abc")
    b.send(b"!", socket.MSG_OOB)
    b.sendall(b"def")
    until(lambda: streams.unread(a) == 3)
    if noticed:
        assert a.recv(1, socket.MSG_OOB) == b"!"
    refused(a, "urgent data is in the receive queue" if noticed else "urgent data is pending")
    assert read(a, 6) == b"abcdef"
    moved, _ = world.move("IPv4", a)
    goes_on(moved, b)


@case(22)
def test_urgent_data_that_is_read_in_line_comes_with_the_rest(world):
    a, b = world.pair("IPv4")
    a.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    b.sendall(b"abc")
    b.send(b"!", socket.MSG_OOB)
    b.sendall(b"def")
    until(lambda: streams.unread(a) == 7)
    refused(a, "urgent data is pending")
    assert a.recv(9) == b"abc"  # reading stops in front of the mark
    assert a.recv(1) == b"!"
    moved, _ = world.move("IPv4", a)
    assert moved.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)
    assert read(moved, 3) == b"def"
    goes_on(moved, b)


def test_an_mptcp_socket_is_refused_with_its_own_message(world):
    with world.old.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as mptcp:
        mptcp.bind((world.service4, 0))
        with pytest.raises(BadInput, match="262 is MPTCP"), live.freeze(mptcp):
            pass


def test_a_socket_that_is_not_tcp_is_refused_and_a_closed_one(world):
    udp = world.old.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with pytest.raises(BadInput, match="protocol 17"), live.freeze(udp):
        pass
    udp.close()
    with pytest.raises(BadInput, match="closed"), live.freeze(udp):
        pass


def test_a_connection_with_tls_in_the_kernel_is_refused(world):
    # Where the kernel has no TLS (ENOENT), as the one this was written on, it is said to be there.
    a, b = world.pair("IPv4")
    try:
        a.setsockopt(c.IPPROTO_TCP, TcpOption.TCP_ULP, b"tls")
        pretended = contextlib.nullcontext()
    except FileNotFoundError:
        pretended = live.observed(with_tls)
    with pretended:
        refused(a, "tls is on top")
    goes_on(a, b)


def with_tls(calls):
    """Calls of a connection with TLS in the kernel."""

    def getsockopt(level, option, *size):
        if (level, option) == (c.IPPROTO_TCP, TcpOption.TCP_ULP):
            return b"tls".ljust(16, b"\0")
        return calls["getsockopt"](level, option, *size)

    return {**calls, "getsockopt": getsockopt}


def test_a_connection_with_an_error_pending_is_refused(world):
    a, b = world.pair("IPv4")
    a.setsockopt(socket.IPPROTO_IP, c.IpOption.IP_RECVERR, 1)
    with world.lab.drop(1, source=world.old):
        a.sendall(b"x")
        unreachable = struct.pack(">BBHHH", 3, 1, 0, 0, 0)
        with world.old.capture() as capture:
            a.sendall(b"y")
            assert capture.wait(len)
            [sent, *_] = capture.segments
        icmp = bytearray(unreachable + sent.to_ip()[:28])
        icmp[2:4] = checksum(icmp)
        with world.peer.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.sendto(bytes(icmp), (world.service4, 0))
        until(lambda: live._poll(a.fileno(), c.POLLERR))
        refused(a, "an error is pending")
    assert a.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EHOSTUNREACH
    a.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:  # the queue of errors, of IP_RECVERR
            a.recvmsg(100, 1000, socket.MSG_ERRQUEUE)
    moved, _ = world.move("IPv4", a)
    assert read(b, 2) == b"xy"
    goes_on(moved, b)


def checksum(packet):
    """The Internet checksum."""
    total = sum(struct.unpack(f">{len(packet) // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)


# ------------------------------------------------------------------------------------- filters

ALL = streams.program(0xFFFFFFFF)


@every_kind
def test_the_applications_own_filter_comes_along(world, kind):
    a, b = world.pair(kind)
    captures.attach_filter(a, ALL)
    before = live._filter(a.fileno())
    with live.freeze(a) as frozen:
        frozen.dump()
        assert live._filter(a.fileno()) == c.DROP_UNMARKED
    assert live._filter(a.fileno()) == before
    moved, _ = world.move(kind, a)
    assert live._filter(moved.fileno()) == before
    goes_on(moved, b)


def test_a_locked_filter_is_refused(world):
    a, b = world.pair("IPv4")
    captures.attach_filter(a, ALL)
    a.setsockopt(socket.SOL_SOCKET, SocketOption.SO_LOCK_FILTER, 1)
    refused(a, "SO_LOCK_FILTER")
    goes_on(a, b)


SO_ATTACH_BPF, BPF_PROG_LOAD, BPF_PROG_TYPE_SOCKET_FILTER = 50, 5, 1
BPF_CALL = {"x86_64": 321}.get(platform.machine(), 280)  # asm-generic/unistd.h has 280


def ebpf_filter():
    """A file descriptor of an eBPF program that takes everything.  Raises PermissionError."""
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, -1, 0x95, 0, 0, 0))  # r0 = -1; exit
    gpl = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack("=IIQQ", BPF_PROG_TYPE_SOCKET_FILTER, 2, ctypes.addressof(code), ctypes.addressof(gpl))
    fd = live._libc.syscall(BPF_CALL, BPF_PROG_LOAD, attributes.ljust(128, b"\0"), 128)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "bpf(BPF_PROG_LOAD)")
    return fd


def test_an_ebpf_filter_is_refused(world):
    try:
        fd = ebpf_filter()
    except PermissionError:
        pytest.skip("bpf(2) is not permitted. Remedy: run as root")
    a, b = world.pair("IPv4")
    a.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, fd)
    os.close(fd)
    refused(a, "eBPF")
    goes_on(a, b)


# ------------------------------------------------------------------------------------- what is never sent


def slow(a, b, rate=200_000):
    """An end that sends no more than so many bytes a second, with data waiting to be sent; that data."""
    a.setsockopt(socket.SOL_SOCKET, SocketOption.SO_MAX_PACING_RATE, rate)
    return BIG[: fill(a, BIG)]


def notsent(sock):
    """Bytes that were never sent."""
    return c.INFO.unpack(sock.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_INFO, c.INFO.size))[-1]


@case(5)
@every_kind
@pytest.mark.parametrize("congestion_control", [b"reno", b"bbr"])
def test_a_frozen_connection_does_not_go_on_sending(world, kind, congestion_control):
    # It would, and the target would refuse every acknowledgement of what the snapshot calls never sent: for ever.
    a, b = world.pair(kind)
    a.setsockopt(c.IPPROTO_TCP, TcpOption.TCP_CONGESTION, congestion_control)
    sent = slow(a, b)
    with watched(world.peer) as capture:
        with live.freeze(a) as frozen:
            snapshot = frozen.dump()
            time.sleep(0.15)  # 30,000 bytes, twice the first flight of a new connection
            assert notsent(a) == snapshot.unsent > 50_000
            assert frozen.dump().window == snapshot.window
            with world.moving(kind, snapshot), live.prepare(snapshot) as prepared:
                frozen.release()
                moved = prepared.commit()
        moved.setsockopt(socket.SOL_SOCKET, SocketOption.SO_MAX_PACING_RATE, -1)
        assert digest(read(b, len(sent))) == digest(sent)
        assert capture.segments
    world.opened.append(moved)
    goes_on(moved, b)


@case(25)
@every_kind
def test_what_was_held_is_sent_after_an_abort_even_if_the_probe_is_not_answered(world, kind):
    a, b = world.pair(kind)
    sent = slow(a, b)
    with watched(world.peer):
        with live.freeze(a) as frozen:
            before = frozen.dump()
            time.sleep(0.05)
            losing = world.lab.drop(1, source=world.peer)
        with losing:
            time.sleep(0.05)
        a.setsockopt(socket.SOL_SOCKET, SocketOption.SO_MAX_PACING_RATE, -1)
        assert digest(read(b, len(sent))) == digest(sent)
        with live.freeze(a) as frozen:
            assert frozen.dump().write_seq == before.write_seq
    goes_on(a, b)
