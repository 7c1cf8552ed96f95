"""Make the labs ready for students: without solutions and hidden tests, in one zip.

    python tools/labs.py             # _build/labs/*.ipynb and _build/labs.zip

The sources in book/labs are notebooks with nbgrader's cells (metadata "nbgrader", schema version 3); nbgrader itself
releases and grades them just so, and is not needed here. A solution stands between ### BEGIN SOLUTION and ### END
SOLUTION, a hidden test between ### BEGIN HIDDEN TESTS and ### END HIDDEN TESTS.
"""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
from pathlib import Path

import nbformat
import packing

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "book" / "labs"
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION$\n?", re.MULTILINE | re.DOTALL)
HIDDEN = re.compile(r"^ *### BEGIN HIDDEN TESTS\n.*?^ *### END HIDDEN TESTS$\n?", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"###\s*(BEGIN|END)\b")
TODO = "# YOUR CODE HERE\n{indent}raise NotImplementedError()"


class LabError(Exception):
    """A source is not as a lab should be; the message names it and the cell."""


def sources() -> list[Path]:
    """The labs, in order."""
    return sorted(SOURCES.glob("[0-9]*.ipynb"))


def points(notebook: nbformat.NotebookNode) -> float:
    """All that a program gives; texts are read and graded by a person."""
    graded = (cell for cell in notebook.cells if cell.cell_type == "code")
    return float(sum(cell.metadata.get("nbgrader", {}).get("points", 0) for cell in graded))


def release(notebook: nbformat.NotebookNode, name: str = "lab") -> nbformat.NotebookNode:
    """The student's version.  Raises LabError for a mark without its other half, or in a cell that is not for it."""
    made = nbformat.from_dict(notebook)
    for number, cell in enumerate(made.cells):
        graded = cell.metadata.get("nbgrader", {})
        if graded.get("solution") and cell.cell_type == "markdown":
            cell.source = "YOUR ANSWER HERE"
        elif graded.get("solution"):
            if not SOLUTION.search(cell.source):
                raise LabError(f"{name}, cell {number}: it is for a solution and has none")
            cell.source = SOLUTION.sub(
                lambda found: found[1] + TODO.format(indent=found[1]) + "\n", cell.source
            ).rstrip()
        if graded.get("grade"):
            cell.source = HIDDEN.sub("", cell.source).rstrip()
        if MARK.search(cell.source):
            raise LabError(f"{name}, cell {number}: a mark of a solution or a hidden test is left over")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return made


def make(target: Path) -> Path:
    """Write all releases below `target`/labs and pack them into `target`/labs.zip, whose path is returned."""
    folder = target / "labs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    packed = target / "labs.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sources():
            text = nbformat.writes(release(nbformat.read(path, 4), path.stem)) + "\n"
            (folder / path.name).write_text(text, encoding="utf-8")
            packing.add(archive, f"labs/{path.name}", text)
    return packed


def main() -> int:
    try:
        packed = make(ROOT / "_build")
    except LabError as error:
        print(f"labs: {error}", file=sys.stderr)
        return 1
    for path in sources():
        print(f"  {points(nbformat.read(path, 4)):4g} points  {path.stem}")
    print(f"labs: for students, in one file\n  {packed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
