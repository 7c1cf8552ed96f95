"""Moving connections between hosts while their peer talks and listens: no byte lost, doubled or reordered, no reset."""

import hashlib
import itertools
import os
import socket
import statistics

import pytest

from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import inside, moves
from kernelnotes.live.moves import move
from kernelnotes.live.netlab import Lab
from kernelnotes.repair.segment import Flags, signed

FAMILIES = pytest.mark.parametrize("family", ["IPv4", "IPv6", "IPv4-mapped"])


class Scene:
    """A connection from an address of its own, first at `old`, to a peer: `here` and `there`."""

    def __init__(self, lab, family="IPv4"):
        self.lab = lab
        self.old, self.new, self.peer = (lab.host(name) for name in ("old", "new", "peer"))
        self.address = "2001:db8::aa" if family == "IPv6" else "192.0.2.100"
        self.old.add_address(self.address)
        v4, mapped = socket.AF_INET, "::ffff:" if family == "IPv4-mapped" else ""
        self.family = v4 if family == "IPv4" else socket.AF_INET6
        at = self.peer.address6 if family == "IPv6" else self.peer.address4
        with self.peer.socket(socket.AF_INET6 if family == "IPv6" else v4) as listener:
            listener.bind((at, 80))
            listener.listen()
            self.here = self.old.socket(self.family)
            self.here.bind((mapped + self.address, 0))
            self.here.settimeout(5)
            self.here.connect((mapped + at, 80))
            self.there, _ = listener.accept()
            self.there.settimeout(5)

    def move(self):
        """To the host where it is not."""
        moved = move(self.here, self.old if self.lab.owner(self.address) is self.new else self.new)
        self.here = moved.sock
        self.here.settimeout(5)
        return moved

    def talks(self):
        """Whether both directions work."""
        for sender, receiver in ((self.here, self.there), (self.there, self.here)):
            sender.sendall(b"still here")
            assert receiver.recv(100) == b"still here"
        return True


@pytest.fixture
def lab():
    try:
        inside.require()
    except Unavailable as e:
        pytest.skip(str(e))
    with Lab() as made:
        yield made


@pytest.fixture
def scene(lab):
    made = Scene(lab)
    yield made
    made.there.close()


@FAMILIES
def test_a_connection_goes_on_where_it_was_moved_to(lab, family):
    scene = Scene(lab, family)
    local = scene.here.getsockname()
    with scene.peer.capture() as capture:
        for host in (scene.new, scene.old, scene.new):
            old = scene.here
            assert scene.move().snapshot.local == local
            assert lab.owner(scene.address) is host
            assert scene.here.getsockname() == local
            assert old.fileno() == -1
            assert scene.talks()
        assert not [s for s in capture.segments if s.flags & (Flags.RST | Flags.FIN | Flags.SYN)]
    scene.there.close()


def test_the_clock_of_the_time_stamps_never_goes_back(scene):
    # Otherwise the peer takes what we send for a ghost of the past (PAWS), and drops it.
    with scene.peer.capture() as capture:
        for _ in range(100):
            scene.move()
            scene.here.sendall(b"now")
            scene.there.recv(100)
        stamps = [s.tsval for s in capture.segments if s.src == scene.address]
    assert len(stamps) >= 200
    assert [b - a for a, b in itertools.pairwise(stamps) if signed(b - a) < 0] == []
