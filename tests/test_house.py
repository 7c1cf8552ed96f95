"""The rules of the house: layers, light imports, stripped notebooks, pinned versions, no trace of one's own machine."""

import ast
import gzip
import importlib.metadata
import json
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kernelnotes"

# ------------------------------------------------------------------------------------- layers


def modules():
    """{dotted name: file} of every module of the package."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def layer(module):
    parts = module.split(".")
    if module in ("kernelnotes", "kernelnotes.errors"):
        return parts[-1]
    return parts[1] if parts[1] in ("live", "views", "cli") else "model"


# What each layer may import from the package: errors <- models <- live, models <- views; cli uses all.
MAY_IMPORT = {
    "errors": set(),
    "kernelnotes": set(),
    "model": {"errors", "model", "kernelnotes"},
    "live": {"errors", "model", "live", "kernelnotes"},
    "views": {"errors", "model", "views", "kernelnotes"},
    "cli": {"errors", "model", "live", "views", "cli", "kernelnotes"},
}


def imports(module):
    """Every module that this one imports, wherever in its text; `from a import b` names a.b where that is a module."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, [base, node.module]))
            for alias in node.names:
                yield full if (full := f"{source}.{alias.name}") in MODULES else source


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    ours = {name for name in imports(module) if name.split(".")[0] == "kernelnotes"}
    wrong = {name for name in ours if layer(name) not in MAY_IMPORT[layer(module)]}
    assert not wrong, f"{module} is of the layer {layer(module)}, which may import {MAY_IMPORT[layer(module)]}"


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m) != "views"])
def test_only_views_import_matplotlib_and_ipywidgets(module):
    assert not {name.split(".")[0] for name in imports(module)} & {"matplotlib", "ipywidgets", "IPython"}


@pytest.mark.parametrize("module", [m for m in MODULES if layer(m) in ("errors", "model", "views")])
def test_only_live_code_makes_system_calls(module):
    assert not {name.split(".")[0] for name in imports(module)} & {"ctypes", "fcntl", "resource", "subprocess"}


# ------------------------------------------------------------------------------------- light imports

HEAVY = ("numpy", "pandas", "numba", "matplotlib", "ipywidgets")
PLAIN = ("errors", "provenance", "refault", "ctype", "cdecl", "abi", "layout", "btf", "autofs", "pipes", "repair")
QUIZ = ("quiz", "quiz.refault", "quiz.layout", "quiz.repair", "quiz.sheets")


@pytest.mark.parametrize("name", [name for name in PLAIN + QUIZ if f"kernelnotes.{name}" in MODULES])
def test_a_plain_module_imports_where_the_heavy_packages_do_not_exist(name):
    block = f"import sys; sys.modules.update(dict.fromkeys({HEAVY})); import kernelnotes.{name}"
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_kernelnotes_or_its_command_line_pulls_in_nothing_heavy():
    look = f"import sys, kernelnotes, kernelnotes.cli; print(*set({HEAVY}) & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout == "\n"


def test_importing_kernelnotes_takes_at_most_150_ms():
    # Whole processes, with and without the import, taken in turn; the quickest of each stands, since other work on
    # the machine can only add to a time.
    def seconds(code):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    pairs = [(seconds("import kernelnotes"), seconds("pass")) for _ in range(7)]
    with_import, bare = map(min, zip(*pairs, strict=True))
    assert with_import - bare <= 0.15


# ------------------------------------------------------------------------------------- what is in git


def tracked():
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


TRACKED = tracked()


def text(path):
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode(errors="replace")


@pytest.mark.parametrize("notebook", sorted((ROOT / "book").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_carry_neither_outputs_nor_execution_counts(notebook):
    if ".ipynb_checkpoints" in notebook.parts:
        return
    for number, cell in enumerate(json.loads(notebook.read_text())["cells"]):
        assert not cell.get("outputs"), f"cell {number} has an output; run: nbstripout {notebook.relative_to(ROOT)}"
        assert cell.get("execution_count") is None, f"cell {number} is numbered; run: nbstripout {notebook.name}"


OWN_PATHS = [re.escape(f"{ROOT}/"), re.escape(f"{Path.home()}/"), r"/(?:work|root)/"]
HOSTS = r"(?:pypi|pythonhosted|registry\.npmjs|deb\.debian)\.org"  # never spelled out, not even here
BETRAYING = re.compile(rf"(?<![\w.~)}}-])(?:{'|'.join(OWN_PATHS)})[\w.]|{HOSTS}")


def test_no_tracked_file_names_a_path_of_one_machine_or_the_host_of_a_package_registry():
    found = {f"{path.relative_to(ROOT)}: {match[0]}" for path in TRACKED for match in BETRAYING.finditer(text(path))}
    assert not found


@pytest.mark.parametrize(
    "path", ["/" + "work/main/a", "in /" + "root/.cache", f"{Path.home()}/x", "(see https://pypi" + ".org/simple)"]
)
def test_the_search_for_machine_paths_finds_them(path):
    assert BETRAYING.search(path)


@pytest.mark.parametrize("path", ["frame/" + "work/x", "/home/alice/map", "tests/root/x", "{path}/" + "work/x"])
def test_the_search_for_machine_paths_spares_other_paths(path):
    assert not BETRAYING.search(path)


# ------------------------------------------------------------------------------------- two commands


def targets():
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))


