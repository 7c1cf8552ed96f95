"""What the README promises: its examples run, and its picture is what the package draws."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kernelnotes import recordings, refault, traces
from kernelnotes.views import refault as pictures

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PICTURE = ROOT / "book/images/shift.svg"
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def picture() -> str:
    """The picture of the README, as the chapter on refault distance draws it."""
    shift = traces.shift(850, 850, laps=4, passes=8)
    replays = [refault.replay(shift, 1000, rules) for rules in ("balanced-2012", "proposal-2012")]
    drawn = pictures.lengths(replays, marks={"shift": 4 * 850}).html
    svg = re.search(r"<svg.*</svg>", drawn, flags=re.S)
    assert svg
    return svg[0].replace('style="', 'style="background:#fff;', 1) + "\n"


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_runs_by_itself(example, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_there_is_an_example_for_running_for_using_and_for_courses():
    assert len(EXAMPLES) == 7
    assert "kernelnotes doctor" in README


def test_doctor_runs_as_the_readme_says():
    program = Path(sys.executable).with_name("kernelnotes")
    done = subprocess.run([program, "doctor"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "numba" in done.stdout


def test_traces_are_replayed_and_curves_drawn_as_the_readme_says(tmp_path):
    commands = re.findall(r"^(sudo )?\.venv/bin/kernelnotes refault (\w+) (.*)$", README, re.M)
    assert [(bool(root), name) for root, name, _ in commands] == [
        *((False, "replay"), (False, "curve"), (True, "measure"), (True, "record"))
    ]
    traces.write(traces.zipf(500, 5000, seed=1), tmp_path / "trace.txt")
    for _, name, options in commands[:2]:
        words = options.replace("TRACE", str(tmp_path / "trace.txt")).replace("PAGES", "100").split()
        program = Path(sys.executable).with_name("kernelnotes")
        done = subprocess.run([program, "refault", name, *words], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "miss_ratio" in done.stdout


@pytest.mark.needs("kernel types", "32-bit programs")
def test_layouts_are_shown_as_the_readme_says(tmp_path):
    commands = re.findall(r"^\.venv/bin/kernelnotes (layout|hazards) (.*)$", README, re.M)
    assert len(commands) == 3
    header = tmp_path / "a.h"
    header.write_text("struct s { int x; };")
    for command, options in commands:
        # One header in place of all of them: the census reads those.
        words = options.replace("FILE", str(header)).replace("/usr/include/linux", "/usr/include/linux/kvm.h").split()
        program = Path(sys.executable).with_name("kernelnotes")
        done = subprocess.run([program, command, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "struct" in done.stdout


def autofs_command(name, **files):
    """The words of the README's example of `kernelnotes autofs NAME`, and whether it says sudo."""
    [(root, options)] = re.findall(rf"^(sudo )?\.venv/bin/kernelnotes autofs {name}\b(.*)$", README, re.M)
    program = Path(sys.executable).with_name("kernelnotes")
    return [program, "autofs", name, *(files.get(word, word) for word in options.split())], bool(root)


def test_the_matrix_and_the_packets_are_shown_as_the_readme_says(tmp_path):
    (tmp_path / "packets").write_bytes(recordings.packets().stream)
    for name, told in (("matrix", "packet pipe"), ("decode", "missing_indirect, protocol 5")):
        command, root = autofs_command(name, FILE=tmp_path / "packets")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, root) == (0, False), done.stderr
        assert told in done.stdout


@pytest.fixture
def automount(tmp_path):
    """The README's daemon at work in a mount namespace of its own: its process, and the folder that it serves."""
    (tmp_path / "home").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/hello").touch()
    (tmp_path / "map").write_text(f"docs {tmp_path}/docs\nscratch tmpfs\n")
    command, root = autofs_command("mount", DIR=tmp_path / "home", MAP=tmp_path / "map")
    assert root
    alone = ["unshare", "--mount", "--propagation", "private", *command]
    with subprocess.Popen(alone, process_group=0, stdout=subprocess.PIPE, text=True) as daemon:
        try:
            yield daemon, tmp_path / "home"
        finally:
            daemon.terminate()


@pytest.mark.needs("autofs")
def test_a_name_of_the_map_is_mounted_when_somebody_asks_as_the_readme_says(automount):
    daemon, home = automount
    assert " serve " in daemon.stdout.readline()
    ask = ["timeout", "--signal=KILL", "20", "nsenter", "--mount", f"--target={daemon.pid}", "ls"]
    listed = {
        name: subprocess.run([*ask, home / name], capture_output=True, text=True) for name in ("docs", "scratch", "no")
    }
    assert (listed["docs"].stdout, listed["scratch"].returncode, listed["no"].returncode) == ("hello\n", 0, 2)
    daemon.send_signal(signal.SIGINT)
    assert daemon.stdout.read().splitlines()[-1].split()[2] == "end"
    assert daemon.wait() == 0


def test_reading_opens_the_page_that_the_build_makes():
    assert "python3 -m webbrowser _build/html/index.html" in README
    command = [sys.executable, "-m", "webbrowser", "_build/html/index.html"]
    done = subprocess.run(command, env=os.environ | {"BROWSER": "echo %s"}, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "_build/html/index.html" in done.stdout


def test_picture_is_what_the_package_draws():
    if os.environ.get("KERNELNOTES_REDRAW"):
        PICTURE.write_text(picture())
    ElementTree.parse(PICTURE)  # raises where a browser would show an error instead
    assert PICTURE.read_text() == picture(), "draw it anew: KERNELNOTES_REDRAW=1 pytest tests/test_readme.py"
