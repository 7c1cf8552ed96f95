"""The TCP segments that pass a network interface, both ways, each with the kernel's time.

    with Capture("eth0") as capture:
        ...
    capture.segments                     # list[Segment]
    capture.table()                      # the same as a DataFrame
    capture.lost                         # how many found no room; 0 or the list has gaps

The kernel writes the packets into a ring of memory that it shares with this process, and nothing is read before
somebody asks: while packets flow no Python code runs, and a measurement of microseconds stays one.  So the ring must
hold all that flows between two looks; what finds it full is counted in `lost`, not recorded.

Left out: what is not TCP, fragments, and TCP behind an IPv6 extension header.  A TCP packet that contradicts itself is
counted in `unreadable`.

Source: packet(7), Documentation/networking/packet_mmap.rst; include/uapi/linux/if_packet.h, struct tpacket2_hdr.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kernelnotes.errors import BadInput, CallFailed, Unavailable
from kernelnotes.live import inside
from kernelnotes.repair import segment
from kernelnotes.repair.segment import Flags, Segment

if TYPE_CHECKING:
    import pandas as pd

SOL_PACKET, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION = 263, 5, 6, 10
TPACKET_V2, TP_STATUS_KERNEL, TP_STATUS_USER = 1, 0, 1
ETH_P_ALL, SO_ATTACH_FILTER = 3, 26
HEADER = struct.Struct("=IIIHHII")  # tp_status, tp_len, tp_snaplen, tp_mac, tp_net, tp_sec, tp_nsec
BEFORE = 80  # bytes in a frame before the packet: the header, a sockaddr_ll, 16 for a link header, each aligned to 16
BLOCK = 1 << 17  # bytes of the ring that lie together in memory

# The protocol of an IPv4 header is its byte 9, of an IPv6 header its byte 6.
LOAD_BYTE, AND, EQUAL, RETURN = 0x30, 0x54, 0x15, 0x06
HEADER_LENGTH, LOAD_BEHIND, ANY = 0xB1, 0x50, 0x45  # of IPv4 into X; the byte behind X; a jump if any bit is set
ONLY_TCP = (
    (LOAD_BYTE, 0, 0, 0),
    (AND, 0, 0, 0xF0),
    (EQUAL, 0, 2, 0x40),
    (LOAD_BYTE, 0, 0, 9),
    (EQUAL, 3, 4, socket.IPPROTO_TCP),
    (EQUAL, 0, 3, 0x60),
    (LOAD_BYTE, 0, 0, 6),
    (EQUAL, 0, 1, socket.IPPROTO_TCP),
    (RETURN, 0, 0, 0xFFFFFFFF),
    (RETURN, 0, 0, 0),
)
NOTHING = ((RETURN, 0, 0, 0),)


def _only(flags: int) -> tuple[tuple[int, int, int, int], ...]:
    # TCP with any of these flags: they are byte 13 of its header.
    return (
        (LOAD_BYTE, 0, 0, 0),
        (AND, 0, 0, 0xF0),
        (EQUAL, 0, 5, 0x40),
        (LOAD_BYTE, 0, 0, 9),
        (EQUAL, 0, 9, socket.IPPROTO_TCP),
        (HEADER_LENGTH, 0, 0, 0),
        (LOAD_BEHIND, 0, 0, 13),
        (ANY, 5, 6, flags),
        (EQUAL, 0, 5, 0x60),
        (LOAD_BYTE, 0, 0, 6),
        (EQUAL, 0, 3, socket.IPPROTO_TCP),
        (LOAD_BYTE, 0, 0, 40 + 13),
        (ANY, 0, 1, flags),
        (RETURN, 0, 0, 0xFFFFFFFF),
        (RETURN, 0, 0, 0),
    )


def attach_filter(sock: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    """Give a socket a classic BPF program of (code, jump if true, jump if false, constant).  Raises OSError."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))


