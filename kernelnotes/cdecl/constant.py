"""The value of a C constant expression, with C's own integer types.

`(1U << 31)` is positive, `(1 << 31)` is not, and `~0UL` depends on the ABI.  A value carries its type: its rank ("int",
"long", "long long") and whether it is signed.  Where the answer needs an ABI and there is none yet, NeedsAbi is raised
and the number becomes a `ctype.Later`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pycparser import c_ast

from kernelnotes.abi import Abi
from kernelnotes.ctype import Aligned, Array, Enum, Pointer, Record, Scalar, Type
from kernelnotes.layout.place import enum_type, measure, place

if TYPE_CHECKING:
    from kernelnotes.cdecl.meaning import Meaning
    from kernelnotes.cdecl.scope import Scope as _Scope

    Scope: TypeAlias = _Scope | Meaning  # what names and types mean, now or when the expression was read


class NeedsAbi(Exception):
    """The value depends on the ABI."""


class Value(NamedTuple):
    """An integer and its C type."""

    value: int
    rank: str = "int"
    signed: bool = True


RANKS = ("int", "long", "long long")
_CHARACTER = re.compile(r"'(?:\\(x[0-9a-fA-F]+|[0-7]{1,3}|.)|(.))'", re.S)
_ESCAPES = dict(zip("abfnrtv0", (7, 8, 12, 10, 13, 9, 11, 0), strict=True))
_INTEGER = re.compile(r"(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)([uU]?(?:ll|LL|l|L)?[uU]?)")


def evaluate(node: Any, scope: Scope, abi: Abi | None) -> Value:
    """The value of the expression.  Raises NeedsAbi, or BadInput for what is no integer constant."""
    method = _METHODS.get(type(node))
    if method is None:
        scope.fail(node, "not an integer constant expression")
    result: Value = method(node, scope, abi)
    return result


def _fit(value: int, rank: str, signed: bool, abi: Abi | None) -> Value:
    # Wrap around as the type does.  Without an ABI a long is known only while 32 bits are enough.
    if rank == "long" and abi is None:
        if not -(2**31) <= value < 2**31:
            raise NeedsAbi
        if value < 0 and not signed:
            raise NeedsAbi
        return Value(value, rank, signed)
    bits = 32 if rank == "int" else 64 if abi is None else 8 * abi.scalars[rank][0]
    value &= (1 << bits) - 1
    if signed and value >> (bits - 1):
        value -= 1 << bits
    return Value(value, rank, signed)


def _constant(node: Any, scope: Scope, abi: Abi | None) -> Value:
    text = node.value
    if node.type == "char":
        found = _CHARACTER.fullmatch(text)
        if not found:
            scope.fail(node, f"the character {text} is not supported")
        return _character(found, node, scope, abi)
    found = _INTEGER.fullmatch(text.replace("'", ""))
    if not found or len(text) > 100:
        scope.fail(node, f"{text[:40]} is not an integer")
    digits, suffix = found[1], found[2].lower()
    decimal = digits[0] != "0" or digits == "0"
    value = int(digits, 10 if decimal else 8 if digits.isdigit() else 0)
    if value >= 1 << 64:
        scope.fail(node, f"{text[:40]} does not fit into 64 bits")
    unsigned = "u" in suffix
    for rank in RANKS[suffix.count("l") :]:
        if rank == "long" and abi is None and value >= 1 << 31:
            raise NeedsAbi
        bits = 32 if rank == "int" else 64 if rank == "long long" else 8 * abi.scalars["long"][0] if abi else 32
        if not unsigned and value < 1 << (bits - 1):
            return Value(value, rank, True)
        if (unsigned or not decimal) and value < 1 << bits:
            return Value(value, rank, False)
    return Value(value, "long long", False)


def _character(found: re.Match[str], node: Any, scope: Scope, abi: Abi | None) -> Value:
    escaped, plain = found[1], found[2]
    if plain:
        value = ord(plain)
    elif escaped[0] == "x":
        value = int(escaped[1:], 16)
    else:
        value = int(escaped, 8) if escaped.isdigit() else _ESCAPES.get(escaped, ord(escaped[0]))
    if value > 0xFF or (plain and value > 0x7F):
        scope.fail(node, f"the character {node.value} does not fit into a char")
    if value > 0x7F and abi is None:
        raise NeedsAbi  # is char signed?
    return Value(value - 0x100 if value > 0x7F and abi is not None and abi.char_signed else value)


def _name(node: Any, scope: Scope, abi: Abi | None) -> Value:
    if node.name in ("true", "false"):
        return Value(int(node.name == "true"))
    number = scope.constant(node)
    if not isinstance(number, int):
        if abi is None:
            raise NeedsAbi
        number = number.value(abi)
    if -(2**31) <= number < 2**31:
        return Value(number)
    return Value(number, "int" if 0 <= number < 2**32 else "long long", number < 0)


def _promoted(value: Value, abi: Abi | None, other: Value) -> tuple[str, bool]:
    # The usual arithmetic conversions of C, 6.3.1.8
    rank = max(value.rank, other.rank, key=RANKS.index)
    if value.signed == other.signed:
        return rank, value.signed
    unsigned = other if value.signed else value
    if unsigned.rank == rank:
        return rank, False
    if {rank, unsigned.rank} == {"int", "long"}:
        if abi is None:
            return rank, True
        return rank, abi.scalars["long"][0] > 4
    return rank, not (abi is not None and abi.scalars[rank][0] == abi.scalars[unsigned.rank][0])


def _binary(node: Any, scope: Scope, abi: Abi | None) -> Value:
    op = node.op
    left = evaluate(node.left, scope, abi)
    if op in ("&&", "||"):
        if bool(left.value) == (op == "||"):
            return Value(int(op == "||"))
        return Value(int(bool(evaluate(node.right, scope, abi).value)))
    right = evaluate(node.right, scope, abi)
    if op in ("<<", ">>"):
        if left.rank == "long" and abi is None and right.value >= 32:
            raise NeedsAbi
        bits = 32 if left.rank == "int" else 64 if abi is None else 8 * abi.scalars[left.rank][0]
        if not 0 <= right.value < bits:
            scope.fail(node, f"a shift by {right.value} of {bits} bits")
        return _fit(left.value << right.value if op == "<<" else left.value >> right.value, left.rank, left.signed, abi)
    rank, signed = _promoted(left, abi, right)
    a, b = _fit(left.value, rank, signed, abi).value, _fit(right.value, rank, signed, abi).value
    if op in _COMPARE:
        return Value(int(_COMPARE[op](a, b)))
    if op in ("/", "%"):
        if b == 0:
            scope.fail(node, "division by zero")
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)  # towards zero
        return _fit(quotient if op == "/" else a - b * quotient, rank, signed, abi)
    if op not in _ARITHMETIC:
        scope.fail(node, f"{op!r} is not allowed in a constant expression")
    return _fit(_ARITHMETIC[op](a, b), rank, signed, abi)


_COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}
_ARITHMETIC = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}


def _unary(node: Any, scope: Scope, abi: Abi | None) -> Value:
    op = node.op
    if op in ("sizeof", "_Alignof", "alignof"):
        return _size(op, node.expr, scope, abi)
    if op == "&":
        return _address(node.expr, scope, abi)
    value = evaluate(node.expr, scope, abi)
    if op == "!":
        return Value(int(not value.value))
    if op not in ("+", "-", "~"):
        scope.fail(node, f"{op!r} is not allowed in a constant expression")
    return _fit({"+": value.value, "-": -value.value, "~": ~value.value}[op], value.rank, value.signed, abi)


def _size(op: str, node: Any, scope: Scope, abi: Abi | None) -> Value:
    ctype = scope.convert(node.type, node) if isinstance(node, c_ast.Typename) else scope.type_of(node)
    if abi is None:
        raise NeedsAbi
    measured = measure(ctype, abi)
    if op == "sizeof":
        return Value(measured.size, "long", False)
    while isinstance(ctype, Array):
        ctype = ctype.of
    if op == "alignof" and isinstance(ctype, Scalar):
        return Value(abi.standalone.get(ctype.key, measured.align), "long", False)
    return Value(measured.align, "long", False)


def _address(node: Any, scope: Scope, abi: Abi | None) -> Value:
    # &((T *)0)->member.member, how offsetof was written before it had a name
    path: list[Any] = []
    while isinstance(node, c_ast.StructRef | c_ast.ArrayRef):
        path.insert(0, node.field if isinstance(node, c_ast.StructRef) else node)
        if isinstance(node, c_ast.StructRef) and node.type == "->":
            base = scope.pointee(node.name)
            return _offset(base, path, node, scope, abi)
        node = node.name
    scope.fail(node, "an address is no integer constant")


def _call(node: Any, scope: Scope, abi: Abi | None) -> Value:
    arguments = node.args.exprs if node.args else []
    if not isinstance(node.name, c_ast.ID) or node.name.name != "offsetof" or len(arguments) != 2:
        scope.fail(node, "a function call is no integer constant")
    base = scope.convert(arguments[0].type, arguments[0]) if isinstance(arguments[0], c_ast.Typename) else None
    if base is None:
        scope.fail(node, "the first argument of offsetof is a type")
    path: list[Any] = []
    member = arguments[1]
    while isinstance(member, c_ast.StructRef | c_ast.ArrayRef):
        path.insert(0, member.field if isinstance(member, c_ast.StructRef) else member)
        member = member.name
    return _offset(base, [member, *path], node, scope, abi)


def _offset(base: Type, path: list[Any], node: Any, scope: Scope, abi: Abi | None) -> Value:
    if abi is None:
        raise NeedsAbi
    bytes_ = 0
    for step in path:
        while isinstance(base, Aligned):
            base = base.of
        if isinstance(step, c_ast.ArrayRef):
            if not isinstance(base, Array):
                scope.fail(node, "offsetof indexes what is no array")
            base = base.of
            bytes_ += evaluate(step.subscript, scope, abi).value * measure(base, abi).size
            continue
        if not isinstance(base, Record) or not isinstance(step, c_ast.ID):
            scope.fail(node, "offsetof of what is no struct or union")
        member = next((m for m in place(base, abi).members if m.name == step.name), None)
        if member is None or member.bit_width is not None:
            scope.fail(node, f"{base} has no member {step.name!r} with an address")
        base, bytes_ = member.type, bytes_ + member.offset
    return Value(bytes_, "long", False)


def _cast(node: Any, scope: Scope, abi: Abi | None) -> Value:
    target = scope.convert(node.to_type.type, node.to_type)
    value = evaluate(node.expr, scope, abi)
    return _converted(target, value, node, scope, abi)


def _converted(target: Type, value: Value, node: Any, scope: Scope, abi: Abi | None) -> Value:
    while isinstance(target, Aligned):
        target = target.of
    if isinstance(target, Enum):
        if abi is None:
            raise NeedsAbi
        target = enum_type(target, abi)
    if isinstance(target, Pointer):
        target = Scalar("unsigned long", "long", "unsigned")
    if not isinstance(target, Scalar) or target.kind in ("float", "complex"):
        scope.fail(node, f"a cast to {target} is no integer constant")
    if target.kind == "bool":
        return Value(int(bool(value.value)))
    signed = target.kind == "signed"
    if target.key in RANKS:
        return _fit(value.value, target.key, signed, abi)
    if abi is None:
        raise NeedsAbi
    if target.kind in ("char", "wchar"):
        signed = abi.char_signed if target.kind == "char" else abi.wchar_signed
    bits = 8 * measure(target, abi).size
    wrapped = value.value & ((1 << bits) - 1)
    if signed and wrapped >> (bits - 1):
        wrapped -= 1 << bits
    return Value(wrapped, "int" if bits <= 32 else "long long", signed or bits < 32)


def _ternary(node: Any, scope: Scope, abi: Abi | None) -> Value:
    return evaluate(node.iftrue if evaluate(node.cond, scope, abi).value else node.iffalse, scope, abi)


_METHODS: dict[type, Any] = {
    c_ast.Constant: _constant,
    c_ast.ID: _name,
    c_ast.BinaryOp: _binary,
    c_ast.UnaryOp: _unary,
    c_ast.TernaryOp: _ternary,
    c_ast.Cast: _cast,
    c_ast.FuncCall: _call,
}
