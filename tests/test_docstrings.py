"""The examples in the docstrings: each is run, and says what it prints."""

import doctest
import importlib
import inspect
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import generated  # noqa: E402

NAMES = [name for names in generated.MODULES.values() for name in names]
# They need root or a kernel that not every machine has; their chapters and the tests below tests/live run them.
LIVE = {"live.refault", "live.repair", "live.netlab", "live.autofs", "live.machine"}
BTF = {"btf"}  # reads what a kernel gives: tests/test_btf.py


def examples():
    """One doctest per docstring of the modules in the reference, and of all that they offer."""
    finder = doctest.DocTestFinder(recurse=False)
    seen = set()
    for name in NAMES:
        module = importlib.import_module(f"kernelnotes.{name}")
        for value in [module, *(getattr(module, each) for each in generated.public(module))]:
            wanted = value is module or inspect.isclass(value) or inspect.isfunction(value)
            if not wanted or id(value) in seen:
                continue
            seen.add(id(value))  # a package offers again what its modules have
            name_of_it = name if value is module else f"{name}.{value.__name__}"
            yield from (test for test in finder.find(value, name_of_it, module=False) if test.examples)


EXAMPLES = list(examples())


@pytest.fixture(scope="module")
def names():
    """What the page says is imported: the modules, by their names."""
    found = {name.partition(".")[0] for name in NAMES}
    return {"os": os} | {name: importlib.import_module(f"kernelnotes.{name}") for name in found}


def marked(test):
    """An example that needs the running kernel says so, as other tests do."""
    return pytest.param(test, id=test.name, marks=pytest.mark.needs("packet pipes") if "live" in test.name else ())


@pytest.mark.parametrize("example", [marked(test) for test in EXAMPLES])
def test_the_example_prints_what_it_says(example, names):
    example.globs = dict(names)
    said = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert result.attempted == len(example.examples)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LIVE | BTF])
def test_every_module_that_runs_anywhere_has_an_example(name):
    module = importlib.import_module(f"kernelnotes.{name}")
    offered = [module, *(getattr(module, each) for each in generated.public(module))]
    assert any(">>> " in (inspect.getdoc(value) or "") for value in offered)


def test_no_example_is_left_out():
    written = sum(path.read_text().count(">>> ") for path in (ROOT / "kernelnotes").rglob("*.py"))
    assert written == sum(len(test.examples) for test in EXAMPLES)


def test_an_example_that_is_wrong_is_found(names):
    wrong = doctest.DocTestParser().get_doctest(
        '>>> refault.replay("ABC", 2, "lru").faults\n4\n', dict(names), "w", None, 0
    )
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda text: None).failed == 1


def test_the_reference_shows_them():
    page = generated.api()
    for test in EXAMPLES:
        assert f">>> {test.examples[0].source.splitlines()[0]}" in page, test.name
