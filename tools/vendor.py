"""Fetch the JavaScript the book needs, once, so that the built pages ask nothing of any network.

    python tools/vendor.py            # no-op when everything is present and intact

Four npm packages, each pinned by the SHA-256 of its tarball, are unpacked below `_vendor/` (not in git):

    static/vendor/    the widget player (html-manager's embed.js and its icon fonts) and MathJax: part of the site
    python/           Pyodide, a Python for browsers, which tools/page_python.py makes a part of the site
    test/             axe-core, the accessibility checker: for the tests, never part of the site
    stamp.json        the SHA-256 of every unpacked file; a later run compares and does nothing

Nothing is half-written: files are unpacked aside and renamed into place when all are there, the stamp last.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "_vendor"
EMBED, MATHJAX = "static/vendor", "static/vendor/mathjax"


class Package(NamedTuple):
    """One npm package: its name and version, its tarball's SHA-256, and (pattern, folder) for the files kept."""

    spec: str
    sha256: str
    keep: tuple[tuple[str, str], ...]

    @property
    def tarball(self) -> str:
        name, version = self.spec.rsplit("@", 1)
        return f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"


PACKAGES = (
    Package(
        "@jupyter-widgets/html-manager@1.0.15",
        "2b9d65cb7913e1c7d671757a10008b32c9c2448d4429513371e55c07d6107638",
        ((r"dist/(embed\.js(?:\.LICENSE\.txt)?|[0-9a-f]{20}\.\w+)", EMBED),),
    ),
    Package(
        "mathjax@3.2.2",
        "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09",
        ((r"es5/(tex-mml-chtml\.js|output/chtml/fonts/.+|input/tex/extensions/.+)", MATHJAX), (r"(LICENSE)", MATHJAX)),
    ),
    Package(
        "pyodide@314.0.7",
        "66b7949e5a0cba2250b586d7e368bf12fb482800748d182c4618254b685ffaa0",
        ((r"(pyodide(?:\.asm)?\.mjs|pyodide\.asm\.wasm|pyodide-lock\.json|python_stdlib\.zip|README\.md)", "python"),),
    ),
    Package(
        "axe-core@4.14.1",
        "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745",
        ((r"(axe\.min\.js)", "test"), (r"(LICENSE)", "test")),
    ),
)


class VendorError(Exception):
    """The files cannot be fetched or are not the pinned ones; the message says which and what to do."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pins() -> dict[str, str]:
    """{npm spec: SHA-256 of its tarball}: what a stamp must have been made from."""
    return {package.spec: package.sha256 for package in PACKAGES}


def problems(vendor: Path = VENDOR) -> list[str]:
    """What differs from the stamp: missing or altered files, or other pins; empty when all is in place."""
    try:
        stamp = json.loads((vendor / "stamp.json").read_text())
        files: dict[str, str] = stamp["files"]
        if stamp["packages"] != pins():
            return ["other versions are unpacked than the pinned ones"]
    except (OSError, ValueError, KeyError, TypeError):
        return ["nothing is unpacked yet"]
    return [f"{name} is missing" for name in files if not (vendor / name).is_file()] or [
        f"{name} was altered" for name, digest in files.items() if sha256(vendor / name) != digest
    ]


def fetch(package: Package, folder: Path) -> Path:
    """Download one tarball with `npm pack` into `folder` and return its path; VendorError unless its hash is right."""
    npm = shutil.which("npm")
    if npm is None:
        raise VendorError("npm is not installed: it fetches the book's JavaScript (Debian: apt-get install npm)")
    command = [npm, "pack", "--silent", "--ignore-scripts", package.spec]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    tarball = folder / package.tarball
    if done.returncode or not tarball.is_file():
        last = (done.stderr or done.stdout).strip().splitlines()[-4:]
        raise VendorError(f"npm pack {package.spec} failed; is the npm registry reachable?\n  " + "\n  ".join(last))
    if (found := sha256(tarball)) != package.sha256:
        raise VendorError(f"{package.tarball}: SHA-256 is {found}, expected {package.sha256}; nothing was unpacked")
    return tarball


def unpack(package: Package, tarball: Path, target: Path) -> list[str]:
    """Copy the kept files of `tarball` below `target` and return their paths, relative to it."""
    written = []
    with tarfile.open(tarball) as archive:
        for member in archive.getmembers():
            for pattern, folder in package.keep:
                match = re.fullmatch("package/" + pattern, member.name)
                source = archive.extractfile(member) if match and member.isfile() else None
                if match is None or source is None:
                    continue
                path = target / folder / match[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source.read())
                written.append(path.relative_to(target).as_posix())
    return written


def vendor(target: Path = VENDOR) -> bool:
    """Make `target` complete; True if something had to be fetched. Raises VendorError and leaves `target` as it was."""
    found = problems(target)
    if not found:
        return False
    print(f"vendor: {found[0]}; fetching {', '.join(pins())}", flush=True)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=target) as name:
        folder, fresh = Path(name), Path(name) / "fresh"
        files = [path for package in PACKAGES for path in unpack(package, fetch(package, folder), fresh)]
        stamp = {"packages": pins(), "files": {path: sha256(fresh / path) for path in sorted(files)}}
        (fresh / "stamp.json").write_text(json.dumps(stamp, indent=1) + "\n")
        (target / "stamp.json").unlink(missing_ok=True)
        for part in ("static", "python", "test", "stamp.json"):  # the stamp comes last: with it, everything is there
            if (target / part).is_dir():
                (target / part).rename(folder / f"old-{part}")
            (fresh / part).rename(target / part)
    return True


def main() -> int:
    try:
        fetched = vendor()
    except VendorError as error:
        print(f"vendor: {error}", file=sys.stderr)
        return 1
    count = len(json.loads((VENDOR / "stamp.json").read_text())["files"])
    print(f"vendor: {count} files in _vendor/ {'fetched' if fetched else 'are intact'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
