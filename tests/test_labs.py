"""The labs: a source scores full, a release nothing, and nothing of a solution or a hidden test is left in it."""

import copy
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbgrader.api import Gradebook

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import labs  # noqa: E402

SOURCES = labs.sources()


def run(notebook):
    """Per cell with code, the exception that it raised or None; the cells run in order, as in a notebook."""
    space, raised = {"display": print}, []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        try:
            exec(compile(cell.source, f"cell {number}", "exec"), space)
            raised.append((cell, None))
        except Exception as e:  # whatever a student's cell may raise
            raised.append((cell, e))
    plt.close("all")
    return raised


def score(raised):
    graded = [(cell.metadata.nbgrader.points, error) for cell, error in raised if is_graded(cell)]
    return sum(points for points, error in graded if error is None)


def is_graded(cell):
    return cell.metadata.get("nbgrader", {}).get("grade", False)


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return nbformat.read(request.param, 4)


def test_there_are_two_for_each_mechanism():
    assert len(SOURCES) == 6


def test_a_source_scores_full_and_a_release_nothing(source, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    raised = run(source)
    assert [error for _, error in raised if error] == []
    assert score(raised) == labs.points(source) >= 8
    assert score(run(labs.release(source))) == 0


def test_no_text_of_a_solution_or_a_hidden_test_leaks(source):
    released = labs.release(source)
    left = "\n".join(cell.source for cell in released.cells)
    secrets = [
        line.strip()
        for cell in source.cells
        for block in re.findall(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END", cell.source, re.DOTALL)
        for line in block.splitlines()
        if len(line.strip()) > 12
    ]
    given = "\n".join(  # what stands outside of them may say the same
        re.sub(r"### BEGIN (SOLUTION|HIDDEN TESTS)\n.*?### END \1", "", cell.source, flags=re.DOTALL)
        for cell in source.cells
    )
    leaked = [line for line in secrets if line in left and line not in given]
    assert secrets
    assert not leaked
    assert "BEGIN" not in left
    assert all(not cell.get("outputs") for cell in released.cells)


def test_every_graded_cell_has_a_name_of_its_own_and_points(source):
    marked = [cell.metadata.nbgrader for cell in source.cells if "nbgrader" in cell.metadata]
    names = [cell.grade_id for cell in marked]
    assert len(names) == len(set(names))
    assert all(cell.points > 0 for cell in marked if cell.grade)
    assert all(cell.locked != cell.solution for cell in marked)
    texts = [cell for cell in marked if cell.cell_type == "markdown"]
    assert all(cell.grade and cell.solution for cell in texts)  # nbgrader shows them to a person


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cell: cell.source.replace("### END SOLUTION", ""), "it is for a solution and has none"),
        (lambda cell: cell.source + "\n### BEGIN SOLUTION\n", "a mark of a solution or a hidden test is left over"),
    ],
)
def test_a_half_mark_is_refused(change, message):
    notebook = nbformat.read(SOURCES[0], 4)
    cell = next(cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution"))
    cell.source = change(cell)
    with pytest.raises(labs.LabError, match=message):
        labs.release(notebook)


def test_one_zip_holds_them_all(tmp_path):
    packed = labs.make(tmp_path)
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == [f"labs/{path.name}" for path in SOURCES]
        for name in archive.namelist():
            nbformat.validate(nbformat.reads(archive.read(name).decode(), 4))
    again = labs.make(tmp_path / "again")
    assert again.read_bytes() == packed.read_bytes()


UNPRIVILEGED = """
import sys
sys.path.insert(0, sys.argv[1])
import nbformat
import matplotlib; matplotlib.use("agg")
import test_labs
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")))
for path in sys.argv[2:]:
    for cell, error in test_labs.run(nbformat.read(path, 4)):
        print(type(error).__name__ if error else "fine", str(error)[:60].replace("\\n", " "))
"""


def test_student_versions_run_without_privileges(tmp_path):
    labs.make(tmp_path)
    files = sorted((tmp_path / "labs").glob("*.ipynb"))
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", "--securebits=+noroot"]
    drop = drop if os.getuid() == 0 else []  # everybody else has none
    command = [*drop, sys.executable, "-c", UNPRIVILEGED, ROOT / "tests", *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    capabilities, *said = done.stdout.splitlines()
    assert int(capabilities, 16) == 0
    assert len(said) > 40
    assert not [line for line in said if re.search(r"Permission|not permitted|Unavailable|CallFailed", line)]
    assert [line for line in said if line.startswith("NotImplementedError")]


# --- nbgrader does the same. ------------------------------------------------------------------------------------------


def nbgrader(course, *arguments):
    command = [sys.executable, "-m", "nbgrader", *arguments, f"--course-dir={course}"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # it starts `alembic` by name
    environment = os.environ | {"PATH": path, "JUPYTER_CONFIG_DIR": str(course / "config"), "MPLBACKEND": "agg"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=course, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_nbgrader_releases_the_same_and_grades_a_submission(tmp_path):
    for path in SOURCES:
        folder = tmp_path / "source" / "labs"
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.read(path, 4), folder / path.name)
    nbgrader(tmp_path, "generate_assignment", "labs")
    for path in SOURCES:
        theirs = nbformat.read(tmp_path / "release" / "labs" / path.name, 4)
        ours = labs.release(nbformat.read(path, 4))
        assert [cell.source.rstrip() for cell in theirs.cells] == [cell.source.rstrip() for cell in ours.cells]
    # One who has done the first two parts of Lab 3, and changed the third one's test to please it.
    path = next(path for path in SOURCES if path.stem.startswith("03"))
    handed_in = nbformat.read(tmp_path / "release" / "labs" / path.name, 4)
    solved = {cell.metadata.nbgrader.grade_id: cell for cell in nbformat.read(path, 4).cells if cell.metadata}
    for cell in handed_in.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if name in ("by-hand", "place"):
            cell.source = copy.copy(solved[name].source)
        if name == "hazard-test":
            cell.source = "pass"
    submitted = tmp_path / "submitted" / "someone" / "labs"
    submitted.mkdir(parents=True)
    nbformat.write(handed_in, submitted / path.name)
    nbgrader(tmp_path, "autograde", "labs", "--student=someone", f"--notebook={path.stem}")
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        graded = book.find_submission_notebook(path.stem, "labs", "someone")
        assert (graded.score, graded.max_score) == (5, 8)
