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
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import capture as captures
from kernelnotes.live import handover
from kernelnotes.live import repair as live
from kernelnotes.repair import constants as c
from kernelnotes.repair import options, steps
from kernelnotes.repair.constants import SocketOption, TcpOption, TcpState, Window
from kernelnotes.repair.segment import Flags, Segment
from kernelnotes.repair.snapshot import NO_WINDOW, Snapshot
from tests.live import streams
from tests.live.descriptors import descriptors, present
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
    with watched(world.peer), contextlib.ExitStack() as losses:
        for _ in range(100):
            with live.freeze(a) as frozen:
                before = frozen.dump()
                time.sleep(0.03)
                if not before.unacked:  # nothing that would be sent again and answered
                    losses.enter_context(world.lab.drop(1, source=world.peer))
                    break
        assert before.unsent > 20_000
        assert not before.unacked
        time.sleep(0.03)
        losses.close()
        a.setsockopt(socket.SOL_SOCKET, SocketOption.SO_MAX_PACING_RATE, -1)
        assert digest(read(b, len(sent))) == digest(sent)
        with live.freeze(a) as frozen:
            assert frozen.dump().write_seq == before.write_seq
    goes_on(a, b)


# ------------------------------------------------------------------------------------- what the ends agreed on

SWITCHES = ("net.ipv4.tcp_window_scaling", "net.ipv4.tcp_sack", "net.ipv4.tcp_timestamps")


@case(17)
@every_kind
@pytest.mark.parametrize("switched", list(itertools.product("10", repeat=3)), ids="".join)
def test_options_of_the_peer_are_neither_lost_nor_invented(world, kind, switched):
    before = [world.peer.sysctl(name, value) for name, value in zip(SWITCHES, switched, strict=True)]
    try:
        a, b = world.pair(kind)
        scales, sack, timestamps = (value == "1" for value in switched)
        goes_on(a, b)
        agreed = a.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_INFO, 8)[5:7]
        with watched(world.peer) as capture:
            for seed in range(2):
                a, snapshot = world.move(kind, a)
                goes_on(a, b, seed)
            segments = capture.segments
    finally:
        for name, value in zip(SWITCHES, before, strict=True):
            world.peer.sysctl(name, value)
    assert (snapshot.snd_wscale is not None, snapshot.rcv_wscale is not None) == (scales, scales)
    assert (snapshot.sack, snapshot.timestamp is not None) == (sack, timestamps)
    assert a.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_INFO, 8)[5:7] == agreed
    assert {s.tsval is not None for s in segments} == {timestamps}


def built(world, kind, forth, back):
    """Two ends of a connection that never was opened: the next numbers to be sent by the moving end and the peer."""
    local, peer = (world.address(kind), 5001), (world.peer_address(kind), 5002)
    if kind != "IPv4":
        local, peer = (*local, 0, 0), (*peer, 0, 0)
    common = {"state": TcpState.TCP_ESTABLISHED, "family": streams.family_of(kind), "mss_clamp": 1400}
    common |= {"snd_wscale": 7, "rcv_wscale": 7, "sack": True, "timestamp": 0xFFFFF000}
    ends = []
    for host, (here, there), (write_seq, rcv_nxt) in (
        (world.home(kind)[0], (local, peer), (forth, back)),
        (world.peer, (peer, local), (back, forth)),
    ):
        window = Window(rcv_nxt, 60_000, 60_000, 60_000, rcv_nxt)
        numbers = {"write_seq": write_seq, "rcv_nxt": rcv_nxt, "window": window}
        ends.append(live.prepare(Snapshot(local=here, peer=there, **numbers, **common), host.socket))
    made = [end.commit() for end in ends]
    for sock in made:
        sock.settimeout(streams.PATIENCE_S)
    world.opened += made
    return made


def has_unread(sock, size):
    return streams.unread(sock) >= size


@case(18)
@every_kind
def test_numbers_wrap_around_in_both_queues(world, kind):
    a, b = built(world, kind, 0xFFFFFF00, 0xFFFFF000)
    with watched(world.peer):
        for seed in range(5):
            with world.lab.drop(1, source=world.home(kind)[0]):
                b.sendall(data(50_000, seed))
                until(partial(has_unread, a, 1000))
                a.sendall(data(1000, seed))
                a, snapshot = world.move(kind, a)
            assert (snapshot.copied_seq > snapshot.rcv_nxt or snapshot.snd_una > snapshot.write_seq) == (seed == 0)
            assert digest(read(a, 50_000)) == digest(data(50_000, seed))
            assert digest(read(b, 1000)) == digest(data(1000, seed))
            goes_on(a, b, seed)


