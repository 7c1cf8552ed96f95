"""The tools that fetch and build: what they refuse, and that nothing half-done stays."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import toy
import vendor

import book

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only program on the PATH: an npm that writes the text of a file beside it as every tarball."""
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nread body < "$0.txt" && echo "$body" > axe-core-4.14.1.tgz\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place to unpack one package to, with files of an earlier version in it."""
    monkeypatch.setattr(vendor, "PACKAGES", vendor.PACKAGES[-1:])
    (tmp_path / "_vendor" / "test").mkdir(parents=True)
    (tmp_path / "_vendor" / "test" / "axe.min.js").write_text("earlier")
    return tmp_path / "_vendor"


def left(target: Path) -> list[str]:
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())


def test_another_file_than_the_pinned_one_is_refused(npm: Path, target: Path) -> None:
    npm.with_name("npm.txt").write_text("not the package\n")
    with pytest.raises(vendor.VendorError, match=r"axe-core-4.14.1.tgz: SHA-256 is \w{64}, expected e6b0ce02"):
        vendor.vendor(target)
    assert left(target) == ["test/axe.min.js"]


def test_a_failing_npm_and_a_missing_one_are_named(npm: Path, target: Path) -> None:
    with pytest.raises(vendor.VendorError, match=r"npm pack axe-core@4.14.1 failed"):
        vendor.vendor(target)
    npm.unlink()
    with pytest.raises(vendor.VendorError, match="npm is not installed"):
        vendor.vendor(target)
    assert left(target) == ["test/axe.min.js"]


def test_what_is_there_is_compared_with_its_stamp(tmp_path: Path) -> None:
    assert vendor.problems(tmp_path) == ["nothing is unpacked yet"]
    (tmp_path / "a.js").write_text("a")
    stamp = {"packages": vendor.pins(), "files": {"a.js": vendor.sha256(tmp_path / "a.js")}}
    (tmp_path / "stamp.json").write_text(json.dumps(stamp))
    assert vendor.problems(tmp_path) == []
    (tmp_path / "a.js").write_text("b")
    assert vendor.problems(tmp_path) == ["a.js was altered"]
    (tmp_path / "a.js").unlink()
    assert vendor.problems(tmp_path) == ["a.js is missing"]
    (tmp_path / "stamp.json").write_text(json.dumps(stamp | {"packages": {}}))
    assert vendor.problems(tmp_path) == ["other versions are unpacked than the pinned ones"]
    (tmp_path / "stamp.json").write_text("{")
    assert vendor.problems(tmp_path) == ["nothing is unpacked yet"]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import sys\nprint('a warning', file=sys.stderr)", "stderr was found in the cell outputs"),
    ],
)
def test_a_build_that_fails_says_where_and_leaves_no_pages(tmp_path: Path, cell: str, reason: str) -> None:
    root = toy.write(tmp_path, ROOT)
    (root / "book/every-control.ipynb").write_text(nbformat.writes(toy.notebook(["# Broken", cell])))
    with pytest.raises(book.BookError) as caught:
        book.make(root)
    assert reason in str(caught.value)
    assert "book/every-control" in str(caught.value)
    assert not book.site(root).exists()
    assert not book.current(root)


def test_a_chapter_that_does_not_exist_is_named(tmp_path: Path) -> None:
    root = toy.write(tmp_path, ROOT)
    (root / "_toc.yml").write_text(toy.TOC + "  - file: book/missing\n")
    with pytest.raises(book.BookError, match="files that do not exist: book/missing"):
        book.make(root)


def test_the_built_book_is_current_until_something_it_is_made_from_changes(toy_site: Path) -> None:
    root = toy_site.parents[1]
    assert book.current(root)
    assert book.make(root) is False
    page = root / "book" / "intro.ipynb"
    text = page.read_text()
    try:
        page.write_text(text + "\n")
        assert not book.current(root)
    finally:
        page.write_text(text)
    assert book.current(root)


def test_the_command_says_what_is_wrong_on_stderr_and_fails(tmp_path: Path) -> None:
    """Run in a copy that has the tools but neither npm nor the vendored files."""
    (tmp_path / "tools").mkdir()
    for path in (ROOT / "tools").glob("*.py"):
        (tmp_path / "tools" / path.name).write_text(path.read_text())
    done = subprocess.run(
        [sys.executable, "tools/book.py"],
        cwd=tmp_path,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "npm is not installed" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_setting_gives_buttons_for_binder_and_colab_and_none_without_it(tmp_path: Path) -> None:
    root = toy.write(tmp_path / "toy", ROOT)
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n")
    (root / "book/intro.ipynb").write_text(nbformat.writes(toy.notebook(["# Toy\n\nNothing else."])) + "\n")
    page = book.site(root) / "book" / "intro.html"
    book.build(root)
    assert not re.search("mybinder|colab", page.read_text())
    (root / "pyproject.toml").write_text('[tool.kernelnotes]\nrepository = "https://github.com/some/where"\n')
    book.build(root)
    links = re.findall(r'href="(https://(?:mybinder|colab)[^"]*)"', page.read_text())
    assert links == [
        "https://mybinder.org/v2/gh/some/where/main?urlpath=lab/tree/book/intro.ipynb",
        "https://colab.research.google.com/github/some/where/blob/main/book/intro.ipynb",
    ]


@pytest.mark.parametrize("address", ["http://a/b", "https://example.org", "https://a/b/", "javascript:alert(1)"])
def test_another_repository_is_refused(tmp_path: Path, address: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.kernelnotes]\nrepository = "{address}"\n')
    with pytest.raises(book.BookError, match=r"tool\.kernelnotes\.repository is .*, expected https://HOST/NAME"):
        book.repository(tmp_path)


def test_this_project_names_none(tmp_path: Path) -> None:
    assert book.repository(ROOT) == book.repository(tmp_path) == ""
