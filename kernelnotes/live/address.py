"""Adding and removing an address within microseconds, and telling the neighbours at once where it is now.

`Addresses` is one interface's: its netlink socket stays open, and the messages and frames for an address are prepared
once, so that a move is two system calls here and one there: remove, add, announce.  The program `ip` takes some 10 ms
for each.

Announced is an IPv4 address by an ARP announcement (a request for what the sender has itself), an IPv6 address by an
unsolicited neighbour advertisement with the override flag, both to everybody on the link.  Who has an entry for the
address corrects it; nobody makes a new one.

Source: rtnetlink(7); RFC 5227 section 2.3, RFC 4861 section 7.2.6; net/ipv4/arp.c, arp_process(), net/ipv6/ndisc.c.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from typing import Any, NamedTuple

from kernelnotes.errors import BadInput, CallFailed
from kernelnotes.live import inside

RT_TABLE_MAIN, RT_TABLE_LOCAL, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, RTN_LOCAL = 254, 255, 4, 253, 1, 2
ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
ALL_NODES = ipaddress.ip_address("ff02::1")


class Prepared(NamedTuple):
    """What moves one address to an interface, and what takes it from there, as bytes to send."""

    add: bytes
    remove: bytes
    announce: bytes


class Addresses:
    """The addresses of one interface in a network namespace (`network` is its file descriptor).

    Every address stands alone (/32, /128): the routes to the `subnets` on the link are set with each of them, as the
    kernel drops all routes of an interface with its last IPv4 address.  Raises Unavailable, CallFailed.
    """

    def __init__(self, network: int, index: int, mac: bytes, subnets: tuple[str, ...]) -> None:
        self.index, self.mac = index, mac
        self._subnets: dict[int, Any] = {ipaddress.ip_network(s).version: ipaddress.ip_network(s) for s in subnets}
        self._prepared: dict[str, Prepared] = {}
        with contextlib.ExitStack() as stack, inside.inside(network):
            self._netlink, self._frames, self._groups = (
                stack.enter_context(socket.socket(*kind))
                for kind in (
                    (socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE),
                    (socket.AF_PACKET, socket.SOCK_RAW, 0),
                    (socket.AF_INET6, socket.SOCK_DGRAM),
                )
            )
            self._frames.bind((socket.if_indextoname(index), 0))
            self._netlink.settimeout(5)
            self._open = stack.pop_all()

    def close(self) -> None:
        """Close the sockets; the addresses stay."""
        self._open.close()

    def prepare(self, address: str) -> Prepared:
        """The bytes for this address; made once, which takes a millisecond.  Raises BadInput for what is none."""
        if address not in self._prepared:
            given = _address(address)
            self._join(given)
            self._prepared[address] = Prepared(self._adding(given), self._removing(given), self._announcing(given))
        return self._prepared[address]

    def _join(self, address: Any) -> None:
        # Who looks for an IPv6 address asks a multicast group.  The kernel joins it some time after it has added the
        # address; a question in between would be lost, and asked again after a second.
        if address.version == 6:
            group = ipaddress.ip_address("ff02::1:ff00:0").packed[:13] + address.packed[13:]
            with contextlib.suppress(OSError):  # EADDRINUSE: another address with the same last three bytes
                self._groups.setsockopt(
                    socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("=i", self.index)
                )

    def add(self, address: str, announce: bool = True) -> None:
        """Give the interface this address and tell the link.  Raises CallFailed: EEXIST where it has it already."""
        prepared = self.prepare(address)
        self._do(f"add {address}", prepared.add)
        if announce:
            self.announce(address)

    def remove(self, address: str) -> None:
        """Take it away; connections that use it stay open and can send nothing.  Raises CallFailed."""
        self._do(f"remove {address}", self.prepare(address).remove)

    def announce(self, address: str) -> None:
        """Tell everybody on the link that this address is here."""
        self._frames.send(self.prepare(address).announce)

    def _do(self, step: str, messages: bytes) -> None:
        # The kernel carries them out before send() returns; the answers wait in the socket, one to each message.
        self._netlink.send(messages)
        error, at = 0, 0
        while at < len(messages):
            at += HEADER.unpack_from(messages, at)[0]
            answer = self._netlink.recv(4096)  # NLMSG_ERROR: a negative errno, 0 for done
            error = error or -struct.unpack_from("=i", answer, HEADER.size)[0]
        if error:
            raise CallFailed(error, f"{step}: {os.strerror(error)}")

    # ------------------------------------------------------------------------------------ messages

    def _adding(self, address: Any) -> bytes:
        from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE
        from pyroute2.netlink.rtnl import RTM_NEWADDR, RTM_NEWROUTE

        routes = [self._local_route(address)] if address.version == 6 else []
        if not address.is_link_local:
            routes += [self._route(self._subnets[address.version])]
        added = _encoded(self._ifaddr(address), RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL)
        return added + b"".join(_encoded(route, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE) for route in routes)

    def _removing(self, address: Any) -> bytes:
        from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_DELROUTE

        removed = _encoded(self._ifaddr(address), RTM_DELADDR, 0)
        return removed if address.version == 4 else removed + _encoded(self._local_route(address), RTM_DELROUTE, 0)

    def _ifaddr(self, address: Any) -> Any:
        from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_NODAD, ifaddrmsg

        message = ifaddrmsg()
        message["family"] = socket.AF_INET if address.version == 4 else socket.AF_INET6
        message["prefixlen"] = 64 if address.is_link_local else address.max_prefixlen
        message["flags"] = IFA_F_NODAD if address.version == 6 else 0  # usable at once
        message["index"] = self.index
        message["scope"] = RT_SCOPE_LINK if address.is_link_local else 0
        message["attrs"] = [("IFA_LOCAL", str(address)), ("IFA_ADDRESS", str(address))]
        return message

    def _route(self, subnet: Any) -> Any:
        from pyroute2.netlink.rtnl.rtmsg import rtmsg

        message = rtmsg()
        message["family"] = socket.AF_INET if subnet.version == 4 else socket.AF_INET6
        message["dst_len"] = subnet.prefixlen
        message["table"], message["proto"], message["type"] = RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST
        message["scope"] = RT_SCOPE_LINK if subnet.version == 4 else 0
        message["attrs"] = [("RTA_DST", str(subnet.network_address)), ("RTA_OIF", self.index)]
        return message

    def _local_route(self, address: Any) -> Any:
        # "This is me".  For IPv6 the kernel makes this route some time after the address, and what arrives before is
        # lost; ours, which its own one then takes precedence over, is there at once.  Source: addrconf_dad_start().
        message = self._route(ipaddress.ip_network(address))
        message["table"], message["type"] = RT_TABLE_LOCAL, RTN_LOCAL
        message["attrs"].append(("RTA_PRIORITY", 1024))
        return message

    def _announcing(self, address: Any) -> bytes:
        if address.version == 4:
            # A request, since Linux takes a reply only where its two hardware addresses are the same (arp_is_garp()).
            arp = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1)  # Ethernet, IPv4, their sizes, a request
            body: bytes = arp + (self.mac + address.packed) + (bytes(6) + address.packed)
            return b"\xff" * 6 + self.mac + struct.pack(">H", ETH_P_ARP) + body
        from dpkt import icmp6, ip6

        # A neighbour advertisement: the override flag, the address, an option with our hardware address.
        body = struct.pack(">I", 0x20000000) + address.packed + b"\x02\x01" + self.mac
        inner = icmp6.ICMP6(type=136, code=0, sum=0, data=body)
        packet = ip6.IP6(src=address.packed, dst=ALL_NODES.packed, nxt=58, hlim=255, plen=4 + len(body), data=inner)
        packet.extension_hdrs, packet.all_extension_headers = {}, []
        return b"\x33\x33\x00\x00\x00\x01" + self.mac + struct.pack(">H", ETH_P_IPV6) + bytes(packet)


def _address(text: str) -> Any:
    try:
        return ipaddress.ip_address(text)
    except ValueError as e:
        raise BadInput(f"{text!r} is not an address") from e


def _encoded(message: Any, kind: int, flags: int) -> bytes:
    from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST

    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | flags
    message.encode()
    return bytes(message.data)