@case(19)
@every_kind
def test_above_half_of_all_numbers_a_move_without_probe_keeps_the_windows(world, kind):
    a, b = built(world, kind, 0x90000000, 0xA0000000)
    goes_on(a, b)
    with watched(world.peer):
        for seed in range(4):
            a, _ = world.move(kind, a, probe=False)
            goes_on(a, b, seed)


@case(19)
def test_without_the_windows_the_probe_must_not_be_left_out(world):
    a, b = world.pair("IPv4")
    with live.freeze(a) as frozen, world.moving("IPv4", frozen.dump()):
        snapshot = replace(frozen.dump(), window=NO_WINDOW)
        with live.prepare(snapshot) as prepared, pytest.raises(BadInput, match="the probe must be sent"):
            prepared.commit(probe=False)
        world.old.take_over(world.service4)
    goes_on(a, b)


@contextlib.contextmanager
def late(snapshot):
    """It arrives a little later."""
    time.sleep(0.02)
    yield Snapshot.from_bytes(snapshot.to_bytes())


@case(20)
@every_kind
def test_the_clock_of_the_time_stamps_never_goes_back(world, kind):
    a, b = world.pair(kind)
    ours = streams.plain(world.address(kind))
    with watched(world.peer) as capture:
        for seed in range(10):
            goes_on(a, b, seed, 3000)
            a, _ = world.move(kind, a, through=late)
        goes_on(a, b, 99)
        clock = [s.tsval for s in capture.segments if s.src == ours]
    assert all(streams.ahead(later, earlier) >= 0 for earlier, later in itertools.pairwise(clock))
    assert streams.ahead(clock[-1], clock[0]) >= 200


@case(20)
@every_kind
def test_an_odd_time_stamp_of_an_old_kernel_does_not_speed_up_the_clock(world, kind):
    a, b = world.pair(kind)
    goes_on(a, b)

    def odd(calls):
        def getsockopt(level, option, *size):
            found = calls["getsockopt"](level, option, *size)
            return found | 1 if (level, option) == (c.IPPROTO_TCP, TcpOption.TCP_TIMESTAMP) else found

        return {**calls, "getsockopt": getsockopt}

    with watched(world.peer):
        with live.observed(odd):
            a, snapshot = world.move(kind, a)
        assert snapshot.timestamp % 2 == 0
        first = a.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_TIMESTAMP)
        time.sleep(0.05)
        assert 40 < streams.ahead(a.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_TIMESTAMP), first) < 5000  # ms; not us
        goes_on(a, b)


def out_of_order(sock):
    """How many packets came out of order: tcpi_rcv_ooopack of struct tcp_info."""
    return struct.unpack_from("=I", sock.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_INFO, 232), 224)[0]


@case(21)
@every_kind
def test_data_that_came_out_of_order_is_sent_again_by_the_peer(world, kind):
    before = world.peer.sysctl("net.ipv4.tcp_sack", "0")  # with it the peer would fill the gap in no time
    a, b = world.pair(kind)
    world.peer.sysctl("net.ipv4.tcp_sack", before)
    goes_on(a, b)
    parts = [data(1000, seed) for seed in range(3)]
    b.setsockopt(c.IPPROTO_TCP, TcpOption.TCP_NODELAY, 1)
    with watched(world.peer):
        b.sendall(parts[0])
        until(lambda: streams.unread(a) == 1000)
        with world.lab.drop(1, source=world.peer):
            b.sendall(parts[1])
        b.sendall(parts[2])
        until(lambda: out_of_order(a) == 1)
        a, snapshot = world.move(kind, a)
        assert snapshot.recv_queue == parts[0]
        assert digest(read(a, 3000)) == digest(b"".join(parts))
    goes_on(a, b)


def windows(sock):
    """Those of a socket that is not in repair mode."""
    sock.setsockopt(c.IPPROTO_TCP, TcpOption.TCP_REPAIR, 1)
    found = sock.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_REPAIR_WINDOW, c.REPAIR_WINDOW.size)
    sock.setsockopt(c.IPPROTO_TCP, TcpOption.TCP_REPAIR, -1)
    return c.Window(*c.REPAIR_WINDOW.unpack(found))


