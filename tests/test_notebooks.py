"""The zip of all notebooks: each starts by itself, with the package that lies beside it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import notebooks  # noqa: E402


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks")
    with zipfile.ZipFile(notebooks.make(folder)) as archive:
        archive.extractall(folder)
    return folder / "kernelnotes"


def test_every_chapter_and_every_lab_is_there(unpacked):
    names = sorted(path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*.ipynb"))
    sources = {path.relative_to(ROOT / "book").as_posix() for path in (ROOT / "book").rglob("*.ipynb")}
    assert set(names) == {name for name in sources if "checkpoint" not in name}
    assert not any("BEGIN SOLUTION" in path.read_text() for path in (unpacked / "labs").iterdir())


def test_each_begins_with_the_cell_that_installs(unpacked):
    for path in unpacked.rglob("*.ipynb"):
        first, *rest = nbformat.read(path, 4).cells
        assert first.source == notebooks.START.strip()
        assert rest[0].cell_type == "markdown"


def test_the_first_cell_installs_on_a_bare_python(unpacked, tmp_path):
    # Without what it depends on, which takes a minute; test_package.py installs it all.
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    said = "import kernelnotes; print(kernelnotes.__file__)\nfrom kernelnotes import refault\nprint(refault.Memory(3))"
    code = f"{notebooks.START}\n{said}"
    done = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        cwd=unpacked / "labs",
        env={"PIP_NO_DEPS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(tmp_path / "bare") in done.stdout


def test_the_same_files_give_the_same_zip(tmp_path):
    one, two = notebooks.make(tmp_path / "one"), notebooks.make(tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size < 8_000_000
