"""The pages that are made from the package: they hold every name, every command and every point."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from kernelnotes import cli

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import generated  # noqa: E402

NAMES = [name for names in generated.MODULES.values() for name in names]


@pytest.fixture(scope="module")
def api():
    return generated.api()


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_an_entry_with_words(name, api):
    module = importlib.import_module(f"kernelnotes.{name}")
    short = name.rsplit(".", 1)[-1]
    begin = api.index(f"### kernelnotes.{name}\n")
    part = api[begin : begin + 5 + re.search(r"^#{2,3} |\Z", api[begin + 5 :], re.M).start()]
    for each in generated.public(module):
        if isinstance(getattr(module, each), type(sys)):
            continue
        entry = re.search(rf"^#### {re.escape(f'{short}.{each}')}\n\n(.*?)(?=^#### |\Z)", part, re.M | re.S)
        assert entry, each
        words = re.sub(r"```.*?```", "", entry[1], flags=re.S)
        assert len(words.strip()) > 2, f"{name}.{each} says nothing"


def test_another_process_writes_the_same(api):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import generated; sys.stdout.write(generated.api())"
    done = subprocess.run([sys.executable, "-c", code, ROOT / "tools"], capture_output=True, text=True, check=True)
    assert done.stdout == api


def test_every_module_that_others_may_import_is_there():
    # A module of the models or the views that is not named is named by its package, or is one of its parts.
    folders = {path.name for path in (ROOT / "kernelnotes").iterdir() if path.is_dir() and path.name[0] != "_"}
    files = {path.stem for path in (ROOT / "kernelnotes").glob("*.py")}
    known = {name.split(".")[0] for name in NAMES}
    inside = {"cli", "ctype", "headers", "intrinsics", "playground", "__init__"}  # of no use by themselves
    assert (folders | files) - known - inside == set()


def test_every_command_has_its_help():
    page = generated.cli()
    commands = dict(generated._commands("kernelnotes", typer.main.get_command(cli.main)))
    assert len(commands) > 15
    for name, command in commands.items():
        assert f"## {name}\n" in page
        assert all(p.opts[0] in page for p in command.params if isinstance(p, click.Option) and not p.hidden)


def test_every_point_leads_to_a_place():
    page = generated.article()
    points = [name for group in json.loads(generated.POINTS.read_text()) for name in group["points"]]
    for name in points:
        row = re.search(rf"^\| {name} \| .* \| (.*) \|$", page, re.M)
        assert row, name
        assert 'href="../' in row[1], f"{name} has no cell"


def test_pages_are_written_once(tmp_path):
    for name in ("_toc.yml", "book"):
        (tmp_path / name).symlink_to(ROOT / name) if name == "_toc.yml" else None
    (tmp_path / "book").mkdir()
    for path in generated.chapters(ROOT):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    generated.make(tmp_path)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "book" / "reference").iterdir()}
    assert len(made) == 5
    generated.make(tmp_path)
    assert made == {path: path.stat().st_mtime_ns for path in made}


def test_docstrings_become_markdown():
    made = generated._prose("""First, with *stars* and <tags>.

    pages : what they are,
        and more of it
    memory : how many

    Raises BadInput.

        indented lines stay
          as they are
    """)
    assert "with \\*stars\\* and \\<tags\\>" in made
    assert "- `pages`: what they are, and more of it\n- `memory`: how many" in made
    assert "```text\nindented lines stay\n  as they are\n```" in made


def test_the_figures_of_how_we_know_are_computed():
    page, figures = generated.known(), generated.measured()
    assert "<<" not in page
    assert all(value in page for value in figures.values())
    assert float(figures["misses"]) <= 0.5
    assert float(figures["refaults"]) <= 1
    assert int(figures["runs"]) == 76
