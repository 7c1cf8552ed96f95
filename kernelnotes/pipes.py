"""A pipe as plain buffers: what write() leaves in it, what read() takes, and what a packet pipe throws away.

The kernel keeps a pipe as a ring of slots, each a page with a first and a last byte:

    slots     [ ....AAAA ] [ BBBBBBBB ] [ CC...... ]       16 slots of 4096 bytes, until F_SETPIPE_SZ
    write()   fills the last slot up, if it is a plain one and has room for the odd bytes, then opens new ones
    read()    empties slots from the front, across as many as it takes

With O_DIRECT on the write end a write opens new slots that are marked as packets: nothing is added to them later, and a
read that reaches one ends with it, and throws away what it did not ask for.  That is all of "packetized pipes", and why
a daemon that reads 300 of 304 bytes finds the next packet's first byte next.

The flag is looked at in every write, and only the slot remembers it; so a packet that follows plain bytes with room
behind them is added to those, and is no packet any more: a trap that no manual tells.

`Pipe` answers as a non-blocking pipe does, with the exceptions of `os.read` and `os.write`: BlockingIOError where it
would have to wait, BrokenPipeError where nobody can read.  Left out: FIFOs, splice and tee, signals, the limits of
unprivileged users (F_SETPIPE_SZ above /proc/sys/fs/pipe-max-size, many pipes), notification pipes.

>>> pipe = pipes.PacketPipe()
>>> pipe.write(b"A" * 304), pipe.write(b"B" * 304)
(304, 304)
>>> pipe.read(300)[:3], pipe.read(300)[:3]
(b'AAA', b'BBB')

Source: fs/pipe.c, pipe_write(), pipe_read(), pipe_set_size() (in 6.18 anon_pipe_write() and anon_pipe_read()).
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kernelnotes.errors import BadInput

PAGE = 4096  # bytes of a slot, on most machines
SLOTS = 16
MOST_BYTES = 1 << 31  # what F_SETPIPE_SZ takes


@dataclass(slots=True)
class Slot:
    """One buffer of the ring.

    `data` are the bytes not yet read, `offset` how many before them have been; `packet` says that its write was made
    with O_DIRECT.  Source: struct pipe_buffer.
    """

    data: bytes
    packet: bool
    offset: int = 0

    def room(self, page: int) -> int:
        """Bytes that a later write may add: of a packet none; what was read at the front is not used again."""
        return 0 if self.packet else page - self.offset - len(self.data)


class Taken(NamedTuple):
    """What one read did: the bytes it got, those it threw away, and how many are left in the pipe.

    `at` counts the bytes that had left the pipe before: where `data` begins in all that was ever written.
    """

    data: bytes
    thrown: bytes
    left: int
    at: int


class Pipe:
    """A pipe with both ends open; `packets` is O_DIRECT on its write end and may be changed between two writes.

    `size` is its capacity in bytes, rounded up as F_SETPIPE_SZ does; `page` what a slot holds.
    """

    def __init__(self, packets: bool = False, size: int = SLOTS * PAGE, page: int = PAGE) -> None:
        self.packets = packets
        self.page = page
        self.slots: deque[Slot] = deque()
        self.read_end = self.write_end = True
        self._gone = 0
        self.resize(size)

    @property
    def size(self) -> int:
        """The capacity in bytes, as F_GETPIPE_SZ tells: slots times page."""
        return self._most * self.page

    @property
    def left(self) -> int:
        """Bytes in the pipe, as FIONREAD tells: those of all packets together."""
        return sum(len(slot.data) for slot in self.slots)

    def resize(self, size: int) -> int:
        """F_SETPIPE_SZ: the capacity becomes the next power of two, at least a page, and is returned.

        Raises OSError: EBUSY where more slots are in use, EINVAL for more than MOST_BYTES.
        """
        if not 0 <= size <= MOST_BYTES:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        slots = (1 << (max(size, self.page) - 1).bit_length()) // self.page
        if slots < len(self.slots):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self._most = slots
        return self.size

    def write(self, data: bytes) -> int:
        """How many of the bytes found room; nothing written is no packet, and always succeeds.

        Raises BlockingIOError where not one found room, BrokenPipeError where the read end is closed.
        """
        if not data:
            return 0
        if not self.read_end:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        written = self._merge(data)
        while written < len(data) and len(self.slots) < self._most:
            piece = data[written : written + self.page]
            self.slots.append(Slot(piece, self.packets))
            written += len(piece)
        if not written:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return written

    def _merge(self, data: bytes) -> int:
        # What is over whole pages goes into the last slot, so that the rest begins a page; O_DIRECT is not asked for.
        odd = len(data) % self.page
        if not self.slots or odd > self.slots[-1].room(self.page):
            return 0
        self.slots[-1].data += data[:odd]
        return odd

    def writev(self, parts: Iterable[bytes]) -> int:
        """As `write` of all parts in a row: one packet, not one for each."""
        return self.write(b"".join(parts))

    def read(self, size: int) -> bytes:
        """At most `size` bytes; b"" for a size of 0 and at the end, when the pipe is empty and its write end closed.

        Raises BlockingIOError where there are none yet.
        """
        return self.take(size).data

    def take(self, size: int) -> Taken:
        """As `read`, telling what was thrown away and what is left.  Raises what `read` raises."""
        if size < 0:
            raise BadInput(f"read of {size} bytes")
        data, thrown, at = b"", b"", self._gone
        while self.slots and len(data) < size:
            slot = self.slots[0]
            piece, rest = slot.data[: size - len(data)], slot.data[size - len(data) :]
            data += piece
            if slot.packet or not rest:
                self.slots.popleft()
            else:
                slot.data, slot.offset = rest, slot.offset + len(piece)
            if slot.packet:
                thrown = rest
                break
        if size and not data and self.write_end:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._gone += len(data) + len(thrown)
        return Taken(data, thrown, self.left, at)

    def close_read(self) -> None:
        """No further write succeeds."""
        self.read_end = False

    def close_write(self) -> None:
        """Once empty, the pipe ends."""
        self.write_end = False


class BytePipe(Pipe):
    """What pipe() makes: bytes without boundaries.

    >>> pipe = pipes.BytePipe()
    >>> pipe.write(b"A" * 304), pipe.write(b"B" * 304)
    (304, 304)
    >>> pipe.read(300)[:3], pipe.read(300)[:6]
    (b'AAA', b'AAAABB')
    """

    def __init__(self, size: int = SLOTS * PAGE, page: int = PAGE) -> None:
        super().__init__(False, size, page)


class PacketPipe(Pipe):
    """What pipe2(O_DIRECT) makes: each write of at most a page is a packet, each read takes one."""

    def __init__(self, size: int = SLOTS * PAGE, page: int = PAGE) -> None:
        super().__init__(True, size, page)
