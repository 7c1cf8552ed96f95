"""A laboratory: hosts on one switch, inside this computer, each with its own network, gone without a trace at the end.

    with Lab() as lab:
        client, server = lab.host("client"), lab.host("server")
        listener = server.socket()
        listener.bind((server.address4, 80))
        with client.capture() as capture, lab.drop(0.05, source=client): ...

        client -- eth0 --+
                         +-- br0 (the switch, in a namespace of the lab's own)
        server -- eth0 --+

A host is a network namespace with one Ethernet interface: its own addresses, routes, neighbours, ports and firewall,
but the same processes and files as everywhere.  The namespaces have no names and are held by file descriptors of this
process alone: when it ends, however it ends, the kernel removes them with all that is in them.  Programs started with
`Host.run` or `Host.start` are killed when the thread that started them ends.

Addresses are those reserved for documentation, 192.0.2.0/24 and 2001:db8::/64.  Interfaces compute their checksums and
cut their segments in software, so that a capture shows each packet as it would be on a wire.

Root, or anybody in namespaces of one's own (see `inside`).  Needs pyroute2: pip install 'kernelnotes[live]'.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import os
import shutil
import socket
import struct
import subprocess
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import inside
from kernelnotes.live.address import Addresses
from kernelnotes.live.capture import Capture
from kernelnotes.live.loss import Loss
from kernelnotes.live.netlink import Netlink
from kernelnotes.live.signals import Signals
from kernelnotes.repair.segment import Flags

SUBNET4, SUBNET6 = "192.0.2.0/24", "2001:db8::/64"
MOST_HOSTS = 200
LINK_S, BR_STATE_FORWARDING = 5.0, 3  # include/uapi/linux/if_bridge.h
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17  # include/uapi/linux/sockios.h, ethtool.h
NUD_NOARP = 0x40  # include/uapi/linux/neighbour.h: multicast and the like, where nobody is asked
# No addresses and no packets but those asked for.
QUIET6 = {"addr_gen_mode": "1", "accept_dad": "0", "accept_ra": "0", "router_solicitations": "0"}


class Lab:
    """Hosts on a switch.

    Raises Unavailable where this process may not have network namespaces, and without pyroute2.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self._open = contextlib.ExitStack()
        self._switch = -1

    def __enter__(self) -> Lab:
        inside.require()
        if not Path("/proc/net/if_inet6").exists():
            raise Unavailable("netlab: no IPv6. Remedy: start the kernel without ipv6.disable=1")
        try:
            from pyroute2 import IPRoute
        except ImportError as e:
            raise Unavailable("netlab: pyroute2 is missing. Remedy: pip install 'kernelnotes[live]'") from e
        try:
            with Signals():
                self._build(IPRoute)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self, iproute: Any) -> None:
        self._switch = _network(self._open)
        with inside.inside(self._switch):
            _set_default6({"disable_ipv6": "1"})  # a switch says nothing of its own
        self._route = self._open.enter_context(contextlib.closing(Netlink(iproute, self._switch)))
        self._bridge = _add_link(self._route, "br0", kind="bridge", br_stp_state=0, br_mcast_snooping=0)
        self._route.link("set", index=self._bridge, state="up")

    def __exit__(self, *_: object) -> None:
        with Signals():
            for host in self.hosts.values():
                host._close()
            self._open.close()
            self._switch = -1

    def host(self, name: str) -> Host:
        """A new host on the switch, ready to be used.  Raises BadInput for a name that is taken, CallFailed."""
        if self._switch < 0:
            raise BadInput("netlab: the lab is not open, expected `with Lab() as lab`")
        if name in self.hosts or not name or len(self.hosts) >= MOST_HOSTS:
            raise BadInput(f"netlab: host {name!r}: expected a new name, and at most {MOST_HOSTS} hosts")
        with Signals():
            self.hosts[name] = host = Host(self, name, len(self.hosts) + 1)
        return host

    @property
    def names(self) -> dict[str, str]:
        """Whose each address is now, e.g. for `segment.table`."""
        return {address: host.name for host in self.hosts.values() for address in host.addresses}

    def owner(self, address: str) -> Host | None:
        """The host that has this address now."""
        text = str(ipaddress.ip_address(address))
        return next((host for host in self.hosts.values() if text in host.addresses), None)

    def drop(self, share: float, source: Host | None = None, target: Host | None = None) -> Loss:
        """Lose a share (0 to 1) of the TCP packets from a host, or to one, or of all.  See `Loss`."""
        ends = (None if host is None else host._port for host in (source, target))
        loss = Loss(self._switch, share, *ends)
        self._open.callback(loss.stop)
        return loss


