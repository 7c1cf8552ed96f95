"""Wheel and sdist, built and installed where nothing else is: what the README promises holds there."""

import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import package  # noqa: E402


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return package.build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_every_module_and_all_data(built):
    with zipfile.ZipFile(built[0]) as wheel:
        inside = {name for name in wheel.namelist() if name.startswith("kernelnotes/")}
    sources = {
        path.relative_to(ROOT).as_posix()
        for kind in ("*.py", "*.c", "*.gz", "*.txt", "py.typed")
        for path in (ROOT / "kernelnotes").rglob(kind)
    }
    assert sources - inside == set()


def test_both_work_in_a_clean_environment(built):
    said = package.try_out(sys.executable, *built, chapters=package.CHAPTERS[:1])  # the others: tools/package.py
    assert len(said) == 3
    assert "7 examples" in said[0]
    assert "the same files" in said[1]
    assert said[2].endswith("the notebooks refault/01-two-lists")


def test_a_step_that_fails_is_told(tmp_path):
    with pytest.raises(package.PackageError, match=r"status 3\nthis went wrong"):
        package.run([sys.executable, "-c", "import sys; print('this went wrong'); sys.exit(3)"], tmp_path)
