"""Bytes of the pipe to packets and back.

    decode(data, "x86-64")          one packet of exactly its size
    decode_stream(data, "x86-64")   packets one behind the other, as they lie in a pipe that keeps no boundaries
    encode(packet)                  the same bytes again

A packet tells no size.  The daemon knows how long it is from the protocol that it asked for at the mount and from its
own `sizeof`; so does `decode`, which takes the ABI of whoever cut the bytes: the kernel, or a daemon that read as many
as it has in mind.  A decoded packet is one that the kernel can have written: a known type, in a protocol that has it,
and zeros behind the name.  Everything else of the right size is a record of type `unknown` that says why, with the
members as a daemon would read them, and everything of another size is BadInput.  A daemon is less careful: it looks at
the type alone, and the 5 that a slipped stream shows there is a valid one.

Source: fs/autofs/waitq.c, autofs_notify_daemon(); fs/autofs/expire.c, autofs_expire_run().
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from kernelnotes.abi import Abi, find
from kernelnotes.autofs.header import NAME_MAX, placed
from kernelnotes.errors import BadInput
from kernelnotes.layout import Layout

UNKNOWN = "unknown"
V5 = "struct autofs_v5_packet"
MOST_BYTES = 16 << 20  # of a stream; a pipe holds 1 MiB at most, unless root allows more

_HEADER = 8  # bytes, on every ABI
_SHORT = {"proto_version": "proto", "wait_queue_token": "token"}  # our names for two long ones
_LONG = {short: long for long, short in _SHORT.items()}


class PacketType(NamedTuple):
    """A type of packet: its number, the protocols in which the kernel sends it, and the record that it is."""

    name: str
    number: int
    protos: tuple[int, ...]
    record: str

    def size(self, abi: str | Abi) -> int:
        """Bytes of a packet written by a kernel compiled for the ABI.  Raises BadInput for an unknown ABI."""
        return self.layout(abi).size

    def layout(self, abi: str | Abi) -> Layout:
        """Where the ABI has the members.  Raises BadInput for an unknown ABI."""
        return placed(self.record, find(abi))


_TYPES = (
    PacketType("missing", 0, (3, 4), "struct autofs_packet_missing"),
    PacketType("expire", 1, (3, 4, 5), "struct autofs_packet_expire"),  # the answer to an ioctl, of any protocol
    PacketType("expire_multi", 2, (3, 4), "struct autofs_packet_expire_multi"),
    PacketType("missing_indirect", 3, (5,), V5),
    PacketType("expire_indirect", 4, (5,), V5),
    PacketType("missing_direct", 5, (5,), V5),
    PacketType("expire_direct", 6, (5,), V5),
)
PACKETS: Mapping[str, PacketType] = MappingProxyType({kind.name: kind for kind in _TYPES})
_BY_NUMBER = {kind.number: kind for kind in _TYPES}


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet.  `fields` are the members behind the header by name (`wait_queue_token` is `token`).

    `name` has `len` bytes, whatever their encoding; see `make` for a packet of one's own.

    Of a record of type `unknown`, `problem` says why it is none, `data` are its bytes; `number` is what stands where
    the type should, and the fields are as many as the bytes reach, `name` with all that stands there.
    """

    type: str
    number: int
    proto: int
    fields: Mapping[str, int | bytes]
    problem: str = ""
    data: bytes = b""

    def as_dict(self) -> dict[str, int | str]:
        """For JSON: type, proto, the fields; the name is text, with a surrogate for a byte that is no UTF-8.

        `os.fsencode` makes the name's bytes of it again.
        """
        told: dict[str, int | str] = {"type": self.type, "proto": self.proto}
        if self.type == UNKNOWN:
            told |= {"number": self.number, "problem": self.problem}
        for key, value in self.fields.items():
            told[key] = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
        return told


def make(type: str, proto: int = 5, *, name: bytes, **fields: int) -> Packet:
    """A packet of this type; `len` is that of the name, the other fields are given.  What does not fit, `encode` says.

    Raises BadInput for an unknown type.
    """
    if type not in PACKETS:
        raise BadInput(f"unknown packet type {type!r}, expected one of: {', '.join(PACKETS)}")
    return Packet(type, PACKETS[type].number, proto, {**fields, "len": len(name), "name": name})


def decode(data: bytes, abi: str | Abi) -> Packet:
    """The packet of exactly the size that it has on the ABI.

    Raises BadInput where the size is not that of the packet that the header names, or of any packet if it names none.

    >>> kept = recordings.packets().packets[0]
    >>> packet = autofs.decode(kept.data, kept.abi)
    >>> len(kept.data), packet.type
    (304, 'missing_indirect')
    """
    abi, data = find(abi), _checked(data)
    number, proto = _header(data, abi)
    kind = _BY_NUMBER.get(number)
    if kind and proto in kind.protos:
        if len(data) != kind.size(abi):
            raise BadInput(f"a packet {kind.name} on {abi.name} has {kind.size(abi)} bytes, got {len(data)}")
        return _read(kind, proto, data, abi)
    if len(data) not in {kind.size(abi) for kind in _TYPES}:
        raise BadInput(f"no packet on {abi.name} has {len(data)} bytes, and {_odd(number, proto)}")
    return _unknown(data, abi, _odd(number, proto))


