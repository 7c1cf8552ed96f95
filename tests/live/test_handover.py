"""A connection in a file: handed over by one process, taken by another; whole, once, or not at all."""

import fcntl
import os
import signal
import socket
import time

import pytest

from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.live import handover
from kernelnotes.live import repair as live
from kernelnotes.repair.segment import Flags
from tests.live import streams
from tests.live.streams import data, in_repair, read, until

pytestmark = pytest.mark.needs("tcp repair")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "connection"


@pytest.mark.parametrize("kind", streams.KINDS)
def test_what_the_peer_sends_meanwhile_is_there_afterwards(world, kind, file):
    a, b = world.pair(kind)
    b.sendall(b"before ")
    until(lambda: streams.unread(a) == 7)
    with world.peer.capture(keep=120) as capture:
        with handover.hand_over(a, file):
            a.close()
            b.sendall(b"meanwhile")
            time.sleep(0.05)
            with world.old.inside(), handover.claimed(file) as snapshot:
                again = live.restore(snapshot)
        world.opened.append(again)
        again.settimeout(streams.PATIENCE_S)
        assert read(again, 16) == b"before meanwhile"
        again.sendall(data(5000))
        assert read(b, 5000) == data(5000)
        assert not any(Flags.RST in s.flags for s in capture.segments)
    assert os.listdir(file.parent) == ["connection.used"]


def goes_on(a, b):
    assert not in_repair(a)
    assert not streams.has_filter(a)
    a.sendall(b"to the peer")
    b.sendall(b"from the peer")
    assert read(b, 11) == b"to the peer"
    assert read(a, 13) == b"from the peer"


def test_a_file_that_is_there_already_keeps_the_connection_and_the_file(world, file):
    a, b = world.pair("IPv4")
    file.write_text("mine")
    with pytest.raises(BadInput, match="File exists"), handover.hand_over(a, file):
        pass
    assert file.read_text() == "mine"
    goes_on(a, b)


@pytest.mark.parametrize("step", ["guard", "release"])
@pytest.mark.parametrize("why", [CallFailed(5, "no"), KeyboardInterrupt()])
def test_what_fails_before_the_end_leaves_no_file_and_the_connection_goes_on(world, file, monkeypatch, step, why):
    a, b = world.pair("IPv4")

    def fails(*_):
        raise why

    monkeypatch.setattr(*((live, "guard") if step == "guard" else (live.Frozen, "release")), fails)
    with pytest.raises(type(why)), handover.hand_over(a, file):
        pass
    assert os.listdir(file.parent) == []
    goes_on(a, b)


def test_a_signal_while_it_is_saved_waits_until_it_is_whole(world, file, monkeypatch):
    a, b = world.pair("IPv4")
    save = handover.save

    def interrupted(*args):
        save(*args)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(handover, "save", interrupted)
    with pytest.raises(KeyboardInterrupt), handover.hand_over(a, file):
        pass
    a.close()
    with world.old.inside(), handover.claimed(file) as snapshot:
        again = live.restore(snapshot)
    again.settimeout(streams.PATIENCE_S)
    world.opened.append(again)
    goes_on(again, b)


def test_a_file_whose_connection_could_not_be_restored_can_be_used_again(world, file):
    a, b = world.pair("IPv4")
    with handover.hand_over(a, file):
        a.close()
        with world.new.inside(), pytest.raises(CallFailed), handover.claimed(file) as snapshot:
            live.restore(snapshot)  # the address is not there
        assert os.listdir(file.parent) == ["connection"]
        with world.old.inside(), handover.claimed(file) as snapshot:
            again = live.restore(snapshot)
    again.settimeout(streams.PATIENCE_S)
    world.opened.append(again)
    goes_on(again, b)


def test_a_file_that_is_not_whole_is_not_used_up(file):
    file.write_bytes(b"something else")
    with pytest.raises(BadInput, match=r"connection\.used"), handover.claimed(file):
        pass
    assert os.listdir(file.parent) == ["connection"]


def test_beside_a_socket_is_its_network(world):
    with world.old.socket() as a, live.beside(a)(socket.AF_INET) as made, socket.socket() as elsewhere:
        assert network(made) == os.fstat(world.old.fd).st_ino
        assert network(elsewhere) != network(made)


def network(sock):
    """The number of its network namespace."""
    fd = fcntl.ioctl(sock.fileno(), live.SIOCGSKNS)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)
