"""Moving connections between hosts while their peer talks and listens: no byte lost, doubled or reordered, no reset."""

import errno
import itertools
import re
import select
import signal
import socket
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.live.moves import move
from kernelnotes.live.repair import Prepared, observed
from kernelnotes.repair.constants import IPPROTO_TCP, TcpOption
from kernelnotes.repair.segment import Flags, signed
from tests.live.streams import a_lab

SOAK = Path(__file__).resolve().parents[2] / "benchmarks/moves.py"
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
    with a_lab() as made:
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


def test_a_move_of_an_idle_connection_takes_less_than_a_millisecond(scene):
    assert statistics.median(scene.move().freeze_us for _ in range(50)) < 1000


# ------------------------------------------------------------------------------------ what goes wrong


def failing(call, arguments):
    """Have a call fail once, on whatever socket it is made with these first arguments."""
    left = [True]

    def observer(calls):
        def instead(*args):
            if left and args[: len(arguments)] == arguments:
                left.clear()
                raise OSError(errno.EINVAL, "as the test wants it")
            return calls[call](*args)

        return {**calls, call: instead}

    return observed(observer)


def goes_on(scene, before):
    """Whether the connection is where it was, on the same socket, and the other host has nothing of it."""
    assert scene.lab.owner(scene.address) is scene.old
    assert scene.here.fileno() == before
    assert scene.address not in scene.new.run(["ip", "address"]).stdout
    assert not scene.here.getsockopt(IPPROTO_TCP, TcpOption.TCP_REPAIR)
    return scene.talks()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("setsockopt", (IPPROTO_TCP, TcpOption.TCP_REPAIR, 1)),
        ("getsockopt", (IPPROTO_TCP, TcpOption.TCP_REPAIR_WINDOW)),
        ("bind", ()),
        ("connect", ()),
        ("setsockopt", (IPPROTO_TCP, TcpOption.TCP_REPAIR_WINDOW)),
        ("setsockopt", (IPPROTO_TCP, TcpOption.TCP_REPAIR, 0)),
    ],
    ids=["freeze", "dump", "bind", "connect", "windows", "commit"],
)
def test_a_connection_whose_move_fails_goes_on_where_it_was(scene, call, arguments):
    before = scene.here.fileno()
    with scene.peer.capture(flags=Flags.RST | Flags.FIN) as capture:
        with failing(call, arguments), pytest.raises(CallFailed, match="as the test wants it"):
            scene.move()
        assert goes_on(scene, before)
        assert capture.segments == []
    scene.move()
    assert scene.talks()


def test_a_connection_that_changes_between_the_two_reads_is_read_again(scene):
    # As under load, where what was on its way when the lock was set still arrives.
    reads = []

    def observer(calls):
        def other_at_first(level, option, *size):
            found = calls["getsockopt"](level, option, *size)
            if (level, option) != (IPPROTO_TCP, TcpOption.TCP_REPAIR_WINDOW):
                return found
            reads.append(found)
            return bytes(20) if len(reads) == 1 else found

        return {**calls, "getsockopt": other_at_first}

    with scene.lab.drop(1, target=scene.peer):
        scene.here.sendall(b"not acknowledged")
        scene.there.sendall(b"not read")
        select.select([scene.here], [], [], 5)
        with observed(observer):
            moved = scene.move()
    assert len(reads) == 3
    assert (moved.snapshot.send_queue, moved.snapshot.recv_queue) == (b"not acknowledged", b"not read")
    assert (scene.here.recv(100), scene.there.recv(100)) == (b"not read", b"not acknowledged")


def test_an_address_that_cannot_move_keeps_its_connection(scene, monkeypatch):
    def refuses(address):
        raise CallFailed(errno.EIO, "no")

    before = scene.here.fileno()
    monkeypatch.setattr(scene.new._addresses, "announce", refuses)
    with pytest.raises(CallFailed):
        scene.move()
    assert goes_on(scene, before)


def test_an_interruption_before_the_end_leaves_the_connection_where_it_was(scene, monkeypatch):
    def interrupted(prepared):
        signal.raise_signal(signal.SIGINT)

    before = scene.here.fileno()
    monkeypatch.setattr(Prepared, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scene.move()
    assert goes_on(scene, before)


def test_an_interruption_at_the_very_end_finds_the_connection_moved_with_its_address(scene, monkeypatch):
    commit, kept = Prepared.commit, []

    def interrupted(prepared):
        kept.append(commit(prepared))
        raise KeyboardInterrupt

    monkeypatch.setattr(Prepared, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scene.move()
    [scene.here] = kept
    assert scene.lab.owner(scene.address) is scene.new
    assert scene.talks()


def test_a_source_that_cannot_be_disconnected_is_closed_without_a_packet(scene):
    def observer(calls):
        def refuses():
            raise OSError(errno.EIO, "no")

        return {**calls, "disconnect": refuses}

    with scene.peer.capture(flags=Flags.RST | Flags.FIN) as capture:
        with observed(observer):
            old = scene.here
            scene.move()
        assert old.fileno() == -1
        assert scene.talks()
        assert capture.segments == []


def test_a_move_to_where_it_is_is_refused(scene):
    with pytest.raises(BadInput, match="old"):
        move(scene.here, scene.old)
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, pytest.raises(BadInput, match="nobody"):
        move(elsewhere, scene.old)
    assert scene.talks()


# ------------------------------------------------------------------------------------ under load


def test_thirty_moves_under_flood_and_loss_lose_no_byte_and_send_no_reset(lab):
    done = subprocess.run([sys.executable, SOAK, "--quick"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        len(re.findall(r"hashes equal\n +0 resets, 0 FINs .*, 0 packets not seen; 0 moves refused", done.stdout)) == 4
    )
    assert sum(map(int, re.findall(r"(\d+) packets dropped on the way", done.stdout))) > 0
    volumes = [float(found) for found in re.findall(r"([\d.]+) MB \(", done.stdout)]
    assert len(volumes) == 4
    assert min(volumes) > 0.1
    assert "in all 30 of 30 moves" in done.stdout
