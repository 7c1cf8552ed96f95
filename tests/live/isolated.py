"""A test as the first process of a mount and pid namespace of its own: whatever it leaves ends with it.

What it leaves is found before that: mounts, processes, threads and file descriptors that were not there at its
beginning fail it.
"""

import functools
import os
import select
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

from kernelnotes.live import trial

CLONE_NEWNS, CLONE_NEWPID = 0x00020000, 0x20000000  # include/uapi/linux/sched.h
LIMIT_S = 60


def isolated(test):
    """The test, run there; it fails here with the traceback from there.  Skipped where autofs cannot be mounted."""

    @pytest.mark.needs("autofs")
    @functools.wraps(test)
    def run(*args, **kwargs):
        read, write = os.pipe()
        outer = os.fork()
        if not outer:
            os.close(read)
            _outer(lambda: test(*args, **kwargs), write)
        os.close(write)
        try:
            told = _all_of(read, outer)
        finally:
            os.close(read)
            os.waitpid(outer, 0)
        if told != b"passed":
            pytest.fail(told.decode(errors="replace") or "the process of the test was killed", pytrace=False)

    return run


def _all_of(read, outer):
    # What the test said in the end; past its time it is killed, and with it everything in its namespaces.
    told, deadline = b"", time.monotonic() + LIMIT_S
    while select.select([read], [], [], max(0, deadline - time.monotonic()))[0]:
        part = os.read(read, 65536)
        if not part:
            return told
        told += part
    os.kill(outer, signal.SIGKILL)
    return b"no end within %d s\n" % LIMIT_S + told


def _outer(test, write):
    # The process that unshares stays outside of the new pid namespace; its child is the first one inside.
    try:
        trial._libc("unshare", CLONE_NEWNS | CLONE_NEWPID)
        inner = os.fork()
        if inner:
            os.close(write)
            os.waitpid(inner, 0)
        else:
            trial._libc("prctl", trial.PR_SET_PDEATHSIG, signal.SIGKILL)
            _inner(test, write)
    finally:
        os._exit(0)


def _inner(test, write):
    try:
        os.setsid()
        trial._libc("mount", None, b"/", None, trial.ctypes.c_ulong(trial.MS_REC | trial.MS_PRIVATE), None)
        trial._mount("proc", "/proc", "proc")
        before = _present()
        test()
        sys.stdout.flush()
        left = _left(before)
        os.write(write, f"left behind: {left}".encode() if left else b"passed")
    except BaseException:
        os.write(write, traceback.format_exc().encode())
    finally:
        os._exit(0)


def _left(before):
    # A process that was killed takes a moment to go.
    deadline = time.monotonic() + 2
    while (left := _present() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return sorted(left)


def _present():
    with trial.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return {
        *(("mount", line.split(" ", 2)[2]) for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        *(("process", name, Path("/proc", name, "comm").read_text()) for name in os.listdir("/proc") if name.isdigit()),
        *(("thread", thread.name) for thread in threading.enumerate()),
        *(("fd", int(fd)) for fd in os.listdir("/proc/self/fd")),
    }