class Host:
    """One host of a lab; made by `Lab.host`.

    `address4` and `address6` are those it was given; `addresses` is what it has now, IPv4 and IPv6.  `fd` is its
    network namespace, `interface` the number of eth0 in there (the scope of a link-local address), `mac` its hardware
    address.
    """

    def __init__(self, lab: Lab, name: str, number: int) -> None:
        self.lab, self.name = lab, name
        self.address4 = str(ipaddress.ip_network(SUBNET4)[number])
        self.address6 = str(ipaddress.ip_network(SUBNET6)[number])
        self.link_local = f"fe80::{number:x}"
        self.addresses: list[str] = []
        self._shared: set[str] = set()  # addresses of others that it has too
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._programs: list[subprocess.Popen[Any]] = []
        self._captures: weakref.WeakSet[Capture] = weakref.WeakSet()
        with contextlib.ExitStack() as stack:
            self.fd = _network(stack)
            self._build(number, stack)
            self._open = stack.pop_all()

    def _build(self, number: int, stack: contextlib.ExitStack) -> None:
        from pyroute2 import IPRoute

        switch = self.lab._route
        with inside.inside(self.fd):
            _set_default6(QUIET6)
        self.mac = mac = f"02:00:00:00:00:{number:02x}"
        self._port = _add_link(
            switch,
            f"port{number}",
            kind="veth",
            peer={"ifname": "eth0", "address": mac, "net_ns_fd": self.fd},
        )
        switch.link("set", index=self._port, master=self.lab._bridge, state="up")
        self._route = stack.enter_context(contextlib.closing(Netlink(IPRoute, self.fd)))
        with inside.inside(self.fd):
            _without_offload("eth0")
        [self.interface] = self._route.link_lookup(ifname="eth0")
        for each in (1, self.interface):  # 1 is lo
            self._route.link("set", index=each, state="up")
        self._wait_for_the_link()
        self._addresses = Addresses(self.fd, self.interface, bytes.fromhex(mac.replace(":", "")), (SUBNET4, SUBNET6))
        stack.callback(self._addresses.close)
        for address in (self.address4, self.link_local, self.address6):
            self._addresses.add(address, announce=False)
            if address != self.link_local:
                self.addresses.append(address)

    def _wait_for_the_link(self) -> None:
        # It takes milliseconds until the switch forwards; what is sent earlier is lost, and asked for again after 1 s.
        deadline = time.monotonic() + LINK_S
        while not (_operates(self._route, self.interface) and _operates(self.lab._route, self._port, forwarding=True)):
            if time.monotonic() > deadline:
                raise CallFailed(errno.ENETDOWN, f"netlab: the link of {self.name} is not up after {LINK_S} s")
            time.sleep(0.001)

    # ------------------------------------------------------------------------------------ using it

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """Be on the host until the end of the block, with this thread: see `inside.inside`."""
        return inside.inside(self.fd)

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0) -> socket.socket:
        """A socket of this host, for good; the lab closes it at its end.  Raises OSError as socket.socket does.

        Sockets that come from accept() are not known to the lab: they keep the host's network alive until closed.
        """
        with self.inside():
            made = socket.socket(family, kind, proto)
        self._sockets.add(made)
        return made

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program on this host, killed when this thread or the lab ends; `options` are subprocess.Popen's.

        Raises BadInput where there is no such program, Unavailable without `setpriv` (util-linux).
        """
        if not shutil.which(argv[0]):
            raise BadInput(f"netlab: there is no program {argv[0]!r}")
        if not shutil.which("setpriv"):
            raise Unavailable("netlab: the program `setpriv` is missing. Remedy: apt-get install util-linux")
        with self.inside():
            program = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], **options)
        self._programs.append(program)
        return program

    def run(self, argv: Sequence[str], *, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end: its exit status, output and errors, as text.

        Raises BadInput, Unavailable, and subprocess.TimeoutExpired, after having killed it.
        """
        with self.start(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
            try:
                out, err = program.communicate(timeout=timeout_s)
            except BaseException:
                program.kill()
                raise
        self._programs.remove(program)
        return subprocess.CompletedProcess(list(argv), program.returncode, out, err)

    def sysctl(self, name: str, value: str | None = None) -> str:
        """A setting of this host, e.g. "net.ipv4.tcp_wmem", as it was before; with `value` it is set.  CallFailed."""
        path = Path("/proc/sys", name.replace(".", "/"))
        try:
            with self.inside():
                before = path.read_text().strip()
                if value is not None:
                    path.write_text(value)
        except OSError as e:
            raise CallFailed(e.errno, f"{name} on {self.name}: {e.strerror}") from e
        return before

    def capture(self, *, packets: int = 8192, keep: int = 1600, flags: Flags | None = None) -> Capture:
        """The TCP segments that this host sends and receives from now on: see `Capture`."""
        made = Capture("eth0", self.fd, packets=packets, keep=keep, flags=flags, names=self.lab.names)
        self._captures.add(made)
        return made

    # ------------------------------------------------------------------------------------ addresses

    def neighbours(self) -> dict[str, str]:
        """The hardware address behind each address that this host has talked to."""
        known = (entry for entry in self._route.get_neighbours() if not entry["state"] & NUD_NOARP)
        known = (entry for entry in known if entry.get_attr("NDA_LLADDR"))
        return {entry.get_attr("NDA_DST"): entry.get_attr("NDA_LLADDR") for entry in known}

    def add_address(self, address: str) -> None:
        """Give this host one more address within the lab's subnets.  Raises BadInput where it is taken or outside."""
        text = str(self._belonging(address))
        if self.lab.owner(text):
            raise BadInput(f"netlab: {text} is taken")
        self._addresses.add(text)
        self.addresses.append(text)

    def take_over(self, address: str) -> None:
        """Move an address of another host here, and tell the link: from then on what is sent to it comes here.

        Connections of the other host stay open, though nothing reaches them and they can send nothing.  Takes some
        100 us where it was prepared.  Raises BadInput where nobody has it, CallFailed; it is back at its owner then.
        """
        owner = self._owner_of(address)
        if owner is self:
            return
        text = str(ipaddress.ip_address(address))
        self._addresses.prepare(text)
        owner._addresses.remove(text)
        try:
            (self._addresses.announce if text in self._shared else self._addresses.add)(text)
        except BaseException:
            with contextlib.suppress(CallFailed):
                self._addresses.remove(text)
            self._shared.discard(text)
            owner._addresses.add(text)
            raise
        self._shared.discard(text)
        owner.addresses.remove(text)
        self.addresses.append(text)

    def share(self, address: str) -> None:
        """Have an address of another host too, and tell nobody: what is sent to it still goes there.

        A socket can be bound to it, before `take_over` moves it here or `unshare` gives it up.  Only for a moment: who
        asks the link for the address hears both.  Raises BadInput where nobody has it, CallFailed.
        """
        text = str(self._belonging(address))
        if self._owner_of(address) is not self and text not in self._shared:
            self._addresses.add(text, announce=False)
            self._shared.add(text)

    def unshare(self, address: str) -> None:
        """Give up an address that is another host's; what was taken over stays.  Raises CallFailed."""
        text = str(self._belonging(address))
        if text in self._shared:
            self._addresses.remove(text)
            self._shared.remove(text)

    def prepare(self, address: str) -> None:
        """Do in advance what `take_over` of this address can have done in advance."""
        text = str(self._belonging(address))
        for host in self.lab.hosts.values():
            host._addresses.prepare(text)

    def _owner_of(self, address: str) -> Host:
        text = str(self._belonging(address))
        owner = self.lab.owner(text)
        if owner is None:
            raise BadInput(f"netlab: no host has {text}")
        return owner

    def _belonging(self, address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        try:
            given = ipaddress.ip_address(address)
        except ValueError as e:
            raise BadInput(f"netlab: {address!r} is not an address") from e
        if not any(given in ipaddress.ip_network(subnet) for subnet in (SUBNET4, SUBNET6)):
            raise BadInput(f"netlab: {address} is not in {SUBNET4} or {SUBNET6}")
        return given

    def _close(self) -> None:
        for program in self._programs:
            if program.poll() is None:
                program.kill()
            program.wait()
        for capture in list(self._captures):
            capture.stop()
        for each in list(self._sockets):
            each.close()
        self._open.close()


# ---------------------------------------------------------------------------------------- pieces


def _network(stack: contextlib.ExitStack) -> int:
    fd = inside.new_network()
    stack.callback(os.close, fd)
    return fd


def _set_default6(settings: dict[str, str]) -> None:
    # For the interfaces that will be made in this thread's network namespace.
    for name, value in settings.items():
        with contextlib.suppress(OSError):  # /proc/sys may be read-only, in a container; there is more traffic then
            Path("/proc/sys/net/ipv6/conf/default", name).write_text(value)


def _add_link(route: Any, name: str, **properties: Any) -> int:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        route.link("add", ifname=name, **properties)
        [index] = route.link_lookup(ifname=name)
    except NetlinkError as e:
        kind = properties.get("kind")
        raise Unavailable(f"netlab: no interface of the kind {kind}: {e}. Remedy: a kernel with {kind}") from e
    return int(index)


def _operates(route: Any, index: int, forwarding: bool = False) -> bool:
    [link] = route.get_links(index)
    if link.get_attr("IFLA_OPERSTATE") != "UP":
        return False
    steps = "IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_STATE"
    return not forwarding or link.get_nested(*steps) == BR_STATE_FORWARDING


def _without_offload(interface: str) -> None:
    # Without checksums by the card there is no cutting of segments by the card either.
    value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_STXCSUM, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
