"""Packet pipes: pipes in which every write up to 4096 bytes is a packet, and every read takes one packet.

A read of 300 takes 300 bytes of a packet of 304; its last 4 are thrown away, and the next read begins the second:

>>> r, w = live.pipes.packet_pipe()
>>> os.write(w, b"A" * 304), os.write(w, b"B" * 304)
(304, 304)
>>> os.read(r, 300)[:3], os.read(r, 300)[:3]
(b'AAA', b'BBB')
>>> os.close(r), os.close(w)
(None, None)

The switch is O_DIRECT, a flag of an open file, here of the write end's: it decides at each write whether the bytes may
later be joined with others.  pipe2(2) sets it there alone; F_SETFL sets and clears it at any time, also on the end that
the kernel itself writes into, since that is the same open file.  On the read end it does nothing.  `pipes`, the model,
has the rest of the rules.

Source: fs/pipe.c, pipe_write() and pipe_read(); pipe(2).  Since Linux commit 9883035ae7ed ("pipes: add a "packetized
pipe" mode for writing"), in v3.4.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
from typing import NamedTuple

from kernelnotes.errors import BadInput, CallFailed

PIDFD_GETFD = 438  # the number of the system call, the same on every architecture


class Ends(NamedTuple):
    """The two file descriptors of a pipe; who made it closes them."""

    read: int
    write: int


def packet_pipe() -> Ends:
    """A new packet pipe, closed on exec.  Raises CallFailed where the kernel has none: before Linux 3.4."""
    try:
        return Ends(*os.pipe2(os.O_DIRECT | os.O_CLOEXEC))
    except OSError as e:
        raise CallFailed(e.errno, f"pipe2(O_DIRECT): {e.strerror}") from e


def is_packet(fd: int) -> bool:
    """True if what is written to this write end becomes packets.  Raises BadInput for anything but a write end."""
    return bool(_flags(fd) & os.O_DIRECT)


def set_packet(fd: int, on: bool) -> None:
    """Set or clear the flag, for the writes to come.  Raises BadInput for anything but a write end."""
    flags = _flags(fd)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)


def borrow(pid: int, fd: int) -> int:
    """A file descriptor of another process's open file: the same one, not a second opening of it.

    What is changed through it, such as the flag, changes for the other process and for the kernel.  The caller
    closes it.  Needs the right to trace that process.  Raises CallFailed.  Source: pidfd_getfd(2), Linux 5.6.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError as e:
        raise CallFailed(e.errno, f"pidfd_open({pid}): {e.strerror}") from e
    try:
        got: int = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if got < 0:
        number = ctypes.get_errno()
        raise CallFailed(number, f"pidfd_getfd({pid}, {fd}): {os.strerror(number)}")
    os.set_inheritable(got, False)
    return got


def _flags(fd: int) -> int:
    # Of the open file, once it is known to be the write end of a pipe.
    try:
        mode, flags = os.fstat(fd).st_mode, fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as e:
        raise BadInput(f"file descriptor {fd}: {e.strerror}; expected the write end of a pipe") from e
    if not stat.S_ISFIFO(mode) or flags & os.O_ACCMODE == os.O_RDONLY:
        what = "the read end" if stat.S_ISFIFO(mode) else "no pipe"
        raise BadInput(f"file descriptor {fd} is {what}, expected the write end of a pipe")
    return flags
