"""The 33 cases in which a connection that is frozen, moved and restored could lose something, on a live kernel.

Each case has its number, `@case(17)`, and the last test asks for all of them.  Where nothing else is said a connection
moves from one host to another, the captures at the peer are free of resets and of FINs that nobody sent, and every byte
is compared at both ends.
"""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from kernelnotes.live import repair as live
from kernelnotes.repair.constants import TcpState
from tests.live import connections
from tests.live.connections import comes_to, data, digest, fill, in_repair, read_all, state, until, watched

CASES = {}
every_kind = pytest.mark.parametrize("kind", connections.KINDS)
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
    with connections.world() as world:
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
    until(lambda: connections.unread(a) == 13 and not connections.unacked(a))
    return b"to the peer", b"from the peer"


def established_with_unacked_data(a, b, lose):
    lose("old")
    a.sendall(b"lost")
    b.sendall(b"unread")
    until(lambda: connections.unread(a) == 6)
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
    until(lambda: connections.unread(a) == 6)
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
        assert not connections.has_filter(moved)
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
    with pytest.raises(live.BadInput, match="expected `peer`"), live.freeze(a):
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
        with world.firewall(world.new), pytest.raises(live.CallFailed, match="does a firewall drop it"):
            live.prepare(snapshot)
        world.old.take_over(world.service4)
    finish(a, b, "CLOSE_WAIT", to_peer, to_us)
