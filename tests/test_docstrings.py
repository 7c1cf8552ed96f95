"""The examples in the docstrings: each is run, and says what it prints."""

import doctest
import importlib
import inspect
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import generated

NAMES = [name for names in generated.MODULES.values() for name in names]
# They need root or a kernel that not every machine has; their chapters and the tests below tests/live run them.
LIVE = {"live.refault", "live.repair", "live.netlab", "live.autofs", "live.machine", "btf"}


def examples():
    """One doctest per docstring of the modules in the reference, and of all that they offer."""
    finder = doctest.DocTestFinder(recurse=False)
    seen = set()
    for name in NAMES:
        module = importlib.import_module(f"kernelnotes.{name}")
        for value in [module, *(getattr(module, each) for each in generated.public(module))]:
            if not (inspect.ismodule(value) or inspect.isclass(value) or inspect.isfunction(value)):
                continue
            for test in finder.find(value, name if value is module else f"{name}.{value.__name__}", module=False):
                if test.examples and test.name not in seen and not (inspect.ismodule(value) and value is not module):
                    seen.add(test.name)
                    yield test


EXAMPLES = list(examples())


@pytest.fixture(scope="module")
def names():
    """What the page says is imported: the modules, by their names."""
    found = {name.partition(".")[0] for name in NAMES}
    return {"os": os} | {name: importlib.import_module(f"kernelnotes.{name}") for name in found}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_the_example_prints_what_it_says(example, names):
    example.globs = dict(names)
    said = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=said.append)
    assert result.attempted == len(example.examples)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LIVE])
def test_every_module_that_runs_anywhere_has_an_example(name):
    assert any(test.name == name or test.name.startswith(f"{name}.") for test in EXAMPLES)


def test_an_example_that_is_wrong_is_found(names):
    wrong = doctest.DocTestParser().get_doctest(
        '>>> refault.replay("ABC", 2, "lru").faults\n4\n', dict(names), "w", None, 0
    )
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda text: None).failed == 1


def test_the_reference_shows_them():
    page = generated.api()
    for test in EXAMPLES:
        assert f">>> {test.examples[0].source.splitlines()[0]}" in page, test.name
