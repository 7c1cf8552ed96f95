"""Pages of the book that are made from the package and the notebooks: below book/reference, not in git.

api.md tells every public name from its docstring, cli.md every command as `--help` does, article.md the cells that
reproduce each point of the three articles, figures.md has a place for the figures of each chapter, how-we-know.md what
was compared with what.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import textwrap
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import labs
import nbformat
import typer
from notebooks import chapters

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    "Refault distance": ("traces", "refault", "curves", "recordings"),
    "Connection repair": ("repair", "repair.segment", "repair.session", "repair.files"),
    "The autofs packet": ("cdecl", "abi", "layout", "btf", "autofs", "pipes"),
    "Coursework": ("check", "quiz", "quiz.sheets"),
    "On Linux, live": ("live.refault", "live.repair", "live.netlab", "live.autofs", "live.pipes", "live.machine"),
    "Pictures": ("views",),
    "Everywhere": ("errors", "provenance", "history"),
}
POINTS = ROOT / "book" / "article-points.json"
TEMPLATE = ROOT / "book" / "how-we-know.template"
LARGE = 7000  # refaults, of which 70 are one percent
MOST_SIGNATURE = 90  # characters on one line


def make(root: Path = ROOT) -> None:
    """Write the pages; what is right already is left alone, so that a build sees no change."""
    folder = root / "book" / "reference"
    folder.mkdir(exist_ok=True)
    made = {"api": api(), "cli": cli(), "article": article(root), "figures": figures(root), "how-we-know": known()}
    assert not re.search("0x[0-9a-f]{6,}", made["api"]), "an address in memory, which changes from run to run"
    for name, text in made.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------------------ API


def public(module: types.ModuleType) -> list[str]:
    """The names a module offers: `__all__`, or what it defines itself without an underscore."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    mine = (name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return [name for name in mine if not name.startswith("_")]


def api() -> str:
    """The reference of the package, as Markdown."""
    parts = [
        "# The package\n\nEvery public name, from its own documentation; `import kernelnotes` imports none, so\n"
        "write `from kernelnotes import refault`. Units and shapes stand with each argument; `Source:` names the\n"
        "kernel's own code. Every example behind `>>>` is run by the tests, with the modules imported by their names.\n"
    ]
    for part, names in MODULES.items():
        parts.append(f"## {part}\n")
        for name in names:
            module = importlib.import_module(f"kernelnotes.{name}")
            parts += [f"### kernelnotes.{name}\n", _prose(module.__doc__ or "")]
            parts += [text for each in public(module) if (text := _entry(name, each, getattr(module, each)))]
    return "\n".join(parts)


def _entry(module: str, name: str, value: Any) -> str:
    if isinstance(value, types.ModuleType):
        return ""
    short = module.rsplit(".", 1)[-1]
    if isinstance(value, types.GenericAlias):
        return f"#### {short}.{name}\n\nA short name of the type `{value}`.\n"
    if inspect.isclass(value) or callable(value):
        said = inspect.getdoc(value) or ""
        signature = _signature(f"{short}.{name}", value)
        members = "".join(_members(value)) if inspect.isclass(value) else ""
        return f"#### {short}.{name}\n\n```python\n{signature}\n```\n\n{_prose(said)}{members}"
    return f"#### {short}.{name}\n\n{_constant(value)}\n"


def _constant(value: Any) -> str:
    if hasattr(value, "keys"):
        names = ", ".join(f"`{key}`" for key in list(value)[:60])
        return f"A mapping with the keys {names}."
    told = repr(value)
    return f"`{told}`." if len(told) <= MOST_SIGNATURE else f"A {type(value).__name__} of {len(value)}."