class Capture:
    """Records what passes `interface` of the network namespace `network` (a file descriptor; None: this thread's).

    Begins when it is made and ends with `stop`, the end of the `with` block or the process.  `packets` is how many find
    room between two looks; `keep` the bytes kept of each packet, its headers included (100 for headers alone).  With
    `flags` only segments with one of these are recorded, and the others take no room.  `names` are for the table.
    Raises BadInput, Unavailable without CAP_NET_RAW, CallFailed.
    """

    def __init__(
        self,
        interface: str,
        network: int | None = None,
        *,
        packets: int = 8192,
        keep: int = 1600,
        flags: Flags | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        if packets < 1 or not 60 <= keep <= 65536:
            raise BadInput(f"capture: packets={packets}, keep={keep}, expected at least 1 packet and 60 to 65536 bytes")
        self.interface, self.names = interface, dict(names or {})
        self._filter = ONLY_TCP if flags is None else _only(int(flags))
        self._frame = 1 << (BEFORE + keep - 1).bit_length()
        self._frames = -(-packets * self._frame // BLOCK) * (BLOCK // self._frame)
        self._next, self._lost, self._stopped = 0, 0, False
        self._segments: list[Segment] = []
        self.unreadable = 0
        self._socket = self._opened(network)
        try:
            self._ring = self._started()
        except OSError as e:
            self._socket.close()
            raise CallFailed(e.errno, f"capture on {interface}: {e.strerror}") from e
        except BaseException:
            self._socket.close()
            raise

    def _opened(self, network: int | None) -> socket.socket:
        try:
            if network is None:
                return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # 0: nothing yet
            with inside.inside(network):
                return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except OSError as e:
            if isinstance(e, CallFailed) or e.errno != errno.EPERM:
                raise
            raise Unavailable(f"capture: needs CAP_NET_RAW. Remedy: {inside.REMEDY}") from e

    def _started(self) -> mmap.mmap:
        size = self._frames * self._frame
        self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        self._socket.setsockopt(
            SOL_PACKET, PACKET_RX_RING, struct.pack("=IIII", BLOCK, size // BLOCK, self._frame, self._frames)
        )
        ring = mmap.mmap(self._socket.fileno(), size)
        attach_filter(self._socket, self._filter)
        self._socket.bind((self.interface, ETH_P_ALL))
        return ring

    @property
    def segments(self) -> list[Segment]:
        """What has passed so far, in the order of its passing."""
        self._drain()
        return list(self._segments)

    @property
    def lost(self) -> int:
        """How many TCP packets passed that are missing in `segments` because the ring was full."""
        self._count()
        return self._lost

    def table(self) -> pd.DataFrame:
        """`segments` as a table: see `segment.table`; its `attrs["lost"]` is the number of missing packets."""
        frame = segment.table(self.segments, self.names)
        frame.attrs["lost"] = self.lost
        return frame

    def wait(self, enough: Callable[[list[Segment]], Any], timeout_s: float = 2.0) -> bool:
        """Look again and again until `enough(segments)` is true; False if it was not within the time."""
        deadline = time.monotonic() + timeout_s
        while not enough(self.segments):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def stop(self) -> None:
        """Record nothing more; what was recorded stays.  May be called again."""
        if self._stopped:
            return
        try:
            attach_filter(self._socket, NOTHING)
            self._drain()
            self._count()
        finally:
            self._stopped = True
            self._ring.close()
            self._socket.close()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _count(self) -> None:
        # The kernel's counters begin anew with every look at them.
        if not self._stopped:
            _, dropped = struct.unpack("=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            self._lost += dropped

    def _drain(self) -> None:
        if self._stopped:
            return
        for _ in range(self._frames):  # one round at most, however much still arrives
            at = self._next * self._frame
            status, _size, kept, _mac, net, seconds, ns = HEADER.unpack_from(self._ring, at)
            if not status & TP_STATUS_USER:
                return
            packet = self._ring[at + net : at + net + kept]
            self._ring[at : at + 4] = struct.pack("=I", TP_STATUS_KERNEL)
            self._next = (self._next + 1) % self._frames
            try:
                self._segments.append(segment.from_ip(packet, seconds + ns / 1e9))
            except BadInput:
                self.unreadable += 1