@case(21)
@every_kind
@pytest.mark.parametrize("unsent", [0, 500_000])
def test_a_window_that_was_taken_back_for_want_of_memory_is_moved(world, kind, unsent):
    before = world.peer.sysctl("net.ipv4.tcp_sack", "0")
    a, b = world.pair(kind)
    world.peer.sysctl("net.ipv4.tcp_sack", before)
    goes_on(a, b)
    parts = [data(size, seed) for seed, size in enumerate((20_000, 1000, 1000))]
    b.setsockopt(c.IPPROTO_TCP, TcpOption.TCP_NODELAY, 1)
    with watched(world.peer):
        b.sendall(parts[0])
        until(lambda: streams.unread(a) == len(parts[0]))
        with world.lab.drop(1, source=world.peer):
            b.sendall(parts[1])
        b.sendall(parts[2])
        until(lambda: out_of_order(a) == 1)
        a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        until(lambda: windows(a).rcv_wnd == 0)  # the peer sent the missing part again, and there was no room for it
        snd_wl1, *_, rcv_wup = windows(a)
        assert 0 < (snd_wl1 - rcv_wup) % 2**32 < 2**31
        a.setblocking(False)
        sent = a.send(data(unsent, 3)) if unsent else 0
        a.setblocking(True)
        a, _ = world.move(kind, a)
        a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
        assert digest(read(a, 22_000)) == digest(b"".join(parts))
        assert digest(read(b, sent)) == digest(data(unsent, 3)[:sent])
    goes_on(a, b)


# ------------------------------------------------------------------------------------- the socket's own settings


@case(23)
@every_kind
@pytest.mark.parametrize("timeout", [None, 0.0, 0.3])
@pytest.mark.parametrize("default", [None, 0.2])
def test_neither_time_outs_nor_blocking_matter_or_change(world, kind, timeout, default):
    a, b = world.pair(kind)
    to_peer, to_us = established_with_unacked_data(a, b, lambda _: None)
    a.settimeout(timeout)
    blocking = os.get_blocking(a.fileno())
    socket.setdefaulttimeout(default)
    try:
        start = time.monotonic()
        with live.freeze(a) as frozen:
            snapshot = frozen.dump()
        assert time.monotonic() - start < 0.2
        assert snapshot.recv_queue == to_us
        assert (a.gettimeout(), os.get_blocking(a.fileno())) == (timeout, blocking)
        with live.freeze(a) as frozen, world.moving(kind, snapshot := frozen.dump()):
            prepared = live.prepare(snapshot)
            frozen.release()
            moved = prepared.commit()
        world.opened.append(moved)
        assert (moved.gettimeout(), os.get_blocking(moved.fileno())) == (None, True)
    finally:
        socket.setdefaulttimeout(None)
    moved.settimeout(streams.PATIENCE_S)
    assert read(moved, len(to_us)) == to_us
    assert read(b, len(to_peer)) == to_peer
    goes_on(moved, b)


@case(23)
@every_kind
@pytest.mark.parametrize("offset", [0, 4])
def test_a_peek_offset_hides_nothing_and_comes_back(world, kind, offset):
    a, b = world.pair(kind)
    b.sendall(b"abcdef")
    until(lambda: streams.unread(a) == 6)
    a.setsockopt(socket.SOL_SOCKET, SocketOption.SO_PEEK_OFF, offset)
    with live.freeze(a) as frozen:
        assert frozen.dump().recv_queue == b"abcdef"
    assert a.getsockopt(socket.SOL_SOCKET, SocketOption.SO_PEEK_OFF) == offset
    moved, _ = world.move(kind, a)
    assert moved.getsockopt(socket.SOL_SOCKET, SocketOption.SO_PEEK_OFF) == offset
    assert moved.recv(9, socket.MSG_PEEK) == b"abcdef"[offset:]
    moved.setsockopt(socket.SOL_SOCKET, SocketOption.SO_PEEK_OFF, -1)
    assert read(moved, 6) == b"abcdef"
    goes_on(moved, b)


