"""The readers of the autofs packet as real programs, 32-bit and 64-bit, at real pipes of the running kernel.

    with readers.programs() as built:
        readers.play(built, KERNELS["revert"], READERS["systemd"], MODES["32-on-64"])

What is real: sizeof and layout by the compiler and the kernel's own header, uname() under another personality where the
machine or the release should differ, the pipe with O_DIRECT or without, every read() and write().  What is *model*: how
many bytes the kernel writes, since no kernel of today has the choices of 2012, and that it is this program that writes
them.  Needs "32-bit programs" and "packet pipes" (see `kernelnotes doctor`), and no privilege.
"""

from __future__ import annotations

import errno
import os
import select
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kernelnotes.autofs import matrix
from kernelnotes.autofs.matrix import KERNELS, MODES, READERS, Event, Kernel, Mode, Outcome, Reader
from kernelnotes.errors import CallFailed, Unavailable
from kernelnotes.live import machine
from kernelnotes.live.origin import provenance

if TYPE_CHECKING:
    import pandas as pd

TIMEOUT_S = 10.0
WHAT_RAN = "readers of gcc -m32 and -m64 at real pipes; how many bytes the kernel writes is a model"
WIDTHS = {"i386": "-m32", "x86-64": "-m64"}
# Where a cross compiler of Debian has removed gcc-multilib, <asm/types.h> is found no other way.
_MULTIARCH = "-I/usr/include/x86_64-linux-gnu"


@contextmanager
def programs() -> Iterator[Mapping[str, Path]]:
    """The compiled program for each ABI of `WIDTHS`; gone at the end.  Raises Unavailable where it cannot be made."""
    machine.require("32-bit programs")
    source = (resources.files("kernelnotes.live") / "readers.c").read_text()
    with tempfile.TemporaryDirectory(prefix="kernelnotes-readers-") as folder:
        yield {abi: _built(source, flag, Path(folder, f"readers{flag}")) for abi, flag in WIDTHS.items()}


def _built(source: str, flag: str, program: Path) -> Path:
    for extra in ([], [_MULTIARCH]):
        command = [os.environ.get("CC", "gcc"), flag, *extra, "-O1", "-Wall", "-xc", "-", "-o", str(program)]
        done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
        if done.returncode == 0:
            return program
    raise Unavailable(f"gcc {flag} does not compile readers.c: {done.stderr.strip()}. Remedy: install linux-libc-dev")


class Hello(NamedTuple):
    """What a reader says of itself: bits of a pointer, sizeof the packet, what it wants, and what uname() told it."""

    bits: int
    sizeof: int
    wants: int
    machine: str
    release: str


class Program:
    """A reader at work in a process of its own; a context manager that ends it.

    `resume` lets it run to its next event; in between it stands still.
    """

    def __init__(self, program: Path, reader: str, packets: bool, options: Iterable[str] = ()) -> None:
        flags = os.O_NONBLOCK | os.O_CLOEXEC | (os.O_DIRECT if packets else 0)
        read_end, self._pipe = os.pipe2(flags)
        try:
            self._process = subprocess.Popen(
                [program, str(read_end), reader, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=[read_end],
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(read_end)  # so that a dead reader is noticed

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def hello(self) -> Hello:
        """Its first line, to be asked for once, before all events.  Raises CallFailed where none comes."""
        bits, sizeof, wants, name, release = self._line().split()
        return Hello(int(bits), int(sizeof), int(wants), name, release)

    def write(self, data: bytes) -> None:
        """Put a packet into its pipe, at one stroke.  Raises BrokenPipeError where it has died."""
        os.write(self._pipe, data)

    def resume(self) -> Event:
        """Let it run to its next event.  Raises CallFailed where none comes within TIMEOUT_S."""
        assert self._process.stdin
        with suppress(BrokenPipeError):  # the missing line says it better
            self._process.stdin.write(b".")
        kind, *numbers = self._line().split()
        return Event(kind, *map(int, numbers))

    def _line(self) -> str:
        assert self._process.stdout
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._process.stdout], [], [], TIMEOUT_S)[0]:
                raise CallFailed(errno.ETIMEDOUT, f"reader: no event within {TIMEOUT_S:g} s")
            if not (piece := self._process.stdout.read(4096)):
                raise CallFailed(errno.EPIPE, "reader: ended without an event")
            line += piece
        return line.decode()


def play(
    built: Mapping[str, Path], kernel: Kernel, reader: Reader, mode: Mode, schedule: str = "sequential"
) -> Outcome:
    """As `autofs.play`, with a real reader, which must be one of READERS, and a real pipe.

    Raises what `autofs.play` raises, and CallFailed for a reader that does not answer.
    """
    writes, _ = matrix.sizes(kernel, reader, mode)
    options = ["32"] * (mode.machine == "i686") + ["2.6"] * (kernel.release < (3, 3))
    with Program(built[mode.program], reader.name, kernel.packets, options) as program:
        hello = program.hello()
        events = matrix.drive(program, mode, writes, schedule)
    return Outcome(kernel.name, reader.name, mode.name, schedule, writes, hello.wants, events, provenance(WHAT_RAN))


def outcomes(
    readers: Iterable[Reader] = tuple(READERS.values()),
    kernels: Iterable[Kernel] = tuple(KERNELS.values()),
    modes: Iterable[Mode] = tuple(MODES.values()),
    schedules: Iterable[str] = ("sequential", "burst"),
) -> pd.DataFrame:
    """As `autofs.outcomes`, every cell run for real.  Raises Unavailable where the programs cannot be made."""
    with programs() as built:
        return matrix.outcomes(readers, kernels, modes, schedules, partial(play, built))
