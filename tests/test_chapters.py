"""Cells of the chapters on a machine that lacks something: they go on with a recording, and say so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernelnotes.live.origin import kernel

BOOK = Path(__file__).parents[1] / "book"


def run_cells(chapter, *wanted, **environment):
    """Run the chapter's first cell and those that contain one of `wanted`; what the last one shows, as text."""
    cells = [cell for cell in json.loads((BOOK / chapter).read_text())["cells"] if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    first, *rest = [s for k, s in enumerate(sources) if k == 0 or any(word in s for word in wanted)]
    assert len(rest) == len(wanted)
    body, _, last = "\n".join([first, *rest]).rpartition("\n")
    script = f"{body}\nprint(({last}).text)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MATRIX = ("autofs/02-two-daemons.ipynb", "real.outcomes()")


def test_without_a_32_bit_compiler_the_matrix_is_the_recorded_one():
    shown = run_cells(*MATRIX, CC="false", PATH="")
    assert "recorded: Linux 6." in shown
    assert "gcc -m32" in shown
    assert "live:" not in shown


@pytest.mark.needs("32-bit programs", "packet pipes")
def test_with_one_the_matrix_is_played_on_this_machine():
    shown = run_cells(*MATRIX)
    assert f"live: {kernel()}, " in shown
    assert "recorded" not in shown