# A value of each option that a new socket has not.  Buffers are locked by being set, as SO_BUF_LOCK says.
VALUES = {
    "SO_REUSEPORT": 1,
    "SO_MARK": 0x42,
    "IP_FREEBIND": 1,
    "IP_TRANSPARENT": 1,
    "IPV6_V6ONLY": 1,
    "IP_TOS": 0x10,
    "IPV6_TCLASS": 0x20,
    "SO_PRIORITY": 5,
    "IP_TTL": 33,
    "IPV6_UNICAST_HOPS": 34,
    "IP_MTU_DISCOVER": 2,
    "IPV6_MTU_DISCOVER": 2,
    "IP_RECVERR": 1,
    "IPV6_RECVERR": 1,
    "TCP_CONGESTION": b"reno",
    "TCP_NODELAY": 1,
    "SO_KEEPALIVE": 1,
    "TCP_KEEPIDLE": 111,
    "TCP_KEEPINTVL": 22,
    "TCP_KEEPCNT": 3,
    "TCP_SYNCNT": 4,
    "TCP_LINGER2": 55,
    "TCP_USER_TIMEOUT": 66_000,
    "TCP_THIN_LINEAR_TIMEOUTS": 1,
    "TCP_NOTSENT_LOWAT": 77_777,
    "SO_OOBINLINE": 1,
    "SO_MAX_PACING_RATE": 99_000_000,
    "SO_LINGER": struct.pack("ii", 1, 5),
    "SO_RCVLOWAT": 2,
    "SO_RCVTIMEO": struct.pack("qq", 4, 0),
    "SO_SNDTIMEO": struct.pack("qq", 8, 0),
    "SO_PEEK_OFF": 0,
    "SO_SNDBUF": 60_000,
    "SO_RCVBUF": 70_000,
    "TCP_CORK": 1,
    "SO_REUSEADDR": 1,
}
FOUND_OTHERWISE = {"SO_SNDBUF": 120_000, "SO_RCVBUF": 140_000}  # the kernel doubles what is set


def values(sock, names):
    """Of each option, what it is."""
    found = {}
    for name in names:
        option = options.OPTIONS[name]
        value = sock.getsockopt(option.level, option.number, *([option.size] if option.size else []))
        found[name] = value.rstrip(b"\0") if name == "TCP_CONGESTION" else value
    return found


@case(30)
@every_kind
def test_every_option_comes_back(world, kind):
    wanted = {name: VALUES.get(name) for name in options.of(streams.family_of(kind))}
    missing = [name for name, value in wanted.items() if value is None]
    assert missing == ["SO_BUF_LOCK"]
    if kind == "mapped":
        del wanted["IPV6_V6ONLY"]
    given = [(*options.OPTIONS[name][:2], value) for name, value in wanted.items() if value is not None]
    a, b = world.pair(kind, options=given)
    wanted |= FOUND_OTHERWISE | {"SO_BUF_LOCK": c.SOCK_SNDBUF_LOCK | c.SOCK_RCVBUF_LOCK}
    assert values(a, wanted) == wanted
    with live.freeze(a) as frozen:
        frozen.dump()
    assert values(a, wanted) == wanted
    moved, _ = world.move(kind, a)
    assert values(moved, wanted) == wanted
    for name, value in (("TCP_CORK", 0), ("SO_MAX_PACING_RATE", -1)):
        moved.setsockopt(*options.OPTIONS[name][:2], value)
    goes_on(moved, b)


@case(30)
@every_kind
def test_what_nobody_set_stays_unset_and_buffers_are_tuned_on(world, kind):
    a, b = world.pair(kind, rcvbuf=65536)
    names = [name for name in options.of(streams.family_of(kind)) if name not in ("SO_SNDBUF", "SO_RCVBUF")]
    before = values(a, names)
    sent = BIG[: fill(a, BIG)]
    moved, snapshot = world.move(kind, a)
    assert values(moved, names) == before
    assert before["SO_BUF_LOCK"] == 0
    chosen = {"IPV6_V6ONLY"} if kind == "IPv6" else set()  # by the kernel, for a socket bound to such an address
    assert set(snapshot.options) <= {"TCP_CONGESTION", "SO_SNDBUF", "SO_RCVBUF"} | chosen
    assert digest(read(b, len(sent))) == digest(sent)
    goes_on(moved, b)


