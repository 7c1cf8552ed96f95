"""The model of a pipe beside the kernel's: the same calls, the same answers."""

import errno
import fcntl
import os
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kernelnotes import pipes
from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.live import pipes as live

pytestmark = pytest.mark.needs("packet pipes")
PAGE = os.sysconf("SC_PAGE_SIZE")


# What is written, again and again: no two stretches look alike, so that bytes lost or swapped show.
PERIOD = (1 << 20) + 1
PATTERN = Random(2012).randbytes(PERIOD) * 2


class Real:
    """A pipe of the running kernel, with the methods of the model."""

    def __init__(self, packets=False):
        self.r, self.w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC | (os.O_DIRECT if packets else 0))
        self.read_end = self.write_end = True

    def _flag(self, fd, on):
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)

    packets = property(fset=lambda self, on: self._flag(self.w, on))
    packets_at_the_read_end = property(fset=lambda self, on: self._flag(self.r, on))

    @property
    def size(self):
        return fcntl.fcntl(self.r, fcntl.F_GETPIPE_SZ)

    @property
    def left(self):
        return struct.unpack("i", fcntl.ioctl(self.r, termios.FIONREAD, bytes(4)))[0]

    def resize(self, size):
        return fcntl.fcntl(self.r if self.read_end else self.w, fcntl.F_SETPIPE_SZ, size)

    def write(self, data):
        return os.write(self.w, data)

    def writev(self, parts):
        return os.writev(self.w, parts)

    def read(self, size):
        return os.read(self.r, size)

    def close_read(self):
        os.close(self.r)
        self.read_end = False

    def close_write(self):
        os.close(self.w)
        self.write_end = False

    def close(self):
        if self.read_end:
            self.close_read()
        if self.write_end:
            self.close_write()


def answer(call, *arguments):
    try:
        return call(*arguments)
    except OSError as e:
        return f"{type(e).__name__} {errno.errorcode[e.errno]}"


# Sizes around everything that decides: nothing, a packet of autofs, a page, the whole pipe.
SIZES = st.one_of(
    st.integers(0, 12),
    st.sampled_from([300, 304, 1000, 3000]),
    st.builds(lambda pages, off: max(0, pages * PAGE + off), st.integers(1, 3), st.integers(-3, 3)),
    st.builds(lambda pages, off: pages * PAGE + off, st.integers(4, 18), st.integers(-3, 3)),
)


class Differential(RuleBasedStateMachine):
    """Every call goes to both pipes; what they answer, hold and can hold must be the same."""

    def __init__(self):
        super().__init__()
        self.real = Real()
        self.model = pipes.Pipe(size=self.real.size, page=PAGE)
        self.written = 0

    def teardown(self):
        self.real.close()

    def both(self, call, *arguments):
        ours, kernels = (answer(getattr(pipe, call), *arguments) for pipe in (self.model, self.real))
        assert ours == kernels, call

    def data(self, size):
        start, self.written = self.written % PERIOD, self.written + size
        return PATTERN[start : start + size]

    @precondition(lambda self: self.real.write_end)
    @rule(size=SIZES)
    def write(self, size):
        self.both("write", self.data(size))

    @precondition(lambda self: self.real.write_end)
    @rule(sizes=st.lists(SIZES, max_size=4))
    def writev(self, sizes):
        self.both("writev", [self.data(size) for size in sizes])

    @precondition(lambda self: self.real.read_end)
    @rule(size=SIZES)
    def read(self, size):
        self.both("read", size)

    @precondition(lambda self: self.real.write_end)
    @rule(on=st.booleans())
    def flag(self, on):
        self.model.packets = self.real.packets = on

    @precondition(lambda self: self.real.read_end)
    @rule(on=st.booleans())
    def flag_at_the_read_end(self, on):
        self.real.packets_at_the_read_end = on  # the model has no such thing

    @precondition(lambda self: self.real.read_end or self.real.write_end)
    @rule(size=st.sampled_from([0, 1, PAGE, PAGE + 1, 2 * PAGE, 5 * PAGE, 16 * PAGE, 17 * PAGE, 64 * PAGE, 1 << 20]))
    def resize(self, size):
        self.both("resize", size)

    # One end is closed at most, and not before there is much in the pipe.
    @precondition(lambda self: self.real.read_end and self.real.write_end and self.written > 5 * PAGE)
    @rule()
    def close_write(self):
        self.model.close_write()
        self.real.close_write()

    @precondition(lambda self: self.real.read_end and self.real.write_end and self.written > 20 * PAGE)
    @rule()
    def close_read(self):
        self.model.close_read()
        self.real.close_read()

    @invariant()
    def the_same_bytes_and_the_same_room(self):
        if self.real.read_end:
            assert (self.model.left, self.model.size) == (self.real.left, self.real.size)


