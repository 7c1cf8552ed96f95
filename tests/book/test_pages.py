"""Every page of the built book, and of a toy book with every kind of control, as a reader's browser shows it.

A page is opened once over http and looked at in every way: controls, light, dark, narrow, print. It is opened once more
from disk, and once without JavaScript. Each test then states one claim about what was found.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import browser as browsing
import pages
import pytest
from playwright.sync_api import Browser

import book

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "_vendor" / "test" / "axe.min.js"
Findings = dict[str, list[str]]


def look_at(seen: browsing.Visit, explorers: int) -> tuple[Findings, list[str]]:
    """({what was looked for: problems}, what was moved) of one open page that has so many explorers."""
    page, found = seen.page, Findings()
    found["controls"], moved = browsing.move_everything(page)
    if len(moved) != explorers:
        found["controls"].append(f"{len(moved)} explorers show, {explorers} were written")
    start = browsing.contrast(page)
    browsing.put_all_last(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        browsing.wait(lambda scheme=scheme: browsing.theme(page) == scheme)
        found[scheme] = [] if browsing.theme(page) == scheme else [f"the page stays {browsing.theme(page)}"]
        found[scheme] += start + browsing.contrast(page) + browsing.accessibility(page, AXE)
    page.set_viewport_size({"width": 390, "height": 844})
    found["narrow"] = browsing.narrow(page)
    page.emulate_media(media="print")
    found["print"] = browsing.stills(page, explorers) if explorers else []
    found["itself"] = seen.problems
    return found, moved


def survey(browser: Browser, site: Path, moved: dict[str, list[str]]) -> Findings:
    """Every page of `site` looked at: {what was looked for: problems, each with its page}."""
    found: Findings = defaultdict(list)
    every = pages.pages(site)
    with browsing.serve(site) as base:
        for name, page in every.items():
            with browsing.visit(browser, f"{base}/{name}") as seen:
                findings, what = look_at(seen, sum(len(output["views"]) for output in page.outputs))
            for kind, problems in findings.items():
                found[kind] += [f"{name}: {problem}" for problem in problems]
            if what:
                moved[f"{site.parents[1].name}/{name}"] = what
    return found


@pytest.fixture(scope="module", params=["toy_site", "site"], ids=["toy", "book"])
def built(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def found(built: Path, browser: Browser, moved: dict[str, list[str]]) -> Findings:
    return survey(browser, built, moved)


def test_pages_pass_the_checks_that_need_no_browser(built: Path) -> None:
    assert pages.problems(built) == []


def test_every_control_moves_its_picture_and_play_plays(found: Findings) -> None:
    assert found["controls"] == []


def test_no_page_has_an_error_or_a_failed_or_foreign_request(found: Findings) -> None:
    assert found["itself"] == []


def test_light_pages_are_readable_and_accessible(found: Findings) -> None:
    assert found["light"] == []


def test_dark_pages_are_readable_and_accessible(found: Findings) -> None:
    assert found["dark"] == []


def test_pages_fit_a_narrow_screen(found: Findings) -> None:
    assert found["narrow"] == []


def test_every_explorer_has_a_still_version_in_print(found: Findings) -> None:
    assert found["print"] == []


def test_every_explorer_has_a_still_version_without_javascript(built: Path, browser: Browser) -> None:
    problems = []
    for name, page in pages.pages(built).items():
        if explorers := sum(len(output["views"]) for output in page.outputs):
            with browsing.visit(browser, (built / name).as_uri(), script=False) as seen:
                problems += [f"{name}: {problem}" for problem in browsing.stills(seen.page, explorers)]
    assert problems == []


def test_pages_work_from_disk_without_a_server(built: Path, browser: Browser) -> None:
    """Every page loads without a failed request, and every control is moved there too."""
    problems = []
    for name in pages.pages(built):
        with browsing.visit(browser, (built / name).as_uri()) as seen:
            if seen.page.query_selector(".kn-explorer"):
                problems += browsing.move_everything(seen.page)[0]
            problems += [f"{name}: {problem}" for problem in seen.problems]
    assert problems == []


def test_the_top_index_leads_to_the_first_page(built: Path, browser: Browser) -> None:
    with browsing.visit(browser, (built / "index.html").as_uri(), until="loaded") as seen:
        seen.page.wait_for_url("**/book/intro.html")
        assert seen.page.title()
        assert seen.problems == []


def test_the_book_has_explorers_to_move(site: Path) -> None:
    with_views = [name for name, page in pages.pages(site).items() if any(output["views"] for output in page.outputs)]
    assert with_views, f"no page of {', '.join(book.toc_files(ROOT))} has a control"
