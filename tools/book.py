"""Build the book: fetch the JavaScript, execute the chapters, make the pages, check them, print the path to open.

    python tools/book.py             # does nothing when the built book is current
    python tools/book.py --force     # builds in any case

A build that fails leaves no pages: exit status 1, the reason on stderr, everything that was said in _build/log.txt.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import figure_index
import generated
import labs
import notebooks
import page_python
import pages
import vendor
from notebooks import toc_files

ROOT = Path(__file__).resolve().parent.parent
ANSI = re.compile(r"\x1b\[[0-9;]*m")
NOISE = re.compile(r"Kernel is running over TCP|KeyboardInterrupt caught in kernel")


BUTTONS = """
repository:
  url: {address}
  branch: main
launch_buttons:
  notebook_interface: jupyterlab
  binderhub_url: https://mybinder.org
  colab_url: https://colab.research.google.com
  thebe: false
"""


class BookError(Exception):
    """The book cannot be built, or is not as it should be; the message says where and why."""


def site(root: Path = ROOT) -> Path:
    """Where the pages are."""
    return root / "_build" / "html"


def inputs(root: Path = ROOT) -> str:
    """A hash over all that the pages are made from: book, package, configuration, pins, vendored files, this tool."""
    files = [root / name for name in ("_config.yml", "_toc.yml", "_vendor/stamp.json", *notebooks.NEEDED)]
    for folder, kinds in (
        ("book", "*"),
        ("kernelnotes", "*.py"),
        ("kernelnotes", "*.gz"),
        ("kernelnotes", "*.txt"),
        ("kernelnotes", "*.c"),
        ("tools", "*.py"),
    ):
        files += sorted(p for p in (root / folder).rglob(kinds) if p.is_file() and ".ipynb_checkpoints" not in p.parts)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(root)}\0".encode() + (path.read_bytes() if path.is_file() else b"-") + b"\0")
    return digest.hexdigest()


def current(root: Path = ROOT) -> bool:
    """Whether the pages exist, passed their checks and were made from what is there now."""
    try:
        stamp = json.loads((root / "_build" / "book.json").read_text())
    except (OSError, ValueError):
        return False
    return bool(stamp.get("inputs") == inputs(root)) and (site(root) / "index.html").is_file()


def repository(root: Path = ROOT) -> str:
    """As notebooks.repository.  Raises BookError for an address that is none."""
    try:
        return notebooks.repository(root)
    except ValueError as e:
        raise BookError(str(e)) from e


def build(root: Path = ROOT) -> None:
    """Execute and render everything below `root`; raises BookError with the reasons, and then leaves no pages."""
    missing = [
        name for name in toc_files(root) if not any((root / f"{name}{end}").is_file() for end in (".ipynb", ".md"))
    ]
    if missing:
        raise BookError("_toc.yml names files that do not exist: " + ", ".join(missing))
    out = root / "_build"
    shutil.rmtree(out / "html", ignore_errors=True)
    out.mkdir(exist_ok=True)
    (out / "book.json").unlink(missing_ok=True)
    page_python.make(root / "_vendor", out / "static")
    labs.make(out / "static")
    notebooks.make(out / "static", root)
    # In a fresh installation matplotlib says on stderr that it builds its font cache, and stderr is an error in a page.
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], stderr=subprocess.DEVNULL, check=False)
    environment = os.environ | {"IPYTHONDIR": str(out / "ipython"), "PYTHONHASHSEED": "0", "MPLBACKEND": "agg"}
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", "--all", "-W", "-n", "--keep-going", str(root)]
    if address := repository(root):
        (out / "config.yml").write_text((root / "_config.yml").read_text() + BUTTONS.format(address=address))
        command += ["--config", str(out / "config.yml")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None
        said = _follow(process.stdout, root)
    (out / "log.txt").write_text("".join(said))
    if process.returncode:
        reports = [ANSI.sub("", p.read_text()).strip() for p in sorted(out.glob("html/reports/*.err.log"))]
        shutil.rmtree(out / "html", ignore_errors=True)
        raise BookError(
            "\n".join(["the build failed (all of it: _build/log.txt)", *(_reasons(said) or said[-15:]), *reports])
        )


def _follow(stream: Iterable[str], root: Path) -> list[str]:
    """Read the build's output to its end, print which chapter executes, and return the lines without colours."""
    said = []
    for raw in stream:
        for line in re.split(r"\r+(?!\n)", ANSI.sub("", raw)):
            text = line.replace(f"{root}/", "").rstrip()
            said.append(text + "\n")
            if found := re.match(r"(\S+): (Executing|Executed) notebook (?:in (\S+) seconds)?", text):
                ended = f"{found[3]} s\n" if found[2] == "Executed" else f"  {found[1]} ... "
                print(ended, end="", flush=True)
            elif text.startswith(("writing output... [", "dumping search index")) and (
                "[100%]" in text or text[0] == "d"
            ):
                print("  pages written" if text[0] == "w" else "  search index written", flush=True)
    return said


def _reasons(said: list[str]) -> list[str]:
    """The lines of a build's output that say what went wrong."""
    wrong = re.compile(r"WARNING|ERROR|\b\w*(?:Error|Exception)\b: |Exception occurred")
    lines = [line.rstrip() for line in said if wrong.search(line) and not NOISE.search(line)]
    return ["  " + line for line in dict.fromkeys(lines)][:25]


def check(root: Path = ROOT) -> None:
    """Raise BookError with every problem that tools/pages.py finds in the built pages."""
    if found := pages.problems(site(root)):
        raise BookError(f"{len(found)} problem(s) in the built pages\n  " + "\n  ".join(found))


def make(root: Path = ROOT, force: bool = False) -> bool:
    """Make the book current; True if it had to be built. Raises BookError or vendor.VendorError."""
    vendor.vendor(root / "_vendor")
    with alone(root):
        prepare(root)
        if not force and current(root):  # whoever was building has built this
            return False
        before = inputs(root)
        build(root)
        figure_index.fill(site(root))
        check(root)
        (root / "_build" / "book.json").write_text(json.dumps({"inputs": before}) + "\n")
    return True


def prepare(root: Path) -> None:
    """Make the pages that come from the package: they are inputs like any other page."""
    toc = root / "_toc.yml"
    if toc.is_file() and "book/reference/" in toc.read_text():
        generated.make(root)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Wait until no other process builds below `root`, and keep the others waiting."""
    (root / "_build").mkdir(exist_ok=True)
    with (root / "_build" / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  another process builds the book; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book and check its pages.")
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    force = parser.parse_args().force
    start = time.monotonic()
    try:
        built = make(ROOT, force)
    except (BookError, vendor.VendorError) as error:
        print(f"\nbook: {error}", file=sys.stderr)
        return 1
    for name, (size, packed) in pages.weights(site()).items():
        print(f"  {size / 1e6:6.2f} MB {packed / 1e3:6.0f} kB gzipped  {name}")
    print(f"book: {'built and checked' if built else 'is current'} in {time.monotonic() - start:.0f} s; open")
    print(f"  {site() / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
