"""One TCP segment as an object: read from the bytes of an IP packet, written as such, and many of them as a table.

    segment = from_ip(packet)            segment.flags, segment.seq, segment.tsval ...
    packet = segment.to_ip()             with right checksums, ready for a raw socket
    table(segments)                      one line each, with relative times and sequence numbers

Sequence numbers, acknowledgements and windows are as on the wire: mod 2**32, the window not yet shifted by the scale
that was agreed on in the handshake.  The options are those that connection repair has to do with; others are left out
when a packet is read.  So are IP options, the time to live and the type of service, and in IPv6 extension headers.
Checksums are not checked: what a capture on the sending machine sees often has none yet (the card would add it).

Source: RFC 9293, RFC 7323 (timestamps and scale), RFC 2018 (SACK); the order of the options is Linux's,
net/ipv4/tcp_output.c, tcp_options_write().
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import TYPE_CHECKING, Any

from kernelnotes.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

IPPROTO_TCP = 6
EOL, NOP, MSS, WSCALE, SACK_PERM, SACK, TIMESTAMP = 0, 1, 2, 3, 4, 5, 8  # include/net/tcp.h, TCPOPT_*
MOST_OPTIONS = 40  # bytes: the header's length is a number of 4 bits, times 4, of which 20 are fixed


class Flags(IntFlag):
    """The bits of a TCP header that say what a segment is for; their names are the protocol's."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32
    ECE = 64
    CWR = 128

    def __str__(self) -> str:
        """Like `SYN ACK`, the first bits first; `-` where none is set."""
        return " ".join(flag.name or "" for flag in Flags if flag in self) or "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One TCP segment between two addresses, both IPv4 or both IPv6, as text.

    `time` is in seconds since 1970, 0 where nobody captured it.  `sack` holds the blocks (first, behind the last).
    `cut` is the number of payload bytes that were on the wire and that the capture did not keep.
    Raises BadInput for a field that no header could hold.
    """

    src: str
    sport: int
    dst: str
    dport: int
    flags: Flags
    seq: int
    ack: int = 0
    window: int = 0
    urgent: int = 0
    mss: int | None = None
    wscale: int | None = None
    sack_permitted: bool = False
    tsval: int | None = None
    tsecr: int | None = None
    sack: tuple[tuple[int, int], ...] = ()
    payload: bytes = b""
    cut: int = 0
    time: float = 0.0

    def __post_init__(self) -> None:
        if ":" in self.src and ":" in self.dst:
            pass
        elif ":" in self.src or ":" in self.dst:
            raise BadInput(f"segment: {self.src} and {self.dst} are of different families")
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise BadInput(f"segment: {name} is {value}, expected 0 to {most}")
        if (self.tsval is None) != (self.tsecr is None):
            raise BadInput("segment: tsval and tsecr come together or not at all")
        if any(not 0 <= edge < 1 << 32 for block in self.sack for edge in block):
            raise BadInput(f"segment: sack is {self.sack}, expected pairs of sequence numbers")

    @property
    def length(self) -> int:
        """Payload bytes on the wire."""
        return len(self.payload) + self.cut

    @property
    def end(self) -> int:
        """The sequence number behind this segment: SYN and FIN count as one byte each."""
        return (self.seq + self.length + bool(self.flags & Flags.SYN) + bool(self.flags & Flags.FIN)) % 2**32

    @property
    def flow(self) -> tuple[str, int, str, int]:
        """Who sends to whom: address, port, address, port."""
        return self.src, self.sport, self.dst, self.dport

    def answered_by(self, other: Segment) -> bool:
        """True if the other one goes the other way between the same two ends."""
        return other.flow == (self.dst, self.dport, self.src, self.sport)

    def to_ip(self) -> bytes:
        """The packet: an IPv4 or IPv6 header, the TCP header, the payload, with checksums.

        Raises BadInput where it does not fit, where payload was cut off, or for an address that is none.
        """
        from dpkt import ip, ip6, tcp

        if self.cut:
            raise BadInput(f"segment: {self.cut} bytes of its payload were not kept, so it cannot be written")
        options = self._options()
        header = tcp.TCP(
            sport=self.sport, dport=self.dport, seq=self.seq, ack=self.ack, win=self.window, urp=self.urgent
        )
        header.opts, header.data, header.sum = options, self.payload, 0
        header.off = (20 + len(options)) // 4
        header.flags = int(self.flags)
        source, target = _packed(self.src), _packed(self.dst)
        size = 20 + len(options) + len(self.payload)
        if size + (20 if len(source) == 4 else 0) > 65535:
            raise BadInput(f"segment: {len(self.payload)} bytes of payload do not fit into one packet")
        if len(source) == 4:
            return bytes(ip.IP(src=source, dst=target, p=IPPROTO_TCP, df=1, data=header, len=20 + size))
        packet = ip6.IP6(src=source, dst=target, nxt=IPPROTO_TCP, hlim=64, plen=size, data=header)
        packet.extension_hdrs, packet.all_extension_headers = {}, []
        return bytes(packet)

    def _options(self) -> bytes:
        # NOPs in front, as Linux does, so that numbers of 4 bytes lie at multiples of 4.
        written = b""
        if self.mss is not None:
            written += struct.pack(">BBH", MSS, 4, self.mss)
        if self.tsval is not None:
            lead = bytes([SACK_PERM, 2]) if self.sack_permitted else bytes([NOP, NOP])
            written += lead + struct.pack(">BBII", TIMESTAMP, 10, self.tsval, self.tsecr)
        elif self.sack_permitted:
            written += bytes([NOP, NOP, SACK_PERM, 2])
        if self.wscale is not None:
            written += bytes([NOP, WSCALE, 3, self.wscale])
        if self.sack:
            written += bytes([NOP, NOP, SACK, 2 + 8 * len(self.sack)])
            written += b"".join(struct.pack(">II", *block) for block in self.sack)
        if len(written) > MOST_OPTIONS:
            raise BadInput(f"segment: {len(written)} bytes of options, at most {MOST_OPTIONS} fit")
        return written


_MOST = {
    **dict.fromkeys(("sport", "dport", "window", "urgent", "mss"), 0xFFFF),
    **dict.fromkeys(("seq", "ack", "tsval", "tsecr"), 0xFFFFFFFF),
    **dict.fromkeys(("wscale", "flags"), 0xFF),
    "cut": 0xFFFF,
}


def _packed(address: str) -> bytes:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).packed
    except ValueError as e:
        raise BadInput(f"segment: {address!r} is not an address") from e


# ---------------------------------------------------------------------------------------- reading


def from_ip(packet: bytes, time: float = 0.0) -> Segment:
    """The segment in an IPv4 or IPv6 packet, which begins with its IP header.

    A packet whose end is missing is taken, as long as its TCP header is whole: see `Segment.cut`; what follows the
    packet (the padding of short frames) is dropped.  Raises BadInput for what is not TCP, for fragments, and for
    headers or options that contradict themselves.
    """
    import dpkt

    try:
        version = packet[0] >> 4
        if version == 4:
            ip = dpkt.ip.IP(packet)
            ends = ip.len
            if ip.mf or ip.offset:
                raise BadInput("packet: a fragment, expected a whole packet")
        elif version == 6:
            ip = dpkt.ip6.IP6(packet)
            ends = 40 + ip.plen
            if 44 in ip.extension_hdrs and (ip.extension_hdrs[44].m_flag or ip.extension_hdrs[44].frag_off):
                raise BadInput("packet: a fragment, expected a whole packet")
        else:
            raise BadInput(f"packet: IP version {version}, expected 4 or 6")
        header = ip.data
        if not isinstance(header, dpkt.tcp.TCP) or ends < 40:
            raise BadInput(f"packet: protocol {ip.p}, expected a whole TCP header")
    except (dpkt.Error, struct.error, IndexError, KeyError, TypeError, AttributeError) as e:
        raise BadInput(f"packet: {len(packet)} bytes that are no IP packet: {type(e).__name__} {e}") from e
    if len(header.opts) != header.off * 4 - 20:
        raise BadInput("packet: ends within the TCP header")
    return Segment(
        src=str(ipaddress.ip_address(ip.src)),
        sport=header.sport,
        dst=str(ipaddress.ip_address(ip.dst)),
        dport=header.dport,
        flags=Flags(header.flags & 0xFF),
        seq=header.seq,
        ack=header.ack,
        window=header.win,
        urgent=header.urp,
        payload=bytes(header.data),
        cut=max(0, ends - len(packet)),
        time=time,
        **_read_options(header.opts),
    )


def _read_options(given: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, value in _each_option(given):
        size = len(value)
        if kind == MSS and size == 2:
            found["mss"] = int.from_bytes(value, "big")
        elif kind == WSCALE and size == 1:
            found["wscale"] = value[0]
        elif kind == SACK_PERM and size == 0:
            found["sack_permitted"] = True
        elif kind == TIMESTAMP and size == 8:
            found["tsval"], found["tsecr"] = struct.unpack(">II", value)
        elif kind == SACK and size and size % 8 == 0:
            found["sack"] = tuple(struct.iter_unpack(">II", value))
        elif kind in (MSS, WSCALE, SACK_PERM, TIMESTAMP, SACK):
            raise BadInput(f"packet: TCP option {kind} with {size} bytes of content")
    return found


def _each_option(given: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(given) and given[at] != EOL:
        if given[at] == NOP:
            at += 1
            continue
        size = given[at + 1] if at + 1 < len(given) else 0
        if size < 2 or at + size > len(given):
            raise BadInput(f"packet: TCP option {given[at]} of length {size} at byte {at} of {len(given)}")
        yield given[at], given[at + 2 : at + size]
        at += size


# ---------------------------------------------------------------------------------------- a table


def relative(segments: Iterable[Segment]) -> list[Segment]:
    """The same segments with numbers that count from where each direction of a connection was first seen.

    A SYN is 0, so the first byte is 1; where the beginning was not captured, the first segment's own number is 0.
    What lies before that is negative, mod 2**32: see `signed`.  An acknowledgement of 0 without the flag stays 0.
    """
    start: dict[tuple[str, int, str, int], int] = {}
    result = []
    for s in segments:
        back = (s.dst, s.dport, s.src, s.sport)
        if s.flags & Flags.SYN:
            start[s.flow] = s.seq
        start.setdefault(s.flow, s.seq)
        if s.flags & Flags.ACK:
            start.setdefault(back, s.ack)
        theirs = start.get(back, 0)
        result.append(
            replace(
                s,
                seq=(s.seq - start[s.flow]) % 2**32,
                ack=(s.ack - theirs) % 2**32 if s.flags & Flags.ACK else s.ack,
                sack=tuple(((a - theirs) % 2**32, (b - theirs) % 2**32) for a, b in s.sack),
            )
        )
    return result


def signed(number: int) -> int:
    """A difference of two sequence numbers as the kernel compares them: -2**31 to 2**31 - 1.

    >>> repair.segment.signed(5 - 4_294_967_290)
    11
    """
    return (number + 2**31) % 2**32 - 2**31


def table(segments: Iterable[Segment], names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One line for each segment: ms since the first, direction, flags, relative seq and ack, length, window, options.

    `names` gives addresses a name, such as a host's: the direction then reads "client -> server".
    """
    import pandas as pd

    given = list(segments)
    first = given[0].time if given else 0.0
    names = names or {}
    rows = [
        {
            "ms": round((s.time - first) * 1e3, 3),
            "direction": f"{_end(s.src, s.sport, names)} -> {_end(s.dst, s.dport, names)}",
            "flags": str(s.flags),
            "seq": signed(s.seq),
            "ack": signed(s.ack) if s.flags & Flags.ACK else None,
            "length": s.length,
            "window": s.window,
            "options": _described(s),
        }
        for s in relative(given)
    ]
    frame = pd.DataFrame(rows, columns=["ms", "direction", "flags", "seq", "ack", "length", "window", "options"])
    return frame.astype({"ms": float, "seq": "int64", "ack": "Int64", "length": "int64", "window": "int64"})


def _end(address: str, port: int, names: Mapping[str, str]) -> str:
    if address in names:
        return names[address]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _described(s: Segment) -> str:
    told = {
        f"mss {s.mss}": s.mss is not None,
        "sack permitted": s.sack_permitted,
        f"scale {s.wscale}": s.wscale is not None,
        f"time {s.tsval} echo {s.tsecr}": s.tsval is not None,
        "sack " + " ".join(f"{signed(a)}-{signed(b)}" for a, b in s.sack): bool(s.sack),
    }
    return ", ".join(text for text, there in told.items() if there)
