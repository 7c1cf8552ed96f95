"""Bytes of a record, from and to Python values, under any ABI and endianness.

A record is a dict, an array a list, a union the dict of all its readings; an array of plain `char` is bytes, a
`_Complex` a pair, a pointer an int.  Sizes are strict: nothing is cut, nothing is filled but what no member names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from kernelnotes.abi import Abi
from kernelnotes.ctype import Aligned, Array, Enum, Record, Scalar, Type
from kernelnotes.errors import BadInput
from kernelnotes.layout.place import Placed, enum_type, measure, number, place

MOST_ELEMENTS = 1 << 24


@contextmanager
def _bounded(record: Record, abi: Abi) -> Iterator[None]:
    # Refuses what is too deep or has too many values: what has no size, as `struct {} x[1 << 40]`, has any number.
    try:
        if (count := _values(record, abi)) > MOST_ELEMENTS:
            raise BadInput(f"{record} on {abi.name} consists of {count} values, more than {MOST_ELEMENTS}")
        yield
    except RecursionError:
        raise BadInput(f"{record}: nested too deeply") from None


@lru_cache(maxsize=1000)
def _values(ctype: Type, abi: Abi) -> int:
    while isinstance(ctype, Aligned):
        ctype = ctype.of
    if isinstance(ctype, Array):
        return 1 if _is_char(ctype.of) else 1 + number(ctype.count or 0, abi) * _values(ctype.of, abi)
    if isinstance(ctype, Record):
        return 1 + sum(_values(member.type, abi) for member in place(ctype, abi).members)
    return 1


def unpack(record: Record, data: bytes, abi: Abi) -> dict[str, Any]:
    """The members of a record from its bytes.  Raises BadInput unless there are exactly as many as its size."""
    size = place(record, abi).measured.size
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BadInput(f"{record}: expected bytes, got {type(data).__name__}")
    data = bytes(data)
    if len(data) != size:
        raise BadInput(f"{record} on {abi.name} has {size} bytes, got {len(data)}")
    with _bounded(record, abi):
        return _read_record(record, data, abi)


def _read_record(record: Record, data: bytes, abi: Abi) -> dict[str, Any]:
    return {m.name: _read_member(m, data, abi) for m in place(record, abi).members}


def _read_member(member: Placed, data: bytes, abi: Abi) -> Any:
    if member.bit_width is None:
        return _read(member.type, data[member.offset : member.offset + member.size], abi, member.name)
    first, last = member.bit_offset // 8, (member.bit_offset + member.bit_width + 7) // 8
    value = int.from_bytes(data[first:last], abi.endian) >> _shift(member, abi) & ((1 << member.bit_width) - 1)
    kind = _integer(member.type, abi)
    if kind == "bool":
        return bool(value)
    return value - (1 << member.bit_width) if kind == "signed" and value >> (member.bit_width - 1) else value


def _shift(member: Placed, abi: Abi) -> int:
    # How far the bit-field is from the least significant bit of the bytes it touches.
    assert member.bit_width is not None
    if abi.endian == "little":
        return member.bit_offset % 8
    return -(member.bit_offset + member.bit_width) % 8


def _integer(ctype: Type, abi: Abi) -> str:
    # "signed", "unsigned" or "bool"; "" for what is no integer
    while isinstance(ctype, Aligned):
        ctype = ctype.of
    if isinstance(ctype, Enum):
        ctype = enum_type(ctype, abi)
    if not isinstance(ctype, Scalar):
        return ""
    if ctype.kind in ("char", "wchar"):
        return "signed" if (abi.char_signed if ctype.kind == "char" else abi.wchar_signed) else "unsigned"
    return ctype.kind if ctype.kind in ("signed", "unsigned", "bool") else ""


def _read(ctype: Type, data: bytes, abi: Abi, name: str) -> Any:
    if isinstance(ctype, Aligned):
        return _read(ctype.of, data, abi, name)
    if isinstance(ctype, Record):
        return _read_record(ctype, data, abi)
    if isinstance(ctype, Array):
        if _is_char(ctype.of):
            return data
        size, count = measure(ctype.of, abi).size, number(ctype.count or 0, abi)
        return [_read(ctype.of, data[i * size : (i + 1) * size], abi, name) for i in range(count)]
    if isinstance(ctype, Scalar) and ctype.kind in ("float", "complex"):
        parts = 2 if ctype.kind == "complex" else 1
        size = len(data) // parts
        values = [_read_float(data[i * size : (i + 1) * size], abi, ctype) for i in range(parts)]
        return values[0] if parts == 1 else tuple(values)
    kind = _integer(ctype, abi)
    value = int.from_bytes(data, abi.endian, signed=kind == "signed")
    return bool(value) if kind == "bool" else value


def _is_char(ctype: Type) -> bool:
    while isinstance(ctype, Aligned):
        ctype = ctype.of
    return isinstance(ctype, Scalar) and ctype.kind == "char"


_FLOATS = {4: "f", 8: "d"}


def _float_format(ctype: Scalar, size: int, abi: Abi) -> str:
    if size not in _FLOATS:
        raise BadInput(f"{ctype} of {size} bytes on {abi.name} has no counterpart in Python; its format differs by ABI")
    return f"{'<' if abi.endian == 'little' else '>'}{_FLOATS[size]}"


def _read_float(data: bytes, abi: Abi, ctype: Scalar) -> Any:
    # A wider long double stays what it is, bytes.
    return struct.unpack(_float_format(ctype, len(data), abi), data)[0] if len(data) in _FLOATS else data


def pack(record: Record, values: Mapping[str, Any], abi: Abi) -> bytes:
    """The bytes of a record; holes, padding and unnamed members are zero.

    Every member must be given; of a union, any of its members, where what two of them say of one byte must agree.
    Raises BadInput for a missing, unknown or ill-fitting value.
    """
    size = place(record, abi).measured.size
    if size > MOST_ELEMENTS:
        raise BadInput(f"{record} has {size} bytes, more than {MOST_ELEMENTS}")
    with _bounded(record, abi):
        return _record_bytes(record, values, abi)


def _record_bytes(record: Record, values: Any, abi: Abi) -> bytes:
    measured, members = place(record, abi)
    if not isinstance(values, Mapping):
        raise BadInput(f"{record}: expected a mapping of its members, got {type(values).__name__}")
    names = {m.name: None for m in members}
    unknown = next((name for name in values if name not in names), None)
    if unknown is not None:
        raise BadInput(f"{record} has no member {unknown!r}, but {', '.join(names)}")
    result, written = 0, 0  # whole record as one integer, and the bits that a member has set
    for member in members:
        if member.name not in values:
            if _shares(member, members):
                continue
            raise BadInput(f"{record}: the member {member.name!r} is missing")
        bits, width = _written(member, values[member.name], abi)
        shift = member.bit_offset if abi.endian == "little" else 8 * measured.size - member.bit_offset - width
        mask = ((1 << width) - 1) << shift
        if (result ^ bits << shift) & mask & written:
            raise BadInput(f"{record}: {member.name!r} contradicts a member of the same union")
        result, written = result | bits << shift, written | mask
    return result.to_bytes(measured.size, abi.endian)


def _shares(member: Placed, members: Sequence[Placed]) -> bool:
    # Does another member lie on the same bits, as in a union?
    start, end = member.bit_offset, member.bit_offset + _width(member)
    return any(m is not member and m.bit_offset < end and start < m.bit_offset + _width(m) for m in members)


def _width(member: Placed) -> int:
    return 8 * member.size if member.bit_width is None else member.bit_width


def _written(member: Placed, value: Any, abi: Abi) -> tuple[int, int]:
    if member.bit_width is None:
        data = _bytes(member.type, value, abi, member.name)
        return int.from_bytes(data, abi.endian), 8 * len(data)
    return _fitting(member.type, value, member.bit_width, abi, member.name), member.bit_width


def _fitting(ctype: Type, value: Any, bits: int, abi: Abi, name: str) -> int:
    # The value in two's complement; strictly within the range of the type.
    kind = _integer(ctype, abi)
    if not isinstance(value, int):
        raise BadInput(f"{name}: expected an int, got {type(value).__name__}")
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if kind == "signed" else (0, (1 << bits) - 1)
    if kind == "bool":
        high = 1
    if not low <= value <= high:
        raise BadInput(f"{name}: {value} is not in {low}..{high}")
    return int(value) & ((1 << bits) - 1)


def _bytes(ctype: Type, value: Any, abi: Abi, name: str) -> bytes:
    if isinstance(ctype, Aligned):
        return _bytes(ctype.of, value, abi, name)
    if isinstance(ctype, Record):
        return _record_bytes(ctype, value, abi)
    size = measure(ctype, abi).size
    if isinstance(ctype, Array):
        return _array_bytes(ctype, value, size, abi, name)
    if isinstance(ctype, Scalar) and ctype.kind in ("float", "complex"):
        parts = value if ctype.kind == "complex" else (value,)
        if not isinstance(parts, Sequence) or len(parts) != (2 if ctype.kind == "complex" else 1):
            raise BadInput(f"{name}: expected a pair of floats")
        return b"".join(_float_bytes(ctype, part, size // len(parts), abi, name) for part in parts)
    return _fitting(ctype, value, 8 * size, abi, name).to_bytes(size, abi.endian)


def _float_bytes(ctype: Scalar, value: Any, size: int, abi: Abi, name: str) -> bytes:
    if size not in _FLOATS and isinstance(value, bytes) and len(value) == size:
        return value
    if not isinstance(value, int | float):
        raise BadInput(f"{name}: expected a float, got {type(value).__name__}")
    try:
        return struct.pack(_float_format(ctype, size, abi), value)
    except (OverflowError, struct.error) as e:
        raise BadInput(f"{name}: {value} does not fit into {ctype}: {e}") from e


def _array_bytes(array: Array, value: Any, size: int, abi: Abi, name: str) -> bytes:
    if array.count is None:
        if len(value) if isinstance(value, Sequence) else value:
            raise BadInput(f"{name}: a flexible array has no room inside the record")
        return b""
    if _is_char(array.of) and isinstance(value, bytes | bytearray):
        if len(value) != size:
            raise BadInput(f"{name}: expected {size} bytes, got {len(value)}")
        return bytes(value)
    count = number(array.count, abi)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != count:
        raise BadInput(f"{name}: expected a list of {count} elements")
    return b"".join(_bytes(array.of, element, abi, name) for element in value)
