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

CHAPTERS = notebooks.chapters(ROOT)


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


def test_chapters_are_as_the_repository_setting_says():
    has = {path.name: any(cell.get("id") == "start" for cell in nbformat.read(path, 4).cells) for path in CHAPTERS}
    assert set(has.values()) == {bool(notebooks.repository())}


def test_a_repository_gives_each_chapter_its_cell_and_without_it_goes(tmp_path):
    (tmp_path / "_toc.yml").write_text((ROOT / "_toc.yml").read_text())
    for path in CHAPTERS:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    before = {path: nbformat.read(path, 4) for path in notebooks.chapters(tmp_path)}
    assert notebooks.stamp(tmp_path) == []
    setting = tmp_path / "pyproject.toml"
    setting.write_text('[tool.kernelnotes]\nrepository = "https://github.com/some/where"\n')
    assert notebooks.stamp(tmp_path) == list(before)
    assert notebooks.stamp(tmp_path) == []
    for path in before:
        title, start, *_ = nbformat.read(path, 4).cells
        assert title.source.startswith("# ")
        assert '"kernelnotes[live] @ git+https://github.com/some/where"' in start.source
        assert start.metadata.tags == ["remove-cell"]
        compile(start.source, path.name, "exec")
    setting.unlink()
    notebooks.stamp(tmp_path)
    assert before == {path: nbformat.read(path, 4) for path in before}