TestDifferential = Differential.TestCase
TestDifferential.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def size(random):
    pages = random.choice([0, 0, 1, 1, 2, 3, 17])
    near = pages * PAGE + random.randint(-3, 3)
    return random.choice([random.randint(0, 12), 300, 304, random.randint(0, PAGE), max(0, near)])


@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_random_sequences_of_calls_are_answered_as_the_kernel_answers_them(seed):
    # Fewer shapes than above, but many more of them; the seed and the number of the sequence name a failure.
    random = Random(seed)
    calls = [
        *[lambda machine: machine.write(size=size(random))] * 4,
        *[lambda machine: machine.read(size=size(random))] * 4,
        lambda machine: machine.writev(sizes=[size(random) for _ in range(random.randint(0, 4))]),
        lambda machine: machine.flag(on=random.random() < 0.5),
        lambda machine: machine.resize(size=random.choice([1, 2, 3, 16, 64]) * PAGE),
    ]
    for _ in range(1000):
        machine = Differential()
        machine.flag(on=random.random() < 0.5)
        try:
            for _ in range(30):
                random.choice(calls)(machine)
                machine.the_same_bytes_and_the_same_room()
            machine.close_write()
            while machine.model.left:
                machine.read(size=size(random) or PAGE)
            machine.read(size=1)
        finally:
            machine.teardown()


# ----------------------------------------------------------------------------------------- kernelnotes.live.pipes


@pytest.fixture
def ends():
    made = live.packet_pipe()
    yield made
    for fd in made:
        os.close(fd)


def test_a_packet_pipe_keeps_packets_apart_until_the_flag_is_cleared(ends):
    assert live.is_packet(ends.write)
    got = []
    for on in (True, False, True):
        live.set_packet(ends.write, on)
        assert live.is_packet(ends.write) == on
        os.write(ends.write, b"one")
        os.write(ends.write, b"two")
        got.append(os.read(ends.read, 100))
        os.set_blocking(ends.read, False)
        with suppress(BlockingIOError):
            got.append(os.read(ends.read, 100))
    assert got == [b"one", b"two", b"onetwo", b"one", b"two"]


def test_only_a_write_end_has_the_flag(ends):
    with pytest.raises(BadInput, match="is the read end, expected the write end of a pipe"):
        live.set_packet(ends.read, False)
    with open(os.devnull, "w") as null, pytest.raises(BadInput, match="is no pipe"):
        live.is_packet(null.fileno())
    with pytest.raises(BadInput, match="descriptor -1: Bad file descriptor"):
        live.is_packet(-1)


def test_a_borrowed_descriptor_is_the_other_process_s_own_open_file():
    program = "import fcntl, os; r, w = os.pipe2(os.O_DIRECT); print(w, flush=True); input(); "
    program += "print(bool(fcntl.fcntl(w, fcntl.F_GETFL) & os.O_DIRECT))"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        borrowed = live.borrow(owner.pid, int(owner.stdout.readline()))
        assert not os.get_inheritable(borrowed)
        live.set_packet(borrowed, False)
        os.close(borrowed)
        assert owner.communicate("\n")[0] == "False\n"
    with pytest.raises(CallFailed, match=rf"pidfd_open\({owner.pid}\): No such process"):
        live.borrow(owner.pid, 0)
    with pytest.raises(CallFailed, match=r"pidfd_getfd.*Bad file descriptor"):
        live.borrow(os.getpid(), 1 << 20)
