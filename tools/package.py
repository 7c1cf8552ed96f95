"""Build wheel and sdist, install each into an environment with nothing in it, and do there what the README promises.

    python tools/package.py [PYTHON ...]     # e.g. python3.11 python3.12 python3.13; by default this one

What the README shows as Python runs, and so do `kernelnotes doctor`, a quiz, and a chapter of each story as the zip of
all notebooks has it; the sdist must install the same files as the wheel. Exit status 1 with what went wrong.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import notebooks

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ("refault/01-two-lists", "repair/01-what-a-connection-is", "autofs/01-struct-layout")
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # which they change
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)
"""
FILES = """
import hashlib, pathlib, kernelnotes
for path in sorted(pathlib.Path(kernelnotes.__file__).parent.rglob("*")):
    if path.is_file() and path.suffix not in (".pyc", ".nbi", ".nbc"):
        print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
"""


class PackageError(Exception):
    """A step failed; the message has its command and the end of what it said."""


def run(command: Sequence[str | Path], where: Path) -> str:
    """What a command prints.  Raises PackageError if it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"MPLBACKEND": "agg", "IPYTHONDIR": str(where / "ipython")}
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise PackageError(f"{' '.join(map(str, command[:6]))} ...: status {done.returncode}\n{said}")
    return done.stdout


def environment(python: str, folder: Path) -> Path:
    """A new virtual environment's Python."""
    run([python, "-m", "venv", folder], ROOT)
    return folder / "bin" / "python"


def build(target: Path) -> tuple[Path, Path]:
    """Wheel and sdist of what is here, in `target`."""
    with tempfile.TemporaryDirectory() as name:
        python = environment(sys.executable, Path(name, "builder"))
        run([python, "-m", "pip", "install", "-q", "setuptools>=77", "wheel"], ROOT)
        copy = Path(name, "source")
        run(["git", "-c", "safe.directory=*", "clone", "-q", ROOT, copy], ROOT)
        run([python, "-c", BUILD, target], copy)
    found = {path.suffix: path for path in target.iterdir()}
    return found[".whl"], found[".gz"]


def try_out(python: str, wheel: Path, sdist: Path, chapters: Sequence[str] = CHAPTERS) -> list[str]:
    """What was done with both in a fresh environment of one Python, in words."""
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inside = environment(python, folder / "env")
        version = run([inside, "-c", "import platform; print(platform.python_version())"], folder).strip()
        run([inside, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{wheel}[live]"], folder)
        files = run([inside, "-c", FILES], folder)
        for number, example in enumerate(examples):
            script = folder / f"example-{number}.py"
            script.write_text(example)
            run([inside, script], folder)
        said = [f"Python {version}, {wheel.name}: {len(examples)} examples, {commands(inside, folder)}"]
        ran = executed(inside, folder, chapters)  # while it is the wheel that is installed
        run([inside, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", sdist], folder)
        if run([inside, "-c", FILES], folder) != files:
            raise PackageError(f"{sdist.name} installs other files than {wheel.name}")
        said.append(f"Python {version}, {sdist.name}: the same files, {commands(inside, folder)}")
        return [*said, f"Python {version}, {wheel.name}: {ran}"]


def executed(python: Path, where: Path, chapters: Sequence[str]) -> str:
    """The chapters that ran, from the zip of all notebooks without the package in it, in words."""
    run([python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", "nbclient", "ipykernel"], where)
    with zipfile.ZipFile(notebooks.make(where)) as archive:
        archive.extractall(where)
    book = where / "kernelnotes"
    shutil.rmtree(book / "package")
    for name in chapters:
        run([python.with_name("jupyter-execute"), book / f"{name}.ipynb"], where)
    return f"the notebooks {', '.join(chapters)}"


def commands(python: Path, where: Path) -> str:
    """What the installed command did, in words."""
    program = python.with_name("kernelnotes")
    lines = len(run([program, "doctor"], where).strip().splitlines())
    run([program, "quiz", "repair", "--seed", "1", "--solve"], where)
    return f"doctor ({lines} lines), a quiz"


def main() -> int:
    try:
        with tempfile.TemporaryDirectory() as name:
            wheel, sdist = build(Path(name))
            for python in sys.argv[1:] or [sys.executable]:
                for line in try_out(python, wheel, sdist):
                    print(line, flush=True)
    except PackageError as error:
        print(f"package: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
