"""Fixtures: the built book, a small book with every control, one browser; and the list of what was moved."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(Path(__file__).parent)]

import browser as browsing  # noqa: E402
import toy  # noqa: E402
from playwright.sync_api import Browser  # noqa: E402

import book  # noqa: E402

MOVED: dict[str, list[str]] = {}


@pytest.fixture(scope="session")
def site() -> Path:
    """The pages of the book, built if they are missing or out of date."""
    book.make(ROOT)
    return book.site(ROOT)


@pytest.fixture(scope="session")
def toy_site() -> Path:
    """The pages of the toy book; kept in _build/toy for the next run."""
    root = toy.write(ROOT / "_build" / "toy", ROOT)
    book.make(root)
    return book.site(root)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with browsing.chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def moved() -> dict[str, list[str]]:
    """Where tests note {page: what was moved there}, printed at the end of the run."""
    return MOVED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MOVED:
        terminalreporter.section("controls moved in a browser")
        for page, explorers in MOVED.items():
            terminalreporter.line(f"{page}: {len(explorers)} explorer(s)")
            for explorer in explorers:
                terminalreporter.line(f"    {explorer}")
