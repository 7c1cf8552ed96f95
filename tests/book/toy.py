"""A book of two pages that has every kind of control, output and formula, to try the checks on and to damage."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat

CELLS = {
    "book/intro.ipynb": ["# Toy\n\nA formula, $x^2$, and a [link](every-control)."],
    "book/every-control.ipynb": [
        "# Every control\n\n$$ R < \\sum_i a_i $$",
        """
import pandas as pd
from kernelnotes import views
from kernelnotes.provenance import Provenance

recorded = Provenance("recorded", "Linux 6.18.44", "git log --stat", "2026-11-23")
""",
        """
def line(step, memory):
    figure, axes = views.figure(height=1.6)
    axes.plot([0, step], [0, memory], marker="o")
    axes.set(xlim=(-1, 12), ylim=(0, 20), xlabel="step", ylabel="memory")
    return views.Frame(figure, f"A line from 0, 0 to {step}, {memory}.")

views.explorer(line, title="Play and slider", step=views.play(range(0, 12, 2), seconds=0.2), memory=[4, 8, 16])
""",
        """
def bar(rule):
    figure, axes = views.figure(height=1.6)
    axes.bar([0], [len(rule)])
    return figure, f"A bar of height {len(rule)}."

views.explorer(bar, title="Buttons", provenance=recorded, rule=["fifo", "lru", "clocks"])
""",
        """
def cells(structure, size):
    return f"<p>{structure} of {size} bytes</p>", f"{structure} of {size} bytes"

structures = {f"a structure with the long name {k}": f"s{k}" for k in range(6)}
views.explorer(cells, title="Dropdown and names", structure=structures, size=views.play(["one", "two"], seconds=0.2))
""",
        """
def palette():
    figure, axes = views.figure(height=2)
    for k, name in enumerate(views.PALETTE):
        axes.plot([0, 1], [k, k + 1], label=name)
    axes.legend(loc="right")
    return figure

views.show(palette, "Seven lines, one in each colour of the palette.", caption="The palette.")
""",
        """
faults = pd.DataFrame({"faults": [1234, 5], "ratio": [0.5, None]}, index=["lru", "opt"])
views.table(faults, "Faults", recorded)
""",
        """
from kernelnotes import cdecl, layout
from kernelnotes.views import layout as pictures

records = cdecl.parse("struct s { char c; unsigned b : 3; long l; };")
pictures.byte_map([layout.layout(records["struct s"], name) for name in ("i386", "s390x")], "Two maps")
""",
        'pictures.searchable(layout.compare(records["struct s"], ["i386", "x86-64"]), "Where they are")',
        'views.listing("$ true\\n" + 100 * "wide ")',
        'views.note("hits 1\\nfaults 2")',
        "views.source(views.figure)",
    ],
}

TOC = "format: jb-book\nroot: book/intro\nchapters:\n  - file: book/every-control\n"


def notebook(cells: list[str]) -> nbformat.NotebookNode:
    """A notebook of `cells`; those that begin with a heading are text."""
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    for k, text in enumerate(cells):
        kind = nbformat.v4.new_markdown_cell if text.startswith("# ") else nbformat.v4.new_code_cell
        made.cells.append(kind(text.strip(), id=f"cell-{k}"))
    return made


def write(root: Path, source: Path) -> Path:
    """The toy project at `root`, with configuration and static files of the real one at `source`; returns `root`."""
    (root / "book").mkdir(parents=True, exist_ok=True)
    for name in ("_config.yml", "_vendor", "kernelnotes", "tools", "book/_static", "book/references.bib"):
        link = root / name
        if not link.is_symlink():
            os.symlink(source / name, link)
    (root / "_toc.yml").write_text(TOC)
    (root / ".hidden").mkdir(exist_ok=True)  # as .venv, whose files are no part of a book
    (root / ".hidden" / "README.md").write_text("### A heading that would be a warning\n")
    for name, cells in CELLS.items():
        text = nbformat.writes(notebook(cells)) + "\n"
        if not (root / name).is_file() or (root / name).read_text() != text:
            (root / name).write_text(text)
    return root
