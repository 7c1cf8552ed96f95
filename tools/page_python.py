"""Python for the reader's browser, as scripts that a page can load from the disk.

A page opened from a folder may load scripts, but fetch nothing. So Pyodide's files, and the packages that the pages
use, become scripts, each `knPart(name, text)` with its bytes packed and in base 64: `python/*.js` below the folder
given. book/_static/kn-python.js puts them together again.
"""

from __future__ import annotations

import base64
import gzip
import importlib.metadata
import importlib.util
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import packing

ROOT = Path(__file__).resolve().parent.parent
PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")
OURS = ("abi", "cdecl", "ctype", "errors", "layout", "playground", "provenance", "refault", "intrinsics")
OTHERS = ("pycparser", "pcpp")


def make(vendor: Path, target: Path, root: Path = ROOT) -> None:
    """Write the scripts below `target`/python."""
    folder = target / "python"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {name: (vendor / "python" / name).read_bytes() for name in PYODIDE}
    lock = json.loads((vendor / "python" / "pyodide-lock.json").read_text())
    parts["lock.json"] = json.dumps({**lock, "packages": {}}).encode()  # no package of theirs is ever asked for
    parts["packages.zip"] = packages(root)
    for name, data in parts.items():
        text = base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
        (folder / f"{name}.js").write_text(f'knPart("{name}", "{text}");\n')


def packages(root: Path = ROOT) -> bytes:
    """Our modules that need no other package, and the parsers of C with their licences, as a zip of sources."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted({**dict(_ours(root)), **dict(_others())}.items()):
            packing.add(archive, name, path.read_bytes())
    return packed.getvalue()


def _ours(root: Path) -> Iterator[tuple[str, Path]]:
    package = root / "kernelnotes"
    yield "kernelnotes/__init__.py", package / "__init__.py"
    for name in OURS:
        files = sorted((package / name).rglob("*.py")) if (package / name).is_dir() else [package / f"{name}.py"]
        for path in files:
            yield path.relative_to(root).as_posix(), path


def _others() -> Iterator[tuple[str, Path]]:
    for name in OTHERS:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            yield f"{name}/{path.relative_to(folder).as_posix()}", path
        for file in importlib.metadata.files(name) or []:
            if "LICENSE" in file.name.upper():
                yield file.as_posix(), Path(str(file.locate()))