def ci_commands():
    return re.findall(r"make \w+", (ROOT / ".ci/run").read_text())


def test_the_readme_names_the_two_commands_and_no_target_that_does_not_exist():
    for readme in ROOT.glob("README.md"):  # pip itself refuses to install without one
        named = re.findall(r"\bmake ([a-z]+)\b(?=[^\n]*$)", "\n".join(code_of(readme)), re.M)
        assert {"book", "test"} <= set(named) <= targets()


def code_of(readme):
    """The code blocks and the code in running text of a Markdown file."""
    return re.findall(r"^```.*?^```|`[^`\n]+`", readme.read_text(), re.M | re.S)


def test_ci_runs_the_test_command_of_the_readme():
    assert ci_commands() == ["make test"]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_the_workflow_runs_both_commands():
    [workflow] = (ROOT / ".github/workflows").glob("*.yml")
    assert {"make test", "make book"} <= set(re.findall(r"make \w+", workflow.read_text()))


def test_each_test_is_in_one_of_the_runs(monkeypatch):
    tests = runpy.run_path(str(ROOT / "tools" / "tests.py"))
    ran = []
    monkeypatch.setattr(
        subprocess, "run", lambda command, cwd: ran.append(command) or SimpleNamespace(returncode=len(ran) - 1)
    )
    assert tests["main"]([]) == 1  # the second run's status: that of the first was 0
    beside, alone = (command[3:] for command in ran)
    assert [part for part in beside if part.startswith(("tests", "--ignore"))] == ["tests", "--ignore=tests/live"]
    assert alone == ["tests/live"]
    assert tests["main"](["-k", "doctor"]) == 2
    assert ran[2][3:] == ["-k", "doctor"]


# ------------------------------------------------------------------------------------- pinned versions


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_installed_package_has_the_version_of_constraints_txt():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {canonical(name): version for name, version in (line.split("==") for line in lines)}
    installed = {canonical(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()}
    for ours in ("kernelnotes", "pip", "setuptools", "wheel"):
        installed.pop(ours, None)
    assert dict(sorted(installed.items() - pinned.items())) == {}


# ------------------------------------------------------------------------------------- no quiet skip

SUITE = """
import pytest
from kernelnotes.live import machine

machine.examine = lambda names: [machine.Ability(*names, False, "", "it is Monday", "wait")]

@pytest.mark.needs("autofs")
def test_needing(): pass

@pytest.mark.needs(program="pahole")
def test_running(): pass

@pytest.mark.skip(reason="no reason")
def test_marked(): pass

@pytest.mark.skip(reason="the moon is down")
def test_listed(): pass

def test_calling(): pytest.skip("in the middle")

@pytest.mark.xfail(strict=True)
def test_known(): assert False

def test_passing(): pass
"""


@pytest.fixture
def suite(tmp_path):
    conftest = (ROOT / "tests/conftest.py").read_text()
    listing = conftest.replace("IMPOSSIBLE: tuple[str, ...] = ()", 'IMPOSSIBLE = ("the moon is down",)')
    assert listing.count("the moon") == 1
    conftest = listing.replace("/usr/local/sbin:/usr/sbin:/sbin", "")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "test_absent.py").write_text("import pytest\npytest.importorskip('no_such_package')\n")
    return tmp_path


def outcome(suite, **environment):
    clean = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith("PYTEST")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        suite,
    ]
    environment = clean | {"PATH": str(suite)} | environment
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, check=False)
    return done.stdout


def test_a_machine_that_cannot_skips_with_reason_and_remedy(suite):
    output = outcome(suite)
    assert "needs autofs: it is Monday. Remedy: wait" in output
    assert "needs pahole: it is not installed. Remedy: apt-get install dwarves" in output
    assert "1 passed, 6 skipped, 1 xfailed" in output


def test_a_program_is_found_in_the_path_and_where_only_root_has_its_path(suite):
    (suite / "pahole").write_text("#!/bin/sh\n")
    (suite / "pahole").chmod(0o755)
    assert "2 passed, 5 skipped, 1 xfailed" in outcome(suite)
    (suite / "sbin").mkdir()
    (suite / "pahole").rename(suite / "sbin/pahole")
    conftest = (suite / "conftest.py").read_text()
    (suite / "conftest.py").write_text(conftest.replace('SYSTEM_PATH = ""', f'SYSTEM_PATH = "{suite}/sbin"'))
    assert "2 passed, 5 skipped, 1 xfailed" in outcome(suite)


def test_under_ci_every_skip_is_a_failure_unless_its_reason_is_listed(suite):
    output = outcome(suite, CI="true")
    red = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M))
    assert red == {
        "test_absent.py",
        *(f"test_suite.py::test_{name}" for name in ("needing", "running", "marked", "calling")),
    }
    assert "1 passed, 1 skipped, 1 xfailed" in output
    assert "needs autofs: it is Monday. Remedy: wait" in output
