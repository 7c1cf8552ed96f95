"""The `kernelnotes` command.

Exit status: 0, 2 for bad usage or bad input, 1 for everything else that went wrong; what went wrong is on stderr.
Only typer is imported here; a command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

import kernelnotes
from kernelnotes.cli import autofs, refault, repair
from kernelnotes.cli.base import AsJson, group
from kernelnotes.cli.coursework import quiz
from kernelnotes.cli.sources import hazards, layout

if TYPE_CHECKING:
    from kernelnotes.live.machine import Ability

main = group(help="Three kernel mechanisms of May 2012, to run, measure and take apart.")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"kernelnotes {kernelnotes.__version__}")
        raise typer.Exit


@main.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@main.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do, found by trying it, and how to get the rest."""
    from kernelnotes.live import machine

    abilities = machine.examine()
    if as_json:
        print(json.dumps([asdict(a) for a in abilities], indent=2))
        return
    who = "" if not hasattr(os, "geteuid") else ", as root" if os.geteuid() == 0 else ", as an ordinary user"
    print(
        f"{platform.system()} {platform.release()} on {platform.machine()}, Python {platform.python_version()}{who}\n"
    )
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    print("\n".join(line for a in abilities for line in _rows(a, width)))


main.command()(layout)
main.command()(hazards)
main.add_typer(autofs.commands, name="autofs")
main.add_typer(refault.commands, name="refault")
main.add_typer(repair.commands, name="repair")
main.command()(quiz)


def _rows(ability: Ability, width: int) -> list[str]:
    """The lines of one ability in the doctor's table; the second and third column wrap, the first is the name."""
    start = f"{ability.name:<16} {'yes' if ability.available else 'no':<4}"
    told = [ability.detail] if ability.available else [ability.reason, f"remedy: {ability.remedy}"]
    lines = []
    for text in told:
        lines += textwrap.wrap(text, width, initial_indent=start, subsequent_indent=" " * 21, break_long_words=False)
        start = " " * 21
    return lines
