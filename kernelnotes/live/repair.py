"""Dump a live TCP connection, and restore it here or on another host, without the peer noticing.

    with freeze(sock) as frozen:            locked: nothing comes in, in repair mode: nothing goes out
        snapshot = frozen.dump()
        target = prepare(snapshot, inside)  the connection, whole but locked, on a socket of the other host
        move the address                    from here on the peer's packets go there
        frozen.release()                    the source ends, without a packet
    sock = target.commit()                  the target begins to live

Leaving the block in any other way, by an exception or a signal too, resumes the source: then no byte is lost, and the
snapshot has become worthless.  `restore(snapshot)` is prepare and commit in one.  A snapshot is restored once: a second
connection with the same numbers would corrupt the stream in silence.

The lock is a socket filter on the connection itself: what the peer sends meanwhile is dropped unseen, and it sends it
again.  It holds as long as the socket is there.  Between release and prepare on the *same* host no socket is there, and
what comes in then is answered with a reset: `guard(address)` takes it instead.

Needs CAP_NET_ADMIN over the network namespace: root, or anybody in a user and network namespace of their own
(`unshare -Urn`).  FINs are forged through raw sockets, which needs CAP_NET_RAW.  Only classic sockets of Linux 4.6 or
later, on an architecture with the numbers of asm-generic/socket.h.

Source: net/ipv4/tcp.c; net/core/filter.c, sk_filter_trim_cap(); criu soccr/soccr.c.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from socket import SocketType  # what socket.socket is a subclass of

from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import inside, pipes
from kernelnotes.live.signals import Signals
from kernelnotes.repair import constants as c
from kernelnotes.repair import steps as plan
from kernelnotes.repair.constants import SocketOption, TcpOption
from kernelnotes.repair.snapshot import Address, Snapshot, check
from kernelnotes.repair.steps import Before, Calls, Step, perform, run

RIGHTS = "CAP_NET_ADMIN over the network namespace is missing: run as root, or inside `unshare -Urnm`"
SIOCGSKNS = 0x894C  # include/uapi/linux/sockios.h: a file descriptor of the socket's network namespace
TAKEN_S = 1.0  # seconds; a packet to ourselves takes microseconds
SHORTEST_CHUNK = 1024  # bytes; the receive queue is filled in smaller pieces where memory is short

_libc = ctypes.CDLL(None, use_errno=True)
_OBSERVERS: list[Callable[[Calls], Calls]] = []
# Identities of snapshots, in this process: restored, or of a source that went on.
_RESTORED: set[bytes] = set()
_STALE: set[bytes] = set()


# ------------------------------------------------------------------------------------- the calls


def calls(sock: SocketType) -> Calls:
    """The calls that steps name, on this socket: see `kernelnotes.repair.steps`."""
    found: Calls = {
        "getsockopt": sock.getsockopt,
        "setsockopt": sock.setsockopt,
        "getsockname": sock.getsockname,
        "getpeername": sock.getpeername,
        "bind": sock.bind,
        "connect": sock.connect,
        "shutdown": sock.shutdown,
        "setblocking": sock.setblocking,
        "recv": sock.recv,
        "ioctl": lambda request: _ioctl(sock.fileno(), request),
        "poll": lambda events: _poll(sock.fileno(), events),
        "attach_filter": lambda program: _attach(sock, program),
        "get_filter": lambda: _filter(sock.fileno()),
        "room": lambda option, size: _room(sock, option, size),
        "buffer": lambda option, size: _buffer(sock, option, size),
        "send_all": lambda data: _send_all(sock, data),
        "disconnect": lambda: _disconnect(sock.fileno()),
        "inject": lambda *packet: _inject(sock, *packet),
        "clock": time.time,
        "random": os.urandom,
    }
    for observer in _OBSERVERS:
        found = observer(found)
    return found


@contextlib.contextmanager
def observed(observer: Callable[[Calls], Calls]) -> Iterator[None]:
    """In the block every mapping of calls passes through `observer`, which may record them, or have one fail."""
    _OBSERVERS.append(observer)
    try:
        yield
    finally:
        _OBSERVERS.remove(observer)


_int = struct.Struct("=i").unpack


def _ioctl(fd: int, request: int) -> int:
    into = bytearray(4)  # bytes would take longer: only after a failure they are copied
    fcntl.ioctl(fd, request, into)
    found: int = _int(into)[0]
    return found


def _poll(fd: int, events: int) -> int:
    poll = select.poll()
    poll.register(fd, events)
    found = poll.poll(0)
    return found[0][1] if found else 0


class _Fprog(ctypes.Structure):
    # struct sock_fprog, include/uapi/linux/filter.h
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


_ATTACH = int(SocketOption.SO_ATTACH_FILTER)
_DROP = ctypes.create_string_buffer(c.DROP_UNMARKED, len(c.DROP_UNMARKED))  # stays where it is, as does:
_DROP_PROGRAM = bytes(_Fprog(len(c.DROP_UNMARKED) // c.SOCK_FILTER.size, ctypes.addressof(_DROP)))


def _attach(sock: SocketType, program: bytes) -> None:
    if program is c.DROP_UNMARKED:
        fprog = _DROP_PROGRAM
    else:
        kept = ctypes.create_string_buffer(program, len(program))
        fprog = bytes(_Fprog(len(program) // c.SOCK_FILTER.size, ctypes.addressof(kept)))
    sock.setsockopt(c.SOL_SOCKET, _ATTACH, fprog)


def _filter(fd: int) -> bytes:
    # The length of SO_GET_FILTER counts instructions, not bytes: socket.getsockopt cannot know.
    count = _Count()
    if _libc.getsockopt(fd, c.SOL_SOCKET, _ATTACH, None, count):
        _raise_errno()
    if not count[0]:
        return b""
    program = ctypes.create_string_buffer(count[0] * c.SOCK_FILTER.size)
    if _libc.getsockopt(fd, c.SOL_SOCKET, _ATTACH, program, count):
        _raise_errno()
    return program.raw


_Count = ctypes.c_uint * 1


def _raise_errno() -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


_FORCE = {
    int(SocketOption.SO_SNDBUF): SocketOption.SO_SNDBUFFORCE,
    int(SocketOption.SO_RCVBUF): SocketOption.SO_RCVBUFFORCE,
}


def _forced(sock: SocketType, option: int, size: int) -> bool:
    try:
        sock.setsockopt(c.SOL_SOCKET, _FORCE[option], size)
    except PermissionError:  # CAP_NET_ADMIN in the first user namespace is what it takes
        return False
    return True


def _buffer(sock: SocketType, option: int, size: int) -> None:
    if not _forced(sock, option, size):
        sock.setsockopt(c.SOL_SOCKET, option, size)


def _room(sock: SocketType, option: int, size: int) -> None:
    # The kernel doubles what is set, and reads back the double.  Never smaller than it is.
    if not _forced(sock, option, size) and sock.getsockopt(c.SOL_SOCKET, option) < 2 * size:
        sock.setsockopt(c.SOL_SOCKET, option, size)


def _send_all(sock: SocketType, data: bytes | memoryview) -> None:
    rest, chunk = memoryview(data), len(data)
    while rest:
        try:
            rest = rest[sock.send(rest[:chunk], c.MSG_DONTWAIT | c.MSG_NOSIGNAL) :]
        except BlockingIOError:
            raise OSError(errno.ENOBUFS, f"{len(rest)} of {len(data)} bytes do not fit into the buffer") from None
        except OSError as e:
            if e.errno != errno.ENOMEM or chunk <= SHORTEST_CHUNK:
                raise
            chunk = min(chunk, len(rest)) // 2


_UNSPECIFIED = bytes(16)  # struct sockaddr of family AF_UNSPEC


def _disconnect(fd: int) -> None:
    if _libc.connect(fd, _UNSPECIFIED, len(_UNSPECIFIED)):
        _raise_errno()


def _inject(sock: SocketType, packet: bytes, address: str, scope: int, state: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    target = (address, 0, 0, scope) if ":" in address else (address, 0)
    deadline = time.monotonic() + TAKEN_S
    with _network_of(sock), socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(c.SOL_SOCKET, SocketOption.SO_MARK, c.MARK)
        raw.sendto(packet, target)
        # On a busy machine the kernel takes it later; an IPv6 address that is new has no route to it in the first
        # milliseconds, so that it gets lost; and a firewall may drop it.
        while (found := sock.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_INFO, 1)[0]) != state:
            if time.monotonic() > deadline:
                names = f"{c.TcpState(found).name}, expected {c.TcpState(state).name}"
                raise OSError(errno.ETIMEDOUT, f"the state is still {names}; does a firewall drop it?")
            time.sleep(0.001)
            raw.sendto(packet, target)


@contextlib.contextmanager
def _network_of(sock: SocketType) -> Iterator[None]:
    # In the block this thread is in the network namespace of the socket, which need not be the one it is in now.
    with contextlib.ExitStack() as stack:
        theirs = fcntl.ioctl(sock.fileno(), SIOCGSKNS)
        stack.callback(os.close, theirs)
        if not os.path.samestat(os.fstat(theirs), os.stat("/proc/thread-self/ns/net")):
            stack.enter_context(inside.inside(theirs))
        yield


# ------------------------------------------------------------------------------------- the source


class Frozen:
    """A connection that stands still: see `freeze`."""

    def __init__(self, handle: SocketType, peer: Address | None, signals: Signals) -> None:
        self._handle, self._signals = handle, signals
        self._calls = calls(handle)
        self._taken: set[bytes] = set()  # identities
        self._held: plan.Held | None = None
        self.released = False
        self.before: Before = run(plan.look_steps(handle.family, peer), self._calls)

    def dump(self) -> Snapshot:
        """The connection; may be called again.  Raises CallFailed, and the connection stays frozen."""
        if self.released:
            raise BadInput("the connection was released, and is gone")
        snapshot = run(plan.dump_steps(self.before, self._held), self._calls)
        self._taken.add(snapshot.identity)
        return snapshot

    def release(self) -> None:
        """End the source without a packet: only now is it gone.  Raises CallFailed; then it is still there."""
        if not self.released:
            disconnect, *rest = plan.release_steps()
            perform([disconnect], self._calls)
            self.released = True
            _insist(rest, self._calls)

    def _freeze(self) -> None:
        with _Else(self._resume):
            self._held = run(plan.freeze_steps(self.before), self._calls)
            perform(plan.hold_steps(self._held), self._calls)

    def _resume(self) -> None:
        _STALE.update(self._taken)
        _insist(plan.resume_steps(self.before, self._held), self._calls)

    def _leave(self) -> None:
        # A snapshot that lives on elsewhere, in this process, must not live here too.
        if self._taken & _RESTORED:
            self.release()
        elif not self.released:
            self._resume()


@contextlib.contextmanager
def freeze(sock: socket.socket, peer: Address | None = None) -> Iterator[Frozen]:
    """In the block nothing comes in on `sock`, and nothing is acknowledged; leaving it without release resumes it.

    `peer` is needed in the states CLOSE and SYN_SENT, where the kernel does not tell the peer's address.  A time-out of
    the socket object does not matter, nor whether it blocks.  After `release` the socket is still to be closed.

    Raises BadInput, before anything changes, for a socket that is not TCP (MPTCP neither), in a state that cannot be
    dumped (LISTEN, SYN_RECV, TIME_WAIT), in repair mode, with kTLS, urgent data, an error pending, a locked or an eBPF
    filter; Unavailable without CAP_NET_ADMIN; CallFailed where the kernel refuses a step.
    """
    handle = _handle(sock)
    try:
        with Signals() as signals:
            frozen = Frozen(handle, peer, signals)
            frozen._freeze()
            try:
                with signals.allowed():
                    yield frozen
            finally:
                frozen._leave()
    finally:
        handle.detach()


_family, _kind = SocketType.family.__get__, SocketType.type.__get__


def _handle(sock: socket.socket) -> SocketType:
    # The same file descriptor in an object of our own: with a time-out, Python's recv() would wait for input first.
    if sock.fileno() < 0:
        raise BadInput("the socket is closed")
    # Without the class around it, which makes an enumeration of each of these numbers: we need none of its methods.
    if socket.getdefaulttimeout() is None:
        return SocketType(_family(sock), _kind(sock), sock.proto, sock.fileno())
    blocking = os.get_blocking(sock.fileno())
    made = SocketType(_family(sock), _kind(sock), sock.proto, sock.fileno())
    made.settimeout(None)
    os.set_blocking(made.fileno(), blocking)  # as it was, before the default time-out was applied
    return made


class _Else:
    # What is undone if the block fails; and who lacks the right to it is told which.
    __slots__ = ("_undo",)

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo = undo

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, e: BaseException | None, *_: object) -> None:
        if e is None:
            return
        self._undo()
        if isinstance(e, CallFailed) and e.errno == errno.EPERM:
            raise Unavailable(f"{e.args[1]}: {RIGHTS}") from e


def _insist(steps: list[Step], calls: Calls) -> None:
    # Undoing goes on to the end, and tries twice, whatever fails; the first failure that stays is raised then.
    failed = None
    for step in steps:
        for again in (True, False):
            try:
                perform([step], calls)
                break
            except CallFailed as e:
                if not again:
                    failed = failed or e
    if failed:
        raise failed


def thaw(sock: socket.socket) -> None:
    """End repair mode on a socket that somebody left in it, and the lock: the connection goes on.

    Raises BadInput unless it is in repair mode, CallFailed where the kernel refuses.
    """
    if not sock.getsockopt(c.IPPROTO_TCP, TcpOption.TCP_REPAIR):
        raise BadInput("the socket is not in repair mode")
    _insist([plan.SELECT_NONE, plan.UNLOCK, plan.REPAIR_OFF], calls(sock))


def take(pid: int, fd: int) -> socket.socket:
    """A socket of another process: the same one, which both then hold.

    Needs the right to trace that process.  Raises BadInput if it is no socket, CallFailed.  Source: pidfd_getfd(2).
    """
    got = pipes.borrow(pid, fd)
    try:
        return socket.socket(fileno=got)
    except OSError as e:
        os.close(got)
        raise BadInput(f"file descriptor {fd} of process {pid} is no socket: {e.strerror}") from e


# ------------------------------------------------------------------------------------- the target


class Prepared:
    """A connection that is whole, but locked and in repair mode: `commit` starts it, leaving the block ends it."""

    def __init__(self, snapshot: Snapshot, sock: socket.socket, used: Calls) -> None:
        self._snapshot, self._sock, self._used = snapshot, sock, used
        self._done = self._failed = False

    def commit(self, probe: bool = True) -> socket.socket:
        """The connection, alive.  The window probe tells the peer where it is now.

        Raises BadInput for a snapshot that somebody else restored meanwhile, or whose source went on; CallFailed, and
        then nothing has been sent, and the source can go on once its address is back and this one was abandoned.
        """
        with Signals():
            return self._commit(probe)

    def _commit(self, probe: bool) -> socket.socket:
        identity = self._snapshot.identity
        _refuse_used(identity)
        if self._done or self._failed:
            raise BadInput("this connection was committed or abandoned already")
        start, rest = _split(plan.commit_steps(self._snapshot, probe))
        used = calls(self._sock) if _OBSERVERS else self._used
        with _Else(self._halt):
            perform(start, used)
        self._done = True
        _RESTORED.add(identity)
        # It lives, and may have said so: what is left is tried twice and never takes it down again.
        with contextlib.suppress(CallFailed):
            _insist(rest, used)
        return self._sock

    def _halt(self) -> None:
        # It is not closed yet: as long as its address is here, a peer's packet that finds no socket is answered by a
        # reset.
        self._failed = True
        for step in (plan.LOCK, plan.REPAIR_ON):
            with contextlib.suppress(CallFailed):
                _insist([step], calls(self._sock))

    def abandon(self) -> None:
        """End it without a packet.  Does nothing after commit."""
        if not self._done:
            self._done = True
            _close_silently(self._sock)

    def __enter__(self) -> Prepared:
        """The block at whose end it is abandoned unless it was committed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Abandon it unless it was committed."""
        self.abandon()


def _split(steps: list[Step]) -> tuple[list[Step], list[Step]]:
    # Behind the step that lets it live: leaving repair mode, or in SYN_SENT connect().
    behind = len(steps)
    while steps[behind - 1] not in _ALIVE and steps[behind - 1].call != "connect":
        behind -= 1
    return steps[:behind], steps[behind:]


_ALIVE = (plan.REPAIR_OFF, plan.REPAIR_OFF_SILENTLY)


def _close_silently(sock: socket.socket) -> None:
    # In repair mode close() sends nothing.
    with contextlib.suppress(CallFailed):
        _insist([plan.REPAIR_ON], calls(sock))
    sock.close()


def _refuse_used(identity: bytes) -> None:
    if identity in _RESTORED:
        raise BadInput("this snapshot was restored already: a second connection would corrupt the stream")
    if identity in _STALE:
        raise BadInput("this snapshot is stale: its source was resumed, and the connection has gone on")


def prepare(snapshot: Snapshot, new_socket: Callable[[int], socket.socket] | None = None) -> Prepared:
    """The connection on a new socket, whole but locked: what can fail has been done, and nothing was sent.

    `new_socket(family)` makes the socket, for example in another network namespace; by default this thread's.

    Raises BadInput for a snapshot that was restored already, is stale, or contradicts itself; Unavailable without
    CAP_NET_ADMIN; CallFailed, e.g. EADDRNOTAVAIL where the address is not there or the connection still is.
    """
    with Signals():
        return _prepare(snapshot, new_socket)


def _prepare(snapshot: Snapshot, new_socket: Callable[[int], socket.socket] | None) -> Prepared:
    _refuse_used(snapshot.identity)
    check(snapshot)
    sock = (new_socket or _tcp_socket)(snapshot.family)
    with _Else(lambda: _close_silently(sock)):
        used = calls(sock)
        [now] = perform(plan.CLOCK, used)
        perform(plan.prepare_steps(snapshot, plan.elapsed_ms(snapshot.taken, now)), used)
    return Prepared(snapshot, sock, used)


def _tcp_socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if sock.gettimeout() is not None:  # socket.setdefaulttimeout
        sock.settimeout(None)
    return sock


def restore(
    snapshot: Snapshot, new_socket: Callable[[int], socket.socket] | None = None, probe: bool = True
) -> socket.socket:
    """The connection on a new, blocking socket of this host: prepare and commit.

    Raises what these raise; the source, if it is still frozen, can go on then.
    """
    with Signals() as signals, _prepare(snapshot, new_socket) as target:
        signals.end_if_pending()  # now rather than afterwards: the source can still go on
        return target._commit(probe)


@contextlib.contextmanager
def guard(
    address: Address, family: int = socket.AF_INET, new_socket: Callable[[int], socket.socket] | None = None
) -> Iterator[None]:
    """In the block no packet for this address and port is answered with a reset, while no connection is there.

    A listener of nobody takes them: its filter drops all.  It is for moves within one host, between release and
    restore; a move to another host needs none, since the address moves with it.  `new_socket` is as in `prepare`.
    """
    with (new_socket or _tcp_socket)(family) as listener:
        perform([plan.REPAIR_ON, plan.LOCK, Step("local address", "bind", (address,))], calls(listener))
        listener.listen(1)
        yield


def beside(sock: socket.socket) -> Callable[[int], socket.socket]:
    """A `new_socket` for `prepare` and `guard`: it makes them in the network namespace that this socket is in."""

    def made(family: int) -> socket.socket:
        with _network_of(sock):
            return _tcp_socket(family)

    return made


def was_restored(snapshot: Snapshot) -> bool:
    """True if this process has restored it."""
    return snapshot.identity in _RESTORED
