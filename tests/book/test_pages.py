"""Every page of the built book, and of a toy book with every kind of control, as a reader's browser shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import browser as browsing
import pages
import pytest
from playwright.sync_api import Browser

import book

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "_vendor" / "test" / "axe.min.js"
Check = Callable[[browsing.Visit], list[str]]


@pytest.fixture(params=["toy", "book"])
def built(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue("toy_site" if request.param == "toy" else "site"))


def everywhere(browser: Browser, base: str, names: list[str], check: Check, **how: object) -> list[str]:
    """What `check` and the page itself find wrong on every page of `names`, each problem with its page."""
    found = []
    for name in names:
        with browsing.visit(browser, f"{base}/{name}", **how) as seen:  # type: ignore[arg-type]
            problems = check(seen)
            found += [f"{name}: {problem}" for problem in problems + seen.problems]
    return found


def nothing(seen: browsing.Visit) -> list[str]:
    return []


def test_pages_pass_the_checks_that_need_no_browser(built: Path) -> None:
    assert pages.problems(built) == []


def test_every_control_moves_its_picture_and_play_plays(
    built: Path, browser: Browser, moved: dict[str, list[str]]
) -> None:
    found = []
    with browsing.serve(built) as base:
        for name in pages.pages(built):
            with browsing.visit(browser, f"{base}/{name}") as seen:
                problems, what = browsing.move_everything(seen.page)
                found += [f"{name}: {problem}" for problem in problems + seen.problems]
                if what:
                    moved[f"{built.parents[1].name}/{name}"] = what
    assert found == []


def test_the_book_has_explorers_to_move(site: Path) -> None:
    with_views = [name for name, page in pages.pages(site).items() if any(output["views"] for output in page.outputs)]
    assert with_views, f"no page of {', '.join(book.toc_files(ROOT))} has a control"


def test_pages_work_from_disk_without_a_server(built: Path, browser: Browser) -> None:
    def moves(seen: browsing.Visit) -> list[str]:
        return browsing.move_everything(seen.page)[0] if len(seen.page.query_selector_all(".kn-explorer")) else []

    assert everywhere(browser, built.as_uri(), [*pages.pages(built)], nothing) == []
    first = next(n for n, p in pages.pages(built).items() if any(o["views"] for o in p.outputs))
    assert everywhere(browser, built.as_uri(), [first], moves) == []


def test_the_top_index_leads_to_the_first_page(built: Path, browser: Browser) -> None:
    with browsing.visit(browser, (built / "index.html").as_uri(), until="loaded") as seen:
        seen.page.wait_for_url("**/book/intro.html")
        assert seen.page.title()
        assert seen.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_readable_and_accessible(built: Path, browser: Browser, scheme: str) -> None:
    def check(seen: browsing.Visit) -> list[str]:
        theme = seen.page.evaluate("document.documentElement.dataset.theme")
        wrong = [] if theme == scheme else [f"the page is {theme}, not {scheme}"]
        return wrong + browsing.contrast(seen.page) + browsing.accessibility(seen.page, AXE)

    with browsing.serve(built) as base:
        assert everywhere(browser, base, [*pages.pages(built)], check, scheme=scheme, until="shown") == []


def test_pages_fit_a_narrow_screen(built: Path, browser: Browser) -> None:
    with browsing.serve(built) as base:
        names = [*pages.pages(built)]
        assert everywhere(browser, base, names, lambda seen: browsing.narrow(seen.page), width=390, until="shown") == []


@pytest.mark.parametrize("how", ["print", "without JavaScript"])
def test_every_explorer_has_a_still_version(built: Path, browser: Browser, how: str) -> None:
    found = []
    for name, page in pages.pages(built).items():
        views = sum(len(output["views"]) for output in page.outputs)
        if not views:
            continue
        with browsing.visit(browser, (built / name).as_uri(), script=how == "print") as seen:
            if how == "print":
                seen.page.emulate_media(media="print")
            found += [f"{name}: {problem}" for problem in browsing.stills(seen.page, views)]
    assert found == []
