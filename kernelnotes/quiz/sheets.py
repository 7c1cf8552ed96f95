"""Problems on paper: for the terminal, as Markdown, as HTML (which `kernelnotes.live.printing` makes a PDF of).

On a sheet all questions come first and, on new pages, all answers.

>>> page = quiz.sheets.sheet(quiz.problems("layout", seed=1, count=2), format="md")
>>> page.splitlines()[0]
'# kernelnotes: layout, seeds 1 to 2'
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Sequence

from kernelnotes.errors import BadInput
from kernelnotes.quiz import Block, Code, Problem

FORMATS = ("md", "html")


def text(problem: Problem, solve: bool, width: int = 100) -> str:
    """One problem for the terminal; with `solve` its steps and answer, too."""
    parts = [f"{problem.title}  (seed {problem.seed})", *_text(problem.question, width)]
    if solve:
        parts += ["Step by step", *_text(problem.steps, width), *_text([f"Answer: {problem.answer}"], width)]
    return "\n\n".join(parts)


def _text(blocks: Iterable[Block], width: int) -> list[str]:
    parts = []
    for block in blocks:
        if isinstance(block, str):
            parts.append(textwrap.fill(block.replace("`", ""), width, break_on_hyphens=False))
        elif isinstance(block, Code):
            parts.append(textwrap.indent(block.text, "    "))
        else:
            rows = [[cell.replace("`", "") for cell in row] for row in (block.heads, *block.rows)]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
            parts.append(textwrap.indent("\n".join(lines), "  "))
    return parts


def sheet(problems: Sequence[Problem], format: str = "md", solve: bool = True) -> str:
    """A sheet in one of FORMATS: the questions, and with `solve` the answers behind them.

    Raises BadInput for an unknown format and for no problems.
    """
    if format not in FORMATS:
        raise BadInput(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    if not problems:
        raise BadInput("sheet: there are no problems, expected at least one")
    return _markdown(problems, solve) if format == "md" else _page(problems, solve)


def _title(problems: Sequence[Problem]) -> str:
    first, last = problems[0], problems[-1]
    seeds = f"seed {first.seed}" if first.seed == last.seed else f"seeds {first.seed} to {last.seed}"
    return f"kernelnotes: {first.topic}, {seeds}"


# ------------------------------------------------------------------------------------- Markdown


def _markdown(problems: Sequence[Problem], solve: bool) -> str:
    parts = [f"# {_title(problems)}"]
    for number, problem in enumerate(problems, 1):
        parts += [f"## {number}. {problem.title}", *map(_markdown_block, problem.question)]
    if solve:
        parts.append("# Answers")
        for number, problem in enumerate(problems, 1):
            parts += [f"## {number}. {problem.title}", *map(_markdown_block, problem.steps), f"**{problem.answer}**"]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block) -> str:
    if isinstance(block, str):
        return "".join(part if i % 2 else _escaped(part) for i, part in enumerate(re.split("(`[^`]*`)", block)))
    if isinstance(block, Code):
        return f"```\n{block.text}\n```"
    rows = [block.heads, tuple("---" for _ in block.heads), *block.rows]
    return "\n".join("| " + " | ".join(_escaped(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def _escaped(words: str) -> str:
    return re.sub(r"([*_<])", r"\\\1", words)


# ----------------------------------------------------------------------------------------- HTML

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a;
  background: #fff; }
section { break-inside: avoid; margin-bottom: 2.5rem; }
section.question { border-bottom: 1px solid #bbb; padding-bottom: 1.5rem; }
h1.answers { break-before: page; }
table { border-collapse: collapse; font-size: .9em; display: block; overflow-x: auto; }
th, td { border: 1px solid #bbb; padding: .2rem .6rem; text-align: left; }
pre { background: #f3f3f3; padding: .6rem 1rem; white-space: pre-wrap; }
@media (prefers-color-scheme: dark) { @media screen {
  body { color: #e6e6e6; background: #16181d; } pre { background: #262a33; } } }
@page { size: A4; margin: 18mm; }
"""


def _page(problems: Sequence[Problem], solve: bool) -> str:
    title = html.escape(_title(problems))
    parts = [f"<h1>{title}</h1>"]
    for number, problem in enumerate(problems, 1):
        body = "\n".join(map(_html_block, problem.question))
        parts.append(f'<section class="question"><h2>{number}. {html.escape(problem.title)}</h2>\n{body}</section>')
    if solve:
        parts.append('<h1 class="answers">Answers</h1>')
        for number, problem in enumerate(problems, 1):
            body = "\n".join(map(_html_block, problem.steps))
            answer = f"<p><strong>{_html_words(problem.answer)}</strong></p>"
            parts.append(f"<section><h2>{number}. {html.escape(problem.title)}</h2>\n{body}\n{answer}</section>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    made = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>\n{made}\n</body></html>\n'
    )


def _html_block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{_html_words(block)}</p>"
    if isinstance(block, Code):
        return f"<pre>{html.escape(block.text)}</pre>"
    heads = "".join(f'<th scope="col">{_html_words(cell)}</th>' for cell in block.heads)
    rows = ("".join(f"<td>{_html_words(cell)}</td>" for cell in row) for row in block.rows)
    return f"<table><tr>{heads}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _html_words(words: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(words, quote=False))
