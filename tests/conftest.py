"""What every test can ask for: `@pytest.mark.needs("tcp repair")`, answered by trying (see `kernelnotes doctor`).

A test that runs somebody else's program names it, `@pytest.mark.needs(program="pahole")`, with its package below.

A machine that lacks the ability skips the test and says what would help. Where CI is set nothing is skipped quietly:
each skip, whoever asked for it, is a failure unless its reason is on the list below.
"""

import os
import shutil
from functools import cache
from pathlib import Path

import pytest

from kernelnotes.live import machine

# Reasons, word for word, that no machine could mend.
IMPOSSIBLE: tuple[str, ...] = ()

# The programs that tests need, and Debian's packages of them, which tools/setup.py installs.
PROGRAMS = {
    "automount": "autofs",
    "chromium": "chromium",
    "nginx": "nginx",
    "pahole": "dwarves",
    "postgres": "postgresql",
    "redis-server": "redis-server",
    "strace": "strace",
}
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"  # of programs for root, not in everybody's PATH
POSTGRESQL = "/usr/lib/postgresql"  # Debian keeps each version in a folder of its own there


def pytest_configure(config):
    meaning = "run only where `kernelnotes doctor` finds the abilities, and the program of that name is installed"
    config.addinivalue_line("markers", f"needs(*abilities, program=None): {meaning}")


@cache
def ability(name):
    """The ability, tried once in a session."""
    [answer] = machine.examine([name])
    return answer


def find_program(name):
    """The path of the program, None where it is not installed, for whomever."""
    folders = [os.environ.get("PATH", ""), SYSTEM_PATH, *map(str, sorted(Path(POSTGRESQL).glob("*/bin")))]
    return shutil.which(name, path=":".join(folders))


@pytest.fixture
def program():
    """Find the path of a program that the test needs."""
    return find_program


def pytest_runtest_setup(item):
    for marker in item.iter_markers("needs"):
        for found in map(ability, marker.args):
            if not found.available:
                pytest.skip(f"needs {found.name}: {found.reason}. Remedy: {found.remedy}")
        program = marker.kwargs.get("program")
        if program and not find_program(program):
            pytest.skip(f"needs {program}: it is not installed. Remedy: apt-get install {PROGRAMS[program]}")


def _no_quiet_skip(report):
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if reason not in IMPOSSIBLE:
            report.outcome = "failed"
            report.longrepr = f"{report.nodeid} was skipped, and under CI nothing may be: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _no_quiet_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _no_quiet_skip((yield))
