"""A snapshot as a file: it carries a connection to another host, or to a later time.

    0   magic     8 bytes  "KNREPAIR"
    8   version   u16      1
    10  meta      u32      length of the JSON text that follows
    14  received  u64      length of the receive queue, which follows that
    22  sent      u64      length of the send queue, which follows that
    30  ...
    end sha256    32 bytes of everything before it

Numbers are little-endian on every machine.  Nothing is executed in reading it, each length is compared with what is
there before anything is allocated, and the check sum finds bit flips: it is no protection against somebody who writes
a false one on purpose, who could as well write a whole connection of his own.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any

from kernelnotes.errors import BadInput
from kernelnotes.repair.constants import TcpState, Window

if TYPE_CHECKING:
    from kernelnotes.repair.snapshot import Snapshot

MAGIC, VERSION = b"KNREPAIR", 1
_HEAD = struct.Struct("<8sHIQQ")
_SHA256 = 32
_MOST_META = 1 << 20
MOST_BYTES = _HEAD.size + _MOST_META + 2 * 2**31 + _SHA256  # of a file

_NUMBERS = ("family", "rcv_nxt", "write_seq", "unsent", "mss_clamp")
_MAYBE = ("snd_wscale", "rcv_wscale", "timestamp")
_FLAGS = ("fin_unsent", "sack")
_BYTES = ("filter", "identity")
_FIELDS = {*_NUMBERS, *_MAYBE, *_FLAGS, *_BYTES, "state", "local", "peer", "window", "interface", "options", "taken"}


def pack(s: Snapshot) -> bytes:
    """The whole file.

    >>> packed = repair.files.pack(repair.session.replay("established-ipv4").snapshot)
    >>> packed[:8], repair.files.unpack(packed)["peer"]
    (b'KNREPAIR', ('192.0.2.3', 80))
    """
    meta = {name: getattr(s, name) for name in (*_NUMBERS, *_MAYBE, *_FLAGS, "interface", "taken")}
    meta |= {"state": TcpState(s.state).name, "local": s.local, "peer": s.peer, "window": s.window}
    meta |= {name: getattr(s, name).hex() for name in _BYTES}
    meta["options"] = {name: value.hex() if isinstance(value, bytes) else value for name, value in s.options.items()}
    text = json.dumps(meta).encode()
    head = _HEAD.pack(MAGIC, VERSION, len(text), len(s.recv_queue), len(s.send_queue))
    digest = hashlib.sha256()
    for part in (head, text, s.recv_queue, s.send_queue):
        digest.update(part)
    return b"".join((head, text, s.recv_queue, s.send_queue, digest.digest()))


def unpack(data: bytes | bytearray | memoryview) -> dict[str, Any]:
    """The fields of the snapshot in a file's bytes, each of its type; whether they fit together is not asked here.

    Raises BadInput that says what is wrong with the file.
    """
    view = memoryview(data).cast("B")
    if len(view) < _HEAD.size or bytes(view[:8]) != MAGIC:
        raise BadInput(f"no snapshot of a connection: it begins with {bytes(view[:8])!r}, expected {MAGIC!r}")
    _, version, text, received, sent = _HEAD.unpack_from(view)
    if version != VERSION:
        raise BadInput(f"a snapshot of version {version}, expected {VERSION}")
    whole = _HEAD.size + text + received + sent + _SHA256
    if len(view) != whole:
        raise BadInput(f"the snapshot is {len(view)} bytes long, expected {whole}: it was cut off, or added to")
    if text > _MOST_META:
        raise BadInput(f"the snapshot's description is {text} bytes long, expected at most {_MOST_META}")
    if hashlib.sha256(view[:-_SHA256]).digest() != bytes(view[-_SHA256:]):
        raise BadInput("the snapshot is damaged: its check sum is wrong")
    start = _HEAD.size + text
    fields = _meta(bytes(view[_HEAD.size : start]))
    fields["recv_queue"] = bytes(view[start : start + received])
    fields["send_queue"] = bytes(view[start + received : start + received + sent])
    return fields


def _meta(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as e:
        raise BadInput(f"the snapshot's description is not JSON: {e}") from e
    if not isinstance(found, dict) or set(found) != _FIELDS:
        wrong = sorted(_FIELDS ^ set(found)) if isinstance(found, dict) else type(found).__name__
        raise BadInput(f"the snapshot's description has the wrong fields: {wrong!s:.200}")
    return {name: _field(name, value) for name, value in found.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)[:40]!r} is told twice")
    return found


def _field(name: str, value: Any) -> Any:
    # JSON has fewer types than we have; the rest is made of them, and whatever does not fit is refused.
    try:
        if name in _NUMBERS:
            return _exactly(int, value)
        if name in _MAYBE:
            return None if value is None else _exactly(int, value)
        if name in _FLAGS:
            return _exactly(bool, value)
        if name in _BYTES:
            return bytes.fromhex(_exactly(str, value))
        return _OTHERS[name](value)
    except (TypeError, ValueError, KeyError, OverflowError) as e:
        raise BadInput(f"the snapshot's {name} is {value!r:.80}, expected another kind of value") from e


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _options(value: Any) -> dict[str, int | bytes]:
    return {
        _exactly(str, name): bytes.fromhex(v) if isinstance(v, str) else _exactly(int, v)
        for name, v in _exactly(dict, value).items()
    }


def _taken(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 2**53:
        raise ValueError
    return float(value)


_OTHERS = {
    "state": lambda value: TcpState[_exactly(str, value)],
    "local": lambda value: tuple(_exactly(list, value)),
    "peer": lambda value: tuple(_exactly(list, value)),
    "window": lambda value: Window(*_exactly(list, value)),
    "interface": lambda value: _exactly(str, value),
    "options": _options,
    "taken": _taken,
}