@case(30)
@every_kind
def test_the_first_flight_has_segments_of_full_size(world, kind):
    a, b = world.pair(kind)
    goes_on(a, b)
    with watched(world.peer) as capture:
        moved, snapshot = world.move(kind, a)
        moved.sendall(data(20_000))
        read(b, 20_000)
        lengths = [s.length for s in capture.segments if s.length]
    assert max(lengths) == lengths[0] == snapshot.mss_clamp - 12  # of which the time stamps take 12


# ------------------------------------------------------------------------------------- disturbances


def arriving(b, a, times, lock):
    """An observer: data comes in, so many times, between the two reads of a dump; with `lock` or without."""
    arrived = []

    def observer(calls):
        def clock():
            if len(arrived) < times:
                arrived.append(streams.unread(a))
                b.sendall(b"more")
                if lock:
                    time.sleep(0.02)
                else:
                    until(lambda: streams.unread(a) > arrived[-1])
            return calls["clock"]()

        unlocked = {} if lock else {"attach_filter": lambda program: None}
        return {**calls, **unlocked, "clock": clock}

    return observer


@case(24)
@every_kind
def test_data_that_arrives_during_a_dump_without_lock_is_seen_and_read_again(world, kind):
    a, b = world.pair(kind)
    b.sendall(b"early")
    until(lambda: streams.unread(a) == 5)
    with live.observed(arriving(b, a, 3, lock=False)), live.freeze(a) as frozen:
        assert frozen.dump().recv_queue == b"early" + 3 * b"more"
    with live.observed(arriving(b, a, 1000, lock=False)), live.freeze(a) as frozen:
        with pytest.raises(CallFailed, match="is it locked") as caught:
            frozen.dump()
        assert caught.value.errno == errno.EAGAIN
    assert read(a, 17) == b"early" + 3 * b"more"
    assert read(a, 4 * steps.MOST_TRIES) == steps.MOST_TRIES * b"more"
    goes_on(a, b)


@case(24)
@every_kind
def test_with_the_lock_nothing_arrives_during_a_dump(world, kind):
    a, b = world.pair(kind)
    with live.observed(arriving(b, a, 1, lock=True)), watched(world.peer):
        with live.freeze(a) as frozen:
            assert frozen.dump().recv_queue == b""
        assert read(a, 4) == b"more"
    goes_on(a, b)


