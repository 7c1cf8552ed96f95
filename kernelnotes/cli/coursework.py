"""`kernelnotes quiz`: problems to answer, one by one or on a sheet."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from kernelnotes.errors import BadInput


def quiz(
    topic: Annotated[str, typer.Argument(metavar="refault|layout|repair")],
    seed: Annotated[int | None, typer.Option("--seed", help="Which problem; by default any.")] = None,
    solve: Annotated[bool, typer.Option("--solve", help="Show the steps and the answer.")] = False,
    kind: Annotated[str, typer.Option("--kind", help="Which kind of problem; by default the seed chooses.")] = "",
    sheet: Annotated[int | None, typer.Option("--sheet", help="So many problems on a sheet to print.")] = None,
    format: Annotated[str, typer.Option("--format", help="Of the sheet: md (the default), html or pdf.")] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the sheet; standard output.")] = None,
) -> None:
    """Ask a question; the same seed asks it again, --solve answers it step by step.

    A sheet has a problem for each seed from --seed on, every kind in turn, and with --solve the answers behind them.
    """
    import random

    from kernelnotes import quiz
    from kernelnotes.quiz import sheets

    chosen = random.randrange(100_000) if seed is None else seed
    if sheet is not None:
        if kind:
            raise BadInput("--kind is for one problem, a sheet has every kind in turn")
        if format == "pdf" and output is None and sys.stdout.isatty():
            raise BadInput("a PDF is nothing for a terminal: say -o FILE")
        if format not in ("", "pdf", *sheets.FORMATS):
            raise BadInput(f"format is {format!r}, expected one of md, html, pdf")
        page = sheets.sheet(quiz.problems(topic, chosen, sheet), "html" if format == "pdf" else format or "md", solve)
        made = page.encode()
        if format == "pdf":
            from kernelnotes.live import printing

            made = printing.pdf(page)
        if output is None:
            sys.stdout.buffer.write(made)
            return
        try:
            output.write_bytes(made)
        except OSError as e:
            raise BadInput(f"{output}: {e.strerror}") from e
        return
    if output or format:
        raise BadInput("--output and --format are for a sheet, see --sheet")
    print(sheets.text(quiz.problem(topic, chosen, kind), solve, min(100, shutil.get_terminal_size((100, 24)).columns)))
    if not solve:
        print(f"\nThe answer: kernelnotes quiz {topic} --seed {chosen}{f' --kind {kind}' if kind else ''} --solve")