def _signature(name: str, value: Any) -> str:
    try:
        told = str(inspect.signature(value))
    except (TypeError, ValueError):
        return name
    told = re.sub(r"(: |-> )'([^']*)'", r"\1\2", told)  # annotations are text, defaults are not
    told = re.sub(r"<(?:function|class|built-in function) '?([\w.]+)'?(?: at 0x[0-9a-f]+)?>", r"\1", told)
    told = re.sub(r"<[^<>]*0x[0-9a-f]+[^<>]*>", "...", told)
    told = re.sub(r"= (\(.{60,}?\)|\[.{60,}?\]|\{.{60,}?\})(?=[,)]|$)", "= ...", told)
    told = re.sub(r"= Provenance\(kind='(\w+)'[^)]*\)", lambda found: f"= {found[1].upper()}", told)
    if len(name + told) <= MOST_SIGNATURE:
        return name + told
    inside = told[1 : told.rindex(")")]
    parts = [part.strip() for part in _split(inside)]
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + told[told.rindex(")") :]


def _split(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for i, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            yield text[start:i]
            start = i + 1
    if text[start:].strip():
        yield text[start:]


def _members(value: type) -> Iterator[str]:
    for name, member in vars(value).items():
        if name.startswith("_") or isinstance(member, types.MemberDescriptorType):
            continue
        found = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        said = inspect.getdoc(found) if callable(found) else None
        if said:
            arguments = "" if isinstance(member, property) else re.sub(r"^\((cls|self)(, )?", "(", _bare(found))
            yield f"- `.{name}{arguments}`: {_inline(said.split(chr(10) * 2)[0])}\n"


def _bare(function: Any) -> str:
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return "()"
    return "(" + ", ".join(names) + ")"


def _prose(said: str) -> str:
    """A docstring as Markdown: paragraphs, examples, indented lines as they are, and `name : meaning` as a list."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(said)):
        if block.startswith(">>> "):
            out.append(f"```pycon\n{block}\n```\n")
            continue
        if block.startswith("    ") or "---->" in block:
            out.append(f"```text\n{textwrap.dedent(block)}\n```\n")
            continue
        if found := re.match(r"(\w+)\n-+\n", block):  # a heading as numpy writes it
            out.append(f"*{found[1]}*\n")
            block = block[found.end() :]
        lines: list[str] = []
        for line in block.splitlines():
            if found := re.match(r"([\w.*]+(?:, [\w.*]+)*) : (.*)", line):
                lines.append(f"- `{found[1]}`: {_inline(found[2])}")
            elif line.startswith("    ") and lines:
                lines[-1] += " " + _inline(line.strip())
            elif lines and lines[-1].startswith("- "):
                lines += ["", _inline(line)]
            else:
                lines.append(_inline(line))
        out.append("\n".join(_spaced(lines)) + "\n")
    return "\n".join(out) + "\n"


def _spaced(lines: list[str]) -> Iterator[str]:
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("- ") and before and not before.startswith("- "):
            yield ""
        yield line


def _inline(text: str) -> str:
    """Text outside of backquotes without a meaning in Markdown."""
    parts = re.split(r"(`[^`]*`)", text.replace("\n", " "))
    return "".join(part if i % 2 else re.sub(r"([*_<>\[\]{}$|\\])", r"\\\1", part) for i, part in enumerate(parts))


# ------------------------------------------------------------------------------------------ CLI


def cli() -> str:
    """Every command as its `--help`."""
    from kernelnotes.cli import main

    parts = [
        "# The command\n\n`kernelnotes` and what stands behind it. Errors go to standard error; exit status 2 is bad\n"
        "usage or bad input, 1 everything else that went wrong. Tables become JSON with `--json`.\n"
    ]
    for name, command in _commands("kernelnotes", typer.main.get_command(main)):
        context = click.Context(command, info_name=name, terminal_width=84, max_content_width=84)
        parts.append(f"## {name}\n\n```text\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(parts)


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for below, each in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(f"{name} {below}", each)


# ------------------------------------------------------------------------------------------ notebooks


def _cells(path: Path) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Each cell with the chapter's title and the heading that it stands under."""
    title = heading = path.stem
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for level, text in re.findall(r"^(#+) (.+)$", source, re.MULTILINE):
                heading = text.strip()
                title = heading if level == "#" and number == 0 else title
        yield cell, title, heading


def _anchor(heading: str) -> str:
    # As docutils makes ids of headings.
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _link(path: Path, root: Path, title: str, heading: str) -> str:
    where = path.relative_to(root / "book").with_suffix(".html").as_posix()
    words = title if heading == title else f"{title}: {heading}"
    return f'<a href="../{where}#{_anchor(heading)}">{_inline(words)}</a>'


def article(root: Path = ROOT) -> str:
    """What the articles say, and where it is shown."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in chapters(root):
        for cell, title, heading in _cells(path):
            for tag in cell["metadata"].get("tags", []):
                if tag.startswith("article-"):
                    link = _link(path, root, title, heading)
                    if link not in found[tag.removeprefix("article-")]:
                        found[tag.removeprefix("article-")].append(link)
    parts = [
        "# The articles, point by point\n\nWhat the kernel page of May 2012 says, in our words, and the places of\n"
        "this book where a cell shows or reproduces it. Where a later kernel or a measurement corrects a point, that\n"
        "place says so.\n"
    ]
    for group in json.loads(POINTS.read_text(encoding="utf-8")):
        parts.append(f"## {group['title']}\n\n| point | the article says | shown in |\n|---|---|---|")
        for name, text in group["points"].items():
            parts.append(f"| {name} | {_inline(text)} | {'<br>'.join(found[name])} |")
        parts.append("")
    return "\n".join(parts)


def figures(root: Path = ROOT) -> str:
    """Every figure and table, chapter by chapter: figure_index fills the places when the chapters are built."""
    parts = [
        "# Figures and tables\n\nEach leads to the section where it stands. *CSV* leads to its data, as the link\n"
        'below it in the chapter does; <span class="kn-data-zip">all of them are in one zip</span>.\n'
        "Diagrams, and what has a control, have no data besides themselves: the notebook of a chapter, behind the\n"
        "button at its top, makes them.\n"
    ]
    for path in chapters(root):
        _, title, _ = next(_cells(path))
        page = path.relative_to(root / "book").with_suffix("").as_posix()
        parts.append(f'## {title}\n\n<div class="kn-index" data-page="{page}">In the built book.</div>\n')
    return "\n".join(parts)


# ------------------------------------------------------------------------------------------ how we know


def known() -> str:
    """The page of what was compared with what, with figures that are counted and computed now."""
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, value in measured().items():
        text = text.replace(f"<<{name}>>", value)
    return text


def measured() -> dict[str, str]:
    """The figures of that page, by the names that stand in it."""
    from kernelnotes import abi, autofs, recordings, refault
    from kernelnotes.recordings.runs import kernel_runs
    from kernelnotes.repair import session

    told = refault.predictions(kernel_runs())
    large = told[told["refaults"] >= LARGE]
    sessions = [session.load(name) for name in session.names()]
    packets = recordings.packets()
    sources = [nbformat.read(path, 4) for path in labs.sources()]
    return {
        "runs": str(len(told)),
        "accesses": f"{told['accesses'].sum():,}",
        "misses": f"{100 * told['error_misses'].abs().max():.2f}",
        "refaults": f"{100 * large['error_refaults'].abs().max():.2f}",
        "abis": str(len(abi.ABIS)),
        "sessions": str(len(sessions)),
        "calls": f"{sum(len(one.calls) for one in sessions):,}",
        "packets": str(len(packets.packets)),
        "kernel": packets.provenance.kernel,
        "cells": str(len(autofs.outcomes())),
        "labs": str(len(sources)),
        "points": f"{sum(map(labs.points, sources)):g}",
    }


if __name__ == "__main__":
    make()
    sys.exit()