@case(25)
@every_kind
@pytest.mark.parametrize("why", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_abort_after_the_dump_loses_nothing_in_either_direction(world, kind, why):
    a, b = world.pair(kind, rcvbuf=65536)
    sent = BIG[: fill(a, BIG)]
    with watched(world.peer):
        b.sendall(b"before")
        with contextlib.suppress(why or RuntimeError), live.freeze(a) as frozen:
            snapshot = frozen.dump()
            b.sendall(b"during")
            if why:
                raise why
        assert not in_repair(a)
        assert not streams.has_filter(a)
        with pytest.raises(BadInput, match="stale"):
            live.prepare(snapshot)
        assert digest(read(b, len(sent))) == digest(sent)
        assert read(a, 12) == b"beforeduring"
    goes_on(a, b)


def fails(name, number, where=lambda *_: True):
    """An observer: the call fails with this errno, where its arguments are those."""

    def observer(calls):
        def call(*args):
            if where(*args):
                raise OSError(number, os.strerror(number))
            return calls[name](*args)

        return {**calls, name: call}

    return observer


def of_window(level, option, *_):
    return (level, option) == (c.IPPROTO_TCP, TcpOption.TCP_REPAIR_WINDOW)


FAILURES = {
    "the address is not there": (None, errno.EADDRNOTAVAIL),
    "the windows are refused": (fails("setsockopt", errno.EINVAL, of_window), errno.EINVAL),
    "no larger buffer": (lambda calls: {**calls, "room": lambda option, size: None}, errno.ENOBUFS),
    "no memory": (fails("send_all", errno.ENOMEM), errno.ENOMEM),
    "no route": (fails("connect", errno.ENETUNREACH), errno.ENETUNREACH),
}


@case(26)
@every_kind
@pytest.mark.parametrize("failure", FAILURES)
def test_a_restore_that_fails_loses_no_byte_of_the_source(world, kind, failure):
    observer, number = FAILURES[failure]
    a, b = world.pair(kind, rcvbuf=65536)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # of which a new socket has but some 16 KB
    b.sendall(data(30_000))
    until(lambda: streams.unread(a) == 30_000)
    sent = BIG[: fill(a, BIG)]
    with watched(world.peer):
        before = descriptors()
        with live.freeze(a) as frozen:
            snapshot = frozen.dump()
            with contextlib.ExitStack() as stack:
                if observer:
                    stack.enter_context(live.observed(observer))
                    stack.enter_context(world.moving(kind, snapshot))
                    stack.callback(world.reset_addresses)
                else:
                    stack.enter_context(world.new.inside())
                with pytest.raises(CallFailed) as caught:
                    live.prepare(snapshot)
            assert caught.value.errno == number
        assert present() == before
        assert read(a, 30_000) == data(30_000)
        assert digest(read(b, len(sent))) == digest(sent)
    goes_on(a, b)


@case(26)
@every_kind
def test_beside_its_source_a_connection_is_not_restored(world, kind):
    a, b = world.pair(kind)
    with live.freeze(a) as frozen, world.old.inside():
        with pytest.raises(CallFailed) as caught:
            live.prepare(frozen.dump())
        assert caught.value.errno == errno.EADDRNOTAVAIL
    goes_on(a, b)


@case(27)
@every_kind
def test_a_snapshot_is_restored_once(world, kind):
    a, b = world.pair(kind)
    moved, snapshot = world.move(kind, a)
    for again in (snapshot, Snapshot.from_bytes(snapshot.to_bytes())):
        with pytest.raises(BadInput, match="restored already"):
            live.prepare(again)
    goes_on(moved, b)


@case(27)
def test_of_two_that_were_prepared_one_is_committed(world):
    a, b = world.pair("IPv4")
    with live.freeze(a) as frozen, world.moving("IPv4", snapshot := frozen.dump()):
        first = live.prepare(snapshot)
        first.abandon()
        with pytest.raises(BadInput, match="abandoned"):
            first.commit()
        second = live.prepare(snapshot)
        moved = second.commit()
        with pytest.raises(BadInput, match="restored already"):
            second.commit()
    assert frozen.released  # as it lives elsewhere
    with pytest.raises(BadInput, match="released"):
        frozen.dump()
    moved.settimeout(streams.PATIENCE_S)
    world.opened.append(moved)
    goes_on(moved, b)


@case(27)
def test_a_snapshot_is_stale_once_its_source_went_on(world):
    a, b = world.pair("IPv4")
    with live.freeze(a) as frozen:
        snapshot = frozen.dump()
    for again in (snapshot, Snapshot.from_bytes(snapshot.to_bytes())):
        with pytest.raises(BadInput, match="stale"):
            live.restore(again)
    goes_on(a, b)


@case(28)
@every_kind
def test_what_comes_while_there_is_no_socket_is_reset_without_the_guard_alone(world, kind):
    for guarded in (True, False):
        a, b = world.pair(kind)
        with world.peer.capture(keep=120) as capture, world.old.inside(), contextlib.ExitStack() as stack:
            with live.freeze(a) as frozen:
                snapshot = frozen.dump()
                if guarded:
                    stack.enter_context(live.guard(snapshot.local, snapshot.family))
                frozen.release()
            b.sendall(b"meanwhile")
            time.sleep(0.05)
            reset = any(s.flags & Flags.RST for s in capture.segments)
            assert reset is not guarded
            moved = live.restore(snapshot)
        moved.settimeout(streams.PATIENCE_S)
        world.opened.append(moved)
        if guarded:
            assert read(moved, 9) == b"meanwhile"
            goes_on(moved, b)
        else:
            with pytest.raises(ConnectionResetError):
                b.recv(1)


@case(29)
@every_kind
@pytest.mark.parametrize("probe", [True, False])
def test_behind_a_firewall_of_the_target_the_peer_is_heard_after_the_probe_alone(world, kind, probe):
    a, b = world.pair(kind)
    goes_on(a, b)
    with world.firewall(world.new):
        moved, _ = world.move(kind, a, probe=probe)
        b.sendall(b"from outside")
        moved.settimeout(0.4)
        if probe:
            assert read(moved, 12) == b"from outside"
        else:
            with pytest.raises(TimeoutError):
                moved.recv(1)
            moved.settimeout(streams.PATIENCE_S)
            moved.sendall(b"from inside")  # opens the way
            assert read(b, 11) == b"from inside"
            assert read(moved, 12) == b"from outside"
        moved.settimeout(streams.PATIENCE_S)
        goes_on(moved, b)


@case(31)
@every_kind
def test_a_listener_on_the_port_is_no_obstacle_and_one_can_come_later(world, kind):
    family = streams.family_of(kind)
    a, b = world.pair(kind, options=[(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)])
    port = a.getsockname()[1]
    with world.new.socket(family) as listener:
        listener.bind(("", port))
        listener.listen()
        moved, _ = world.move(kind, a)
        goes_on(moved, b)
    with world.new.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen()
    goes_on(moved, b)


@case(31)
@every_kind
def test_time_wait_on_the_target_is_no_obstacle(world, kind):
    ports = (6001, 6002 + streams.KINDS.index(kind))  # mapped and IPv4 ones are the same to the kernel
    a, b = world.pair(kind, ports=ports)
    moved, _ = world.move(kind, a)
    moved.shutdown(socket.SHUT_WR)
    assert read_all(b) == b""
    b.close()
    assert read_all(moved) == b""
    moved.close()
    world.reset()
    a, b = world.pair(kind, ports=ports)
    with watched(world.peer):
        moved, _ = world.move(kind, a)
        goes_on(moved, b)


@case(16)
def test_a_link_local_connection_keeps_its_scope(world):
    with world.peer.socket(socket.AF_INET6) as listener:
        [(scope, _)] = [pair for pair in _interfaces(world.peer) if pair[1] == "eth0"]
        listener.bind((world.peer.link_local, 0, 0, scope))
        listener.listen()
        a = world.old.socket(socket.AF_INET6)
        [(ours, _)] = [pair for pair in _interfaces(world.old) if pair[1] == "eth0"]
        a.bind((world.old.link_local, 0, 0, ours))
        a.connect((world.peer.link_local, listener.getsockname()[1], 0, ours))
        b, _ = listener.accept()
    for sock in (a, b):
        sock.settimeout(streams.PATIENCE_S)
    for expected, make in (("ESTABLISHED", established), ("CLOSE_WAIT", close_wait_with_unread_data)):
        to_peer, to_us = make(a, b, None)
        comes_to(a, expected)
        with watched(world.peer, [world.peer.link_local]), live.freeze(a) as frozen, world.old.inside():
            snapshot = frozen.dump()
            assert (snapshot.local[3], snapshot.peer[3]) == (ours, ours)
            with live.guard(snapshot.local, snapshot.family):
                frozen.release()
                a.close()
                a = live.restore(Snapshot.from_bytes(snapshot.to_bytes()))
        a.settimeout(streams.PATIENCE_S)
        assert state(a) == expected
        assert read(a, len(to_us)) == to_us
        assert read(b, len(to_peer)) == to_peer
    a.sendall(b"and on")
    a.close()
    assert read_all(b) == b"and on"
    b.close()


def _interfaces(host):
    with host.inside():
        return socket.if_nameindex()


# ------------------------------------------------------------------------------------- who may, and who has it

CLONE_NEWUSER = 0x10000000


def in_a_child(work):
    """What `work` returns, as text, in a process of its own."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            os.write(write_end, str(work()).encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    return text


@case(32)
@every_kind
def test_without_the_capability_it_says_so_and_nothing_has_changed(world, kind):
    a, b = world.pair(kind)

    def without():
        # In a user namespace of its own a process has no rights over the network that it came from.
        assert live._libc.unshare(CLONE_NEWUSER) == 0
        try:
            with live.freeze(a):
                return "frozen"
        except Unavailable as e:
            return f"{e} {in_repair(a)} {streams.has_filter(a)} {os.get_blocking(a.fileno())}"

    blocking = os.get_blocking(a.fileno())
    # The lock is the first step; some kernels let everybody have it, and then the second one is refused.
    step, told = in_a_child(without).split(":", 1)
    assert step in (steps.LOCK.what.split(":")[0], steps.REPAIR_ON.what)
    assert told.endswith(f": {live.RIGHTS} False False {blocking}")
    goes_on(a, b)


@case(32)
def test_without_the_capability_nothing_is_restored_and_the_source_goes_on(world):
    a, b = world.pair("IPv4")
    with live.freeze(a) as frozen:
        snapshot = frozen.dump()

        def without():
            assert live._libc.unshare(CLONE_NEWUSER) == 0
            try:
                return live.prepare(snapshot)
            except Unavailable as e:
                return e

        assert "CAP_NET_ADMIN" in in_a_child(without)
    goes_on(a, b)


def answer(call):
    """The name of the error that it gets, or what it returns."""
    try:
        return call()
    except OSError as e:
        return errno.errorcode[e.errno]


@every_kind
def test_a_socket_is_taken_out_of_another_process(world, kind):
    a, b = world.pair(kind)
    b.sendall(b"unread")
    here, there = socket.socketpair()
    child = os.fork()
    if not child:
        here.close()
        there.recv(1)
        with contextlib.suppress(OSError):
            error = answer(lambda: a.recv(10, socket.MSG_DONTWAIT))
            there.sendall(f"{state(a)} {error}".encode())
        os._exit(0)
    there.close()
    number = a.fileno()
    a.detach()
    os.close(number)
    with here, watched(world.peer):
        taken = live.take(child, number)
        moved, _ = world.move(kind, taken)
        here.sendall(b".")
        assert here.recv(100) == b"CLOSE ECONNABORTED"  # of what it still holds nothing is left
        os.waitpid(child, 0)
        assert read(moved, 6) == b"unread"
        goes_on(moved, b)


def test_what_is_no_socket_is_not_taken(world):
    with open("/proc/self/status") as file, pytest.raises(BadInput, match="is no socket"):
        live.take(os.getpid(), file.fileno())


@every_kind
def test_a_connection_left_in_repair_mode_thaws(world, kind):
    a, b = world.pair(kind)
    with pytest.raises(BadInput, match="not in repair mode"):
        live.thaw(a)
    steps.perform([steps.LOCK, steps.REPAIR_ON, steps.SELECT_SEND], live.calls(a))
    refused_in_repair_mode(a)
    b.sendall(b"meanwhile")
    live.thaw(a)
    assert not in_repair(a)
    assert not streams.has_filter(a)
    assert read(a, 9) == b"meanwhile"
    goes_on(a, b)


def refused_in_repair_mode(sock):
    """It cannot be frozen twice."""
    with pytest.raises(BadInput, match="in repair mode already"), live.freeze(sock):
        pass
    assert in_repair(sock)


def test_a_frozen_connection_is_not_frozen_again(world):
    a, b = world.pair("IPv4")
    with live.freeze(a):
        refused_in_repair_mode(a)
    goes_on(a, b)


# ------------------------------------------------------------------------------------- files


@case(33)
@every_kind
def test_a_connection_travels_as_a_file_that_is_used_once(world, kind, tmp_path):
    a, b = world.pair(kind)
    b.sendall(data(5000))
    until(lambda: streams.unread(a) == 5000)
    path = tmp_path / "connection"

    @contextlib.contextmanager
    def carried(snapshot):
        handover.save(snapshot, path)
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(BadInput, match="File exists"):
            handover.save(snapshot, path)
        with handover.claimed(path) as arrived:
            with pytest.raises(BadInput, match="used already"), handover.claimed(path):
                pass
            yield arrived
        with pytest.raises(BadInput, match="used once"), handover.claimed(path):
            pass

    moved, _ = world.move(kind, a, through=carried)
    assert os.listdir(tmp_path) == ["connection.used"]
    assert read(moved, 5000) == data(5000)
    goes_on(moved, b)


@case(33)
def test_a_file_that_is_not_whole_is_refused_and_the_source_goes_on(world, tmp_path):
    a, b = world.pair("IPv4")
    path = tmp_path / "connection"
    with live.freeze(a) as frozen:
        handover.save(frozen.dump(), path)
        whole = path.read_bytes()
        newer = whole[:8] + struct.pack("<H", 2) + whole[10:]
        other_end = whole[:8] + struct.pack(">H", 1) + whole[10:]
        flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
        for harmed in (b"", whole[:-1], whole[:100], whole + b"x", newer, other_end, *flipped):
            path.write_bytes(harmed)
            with pytest.raises(BadInput, match=str(path)):
                handover.load(path)
    goes_on(a, b)


def test_every_case_has_a_test():
    assert sorted(CASES) == list(range(1, 34))
