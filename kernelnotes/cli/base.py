"""What every command is made of: groups that turn our errors into a line on stderr and an exit status."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kernelnotes.errors import BadInput, KernelNotesError


class Commands(TyperGroup):
    """A group of commands that turns our errors into one line on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a KernelNotesError ends it."""
        try:
            return super().invoke(ctx)
        except KernelNotesError as e:
            print(f"kernelnotes: {e}", file=sys.stderr)
            raise SystemExit(2 if isinstance(e, BadInput) else 1) from e


def group(**settings: Any) -> typer.Typer:
    """A group of commands; the whole command is one, `kernelnotes refault` and its like hang below it."""
    return typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        **settings,
    )


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
