"""What the names in a constant expression mean where it stands, kept for the day when the ABI is known.

`char pad[N - sizeof(struct s)]` waits for an ABI.  By then the scope that read it may have gone on, or have been left
for another source: so each name and type is looked up at once, in every branch, and only the arithmetic waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from pycparser import c_ast

from kernelnotes.ctype import Number, Scalar, Type

if TYPE_CHECKING:
    from kernelnotes.cdecl.scope import Scope

_OF_TYPES = ("sizeof", "_Alignof", "alignof")


class Meaning:
    """Answers what `constant.evaluate` asks a scope, from what the scope said when the expression was read.

    Raises BadInput where a name is unknown or the size of an incomplete type is asked for.
    """

    def __init__(self, node: Any, scope: Scope) -> None:
        self._found: dict[int, Any] = {}  # by id of the node; `node` keeps them alive
        self._node, self._declaration = node, scope.declaration
        self._look_up(node, scope)

    def constant(self, node: Any) -> Number:
        """The enumerator."""
        number: Number = self._found[id(node)]
        return number

    def convert(self, node: Any, owner: Any) -> Type:
        """The type that is named."""
        made: Type = self._found[id(node)]
        return made

    def type_of(self, node: Any) -> Type:
        """The type of an expression."""
        return self.convert(node, node)

    pointee = type_of

    def fail(self, node: Any, problem: str) -> NoReturn:
        """Raise BadInput with the place."""
        from kernelnotes.cdecl.scope import fail_at

        fail_at(self._declaration, node, problem)

    def _look_up(self, node: Any, scope: Scope) -> None:
        if isinstance(node, c_ast.ID):
            if node.name not in ("true", "false"):
                self._found[id(node)] = scope.constant(node)
        elif isinstance(node, c_ast.UnaryOp) and node.op in _OF_TYPES:
            self._type(node.expr, scope)
        elif isinstance(node, c_ast.UnaryOp) and node.op == "&":
            self._member(node.expr, scope)
        elif isinstance(node, c_ast.Cast):
            self._found[id(node.to_type.type)] = scope.convert(node.to_type.type, node.to_type)
            self._look_up(node.expr, scope)
        elif isinstance(node, c_ast.FuncCall):  # offsetof(type, member)
            for argument in node.args.exprs if node.args else []:
                if isinstance(argument, c_ast.Typename):
                    self._type(argument, scope)
                else:
                    self._member(argument, scope)
        else:
            for _, child in node.children():
                self._look_up(child, scope)

    def _type(self, node: Any, scope: Scope) -> None:
        named = isinstance(node, c_ast.Typename)
        made = scope.convert(node.type, node) if named else scope.type_of(node)
        if isinstance(made, Scalar) and made.key == "incomplete":
            scope.fail(node, f"the size of the incomplete type {made} is asked for")
        self._found[id(node.type if named else node)] = made

    def _member(self, node: Any, scope: Scope) -> None:
        # a.b[2].c, or ((struct s *)0)->a.b: names of members are none of the scope's
        while isinstance(node, c_ast.StructRef | c_ast.ArrayRef):
            if isinstance(node, c_ast.ArrayRef):
                self._look_up(node.subscript, scope)
            elif node.type == "->":
                self._found[id(node.name)] = scope.pointee(node.name)
                return
            node = node.name
