"""Connections to freeze: two hosts between which one end moves, a third with the peer, and streams that are checked.

old --+
+-- switch -- peer        `service4` and `service6` are addresses that move between old and new
new --+
"""

import contextlib
import hashlib
import random
import select
import socket
import struct
import time
from functools import partial

import pytest

from kernelnotes.errors import Unavailable
from kernelnotes.live import inside, loss
from kernelnotes.live import repair as live
from kernelnotes.live.netlab import Lab
from kernelnotes.live.netlink import Netlink
from kernelnotes.repair import constants as c
from kernelnotes.repair.segment import Flags, signed

KINDS = ("IPv4", "IPv6", "mapped")
PATIENCE_S = 10.0  # for what must happen; it takes milliseconds, but for retransmissions
RETURN = 0x06


def program(accepted):
    """A classic filter that takes so many bytes of each packet: 0 drops all."""
    return ((RETURN, 0, 0, accepted),)


class World:
    """The lab of a test module: see above."""

    def __init__(self, lab):
        self.lab = lab
        self.old, self.new, self.peer = (lab.host(name) for name in ("old", "new", "peer"))
        self.opened = []
        self.service4, self.service6 = "192.0.2.100", "2001:db8::100"
        for address in (self.service4, self.service6):
            self.old.add_address(address)
            self.old.prepare(address)

    def address(self, kind):
        """The address that moves, as a socket of this kind has it."""
        return {"IPv4": self.service4, "IPv6": self.service6, "mapped": f"::ffff:{self.service4}"}[kind]

    def peer_address(self, kind):
        """That of the peer."""
        return {"IPv4": self.peer.address4, "IPv6": self.peer.address6, "mapped": f"::ffff:{self.peer.address4}"}[kind]

    def reset(self):
        """All closed, and the moving addresses back where they began."""
        for sock in self.opened:
            sock.close()
        self.opened.clear()
        self.reset_addresses()

    def reset_addresses(self):
        """The moving addresses back where they began."""
        for address in (self.service4, self.service6):
            self.old.take_over(address)

    def home(self, kind):
        """The host that has the moving address of this kind, and the other one."""
        here = self.lab.owner(self.service6 if kind == "IPv6" else self.service4)
        return here, self.new if here is self.old else self.old

    def pair(self, kind, rcvbuf=0, ports=(0, 0), options=()):
        """Two connected sockets: one at the moving address, which connected, and one of the peer.

        `rcvbuf` is the peer's; `options` are set on the moving one before it is bound.
        """
        family = family_of(kind)
        with self.peer.socket(family) as listener, contextlib.ExitStack() as stack:
            a = stack.enter_context(self.home(kind)[0].socket(family))
            for level, option, value in options:
                a.setsockopt(level, option, value)
            if rcvbuf:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            listener.bind((self.peer_address(kind), ports[1]))
            listener.listen()
            a.bind((self.address(kind), ports[0]))
            a.settimeout(PATIENCE_S)
            listener.settimeout(PATIENCE_S)
            a.connect(listener.getsockname()[:2])
            b, _ = listener.accept()
            stack.pop_all()
        b.settimeout(PATIENCE_S)
        self.opened += [a, b]
        return a, b

    @contextlib.contextmanager
    def moving(self, kind, snapshot):
        """In the block the address is on the other host, and nobody there answers with a reset."""
        there = self.home(kind)[1]
        anywhere = ("0.0.0.0" if kind == "IPv4" else "::", snapshot.local[1])
        with there.inside(), live.guard(anywhere, snapshot.family):
            there.take_over(self.service6 if kind == "IPv6" else self.service4)
            yield there

    def move(self, kind, sock, peer=None, probe=True, through=contextlib.nullcontext):
        """The connection on the other host, and its snapshot; the source is closed.

        `through(snapshot)` is a block that stands for what happens to the snapshot on its way.
        """
        with live.freeze(sock, peer) as frozen:
            snapshot = frozen.dump()
            with self.moving(kind, snapshot), through(snapshot) as arrived:
                prepared = live.prepare(arrived)
                frozen.release()
                made = prepared.commit(probe)
        sock.close()
        made.settimeout(PATIENCE_S)
        self.opened.append(made)
        return made, snapshot

    @contextlib.contextmanager
    def firewall(self, host):
        """In the block the host takes TCP packets only of connections it knows (ct state established)."""
        from pyroute2.nftables.main import NFTables

        with contextlib.closing(Netlink(partial(NFTables, nfgen_family=NFPROTO_INET), host.fd)) as nft:
            nft.table("add", name="firewall")
            nft.chain("add", table="firewall", name="in", hook="input", type="filter", policy=1)
            nft.rule("add", table="firewall", chain="in", expressions=[_only_established()])
            try:
                yield
            finally:
                nft.table("del", name="firewall")


NFPROTO_INET, CT_STATE, CT_ESTABLISHED = 1, 0, 2  # include/uapi/linux/netfilter.h, nf_tables.h, nf_conntrack_common.h


def _only_established():
    state, drop = [{"attrs": [("NFTA_DATA_VALUE", struct.pack("=I", n))]} for n in (CT_ESTABLISHED, 0)], loss.NF_DROP
    return [
        loss._meta(loss.META_L4PROTO),
        loss._compare(loss.EQUAL, bytes([socket.IPPROTO_TCP])),
        loss._expression("ct", CT_DREG=loss.REGISTER, CT_KEY=CT_STATE),
        loss._expression(
            "bitwise",
            BITWISE_SREG=loss.REGISTER,
            BITWISE_DREG=loss.REGISTER,
            BITWISE_LEN=4,
            BITWISE_MASK=state[0],
            BITWISE_XOR=state[1],
        ),
        loss._compare(loss.EQUAL, struct.pack("=I", 0)),
        loss._expression(
            "immediate",
            IMMEDIATE_DREG=0,
            IMMEDIATE_DATA={"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", drop)]})]},
        ),
    ]