def decode_stream(data: bytes, abi: str | Abi) -> list[Packet]:
    """The packets that lie one behind the other; what a daemon of that ABI would take for packets.

    Where a record is unknown the stream is out of step.  It is read on as a daemon of protocol 5 reads, in pieces of
    its packet's size, and what is left at the end is an unknown record as well.  Raises BadInput for a stream that is
    in step and ends within a packet, and for one of more than MOST_BYTES.
    """
    abi, data = find(abi), _checked(data)
    if len(data) > MOST_BYTES:
        raise BadInput(f"a stream of {len(data)} bytes, expected at most {MOST_BYTES >> 20} MiB")
    found: list[Packet] = []
    at, lost = 0, False
    while at < len(data):
        size = _size(data[at : at + _HEADER], abi)
        piece = data[at : at + size]
        if len(piece) < size and not lost:
            raise BadInput(f"{len(piece)} bytes are left after {len(found)} packets, expected {size} on {abi.name}")
        ends = f"the stream ends after {len(piece)} bytes of a record"
        found.append(decode(piece, abi) if len(piece) == size else _unknown(piece, abi, ends))
        at, lost = at + size, lost or found[-1].type == UNKNOWN
    return found


def _size(data: bytes, abi: Abi) -> int:
    # How many bytes the packet has that begins so; for what is none, how many a daemon of protocol 5 reads.
    number, proto = _header(data.ljust(_HEADER, b"\0"), abi)
    kind = _BY_NUMBER.get(number)
    return kind.size(abi) if kind and proto in kind.protos else PACKETS["missing_indirect"].size(abi)


def _checked(data: bytes) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BadInput(f"a packet is bytes, got {type(data).__name__}")
    return bytes(data)


def _header(data: bytes, abi: Abi) -> tuple[int, int]:
    # (type, protocol): every packet begins with them.
    header = placed("struct autofs_packet_hdr", abi)
    if len(data) < header.size:
        raise BadInput(f"a packet begins with a header of {header.size} bytes, got {len(data)}")
    values = header.unpack(data[: header.size])
    return values["type"], values["proto_version"]


def _odd(number: int, proto: int) -> str:
    kind = _BY_NUMBER.get(number)
    if kind is None:
        return f"there is no packet type {number}"
    return f"protocol {proto} has no {kind.name}, which is of protocol {' and '.join(map(str, kind.protos))}"


def _read(kind: PacketType, proto: int, data: bytes, abi: Abi) -> Packet:
    fields = _members(kind.layout(abi), data)
    length, name = fields["len"], fields["name"]
    assert isinstance(length, int)
    assert isinstance(name, bytes)
    if not 0 <= length <= NAME_MAX:
        return _unknown(data, abi, f"a name of {length} bytes, expected 0 to {NAME_MAX}")
    if b"\0" in name[:length] or name[length:].strip(b"\0"):
        return _unknown(data, abi, f"the name of {length} bytes does not end where its NUL is")
    packet = Packet(kind.name, kind.number, proto, fields | {"name": name[:length]})
    return packet if encode(packet, abi) == data else _unknown(data, abi, "the padding is not zero")


def _members(layout: Layout, data: bytes) -> dict[str, int | bytes]:
    # Those behind the header, as far as the data reaches.
    whole = layout.unpack(data.ljust(layout.size, b"\0"))
    return {
        _SHORT.get(m.name, m.name): whole[m.name]
        for m in layout.members
        if m.name != "hdr" and m.offset + (1 if m.name == "name" else m.size) <= len(data)
    }


def _unknown(data: bytes, abi: Abi, problem: str) -> Packet:
    # Read as the record of that size; a daemon of protocol 5 would read anything as its own.
    record = next((kind.record for kind in _TYPES if kind.size(abi) == len(data)), V5)
    number, proto = _header(data.ljust(_HEADER, b"\0"), abi)
    return Packet(UNKNOWN, number, proto, _members(placed(record, abi), data), problem, data)


def encode(packet: Packet, abi: str | Abi) -> bytes:
    """The bytes that a kernel compiled for the ABI would write; of an unknown record, those it was made of.

    Raises BadInput for a type or protocol that is none, a name longer than 255 bytes or with a NUL, a `len` that is not
    the length of the name, and members that are missing, unknown or too large.
    """
    if packet.type == UNKNOWN:
        return packet.data
    kind = PACKETS.get(packet.type)
    if kind is None or packet.number != kind.number or packet.proto not in kind.protos:
        raise BadInput(f"there is no packet {packet.type!r} of number {packet.number} in protocol {packet.proto}")
    fields = dict(packet.fields)
    name = fields.get("name")
    if not isinstance(name, bytes) or len(name) > NAME_MAX or b"\0" in name or fields.get("len") != len(name):
        raise BadInput(
            f"{kind.name}: name is {name!r}, len {fields.get('len')!r}; expected bytes without NUL, at most "
            f"{NAME_MAX}, and their number"
        )
    values: dict[str, Any] = {_LONG.get(key, key): value for key, value in fields.items()}
    values |= {"hdr": {"proto_version": packet.proto, "type": kind.number}, "name": name.ljust(NAME_MAX + 1, b"\0")}
    return kind.layout(abi).pack(values)
