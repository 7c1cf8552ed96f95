"""Network namespaces without names: made, entered by one thread and left again, and gone with the last who holds one.

    fd = new_network()                   # an empty network namespace; closing the fd removes it
    with inside(fd):
        ...                              # sockets, programs and /proc/sys/net of this thread are that namespace's

A namespace lives as long as something refers to it: a file descriptor, a socket, a process.  As no name is written to
/run/netns, a process that is killed leaves nothing behind.

Who may: CAP_SYS_ADMIN over the network namespaces it is in and goes to.  That is root, and it is anybody in namespaces
of one's own: `own_namespaces(argv)` is a command that runs another one there, `enter_own_namespaces()` starts this very
program anew in there where it could not do otherwise.  A process with threads cannot enter a user namespace, so this is
for the beginning of a program, not for a notebook: start `unshare -Urnm jupyter lab` there.

Source: network_namespaces(7), user_namespaces(7), setns(2), unshare(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import cache

from kernelnotes.errors import CallFailed, Unavailable

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
OWN_NAMESPACES = ("unshare", "-Urnm", "--")
ENTERED = "KERNELNOTES_OWN_NAMESPACES"  # set in the environment of what was started there
REMEDY = "run it as root, or in namespaces of its own: `unshare -Urnm COMMAND`, e.g. `unshare -Urnm jupyter lab`"


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(step: str, function: str, *arguments: int) -> None:
    # Raises Unavailable where it is not allowed, CallFailed otherwise.
    if getattr(_libc(), function)(*arguments) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.EPERM, errno.EINVAL, errno.ENOSYS):
        raise Unavailable(f"{step}: {os.strerror(number)} (needs CAP_SYS_ADMIN). Remedy: {REMEDY}")
    raise CallFailed(number, f"{step}: {os.strerror(number)}")


def here() -> int:
    """A file descriptor of the network namespace that this thread is in; the caller closes it."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(fd: int) -> None:
    """Move this thread into the network namespace of a file descriptor.  Raises Unavailable or CallFailed."""
    _call("enter a network namespace", "setns", fd, CLONE_NEWNET)


@contextlib.contextmanager
def inside(fd: int) -> Iterator[None]:
    """Be in that network namespace until the end of the block: this thread only, other threads stay where they are.

    The block must not be left for another thread's use: no `await` and no `yield` out of it.  Raises Unavailable before
    anything has changed where there would be no way back.
    """
    home = here()
    try:
        enter(fd)
        yield
    finally:
        try:
            enter(home)
        finally:
            os.close(home)


def new_network() -> int:
    """A file descriptor of a new network namespace with nothing but a loopback interface, which is down.

    Raises Unavailable where this process may not, CallFailed where the kernel has no room for one more.
    """
    made: list[int | BaseException] = []

    def make() -> None:  # in a thread that ends right away, so that no thread ever is where it should not be
        try:
            _call("make a network namespace", "unshare", CLONE_NEWNET)
            made.append(here())
        except BaseException as e:
            made.append(e)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    [result] = made
    if isinstance(result, int):
        return result
    raise result


def require() -> None:
    """Raises Unavailable, with the remedy, where this thread may not make network namespaces and come back."""
    home = here()
    try:
        enter(home)  # the way back first: it changes nothing
        os.close(new_network())
    finally:
        os.close(home)


def allowed() -> bool:
    """True if this process may make network namespaces and come back from them."""
    try:
        require()
    except Unavailable:
        return False
    return True


# ---------------------------------------------------------------------------------------- without root


def own_namespaces(argv: Sequence[str]) -> list[str]:
    """The command that runs another one as root of a user, network and mount namespace of its own."""
    return [*OWN_NAMESPACES, *argv]


def enter_own_namespaces() -> None:
    """Where this process may not make network namespaces: start this program anew in namespaces of its own.

    Does not return then: the same command line begins from its start, so call it before anything was done.  Returns
    at once where nothing is needed.  Raises Unavailable where it was tried and did not help, and where the program
    `unshare` is missing.
    """
    if allowed():
        return
    if os.environ.get(ENTERED):
        require()
    with contextlib.suppress(AttributeError, OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    command = own_namespaces([sys.executable, *sys.orig_argv[1:]])
    try:
        os.execvpe(command[0], command, os.environ | {ENTERED: "1"})
    except FileNotFoundError as e:
        raise Unavailable("the program `unshare` is missing. Remedy: apt-get install util-linux") from e
