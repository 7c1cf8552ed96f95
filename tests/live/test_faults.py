"""Every system call of a move fails once, in turn, on a live connection: it goes on, here or there, to the last byte.

The call is made through the table that `live.repair` uses, which is where it is made to fail: instead of being made, or
after it was made and took effect, or twice in a row, so that the first step of undoing fails as well.  Two calls are
left out where they fail after they took effect, since the kernel does not do that and nothing could undo them: the
target's leaving repair mode, from where on it lives, and the source's disconnect.
"""

import contextlib
import errno
import itertools
import os
import threading
from collections import Counter

import pytest

from kernelnotes.errors import CallFailed
from kernelnotes.live import moves
from kernelnotes.live import repair as live
from kernelnotes.live.address import Addresses
from kernelnotes.repair import steps
from tests.live import streams
from tests.live.descriptors import descriptors, present
from tests.live.streams import Flow, comes_to, has_filter, in_repair, watched
from tests.live.test_repair import STATES, finish

pytestmark = pytest.mark.needs("tcp repair")
TRIES = 20
ENOUGH = 24 << 20  # bytes in each direction: more than flow while all calls fail in turn
A_FEW = 2 << 20


class Fault:
    """The n-th call (from 0) of this name and option fails, and so do those after it, `times` in all.

    `made` counts the calls by name and option; `failed` are those that did.
    """

    def __init__(self, key=None, n=0, after=False, times=1):
        self.key, self.n, self.after, self.times = key, n, after, times
        self.made, self.failed = Counter(), []

    def __call__(self, calls):
        return {name: self._counted(name, call) for name, call in calls.items()}

    def _counted(self, name, call):
        def counted(*args):
            key = (name, *args[:2]) if name in ("getsockopt", "setsockopt") else (name,)
            hit = key == self.key and self.made[key] == self.n
            self.made[key] += 1
            if not (hit or 0 < len(self.failed) < self.times):
                return call(*args)
            if self.after and self._is_final(name, args):
                return call(*args)
            self.failed.append(key)
            if self.after:
                with contextlib.suppress(OSError):
                    call(*args)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return counted

    @staticmethod
    def _is_final(name, args):
        leaving = (steps.REPAIR_OFF, steps.REPAIR_OFF_SILENTLY)
        return name == "disconnect" or (name, args) in [(step.call, step.args) for step in leaving]


def every_call(move):
    """All (name and option, number) of the calls that one of some moves makes."""
    most = Counter()
    for _ in range(5):
        fault = Fault()
        with live.observed(fault):
            move()
        most |= fault.made
    return [(key, n) for key, count in most.items() for n in range(count)]


WAYS = {"instead": {}, "afterwards": {"after": True}, "twice": {"times": 2}}


class Moving:
    """A connection under traffic in both directions: its peer writes and reads all the time, we in between."""

    def __init__(self, world, kind, size):
        self.world, self.kind = world, kind
        self.sock, self.peer = world.pair(kind)
        self.ours, self.theirs = (Flow(size, seed, size) for seed in (1, 2))
        for sock in (self.sock, self.peer):
            sock.setblocking(False)
        self._stop, self._problems = threading.Event(), []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        try:
            while not self._stop.is_set():
                self.theirs.turn(self.peer)
        except Exception as e:
            self._problems.append(e)

    def turn(self):
        """Some traffic of ours."""
        for _ in range(3):
            self.ours.turn(self.sock, 1 << 13)
        # Something to carry over in both queues: bytes we have not read, and more than the peer can have acknowledged.
        streams.until(
            lambda: streams.unread(self.sock) or self.theirs.sent == len(self.theirs.outgoing) or self._problems
        )
        with contextlib.suppress(BlockingIOError):
            self.ours.sent += self.sock.send(self.ours.outgoing[self.ours.sent : self.ours.sent + (1 << 15)])
        assert not self._problems, self._problems

    def try_to_move(self):
        """What the move raised, or None where it succeeded."""
        target = self.world.home(self.kind)[1]
        old, address = self.sock, self.world.address(self.kind)
        try:
            moved = moves.move(old, target)
        except CallFailed as e:
            assert old.fileno() >= 0
            assert self.world.home(self.kind)[1] is target
            assert streams.plain(address) not in target.addresses
            self._is_free()
            return e
        assert old.fileno() == -1
        assert self.world.home(self.kind)[0] is target
        self.sock = moved.sock
        self.world.opened.append(self.sock)
        self.sock.setblocking(False)
        self._is_free()
        return None

    def _is_free(self):
        assert not in_repair(self.sock)
        assert not has_filter(self.sock)
        assert not any(host._shared for host in (self.world.old, self.world.new))

    def ends(self):
        """All that is still to flow flows, and both ends got what the other one sent."""
        streams_ends = threading.Thread(target=self.ours.run, args=(self.sock,))
        streams_ends.start()
        streams_ends.join()
        while not self.theirs.done:
            assert not self._problems, self._problems
            self._stop.wait(0.01)
        for flow, other in ((self.ours, self.theirs), (self.theirs, self.ours)):
            assert flow.hash.hexdigest() == streams.digest(bytes(other.outgoing))


