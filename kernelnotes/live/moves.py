"""Moving a live TCP connection from one host of a lab to another, with its address, in less than a millisecond.

    moved = move(sock, new_host)         # sock is a connection of another host; its peer is anywhere
    moved.sock                           # the same connection, with all that the application has not read yet

    old host     frozen: the peer's packets are dropped unseen, and it will send them again
    new host     rebuilt: the address is there already, but nobody has been told
    the address  moves: from here on the peer's packets come to the new host, and are dropped there
    new host     lives: a window probe tells the peer
    old host     released: the socket ends without a packet

Until it lives on the new host everything can be undone.  Whatever goes wrong before, an exception or Ctrl-C, gives the
address back, and the connection goes on where it was.  What goes wrong later does not harm it any more.

The address moves for all its connections: give one that is to move an address of its own (`Host.add_address`).

Source: `live.repair` has the steps, after criu soccr/soccr.c; `live.netlab` has what happens to the address.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.live.netlab import Host
from kernelnotes.live.repair import freeze, prepare
from kernelnotes.repair.constants import IPPROTO_TCP, TcpOption
from kernelnotes.repair.snapshot import Address, Snapshot


class Moved(NamedTuple):
    """A connection on its new host, what was carried there, and for how long it stood still, in microseconds."""

    sock: socket.socket
    snapshot: Snapshot
    freeze_us: float  # from before the old socket was looked at until the new one was alive


def move(sock: socket.socket, target: Host, peer: Address | None = None) -> Moved:
    """Move a connection and its local address to another host of the same lab, and close the old socket.

    Nobody else may use `sock` meanwhile.  `peer` is as in `freeze`.  The new socket blocks, whatever the old one did.
    Raises what `freeze`, `prepare` and `Host.take_over` raise, and BadInput where the target has the address; then the
    connection goes on, on `sock`.
    """
    address = address_of(sock)
    owner = target.lab.owner(address)
    if owner is None or owner is target:
        raise BadInput(f"{address} is an address of {owner.name if owner else 'nobody'}, expected another host's")
    target.prepare(address)
    moved = None
    with _shared(address, target), _new_socket(sock.family, target) as new:
        start = time.perf_counter()
        try:
            with freeze(sock, peer) as frozen:
                snapshot = frozen.dump()
                with prepare(snapshot, lambda _: new) as prepared, _taken_over(address, owner, target, new):
                    prepared.commit()
                    moved = Moved(new, snapshot, (time.perf_counter() - start) * 1e6)
        except CallFailed:  # moved: the old socket could not be disconnected, but to close it is silent as well
            if moved is None:
                raise
    sock.close()
    return moved


def address_of(sock: socket.socket) -> str:
    """The local address of a connection, as the lab knows it: without scope, and IPv4 if it is mapped to IPv6."""
    local: str = sock.getsockname()[0]
    return local.partition("%")[0].removeprefix("::ffff:")


def _lives(sock: socket.socket) -> bool:
    # Closed, it does not; nor before it has an address, nor while it is in repair mode.
    return sock.fileno() >= 0 and sock.getsockname()[1] > 0 and not sock.getsockopt(IPPROTO_TCP, TcpOption.TCP_REPAIR)


@contextlib.contextmanager
def _shared(address: str, target: Host) -> Iterator[None]:
    # So that the new socket can be bound to it, before it moves.
    target.share(address)
    try:
        yield
    finally:
        target.unshare(address)


@contextlib.contextmanager
def _new_socket(family: int, target: Host) -> Iterator[socket.socket]:
    # Made before the connection is frozen: to enter the other network takes its time.
    new = target.socket(family)
    try:
        yield new
    except BaseException:
        if not _lives(new):
            new.close()
        raise


@contextlib.contextmanager
def _taken_over(address: str, owner: Host, target: Host, new: socket.socket) -> Iterator[None]:
    # Back before the old socket goes on.  But where the new one lives (Ctrl-C at its end) the address is to stay.
    target.take_over(address)
    try:
        yield
    except BaseException:
        if not _lives(new):
            owner.take_over(address)
        raise
