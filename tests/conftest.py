"""What every test can ask for: `@pytest.mark.needs("tcp repair")`, answered by trying (see `kernelnotes doctor`).

A machine that lacks the ability skips the test and says what would help. Where CI is set nothing is skipped quietly:
each skip, whoever asked for it, is a failure unless its reason is on the list below.
"""

import os
from functools import cache

import pytest

from kernelnotes.live import machine

# Reasons, word for word, that no machine could mend.
IMPOSSIBLE: tuple[str, ...] = ()


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(*abilities): run only where `kernelnotes doctor` finds the abilities")


@cache
def ability(name):
    """The ability, tried once in a session."""
    [answer] = machine.examine([name])
    return answer


def pytest_runtest_setup(item):
    for marker in item.iter_markers("needs"):
        for found in map(ability, marker.args):
            if not found.available:
                pytest.skip(f"needs {found.name}: {found.reason}. Remedy: {found.remedy}")


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