@pytest.mark.parametrize("kind", ["IPv4", "IPv6"])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_call_fails_the_stream_goes_on(world, kind, way, monkeypatch):
    closed, close_silently = [], live._close_silently  # who had the address when a socket that did not live was closed
    monkeypatch.setattr(
        live, "_close_silently", lambda sock: (closed.append(world.home(kind)[0]), close_silently(sock))
    )
    told, late = Counter(), Counter()  # faults that stopped a move; those behind which the connection lived already
    with watched(world.peer, packets=400_000), Moving(world, kind, ENOUGH) as moving:

        def moved():
            moving.turn()
            home = world.home(kind)[0]
            closed.clear()
            error = moving.try_to_move()
            assert error is None or set(closed) <= {home}  # or the peer's next packet would be reset
            moving.turn()
            assert error is None or error.errno == errno.EIO
            return error

        for _ in range(TRIES):  # until there is something to send again
            calls = every_call(lambda: moved() is None or pytest.fail("it was to move"))
            if any(key[0] == "send_all" for key, _ in calls):
                break
        before = len(descriptors())
        for key, n in calls:
            for _ in range(TRIES):  # what there is to carry over differs, and so do the calls
                fault = Fault(key, n, **WAYS[way])
                with live.observed(fault):
                    error = moved()
                assert len(present()) == before, fault.failed
                if fault.failed:
                    (late if error is None else told)[key[0]] += 1
                    break
                assert error is None
        moving.ends()
    print(f"{told.total()} faults refused the move: {dict(told)}; behind {late.total()} it was made: {dict(late)}")
    assert told.total() > 85
    assert set(told) >= {"getsockopt", "setsockopt", "ioctl", "bind", "connect", "send_all", "attach_filter", "recv"}
    assert set(late) <= {"disconnect", "setsockopt"}
    assert late.total() < 15


HALF_CLOSED = [(name, make) for name, make in STATES if name != "ESTABLISHED" and "unsent" not in make.__name__]


@pytest.mark.parametrize("kind", ["IPv4", "IPv6"])
@pytest.mark.parametrize(("expected", "make"), HALF_CLOSED, ids=[make.__name__ for _, make in HALF_CLOSED])
def test_whatever_call_fails_a_half_closed_connection_keeps_every_byte(world, kind, expected, make):
    # How it is dumped is the same in each state, so that only a sample of its calls fails here.
    calls, count = [(None, 0)], 0
    while calls:
        key, n = calls.pop()
        a, b = world.pair(kind)
        there = a.getpeername()
        with contextlib.ExitStack() as losses:
            to_peer, to_us = make(
                a, b, lambda host: losses.enter_context(world.lab.drop(1, source=world.home(kind)[0]))
            )
            comes_to(a, expected)
            fault = Fault(key, n)
            with live.observed(fault), contextlib.suppress(CallFailed):
                a = moves.move(a, world.home(kind)[1], there).sock
                world.opened.append(a)
            assert streams.state(a) == expected, fault.failed
            assert not in_repair(a)
            assert not has_filter(a)
        a.settimeout(streams.PATIENCE_S)
        finish(a, b, expected, to_peer, to_us)
        count += len(fault.failed)
        if key is None:
            calls = [(key, n) for key, most in fault.made.items() for n in range(most)]
            calls = [call for k, call in enumerate(calls) if call[0][0] != "getsockopt" or k % 9 == 0]
    assert count > 30


@pytest.mark.parametrize("kind", ["IPv4", "IPv6"])
@pytest.mark.parametrize("method", ["add", "announce", "remove", "prepare"])
def test_an_address_that_cannot_be_moved_keeps_its_connection(world, kind, method, monkeypatch):
    real = getattr(Addresses, method)
    with watched(world.peer, packets=400_000), Moving(world, kind, A_FEW) as moving:
        for k in itertools.count():
            moving.turn()
            numbers = itertools.count()

            def fails(self, *args, numbers=numbers, k=k, **options):
                if next(numbers) == k:
                    raise CallFailed(errno.EIO, "the address cannot be moved")
                return real(self, *args, **options)

            with monkeypatch.context() as patched:
                patched.setattr(Addresses, method, fails)
                error = moving.try_to_move()
            moving.turn()
            if next(numbers) <= k:
                break
            assert error is not None
        moving.ends()
    assert k > 0


@pytest.mark.parametrize("kind", ["IPv4", "IPv6"])
def test_a_socket_that_cannot_be_made_keeps_the_connection(world, kind, monkeypatch):
    with watched(world.peer, packets=400_000), Moving(world, kind, A_FEW) as moving:
        moving.turn()
        with monkeypatch.context() as patched:
            patched.setattr(
                type(world.new), "socket", lambda *_: (_ for _ in ()).throw(CallFailed(errno.EMFILE, "full"))
            )
            assert moving.try_to_move().errno == errno.EMFILE
        moving.turn()
        assert moving.try_to_move() is None
        moving.ends()
