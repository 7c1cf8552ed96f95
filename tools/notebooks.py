"""Pack all notebooks with the package, so that each starts by itself wherever there is a Jupyter.

    python tools/notebooks.py        # gives the chapters in book/ a cell that installs, or takes it away again

A chapter that is opened from a repository, in Colab for example, installs the package from there: with
tool.kernelnotes.repository in pyproject.toml each gets a cell for that, which the book does not show; without it, none.

The zip holds the chapters in their folders, the students' labs, and `package`, from which the first cell of each
notebook installs kernelnotes where it is missing.
"""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

import labs
import nbformat
import packing

ROOT = Path(__file__).resolve().parent.parent
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt")
KINDS = ("*.py", "*.c", "*.gz", "*.txt", "py.typed")
START = """# Installs kernelnotes where it is missing, from the folder `package`.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("kernelnotes") is None:
    above = [Path.cwd(), *Path.cwd().parents]
    here = next(p for p in above if (p / "package/pyproject.toml").is_file())
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, f"{here / 'package'}[live]"], check=True)
    importlib.invalidate_caches()
"""


FROM_REPOSITORY = """# Installs kernelnotes where it is missing, Colab for example.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("kernelnotes") is None:
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    source = "kernelnotes[live] @ git+{address}"
    subprocess.run([*pip, source], check=True)
    importlib.invalidate_caches()
"""


def repository(root: Path = ROOT) -> str:
    """Where the sources can be had, from pyproject.toml: "" or an https address without a slash at its end.

    Raises ValueError for anything else.
    """
    path = root / "pyproject.toml"
    settings = tomllib.loads(path.read_text()).get("tool", {}).get("kernelnotes", {}) if path.is_file() else {}
    address = str(settings.get("repository", ""))
    if address and not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)+", address):
        raise ValueError(
            f"pyproject.toml: tool.kernelnotes.repository is {address!r}, expected https://HOST/NAME/PROJECT"
        )
    return address


def stamp(root: Path = ROOT) -> list[Path]:
    """Give each chapter its cell, or take it away, as the repository's address says; those that changed."""
    address, changed = repository(root), []
    for path in chapters(root):
        notebook = nbformat.read(path, 4)
        notebook.cells = [cell for cell in notebook.cells if cell.get("id") != "start"]
        if address:
            cell = nbformat.v4.new_code_cell(FROM_REPOSITORY.format(address=address).strip(), id="start")
            cell.metadata["tags"] = ["remove-cell"]
            notebook.cells.insert(1, cell)  # behind the title
        if notebook != nbformat.read(path, 4):
            nbformat.write(notebook, path)
            changed.append(path)
    return changed


def toc_files(root: Path = ROOT) -> list[str]:
    """The sources named in _toc.yml, e.g. book/refault/01-two-lists, in order."""
    return re.findall(r"(?:root|file):\s*(\S+)", (root / "_toc.yml").read_text())


def chapters(root: Path = ROOT) -> list[Path]:
    """The notebooks that the book consists of, in order."""
    return [path for name in toc_files(root) if (path := root / f"{name}.ipynb").is_file()]


def make(target: Path, root: Path = ROOT) -> Path:
    """Write `target`/notebooks.zip; the same bytes from the same files."""
    target.mkdir(parents=True, exist_ok=True)
    packed = target / "notebooks.zip"
    notebooks = {path.relative_to(root / "book").as_posix(): nbformat.read(path, 4) for path in chapters(root)}
    notebooks |= {f"labs/{path.name}": labs.release(nbformat.read(path, 4), path.stem) for path in labs.sources()}
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, notebook in notebooks.items():
            start = nbformat.v4.new_code_cell(START.strip(), id="start")
            notebook.cells = [start, *(cell for cell in notebook.cells if cell.get("id") != "start")]
            packing.add(archive, f"kernelnotes/{name}", (nbformat.writes(notebook) + "\n").encode())
        files = [ROOT / name for name in NEEDED]
        files += [path for kind in KINDS for path in sorted((ROOT / "kernelnotes").rglob(kind))]
        for path in files:
            packing.add(archive, f"kernelnotes/package/{path.relative_to(ROOT).as_posix()}", path.read_bytes())
    return packed


if __name__ == "__main__":
    for path in stamp():
        print(f"notebooks: {path.relative_to(ROOT)} has {'a' if repository() else 'no'} cell that installs")