@contextlib.contextmanager
def a_lab():
    """A lab, gone at the end.  Where this process may not have one, test_rootless runs the test in namespaces."""
    try:
        inside.require()
    except Unavailable as e:
        pytest.skip(str(e))
    with Lab() as lab:
        yield lab


@contextlib.contextmanager
def world():
    """A world, gone at the end."""
    with a_lab() as lab:
        yield World(lab)


def family_of(kind):
    """The family of sockets of this kind."""
    return socket.AF_INET if kind == "IPv4" else socket.AF_INET6


def state(sock):
    """The state of a connection, e.g. ESTABLISHED."""
    return c.TcpState(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]).name.removeprefix("TCP_")


def until(true, what="it"):
    """Wait until this is true; fails after a while."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s in vain for {what}"
        time.sleep(0.002)


def comes_to(sock, expected):
    """Wait until the connection is in this state."""
    until(lambda: state(sock) == expected, f"{expected} (it is {state(sock)})")


def unread(sock):
    """Bytes that the application has not read."""
    return live._ioctl(sock.fileno(), c.SIOCINQ)


def unacked(sock):
    """Bytes that the peer has not acknowledged."""
    return live._ioctl(sock.fileno(), c.SIOCOUTQ)


def in_repair(sock):
    """Whether it is in repair mode."""
    return bool(sock.getsockopt(socket.IPPROTO_TCP, c.TcpOption.TCP_REPAIR))


def has_filter(sock):
    """Whether something filters what comes in."""
    return bool(live._filter(sock.fileno()))


def data(size, seed=1):
    """So many bytes, the same for each seed."""
    return random.Random(seed).randbytes(size)


def digest(given):
    """Its SHA-256."""
    return hashlib.sha256(given).hexdigest()


def fill(sock, source):
    """Write of it what the socket takes without waiting; how many bytes that were."""
    before, taken, idle = sock.gettimeout(), 0, 0
    sock.setblocking(False)
    while idle < 10 and taken < len(source):  # the kernel makes room while it sends
        try:
            taken += sock.send(source[taken : taken + 65536])
            idle = 0
        except BlockingIOError:
            idle += 1
            time.sleep(0.005)
    sock.settimeout(before)
    return taken


def read_all(sock):
    """Everything up to the end of the stream."""
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def read(sock, size):
    """So many bytes; soon, for a stream that trickles is as bad as one that stands."""
    found, deadline = bytearray(), time.monotonic() + 3 * PATIENCE_S
    while len(found) < size and (part := sock.recv(size - len(found))):
        found += part
        assert time.monotonic() < deadline, f"{len(found)} of {size} bytes in {3 * PATIENCE_S} s"
    return bytes(found)


class Flow:
    """One end of a stream in both directions: what it sends follows from a seed, what it gets is hashed."""

    def __init__(self, size, seed, expected):
        self.outgoing, self.sent = memoryview(data(size, seed)), 0
        self.hash, self.got, self.expected = hashlib.sha256(), 0, expected

    @property
    def done(self):
        """True when everything was sent and received."""
        return self.sent == len(self.outgoing) and self.got >= self.expected

    def turn(self, sock, most=1 << 16, wait_ms=20):
        """Send and receive once what is possible, `most` bytes each; the socket does not block."""
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if self.sent < len(self.outgoing) else 0))
        for _, events in poll.poll(wait_ms):
            if events & select.POLLOUT:
                with contextlib.suppress(BlockingIOError):
                    self.sent += sock.send(self.outgoing[self.sent : self.sent + most])
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                part = sock.recv(most)
                assert part, "the stream has ended"
                self.hash.update(part)
                self.got += len(part)

    def run(self, sock):
        """All of it."""
        deadline = time.monotonic() + 3 * PATIENCE_S
        while not self.done:
            assert time.monotonic() < deadline, f"sent {self.sent}, got {self.got} of {self.expected}"
            self.turn(sock)


def faults(segments, closed=()):
    """What no peer should see: resets, and FINs but those of the addresses that closed, each always at one place."""
    found = [f"reset from {s.src}" for s in segments if s.flags & Flags.RST]
    ends = {}
    for s in segments:
        if s.flags & Flags.FIN:
            ends.setdefault(s.flow, set()).add(s.end)
    found += [f"a FIN from {flow[0]}" for flow in ends if flow[0] not in closed]
    found += [f"FINs at {sorted(places)}" for places in ends.values() if len(places) > 1]
    return found


@contextlib.contextmanager
def watched(host, closed=(), packets=8192):
    """In the block what passes the host is captured, and at its end free of faults, and whole."""
    with host.capture(keep=120, packets=packets) as capture:
        yield capture
        segments = capture.segments
        assert not capture.lost
        assert not capture.unreadable
        found = faults(segments, [plain(address) for address in closed])
        assert not found, found


def plain(address):
    """An address as packets have it."""
    return address.removeprefix("::ffff:")


def ahead(later, earlier):
    """How far one sequence number is behind the other one, negative if before."""
    return signed(later - earlier)
